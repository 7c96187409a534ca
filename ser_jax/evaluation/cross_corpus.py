"""Tests a final model on other whole corpora, as it is, with their statistics, or adapted to a few of their utterances."""

import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ser_jax.data import batches as data
from ser_jax.data import leaks
from ser_jax.data.corpora import Corpus
from ser_jax.data.folds import Fold
from ser_jax.data.labels import labels_of
from ser_jax.data.sources import open_by_name
from ser_jax.data.tasks import Task
from ser_jax.objectives import multitask, optimiser
from ser_jax.runs.predictions import Predictions
from ser_jax.runs.workdir import result_name
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.training import steps
from ser_jax.training.experiment import Experiment
from ser_jax.training.inference import predict
from ser_jax.transforms import augment

_NOBODY = np.empty(0, np.int64)
# Seed of what is drawn from a target: the same for every training seed, or their tests could not be paired.
_DRAW = 0
_ADAPTED = ('augmentation_type', 'log_mel')  # targets that need no label to be adapted to


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """A corpus to test a task on.

    Attributes:
        corpus: opened.
        task: reported classification.
        labels: those of its classes that the corpus has, in their order.
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


class CrossCorpus:
    """The conditions `cross_<corpus>…` of a config: of every corpus in `config.test_corpora`

    - `cross_<corpus>`: as it is, normalised by training statistics;
    - `cross_<corpus>_target_statistics` with `config.target_statistics`: transductive, normalised by the
      statistics of all tested utterances (but for which have a shared class, their labels are not used);
    - `cross_<corpus>_few_shot_<k>` for each k in `config.few_shot`: adapted to k utterances a class of as few
      speakers as have enough;
    - `cross_<corpus>_speakers_<share>` for each share in `config.few_shot_speakers`: adapted to that share
      of the speakers.

    An adapted model is tested on the speakers that no k (or no share) takes anything of: all k are tested on the same
    utterances, 0 too, which is not adapted. Who adapts is drawn once, the same for every training seed. Tasks other than
    the emotion have conditions of their own, `cross_<corpus>…_<task>`.

    Args:
        experiment: of the trained corpus.

    Raises:
        UserError: a corpus without a common class, or with utterances or speakers that are trained on.
    """

    def __init__(self, experiment: Experiment):
        self._experiment, config = experiment, experiment.config
        if config.test_corpora and any(task.kind == 'regression' for task in experiment.reported):
            raise UserError('config.test_corpora are tested on classes, not on regressions')
        self._ways = {}  # condition -> (target, how, how much)
        for name in config.test_corpora:
            corpus = open_by_name(config, name)
            ways = {'': ('as it is', 0)}
            if config.target_statistics:
                ways['_target_statistics'] = ('target statistics', 0)
            ways |= {f'_few_shot_{k}': ('few shot', k) for k in config.few_shot}
            ways |= {f'_speakers_{s:g}': ('speakers', s) for s in config.few_shot_speakers}
            stem = 'cross_' + name.replace('/', '_')
            for task in experiment.reported:
                target = self._target(corpus, task)
                for ending, way in ways.items():
                    self._ways[result_name(stem + ending, task.name)] = (target, *way)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._ways)

    def _target(self, corpus: Corpus, task: Task) -> Target:
        experiment, name = self._experiment, corpus.name
        everything = np.arange(len(corpus))
        numbers = labels_of(corpus, everything, task.target, task.classes)
        rows = everything[numbers >= 0]
        present = [label for k, label in enumerate(task.classes) if (numbers == k).any()]
        if len(present) < 2:
            raise UserError(
                f'{experiment.corpus.name} and {name} share {len(present)} of the classes '
                f'{", ".join(task.classes)} of {task.name}: nothing to tell apart'
            )
        leaks.check_folds(
            corpus.index,
            [Fold(f'test corpus {name}', _NOBODY, _NOBODY, rows, ())],
            [trained.index for trained in experiment.corpora()],
        )
        if jax.process_index() == 0:
            print(
                f'{experiment.corpus.name} -> {name}, {task.name}: {", ".join(present)} are shared; {len(rows)} of '
                f'{len(corpus)} utterances are tested',
                file=sys.stderr,
            )
        target = Target(corpus, task, tuple(present), rows)
        for field in ('few_shot', 'few_shot_speakers'):
            if experiment.config[field]:
                self._check_adaptation(target, field)
        return target

    def _check_adaptation(self, target: Target, field: str) -> None:
        """Refuses an adaptation that leaves a class without a test, or adapts to what it tests."""
        corpus = target.corpus
        pool, tested = self._adapting(target, field)
        left = set(target.numbers(tested))
        lost = [label for k, label in enumerate(target.labels) if k not in left]
        if lost:
            raise UserError(
                f'config.{field}={tuple(self._experiment.config[field])} takes so many speakers of {corpus.name} that '
                f'none is left to test {lost[0]}'
            )
        leaks.check_folds(
            corpus.index, [Fold(f'{field} of {corpus.name}', pool, _NOBODY, tested, ())], []
        )

    def about(self, condition: str) -> dict[str, Any]:
        """The corpus that a condition tests, as the result card says it, and the classes shared with it."""
        target = self._ways[condition][0]
        metadata = target.corpus.metadata
        facts = {name: metadata[name] for name in ('corpus_hash', 'synthetic')}
        own = {} if target.task.name == 'emotion' else {'task': target.task.name}
        return {'corpus': target.corpus.name, **facts, **own, 'labels': target.labels}

    def made_with(self, condition: str) -> str:
        """What a condition's predictions depend on beside the model: others must be made anew."""
        target, how, _ = self._ways[condition]
        words = [target.corpus.metadata['corpus_hash']]
        if how in ('few shot', 'speakers'):
            fields = ('few_shot', 'few_shot_speakers', 'few_shot_steps', 'few_shot_learning_rate')
            words += [f'{field}={self._experiment.config[field]}' for field in fields]
        return ' '.join(words)

    def predict(self, condition: str, variables: dict[str, Any]) -> tuple[Predictions, tuple]:
        """What the model says about a corpus.

        Args:
            condition: in `conditions`.
            variables: of the final model.

        Returns:
            (predictions over the shared classes, their names). Probabilities of other classes are left out, the
            rest scaled to sum to 1.
        """
        target, how, amount = self._ways[condition]
        task, rows = target.task, target.rows
        if how == 'target statistics':
            constants = variables['constants'] | data.normalisation([(target.corpus, rows)])
            variables = variables | {'constants': constants}
        elif how == 'few shot':
            pool, rows = self._adapting(target, 'few_shot')
            numbers = target.numbers(pool)
            chosen = [pool[numbers == k][:amount] for k in range(len(target.labels))]
            if amount:
                variables = self._adapt(variables, target, np.concatenate(chosen))
        elif how == 'speakers':
            pool, rows = self._adapting(target, 'few_shot_speakers')
            speakers = target.corpus.index['speaker'][pool]
            chosen = self._speakers(target)[: self._count(target, amount)]
            if amount:
                variables = self._adapt(variables, target, pool[np.isin(speakers, chosen)])
        variables = devices.replicate(jax.device_get(variables), self._experiment.mesh)
        utterances = self._utterances(target, rows)
        probabilities = predict(self._experiment, variables, utterances)[task.name]
        columns = [task.classes.index(label) for label in target.labels]
        probabilities = probabilities[:, columns] / probabilities[:, columns].sum(1, keepdims=True)
        index, labels = target.corpus.index, target.numbers(rows)
        predictions = Predictions(
            index['id'][rows], ['cross'] * len(rows), index['speaker'][rows], labels, probabilities
        )
        return predictions, target.labels

    def _utterances(self, target: Target, rows: np.ndarray) -> data.Utterances:
        """Utterances of a target with the classes of the trained corpus."""
        classes = {'emotion': self._experiment.labels, target.task.target: target.task.classes}
        memory_gb = self._experiment.config.data.memory_gb
        return data.Utterances([(target.corpus, rows)], classes, memory_gb=memory_gb)

    def _speakers(self, target: Target) -> np.ndarray:
        """The known speakers in the order in which they are taken to adapt."""
        known = sorted(set(target.corpus.index['speaker'][target.rows]) - {''})
        return np.random.default_rng(_DRAW).permutation(np.array(known))

    def _count(self, target: Target, share: float) -> int:
        return max(1, round(share * len(self._speakers(target)))) if share else 0

    def _adapting(self, target: Target, field: str) -> tuple[np.ndarray, np.ndarray]:
        """The rows that any amount of a way of adapting may take, in random order, and those it is tested on.

        Raises:
            UserError: there are not as many as asked for.
        """
        corpus, most = target.corpus, max(self._experiment.config[field])
        speakers = corpus.index['speaker'][target.rows]
        numbers = target.numbers(target.rows)
        order = self._speakers(target)
        if field == 'few_shot_speakers':
            taken = order[: self._count(target, most)]
        else:
            counts = np.zeros(len(target.labels), int)
            taken = []
            for speaker in order:
                own = np.bincount(numbers[speakers == speaker], minlength=len(counts))
                if (own * (counts < most)).any():  # has some of a class that lacks some
                    taken.append(speaker)
                    counts += own
            if (counts < most).any():
                raise UserError(
                    f'config.few_shot takes up to {most} utterances a class, but the known speakers of {corpus.name} '
                    f'have only {counts.min()} of {target.labels[counts.argmin()]}'
                )
        adapts = np.isin(speakers, taken)
        pool = np.random.default_rng(_DRAW).permutation(target.rows[adapts])
        return pool, target.rows[~adapts & (speakers != '')]  # the unknown ones might be anybody

    @functools.cache  # noqa: B019 - one object a run
    def _adaptation(
        self, adapted: Task
    ) -> tuple[tuple[multitask.Phase, ...], devices.DataParallel, Callable]:
        """Phases, placement and compiled step of adapting; the tasks are those that need no other label than the adapted one's."""
        experiment, config = self._experiment, self._experiment.config
        settings = config.optimiser.copy_and_resolve_references()
        settings.learning_rate = config.few_shot_learning_rate
        further = _ADAPTED if config.objective == 'multitask' else ()
        phases = multitask.multitask(
            experiment.model.clone(axis_name=devices.AXIS),
            tuple(t for t in experiment.tasks if t == adapted or t.target in further),
            optimiser.make_optimiser(settings, config.few_shot_steps),
            label_smoothing=config.label_smoothing,
            clean_target=True,
            axis_name=devices.AXIS,
            representation=config.representation,
        )
        plain = augment.unchanged
        if experiment.front_end:
            plain = functools.partial(
                augment.augment,
                operations=(),
                frames=config.crop_frames,
                axis_name=devices.AXIS,
            )
        placement = devices.DataParallel(experiment.mesh, config.parallelism)
        return phases, placement, steps.compile_train_step(phases, plain, placement)

    def _adapt(self, variables: dict, target: Target, rows: np.ndarray) -> dict:
        """Goes on training with some labelled utterances of the target, without augmentation."""
        experiment, config = self._experiment, self._experiment.config
        phases, placement, step = self._adaptation(target.task)
        variables = jax.device_get(variables)
        constants = variables['constants'] | {
            'class_weights': {target.task.name: np.ones(len(target.task.classes), np.float32)},
            'seed': np.int32(config.seed),
        }
        state = steps.TrainState(
            step=np.int32(0),
            params=variables['params'],
            opt_state={p.name: jax.device_get(p.tx.init(variables['params'])) for p in phases},
            model_state={'batch_stats': variables['batch_stats'], 'constants': constants},
        )
        state = placement.pack([devices.replicate(state, experiment.mesh)])
        batches = data.TrainBatches(
            labelled=self._utterances(target, rows),
            unlabelled=None,
            noise=None,
            batch_size=config.batch_size,
            n_unlabelled=0,
            length=config.crop_frames * config.data.front_end.hop_length
            if experiment.front_end is None
            else config.crop_frames,
            seed=config.seed,
            rows=devices.local_rows(config.batch_size),
        )
        for batch in data.prefetch(batches, 0, config.few_shot_steps):
            state, _ = step(state, placement.to_devices([batch]))
        return steps.inference_variables(state)
