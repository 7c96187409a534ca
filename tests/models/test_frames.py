"""The three systems on frames of a frozen encoder, and the probe on augmented views, on a tiny random encoder."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from conftest import run, write_beeps

from configs import adversarial_autoencoder, end_to_end, mtl_aug
from ser_jax.data.tasks import Task
from ser_jax.encoding.extraction import input_extractor
from ser_jax.evaluation.attacker import make_attack_step
from ser_jax.models.encoders.frames import FramesEncoder
from ser_jax.models.encoders.pretrained import EncoderInput, load_encoder
from ser_jax.models.probe import Model
from ser_jax.runtime.errors import UserError
from ser_jax.serving.predictor import load
from ser_jax.train import open_data, open_encoder, train_and_evaluate

VIEWS = ('speed(1.05, 1.2)', 'mixup(0.3)', 'noise(0, 20) + spec_mask(2, 0.1, 0.1)')
SYSTEMS = {
    'mtl_aug': 'csv_corpus/beeps,smoke,whisper_tiny',
    'end_to_end': 'csv_corpus/beeps,smoke,whisper_tiny,with_emotion',
    'adversarial_autoencoder': 'csv_corpus/beeps,smoke,whisper_tiny',
}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """manual_dir and data_dir of a corpus."""
    root = tmp_path_factory.mktemp('frames')
    write_beeps(root / 'manual' / 'beeps', speakers=6, takes=3, seed=3)
    return {'manual_dir': str(root / 'manual' / 'beeps'), 'data_dir': str(root / 'records')}


def trained(system, data, tiny_encoder, workdir, *flags):
    """The result card of a smoke run on frames."""
    done = run(
        'ser_jax.main',
        f'--config=configs/{system}.py:{SYSTEMS[system]}',
        f'--workdir={workdir}',
        f'--config.data.data_dir={data["data_dir"]}',
        f'--config.data.manual_dir={data["manual_dir"]}',
        '--config.encoder.layers=(1, 2)',
        '--config.crop_frames=16',
        '--config.batch_size=8',
        '--config.final=True',
        *flags,
        SER_JAX_ENCODER=str(tiny_encoder),
    )
    assert done.returncode == 0, done.stderr
    return json.loads((workdir / 'results.json').read_text())


@pytest.fixture(scope='module')
def finished(data, tiny_encoder, tmp_path_factory):
    """(workdir, result card) of MTL-AUG with views, mixup and masks, a corruption and an attack."""
    workdir = tmp_path_factory.mktemp('frames_run') / 'run'
    flags = [
        f'--config.augmentations={VIEWS}',
        '--config.steps=60',
        '--config.optimiser.learning_rate=0.01',
        '--config.eval_every=20',
        """--config.conditions=('telephone', 'fgsm_waveform(0.02)')""",
    ]
    return workdir, trained('mtl_aug', data, tiny_encoder, workdir, *flags)


def test_trains_all_tasks_on_views(finished):
    workdir, card = finished
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    first, last = rows[0], [row for row in rows if row['fold'] == 'fold_01'][-1]
    for task in ('emotion', 'augmentation_type', 'reconstruction'):
        assert np.isfinite(last[f'loss_{task}'])
    assert last['loss_reconstruction'] < first['loss_reconstruction']
    assert set(card['conditions']) == {'clean', 'telephone', 'fgsm_waveform_0.02'}
    assert card['encoder']['layers'] == [1, 2]


def test_waveforms_are_predicted_as_stored_frames_are(
    finished, data, tiny_encoder, monkeypatch, tones_are_speech
):
    workdir, _ = finished
    monkeypatch.setenv('SER_JAX_ENCODER', str(tiny_encoder))
    predictor = load(workdir)
    path = min(Path(data['manual_dir']).glob('*.wav'))
    waveform, rate = soundfile.read(path)
    found = predictor.predict(waveform, rate).outputs['emotion']
    assert found.sum() == pytest.approx(1, abs=1e-5)
    config = mtl_aug.get_config(SYSTEMS['mtl_aug'])
    config.data.update(data)
    config.encoder.layers, config.crop_frames = (1, 2), 16
    config.augmentations = VIEWS
    encoder = open_encoder(config)
    dataset = open_data(config, encoder)
    (row,) = np.flatnonzero([str(one).endswith(path.stem) for one in dataset.corpus.index['id']])
    (live,) = input_extractor(encoder)([(waveform * 32768).astype(np.int16)])
    np.testing.assert_allclose(dataset.corpus.source()[row], live, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize('system', ['end_to_end', 'adversarial_autoencoder'])
def test_the_other_systems_read_frames(system, data, tiny_encoder, tmp_path):
    card = trained(system, data, tiny_encoder, tmp_path / 'run')
    assert all(np.isfinite(result['uar']) for result in card['conditions'].values())
    done = run(
        'ser_jax.predict',
        f'--workdir={tmp_path / "run"}',
        str(min(Path(data['manual_dir']).glob('*.wav'))),
        SER_JAX_ENCODER=str(tiny_encoder),
    )
    assert done.returncode == 0, done.stderr


def test_exports(finished, tiny_encoder, tmp_path):
    workdir, _ = finished
    arguments = [f'--workdir={workdir}', f'--out={tmp_path / "out"}']
    done = run('ser_jax.export', *arguments, SER_JAX_ENCODER=str(tiny_encoder))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('output', ['statistics', 'frames'])
def test_the_input_in_the_step_equals_the_extractor(output, tiny_encoder):
    encoder = load_encoder(tiny_encoder)
    seen = EncoderInput(encoder, (1, 3), output)
    rng = np.random.default_rng(0)
    waveforms = [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (5000, 8320, 12345)]
    x = np.zeros((3, 16000), np.float32)
    for row, waveform in zip(x, waveforms):
        row[: len(waveform)] = waveform
    samples = np.array([len(waveform) for waveform in waveforms])
    found, lengths = jax.jit(lambda *inputs: seen(*inputs))(x, samples, encoder.params)
    for k, expected in enumerate(input_extractor(seen)(waveforms)):
        assert lengths[k] == len(expected)
        assert expected.shape[1] == seen.features
        np.testing.assert_allclose(found[k, : lengths[k]], expected, rtol=1e-4, atol=1e-4)


def test_padding_does_not_reach_the_states():
    module = FramesEncoder(8, 4, 0.3)
    rng = np.random.default_rng(0)
    x, length = rng.standard_normal((2, 12, 6)).astype(np.float32), np.array([12, 7])
    variables = module.init(jax.random.key(0), x, length, train=False)
    states, mask = module.apply(variables, x, length, train=False)
    assert states.shape == (2, 12, 16)
    x[1, 7:] = 1e3
    changed, _ = module.apply(variables, x, length, train=False)
    np.testing.assert_array_equal(states, changed)
    (short, _), alone = module.apply(variables, x[1:, :7], length[1:], train=False), states[1:, :7]
    np.testing.assert_allclose(short, alone, atol=1e-6)
    assert mask.sum() == 19


@pytest.mark.parametrize(
    ('module', 'changes', 'message'),
    [
        (mtl_aug, {'model.input': 'log_mel'}, "config.model.input is 'log_mel'"),
        (end_to_end, {'representation': 'waveform'}, "config.model.input is 'frames'"),
        (mtl_aug, {'reconstruction_target': 'augmented'}, "config.reconstruction_target must be 'clean'"),
        (mtl_aug, {'encoder.output': 'statistics', 'crop_frames': 1}, "needs config.encoder.output 'frames'"),
        (mtl_aug, {'data.front_end.hop_length': 200}, 'frames of an encoder need a divisor of 640'),
        (adversarial_autoencoder, {'encoder.layers': (1, 9)}, 'has layers 0 to 4'),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(
    module, changes, message, data, tiny_encoder, tmp_path, monkeypatch
):
    monkeypatch.setenv('SER_JAX_ENCODER', str(tiny_encoder))
    config = module.get_config('csv_corpus/beeps,smoke,whisper_tiny')
    config.data.update(data)
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as error:
        train_and_evaluate(config, tmp_path / 'run')
    assert message in str(error.value)


@pytest.mark.parametrize('output', ['statistics', 'frames'])
def test_attacks_reach_the_waveform_through_the_encoder(output, tiny_encoder):
    """One step of FGSM: the loss of every utterance rises, the bound holds."""
    tasks = (Task('emotion', 'classification', 'emotion', 1.0, ('a', 'b', 'c')),)
    seen = EncoderInput(load_encoder(tiny_encoder), (1, 3), output)
    model = Model({'emotion': 3})
    rng = np.random.default_rng(0)
    x = (0.1 * rng.standard_normal((4, 8000))).astype(np.float32)
    constants = {'mean': np.zeros(seen.features), 'std': np.ones(seen.features)}
    kernel = 0.01 * rng.standard_normal((seen.features, 3)).astype(np.float32)
    params = {'emotion_head': {'kernel': kernel, 'bias': np.zeros(3, np.float32)}}
    variables = {'params': params, 'batch_stats': {}, 'constants': constants}
    variables['encoder'] = seen.encoder.params
    epsilon = 1e-3
    batch = {'x': x, 'lower': x - epsilon, 'upper': x + epsilon, 'size': np.full(4, epsilon)}
    batch |= {'length': np.full(4, 8000), 'label_emotion': np.array([0, 1, 2, 0])}
    step = jax.jit(make_attack_step(model, tasks, 'waveform', seen))
    moved = step(variables, batch)
    after = step(variables, batch | {'x': moved['x']})
    assert (after['loss'] > moved['loss'] + 1e-4).all()
    assert np.abs(moved['x'] - x).max() == pytest.approx(epsilon, rel=1e-3)
    assert np.mean(np.abs(moved['x'] - x) > 0.9 * epsilon) > 0.9
