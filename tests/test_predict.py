"""Recordings through a trained model."""

import json
import sys

import numpy as np
import pytest
import soundfile

from configs.mtl_aug import get_config
from ser_jax import loop, predict, train
from ser_jax.audio import read_audio
from ser_jax.errors import UserError
from ser_jax.experiment import build_experiment
from ser_jax.predictor import WINDOW_SECONDS, load


def _config(beeps, **fields):
    config = get_config('csv_corpus/beeps,smoke')
    config.data.data_dir = beeps['data_dir']
    config.update(fields)
    return config


@pytest.fixture(scope='module')
def finished(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('predict') / 'run'
    config = _config(beeps, final=True, steps=30)
    config.optimiser.learning_rate = 0.02
    train.train_and_evaluate(config, workdir)
    return workdir, build_experiment(config)


def _files(beeps, n=6):
    from pathlib import Path

    return sorted(Path(beeps['manual_dir'], 'beeps').glob('*.wav'))[:n]


def test_equals_the_prediction_from_records(finished, beeps):
    workdir, experiment = finished
    rows = np.arange(len(experiment.corpus))
    variables = loop.restore_best(experiment, workdir / 'checkpoints' / 'final')
    expected = loop.predict(experiment, variables, experiment.utterances(rows))['emotion']
    by_id = dict(zip(experiment.corpus.index['id'], expected))
    files = _files(beeps)
    assert np.ptp(expected, axis=0).max() > 0.02, 'they all say the same'
    ours = load(workdir).predict([read_audio(path) for path in files])['emotion']
    np.testing.assert_allclose(ours, [by_id[path.stem] for path in files], atol=1e-3)


def test_long_recordings_are_cut_into_windows(finished):
    predictor = load(finished[0])
    rng = np.random.default_rng(0)
    short = rng.normal(0, 3000, int(16000 * WINDOW_SECONDS)).astype(np.int16)
    long = np.tile(short, 3)[: int(2.3 * len(short))]
    starts = np.linspace(0, len(long) - len(short), 4).astype(int)
    pieces = [long[start : start + len(short)] for start in starts]
    expected = predictor.predict(pieces)['emotion'].mean(axis=0)
    np.testing.assert_allclose(predictor.predict([short, long])['emotion'][1], expected, atol=1e-5)


@pytest.mark.parametrize('form', ['table', 'csv', 'json'])
def test_command(finished, beeps, tmp_path, capsys, form):
    files = _files(beeps, 2)
    stereo = tmp_path / 'stereo.flac'
    soundfile.write(stereo, np.random.default_rng(0).normal(0, 0.1, (30000, 2)), 44100)
    (tmp_path / 'broken.wav').write_bytes(b'RIFF')
    status = predict.main(
        [f'--workdir={finished[0]}', f'--format={form}', str(tmp_path), *map(str, files)]
    )
    out, err = capsys.readouterr()
    assert status == 1
    assert 'broken.wav' in err
    assert '1 of 4 files' in err
    lines = out.splitlines()
    assert len(lines) == 3 + (form != 'json')
    assert 'stereo.flac' in out
    if form == 'json':
        for line in map(json.loads, lines):
            assert sum(line['probabilities'].values()) == pytest.approx(1, abs=1e-4)
            assert line['emotion'] == max(line['probabilities'], key=line['probabilities'].get)


def test_nothing_to_predict_with(beeps, tmp_path):
    with pytest.raises(UserError, match='no finished run'):
        load(tmp_path)
    train.train_and_evaluate(_config(beeps), tmp_path / 'run')
    with pytest.raises(UserError, match='no final model'):
        load(tmp_path / 'run')


def test_a_folder_without_audio(finished, tmp_path):
    with pytest.raises(SystemExit, match='holds no'):
        predict.main([f'--workdir={finished[0]}', str(tmp_path)])


def test_benchmark(finished, beeps, tmp_path, monkeypatch):
    from benchmarks import prediction

    out = tmp_path / 'times.json'
    flags = [f'--workdir={finished[0]}', '--rounds=1', '--limit=4', f'--out={out}']
    monkeypatch.setattr(sys, 'argv', ['prediction', *flags, f'{beeps["manual_dir"]}/beeps'])
    prediction.main()
    result = json.loads(out.read_text())
    assert result['files'] == 4
    assert result['times_real_time']['ser_jax.predict'] > 0
    assert result['environment']['device']
