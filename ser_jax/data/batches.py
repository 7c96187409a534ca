"""Batches for training and evaluation, with the targets of every task."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterator, Sequence

import grain
import numpy as np

from ser_jax.data.corpora import Corpus
from ser_jax.data.labels import labels_of
from ser_jax.runtime.errors import UserError

BUCKET_STEP = 8  # bucket lengths are multiples of this many frames


class Utterances:
    """Random access to some utterances of one or more corpora, held in memory where they fit.

    Args:
        parts: (corpus, rows of its index) pairs.
        targets: field of `labels.labels_of` -> class names, of every label.
        ratings: dimensions ('arousal', …) of the ratings.
        hide: fields whose labels and ratings are hidden (unlabelled speech).
        memory_gb: up to this size the utterances are read once and kept in memory, by the corpus, for all folds.

    Attributes:
        ids: str [N].
        labels: field -> int32 [N] class numbers, −1 where missing.
        classes: field -> number of classes.
        ratings: dimension -> float32 [N], NaN where missing.
        representation: representation of the corpora, 'log_mel', 'waveform' or 'encoded'.
        lengths: int32 [N], frames or samples.
    """

    def __init__(
        self,
        parts: list[tuple[Corpus, np.ndarray]],
        targets: dict[str, tuple[str, ...]],
        *,
        ratings: Collection[str] = (),
        hide: Collection[str] = (),
        memory_gb: float = 4.0,
    ):
        sources = {id(corpus): corpus.source() for corpus, _ in parts}
        self._where = [(sources[id(corpus)], int(row)) for corpus, rows in parts for row in rows]
        self.ids = np.concatenate([corpus.index['id'][rows] for corpus, rows in parts])
        self.representation = parts[0][0].representation
        self.lengths = _joined([_lengths(corpus, rows) for corpus, rows in parts])
        self.labels = {
            field: _joined([labels_of(corpus, rows, field, names) for corpus, rows in parts])
            for field, names in targets.items()
        }
        self.classes = {field: len(names) for field, names in targets.items()}
        for field in set(hide) & set(targets):
            self.labels[field] = np.full_like(self.labels[field], -1)
        self.ratings = {
            field: np.concatenate([corpus.index[field][rows] for corpus, rows in parts])
            for field in ratings
        }
        for field in set(hide) & set(ratings):
            self.ratings[field] = np.full_like(self.ratings[field], np.nan)
        self._kept = None
        if self.representation == 'encoded':
            return  # memory-mapped
        if _frame_bytes(parts[0][0]) * self.lengths.sum() < memory_gb * 2**30:
            for corpus, rows in parts:
                for row in map(int, rows):
                    if row not in corpus.kept:
                        corpus.kept[row] = sources[id(corpus)][row]
            self._kept = [corpus.kept[int(row)] for corpus, rows in parts for row in rows]

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, position: int) -> np.ndarray:
        """One utterance: its log-mel, float32 [T, F], or its waveform, float32 [S] in [-1, 1)."""
        if self._kept is not None:
            return as_float(self._kept[position])
        source, row = self._where[position]
        return as_float(source[row])

    def with_log_mel(self, position: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        """One encoded utterance, see `EncodedSource.with_log_mel`."""
        source, row = self._where[position]
        return source.with_log_mel(row, view)


def _frame_bytes(corpus: Corpus) -> int:
    if corpus.representation == 'waveform':
        return 2
    return 4 * corpus.metadata['front_end']['n_mels']


def _lengths(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    if corpus.representation == 'log_mel':
        return corpus.index['frames'][rows]
    if corpus.representation == 'encoded':
        return corpus.source().lengths(rows)
    # Stored as float32 seconds, which round to the right sample up to minutes.
    return np.round(corpus.index['duration'][rows] * corpus.metadata['front_end']['sample_rate'])


def as_float(array: np.ndarray) -> np.ndarray:
    """Scales int16 samples of the records to float32 in [-1, 1); other arrays stay as they are."""
    return array / np.float32(32768) if array.dtype == np.int16 else array


def refuse_not_finite(corpus: Corpus) -> None:
    """Refuses a corpus whose features are not all finite, by the sums in its index; raises UserError."""
    bad = np.flatnonzero(~np.isfinite(corpus.index['log_mel_squares'].sum(axis=1)))
    if len(bad):
        raise UserError(
            f'the features of {len(bad)} utterances of {corpus.name} are not finite, e.g. of '
            f'{corpus.index["id"][bad[0]]}: prepare the corpus again'
        )


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays).astype(np.int32)


def normalisation(parts: list[tuple[Corpus, np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each mel band over all frames of some utterances, or of all samples.

    Those of log-mels follow from the index alone; waveforms and outputs of encoders are read.

    Args:
        parts: (corpus, rows) pairs, training speakers only.

    Returns:
        {'mean', 'std'}: float32 [F], or [] for waveforms; with frames of an encoder also {'log_mel': {'mean', 'std'}}.
    """
    if parts[0][0].representation == 'encoded':
        found = _normalisation_of_encoded(parts)
        if parts[0][0].source().bands:
            found['log_mel'] = _normalisation_of_log_mels(parts)
        return found
    if parts[0][0].representation == 'waveform':
        return _normalisation_of_samples(parts)
    return _normalisation_of_log_mels(parts)


def _normalisation_of_encoded(parts: list[tuple[Corpus, np.ndarray]]) -> dict[str, np.ndarray]:
    count, total, squares = 0, 0.0, 0.0
    for corpus, rows in parts:
        source = corpus.source()
        for row in rows:
            x = source[row].astype(np.float64)
            count, total = count + len(x), total + x.sum(axis=0)
            squares = squares + np.square(x).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
    return {'mean': mean.astype(np.float32), 'std': std.astype(np.float32)}


def _normalisation_of_log_mels(parts: list[tuple[Corpus, np.ndarray]]) -> dict[str, np.ndarray]:
    frames = sum(corpus.index['frames'][rows].sum() for corpus, rows in parts)
    total = sum(corpus.index['log_mel_sum'][rows].sum(axis=0) for corpus, rows in parts)
    squares = sum(corpus.index['log_mel_squares'][rows].sum(axis=0) for corpus, rows in parts)
    mean = total / frames
    std = np.sqrt(np.maximum(squares / frames - mean**2, 1e-8))
    return {'mean': mean.astype(np.float32), 'std': std.astype(np.float32)}


def _normalisation_of_samples(parts: list[tuple[Corpus, np.ndarray]]) -> dict[str, np.ndarray]:
    sums = np.zeros(3)
    for corpus, rows in parts:
        source = corpus.source()
        for row in map(int, rows):
            stored = corpus.kept[row] if row in corpus.kept else source[row]
            samples = as_float(stored).astype(np.float64)
            sums += len(samples), samples.sum(), (samples**2).sum()
    mean = sums[1] / sums[0]
    std = np.sqrt(max(sums[2] / sums[0] - mean**2, 1e-12))
    return {'mean': np.float32(mean), 'std': np.float32(std)}


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """Training batches as a pure function of (seed, step): `batches[step]`.

    The last `n_unlabelled` rows of a global batch are unlabelled utterances, the others labelled ones.

    Attributes:
        labelled: utterances with the label 'emotion', among others.
        unlabelled: utterances with the same label fields, or None.
        noise: noise recordings, or None.
        batch_size: rows of the global batch.
        n_unlabelled: unlabelled rows of the global batch.
        length: frames or samples to crop or pad to.
        seed: seed of the order and the crops.
        rows: rows of the global batch to load (those of this process).
        views: views of encoded utterances and of waveforms, number of the view of each augmentation type; the first type is 'clean'.
        clean_share: their probability of the type 'clean'; the others share the rest.
        groups: positions of the labelled utterances, in groups that are drawn from in turn; () draws every utterance equally often.
    """

    labelled: Utterances
    unlabelled: Utterances | None
    noise: Utterances | None
    batch_size: int
    n_unlabelled: int
    length: int
    seed: int
    rows: slice
    views: tuple[int, ...] = (0,)
    clean_share: float = 1.0
    groups: tuple[np.ndarray, ...] = ()

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Loads the batch of one step.

        Args:
            step: number of the step.

        Returns:
            'log_mel' or 'encoded' [B, T, F] or 'waveform' [B, S]; 'length' int32 [B]; 'emotion' float32 [B, K], one-hot, zeros where
            missing; 'emotion_mask' bool [B]; every other label int32 [B], −1 where missing; `<dimension>_rating`
            float32 [B], NaN where missing; with noise recordings 'noise' [B, T, F]; of encoded utterances, and with several views of
            waveforms, 'augmentation_type' int32 [B]; with frames 'clean_log_mel' [B, T, bands].
        """
        examples = [self._example(step, row) for row in range(*self.rows.indices(self.batch_size))]
        batch = {name: np.stack([example[name] for example in examples]) for name in examples[0]}
        emotion, classes = batch['emotion'], np.arange(self.labelled.classes['emotion'])
        batch['emotion'] = (emotion[:, None] == classes).astype(np.float32)
        batch['emotion_mask'] = emotion >= 0
        return batch

    def ids(self, step: int) -> list[str]:
        """Ids of the utterances of the global batch of a step."""
        chosen = (self._chosen(step, row) for row in range(self.batch_size))
        return [str(utterances.ids[position]) for utterances, position, _ in chosen]

    def _chosen(self, step: int, row: int) -> tuple[Utterances, int, np.random.Generator]:
        """(utterances, position in them, random generator) of a row of the global batch."""
        n_labelled = self.batch_size - self.n_unlabelled
        if row < n_labelled:
            utterances, stream, position = self.labelled, 0, step * n_labelled + row
        else:
            utterances, stream = self.unlabelled, 1
            position = step * self.n_unlabelled + row - n_labelled
        rng = np.random.default_rng((self.seed, stream, position))
        seed = 2 * self.seed + stream
        if stream == 0 and self.groups:
            turn, number = divmod(position, len(self.groups))
            group = self.groups[number]
            return utterances, int(group[shuffled(len(group), seed, turn)]), rng
        return utterances, shuffled(len(utterances), seed, position), rng

    def _example(self, step: int, row: int) -> dict[str, np.ndarray]:
        utterances, chosen, rng = self._chosen(step, row)
        if utterances.representation == 'encoded':
            example = self._encoded(utterances, chosen, rng)
        else:
            drawn = {}
            if len(self.views) > 1:
                drawn['augmentation_type'] = np.int32(self._draw_type(rng))
            array, length = crop_or_pad(utterances[chosen], self.length, rng)
            example = {utterances.representation: array, 'length': np.int32(length), **drawn}
        example |= {field: labels[chosen] for field, labels in utterances.labels.items()}
        example |= {
            f'{field}_rating': ratings[chosen] for field, ratings in utterances.ratings.items()
        }
        if self.noise is not None:
            noise = self.noise[rng.integers(len(self.noise))]
            repeats = -(-self.length // len(noise))  # short noises loop
            example['noise'], _ = crop_or_pad(np.tile(noise, (repeats, 1)), self.length, rng)
        return example

    def _draw_type(self, rng: np.random.Generator) -> int:
        """Draws an augmentation type."""
        if len(self.views) > 1 and rng.random() >= self.clean_share:
            return int(rng.integers(1, len(self.views)))
        return 0

    def _encoded(self, utterances: Utterances, chosen: int, rng) -> dict[str, np.ndarray]:
        """Draws an augmentation type, and loads the view that it stands for."""
        kind = self._draw_type(rng)
        x, log_mel = utterances.with_log_mel(chosen, self.views[kind])
        joined, length = crop_or_pad(np.concatenate([x, log_mel], axis=1), self.length, rng)
        example = {'encoded': joined[:, : x.shape[1]], 'length': np.int32(length)}
        if log_mel.shape[1]:
            example['clean_log_mel'] = joined[:, x.shape[1] :]
        return example | {'augmentation_type': np.int32(kind)}


def shuffled(size: int, seed: int, position: int) -> int:
    """The item at a position of an endless order of `size` items, in which each epoch is a new permutation."""
    epoch, place = divmod(position, size)
    return int(_permutation(size, seed, epoch)[place])


# Not Grain's shuffle, which takes 28 ms an epoch even of a few items.
@functools.lru_cache(maxsize=64)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def crop_or_pad(array: np.ndarray, frames: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A random crop of `frames` frames, or the whole array and zeros behind it: ([frames, ...], number of real frames)."""
    if len(array) > frames:
        start = rng.integers(len(array) - frames + 1)
        return array[start : start + frames], frames
    return pad(array, frames), len(array)


def pad(array: np.ndarray, frames: int) -> np.ndarray:
    """Appends zeros: [T, ...] -> [frames, ...], T <= frames."""
    return np.pad(array, [(0, frames - len(array))] + [(0, 0)] * (array.ndim - 1))


def bucket_length(frames: int) -> int:
    """The padded length of a whole utterance: about a factor 2^(1/4) apart, so that few shapes are compiled."""
    if frames <= 1:  # statistics over time
        return 1
    steps = max(0, int(np.ceil(4 * np.log2(max(frames, 1) / 100))))
    return int(np.ceil(100 * 2 ** (steps / 4) / BUCKET_STEP)) * BUCKET_STEP


def buckets(lengths: np.ndarray, batch_size: int) -> Iterator[tuple[int, np.ndarray]]:
    """Groups utterances of like length into batches: neighbours in the order of their lengths, the longest first.

    Args:
        lengths: [N] frames.
        batch_size: utterances per batch.

    Yields:
        (padded length, positions [batch_size] into `lengths`); the last batch is filled up by repeating
        its last position, the shortest.
    """
    order = np.argsort(-lengths, kind='stable')
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        padded = bucket_length(int(lengths[chosen[0]]))
        yield padded, np.pad(chosen, (0, batch_size - len(chosen)), mode='edge')


def prefetch(batches, start: int, stop: int) -> Iterator:
    """Iterates over `batches[start]` … `batches[stop - 1]`, loaded ahead by a thread."""
    dataset = grain.MapDataset.range(start, stop).map(batches.__getitem__)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    return iter(dataset.to_iter_dataset(options))


def padded_batches(
    arrays: Sequence[np.ndarray],
    lengths: np.ndarray,
    batch_size: int,
    *,
    rows: slice = slice(None),
    padded: Callable[[int], int] = lambda longest: longest,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches whole utterances with others of like length (`buckets`), and pads them.

    Args:
        arrays: random access to N arrays [T, ...].
        lengths: int [N], frames or samples by which they are grouped.
        batch_size: rows of the global batch.
        rows: rows of the global batch to load, those of this process.
        padded: bucket length -> length of the padded arrays, where the unit of `lengths` is another than theirs.

    Yields:
        (positions [batch_size] of the global batch, of which the last may repeat; those of `rows`; arrays [rows, T, ...]).
    """
    for longest, positions in buckets(lengths, batch_size):
        own = positions[rows]
        yield positions, own, np.stack([pad(arrays[k], padded(longest)) for k in own])
