"""The training of one fold: the loop, validation, checkpoints, early stopping, resuming."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ser_jax import cost, data, metrics, optimiser, sharding
from ser_jax.checkpoints import Checkpoints
from ser_jax.environment import environment
from ser_jax.errors import UserError
from ser_jax.experiment import Experiment
from ser_jax.pipeline import prefetch
from ser_jax.protocols import Fold
from ser_jax.steps import TrainState, inference_variables
from ser_jax.writer import MetricLog, Progress

_MAX_SKIPPED = 50  # steps in a row without a finite gradient: training has diverged


def train_fold(
    experiment: Experiment, fold: Fold, folder: Path, log: MetricLog, title: str, stop: int
) -> dict[str, Any]:
    """Trains on a fold's training rows, or goes on where the last checkpoint was.

    Killed at any moment and started again, it ends with the parameters of the uninterrupted run, bit
    for bit: random numbers and batches are functions of (seed, step), and which checkpoint is the
    best, and since when, is read from the metrics already written.

    Args:
        experiment: what to train.
        fold: its rows; without validation rows the last parameters are kept.
        folder: for the checkpoints.
        log: of the run.
        title: of the progress line.
        stop: step to end at.

    Returns:
        The summary: 'steps' that the kept parameters were trained for, their 'validation_uar' or None,
        'n_params', 'environment', 'cost'.

    Raises:
        UserError: training diverged, or a damaged checkpoint.
    """
    config, mesh = experiment.config, experiment.mesh
    place = environment()
    meter = cost.Meter(config.batch_size, folder / 'cost.json')
    state = experiment.init_state(experiment.constants(fold.train))
    latest, best = Checkpoints(folder / 'latest'), Checkpoints(folder / 'best')
    start = latest.step or 0
    if start:
        state = latest.restore(state)
    log.forget(fold.name, after=start)
    history = [row for row in log.rows(fold.name) if row['step'] <= start]
    if start and (not history or history[-1]['step'] != start):
        raise UserError(
            f'metrics.jsonl lacks step {start} of {fold.name}: delete {folder} to train it anew'
        )
    progress = Progress(title, stop, config.batch_size)
    validation = experiment.utterances(fold.validation) if len(fold.validation) else None
    recent = []
    if start:
        progress.say(f'goes on from step {start}')
    progress.say('compiling (programs are kept for the next run)')

    remaining = prefetch(
        experiment.train_batches(fold.train),
        start,
        stop if _patient(history, config.patience) else start,
    )
    for step, batch in enumerate(meter.batches(remaining), start + 1):
        state, step_metrics = experiment.train_step(state, sharding.to_devices(batch, mesh))
        recent.append(step_metrics)
        if progress.due():
            progress.line(step, {'loss': float(step_metrics['loss'])})
        if step % config.eval_every == 0 or step == stop:
            row = {'fold': fold.name, 'step': step, **_mean(recent)}
            row |= _validate(experiment, state, validation)
            recent, history = [], [*history, row]
            progress.line(step, row)
            log.write(row)
            if row is _best(history):
                best.save(step, inference_variables(state))
            meter.save()
            latest.save(step, state)
            if not _patient(history, config.patience):
                break
    kept = _best(history)
    best.keep_newest()
    return {
        'steps': kept['step'],
        'validation_uar': kept.get('validation_uar'),
        'environment': place,
        'n_params': sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        'cost': meter.total(),
    }


def _mean(recent: list[dict[str, jax.Array]]) -> dict[str, float]:
    values = jax.device_get(recent)
    return {name: float(np.mean([step[name] for step in values])) for name in values[0]}


def _validate(experiment: Experiment, state: TrainState, validation) -> dict[str, float]:
    _refuse_diverged(state)
    if validation is None:
        return {}
    probabilities = predict(experiment, inference_variables(state), validation)
    labels = validation.labels['emotion']
    confusion = metrics.confusion_matrix(labels, probabilities.argmax(1), len(experiment.labels))
    if not np.isfinite(probabilities).all():
        raise UserError(
            'training diverged: predictions are not finite; lower config.optimiser.learning_rate'
        )
    loss = -np.log(probabilities[np.arange(len(labels)), labels] + 1e-9).mean()
    return {'validation_uar': float(metrics.uar(confusion)), 'validation_loss': float(loss)}


def _best(history: list[dict]) -> dict:
    """The row of the parameters to keep: highest validation UAR, then lowest loss; the last without validation."""
    if 'validation_uar' not in history[-1]:
        return history[-1]
    return max(history, key=lambda row: (row['validation_uar'], -row['validation_loss']))


def _patient(history: list[dict], patience: int) -> bool:
    """Whether training goes on: the best row is among the last `patience`."""
    return not history or _best(history) in history[-patience:]


def _refuse_diverged(state: TrainState) -> None:
    for opt_state in state.opt_state.values():
        in_a_row, _ = optimiser.skipped_steps(opt_state)
        if in_a_row > _MAX_SKIPPED:
            raise UserError(
                f'training diverged: no finite gradient in the last {int(in_a_row)} steps; '
                'lower config.optimiser.learning_rate'
            )


def predict(
    experiment: Experiment, variables: dict[str, Any], utterances: data.Utterances
) -> np.ndarray:
    """Class probabilities of whole utterances.

    Args:
        experiment: with the compiled prediction step.
        variables: parameters, batch statistics and constants (`steps.inference_variables`).
        utterances: N of them.

    Returns:
        float32 [N, K].
    """
    size = experiment.config.eval_batch_size
    probabilities = np.zeros((len(utterances), len(experiment.labels)), np.float32)
    for positions, batch in data.evaluation_batches(utterances, size, sharding.local_rows(size)):
        rows = experiment.predict_step(variables, sharding.to_devices(batch, experiment.mesh))
        probabilities[positions] = np.asarray(rows.addressable_shards[0].data)
    return probabilities


def restore_best(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """The parameters that a finished fold kept, with all that prediction needs.

    Args:
        experiment: of the run.
        folder: of the fold's checkpoints.

    Raises:
        UserError: there are none, or they are damaged.
    """
    template = experiment.init_state(experiment.constants(experiment.rows))
    return Checkpoints(folder / 'best').restore(inference_variables(template))


def discard_latest(folder: Path) -> None:
    """Drops what only resuming needs: a finished fold keeps its best parameters."""
    shutil.rmtree(folder / 'latest', ignore_errors=True)
