"""The models that come with ser_jax: complete, small, licensed; found by name, loaded and exported with their encoder."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import run

import ser_jax
from ser_jax.runs.result_card import read_card
from ser_jax.runtime.errors import UserError
from ser_jax.serving import export, shipped

needs_encoder = pytest.mark.skipif(
    not os.environ.get('SER_JAX_ENCODER'),
    reason='SER_JAX_ENCODER names no folder with the encoder of the general model',
)


def test_names_and_folders(tmp_path, monkeypatch):
    assert shipped.names() == ['general']
    assert shipped.model_folder('general') == shipped.FOLDER / 'general'
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'general').mkdir()
    assert shipped.model_folder('./general') == tmp_path / 'general'
    with pytest.raises(UserError, match='genral is neither a run directory nor a model'):
        shipped.model_folder('genral')


@pytest.mark.parametrize('name', shipped.names())
def test_models_are_small_and_described(name):
    folder = shipped.FOLDER / name
    assert sum(path.stat().st_size for path in folder.rglob('*') if path.is_file()) < 4_000_000
    card = read_card(folder)
    assert not card['synthetic']
    assert '+' not in card['commit']  # made by committed code
    assert card['corpus'] not in card['trained_on']
    assert set(card['calibration']['clean']) >= {'ece', 'temperature'}
    assert 'not for commercial use' in (folder / 'LICENCE.md').read_text()
    assert {'README.md', 'LICENCE.md', 'table.md'} <= {path.name for path in folder.iterdir()}
    texts = [path.read_bytes() for path in folder.rglob('*') if path.is_file()]
    assert not any(place in text for text in texts for place in (b'/home/', b'/tmp/', b'/root/'))


def test_without_its_encoder(tmp_path):
    environment = {**os.environ, 'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path)}
    environment.pop('SER_JAX_ENCODER', None)
    command = [sys.executable, '-m', 'ser_jax.predict', 'x.wav']
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 1
    [line] = found.stderr.splitlines()
    assert 'whisper-tiny.en' in line
    assert 'SER_JAX_ENCODER' in line


@needs_encoder
def test_prediction_without_a_workdir(tmp_path):
    time = np.arange(32000) / 16000
    soundfile.write(tmp_path / 'silent.wav', 0 * time, 16000)
    found = run('ser_jax.predict', '--format=json', str(tmp_path))
    assert found.returncode == 0, found.stderr
    answers = [json.loads(line) for line in found.stdout.splitlines()]
    [answer] = answers
    assert answer['model'].startswith('general-')
    assert answer['emotion'] is None
    assert answer['flags'] == ['silent']


@needs_encoder
def test_an_export_carries_the_licence(tmp_path):
    export.write_export('general', tmp_path / 'model', 'stablehlo')
    licence = (shipped.FOLDER / 'general' / 'LICENCE.md').read_text()
    assert (tmp_path / 'model' / 'LICENCE.md').read_text() == licence
    card = json.loads((tmp_path / 'model' / 'card.json').read_text())
    assert 'LICENCE.md' in card['licence']
    assert card['test']['models'] == 'the exported model, on a corpus unseen in training'
    assert card['test']['corpus'] == 'urdu'


@needs_encoder
def test_the_general_model_from_python():
    predictor = ser_jax.load()
    rng = np.random.default_rng(0)
    answer = predictor.predict(0.1 * rng.standard_normal(32000).astype(np.float32), 16000)
    assert (answer.outputs, answer.flags) == (None, ('non_speech',))
    assert predictor.tasks[0].classes == ('angry', 'happy', 'neutral', 'sad')
    assert not predictor.uncalibrated
    assert not predictor.synthetic


@needs_encoder
def test_real_speech():
    """The model has seen this speech: the labels show that it is the right model with the right encoder."""
    folder = os.environ.get('SER_JAX_MANUAL_DIR')
    if not folder:
        pytest.skip('SER_JAX_MANUAL_DIR names no folder with EMO-DB')
    predictor, names = ser_jax.load(), {'W': 'angry', 'F': 'happy', 'N': 'neutral', 'T': 'sad'}
    files = sorted(path for path in (shipped.Path(folder) / 'emodb').rglob('03*.wav'))
    files = [path for path in files if path.stem[5] in names][:24]
    right = [predictor.predict(path).best('emotion') == names[path.stem[5]] for path in files]
    assert np.mean(right) > 0.9
