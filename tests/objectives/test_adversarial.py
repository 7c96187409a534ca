"""Adversarial autoencoder: updates of each phase, metrics, missing labels, a run from end to end."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import metrics, run

from configs.adversarial_autoencoder import get_config
from ser_jax.models.adversarial_autoencoder import functionals
from ser_jax.objectives import adversarial
from ser_jax.objectives.multitask import task_losses
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.train import build_experiment, build_phases
from ser_jax.training import steps
from ser_jax.training.steps import make_train_step

RNG = np.random.default_rng(0)
SUBTREES = {
    'reconstruction': {'encoder', 'decoder'},
    'discriminator': {'discriminator'},
    'generator': {'encoder'},
    'supervised': {'encoder', 'emotion_head', 'speaker_head', 'gender_head'},
}


@pytest.fixture(
    scope='module', params=['functionals', pytest.param('log_mel', marks=pytest.mark.slow)]
)
def config(request, beeps):
    config = get_config('csv_corpus/beeps,smoke')
    config.model.input = request.param
    config.data.data_dir = beeps['data_dir']
    config.unlabelled = ('csv_corpus/hums',)
    return config


@pytest.fixture(scope='module')
def experiment(config):
    return build_experiment(config)


@pytest.fixture(scope='module')
def started(experiment):
    """(state before training, an augmented batch)."""
    rows = experiment.dataset.folds[0].train
    state = experiment.program.init_state(experiment.dataset.statistics(rows))
    batch = jax.device_get(
        devices.to_devices(experiment.dataset.train_batches(rows)[0], experiment.program.mesh)
    )
    batch['clean_log_mel'] = batch['log_mel']
    return jax.device_get(state), batch


@pytest.mark.parametrize('name', SUBTREES)
def test_a_phase_updates_only_its_subtrees(config, experiment, started, name):
    state, batch = started
    # A discriminator at chance has no gradient for the generator.
    discriminator = jax.tree.map(lambda leaf: leaf + np.float32(0.1), state.params['discriminator'])
    state = state.replace(params=state.params | {'discriminator': discriminator})
    model = experiment.program.model.clone(axis_name='data')
    phases = build_phases(config, model, experiment.dataset.tasks)
    (phase,) = [phase for phase in phases if phase.name == name]
    assert set(phase.updates) == SUBTREES[name]
    step = experiment.program.placement.compile(make_train_step((phase,), devices.AXIS))
    packed = [devices.replicate(state, experiment.program.mesh)]
    # The learning rate of the first step of the warm-up is 0.
    for _ in range(2):
        packed = [
            step(
                experiment.program.placement.pack(packed),
                experiment.program.placement.to_devices([batch]),
            )[0]
        ]
    after = jax.device_get(packed[0])
    changed = {
        key
        for key, tree in after.params.items()
        if any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (tree, state.params[key]))))
    }
    assert changed == SUBTREES[name]
    moved = any(
        (a != b).any()
        for a, b in zip(*(jax.tree.leaves(s.model_state['batch_stats']) for s in (after, state)))
    )
    assert moved == (name == 'supervised' and experiment.program.model.input == 'log_mel')


def test_the_discriminator_starts_at_chance(experiment, started):
    state, _ = started
    rows = experiment.dataset.folds[0].train
    batch = devices.to_devices(experiment.dataset.train_batches(rows)[0], experiment.program.mesh)
    _, found = experiment.program.train_step(
        devices.replicate(state, experiment.program.mesh), batch
    )
    assert float(found['loss_discriminator']) == pytest.approx(np.log(2), abs=1e-5)
    assert float(found['discriminator_accuracy']) == 0.5
    assert float(found['loss_generator']) == pytest.approx(np.log(2), abs=1e-2)


def test_draws_come_from_the_component_of_the_emotion():
    adversary = adversarial.Adversary(None, 'mixture', 6.0, 1.0, None)
    emotion = np.eye(4, dtype=np.float32)[np.arange(4000) % 4]
    mask = np.arange(4000) < 2000
    batch = {'emotion': emotion, 'emotion_mask': mask}
    draws = np.asarray(adversary.sample_prior(jax.random.key(0), batch, 8))
    condition = np.asarray(adversary.condition(batch))
    component = draws[:, :4].argmax(1)
    assert (component[mask] == np.arange(2000) % 4).mean() > 0.99
    assert (np.bincount(component[~mask]) / 2000 > 0.2).all()  # uniform where unknown
    np.testing.assert_array_equal(condition[mask], emotion[mask])
    assert not condition[~mask].any()
    inside = draws[mask] - 6 * np.eye(4, 8)[np.arange(2000) % 4]
    assert np.abs(inside.mean(0)).max() < 0.1
    assert np.abs(inside.std(0) - 1).max() < 0.1


def test_one_gaussian_has_no_condition():
    adversary = adversarial.Adversary(None, 'gaussian', 6.0, 1.0, None)
    batch = {'emotion': np.eye(4)[np.arange(4000) % 4], 'emotion_mask': np.ones(4000, bool)}
    draws = adversary.sample_prior(jax.random.key(0), batch, 8)
    assert adversary.condition(batch).shape == (4000, 0)
    assert abs(np.asarray(draws).mean()) < 0.05
    assert abs(np.asarray(draws).std() - 1) < 0.05


@pytest.mark.slow
def test_draws_do_not_depend_on_the_number_of_devices():
    batch = {'emotion': np.eye(4)[np.arange(8) % 4], 'emotion_mask': np.arange(8) < 5}
    adversary = lambda axis: adversarial.Adversary(None, 'mixture', 3.0, 1.0, axis)
    whole = adversary(None).sample_prior(jax.random.key(1), batch, 6)
    parts = {name: array.reshape(4, 2, *array.shape[1:]) for name, array in batch.items()}
    draw = lambda part: adversary('data').sample_prior(jax.random.key(1), part, 6)
    split = jax.vmap(draw, axis_name='data')(parts)
    np.testing.assert_allclose(whole, np.asarray(split).reshape(8, -1), atol=1e-6)


class Linear:
    """A discriminator whose logit is the parameters times the code."""

    def apply(self, variables, *arguments, method, **_):
        if method == 'encode':
            return arguments[0], {}
        return arguments[0] @ variables['params']


def test_discriminator_and_generator_losses_by_their_definitions():
    adversary = adversarial.Adversary(Linear(), 'gaussian', 0.0, 3.0, 'data')
    params, codes = jnp.array([0.5, -1.0]), jnp.array(RNG.normal((-20, 40), size=(6, 2)))
    constants = {'mean': jnp.zeros(2), 'std': jnp.ones(2)}
    batch = {'log_mel': codes, 'length': jnp.ones(6, int), 'emotion': jnp.zeros((6, 4))}
    batch['emotion_mask'] = jnp.zeros(6, bool)
    rngs = {'dropout': jax.random.key(0), 'sample': jax.random.key(1)}
    state = {'constants': constants, 'batch_stats': {}}
    spread = lambda f: jax.vmap(f, axis_name='data')(jax.tree.map(lambda x: x[None], batch))
    loss, (found, _) = spread(lambda part: adversary.discriminator(params, state, part, rngs))
    assert float(found['gradient_penalty'][0]) == pytest.approx(0.5 * 3 * (0.25 + 1))
    whole = found['loss_discriminator'][0] + found['gradient_penalty'][0]
    assert float(loss[0]) == pytest.approx(float(whole))
    (draws,) = spread(lambda part: adversary.sample_prior(rngs['sample'], part, 2))
    real, fake = draws @ params, codes @ params  # around 0, and about -50
    right = 0.5 * np.mean(np.asarray(real) > 0) + 0.5 * np.mean(np.asarray(fake) <= 0)
    assert float(found['discriminator_accuracy'][0]) == pytest.approx(right)
    expected = 0.5 * jnp.mean(jax.nn.softplus(-real) + jax.nn.softplus(fake))
    assert float(found['loss_discriminator'][0]) == pytest.approx(float(expected), rel=1e-5)
    generator, _ = spread(lambda part: adversary.generator(params, state, part, rngs))
    logits = codes @ params
    assert float(generator[0]) == pytest.approx(float(jnp.mean(jax.nn.softplus(-logits))), rel=1e-5)


def test_mmd_by_its_definition():
    x, y = RNG.normal(size=(6, 3)), RNG.normal(1.0, 1.0, size=(6, 3))
    kernel = lambda a, b: np.exp(-np.sum((a - b) ** 2) / 6)
    pairs = list(itertools.permutations(range(6), 2))
    expected = np.mean([kernel(x[i], x[j]) + kernel(y[i], y[j]) for i, j in pairs])
    expected -= 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert float(adversarial.mmd(jnp.array(x), jnp.array(y))) == pytest.approx(expected, abs=1e-5)
    same = [jnp.array(RNG.normal(size=(800, 3))) for _ in range(2)]
    assert abs(float(adversarial.mmd(*same))) < 0.01


def test_functionals_see_real_frames_only():
    x = RNG.normal(size=(3, 20, 5)).astype(np.float32)
    found = np.asarray(functionals(x, np.array([20, 7, 1])))
    for row, count in enumerate([20, 7]):
        own = x[row, :count]
        change = np.diff(own, axis=0)
        expected = [own.mean(0), own.std(0), change.mean(0), change.std(0)]
        np.testing.assert_allclose(found[row], np.concatenate(expected), atol=1e-3)
    np.testing.assert_allclose(found[2, :5], x[2, 0], atol=1e-6)
    assert np.isfinite(found).all()


def test_labels_missing_in_every_combination(experiment, started):
    """Each row lacks another subset of its labels; every task is the mean over the rows that have its label."""
    state, _ = started
    tasks = [task for task in experiment.dataset.tasks if task.kind == 'classification']
    constants = state.model_state['constants']
    there = np.array(list(itertools.product([True, False], repeat=len(tasks))))
    batch, outputs, own, trained = {}, {}, {}, {}
    for number, task in enumerate(tasks):
        every = np.ones(len(task.classes), bool)
        trained[task.name] = np.asarray(constants['trained_classes'].get(task.name, every))
        own[task.name] = np.flatnonzero(trained[task.name])[-1]  # a class of training
        labels = np.where(there[:, number], own[task.name], -1)
        outputs[task.name] = RNG.normal(size=(len(there), len(task.classes))).astype(np.float32)
        batch[task.target] = labels
        if task.target == 'emotion':
            batch['emotion'] = np.asarray(jax.nn.one_hot(labels, len(task.classes)))
            batch['emotion_mask'] = labels >= 0
    assert not trained['speaker'].all()
    how = {'label_smoothing': 0.0, 'axis_name': None}
    found = task_losses(outputs, batch, tuple(tasks), constants, **how)
    for number, task in enumerate(tasks):
        logits = outputs[task.name][there[:, number]].astype(float)
        total = np.exp(logits[:, trained[task.name]]).sum(1)
        expected = np.log(total) - logits[:, own[task.name]]
        assert float(found[task.name]) == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ('options', 'phases', 'tasks'),
    [
        ('', adversarial.PHASES, {'emotion', 'speaker', 'gender', 'reconstruction'}),
        (
            ',no_adversary',
            ('reconstruction', 'supervised'),
            {'emotion', 'speaker', 'gender', 'reconstruction'},
        ),
        (',no_autoencoder', adversarial.PHASES[1:], {'emotion', 'speaker', 'gender'}),
        (',no_speaker,no_gender', adversarial.PHASES, {'emotion', 'reconstruction'}),
        (',single_task', ('supervised',), {'emotion'}),
        (
            ',single_task,dimensions',
            ('supervised',),
            {'emotion', 'arousal', 'valence', 'dominance'},
        ),
    ],
)
def test_phases_and_tasks_of_the_options(options, phases, tasks):
    config = get_config(f'demo_speech{options}')
    assert config.phases == phases
    assert {name for name, task in config.tasks.items() if task.weight} == tasks


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'phases': ('supervised', 'generator')}, 'need each other'),
        ({'phases': ('reconstruction',)}, 'nothing is reported'),
        ({'phases': ('supervised', 'guess')}, 'at most once'),
        ({'batch_size': 1}, 'at least 2 utterances'),
        ({'tasks.reconstruction.weight': 0.0}, "'reconstruction' needs a task"),
        ({'model.adversary': False}, 'only there'),
        ({'adversary.prior': 'uniform'}, "'gaussian' or 'mixture'"),
        ({'adversarial_epsilon': 0.1}, "needs config.objective 'multitask'"),
        ({'objective': 'multitask'}, "is trained by 'adversarial'"),
        ({'tasks.reconstruction.weight': 0.5}, 'learning_rate'),
        ({'model.code_features': 3}, 'a mixture of 4 emotions'),
        ({'adversary.gradient_penalty': -1.0}, 'at least 0'),
        ({'optimisers.generator.clip': 0.0}, 'config.optimisers.generator.clip'),
        ({'model.input': 'pixels'}, "'log_mel' or 'functionals'"),
    ],
)
def test_invalid_configs_are_refused_in_one_line(beeps, changes, message):
    config = get_config('csv_corpus/beeps,smoke')
    config.data.data_dir = beeps['data_dir']
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message) as caught:
        build_experiment(config)
    assert '\n' not in str(caught.value)


def command(beeps, workdir, *more, options='smoke'):
    return (
        'ser_jax.main',
        f'--config=configs/adversarial_autoencoder.py:csv_corpus/beeps,{options}',
        f'--config.data.data_dir={beeps["data_dir"]}',
        "--config.unlabelled=('csv_corpus/hums',)",
        f'--workdir={workdir}',
        *more,
    )


@pytest.fixture(scope='module')
def finished(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('adversarial') / 'run'
    result = run(*command(beeps, workdir, '--config.eval_every=1', '--config.final=True'))
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.mark.slow
def test_a_run_reports_the_adversarial_metrics(finished):
    rows = metrics(finished)
    for name in ('discriminator_accuracy', 'code_offset', 'code_std', 'code_mmd', 'loss_generator'):
        assert all(np.isfinite(row[name]) for row in rows)
    for picture in ('codes', 'path'):
        assert (finished / 'report' / f'{picture}.png').stat().st_size > 10_000
    map_of_utterances = (finished / 'report' / 'embedding.csv').read_text()
    assert map_of_utterances.count('\n') == 1 + 48
    assert 'Map of utterances' in (finished / 'report' / 'report.html').read_text()


def test_speakers_that_are_tested_are_no_class_of_training(experiment, started):
    fold, (task,) = (
        experiment.dataset.folds[0],
        [t for t in experiment.dataset.tasks if t.name == 'speaker'],
    )
    trained = experiment.dataset.statistics(fold.train)['trained_classes']['speaker']
    speakers = set(experiment.dataset.corpus.index['speaker'][fold.train])
    speakers |= {name for name in task.classes if name.startswith('csv_corpus/hums')}
    assert {name for name, is_trained in zip(task.classes, trained) if is_trained} == speakers
    assert 0 < (~trained).sum() < len(trained)
    state = devices.replicate(started[0], experiment.program.mesh)
    for step in range(3):
        batch = devices.to_devices(
            experiment.dataset.train_batches(fold.train)[step], experiment.program.mesh
        )
        state, _ = experiment.program.train_step(state, batch)
    bias = np.asarray(state.params['speaker_head']['out']['bias'])
    assert (bias[~trained] == 0).all()
    assert (bias[trained] != 0).all()


def test_prediction_uses_the_encoder_of_the_supervised_phase(experiment, started):
    state, batch = started
    state = devices.replicate(state, experiment.program.mesh)
    rows = experiment.dataset.folds[0].train
    for step in range(2):
        batch = devices.to_devices(
            experiment.dataset.train_batches(rows)[step], experiment.program.mesh
        )
        state, _ = experiment.program.train_step(state, batch)
    found = steps.inference_variables(state)['params']
    average = state.opt_state['supervised'].inner_state.average
    for name in ('encoder', 'emotion_head'):
        jax.tree.map(np.testing.assert_array_equal, found[name], average[name])
    decoder = state.opt_state['reconstruction'].inner_state.average['decoder']
    jax.tree.map(np.testing.assert_array_equal, found['decoder'], decoder)


@pytest.mark.slow
def test_recordings_are_predicted(finished, beeps):
    result = run('ser_jax.predict', f'--workdir={finished}', f'{beeps["manual_dir"]}/hums')
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 17


def test_a_restored_state_continues_bit_for_bit(experiment, started, tmp_path):
    batches = experiment.dataset.train_batches(experiment.dataset.folds[0].train)

    def train(state, first, last):
        for step in range(first, last):
            batch = devices.to_devices(batches[step], experiment.program.mesh)
            state, _ = experiment.program.train_step(state, batch)
        return state

    start = lambda: devices.replicate(started[0], experiment.program.mesh)
    whole = jax.device_get(train(start(), 0, 4))
    Checkpoints(tmp_path).save(2, train(start(), 0, 2))
    resumed = jax.device_get(train(Checkpoints(tmp_path).restore(start()), 2, 4))
    jax.tree.map(np.testing.assert_array_equal, resumed, whole)


@pytest.mark.slow
def test_tested_on_the_gender_alone(beeps, tmp_path):
    more = ("--config.reported=('gender',)", '--config.tasks.emotion.weight=0.0')
    result = run(*command(beeps, tmp_path / 'run', *more, options='smoke,gaussian'))
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert list(card['conditions']) == ['clean_gender']


@pytest.mark.slow
def test_ratings_beside_the_emotion(beeps, tmp_path):
    result = run(*command(beeps, tmp_path / 'run', options='smoke,functionals,dimensions'))
    assert result.returncode == 0, result.stderr
    results = json.loads((tmp_path / 'run' / 'results.json').read_text())['conditions']
    assert set(results) == {'clean', 'clean_arousal', 'clean_valence', 'clean_dominance'}
    assert all(np.isfinite(results[f'clean_{name}']['ccc']) for name in ('arousal', 'valence'))


@pytest.mark.slow
def test_two_devices_give_the_same_losses(beeps, finished, tmp_path):
    result = run(*command(beeps, tmp_path / 'run', '--config.eval_every=1'), devices=2)
    assert result.returncode == 0, result.stderr
    names = ('loss', 'loss_discriminator', 'loss_generator', 'loss_reconstruction', 'code_mmd')
    rows = [
        [[row[name] for name in names] for row in metrics(w)[:4]]
        for w in (finished, tmp_path / 'run')
    ]
    np.testing.assert_allclose(*rows, atol=1e-4)


@pytest.mark.slow
def test_noise_attacks_other_corpora_and_functionals(beeps, tmp_path):
    more = (
        "--config.conditions=('gain(-6)', 'fgsm(0.05)')",
        '--config.final=True',
        '--config.few_shot=(0, 1)',
        '--config.few_shot_steps=2',
    )
    options = 'smoke,functionals,gaussian'
    arguments = command(beeps, tmp_path / 'run', *more, options=options)
    arguments = [argument for argument in arguments if 'unlabelled' not in argument]
    arguments.append("--config.test_corpora=('csv_corpus/hums',)")
    result = run(*arguments, SER_JAX_MANUAL_DIR=beeps['manual_dir'])
    assert result.returncode == 0, result.stderr
    card = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert not (tmp_path / 'run' / 'report' / 'path.png').exists()  # functionals are no picture
    hums = 'cross_csv_corpus_hums'
    expected = ['clean', 'gain_-6', 'fgsm_0.05', hums, f'{hums}_few_shot_0', f'{hums}_few_shot_1']
    assert list(card['conditions']) == expected
