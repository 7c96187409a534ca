"""Labels of records as numbers: class numbers, levels of ratings, class weights, and reduced label sets."""

import zlib

import numpy as np

from ser_jax.data.corpora import Corpus
from ser_jax.data.records import DIMENSIONS, EMOTIONS, EMOTIONS_OF, GENDERS
from ser_jax.runtime.errors import UserError


def labels_of(corpus: Corpus, rows: np.ndarray, field: str, names: tuple[str, ...]) -> np.ndarray:
    """Labels of some utterances as class numbers.

    Args:
        corpus: the corpus.
        rows: [N] rows of its index.
        field: field of the records: 'emotion', 'gender', a text field, or a dimension ('arousal', 'valence',
            'dominance'), whose classes are those of `level_of`; or a key of `EMOTIONS_OF`.
        names: class names. Emotions that are not among them are merged as the corpus defines (`merged` in its
            metadata: excited into happy in IEMOCAP).

    Returns:
        int [N]: positions in `names`, −1 where the label is missing or another class.
    """
    if field in EMOTIONS_OF:
        groups = [[e in EMOTIONS_OF[field][name] for name in names] for e in EMOTIONS]
        group = [row.index(True) if any(row) else -1 for row in groups]
        return np.array([*group, -1])[labels_of(corpus, rows, 'emotion', EMOTIONS)]
    values = corpus.index[field][rows]
    if field in DIMENSIONS:
        return level_of(values)
    stored = {'emotion': corpus.metadata['vocabulary'], 'gender': GENDERS}.get(field)
    if stored is not None:
        # Stored class numbers -> positions in `names`; the last −1 maps missing to missing.
        merged = corpus.metadata.get('merged', {}) if field == 'emotion' else {}
        stored = [name if name in names else merged.get(name, name) for name in stored]
        numbers = [names.index(name) if name in names else -1 for name in stored]
        return np.array([*numbers, -1])[values]
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers.get(str(value), -1) for value in values])


def level_of(ratings: np.ndarray) -> np.ndarray:
    """Classes of ratings from 1 to 5: 0 low [1, 2], 1 middle (2, 4), 2 high [4, 5] (Zhang et al. 2019); −1 for NaN."""
    levels = np.where(ratings <= 2, 0, np.where(ratings < 4, 1, 2))
    return np.where(np.isnan(ratings), -1, levels)


def rating_scale(parts: list[tuple[Corpus, np.ndarray]], field: str) -> np.ndarray:
    """Mean and standard deviation of the ratings of a dimension over some training rows, float32 [2]."""
    ratings = np.concatenate([corpus.index[field][rows] for corpus, rows in parts])
    ratings = ratings[~np.isnan(ratings)].astype(np.float64)
    if not ratings.size:
        return np.array([3.0, 1.0], np.float32)  # no ratings: the middle of 1 … 5
    return np.array([ratings.mean(), max(ratings.std(), 1e-3)], np.float32)


def class_names(field: str, corpora: list[Corpus], emotions: tuple[str, ...]) -> tuple[str, ...]:
    """Class names of a target: the task's emotions, the genders, or all texts that occur.

    Args:
        field: see `labels_of`.
        corpora: corpora that join training.
        emotions: classes of the emotion task.

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


def class_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Weights n / (K n_k) that balance the classes: [N] labels (−1 ignored) -> float32 [K]."""
    counts = np.bincount(labels[labels >= 0], minlength=n_classes)
    return (counts.sum() / (n_classes * np.maximum(counts, 1))).astype(np.float32)


def labelled_share(
    speakers: np.ndarray, emotions: np.ndarray, share: float, seed: int
) -> np.ndarray:
    """Chooses the utterances that keep their emotion label, the same share of every speaker.

    Each speaker's are taken from the emotions in turn, so that rare emotions remain.

    Args:
        speakers: str [N].
        emotions: int [N].
        share: share in (0, 1]; each speaker keeps at least one label.
        seed: random seed; a larger share with the same seed contains the smaller one.

    Returns:
        bool [N].
    """
    if share == 1:
        return np.ones(len(speakers), bool)
    chosen = np.zeros(len(speakers), bool)
    for speaker in np.unique(speakers):
        rows = np.flatnonzero(speakers == speaker)
        rng = np.random.default_rng((seed, zlib.crc32(str(speaker).encode())))
        rows = rows[rng.permutation(len(rows))]
        turn = np.zeros(len(rows), int)  # number of earlier utterances with the same emotion
        for emotion in np.unique(emotions[rows]):
            same = emotions[rows] == emotion
            turn[same] = np.arange(same.sum())
        order = np.lexsort((rng.permutation(max(1, emotions.max() + 1))[emotions[rows]], turn))
        chosen[rows[order[: max(1, round(share * len(rows)))]]] = True
    return chosen


def occurring(
    parts: list[tuple[Corpus, np.ndarray]], field: str, names: tuple[str, ...]
) -> np.ndarray:
    """Which classes of a target (see `labels_of`) occur in some rows of corpora, bool [K]; for `speaker` some are only tested."""
    found = np.concatenate([labels_of(*part, field, names) for part in parts])
    return np.isin(np.arange(len(names)), found)
