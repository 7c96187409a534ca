"""Adaptation of a final model to some labelled utterances of another corpus, and which utterances those are."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np
import optax

from ser_jax.data.batches import TrainBatches, Utterances, prefetch
from ser_jax.data.corpora import Corpus
from ser_jax.data.labels import labels_of
from ser_jax.data.tasks import Task
from ser_jax.models.encoders.fine_tuning import PRETRAINED
from ser_jax.objectives.multitask import multitask
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.training import steps
from ser_jax.training.experiment import Experiment
from ser_jax.transforms import augment

# Seed of what is drawn from a target: the same for every training seed, so that their tests can be paired.
_DRAW = 0
_LABEL_FREE = (
    'augmentation_type',
    'log_mel',
)  # targets of tasks that need no label of the other corpus


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A corpus to test a task on.

    Attributes:
        corpus: opened.
        task: reported classification.
        labels: classes of the task that the corpus has, in their order.
        rows: utterances of the corpus with one of them.
    """

    corpus: Corpus
    task: Task
    labels: tuple[str, ...]
    rows: np.ndarray

    def numbers(self, rows: np.ndarray) -> np.ndarray:
        """Positions in `labels` of some rows of the corpus, int [N]."""
        found = labels_of(self.corpus, rows, self.task.target, self.task.classes)
        own = [self.labels.index(x) if x in self.labels else -1 for x in self.task.classes]
        return np.array([*own, -1])[found]

    def shuffled_speakers(self) -> np.ndarray:
        """The known speakers in the order in which adaptation takes them."""
        known = sorted(set(self.corpus.index['speaker'][self.rows]) - {''})
        return np.random.default_rng(_DRAW).permutation(np.array(known))

    def first_speakers(self, share: float) -> np.ndarray:
        """The speakers that make up a share of all, at least one; none for 0."""
        order = self.shuffled_speakers()
        return order[: max(1, round(share * len(order))) if share else 0]

    def speakers_with(self, count: int) -> np.ndarray:
        """As few speakers as have `count` utterances of every class; raises UserError where all have too few."""
        numbers, speakers = self.numbers(self.rows), self.corpus.index['speaker'][self.rows]
        counts, taken = np.zeros(len(self.labels), int), []
        for speaker in self.shuffled_speakers():
            own = np.bincount(numbers[speakers == speaker], minlength=len(counts))
            if (own * (counts < count)).any():  # has some of a class that lacks some
                taken.append(speaker)
                counts += own
        if (counts < count).any():
            raise UserError(
                f'config.few_shot takes up to {count} utterances a class, but the known speakers of {self.corpus.name} '
                f'have only {counts.min()} of {self.labels[counts.argmin()]}'
            )
        return np.array(taken)

    def split(self, speakers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(rows of some speakers in random order, rows of the other known speakers: unknown ones might be any speaker)."""
        own = self.corpus.index['speaker'][self.rows]
        adapts = np.isin(own, speakers)
        pool = np.random.default_rng(_DRAW).permutation(self.rows[adapts])
        return pool, self.rows[~adapts & (own != '')]


class Shots(NamedTuple):
    """How much of a target corpus adapts a model: an amount, out of the amounts that are compared.

    Attributes:
        field: 'few_shot', utterances per class, or 'few_shot_speakers', shares of the speakers.
        amount: amount of this condition.
        largest: largest amount of all conditions: what it takes is tested by none of them.
    """

    field: str
    amount: float
    largest: float

    def split(self, target: Target) -> tuple[np.ndarray, np.ndarray]:
        """(rows that the largest amount may take, rows that are tested); UserError: there are too few utterances."""
        if self.field == 'few_shot':
            return target.split(target.speakers_with(self.largest))
        return target.split(target.first_speakers(self.largest))

    def rows(self, target: Target) -> np.ndarray:
        """The rows that adapt the model."""
        pool, _ = self.split(target)
        if self.field == 'few_shot_speakers':
            speakers = target.first_speakers(self.amount)
            return pool[np.isin(target.corpus.index['speaker'][pool], speakers)]
        numbers = target.numbers(pool)
        return np.concatenate(
            [pool[numbers == k][: self.amount] for k in range(len(target.labels))]
        )


class Adapter:
    """Continues the training of a final model on some utterances, without augmentation.

    Args:
        experiment: dataset and program of the run.
        tx: optimiser.
        n_steps: training steps.
        label_smoothing: share spread over all classes.
        label_free: whether the tasks that need no label train as well.
    """

    def __init__(
        self,
        experiment: Experiment,
        tx: optax.GradientTransformation,
        n_steps: int,
        *,
        label_smoothing: float,
        label_free: bool,
    ):
        self._experiment, self._tx, self._n_steps = experiment, tx, n_steps
        self._label_smoothing, self._label_free = label_smoothing, label_free

    @functools.cache  # noqa: B019 - one object per run
    def _step(self, adapted: Task, updates: tuple[str, ...]):
        """Phase, placement and compiled training step."""
        dataset, program = self._experiment.dataset, self._experiment.program
        further = _LABEL_FREE if self._label_free else ()
        (phase,) = multitask(
            program.model.clone(axis_name=devices.AXIS),
            tuple(t for t in dataset.tasks if t == adapted or t.target in further),
            self._tx,
            label_smoothing=self._label_smoothing,
            clean_target=True,
            axis_name=devices.AXIS,
            representation=program.representation,
            encoder=program.encoder if program.trains_encoder else None,
        )
        plain = augment.unchanged
        if program.representation == 'log_mel':
            plain = functools.partial(
                augment.augment, operations=(), frames=program.crop_frames, axis_name=devices.AXIS
            )
        phase = dataclasses.replace(phase, updates=updates)
        placement = program.on_all_devices()
        return phase, placement, steps.compile_train_step((phase,), plain, placement)

    def utterances(self, target: Target, rows: np.ndarray) -> Utterances:
        """Utterances of a target corpus with the classes of the trained one."""
        dataset = self._experiment.dataset
        classes = {'emotion': dataset.labels, target.task.target: target.task.classes}
        memory_gb = dataset.sampling.memory_gb
        return Utterances([(target.corpus, rows)], classes, memory_gb=memory_gb)

    def adapt(self, variables: Mapping, target: Target, rows: np.ndarray) -> dict:
        """Trains the final model on some rows of a target corpus; returns the adapted variables."""
        dataset, program = self._experiment.dataset, self._experiment.program
        variables = jax.device_get(variables)
        # Too few utterances for an encoder, which stays as it is.
        updates = tuple(name for name in variables['params'] if name != PRETRAINED)
        phase, placement, step = self._step(target.task, updates)
        constants = variables['constants'] | {
            'class_weights': {target.task.name: np.ones(len(target.task.classes), np.float32)},
            'seed': np.int32(dataset.sampling.seed),
        }
        model_state = {name: part for name, part in variables.items() if name != 'params'}
        state = steps.TrainState(
            step=np.int32(0),
            params=variables['params'],
            opt_state={phase.name: phase.tx.init(steps.chosen(variables['params'], updates))},
            model_state=model_state | {'constants': constants},
        )
        state = placement.pack([devices.replicate(state, program.mesh)])
        batches = TrainBatches(
            labelled=self.utterances(target, rows),
            unlabelled=None,
            noise=None,
            batch_size=dataset.sampling.batch_size,
            n_unlabelled=0,
            length=program.input_length,
            seed=dataset.sampling.seed,
            rows=devices.local_rows(dataset.sampling.batch_size),
        )
        for batch in prefetch(batches, 0, self._n_steps):
            state, _ = step(state, placement.to_devices([batch]))
        return steps.inference_variables(state)
