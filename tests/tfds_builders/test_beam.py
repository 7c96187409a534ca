"""The same builders on Apache Beam (extra [beam]): the same records, in the same order."""

import importlib.util

import numpy as np
import pytest
from trees import call, check_rows, failed, spoil, write_emodb

from ser_jax.prepare import open_prepared
from tfds_builders import build

_HAS_BEAM = importlib.util.find_spec('apache_beam') is not None


@pytest.mark.skipif(not _HAS_BEAM, reason='needs Apache Beam: the extra [beam]')
@pytest.mark.parametrize('representation', ['log_mel', 'waveform'])
def test_beam_gives_the_same_records(tmp_path, representation):
    folder = write_emodb(tmp_path / 'emodb')
    spoil(folder)
    flags = f'--manual_dir={folder}', '--num_shards=3', f'--representation={representation}'
    found = []
    for place, more in (('here', ()), ('beam', ('--beam_runner=DirectRunner',))):
        status, out, err = call(tmp_path / place, build, 'emodb', *flags, *more)
        assert status == 0, err
        assert 'skipped 4 unusable' in out
        data_dir = tmp_path / place / 'records'
        found.append(open_prepared('emodb', data_dir=data_dir, representation=representation))
    here, beam = found
    check_rows(beam)
    assert here.metadata == beam.metadata
    assert here.index.keys() == beam.index.keys()
    for name, values in here.index.items():
        assert values.dtype == beam.index[name].dtype
        np.testing.assert_array_equal(values, beam.index[name])
    for row in range(len(here)):
        np.testing.assert_array_equal(here.source()[row], beam.source()[row])
    assert {path.name for path in here.path.iterdir()} == {
        path.name for path in beam.path.iterdir()
    }


@pytest.mark.skipif(not _HAS_BEAM, reason='needs Apache Beam: the extra [beam]')
def test_strict_is_not_for_beam(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    flags = f'--manual_dir={folder}', '--beam_runner=DirectRunner', '--strict'
    failed(call(tmp_path, build, 'emodb', *flags), '--strict', tmp_path=tmp_path)


def test_options_without_a_runner_are_refused(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    flags = f'--manual_dir={folder}', '--beam_options=--project=mine'
    failed(call(tmp_path, build, 'emodb', *flags), 'need a --beam_runner', tmp_path=tmp_path)


@pytest.mark.skipif(_HAS_BEAM, reason='Apache Beam is there')
def test_beam_must_be_installed(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    flags = f'--manual_dir={folder}', '--beam_runner=DirectRunner'
    failed(call(tmp_path, build, 'emodb', *flags), 'ser_jax[beam]', tmp_path=tmp_path)
