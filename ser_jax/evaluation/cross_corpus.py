"""Tests a final model on other whole corpora: as it is, with their statistics, or adapted to a few of their utterances."""

import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ser_jax.data import leaks
from ser_jax.data.batches import normalisation
from ser_jax.data.corpora import Corpus
from ser_jax.data.folds import Fold
from ser_jax.data.labels import labels_of
from ser_jax.data.tasks import Task
from ser_jax.evaluation.adaptation import Adapter, Shots, Target
from ser_jax.runs.predictions import Predictions
from ser_jax.runs.workdir import result_name
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.training.experiment import Experiment
from ser_jax.training.inference import predict

_NO_ROWS = np.empty(0, np.int64)


class CrossCorpusTester:
    """The conditions `cross_<corpus>…` of a run, for every corpus in `config.test_corpora`:

    - `cross_<corpus>`: as it is, normalised by training statistics;
    - `cross_<corpus>_target_statistics`: transductive, normalised by the statistics of all tested utterances (their labels
      are used only to leave out classes that are not shared);
    - `cross_<corpus>_few_shot_<k>`: adapted to k utterances per class of as few speakers as have enough;
    - `cross_<corpus>_speakers_<share>`: adapted to that share of the speakers.

    An adapted model is tested on the speakers that no k (or no share) takes anything of: all k are tested on the same
    utterances, 0 too, which is not adapted. Adaptation speakers are drawn once, the same for every training seed. Tasks other than
    the emotion have conditions of their own, `cross_<corpus>…_<task>`.

    Args:
        experiment: dataset and program of the trained corpus.
        corpora: names of the tested corpora.
        adapter: adapts the model.
        target_statistics: whether to test with the target's statistics, too.
        few_shot: utterances per class to adapt to.
        few_shot_speakers: shares of the speakers to adapt to.
        adaptation: settings of the adaptation, as text.

    Raises:
        UserError: a corpus without a common class, or with utterances or speakers that are trained on.
    """

    def __init__(
        self,
        experiment: Experiment,
        corpora: Sequence[str],
        adapter: Adapter,
        *,
        target_statistics: bool = False,
        few_shot: Sequence[int] = (),
        few_shot_speakers: Sequence[float] = (),
        adaptation: str = '',
    ):
        self._experiment, self._adapter, self._adaptation = experiment, adapter, adaptation
        dataset, representation = experiment.dataset, experiment.program.representation
        if corpora and any(task.kind == 'regression' for task in dataset.reported):
            raise UserError('config.test_corpora are tested on classes, not on regressions')
        self._conditions = {}  # name -> (target, variant): None, 'target statistics' or Shots
        for name in corpora:
            corpus = dataset.records.open(name, representation, 'test_corpora')
            variants = {'': None}
            if target_statistics:
                variants['_target_statistics'] = 'target statistics'
            for k in few_shot:
                variants[f'_few_shot_{k}'] = Shots('few_shot', k, max(few_shot))
            for share in few_shot_speakers:
                shots = Shots('few_shot_speakers', share, max(few_shot_speakers))
                variants[f'_speakers_{share:g}'] = shots
            fields = {'few_shot': few_shot, 'few_shot_speakers': few_shot_speakers}
            stem = 'cross_' + name.replace('/', '_')
            for task in dataset.reported:
                target = self._target(corpus, task)
                for field, amounts in fields.items():
                    if amounts:
                        _check_adaptation(target, field, amounts)
                for ending, variant in variants.items():
                    self._conditions[result_name(stem + ending, task.name)] = (target, variant)

    @property
    def conditions(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._conditions)

    def _target(self, corpus: Corpus, task: Task) -> Target:
        dataset = self._experiment.dataset
        everything = np.arange(len(corpus))
        numbers = labels_of(corpus, everything, task.target, task.classes)
        rows = everything[numbers >= 0]
        present = [label for k, label in enumerate(task.classes) if (numbers == k).any()]
        if len(present) < 2:
            raise UserError(
                f'{dataset.corpus.name} and {corpus.name} share {len(present)} of the classes '
                f'{", ".join(task.classes)} of {task.name}: nothing to tell apart'
            )
        leaks.check_folds(
            corpus.index,
            [Fold(f'test corpus {corpus.name}', _NO_ROWS, _NO_ROWS, rows, ())],
            [trained.index for trained in dataset.corpora()],
        )
        if jax.process_index() == 0:
            print(
                f'{dataset.corpus.name} -> {corpus.name}, {task.name}: {", ".join(present)} are shared; {len(rows)} of '
                f'{len(corpus)} utterances are tested',
                file=sys.stderr,
            )
        return Target(corpus, task, tuple(present), rows)

    def about(self, condition: str) -> dict[str, Any]:
        """The fields of the result card that describe the tested corpus, with the shared classes."""
        target, _ = self._conditions[condition]
        metadata = target.corpus.metadata
        facts = {name: metadata[name] for name in ('corpus_hash', 'synthetic')}
        own = {} if target.task.name == 'emotion' else {'task': target.task.name}
        return {'corpus': target.corpus.name, **facts, **own, 'labels': target.labels}

    def fingerprint(self, condition: str) -> str:
        """Identifies what predictions depend on apart from the model: where it differs, they are computed again."""
        target, variant = self._conditions[condition]
        adapted = [self._adaptation] if isinstance(variant, Shots) else []
        return ' '.join([target.corpus.metadata['corpus_hash'], *adapted])

    def predict(self, condition: str, variables: dict[str, Any]) -> tuple[Predictions, tuple]:
        """Predicts the utterances of a corpus with the final model, under one of `conditions`.

        Returns:
            (predictions over the shared classes, their names). Probabilities of other classes are left out, the
            rest scaled to sum to 1.
        """
        target, variant = self._conditions[condition]
        task, rows = target.task, target.rows
        if isinstance(variant, Shots):
            _, rows = variant.split(target)
            if variant.amount:
                variables = self._adapter.adapt(variables, target, variant.rows(target))
        elif variant:
            constants = variables['constants'] | normalisation([(target.corpus, rows)])
            variables = variables | {'constants': constants}
        variables = devices.replicate(jax.device_get(variables), self._experiment.program.mesh)
        utterances = self._adapter.utterances(target, rows)
        probabilities = predict(self._experiment, variables, utterances)[task.name]
        columns = [task.classes.index(label) for label in target.labels]
        probabilities = probabilities[:, columns] / probabilities[:, columns].sum(1, keepdims=True)
        index, labels = target.corpus.index, target.numbers(rows)
        predictions = Predictions(
            index['id'][rows], ['cross'] * len(rows), index['speaker'][rows], labels, probabilities
        )
        return predictions, target.labels


def _check_adaptation(target: Target, field: str, amounts: Sequence[float]) -> None:
    """Refuses an adaptation that leaves a class without a test, or adapts to what it tests."""
    pool, tested = Shots(field, 0, max(amounts)).split(target)
    left = set(target.numbers(tested))
    lost = [label for k, label in enumerate(target.labels) if k not in left]
    if lost:
        raise UserError(
            f'config.{field}={tuple(amounts)} takes so many speakers of {target.corpus.name} that '
            f'none is left to test {lost[0]}'
        )
    name = f'{field} of {target.corpus.name}'
    leaks.check_folds(target.corpus.index, [Fold(name, pool, _NO_ROWS, tested, ())], [])
