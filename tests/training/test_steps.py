"""The training step: gradients that are not finite, device order, batches of every process, label shares."""

import jax
import numpy as np
import pytest
from conftest import load
from jax.sharding import AxisType, Mesh

from ser_jax.runtime import devices
from ser_jax.train import build_experiment


def get_config(argument):
    return load('configs/mtl_aug.py').get_config(argument)


@pytest.fixture(scope='module')
def experiment(beeps):
    config = get_config('csv_corpus/beeps,smoke')
    config.data.data_dir = beeps['data_dir']
    return build_experiment(config)


def test_a_poisoned_batch_changes_no_parameter_and_no_statistic(experiment):
    rows = experiment.dataset.folds[0].train
    state = experiment.program.init_state(experiment.dataset.statistics(rows))
    batches = experiment.dataset.train_batches(rows)
    state, _ = experiment.program.train_step(
        state, devices.to_devices(batches[0], experiment.program.mesh)
    )
    before = jax.device_get(state)
    poisoned = dict(batches[1])
    poisoned['log_mel'] = poisoned['log_mel'].copy()
    poisoned['log_mel'][0, :, 5] = np.inf
    state, metrics = experiment.program.train_step(
        state, devices.to_devices(poisoned, experiment.program.mesh)
    )
    after = jax.device_get(state)
    assert not np.isfinite(metrics['gradient_norm'])
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    jax.tree.map(np.testing.assert_array_equal, after.model_state, before.model_state)
    assert after.step == before.step + 1
    state, metrics = experiment.program.train_step(
        state, devices.to_devices(batches[2], experiment.program.mesh)
    )
    assert np.isfinite(metrics['gradient_norm'])


def test_devices_of_one_process_are_adjacent(monkeypatch):
    class Device:
        def __init__(self, process_index, number):
            self.process_index, self.id = process_index, number

    unsorted = [Device(p, n) for n, p in enumerate([0, 0, 1, 1, 1, 1, 0, 0])]
    monkeypatch.setattr(devices.jax, 'devices', lambda: unsorted)
    mesh = []
    monkeypatch.setattr(devices, 'Mesh', lambda devices, *_, **__: mesh.extend(devices))
    devices.make_mesh()
    assert [device.process_index for device in mesh] == [0] * 4 + [1] * 4


def test_rows_go_to_devices_in_order():
    mesh = Mesh(np.array(jax.devices()), (devices.AXIS,), axis_types=(AxisType.Auto,))
    rows = np.arange(8 * mesh.size)
    placed = devices.to_devices({'row': rows}, mesh)['row']
    np.testing.assert_array_equal(placed, rows)
    assert devices.local_rows(16) == slice(0, 16)


@pytest.mark.parametrize(('options', 'labels'), [('smoke', 4), ('smoke,single_task', 8)])
def test_utterances_without_their_label_are_used_where_a_task_needs_none(beeps, options, labels):
    config = get_config(f'csv_corpus/beeps,{options}')
    config.data.data_dir, config.labelled_share = beeps['data_dir'], 0.25
    experiment = build_experiment(config)
    rows = experiment.dataset.folds[0].train
    batches = experiment.dataset.train_batches(rows)
    assert len(batches.labelled) < 0.5 * len(rows)
    for step in range(3):
        assert batches[step]['emotion_mask'].sum() == labels
    if labels < config.batch_size:
        assert len(batches.labelled) + len(batches.unlabelled) == len(rows)
