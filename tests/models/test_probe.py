"""The linear probe: its data, training, evaluation and prediction, on a tiny random encoder."""

import json
import os
import shutil

import numpy as np
import pytest
import soundfile
from conftest import run, write_beeps

from configs.probe import get_config
from ser_jax.data.labels import labels_of
from ser_jax.evaluation.calibration import tempered
from ser_jax.metrics import rates
from ser_jax.runtime.errors import UserError
from ser_jax.serving.predictor import load
from ser_jax.train import check_data, open_data, open_encoder, train_and_evaluate


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """manual_dir and data_dir of a corpus that is not trivial."""
    root = tmp_path_factory.mktemp('probe')
    write_beeps(root / 'manual' / 'beeps', speakers=6, takes=12, seed=3)
    return {'manual_dir': str(root / 'manual' / 'beeps'), 'data_dir': str(root / 'records')}


@pytest.fixture
def config(data, tiny_encoder, monkeypatch):
    monkeypatch.setenv('SER_JAX_ENCODER', str(tiny_encoder))
    config = get_config('csv_corpus/beeps')
    config.data.update(data)
    config.protocol = 'speaker_folds(2)'
    config.update(validation=False, eval_every=config.steps)
    return config


@pytest.fixture(scope='module')
def finished(data, tiny_encoder, tmp_path_factory):
    """A finished run, with a corruption and an attack on the waveform."""
    workdir = tmp_path_factory.mktemp('probe_run') / 'run'
    done = run(
        'ser_jax.main',
        '--config=configs/probe.py:csv_corpus/beeps',
        f'--workdir={workdir}',
        f'--config.data.data_dir={data["data_dir"]}',
        f'--config.data.manual_dir={data["manual_dir"]}',
        '--config.steps=60',
        '--config.eval_every=30',
        '--config.folds=(1,)',
        """--config.conditions=("noise('pink', 5)", 'fgsm_waveform(0.01)')""",
        SER_JAX_ENCODER=str(tiny_encoder),
    )
    assert done.returncode == 0, done.stderr
    return workdir


@pytest.mark.slow
def test_equals_logistic_regression_of_scikit_learn(config, tmp_path):
    from sklearn.linear_model import LogisticRegression

    config.final = False
    config.encoder.layers = (
        3,
    )  # 16 features, by which the classes cannot be separated: there is an optimum
    config.optimiser.update(weight_decay=0.0, learning_rate=0.02)
    config.steps = config.eval_every = 800
    card = train_and_evaluate(config, tmp_path / 'run')
    dataset = open_data(config, open_encoder(config))
    (task,) = dataset.reported
    rows = np.arange(len(dataset.corpus))
    x = np.concatenate([dataset.corpus.source()[row] for row in rows])
    labels = labels_of(dataset.corpus, rows, task.target, task.classes)
    predicted = np.zeros_like(labels)
    for fold in dataset.folds:
        mean, std = x[fold.train].mean(0), x[fold.train].std(0)
        model = LogisticRegression(C=1e6, class_weight='balanced', max_iter=5000)
        model.fit((x[fold.train] - mean) / std, labels[fold.train])
        predicted[fold.test] = model.predict((x[fold.test] - mean) / std)
    expected = float(rates.uar(rates.confusion_matrix(labels, predicted, len(task.classes))))
    assert 0.3 < expected < 0.999  # neither chance nor trivial
    assert card['conditions']['clean']['uar'] == pytest.approx(expected, abs=0.0101)


def test_conditions_reach_the_network_through_the_encoder(finished):
    card = json.loads((finished / 'results.json').read_text())
    uar = {name: result['uar'] for name, result in card['conditions'].items()}
    assert uar['fgsm_waveform_0.01'] < uar['clean']
    assert set(uar) == {'clean', 'noise_pink_5db', 'fgsm_waveform_0.01'}
    assert card['encoder']['layers'] == [1, 2, 3, 4]  # of the recipe
    assert len(card['encoder']['fingerprint']) == 64


def test_predicts_recordings(finished, data, tiny_encoder, monkeypatch, tones_are_speech):
    """From the waveform as from the stored statistics."""
    monkeypatch.setenv('SER_JAX_ENCODER', str(tiny_encoder))
    config = get_config('csv_corpus/beeps,settings=emodb')
    config.data.update(data)
    dataset = open_data(config, open_encoder(config))
    predictor = load(finished)
    row, name = 5, str(dataset.corpus.index['id'][5])
    waveform, rate = soundfile.read(f'{data["manual_dir"]}/{name.rpartition("/")[2]}.wav')
    found = predictor.predict(waveform, rate).outputs['emotion']
    from ser_jax.runs.checkpoints import Checkpoints

    stored = Checkpoints(finished / 'checkpoints' / 'final' / 'best', read_only=True).restore()
    x = dataset.corpus.source()[row][0]
    x = (x - stored['constants']['mean']) / stored['constants']['std']
    head = stored['params']['emotion_head']
    card = json.loads((finished / 'results.json').read_text())
    temperature = card['calibration']['clean'].get('temperature', 1.0)
    logits = x @ head['kernel'] + head['bias']
    np.testing.assert_allclose(found, tempered(_softmax(logits)[None], temperature)[0], atol=1e-3)


def _softmax(logits):
    odds = np.exp(logits - logits.max())
    return odds / odds.sum()


def test_another_encoder_is_refused(finished, tmp_path, monkeypatch):
    import encoder_folders

    other = encoder_folders.write_encoder(tmp_path / 'other', seed=1)
    monkeypatch.setenv('SER_JAX_ENCODER', str(other))
    with pytest.raises(UserError, match='was trained on the encoder openai/whisper-tiny'):
        load(finished)


def test_a_run_is_not_continued_on_another_encoder(config, finished, tmp_path, monkeypatch):
    import encoder_folders

    workdir = tmp_path / 'run'
    shutil.copytree(finished, workdir)
    stored = json.loads((workdir / 'config.json').read_text())
    asked = [
        *('ser_jax.main', '--config=configs/probe.py:csv_corpus/beeps', f'--workdir={workdir}'),
        *(f'--config.data.{name}={config.data[name]}' for name in ('data_dir', 'manual_dir')),
        *('--config.steps=60', '--config.eval_every=30', '--config.folds=(1,)'),
        """--config.conditions=("noise('pink', 5)", 'gain(-6)')""",
    ]
    other = encoder_folders.write_encoder(tmp_path / 'other', seed=1)
    done = run(*asked, SER_JAX_ENCODER=str(other))
    assert done.returncode == 1, done.stderr
    message = f'error: the pretrained encoder has changed since the run in {workdir} began'
    assert message in done.stderr
    assert json.loads((workdir / 'config.json').read_text()) == stored
    hashes = json.loads((workdir / 'corpora.json').read_text())
    assert hashes.pop('the pretrained encoder')
    (workdir / 'corpora.json').write_text(json.dumps(hashes))  # a run of an earlier version
    done = run(*asked, SER_JAX_ENCODER=os.environ['SER_JAX_ENCODER'])
    assert done.returncode == 0, done.stderr


def test_exports(finished, tiny_encoder, tmp_path):
    out = tmp_path / 'out'
    arguments = [f'--workdir={finished}', f'--out={out}']
    done = run('ser_jax.export', *arguments, SER_JAX_ENCODER=str(tiny_encoder))
    assert done.returncode == 0, done.stderr
    assert run('ser_jax.export', f'--check={out}').returncode == 0


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'augmentations': ('spec_mask(1, 0.1, 0.1)',)}, "spec_mask needs config.encoder.output 'frames'"),
        ({'encoder.layers': (0, 9)}, 'config.encoder.layers is (0, 9); openai/whisper-tiny.en has layers 0 to 4'),
        ({'crop_frames': 16}, 'config.crop_frames is 16'),
        ({'data.front_end.sample_rate': 8000, 'data.front_end.fmax': 4000.0}, 'encoders need 16000'),
        ({'augmentations': ('echo(0.2)',)}, "augmentation 'echo'"),
        ({'conditions': ('fgsm(0.1)',)}, 'condition fgsm_0.1'),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(config, tmp_path, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as error:
        train_and_evaluate(config, tmp_path / 'run')
    assert message in str(error.value)


def test_data_of_a_grid_are_checked_without_encoding(config, tmp_path, monkeypatch):
    monkeypatch.setattr('ser_jax.train.open_encoder', None)
    config.data.data_dir = str(tmp_path)
    check_data(config)
    assert (tmp_path / 'csv_corpus/beeps/waveform').exists()
    assert not (tmp_path / 'csv_corpus/beeps/encoded').exists()


def test_unusable_weights_are_refused_by_the_name_of_the_field(config, tmp_path, monkeypatch):
    monkeypatch.delenv('SER_JAX_ENCODER')
    config.encoder.weights = 'no name'
    with pytest.raises(UserError, match=r'^config\.encoder\.weights: no name is neither'):
        train_and_evaluate(config, tmp_path / 'run')


def test_a_corpus_that_cannot_be_trained_is_refused_before_encoding(config, tmp_path, monkeypatch):
    monkeypatch.setattr('ser_jax.prepare.encode_corpus', lambda *_, **__: pytest.fail('encoded'))
    config.protocol = 'speaker_folds(50)'
    with pytest.raises(UserError, match='speaker_folds'):
        train_and_evaluate(config, tmp_path)
