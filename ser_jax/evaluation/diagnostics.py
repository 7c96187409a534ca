"""Diagnostics of one fold's model: attention weights, codes of an autoencoder, and a map of utterances."""

import io
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ser_jax.data import batches
from ser_jax.data.folds import Fold
from ser_jax.data.records import GENDERS
from ser_jax.models.forward import forward
from ser_jax.runtime.files import csv_writer, write_atomically
from ser_jax.training.experiment import Experiment

_EXAMPLES = 3  # utterances with attention weights
_STEPS = 5  # log-mels between two emotions
_MOST_MAPPED = 1000  # utterances per split of a map
_SPLITS = ('train', 'validation', 'test')


class Attention(NamedTuple):
    """Attention weights of N test utterances.

    Attributes:
        fold: fold name.
        titles: N texts, id and labels.
        signals: N waveforms, float [S].
        weights: task -> weights of the frames, float [N, T], 0 past the end of an utterance.
        rate: sample rate.
        frame: samples per frame.
        hop: samples between the starts of frames.
    """

    fold: str
    titles: list[str]
    signals: list[np.ndarray]
    weights: dict[str, np.ndarray]
    rate: int
    frame: int
    hop: int


class DecodedPath(NamedTuple):
    """Log-mels decoded at equal steps between the mean codes of two emotions.

    Attributes:
        emotions: first and last emotion.
        log_mels: float [N, T, F].
    """

    emotions: tuple[str, str]
    log_mels: np.ndarray


class Codes(NamedTuple):
    """Codes of the N utterances of a fold.

    Attributes:
        fold: fold name.
        points: codes on their two main axes, float [N, 2].
        shares: shares of the variance of the two axes, [2].
        labels: kind of label -> str [N].
        path: decoded path; None for autoencoders that do not decode log-mels.
    """

    fold: str
    points: np.ndarray
    shares: np.ndarray
    labels: dict[str, np.ndarray]
    path: DecodedPath | None


class Embedding(NamedTuple):
    """Map of the N utterances of a fold: the columns of `report/embedding.csv`.

    Attributes:
        id, side, emotion, speaker, gender: str [N]; side is the split; '' = unknown.
        x, y: position on the two main axes, float [N].
    """

    id: np.ndarray
    side: np.ndarray
    emotion: np.ndarray
    speaker: np.ndarray
    gender: np.ndarray
    x: np.ndarray
    y: np.ndarray


def attention(experiment: Experiment, fold: Fold, variables: dict) -> Attention | None:
    """Computes the attention weights of some test utterances.

    Args:
        experiment: experiment that the fold belongs to.
        fold: fold whose test utterances are used.
        variables: variables of its trained model, on the host.

    Returns:
        The weights; None for models without attention over waveform frames.
    """
    model, corpus = experiment.program.model, experiment.dataset.corpus
    if not getattr(model, 'attention', False) or experiment.program.front_end:
        return None
    rows = example_rows(experiment, fold)
    utterances = experiment.dataset.utterances(rows)
    signals = [utterances[position] for position in range(len(rows))]
    samples = max(map(len, signals))
    x = np.stack([batches.pad(signal, samples) for signal in signals])
    apply = jax.jit(lambda *inputs: forward(model, *inputs, 'waveform', None))
    outputs = apply(variables, x, utterances.lengths)
    titles = []
    for row in rows:
        lines = [str(corpus.index['id'][row])]
        for task in experiment.dataset.reported:
            label = experiment.dataset.labels_of(task, np.array([row]))[0]
            if label >= 0:
                lines.append(f'{task.name} {task.classes[label]}')
        titles.append('\n'.join(lines))
    return Attention(
        fold=fold.name,
        titles=titles,
        signals=signals,
        weights={
            task.name: np.asarray(outputs['attention'][task.name])
            for task in experiment.dataset.reported
        },
        rate=experiment.dataset.records.front_end.sample_rate,
        frame=model.frame_samples,
        hop=model.hop_samples,
    )


def example_rows(experiment: Experiment, fold: Fold) -> np.ndarray:
    """Rows of at most three test utterances: of each class of the first reported task, the one of median length."""
    labels = experiment.dataset.labels_of(experiment.dataset.reported[0], fold.test)
    durations = experiment.dataset.corpus.index['duration'][fold.test]
    chosen = []
    for label in np.unique(labels[labels >= 0])[:_EXAMPLES]:
        same = np.flatnonzero(labels == label)
        order = same[np.argsort(durations[same], kind='stable')]
        chosen.append(fold.test[order[len(order) // 2]])
    return np.array(chosen)


def codes(experiment: Experiment, fold: Fold, variables: dict) -> Codes | None:
    """Computes the codes of the utterances of a fold, and log-mels decoded between two emotions.

    The path leads between the mean codes of the training utterances of the two emotions that are farthest apart.

    Args:
        experiment: experiment that the fold belongs to.
        fold: fold whose utterances are used. All splits: a single test speaker would show one gender and speaker only.
        variables: variables of its trained model, on the host.

    Returns:
        The codes; None for models without codes.
    """
    if not hasattr(experiment.program.model, 'encode'):
        return None
    rows, splits = _rows_of_splits([getattr(fold, split) for split in _SPLITS])
    vectors = represent(experiment, variables, rows)
    points, shares = main_axes(vectors)
    labels = {
        'emotion': _emotions(experiment, rows, 'unknown'),
        'speaker': experiment.dataset.corpus.index['speaker'][rows],
        'gender': _genders(experiment, rows, 'unknown'),
        'split': splits,
    }
    path = _decoded_path(experiment, variables, fold.train, vectors[: len(fold.train)])
    return Codes(fold.name, points, shares, labels, path)


def _decoded_path(experiment, variables, rows, vectors) -> DecodedPath | None:
    """The path between the codes [N, D] of training rows [N]; None where nothing can be decoded or one emotion occurs."""
    model = experiment.program.model
    if not model.reconstruction or model.input == 'functionals':
        return None
    emotions = _emotions(experiment, rows, '')
    means = {str(name): vectors[emotions == name].mean(0) for name in np.unique(emotions) if name}
    if len(means) < 2:
        return None
    first, last = farthest(means)
    shares = np.linspace(0, 1, _STEPS)[:, None]
    path = (1 - shares) * means[first] + shares * means[last]
    frames, constants = experiment.program.crop_frames, variables['constants']
    decoded = model.apply({'params': variables['params']}, path, frames, method='decode')
    scale = constants.get('log_mel', constants)
    return DecodedPath((first, last), np.asarray(decoded) * scale['std'] + scale['mean'])


def farthest(means: dict[str, np.ndarray]) -> tuple[str, str]:
    """The two emotions whose mean codes are farthest apart, in alphabetical order."""
    names = sorted(means)
    pairs = [(a, b) for a in names for b in names if a < b]
    return max(pairs, key=lambda pair: float(np.sum((means[pair[0]] - means[pair[1]]) ** 2)))


def embedding(experiment: Experiment, fold: Fold, variables: dict) -> Embedding:
    """Computes a map of the utterances of a fold: the input of the heads on its two main axes.

    Args:
        experiment: experiment that the fold belongs to.
        fold: fold whose utterances are mapped, at most 1000 per split.
        variables: variables of its trained model, on the host.
    """
    rows, splits = _rows_of_splits([_sample(getattr(fold, split)) for split in _SPLITS])
    points, _ = main_axes(represent(experiment, variables, rows))
    index = experiment.dataset.corpus.index
    return Embedding(
        index['id'][rows],
        splits,
        _emotions(experiment, rows, ''),
        index['speaker'][rows],
        _genders(experiment, rows, ''),
        *points.T,
    )


def write_embedding(mapped: Embedding, path: Path) -> None:
    """Writes `report/embedding.csv`, one row per utterance."""
    positions = (np.char.mod('%.5g', axis) for axis in (mapped.x, mapped.y))
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerows([Embedding._fields, *zip(*mapped[:5], *positions)])
    write_atomically(path, text.getvalue())


def _rows_of_splits(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all splits, and the split of each."""
    return np.concatenate(rows), np.repeat(_SPLITS, [len(some) for some in rows])


def _sample(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= _MOST_MAPPED:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, _MOST_MAPPED, replace=False))


def _emotions(experiment, rows, unknown) -> np.ndarray:
    names = [*experiment.dataset.corpus.metadata['vocabulary'], unknown]
    return np.array(names)[experiment.dataset.corpus.index['emotion'][rows]]


def _genders(experiment, rows, unknown) -> np.ndarray:
    return np.array([*GENDERS, unknown])[experiment.dataset.corpus.index['gender'][rows]]


def represent(experiment: Experiment, variables: dict, rows: np.ndarray) -> np.ndarray:
    """Computes the inputs of the heads of the reported tasks.

    Args:
        experiment: experiment with the model.
        variables: variables of its trained model, on the host.
        rows: rows of the corpus, [N].

    Returns:
        float32 [N, D]: the utterance embedding of MTL-AUG, the code of the autoencoder, the pooled states of
        end_to_end. Different inputs of several heads are concatenated.
    """
    dataset, program = experiment.dataset, experiment.program
    heads = {f'{task.name}_head' for task in dataset.reported}

    @jax.jit
    def compute(variables, x, length):
        inputs = []

        def record(call, arguments, named, context):
            is_head = context.module.name in heads and context.method_name == '__call__'
            if is_head and not any(arguments[0] is other for other in inputs):
                inputs.append(arguments[0])
            return call(*arguments, **named)

        with nn.intercept_methods(record):
            forward(program.model, variables, x, length, program.representation, program.front_end)
        return jnp.concatenate(inputs, axis=-1)

    utterances = dataset.utterances(rows)
    lengths, size = utterances.lengths, program.eval_batch_size
    vectors, longest = {}, 0
    for positions, _, x in batches.padded_batches(utterances, lengths, size):
        # Padded to the first batch, which is the longest: compiling for each length would take longer.
        longest = max(longest, x.shape[1])
        x = np.pad(x, [(0, 0), (0, longest - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])
        found = np.asarray(compute(variables, x, lengths[positions]))
        vectors |= zip(positions.tolist(), found)
    return np.stack([vectors[position] for position in range(len(rows))])


def main_axes(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Projects vectors [N, D] on their two main axes (PCA).

    The largest loading of an axis is positive, so that no axis is mirrored between processors.

    Returns:
        (points, float [N, 2], and shares of the variance, [2]); zeros where there is no axis.
    """
    left, sizes, axes = np.linalg.svd(vectors - vectors.mean(0, dtype=float), full_matrices=False)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1, keepdims=True), 1)[:, 0]
    points, shares = (left * sizes * np.sign(largest))[:, :2], sizes[:2] ** 2
    missing = 2 - points.shape[1]
    shares = shares / max((sizes**2).sum(), 1e-12)
    return np.pad(points, [(0, 0), (0, missing)]), np.pad(shares, (0, missing))
