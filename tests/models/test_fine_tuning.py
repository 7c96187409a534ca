"""Fine-tuning of a pretrained encoder from the probe on: what trains, rates, checkpoints, evaluation, on tiny random encoders."""

import json
import shutil
from pathlib import Path

import encoder_folders
import jax
import numpy as np
import pytest
from conftest import metrics, run, same_on_devices, write_beeps
from flax.traverse_util import flatten_dict
from runs_on_disk import assert_same

from configs.probe import get_config
from ser_jax.data.encoded import is_encoded
from ser_jax.models.encoders import fine_tuning
from ser_jax.models.encoders.wav2vec2 import Wav2Vec2
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runs.predictions import read_predictions
from ser_jax.runtime.errors import UserError
from ser_jax.serving.predictor import load
from ser_jax.train import build_experiment, train_and_evaluate
from ser_jax.training import inference, loop, steps

CORPUS = 'csv_corpus/beeps'
VIEWS = ('speed(0.8, 1.25)', 'noise(0, 20) + gain(-10, 0)')
LAYERS = 'layer_0', 'layer_1'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """manual_dir and data_dir of two corpora."""
    root = tmp_path_factory.mktemp('fine_tuning')
    write_beeps(root / 'manual' / 'beeps', speakers=6, takes=3, seed=3)
    write_beeps(root / 'manual' / 'hums', speakers=2, seed=1, prefix='h')
    return {'manual_dir': str(root / 'manual'), 'data_dir': str(root / 'records')}


@pytest.fixture
def config(data, tiny_encoder, monkeypatch):
    """A short fine-tuning of the highest layer."""
    monkeypatch.setenv('SER_JAX_ENCODER', str(tiny_encoder))
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', data['manual_dir'])
    config = get_config(f'{CORPUS},smoke,fine_tune')
    config.data.data_dir = data['data_dir']
    config.encoder.layers = (1, 2)
    config.update(protocol='speaker_folds(2)', crop_frames=60, steps=6, eval_every=3)
    config.fine_tune.update(trains='top(1)', head_steps=40)
    config.optimiser.learning_rate = 0.02
    return config


def command(data, workdir, *flags):
    """A fine-tuning on views, evaluated in every way."""
    return (
        'ser_jax.main',
        f'--config=configs/probe.py:{CORPUS},views,fine_tune,smoke',
        f'--workdir={workdir}',
        f'--config.data.data_dir={data["data_dir"]}',
        '--config.encoder.layers=(1, 2)',
        '--config.crop_frames=60',
        f'--config.augmentations={VIEWS}',
        '--config.fine_tune.trains=lora(2)',
        '--config.fine_tune.head_steps=80',
        '--config.optimiser.learning_rate=0.02',
        '--config.steps=20',
        '--config.eval_every=10',
        *flags,
    )


@pytest.fixture(scope='module')
def finished(data, tiny_encoder, tmp_path_factory):
    """The workdir of a run with a final model, conditions and another corpus."""
    workdir = tmp_path_factory.mktemp('fine_tuned') / 'run'
    done = run(
        *command(data, workdir),
        '--config.final=True',
        """--config.conditions=("noise('pink', 5)", 'fgsm_waveform(0.01)')""",
        "--config.test_corpora=('csv_corpus/hums',)",
        '--config.few_shot=(0, 1)',
        '--config.few_shot_steps=10',
        SER_JAX_ENCODER=str(tiny_encoder),
        SER_JAX_MANUAL_DIR=data['manual_dir'],
    )
    assert done.returncode == 0, done.stderr
    return workdir


def outputs(experiment, state):
    fold = experiment.dataset.folds[0]
    utterances = experiment.dataset.utterances(fold.validation)
    return inference.predict(experiment, steps.inference_variables(state), utterances)['emotion']


@pytest.mark.parametrize('trains', ['top(1)', 'lora(2)', 'all'])
def test_step_0_equals_the_probe(config, trains):
    config.fine_tune.trains = trains
    tuned = build_experiment(config)
    rows = tuned.dataset.folds[0].train
    start = tuned.head.train(rows)
    probe = outputs(tuned.head, tuned.head.initial_state(rows, start))
    assert probe.max(axis=1).std() > 0.01  # the head has learnt something
    np.testing.assert_allclose(outputs(tuned, tuned.initial_state(rows, start)), probe, atol=2e-5)


@pytest.mark.parametrize(
    ('trains', 'front_end', 'expected'),
    [
        ('top(1)', False, {'layer_1'}),
        ('lora(2)', False, {*LAYERS}),
        ('all', False, {*LAYERS}),
        ('all', True, {*LAYERS, 'conv1', 'conv2'}),
    ],
)
def test_only_what_trains_moves_and_has_a_state(config, trains, front_end, expected):
    config.fine_tune.update(trains=trains, front_end=front_end, rate=1.0)
    experiment = build_experiment(config)
    rows = experiment.dataset.folds[0].train
    initial = jax.device_get(experiment.initial_state(rows))
    state, placement = experiment.initial_state(rows), experiment.program.placement
    batch, losses = experiment.dataset.train_batches(rows)[0], []
    for _ in range(4):
        state, step_metrics = experiment.program.train_step(state, placement.to_devices([batch]))
        losses.append(float(step_metrics['loss']))
    assert losses[-1] < losses[0]
    state = jax.device_get(state)
    jax.tree.map(
        np.testing.assert_array_equal, state.model_state['encoder'], initial.model_state['encoder']
    )
    before, after = (flatten_dict(one.params[fine_tuning.PRETRAINED]) for one in (initial, state))
    assert {path[0] for path in after} == expected
    moved = {path for path in after if not np.array_equal(after[path], before[path])}
    still = {path for path in after if path not in moved}
    # The first step of low-rank updates moves B alone; nothing else stays.
    assert moved
    assert not still or trains == 'lora(2)'
    assert all(path[-1].startswith('lora_') for path in after) == (trains == 'lora(2)')
    n_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    n_state = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if np.ndim(leaf))
    assert n_state == 3 * n_params  # two moments and the average
    everything = experiment.program.encoder.encoder.params
    frozen = flatten_dict(state.model_state['encoder'])
    assert {*frozen, *after} == {*flatten_dict(everything)}
    assert not {*frozen} & {*after}


def rates(module, trains, layers, **changes):
    """`learning_rates` of a module: top level of the path -> rate, the same for all parameters below it."""
    params = jax.eval_shape(
        module.init, jax.random.key(0), np.zeros((1, 4000), np.float32), np.full(1, 4000)
    )['params']
    settings = {'rate': 0.1, 'layer_decay': 0.5, 'front_end': False} | changes
    found = fine_tuning.learning_rates(module, params, layers, trains=trains, **settings)
    by_name = {}
    for path, rate in found.items():
        assert by_name.setdefault(path[0], rate) == rate
    return by_name


def test_rates_fall_from_the_highest_layer_in_use():
    whisper = encoder_folders.module()
    assert rates(whisper, 'all', (0, 2)) == {'layer_1': 0.1, 'layer_0': 0.05}
    assert rates(whisper, 'all', (1,)) == {'layer_0': 0.1}
    assert rates(whisper, 'top(1)', (1, 2), layer_decay=0.1) == {'layer_1': 0.1}
    assert rates(whisper, 'all', (3,)) == {'norm': 0.1, 'layer_1': 0.05, 'layer_0': 0.025}
    front = rates(whisper, 'all', (2,), front_end=True)
    assert front == {'layer_1': 0.1, 'layer_0': 0.05, 'conv1': 0.025, 'conv2': 0.025}
    assert rates(whisper, 'top(1)', (0,)) == {}
    low_rank = encoder_folders.module(lora_rank=2)
    assert rates(low_rank, 'lora(2)', (2,)) == {'layer_1': 0.1, 'layer_0': 0.05}
    assert fine_tuning.lora_rank('lora(2)') == 2
    assert fine_tuning.lora_rank('top(2)') == fine_tuning.lora_rank('') == 0


@pytest.mark.parametrize('pre_norm', [False, True])
def test_the_norm_of_wav2vec_counts_where_it_stands(pre_norm):
    sizes = {'width': 32, 'layers': 2, 'heads': 4, 'hidden': 64, 'conv_dim': (16,) * 7}
    module = Wav2Vec2(**sizes, pre_norm=pre_norm, group_norm=not pre_norm)
    assert rates(module, 'all', (2,)) == {'layer_1': 0.1, 'layer_0': 0.05}
    front = rates(module, 'all', (2,), front_end=True)
    assert ('norm' in front) == (not pre_norm)
    assert front['positions'] == front['conv_0'] == front['projection'] == 0.025
    if pre_norm:
        assert rates(module, 'top(1)', (3,)) == {'norm': 0.1}


def test_checkpoints_lack_the_frozen_parameters_and_resume_bit_for_bit(
    config, tmp_path, monkeypatch
):
    config.update(augmentations=VIEWS, final=True)
    train_and_evaluate(config, tmp_path / 'whole')
    stored = Checkpoints(tmp_path / 'whole/checkpoints/fold_01/best', read_only=True).restore()
    assert set(stored) == {'params', 'batch_stats', 'constants'}
    assert set(stored['params'][fine_tuning.PRETRAINED]) == {'layer_1'}

    class Stopped(Exception):
        pass

    after_step = loop.FoldTraining.after_step

    def stop(self, *arguments):
        after_step(self, *arguments)
        if self.step == 4:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(loop.FoldTraining, 'after_step', stop)
        with pytest.raises(Stopped):
            train_and_evaluate(config, tmp_path / 'stopped')
    latest = tmp_path / 'stopped/checkpoints/fold_01/latest'
    assert Checkpoints(latest, read_only=True).step == 3
    assert 'encoder' not in Checkpoints(latest, read_only=True).restore()['model_state']

    with monkeypatch.context() as patch:
        other = encoder_folders.write_encoder(tmp_path / 'other', seed=1)
        patch.setenv('SER_JAX_ENCODER', str(other))
        with pytest.raises(UserError, match='the pretrained encoder has changed'):
            train_and_evaluate(config, tmp_path / 'stopped')
    train_and_evaluate(config, tmp_path / 'stopped')
    assert_same(tmp_path / 'stopped', tmp_path / 'whole', ('fold_01', 'final'))


def probability_of_the_label(workdir, condition):
    found, _ = read_predictions(workdir / 'predictions' / f'{condition}.csv')
    return found.probabilities[np.arange(len(found.label)), found.label].mean()


def test_every_evaluation_reaches_the_fine_tuned_encoder(finished):
    card = json.loads((finished / 'results.json').read_text())
    uar = {name: result['uar'] for name, result in card['conditions'].items()}
    cross = {f'cross_csv_corpus_hums{ending}' for ending in ('', '_few_shot_0', '_few_shot_1')}
    assert set(uar) == {'clean', 'noise_pink_5db', 'fgsm_waveform_0.01'} | cross
    assert probability_of_the_label(finished, 'clean') > 0.3  # chance is 0.25
    attacked = probability_of_the_label(finished, 'fgsm_waveform_0.01')
    assert attacked < probability_of_the_label(finished, 'clean')


def test_predicts_and_exports(
    finished, data, tiny_encoder, tmp_path, monkeypatch, tones_are_speech
):
    environment = {'SER_JAX_ENCODER': str(tiny_encoder)}
    recording = min((Path(data['manual_dir']) / 'beeps').glob('*.wav'))
    monkeypatch.setenv('SER_JAX_ENCODER', str(tiny_encoder))
    found = load(finished).predict(recording).outputs['emotion']
    # A model whose trained parameters are lost is refused, not completed by the pretrained ones.
    changed = json.loads((finished / 'config.json').read_text())
    changed['fine_tune']['trains'] = 'top(1)'
    other = tmp_path / 'other'
    shutil.copytree(finished, other)
    (other / 'config.json').write_text(json.dumps(changed))
    with pytest.raises(UserError, match='other parameters of the encoder train'):
        load(other)
    exported = tmp_path / 'out'
    done = run('ser_jax.export', f'--workdir={finished}', f'--out={exported}', **environment)
    assert done.returncode == 0, done.stderr
    done = run('ser_jax.export', f'--check={exported}')
    assert done.returncode == 0, done.stderr
    done = run('ser_jax.predict', f'--workdir={finished}', str(recording), **environment)
    assert done.returncode == 0, done.stderr
    assert found.sum() == pytest.approx(1, abs=1e-5)


def test_attacks_transfer_to_the_frozen_probe(finished, data, config, tmp_path):
    config = get_config(f'{CORPUS},smoke')
    config.data.data_dir = data['data_dir']
    config.encoder.layers = (1, 2)
    config.update(attack_source=str(finished), conditions=('transfer_fgsm_waveform(0.01)',))
    card = train_and_evaluate(config, tmp_path / 'run')
    assert card['conditions']['transfer_fgsm_waveform_0.01']['n'] == 12


def test_the_step_is_the_same_on_several_devices():
    same_on_devices(
        """
        import jax, jax.numpy as jnp, numpy as np
        from functools import partial
        from ser_jax.runtime import devices
        from ser_jax.transforms.augment import augment_waveforms, parse_operations

        operations = parse_operations(('speed(0.8, 1.25)', 'noise(0, 20)'), 'waveform')
        rng = np.random.default_rng(0)
        batch = {
            'waveform': rng.normal(size=(8, 4000)).astype(np.float32),
            'length': np.arange(3000, 3800, 100, dtype=np.int32),
            'augmentation_type': np.arange(8, dtype=np.int32) % 3,
        }
        step = lambda seed, batch: augment_waveforms(
            jax.random.key(seed), batch, operations, axis_name=devices.AXIS)
        found = []
        for count in (1, 4):
            mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), (devices.AXIS,))
            run = devices.DataParallel(mesh).compile(step, returns_rows=True)
            found.append(jax.device_get(run(jnp.int32(3), devices.to_devices(batch, mesh))))
        one, four = found
        assert (one['length'] == four['length']).all()
        np.testing.assert_allclose(one['waveform'], four['waveform'], atol=1e-5)
        clean = batch['augmentation_type'] == 0
        assert (one['waveform'][clean] == batch['waveform'][clean]).all()
        for x, before in zip(one['waveform'][~clean], batch['waveform'][~clean]):
            assert np.abs(x - before).max() > 0.1
        assert (one['length'][batch['augmentation_type'] == 1] != batch['length'][1::3]).all()
        print('same')
        """
    )


@pytest.mark.slow
def test_losses_are_the_same_on_two_devices(data, tiny_encoder, tmp_path):
    losses = []
    for count in (1, 2):
        workdir = tmp_path / str(count)
        environment = {
            'SER_JAX_ENCODER': str(tiny_encoder),
            'SER_JAX_MANUAL_DIR': data['manual_dir'],
        }
        flags = ('--config.steps=5', '--config.eval_every=1')
        done = run(*command(data, workdir, *flags), devices=count, **environment)
        assert done.returncode == 0, done.stderr
        losses.append([row['loss'] for row in metrics(workdir)])
    assert len(losses[0]) == 5
    np.testing.assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'fine_tune.trains': ''}, "config.fine_tune.trains is ''"),
        ({'fine_tune.trains': 'top(0)'}, "it must be '', 'all', 'top(N)' or 'lora(RANK)'"),
        ({'fine_tune.layer_decay': 0.0}, 'config.fine_tune.layer_decay is 0.0'),
        ({'encoder.layers': (0,)}, "config.fine_tune.trains is 'top(1)', which trains nothing"),
        ({'encoder.output': 'frames'}, "config.encoder.output is 'frames'"),
        ({'augmentations': ('mixup(0.2)',)}, "augmentation 'mixup'"),
        ({'target_statistics': True, 'test_corpora': ('csv_corpus/hums',), 'final': True}, 'config.target_statistics'),
        ({'noise_corpus': 'esc10', 'augmentations': ('noise(0, 20)',)}, 'config.noise_corpus needs log-mels'),
        ({'conditions': ('fgsm(0.1)',)}, 'condition fgsm_0.1'),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(config, tmp_path, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as error:
        train_and_evaluate(config, tmp_path / 'run')
    assert message in str(error.value)


def test_the_views_of_fine_tuning_are_not_encoded_beforehand(finished, data):
    encoded = (Path(data['data_dir']) / CORPUS / 'encoded').glob('*/statistics/*')
    assert {path.name for path in encoded if is_encoded(path)} == {'clean'}
