"""Finished runs, in run directories or stored: cards, metrics, embeddings, and predictions paired by utterance."""

import csv
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.data.labels import level_of
from ser_jax.metrics import rates
from ser_jax.runs import result_card, stored
from ser_jax.runs.predictions import Predictions, read_predictions
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import checked, mismatch


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """Predictions of R runs for the same N utterances, sorted by utterance id.

    Attributes:
        cards: R result cards.
        labels: K class names.
        label: true class, int [N].
        speaker: str [N], '' = unknown.
        probabilities: float64 [R, N, K]; for predicted ratings one-hot, the class that the rating falls into.
        ratings: predicted ratings, float64 [R, N]; NaN where classes were predicted.
    """

    cards: list[dict]
    labels: list[str]
    label: np.ndarray
    speaker: np.ndarray
    probabilities: np.ndarray
    ratings: np.ndarray

    def averaged(self, chosen: slice = slice(None)) -> np.ndarray:
        """Ensemble of the chosen runs, [1, N, K]: mean probabilities, or the class of the mean rating (one-hot)."""
        ratings = self.ratings[chosen].mean(0)
        if np.isnan(ratings).any():
            return self.probabilities[chosen].mean(0, keepdims=True)
        return np.eye(len(self.labels))[level_of(ratings)][None]

    def confusions(self, probabilities) -> np.ndarray:
        """Confusion matrices by speaker, int [R, S, K, K], of probabilities [R, N, K]."""
        count = lambda predicted: rates.confusion_by_speaker(
            self.label, predicted, self.speaker, len(self.labels)
        )
        return np.stack([count(run.argmax(1)) for run in probabilities])


def find_card(workdir) -> dict | None:
    """Reads the result card of a run directory or a stored run (see `stored`); None if the run is not finished.

    Raises:
        UserError: not a result card.
    """
    card = result_card.read_card(workdir)
    if card is None and (found := stored.find(Path(workdir))):
        store, name = found
        return store.card(name)
    return card


def read_card(workdir) -> dict:
    """Reads the result card of a finished run, see `find_card`; raises UserError without one."""
    card = find_card(workdir)
    if card is None:
        raise UserError(f'{workdir} holds no results.json: not a finished run')
    return card


def read_condition(workdir, condition: str) -> tuple[Predictions, list[str]]:
    """Reads the predictions of a finished run (see `find_card`) under one condition, and the class names.

    Raises:
        UserError: missing or malformed predictions.
    """
    workdir = Path(workdir)
    if not workdir.is_dir() and (found := stored.find(workdir)):
        store, name = found
        return store.predictions(name, condition)
    return read_predictions(workdir / 'predictions' / f'{condition}.csv')


def read_command(workdir) -> str:
    """Reads the command line of a finished run, '' if unknown; see `find_card`."""
    path = Path(workdir) / 'command.txt'
    if path.exists():
        return path.read_text('utf-8', 'replace').strip()
    found = stored.find(Path(workdir))
    return found[0].command(found[1]) if found else ''


def list_runs(folder: Path) -> list[Path]:
    """The finished runs in a folder: the stored ones, or else its run directories; sorted."""
    if stored.exists(folder):
        return [folder / name for name in sorted(stored.read(folder).names)]
    return sorted(path.parent for path in folder.glob('*/results.json'))


def read_seeds(workdirs: Sequence) -> list[dict]:
    """Reads the cards of one system trained with one or more seeds, one run directory each.

    Raises:
        UserError: unreadable card, different systems, or a repeated seed.
    """
    cards = [read_card(workdir) for workdir in workdirs]
    for workdir, card in zip(workdirs, cards):
        for field in ('system', 'config_hash'):
            if card[field] != cards[0][field]:
                first, other = (c.get('config', {}) for c in (cards[0], card))
                fields = [name for name in first | other if first.get(name) != other.get(name)]
                names = f'; they differ in {", ".join(fields)}' if fields else ''
                raise UserError(
                    f'{workdirs[0]} and {workdir} are not seeds of one system: their {field} is '
                    f'{cards[0][field]} and {card[field]}{names}'
                )
    seeds = {}
    for workdir, card in zip(workdirs, cards):
        if card['seed'] in seeds:
            raise UserError(f'{seeds[card["seed"]]} and {workdir} are both seed {card["seed"]}')
        seeds[card['seed']] = workdir
    return cards


def read_runs(workdirs: Sequence, cards: Sequence[dict], condition: str) -> Runs:
    """Reads the predictions of runs under one condition and pairs them by utterance.

    Args:
        workdirs: R run directories.
        cards: their result cards.
        condition: e.g. `clean`.

    Raises:
        UserError: a run lacks the condition, its predictions are unusable, or the runs differ in corpus, classes, utterances,
            labels or speakers.
    """
    for workdir, card in zip(workdirs, cards):
        if condition not in card['conditions']:
            there = ', '.join(card['conditions']) or 'no other either: no test speaker was read'
            how = ' (--condition names one)' if card['conditions'] else ''
            raise UserError(f'{workdir} has no condition {condition}; it has {there}{how}')
        # Under cross-corpus conditions the card's corpus is the training corpus, which may differ.
        if card['corpus'] != cards[0]['corpus'] and not condition.startswith('cross_'):
            raise UserError(
                f'cannot pair {workdirs[0]} with {workdir}: their corpora are '
                f'{cards[0]["corpus"]} and {card["corpus"]}'
            )
    runs = [_read_sorted(workdir, condition) for workdir in workdirs]
    first, labels = runs[0]
    for workdir, (predictions, names) in zip(workdirs, runs):
        difference = _difference(first, labels, predictions, names)
        if difference:
            raise UserError(f'cannot pair {workdirs[0]} with {workdir}: {difference}')
    probabilities = np.stack([run.probabilities for run, _ in runs]).astype(float)
    ratings = np.stack([run.predicted_rating for run, _ in runs]).astype(float)
    return Runs(list(cards), labels, first.label, first.speaker, probabilities, ratings)


def _read_sorted(workdir, condition):
    path = Path(workdir, 'predictions', f'{condition}.csv')
    predictions, labels = read_condition(workdir, condition)
    order = np.argsort(predictions.id, kind='stable')
    fields = [field.name for field in dataclasses.fields(predictions)]
    predictions = Predictions(*(getattr(predictions, name)[order] for name in fields))
    repeated = np.flatnonzero(predictions.id[1:] == predictions.id[:-1])
    if repeated.size:
        raise UserError(f'{path} holds {predictions.id[repeated[0]]} twice')
    broken = np.flatnonzero(~np.isfinite(predictions.probabilities).all(1))
    if broken.size:
        raise UserError(f'{path}: the probabilities of {predictions.id[broken[0]]} are not finite')
    return predictions, labels


def _difference(first, first_labels, second, second_labels):
    """Why two runs cannot be paired; '' if they can."""
    if first_labels != second_labels:
        return f'their classes are {" ".join(first_labels)} and {" ".join(second_labels)}'
    if not np.array_equal(first.id, second.id):
        only = np.setdiff1d(first.id, second.id), np.setdiff1d(second.id, first.id)
        example = [f' (e.g. {ids[0]})' if ids.size else '' for ids in only]
        return (
            f'they tested other utterances, {only[0].size} only the former{example[0]}, '
            f'{only[1].size} only the latter{example[1]}'
        )
    for field, show in (('label', lambda i: first_labels[i]), ('speaker', str)):
        both = getattr(first, field), getattr(second, field)
        rows = np.flatnonzero(both[0] != both[1])
        if rows.size:
            one, two = (show(values[rows[0]]) or 'unknown' for values in both)
            return (
                f'{rows.size} of {first.id.size} utterances have another {field}, e.g. '
                f'{first.id[rows[0]]}: {one} and {two}'
            )
    return ''


# Shape of the fields of config.json that readers of a finished run rely on.
CONFIG = {
    'representation': str,
    'model': {'name': str},
    'tasks': {str: {'kind': str, 'target': str}},
    'fine_tune?': {'trains': str},
    'data': {
        'front_end': {
            **dict.fromkeys(('sample_rate', 'n_fft', 'win_length', 'hop_length', 'n_mels'), int),
            **dict.fromkeys(('fmin', 'fmax', 'floor'), float),
        }
    },
}
_METRICS = {'fold': str, 'step': int}
_PLOTTED = 'loss', 'validation_uar', 'validation_ccc'
_EMBEDDING_TEXTS = 'emotion', 'speaker', 'side'


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads the complete lines of a run's `metrics.jsonl`; [] if there is no such file. Raises UserError for other content."""
    try:
        lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
        rows = [checked(json.loads(line), _METRICS) for line in lines if line.endswith('}')]
        # Values of a diverged training may be anything: they make no point of a curve.
        for row in rows:
            row.update({name: None for name in _PLOTTED if mismatch(row.get(name), float)})
        return rows
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error


def read_embedding(path: Path) -> list[dict[str, str]]:
    """Reads the rows of `report/embedding.csv`; [] if there is no such file. Raises UserError for other content."""
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
        texts = all(isinstance(row[name], str) for row in rows for name in _EMBEDDING_TEXTS)
        if not texts or not all(math.isfinite(float(row[axis])) for row in rows for axis in 'xy'):
            raise ValueError('incomplete row')
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error
