"""What a system said about utterances: pooled over folds, written and read back."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically

_COLUMNS = ('id', 'fold', 'speaker', 'label', 'prediction')
_RATINGS = ('rating', 'predicted_rating')


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a system said about utterances; rows belong together.

    Attributes:
        id: str [N].
        fold: name of the fold in which the utterance was tested, str [N].
        speaker: str [N], '' = unknown.
        label: true class, int [N], a position in the labels of the task.
        probabilities: float32 [N, K]; of a predicted rating 1 for the class that it falls into.
        rating: true rating, float32 [N]; None (all NaN) where classes are predicted.
        predicted_rating: likewise.
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
            given = getattr(self, name)
            given = np.full(len(self.id), np.nan) if given is None else given
            object.__setattr__(self, name, np.asarray(given, np.float32))
        for name, kind in (('id', str), ('fold', str), ('speaker', str), ('label', np.int64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(kind))
        object.__setattr__(self, 'probabilities', np.asarray(self.probabilities, np.float32))
        lengths = {len(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(lengths) != 1 or self.probabilities.ndim != 2:
            raise ValueError(f'rows of predictions do not belong together: lengths {lengths}')

    @property
    def prediction(self) -> np.ndarray:
        """The most probable class, int [N]."""
        return self.probabilities.argmax(1)

    @property
    def rated(self) -> bool:
        """Whether ratings were predicted, not classes."""
        return bool(len(self.rating)) and not np.isnan(self.rating).any()


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Joins the predictions of folds; metrics are computed on the pooled ones.

    Raises:
        ValueError: an utterance was tested twice.
    """
    fields = [field.name for field in dataclasses.fields(Predictions)]
    pooled = Predictions(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in fields)
    )
    ids, times = np.unique(pooled.id, return_counts=True)
    if np.any(times > 1):
        raise ValueError(f'{ids[times > 1][0]} was tested {times.max()} times')
    return pooled


def write_predictions(path, predictions: Predictions, labels: Sequence[str]) -> None:
    """Writes `predictions/<condition>.csv`, whole or not at all.

    Columns: id, fold, speaker, label, prediction, `probability_<class>` per class, and of predicted
    ratings rating and predicted_rating. Numbers have as many digits as it takes to read the same float32 back.

    Args:
        path: file to write; its folder is made.
        predictions: N rows.
        labels: the K class names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    ratings = _RATINGS if predictions.rated else ()
    writer.writerow([*_COLUMNS, *(f'probability_{label}' for label in labels), *ratings])
    for row, (label, prediction) in enumerate(zip(predictions.label, predictions.prediction)):
        names = [getattr(predictions, name)[row] for name in _COLUMNS[:3]]
        numbers = [str(number) for number in predictions.probabilities[row]]
        numbers += [str(getattr(predictions, name)[row]) for name in ratings]
        writer.writerow([*names, labels[label], labels[prediction], *numbers])
    write_atomically(Path(path), text.getvalue())


def read_predictions(path) -> tuple[Predictions, list[str]]:
    """Reads what `write_predictions` wrote.

    Returns:
        (predictions, labels).

    Raises:
        UserError: no such file, or not one of ours.
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
