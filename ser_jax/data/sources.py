"""The corpora that a config names, opened and checked."""

import sys

import jax
import ml_collections
import numpy as np

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.data import batches
from ser_jax.data.corpora import Corpus, open_corpus
from ser_jax.data.folds import Fold
from ser_jax.data.labels import labels_of
from ser_jax.data.records import noise_type
from ser_jax.data.tasks import Task
from ser_jax.runtime.errors import UserError

Part = tuple[Corpus, np.ndarray]  # a corpus and some rows of its index


# Fields that name corpora beside the one behind the colon.
_CORPORA = 'labelled', 'unlabelled', 'noise_corpus', 'test_corpora'


def open_by_name(config: ml_collections.ConfigDict, name: str) -> Corpus:
    """Opens a prepared corpus, which is prepared first where it can be.

    Args:
        config: says where it lies, and with what front end it must have been prepared.
        name: of the corpus, in `config`.

    Returns:
        The corpus.

    Raises:
        UserError: see `corpora.open_corpus`; or its features are not finite.
    """
    try:
        corpus = open_corpus(
            name,
            data_dir=config.data.data_dir,
            manual_dir=config.data.manual_dir or None if name == config.corpus else None,
            representation=config.representation,
            front_end=FrontEnd(**config.data.front_end),
        )
        batches.refuse_not_finite(corpus)
        return corpus
    except UserError as error:
        if name == config.corpus:  # named behind the colon
            raise
        fields = [field for field in _CORPORA if name in (config[field], *config[field])]
        raise UserError(f'config.{fields[0]}: {error}') from error


def emotions_of(config: ml_collections.ConfigDict, corpus: Corpus) -> tuple[str, ...]:
    """The emotions to tell apart: those of `config.labels`, or the corpus's usual ones.

    Raises:
        UserError: the corpus lacks one, or has none and is to be tested on them.
    """
    labels = tuple(config.labels or corpus.metadata['labels'])
    there = np.unique(corpus.index['emotion'][corpus.index['emotion'] >= 0])
    there = [corpus.metadata['vocabulary'][code] for code in there]
    unknown = [label for label in labels if label not in there]
    if unknown:
        raise UserError(
            f'config.labels: corpus {corpus.name} has no emotion {unknown[0]!r}; it has {", ".join(there)}'
        )
    if not labels and 'emotion' in config.reported:
        raise UserError(
            f'corpus {corpus.name} has no emotion labels: it can join another corpus, as config.unlabelled or '
            'config.noise_corpus, or be tested on other tasks'
        )
    return labels


def rows_with_labels(corpus: Corpus, tasks: tuple[Task, ...]) -> np.ndarray:
    """The rows of a corpus with a label of at least one of some tasks that are reported.

    Raises:
        UserError: there is nothing to tell apart in a task.
    """
    everything = np.arange(len(corpus))
    labels = np.array([labels_of(corpus, everything, t.target, t.classes) for t in tasks])
    poor = []
    for task, found in zip(tasks, labels):
        values = corpus.index[task.target] if task.kind == 'regression' else found
        if len(np.unique(values[found >= 0])) < 2:
            poor.append(task.name)
    if poor:
        raise UserError(
            f'{corpus.name} has no labels, or all of one class, for {", ".join(poor)}: leave that out of the tasks and of '
            'config.reported'
        )
    return everything[(labels >= 0).any(0)]


def refuse_sides_without_labels(corpus: Corpus, folds: list[Fold], tasks: tuple[Task, ...]) -> None:
    """Refuses folds that nothing can be said of: a side that validates or is tested without any label of a task.

    Args:
        corpus: whose rows they are.
        folds: to train.
        tasks: that are reported.

    Raises:
        UserError: which fold, side and task.
    """
    for fold in folds:
        for side, rows in (('validation', fold.validation), ('test', fold.test)):
            for task in tasks if len(rows) else ():
                if (labels_of(corpus, rows, task.target, task.classes) < 0).all():
                    raise UserError(
                        f'{fold.name} of {corpus.name}: no {side} utterance has a label of the task {task.name}; '
                        'take it out of config.reported, or split otherwise (config.protocol, config.folds)'
                    )


def rows_that_join(corpus: Corpus, tasks: tuple[Task, ...], name: str) -> np.ndarray:
    """The rows of a corpus that joins the training of another: those with a label that it tests.

    Args:
        corpus: that joins.
        tasks: that are tested.
        name: of the other.

    Returns:
        Rows of its index; how many is told on stderr.

    Raises:
        UserError: there are none.
    """
    everything = np.arange(len(corpus))
    rows, shared = set(), []
    for task in tasks:
        numbers = labels_of(corpus, everything, task.target, task.classes)
        rows |= set(np.flatnonzero(numbers >= 0))
        found = [label for k, label in enumerate(task.classes) if (numbers == k).any()]
        shared += found
        # One class alone would make the corpus tell the class.
        if len(found) == 1 or (task is tasks[-1] and not shared):
            raise UserError(
                f'config.labelled: {corpus.name} has {len(found) or "none"} of the classes {", ".join(task.classes)}; as '
                'config.unlabelled it may join without labels'
            )
    if jax.process_index() == 0:
        print(
            f'{corpus.name} joins {name}: {", ".join(shared)} are shared; {len(rows)} of '
            f'{len(corpus)} utterances train',
            file=sys.stderr,
        )
    return np.array(sorted(rows))


def open_noise(config: ml_collections.ConfigDict) -> Part:
    """Opens the noise that the augmentation noise(…) mixes in.

    Args:
        config: with `noise_corpus` and `noise_types`.

    Returns:
        The corpus, and its rows of these types.

    Raises:
        UserError: it cannot be opened, or lacks a type.
    """
    corpus = open_by_name(config, config.noise_corpus)
    types = np.array([noise_type(text) for text in corpus.index['script']])
    unknown = sorted(set(config.noise_types) - set(types))
    if unknown:
        raise UserError(
            f'config.noise_types: {corpus.name} has no noise of the type {unknown[0]!r}; it has '
            f'{", ".join(sorted(set(types)))}'
        )
    return corpus, np.flatnonzero(np.isin(types, config.noise_types or types))
