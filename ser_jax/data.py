"""Batches for training and evaluation, with the targets of every task, from the rows of prepared corpora."""

import dataclasses
import zlib
from collections.abc import Collection, Iterator

import numpy as np

from ser_jax import pipeline
from ser_jax.corpora import DIMENSIONS, EMOTIONS, EMOTIONS_OF, GENDERS, Corpus
from ser_jax.errors import UserError


class Utterances:
    """Random access to some utterances of one or more corpora, held in memory where they fit.

    Args:
        parts: (corpus, rows of its index) pairs.
        targets: class names of each label wanted, by the record field that holds it. Fields are
            those of `labels_of`.
        hide: fields whose labels are withheld (unlabelled speech).
        memory_gb: up to this size the log-mels are read once and kept, by the corpus, for all folds.

    Attributes:
        labels: field -> int32 [N] class numbers, −1 where missing.
        representation: of the corpora, 'log_mel' or 'waveform'.
        lengths: int32 [N], frames or samples.
    """

    def __init__(
        self,
        parts: list[tuple[Corpus, np.ndarray]],
        targets: dict[str, tuple[str, ...]],
        *,
        hide: Collection[str] = (),
        memory_gb: float = 4.0,
    ):
        sources = {id(corpus): corpus.source() for corpus, _ in parts}
        self._where = [(sources[id(corpus)], int(row)) for corpus, rows in parts for row in rows]
        self.representation = parts[0][0].representation
        self.lengths = _joined([_lengths(corpus, rows) for corpus, rows in parts])
        self.labels = {
            field: _joined([labels_of(corpus, rows, field, names) for corpus, rows in parts])
            for field, names in targets.items()
        }
        for field in set(hide) & set(targets):
            self.labels[field] = np.full_like(self.labels[field], -1)
        self._kept = None
        waves = self.representation == 'waveform'
        step = 2 if waves else 4 * parts[0][0].metadata['front_end']['n_mels']  # bytes
        if step * self.lengths.sum() < memory_gb * 2**30:
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


def _lengths(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    if corpus.representation == 'log_mel':
        return corpus.index['frames'][rows]
    # Stored as float32 seconds, which round to the right sample up to minutes.
    return np.round(corpus.index['duration'][rows] * corpus.metadata['front_end']['sample_rate'])


def as_float(array: np.ndarray) -> np.ndarray:
    """An array of the records as networks see it: int16 samples become float32 in [-1, 1), the rest stays."""
    return array / np.float32(32768) if array.dtype == np.int16 else array


def refuse_not_finite(corpus: Corpus) -> None:
    """Looks for NaN and infinity in the features of a corpus; the sums in its index tell of them all.

    Raises:
        UserError: there are some.
    """
    bad = np.flatnonzero(~np.isfinite(corpus.index['log_mel_squares'].sum(axis=1)))
    if len(bad):
        raise UserError(
            f'the features of {len(bad)} utterances of {corpus.name} are not finite, e.g. of '
            f'{corpus.index["id"][bad[0]]}: prepare the corpus again'
        )


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays).astype(np.int32)


def labels_of(corpus: Corpus, rows: np.ndarray, field: str, names: tuple[str, ...]) -> np.ndarray:
    """The labels of some utterances as class numbers.

    Args:
        corpus: the corpus.
        rows: [N] rows of its index.
        field: of the records: 'emotion', 'gender', a text field, or a dimension ('arousal', 'valence', 'dominance'),
            whose three classes are low [1, 2], middle (2, 4) and high [4, 5] (Zhang et al. 2019, arXiv 1903.12424);
            or 'arousal_of_emotion', 'valence_of_emotion': see `EMOTIONS_OF`.
        names: the classes.

    Returns:
        int [N]: positions in `names`, −1 where the label is missing or another class.
    """
    if field in EMOTIONS_OF:
        groups = [[e in EMOTIONS_OF[field][name] for name in names] for e in EMOTIONS]
        group = [row.index(True) if any(row) else -1 for row in groups]
        return np.array([*group, -1])[labels_of(corpus, rows, 'emotion', EMOTIONS)]
    values = corpus.index[field][rows]
    if field in DIMENSIONS:
        levels = np.where(values <= 2, 0, np.where(values < 4, 1, 2))
        return np.where(np.isnan(values), -1, levels)
    stored = {'emotion': corpus.metadata['vocabulary'], 'gender': GENDERS}.get(field)
    if (
        stored is not None
    ):  # the field holds class numbers of its own; a last −1 maps missing to missing
        numbers = [names.index(name) if name in names else -1 for name in stored]
        return np.array([*numbers, -1])[values]
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers.get(str(value), -1) for value in values])


def class_names(field: str, corpora: list[Corpus], emotions: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of a record field: the task's emotions, the genders, or every text that occurs.

    Args:
        field: of the records.
        corpora: those that training draws on.
        emotions: the classes of the emotion task.

    Raises:
        UserError: the records have no such label.
    """
    if field == 'emotion':
        return tuple(emotions)
    if field == 'gender':
        return GENDERS
    if field in DIMENSIONS:
        return ('low', 'middle', 'high')
    if field in EMOTIONS_OF:
        return tuple(EMOTIONS_OF[field])
    values = [corpus.index.get(field) for corpus in corpora]
    if any(value is None or value.dtype.kind not in 'US' for value in values):
        raise UserError(
            f'a classification task cannot have the target {field!r}: no such label in the records'
        )
    return tuple(sorted({str(text) for value in values for text in value} - {''}))


def normalisation(parts: list[tuple[Corpus, np.ndarray]]) -> dict[str, np.ndarray]:
    """Mean and standard deviation of each mel band over all frames of some utterances, or of all samples.

    Those of log-mels are read from the index and no log-mel is touched; waveforms are read.

    Args:
        parts: (corpus, rows) pairs, training speakers only.

    Returns:
        {'mean', 'std'}: float32 [F], or [] for waveforms.
    """
    if parts[0][0].representation == 'waveform':
        return _normalisation_of_samples(parts)
    frames = sum(corpus.index['frames'][rows].sum() for corpus, rows in parts)
    total = sum(corpus.index['log_mel_sum'][rows].sum(axis=0) for corpus, rows in parts)
    squares = sum(corpus.index['log_mel_squares'][rows].sum(axis=0) for corpus, rows in parts)
    mean = total / frames
    std = np.sqrt(np.maximum(squares / frames - mean**2, 1e-8))
    return {'mean': mean.astype(np.float32), 'std': std.astype(np.float32)}


def _normalisation_of_samples(parts: list[tuple[Corpus, np.ndarray]]) -> dict[str, np.ndarray]:
    utterances = Utterances(parts, {})
    sums = np.zeros(3)
    for position in range(len(utterances)):
        samples = utterances[position].astype(np.float64)
        sums += len(samples), samples.sum(), (samples**2).sum()
    mean = sums[1] / sums[0]
    std = np.sqrt(max(sums[2] / sums[0] - mean**2, 1e-12))
    return {'mean': np.float32(mean), 'std': np.float32(std)}


def class_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Weights n / (K n_k) that make every class count the same: [N] labels (−1 ignored) -> float32 [K]."""
    counts = np.bincount(labels[labels >= 0], minlength=n_classes)
    return (counts.sum() / (n_classes * np.maximum(counts, 1))).astype(np.float32)


def labelled_share(
    speakers: np.ndarray, emotions: np.ndarray, share: float, seed: int
) -> np.ndarray:
    """Chooses the utterances that keep their emotion label, the same share of every speaker's.

    Of each speaker they are taken from the emotions in turn, so that the rare ones are not lost first.

    Args:
        speakers: str [N].
        emotions: int [N].
        share: from 0 (exclusive) to 1; each speaker keeps at least one label.
        seed: of the choice; a larger share of the same seed holds the smaller one.

    Returns:
        bool [N].
    """
    chosen = np.zeros(len(speakers), bool)
    for speaker in np.unique(speakers):
        rows = np.flatnonzero(speakers == speaker)
        rng = np.random.default_rng((seed, zlib.crc32(str(speaker).encode())))
        rows = rows[rng.permutation(len(rows))]
        turn = np.zeros(len(rows), int)  # how many of the emotion come before it
        for emotion in np.unique(emotions[rows]):
            same = emotions[rows] == emotion
            turn[same] = np.arange(same.sum())
        order = np.lexsort((rng.permutation(emotions.max() + 1)[emotions[rows]], turn))
        chosen[rows[order[: max(1, round(share * len(rows)))]]] = True
    return chosen


@dataclasses.dataclass(frozen=True)
class TrainBatches:
    """Training batches as a pure function of (seed, step): `batches[step]`.

    The first rows of a batch are labelled utterances, the last `n_unlabelled` are unlabelled ones.

    Attributes:
        labelled, unlabelled, noise: utterances, the last two or None.
        batch_size: rows of the global batch.
        n_unlabelled: how many of them are unlabelled.
        length: to crop or pad to, in frames or samples.
        seed: of order and crops.
        rows: the rows of the global batch to load (those of this process).
    """

    labelled: Utterances
    unlabelled: Utterances | None
    noise: Utterances | None
    batch_size: int
    n_unlabelled: int
    length: int
    seed: int
    rows: slice

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """The batch of one step: 'log_mel' [B, T, F] or 'waveform' [B, S], 'length' [B], one int32 [B] a label, 'noise' like log_mel."""
        examples = [self._example(step, row) for row in range(*self.rows.indices(self.batch_size))]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    def _example(self, step: int, row: int) -> dict[str, np.ndarray]:
        n_labelled = self.batch_size - self.n_unlabelled
        if row < n_labelled:
            utterances, stream, position = self.labelled, 0, step * n_labelled + row
        else:
            utterances, stream = self.unlabelled, 1
            position = step * self.n_unlabelled + row - n_labelled
        rng = np.random.default_rng((self.seed, stream, position))
        chosen = pipeline.shuffled(len(utterances), 2 * self.seed + stream)[position]
        array, length = pipeline.crop_or_pad(utterances[chosen], self.length, rng)
        example = {utterances.representation: array, 'length': np.int32(length)}
        example |= {field: labels[chosen] for field, labels in utterances.labels.items()}
        if self.noise is not None:
            noise = self.noise[rng.integers(len(self.noise))]
            repeats = -(-self.length // len(noise))  # short noises loop
            example['noise'], _ = pipeline.crop_or_pad(
                np.tile(noise, (repeats, 1)), self.length, rng
            )
        return example


def evaluation_batches(
    utterances: Utterances, batch_size: int, rows: slice
) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Whole utterances, batched with others of like length and padded.

    Args:
        utterances: to evaluate.
        batch_size: rows of the global batch.
        rows: those of them to load (this process's).

    Yields:
        (positions [batch_size] of the global batch, of which the last may repeat; batch with
        'log_mel' [rows, T, F] or 'waveform' [rows, S], and 'length' [rows]).
    """
    for longest, positions in pipeline.buckets(utterances.lengths, batch_size):
        mine = positions[rows]
        arrays = np.stack([pipeline.pad(utterances[position], longest) for position in mine])
        yield positions, {utterances.representation: arrays, 'length': utterances.lengths[mine]}
