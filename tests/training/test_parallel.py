"""The results do not depend on the number of devices and processes, nor on how the step is mapped over them."""

import json
import re
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import metrics, run
from processes import rest, start_two, step_of, wait_for
from runs_on_disk import EVERY
from runs_on_disk import command as short_command

from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runs.predictions import read_predictions
from ser_jax.training.loop import FoldTraining

STEPS = 20
LONG = '--config.steps=400'  # the first validation comes well before the end


def command(beeps, workdir, *more):
    return (
        'ser_jax.main',
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={beeps["data_dir"]}',
        f'--workdir={workdir}',
        f'--config.steps={STEPS}',
        '--config.eval_every=1',
        '--config.validation=False',
        "--config.unlabelled=('csv_corpus/hums',)",
        *more,
    )


def losses(workdir, steps=STEPS):
    rows = metrics(workdir)
    assert [row['step'] for row in rows] == list(range(1, steps + 1))
    names = ['loss', 'loss_emotion', 'loss_augmentation_type', 'loss_reconstruction']
    return np.array([[row[name] for name in names] for row in rows])


@pytest.fixture(scope='module')
def one_device(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('one') / 'run'
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    return losses(workdir)


@pytest.mark.parametrize(
    ('devices', 'more'),
    [
        (2, ()),
        pytest.param(4, (), marks=pytest.mark.slow),
        pytest.param(8, (), marks=pytest.mark.slow),
        pytest.param(2, ('--config.parallelism=pmap',), marks=pytest.mark.slow),
    ],
    ids=['2', '4', '8', 'pmap-2'],
)
def test_devices_give_the_same_losses(beeps, tmp_path, one_device, devices, more):
    result = run(*command(beeps, tmp_path / 'run', *more), devices=devices)
    assert result.returncode == 0, result.stderr
    np.testing.assert_allclose(losses(tmp_path / 'run'), one_device, atol=1e-4)


@pytest.mark.slow
def test_adversarial_training_is_the_same_on_two_devices(beeps, tmp_path, one_device):
    found = []
    for devices in (1, 2):
        workdir = tmp_path / str(devices)
        more = ('--config.adversarial_epsilon=0.2', '--config.steps=6')
        result = run(*command(beeps, workdir, *more), devices=devices)
        assert result.returncode == 0, result.stderr
        found.append(losses(workdir, 6))
    np.testing.assert_allclose(*found, atol=1e-3)  # small gradients may change sign
    assert found[0][:, 1].mean() > one_device[:6, 1].mean() + 1e-3  # the emotion is harder


@pytest.mark.slow
def test_two_processes_give_the_same_losses_and_predictions(beeps, tmp_path, one_device):
    asked = command(beeps, tmp_path / 'run', "--config.conditions=('fgsm(0.1)', 'gain(-6)')")
    manual = {'SER_JAX_MANUAL_DIR': beeps['manual_dir']}
    for process, lines in start_two(*asked, **manual):
        printed = rest(lines)
        assert process.wait(timeout=60) == 0, printed
    np.testing.assert_allclose(losses(tmp_path / 'run'), one_device, atol=1e-4)
    files = sorted((tmp_path / 'run' / 'predictions').glob('*.csv'))
    assert [file.stem for file in files] == ['clean', 'fgsm_0.1', 'gain_-6']
    two = [read_predictions(file)[0].probabilities for file in files]
    result = run(*asked, '--mode=evaluate', **manual)
    assert result.returncode == 0, result.stderr
    one = [read_predictions(file)[0].probabilities for file in files]
    np.testing.assert_allclose(two, one, atol=1e-3)  # small gradients may change sign


@pytest.mark.slow
def test_two_processes_stop_at_one_step(beeps, tmp_path):
    """Only one of them gets the signal."""
    workdir = tmp_path / 'run'
    (first, lines), (second, others) = start_two(*short_command(beeps, workdir, LONG))
    wait_for(lines, f'step {EVERY}/')
    second.send_signal(signal.SIGTERM)
    assert [process.wait(timeout=120) for process in (first, second)] == [143, 143]
    step = step_of(rest(lines)[-1])
    assert step_of(rest(others)[-1]) == step
    assert Checkpoints(workdir / 'checkpoints' / 'fold_01' / 'latest').step == step


@pytest.mark.slow
@pytest.mark.parametrize('victim', [0, 1])
def test_a_lost_process_ends_the_others(beeps, tmp_path, victim):
    started = start_two(*short_command(beeps, tmp_path / 'run', LONG))
    wait_for(started[0][1], f'step {EVERY}/')
    started[victim][0].kill()
    other, lines = started[1 - victim]
    begin = time.monotonic()
    assert other.wait(timeout=120) not in (0, None)
    assert time.monotonic() - begin < 60
    printed = ''.join(rest(lines))
    assert 'another process of this run is gone' in printed or 'distributed service' in printed


def folds_command(beeps, workdir, runs):
    return command(
        beeps,
        workdir,
        '--config.folds=(1,2,3)',
        '--config.steps=5',
        f'--config.parallel_runs={runs}',
    )


@pytest.fixture(scope='module')
def folds_alone(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('folds') / 'alone'
    result = run(*folds_command(beeps, workdir, 1))
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 2])
def test_folds_side_by_side_equal_folds_in_turn(beeps, tmp_path, folds_alone, devices):
    """Three folds in two places: the third takes over from the first that ends."""
    result = run(*folds_command(beeps, tmp_path / 'together', 2), devices=devices)
    assert result.returncode == 0, result.stderr
    workdirs = (folds_alone, tmp_path / 'together')
    key = lambda row: (row['fold'], row['step'])
    alone, together = (sorted(metrics(workdir), key=key) for workdir in workdirs)
    assert [key(row) for row in alone] == [key(row) for row in together]
    assert len(alone) == 15
    for name in ('loss', 'loss_emotion', 'loss_reconstruction', 'gradient_norm'):
        pairs = [[row[name] for row in rows] for rows in (alone, together)]
        np.testing.assert_allclose(*pairs, rtol=1e-4)
    cards = [json.loads((workdir / 'results.json').read_text()) for workdir in workdirs]
    assert cards[0]['config_hash'] == cards[1]['config_hash']
    assert cards[0]['conditions']['clean']['n'] == cards[1]['conditions']['clean']['n']


def test_metrics_stay_with_a_run_that_changes_its_place():
    """Between two validations, when the run beside it has ended."""
    place = lambda number: lambda packed: {name: rows[number] for name, rows in packed.items()}
    training = object.__new__(FoldTraining)
    training.meter = SimpleNamespace(pause=lambda: None)
    training._before, training._recent = [], [{'loss': np.array([1.0, 2.0])}]
    training.pause(place(1), {'state': [10, 20]})
    assert training.state == {'state': 20}
    training._recent.append({'loss': np.array([7.0, 8.0])})
    assert training._since_validation(place(0)) == [{'loss': 2.0}, {'loss': 7.0}]


def test_a_number_of_runs_that_does_not_fit_the_devices_is_refused(beeps, tmp_path):
    result = run(*folds_command(beeps, tmp_path / 'run', 3), devices=2)
    assert result.returncode == 1
    assert re.fullmatch(r'error: config.parallel_runs is 3, which 2 devices .*\n', result.stderr)


def test_a_batch_size_that_does_not_fit_the_devices_is_refused(beeps, tmp_path):
    result = run(*command(beeps, tmp_path / 'run', '--config.batch_size=9'), devices=2)
    assert result.returncode == 1
    assert re.fullmatch(r'error: config.batch_size is 9, which 2 devices .*\n', result.stderr)
    assert not (tmp_path / 'run').exists()
