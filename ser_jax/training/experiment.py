"""Everything a run needs, built once from its config: corpora, folds, tasks, network, compiled steps."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.config_check import check_config
from ser_jax.data import batches, leaks
from ser_jax.data.corpora import Corpus
from ser_jax.data.folds import Fold, make_folds, select_folds
from ser_jax.data.labels import (
    class_names,
    class_weights,
    labelled_share,
    labels_of,
    occurring,
    rating_scale,
)
from ser_jax.data.records import EMOTIONS_OF
from ser_jax.data.sources import (
    Part,
    emotions_of,
    open_by_name,
    open_noise,
    refuse_sides_without_labels,
    rows_that_join,
    rows_with_labels,
)
from ser_jax.data.tasks import Task, make_tasks
from ser_jax.models import forward
from ser_jax.models.build import make_model
from ser_jax.objectives.build import make_phases
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.training import steps
from ser_jax.transforms import augment


@dataclasses.dataclass(frozen=True, eq=False)
class Experiment:
    """A config made ready to run. All folds share its compiled functions.

    Attributes:
        config: of the run.
        corpus: prepared; the others only join its training.
        labelled: (prepared corpus, rows with one of the emotions) each.
        unlabelled: prepared corpora.
        noise: (prepared corpus, rows of the types of noise that train), or None.
        labels: emotions, in the order of the outputs.
        rows: rows of the corpus with a label of a reported task.
        protocol: call string.
        folds: to run; `n_folds` is how many the protocol has.
        leak_check: counts of `leaks.check_folds`.
        tasks: what is learnt.
        reported: those of them that are validated and tested.
        input_length: frames or samples that the host delivers for an input of `config.crop_frames`.
        front_end: of a network that sees log-mels; None for one that sees waveforms.
        model: the network, for one device.
        placement: how training is spread over the devices.
        mesh: what all else is spread over.
        init_state: constants -> `steps.TrainState`.
        train_step: (state, batch) -> (state, metrics), for what `placement` packed.
        predict_step: (variables, batch) -> {reported task: probabilities [B, K] or ratings [B, 1]}.
    """

    config: ml_collections.ConfigDict
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
    input_length: int
    front_end: FrontEnd | None
    model: nn.Module
    placement: devices.DataParallel | devices.ParallelRuns
    mesh: Mesh
    init_state: Callable
    train_step: Callable
    predict_step: Callable

    def corpora(self) -> list[Corpus]:
        """Every corpus that trains."""
        noise = [self.noise[0]] if self.noise else []
        return [self.corpus, *self.unlabelled, *(corpus for corpus, _ in self.labelled), *noise]

    def corpus_hashes(self) -> dict[str, str]:
        """Name -> hash of every corpus that trains."""
        return {corpus.name: corpus.metadata['corpus_hash'] for corpus in self.corpora()}

    def utterances(self, rows: np.ndarray) -> batches.Utterances:
        """The utterances of some rows of the corpus, with the labels of all tasks."""
        return self._utterances([(self.corpus, rows)])

    def _utterances(self, parts, hide=()) -> batches.Utterances:
        return batches.Utterances(
            parts,
            self._label_classes(),
            ratings={task.target for task in self.tasks if task.kind == 'regression'},
            hide=hide,
            memory_gb=self.config.data.memory_gb,
        )

    def _label_classes(self) -> dict[str, tuple[str, ...]]:
        classes = {
            task.target: task.classes
            for task in self.tasks
            if task.classes and task.target != 'augmentation_type'
        }
        return {'emotion': self.labels} | classes

    def train_batches(self, rows: np.ndarray) -> batches.TrainBatches:
        """Training batches of some rows of the corpus, with all that joins training by the config."""
        config = self.config
        labelled, hidden = self._split_labelled(rows)
        unlabelled = [part for part in hidden if len(part[1])]
        unlabelled += [(corpus, np.arange(len(corpus))) for corpus in self.unlabelled]
        if set(self.tasks) == set(self.reported) and 'generator' not in config.get('phases', ()):
            unlabelled = []  # nothing can be learnt from them
        # What is told of an emotion tells the emotion.
        hide = {'emotion', *EMOTIONS_OF, *(task.target for task in self.reported)}
        noise = None
        if self.noise:
            noise = batches.Utterances([self.noise], {}, memory_gb=config.data.memory_gb)
        return batches.TrainBatches(
            labelled=self._utterances(labelled),
            unlabelled=self._utterances(unlabelled, hide=hide) if unlabelled else None,
            noise=noise,
            batch_size=config.batch_size,
            n_unlabelled=round(config.unlabelled_share * config.batch_size) if unlabelled else 0,
            length=self.input_length,
            seed=config.seed,
            rows=devices.local_rows(config.batch_size),
        )

    def _split_labelled(self, rows: np.ndarray) -> tuple[list[Part], list[Part]]:
        """The training rows that keep their label by `config.labelled_share`, and the others."""
        kept, hidden = [], []
        for corpus, some in [(self.corpus, rows), *self.labelled]:
            emotions = labels_of(corpus, some, 'emotion', self.labels)
            share, seed = self.config.labelled_share, self.config.seed
            chosen = labelled_share(corpus.index['speaker'][some], emotions, share, seed)
            kept.append((corpus, some[chosen]))
            hidden.append((corpus, some[~chosen]))
        return kept, hidden

    def constants(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What a run knows of its training rows: see `steps.TrainState.model_state`."""
        kept = self._split_labelled(rows)[0]
        told = [task for task in self.reported if task.kind == 'classification']
        weights = {task.name: np.ones(len(task.classes), np.float32) for task in told}
        if self.config.class_weights:
            for task in told:
                labels = [labels_of(*part, task.target, task.classes) for part in kept]
                weights[task.name] = class_weights(np.concatenate(labels), len(task.classes))
        everything = [(self.corpus, rows), *self.labelled]
        everything += [(corpus, np.arange(len(corpus))) for corpus in self.unlabelled]
        return {
            'seed': np.int32(self.config.seed),
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

    def labels_of(self, task: Task, rows: np.ndarray) -> np.ndarray:
        """Class numbers of some rows of the corpus, int [N]; −1 = none."""
        return labels_of(self.corpus, rows, task.target, task.classes)


def build_experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Opens the corpora, makes and checks the folds, and builds the network and its steps.

    Args:
        config: of the run.

    Returns:
        The experiment; nothing is compiled yet.

    Raises:
        UserError: anything in the config that cannot be.
    """
    check_config(config)
    devices.start_processes()
    corpus = open_by_name(config, config.corpus)
    joined = [open_by_name(config, name) for name in config.labelled]
    unlabelled = [open_by_name(config, name) for name in config.unlabelled]
    noise = open_noise(config) if config.noise_corpus else None
    labels = emotions_of(config, corpus)
    operation_names = ('clean', *config.augmentations)
    tasks = make_tasks(
        config.tasks,
        {
            record.target: operation_names
            if record.target == 'augmentation_type'
            else class_names(record.target, [corpus, *joined, *unlabelled], labels)
            for record in config.tasks.values()
            if record.kind in ('classification', 'regression')
        },
    )
    reported = tuple(task for task in tasks if task.name in config.reported)
    rows = rows_with_labels(corpus, reported)
    protocol = config.protocol or corpus.metadata['protocol']
    if not protocol:
        raise UserError(
            f'corpus {corpus.name} has no usual protocol: say how to split it, config.protocol'
        )
    all_folds = make_folds(
        corpus.index,
        protocol,
        rows=rows,
        folds=corpus.metadata.get('folds'),
        validation=config.validation,
    )
    folds = select_folds(all_folds, config.folds)
    refuse_sides_without_labels(corpus, folds, reported)
    if not folds and (config.conditions or not config.test_corpora):
        raise UserError(
            f'{protocol} tests nobody: set config.test_corpora, and no config.conditions'
        )
    labelled = [(other, rows_that_join(other, reported, corpus.name)) for other in joined]
    checked = folds or [Fold('final', rows, *[np.empty(0, np.int64)] * 2, ())]
    added = [*joined, *unlabelled, *([noise[0]] if noise else [])]
    leak_check = leaks.check_folds(corpus.index, checked, [other.index for other in added])

    operations = augment.parse_operations(config.augmentations)
    model = make_model(config, tasks)
    phases = make_phases(config, model, tasks)
    front_end = FrontEnd(**config.data.front_end)
    if config.representation == 'log_mel':
        input_length = augment.input_frames(operations, config.crop_frames)
        input_shape = (config.crop_frames, front_end.n_mels)
        augment_batch = functools.partial(
            augment.augment,
            operations=operations,
            frames=config.crop_frames,
            clean_share=config.clean_share,
            axis_name=devices.AXIS,
            front_end=front_end,
        )
    else:
        input_length = config.crop_frames * front_end.hop_length
        input_shape, front_end = (input_length,), None
        augment_batch = augment.unchanged
    init_state = jax.jit(
        functools.partial(steps.init_state, model=model, phases=phases, input_shape=input_shape)
    )
    model, placement = model.clone(axis_name=None), devices.make_placement(config)
    predict_step = forward.make_predict_step(
        model,
        reported,
        devices.AXIS,
        config.representation,
        front_end,
    )

    return Experiment(
        config=config,
        corpus=corpus,
        labelled=labelled,
        unlabelled=unlabelled,
        noise=noise,
        labels=labels,
        rows=rows,
        protocol=protocol,
        folds=folds,
        n_folds=len(all_folds),
        leak_check=leak_check,
        tasks=tasks,
        reported=reported,
        input_length=input_length,
        front_end=front_end,
        model=model,
        placement=placement,
        mesh=placement.mesh,
        init_state=lambda constants: devices.replicate(init_state(constants), placement.mesh),
        train_step=steps.compile_train_step(phases, augment_batch, placement),
        predict_step=devices.DataParallel(placement.mesh, config.parallelism).compile(predict_step),
    )
