"""Predictions for utterances: pooled over folds, written to CSV and read back."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import csv_writer, write_atomically

_COLUMNS = ('id', 'fold', 'speaker', 'label', 'prediction')
_RATINGS = ('rating', 'predicted_rating')


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for N utterances.

    Attributes:
        id: utterance id, str [N].
        fold: fold that tested the utterance, str [N].
        speaker: str [N], '' = unknown.
        label: index of the true class, int [N].
        probabilities: float32 [N, K]; for predicted ratings one-hot, the class that the rating falls into.
        rating: true rating, float32 [N]; None (stored as NaN) if classes are predicted.
        predicted_rating: predicted rating, likewise.
    """

    id: np.ndarray
    fold: np.ndarray
    speaker: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray
    rating: np.ndarray | None = None
    predicted_rating: np.ndarray | None = None

    def __post_init__(self):
        for name in _RATINGS:
            values = getattr(self, name)
            values = np.full(len(self.id), np.nan) if values is None else values
            object.__setattr__(self, name, np.asarray(values, np.float32))
        for name, kind in (('id', str), ('fold', str), ('speaker', str), ('label', np.int64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(kind))
        object.__setattr__(self, 'probabilities', np.asarray(self.probabilities, np.float32))
        lengths = {len(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(lengths) != 1 or self.probabilities.ndim != 2:
            raise ValueError(f'columns of predictions have different lengths: {lengths}')

    @property
    def prediction(self) -> np.ndarray:
        """The most probable class, int [N]."""
        return self.probabilities.argmax(1)

    @property
    def rated(self) -> bool:
        """Whether ratings are predicted, not classes."""
        return bool(len(self.rating)) and not np.isnan(self.rating).any()


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Concatenates the predictions of folds; raises ValueError where an utterance was tested more than once."""
    fields = [field.name for field in dataclasses.fields(Predictions)]
    pooled = Predictions(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in fields)
    )
    ids, times = np.unique(pooled.id, return_counts=True)
    if np.any(times > 1):
        raise ValueError(f'{ids[times > 1][0]} was tested {times.max()} times')
    return pooled


def write_predictions(path, predictions: Predictions, labels: Sequence[str]) -> None:
    """Writes `predictions/<condition>.csv` atomically.

    Columns: id, fold, speaker, label, prediction, `probability_<class>` per class, and rating and predicted_rating if ratings
    are predicted. Numbers round-trip to the same float32.
    """
    text = io.StringIO()
    writer = csv_writer(text)
    ratings = _RATINGS if predictions.rated else ()
    writer.writerow([*_COLUMNS, *(f'probability_{label}' for label in labels), *ratings])
    for row, (label, prediction) in enumerate(zip(predictions.label, predictions.prediction)):
        names = [getattr(predictions, name)[row] for name in _COLUMNS[:3]]
        numbers = [str(number) for number in predictions.probabilities[row]]
        numbers += [str(getattr(predictions, name)[row]) for name in ratings]
        writer.writerow([*names, labels[label], labels[prediction], *numbers])
    write_atomically(Path(path), text.getvalue())


def read_predictions(path) -> tuple[Predictions, list[str]]:
    """Reads a file of `write_predictions`.

    Returns:
        (predictions, K class names).

    Raises:
        UserError: missing or malformed file.
    """
    try:
        with open(path, newline='', encoding='utf-8') as file:
            header, *rows = csv.reader(file)
        if not rows or any(len(row) != len(header) for row in rows):
            raise ValueError('it is cut short')
        columns = dict(zip(header, zip(*rows)))
        labels = [name.removeprefix('probability_') for name in columns if 'probability_' in name]
        classes = [labels.index(name) for name in columns['label']]
        probabilities = np.transpose([columns[f'probability_{label}'] for label in labels])
        ratings = [columns.get(name) for name in _RATINGS]
        texts = (columns[name] for name in _COLUMNS[:3])
        return Predictions(*texts, classes, probabilities, *ratings), labels
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f'cannot read predictions from {path}: {error}') from error
