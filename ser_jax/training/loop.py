"""The training of the folds: the loop, checkpoints, early stopping, resuming."""

import functools
import itertools
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from ser_jax.data.batches import prefetch
from ser_jax.data.folds import Fold
from ser_jax.objectives import optimiser
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runs.environment import environment
from ser_jax.runtime import devices, signals
from ser_jax.runtime.errors import UserError
from ser_jax.training import cost, inference, steps
from ser_jax.training.experiment import Experiment
from ser_jax.training.metric_log import MetricLog
from ser_jax.training.progress import Progress
from ser_jax.training.steps import TrainState, inference_variables


class Job(NamedTuple):
    """A fold to train.

    Attributes:
        fold: rows to train and validate on; without validation rows the last parameters are kept.
        folder: checkpoints of the fold.
        stop: last step.
    """

    fold: Fold
    folder: Path
    stop: int


class Schedule(NamedTuple):
    """When training validates, and when it stops.

    Attributes:
        eval_every: steps between validations, which are also checkpoints.
        patience: validations without a better one before training stops.
        skipped_steps: steps in a row without a finite gradient after which training has diverged.
    """

    eval_every: int
    patience: int
    skipped_steps: int


def train_folds(
    experiment: Experiment,
    schedule: Schedule,
    jobs: Iterable[Job],
    log: MetricLog,
    progress: Progress,
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Trains folds from their last checkpoints, as many at a time as the placement has runs.

    Resume is exact: a run that was killed at any moment ends with the parameters of the uninterrupted run, bit for bit.
    Random numbers and batches are functions of (seed, step); the best checkpoint and the patience that is left are read from
    the metrics already written. On a signal (`signals`) the process ends after a checkpoint of the last step.

    Args:
        experiment: dataset and program.
        schedule: validations and stopping.
        jobs: folds to train.
        log: metrics of the run.
        progress: progress of the run.

    Yields:
        Every job when it is done, with its summary: 'steps' of the kept parameters, their 'validation_uar' (None without
        validation) and other validation metrics, 'n_params', 'n_labels', 'environment', 'cost'.

    Raises:
        UserError: training diverged, or a damaged checkpoint.
    """
    placement, jobs = experiment.program.placement, iter(jobs)
    start = lambda job: FoldTraining(experiment, schedule, job, log, progress)
    runs = [start(job) for job in itertools.islice(jobs, placement.runs)]
    while runs:
        for run in runs:
            run.meter.resume(len(runs))
        state = placement.pack([run.state for run in runs])
        unpack = [functools.partial(placement.run_of, number=number) for number in range(len(runs))]
        with signals.postponed():
            while not any(run.done for run in runs):
                batch = placement.to_devices([run.next_batch() for run in runs])
                state, step_metrics = experiment.program.train_step(state, batch)
                for run, part in zip(runs, unpack):
                    run.after_step(part, state, step_metrics)
                if devices.any_process(signals.received() is not None, runs[0].step):
                    steps = [run.save(part, state) for run, part in zip(runs, unpack)]
                    signals.stop(f'the same command resumes from {", ".join(steps)}')
        for run, part in zip(runs, unpack):
            run.pause(part, state)
        yield from [(run.job, run.summary()) for run in runs if run.done]
        runs = [run for run in runs if not run.done]
        runs += [start(job) for job in itertools.islice(jobs, placement.runs - len(runs))]


class FoldTraining:
    """The training of one fold: its batches, and validation, checkpoints and progress between two steps.

    Args:
        experiment: dataset and program.
        schedule: validations and stopping.
        job: the fold.
        log: metrics of the run.
        progress: progress of the run.

    Attributes:
        job: the fold.
        step: steps made.
        state: train state at the step where training begins or resumes.
        done: whether training has ended, by the last step or by patience.
        meter: cost of the training.
    """

    def __init__(
        self,
        experiment: Experiment,
        schedule: Schedule,
        job: Job,
        log: MetricLog,
        progress: Progress,
    ):
        dataset, fold = experiment.dataset, job.fold
        self.job, self._experiment, self._schedule, self._log = job, experiment, schedule, log
        self._progress = progress
        self._environment = environment()
        batch_size = dataset.sampling.batch_size
        self.meter = cost.Meter(batch_size, job.folder / 'cost.json')
        self.state = experiment.initial_state(fold.train)
        self._n_params = sum(leaf.size for leaf in jax.tree.leaves(self.state.params))
        self._latest = Checkpoints(job.folder / 'latest')
        self._best = Checkpoints(job.folder / 'best')
        self.step, self._history = self._last_consistent(log.rows(fold.name))
        self._latest.go_back_to(self.step)
        self._best.go_back_to(self.step)
        log.forget(fold.name, after=self.step)
        # Metrics since the last validation: before this start, and in it.
        self._before, self._recent = [], []
        if self.step:
            found = self._latest.restore(steps.stored(self.state))
            self.state = steps.restored(found, self.state)
            self._before = _rows(self._latest.read_extra(self.step))
        self._validation = dataset.utterances(fold.validation) if len(fold.validation) else None
        if self.step:
            progress.say(fold.name, f'resumes from step {self.step}')
        elif experiment.head:
            progress.say(fold.name, 'training the head on the frozen encoder')
            self.state = experiment.initial_state(fold.train, experiment.head.train(fold.train))
        progress.say(fold.name, 'compiling (programs are kept for the next run)')
        self.done = self.step == job.stop or not is_patient(self._history, schedule.patience)
        batches = self._all_batches = dataset.train_batches(fold.train)
        stop = self.step if self.done else job.stop
        self._n_labels = len(batches.labelled)
        self._batches = self.meter.batches(prefetch(batches, self.step, stop))
        self.meter.pause()

    def _last_consistent(self, rows: list[dict]) -> tuple[int, list[dict]]:
        """The newest step whose state, metrics and best parameters are all there, and the metrics up to it."""
        steps = self._latest.intact_steps() if jax.process_index() == 0 else ()
        kept = self._best.intact_steps() if steps else ()
        consistent = (step for step in steps if self._is_consistent(step, rows, kept))
        found = int(multihost_utils.broadcast_one_to_all(np.int32(next(consistent, 0))))
        return found, [row for row in rows if row['step'] <= found]

    def _is_consistent(self, step: int, rows: list[dict], kept: Collection[int]) -> bool:
        history = [row for row in rows if row['step'] <= step]
        every = self._schedule.eval_every
        validated = [n for n in range(1, step + 1) if n % every == 0 or n == self.job.stop]
        n_extra = len(_rows(self._latest.read_extra(step)))
        return (
            [row['step'] for row in history] == validated
            and n_extra == step - max(validated, default=0)
            and (not history or best_row(history)['step'] in kept)
        )

    def next_batch(self) -> dict[str, np.ndarray]:
        """The batch of the next step."""
        return next(self._batches)

    def after_step(self, unpack: Callable, state: TrainState, step_metrics: dict) -> None:
        """Reports, validates and saves when it is time.

        Args:
            unpack: slices one run out of the packed state and metrics.
            state: packed train state after the step.
            step_metrics: packed metrics of the step.
        """
        self.step += 1
        self._recent.append(step_metrics)
        if self._progress.due():
            self._report({'loss': float(unpack(step_metrics)['loss'])})
        if self.step % self._schedule.eval_every == 0 or self.step == self.job.stop:
            state = unpack(state)
            row = {'fold': self.job.fold.name, 'step': self.step}
            skipped = self._refuse_diverged(state)
            row |= _mean(self._since_validation(unpack)) | {'skipped_steps': skipped}
            if self._validation is not None:
                variables = inference_variables(state)
                row |= inference.validate(self._experiment, variables, self._validation)
            self._before, self._recent, self._history = [], [], [*self._history, row]
            self._report(row)
            self._log.write(row)
            if row is best_row(self._history):
                self._best.save(self.step, inference_variables(steps.stored(state)))
            self.meter.save()
            self._latest.save(self.step, steps.stored(state))
            impatient = not is_patient(self._history, self._schedule.patience)
            self.done = impatient or self.step == self.job.stop

    def _report(self, values: dict[str, float]) -> None:
        self._progress.step(self.job.fold.name, self.step, self.job.stop, values)

    def _refuse_diverged(self, state: TrainState) -> int:
        """How many steps were skipped in all, in the phase with the most; refuses too many in a row."""
        most = 0
        for phase, opt_state in state.opt_state.items():
            in_a_row, of_phase = map(int, optimiser.skipped_steps(opt_state))
            most = max(most, of_phase)
            if in_a_row >= self._schedule.skipped_steps:
                ids = ', '.join(dict.fromkeys(self._all_batches.ids(self.step - 1)))
                raise UserError(
                    f'training diverged: no finite gradient of the phase {phase} in the last {in_a_row} steps of '
                    f'{self.job.fold.name} up to {self.step}; lower its learning rate, or look at what the last of them '
                    f'saw: {ids}'
                )
        return most

    def pause(self, unpack: Callable, state: TrainState) -> None:
        """Takes over its own state and metrics, before runs are packed again."""
        self.state = unpack(state)
        self._before, self._recent = self._since_validation(unpack), []
        self.meter.pause()

    def save(self, unpack: Callable, state: TrainState) -> str:
        """Saves what resuming at this very step needs, and returns the step's name."""
        rows = self._since_validation(unpack)
        extra = {name: np.stack([row[name] for row in rows]) for name in rows[0]} if rows else {}
        self.meter.save()
        self._latest.save(self.step, steps.stored(unpack(state)), extra)
        return f'step {self.step} of {self.job.fold.name}'

    def _since_validation(self, unpack: Callable) -> list[dict[str, np.ndarray]]:
        return [*self._before, *(unpack(step) for step in jax.device_get(self._recent))]

    def summary(self) -> dict[str, Any]:
        """See `train_folds`; only the kept parameters stay on disk."""
        kept = best_row(self._history)
        self._best.keep_newest()
        self._progress.finish(self.job.fold.name)
        return {
            'steps': kept['step'],
            'validation_uar': None,
            **{name: value for name, value in kept.items() if name.startswith('validation_')},
            'environment': self._environment,
            'n_params': self._n_params,
            'n_labels': {'train': self._n_labels, 'validation': len(self.job.fold.validation)},
            'cost': self.meter.total(),
        }


def _rows(columns: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    return [dict(zip(columns, values)) for values in zip(*columns.values())]


def _mean(recent: list[dict[str, np.ndarray]]) -> dict[str, float]:
    return {name: float(np.mean([step[name] for step in recent])) for name in recent[0]}


def discard_latest(folder: Path) -> None:
    """Drops what only resuming needs: a finished fold keeps its best parameters."""
    shutil.rmtree(folder / 'latest', ignore_errors=True)


def best_row(history: list[dict]) -> dict:
    """The row of metrics.jsonl of the parameters to keep: the last one without validation.

    Else that of the highest validation UAR, where ratings are predicted of the highest mean over the tasks of UAR or CCC; then
    of the lowest loss.
    """
    if 'validation_uar' not in history[-1]:
        return history[-1]
    score = 'validation_score' if 'validation_score' in history[-1] else 'validation_uar'
    return max(history, key=lambda row: (row[score], -row['validation_loss']))


def is_patient(history: list[dict], patience: int) -> bool:
    """Whether training goes on: the best row is among the last `patience`."""
    return not history or best_row(history) in history[-patience:]
