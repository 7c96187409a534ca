"""openSMILE functionals in the place of a pretrained encoder; needs the extra [opensmile]."""

from pathlib import Path

import numpy as np
import pytest

from configs.probe import get_config
from ser_jax.encoding.extraction import Extractor, export_encoder
from ser_jax.models.encoders import functionals
from ser_jax.models.encoders.pretrained import EncoderInput, load_encoder
from ser_jax.runtime.errors import UserError
from ser_jax.serving.export import write_export
from ser_jax.serving.predictor import load
from ser_jax.train import train_and_evaluate

RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def encoder():
    pytest.importorskip('opensmile', reason='needs the extra [opensmile]')
    return load_encoder('opensmile')


def test_extraction_equals_the_package(encoder):
    import opensmile

    waveforms = [(3000 * RNG.normal(size=size)).astype(np.int16) for size in (9000, 16000)]
    found = Extractor(encoder, output='statistics')(waveforms)
    smile = opensmile.Smile(opensmile.FeatureSet.ComParE_2016, opensmile.FeatureLevel.Functionals)
    for waveform, array in zip(waveforms, found):
        expected = smile.process_signal(waveform / np.float32(32768), 16000).to_numpy()
        np.testing.assert_array_equal(array, expected)


def test_a_padded_batch_in_a_jitted_function_equals_single_waveforms(encoder):
    import jax

    samples = np.array([9000, 16000], np.int32)
    batch = RNG.normal(size=(2, 16000)).astype(np.float32) / 10
    seen = EncoderInput(encoder, (0,))
    found, length = jax.jit(lambda *x: seen(*x, {}))(batch, samples)
    expected = encoder.module.extract([row[:size] for row, size in zip(batch, samples)])
    np.testing.assert_array_equal(found, np.stack(expected))
    assert found.shape == (2, 1, seen.features)
    assert length.tolist() == [1, 1]


def test_digital_silence_is_finite(encoder):
    (found,) = encoder.module.extract([np.zeros(functionals.Functionals.min_samples, np.float32)])
    assert np.isfinite(found).all()


def test_probe_is_trained_tested_in_noise_and_predicts(encoder, beeps, tmp_path, tones_are_speech):
    config = get_config('csv_corpus/beeps,opensmile,smoke')
    config.data.update(data_dir=beeps['data_dir'], manual_dir=beeps['manual_dir'] + '/beeps')
    config.conditions, config.final = ("noise('pink', 5)",), True
    card = train_and_evaluate(config, tmp_path / 'run')
    assert set(card['conditions']) == {'clean', 'noise_pink_5db'}
    assert card['encoder']['name'] == 'opensmile'
    file = next(Path(beeps['manual_dir']).rglob('*.wav'))
    assert load(tmp_path / 'run').predict(file).outputs['emotion'].sum() == pytest.approx(1)
    with pytest.raises(UserError, match='openSMILE functionals, which cannot be exported'):
        write_export(tmp_path / 'run', tmp_path / 'out', 'stablehlo')


def test_attacks_and_frames_are_refused(encoder, beeps, tmp_path):
    config = get_config('csv_corpus/beeps,opensmile,smoke')
    config.data.update(data_dir=beeps['data_dir'], manual_dir=beeps['manual_dir'] + '/beeps')
    config.conditions = ('fgsm_waveform(0.01)',)
    with pytest.raises(UserError, match='opensmile has no gradient'):
        train_and_evaluate(config, tmp_path)
    with pytest.raises(UserError, match='statistics only'):
        Extractor(encoder)
    with pytest.raises(UserError, match='cannot be exported'):
        export_encoder(encoder, (0,))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'opensmile', None)
    functionals._smile.cache_clear()
    with pytest.raises(UserError, match=r'openSMILE is not installed: pip install .*\[opensmile\]'):
        load_encoder('opensmile')
    functionals._smile.cache_clear()
