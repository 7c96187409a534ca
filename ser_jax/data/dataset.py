"""The data of a run: opened corpora, tasks and folds, with the batches and statistics that training takes from them."""

import dataclasses
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.data import batches, leaks
from ser_jax.data.corpora import Corpus, open_corpus
from ser_jax.data.encoded import Encoding, open_encoded
from ser_jax.data.folds import Fold, make_folds, select_folds
from ser_jax.data.labels import (
    class_names,
    class_weights,
    labelled_share,
    labels_of,
    occurring,
    rating_scale,
)
from ser_jax.data.records import EMOTIONS_OF, noise_type
from ser_jax.data.tasks import Task, make_tasks
from ser_jax.runtime.devices import is_main_process, local_rows
from ser_jax.runtime.errors import UserError

Part = tuple[Corpus, np.ndarray]  # a corpus and some rows of its index


class Records(NamedTuple):
    """Where prepared corpora lie, and the front end that they must have been prepared with.

    Attributes:
        data_dir: root of the prepared corpora.
        front_end: log-mel parameters.
        manual_dirs: corpus -> folder that it was prepared from, where that is not the default one.
        encoding: the encoder of encoded corpora, or None.
    """

    data_dir: str | os.PathLike | None = None
    front_end: FrontEnd = DEFAULT_FRONT_END
    manual_dirs: Mapping[str, str] = {}
    encoding: Encoding | None = None

    def open(self, name: str, representation: str, field: str = '') -> Corpus:
        """Opens a prepared corpus.

        Args:
            name: name of the corpus.
            representation: 'log_mel', 'waveform' or 'encoded'.
            field: field of the config that names the corpus, for messages.

        Raises:
            UserError: see `corpora.open_corpus`; or its features are not finite.
        """
        try:
            corpus = open_corpus(
                name,
                data_dir=self.data_dir,
                manual_dir=self.manual_dirs.get(name),
                representation='waveform' if representation == 'encoded' else representation,
                front_end=self.front_end,
            )
            batches.refuse_not_finite(corpus)
            if representation == 'encoded':
                encoding = self.encoding
                if field == 'test_corpora':  # only the clean view is tested
                    encoding = encoding._replace(views=encoding.views[:1])
                corpus = open_encoded(corpus, encoding, self.data_dir)
        except UserError as error:
            raise UserError(f'config.{field}: {error}' if field else str(error)) from error
        return corpus


class Sampling(NamedTuple):
    """How training batches are drawn from a dataset.

    Attributes:
        batch_size: rows of the global batch.
        length: frames or samples that the host delivers.
        seed: seed of order, crops and kept labels.
        labelled_share: fraction of each training speaker's utterances that keep their label.
        unlabelled_share: share of each batch without labels, where there are unlabelled utterances.
        class_weights: whether every class of a reported task counts the same.
        balanced_draws: whether every emotion of every corpus is drawn equally often, instead.
        label_free: whether the objective learns from utterances without any label.
        memory_gb: size up to which utterances are kept in memory.
        views, clean_share: views and share of clean utterances of encoded utterances, see `batches.TrainBatches`.
    """

    batch_size: int
    length: int
    seed: int = 0
    labelled_share: float = 1.0
    unlabelled_share: float = 0.5
    class_weights: bool = True
    balanced_draws: bool = False
    label_free: bool = False
    memory_gb: float = 4.0
    views: tuple[int, ...] = (0,)
    clean_share: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """The data of a run; all folds share its corpora.

    Attributes:
        records: location of the corpora.
        corpus: the corpus whose folds are trained and tested; the others only join its training.
        labelled: (corpus, rows with one of the emotions) each.
        unlabelled: corpora that join without their labels.
        noise: (corpus, rows of the types of noise that train), or None.
        labels: emotions, in the order of the outputs.
        rows: rows of `corpus` with a label of a reported task.
        protocol: call string.
        folds: folds to run; `n_folds` counts those of the protocol.
        leak_check: counts of `leaks.check_folds`.
        tasks: learnt tasks.
        reported: tasks that are validated and tested.
        sampling: how training batches are drawn.
        untrained_classes: remarks on folds that train no utterance of a class of their held-out speakers.
    """

    records: Records
    corpus: Corpus
    labelled: list[Part]
    unlabelled: list[Corpus]
    noise: Part | None
    labels: tuple[str, ...]
    rows: np.ndarray
    protocol: str
    folds: list[Fold]
    n_folds: int
    leak_check: dict[str, int]
    tasks: tuple[Task, ...]
    reported: tuple[Task, ...]
    sampling: Sampling
    untrained_classes: Sequence[str] = ()

    @property
    def leaves_corpus_out(self) -> bool:
        """Whether the corpus is only tested: no fold trains on it."""
        return bool(self.folds) and not any(len(fold.train) for fold in self.folds)

    def corpora(self) -> list[Corpus]:
        """Every corpus that trains."""
        noise = [self.noise[0]] if self.noise else []
        return [self.corpus, *self.unlabelled, *(corpus for corpus, _ in self.labelled), *noise]

    def corpus_hashes(self) -> dict[str, str]:
        """Name -> hash of every corpus that trains."""
        return {corpus.name: corpus.metadata['corpus_hash'] for corpus in self.corpora()}

    def labels_of(self, task: Task, rows: np.ndarray) -> np.ndarray:
        """Class numbers of some rows of the corpus, int [N]; −1 = none."""
        return labels_of(self.corpus, rows, task.target, task.classes)

    def utterances(self, rows: np.ndarray) -> batches.Utterances:
        """Some utterances of the corpus, with the labels of all tasks."""
        return self._utterances([(self.corpus, rows)])

    def _utterances(self, parts, hide=()) -> batches.Utterances:
        classes = {
            task.target: task.classes
            for task in self.tasks
            if task.classes and task.target != 'augmentation_type'
        }
        return batches.Utterances(
            parts,
            {'emotion': self.labels} | classes,
            ratings={task.target for task in self.tasks if task.kind == 'regression'},
            hide=hide,
            memory_gb=self.sampling.memory_gb,
        )

    def train_batches(self, rows: np.ndarray) -> batches.TrainBatches:
        """Training batches of some rows of the corpus, with all that joins training."""
        labelled, hidden = self._split_labelled(rows)
        unlabelled = [part for part in hidden if len(part[1])]
        unlabelled += [(corpus, np.arange(len(corpus))) for corpus in self.unlabelled]
        if set(self.tasks) == set(self.reported) and not self.sampling.label_free:
            unlabelled = []  # nothing can be learnt from them
        # Also hide labels derived from the emotion: they would leak it.
        hide = {'emotion', *EMOTIONS_OF, *(task.target for task in self.reported)}
        noise = None
        if self.noise:
            noise = batches.Utterances([self.noise], {}, memory_gb=self.sampling.memory_gb)
        size = self.sampling.batch_size
        return batches.TrainBatches(
            labelled=self._utterances(labelled),
            unlabelled=self._utterances(unlabelled, hide=hide) if unlabelled else None,
            noise=noise,
            batch_size=size,
            n_unlabelled=round(self.sampling.unlabelled_share * size) if unlabelled else 0,
            length=self.sampling.length,
            seed=self.sampling.seed,
            rows=local_rows(size),
            views=self.sampling.views,
            clean_share=self.sampling.clean_share,
            groups=self._groups(labelled) if self.sampling.balanced_draws else (),
        )

    def _groups(self, parts: list[Part]) -> tuple[np.ndarray, ...]:
        """Positions in the joined parts of every emotion of every part."""
        emotions = [labels_of(*part, 'emotion', self.labels) for part in parts]
        kinds = 1 + len(self.labels)  # −1: none of them
        numbers = np.concatenate([kinds * k + labels for k, labels in enumerate(emotions)])
        return tuple(np.flatnonzero(numbers == number) for number in np.unique(numbers))

    def _split_labelled(self, rows: np.ndarray) -> tuple[list[Part], list[Part]]:
        """The training rows that keep their label (`Sampling.labelled_share`), and the others."""
        kept, hidden = [], []
        for corpus, some in [(self.corpus, rows), *self.labelled]:
            emotions = labels_of(corpus, some, 'emotion', self.labels)
            share, seed = self.sampling.labelled_share, self.sampling.seed
            chosen = labelled_share(corpus.index['speaker'][some], emotions, share, seed)
            kept.append((corpus, some[chosen]))
            hidden.append((corpus, some[~chosen]))
        return kept, hidden

    def statistics(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Training-set statistics: normalisation, class weights, rating scale.

        Args:
            rows: training rows of the corpus.

        Returns:
            The constants of `training.steps.TrainState.model_state`.
        """
        kept = self._split_labelled(rows)[0]
        reported = [task for task in self.reported if task.kind == 'classification']
        weights = {task.name: np.ones(len(task.classes), np.float32) for task in reported}
        if self.sampling.class_weights and not self.sampling.balanced_draws:
            for task in reported:
                labels = [labels_of(*part, task.target, task.classes) for part in kept]
                weights[task.name] = class_weights(np.concatenate(labels), len(task.classes))
        everything = [(self.corpus, rows), *self.labelled]
        everything += [(corpus, np.arange(len(corpus))) for corpus in self.unlabelled]
        return {
            'seed': np.int32(self.sampling.seed),
            'class_weights': weights,
            'trained_classes': {
                task.name: occurring(everything, task.target, task.classes)
                for task in self.tasks
                if task.kind == 'classification'
                and task.target != 'augmentation_type'
                and task.name not in weights
            },
            'ratings': {
                task.name: rating_scale(kept, task.target)
                for task in self.tasks
                if task.kind == 'regression'
            },
            **batches.normalisation([(self.corpus, rows), *self.labelled]),
        }


def open_dataset(
    records: Records,
    corpus: str,
    *,
    representation: str,
    tasks: Mapping[str, Mapping],
    reported: Sequence[str],
    sampling: Sampling,
    labels: Sequence[str] = (),
    protocol: str = '',
    folds: Sequence[int] = (),
    validation: bool = True,
    labelled: Sequence[str] = (),
    unlabelled: Sequence[str] = (),
    noise_corpus: str = '',
    noise_types: Sequence[str] = (),
    augmentations: Sequence[str] = (),
) -> Dataset:
    """Opens the corpora of a run, and makes and checks its tasks and folds.

    Args:
        records: location of the corpora.
        corpus: name of the corpus whose folds are trained and tested.
        representation: 'log_mel', 'waveform' or 'encoded'.
        tasks: name -> kind, target, weight (`tasks.make_tasks`).
        reported: tasks that are validated and tested.
        sampling: how training batches are drawn.
        labels: emotions to classify; () = the corpus's default ones.
        protocol: call string; '' = the corpus's default.
        folds: numbers of the folds to run, from 1; () = all.
        validation: False adds the validation speakers to training.
        labelled: other corpora that join with their labels.
        unlabelled: other corpora that join without.
        noise_corpus: corpus of the augmentation noise(…), or ''.
        noise_types: types of its noise; () = all.
        augmentations: call strings; together with 'clean' the classes of the augmentation type.

    Raises:
        UserError: a corpus that cannot be opened or lacks what is asked for, a task or protocol that does not exist, a leak.
    """
    main_corpus = records.open(corpus, representation)
    joined = [records.open(name, representation, 'labelled') for name in labelled]
    unlabelled_corpora = [records.open(name, representation, 'unlabelled') for name in unlabelled]
    noise = None
    if noise_corpus:
        noise = _noise(records.open(noise_corpus, representation, 'noise_corpus'), noise_types)
    emotions = _emotions(main_corpus, labels, required='emotion' in reported)
    all_tasks = make_tasks(
        tasks,
        {
            record['target']: ('clean', *augmentations)
            if record['target'] == 'augmentation_type'
            else class_names(
                record['target'], [main_corpus, *joined, *unlabelled_corpora], emotions
            )
            for record in tasks.values()
            if record['kind'] in ('classification', 'regression')
        },
    )
    tested = tuple(task for task in all_tasks if task.name in reported)
    rows = rows_with_labels(main_corpus, tested)
    protocol = protocol or main_corpus.metadata['protocol']
    if not protocol:
        raise UserError(f'corpus {corpus} has no default protocol; set config.protocol')
    all_folds = make_folds(
        main_corpus.index,
        protocol,
        rows=rows,
        folds=main_corpus.metadata.get('folds'),
        validation=validation,
    )
    chosen = select_folds(all_folds, folds)
    refuse_splits_without_labels(main_corpus, chosen, tested)
    parts = [(other, rows_that_join(other, tested, corpus)) for other in joined]
    untrained = untrained_classes(main_corpus, chosen, tested, parts)
    for remark in untrained:
        warnings.warn(remark, stacklevel=2)
    checked = chosen or [Fold('final', rows, *[np.empty(0, np.int64)] * 2, ())]
    added = [*joined, *unlabelled_corpora, *([noise[0]] if noise else [])]
    dataset = Dataset(
        records=records,
        corpus=main_corpus,
        labelled=parts,
        unlabelled=unlabelled_corpora,
        noise=noise,
        labels=emotions,
        rows=rows,
        protocol=protocol,
        folds=chosen,
        n_folds=len(all_folds),
        leak_check=leaks.check_folds(main_corpus.index, checked, [other.index for other in added]),
        tasks=all_tasks,
        reported=tested,
        sampling=sampling,
        untrained_classes=untrained,
    )
    if dataset.leaves_corpus_out and not parts:
        raise UserError(f'{protocol} trains on other corpora only: name them in config.labelled')
    return dataset


def _emotions(corpus: Corpus, labels: Sequence[str], *, required: bool) -> tuple[str, ...]:
    """The emotions to classify: `labels`, or the corpus's default ones."""
    labels = tuple(labels or corpus.metadata['labels'])
    present = np.unique(corpus.index['emotion'][corpus.index['emotion'] >= 0])
    present = [corpus.metadata['vocabulary'][code] for code in present]
    unknown = [label for label in labels if label not in present]
    if unknown:
        raise UserError(
            f'config.labels: corpus {corpus.name} has no emotion {unknown[0]!r}; it has {", ".join(present)}'
        )
    if not labels and required:
        raise UserError(
            f'corpus {corpus.name} has no emotion labels: it can join another corpus, as config.unlabelled or '
            'config.noise_corpus, or be tested on other tasks'
        )
    return labels


def rows_with_labels(corpus: Corpus, tasks: tuple[Task, ...]) -> np.ndarray:
    """The rows of a corpus with a label of at least one of some tasks; each task needs two classes."""
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


def refuse_splits_without_labels(
    corpus: Corpus, folds: list[Fold], tasks: tuple[Task, ...]
) -> None:
    """Refuses folds whose validation or test split has no label of a reported task."""
    for fold in folds:
        for split, rows in (('validation', fold.validation), ('test', fold.test)):
            for task in tasks if len(rows) else ():
                if (labels_of(corpus, rows, task.target, task.classes) < 0).all():
                    raise UserError(
                        f'{fold.name} of {corpus.name}: no {split} utterance has a label of the task {task.name}; '
                        'take it out of config.reported, or split otherwise (config.protocol, config.folds)'
                    )


def untrained_classes(
    corpus: Corpus, folds: list[Fold], tasks: tuple[Task, ...], labelled: Sequence[Part]
) -> list[str]:
    """A remark for each fold that trains no utterance of a class which its held-out speakers have, also not of other corpora."""
    remarks = []
    for fold in folds:
        held_out = np.concatenate([fold.validation, fold.test])
        for task in (task for task in tasks if task.kind == 'classification'):
            classes = lambda *parts, task=task: {
                int(k) for part in parts for k in labels_of(*part, task.target, task.classes)
            }
            unseen = classes((corpus, held_out)) - classes((corpus, fold.train), *labelled) - {-1}
            if unseen:
                names = ', '.join(task.classes[k] for k in sorted(unseen))
                remarks.append(
                    f'{fold.name}: no training utterance has the {task.name} {names}, which its held-out speakers have: the class '
                    'is not learnt and its recall counts; leave it out of config.labels, or split otherwise (config.protocol)'
                )
    return remarks


def rows_that_join(corpus: Corpus, tasks: tuple[Task, ...], name: str) -> np.ndarray:
    """The rows of a corpus with a label of a reported task, which join the training of the corpus `name`."""
    everything = np.arange(len(corpus))
    rows, shared = set(), []
    for task in tasks:
        numbers = labels_of(corpus, everything, task.target, task.classes)
        rows |= set(np.flatnonzero(numbers >= 0))
        found = [label for k, label in enumerate(task.classes) if (numbers == k).any()]
        shared += found
        # With one class alone the corpus would give the class away.
        if len(found) == 1 or (task is tasks[-1] and not shared):
            raise UserError(
                f'config.labelled: {corpus.name} has {len(found) or "none"} of the classes {", ".join(task.classes)}; as '
                'config.unlabelled it may join without labels'
            )
    if is_main_process():
        print(
            f'{corpus.name} joins {name}: {", ".join(shared)} are shared; {len(rows)} of '
            f'{len(corpus)} utterances train',
            file=sys.stderr,
        )
    return np.array(sorted(rows))


def _noise(corpus: Corpus, wanted: Sequence[str]) -> Part:
    """A noise corpus and its rows of some types; () = all."""
    types = np.array([noise_type(text) for text in corpus.index['script']])
    unknown = sorted(set(wanted) - set(types))
    if unknown:
        raise UserError(
            f'config.noise_types: {corpus.name} has no noise of the type {unknown[0]!r}; it has '
            f'{", ".join(sorted(set(types)))}'
        )
    return corpus, np.flatnonzero(np.isin(types, tuple(wanted) or types))
