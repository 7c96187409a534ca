"""What a network makes of utterances before its heads tell anything: a map of those of one fold."""

import csv
import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from ser_jax.data import batches
from ser_jax.data.folds import Fold
from ser_jax.data.records import GENDERS
from ser_jax.models.forward import outputs_of
from ser_jax.runtime.files import write_atomically
from ser_jax.training import inference
from ser_jax.training.experiment import Experiment

_MOST = 1000  # utterances of a side: more make no better map
COLUMNS = ('id', 'side', 'emotion', 'speaker', 'gender', 'x', 'y')


def write_embedding(experiment: Experiment, fold: Fold, workdir: Path) -> None:
    """Writes `report/embedding.csv`: the utterances of a fold on the two main axes of what the heads see.

    Args:
        experiment: of the run.
        fold: whose utterances are mapped, of every side 1000 at most, with the parameters that it kept.
        workdir: of the finished run.
    """
    variables = jax.device_get(
        inference.restore_best(experiment, workdir / 'checkpoints' / fold.name)
    )
    if jax.process_index():
        return
    sides = {side: _some(getattr(fold, side)) for side in ('train', 'validation', 'test')}
    rows = np.concatenate(list(sides.values()))
    points = main_axes(represent(experiment, variables, rows))
    index, vocabulary = experiment.corpus.index, experiment.corpus.metadata['vocabulary']
    columns = (
        index['id'][rows],
        np.repeat(list(sides), [len(some) for some in sides.values()]),
        np.array([*vocabulary, ''])[index['emotion'][rows]],
        index['speaker'][rows],
        np.array([*GENDERS, ''])[index['gender'][rows]],
        *(np.char.mod('%.5g', axis) for axis in points.T),
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerows([COLUMNS, *zip(*columns)])
    write_atomically(workdir / 'report' / 'embedding.csv', text.getvalue())


def _some(rows: np.ndarray) -> np.ndarray:
    if len(rows) <= _MOST:
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, _MOST, replace=False))


def represent(experiment: Experiment, variables: dict, rows: np.ndarray) -> np.ndarray:
    """What the heads of the reported tasks see of some rows of the corpus.

    Args:
        experiment: of the run.
        variables: of its network (`inference.restore_best`).
        rows: [N] of the corpus.

    Returns:
        float32 [N, D]: the utterance embedding of MTL-AUG, the code of the autoencoder, the pooled states of
        end_to_end; where the heads of several tasks see something of their own, one behind the other.
    """
    heads = {f'{task.name}_head' for task in experiment.reported}
    kind = experiment.config.representation

    @jax.jit
    def compute(variables, x, length):
        seen = []

        def look(call, arguments, named, context):
            is_head = context.module.name in heads and context.method_name == '__call__'
            if is_head and not any(arguments[0] is other for other in seen):
                seen.append(arguments[0])
            return call(*arguments, **named)

        with nn.intercept_methods(look):
            batch = {'length': length}
            outputs_of(experiment.model, variables, batch, x, kind, experiment.front_end)
        return jnp.concatenate(seen, axis=-1)

    utterances, size = experiment.utterances(rows), experiment.config.eval_batch_size
    vectors, longest = {}, 0
    for positions, batch in batches.evaluation_batches(utterances, size, slice(None)):
        x = batch[kind]
        # All as long as the first, who are the longest: compiling for each length would take longer.
        longest = max(longest, x.shape[1])
        x = np.pad(x, [(0, 0), (0, longest - x.shape[1]), *[(0, 0)] * (x.ndim - 2)])
        found = np.asarray(compute(variables, x, batch['length']))
        vectors |= zip(positions.tolist(), found)
    return np.stack([vectors[position] for position in range(len(rows))])


def main_axes(vectors: np.ndarray) -> np.ndarray:
    """Vectors [N, D] on their two main axes (PCA), float [N, 2]; zeros where there is no axis.

    An axis points where its largest loading does, so that no axis is mirrored between two processors.
    """
    left, sizes, axes = np.linalg.svd(vectors - vectors.mean(0, dtype=float), full_matrices=False)
    largest = np.take_along_axis(axes, np.abs(axes).argmax(1, keepdims=True), 1)[:, 0]
    points = (left * sizes * np.sign(largest))[:, :2]
    return np.pad(points, [(0, 0), (0, 2 - points.shape[1])])
