"""Finished runs read from disk and paired utterance by utterance."""

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
from ser_jax.runs import result_card
from ser_jax.runs.predictions import Predictions, read_predictions
from ser_jax.runs.result_card import _NUMBER
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import checked, mismatch


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """R runs tested on the same utterances, row by row, in the order of the utterances' ids.

    Attributes:
        cards: the R result cards.
        labels: the K class names.
        label: true class, int [N].
        speaker: str [N], '' = unknown.
        probabilities: float64 [R, N, K]; of predicted ratings 1 for the class that each falls into.
        ratings: predicted ratings, float64 [R, N]; NaN where classes were predicted.
    """

    cards: list[dict]
    labels: list[str]
    label: np.ndarray
    speaker: np.ndarray
    probabilities: np.ndarray
    ratings: np.ndarray

    def averaged(self, chosen: slice = slice(None)) -> np.ndarray:
        """What some of the runs say together, [1, N, K]: the mean of their probabilities, or the class of their mean rating."""
        ratings = self.ratings[chosen].mean(0)
        if np.isnan(ratings).any():
            return self.probabilities[chosen].mean(0, keepdims=True)
        return np.eye(len(self.labels))[level_of(ratings)][None]

    def confusions(self, probabilities) -> np.ndarray:
        """Counts per speaker, int [R, S, K, K], of probabilities [R, N, K] for these utterances."""
        count = lambda said: rates.confusion_by_speaker(
            self.label, said, self.speaker, len(self.labels)
        )
        return np.stack([count(one.argmax(1)) for one in probabilities])


def read_card(workdir) -> dict:
    """Reads the result card of a finished run.

    Args:
        workdir: of the run, or a folder of `results/`.

    Returns:
        `results.json`.

    Raises:
        UserError: there is none, or it is no result card.
    """
    card = result_card.read_card(workdir)
    if card is None:
        raise UserError(f'{workdir} holds no results.json: not a finished run')
    return card


def read_seeds(workdirs: Sequence) -> list[dict]:
    """Reads the cards of one system, trained with one or several seeds.

    Args:
        workdirs: one for each seed.

    Returns:
        The cards, in the same order.

    Raises:
        UserError: a card cannot be read, two are not of the same system, or a seed is there twice.
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
        workdirs: of R runs.
        cards: their result cards.
        condition: e.g. `clean`.

    Returns:
        The paired runs.

    Raises:
        UserError: a run was not tested under that condition, its predictions cannot be used, or the
            runs differ in corpus, classes, utterances, labels or speakers.
    """
    for workdir, card in zip(workdirs, cards):
        if condition not in card['conditions']:
            there = ', '.join(card['conditions']) or 'no other either: no test speaker was read'
            how = ' (--condition names one)' if card['conditions'] else ''
            raise UserError(f'{workdir} has no condition {condition}; it has {there}{how}')
        # A cross-corpus condition names the corpus that is tested; the card the one that trained.
        if card['corpus'] != cards[0]['corpus'] and not condition.startswith('cross_'):
            raise UserError(
                f'cannot pair {workdirs[0]} with {workdir}: their corpora are '
                f'{cards[0]["corpus"]} and {card["corpus"]}'
            )
    read = [_read_sorted(Path(folder, 'predictions', f'{condition}.csv')) for folder in workdirs]
    first, labels = read[0]
    for workdir, (found, names) in zip(workdirs, read):
        difference = _difference(first, labels, found, names)
        if difference:
            raise UserError(f'cannot pair {workdirs[0]} with {workdir}: {difference}')
    probabilities = np.stack([found.probabilities for found, _ in read]).astype(float)
    ratings = np.stack([found.predicted_rating for found, _ in read]).astype(float)
    return Runs(list(cards), labels, first.label, first.speaker, probabilities, ratings)


def _read_sorted(path):
    found, labels = read_predictions(path)
    order = np.argsort(found.id, kind='stable')
    fields = [field.name for field in dataclasses.fields(found)]
    found = Predictions(*(getattr(found, name)[order] for name in fields))
    twice = np.flatnonzero(found.id[1:] == found.id[:-1])
    if twice.size:
        raise UserError(f'{path} holds {found.id[twice[0]]} twice')
    broken = np.flatnonzero(~np.isfinite(found.probabilities).all(1))
    if broken.size:
        raise UserError(f'{path}: the probabilities of {found.id[broken[0]]} are not finite')
    return found, labels


def _difference(first, first_labels, second, second_labels):
    """What keeps two runs from being paired, or ''."""
    if first_labels != second_labels:
        return f'their classes are {" ".join(first_labels)} and {" ".join(second_labels)}'
    if not np.array_equal(first.id, second.id):
        alone = np.setdiff1d(first.id, second.id), np.setdiff1d(second.id, first.id)
        example = [f' (e.g. {ids[0]})' if ids.size else '' for ids in alone]
        return (
            f'they tested other utterances, {alone[0].size} only the former{example[0]}, '
            f'{alone[1].size} only the latter{example[1]}'
        )
    for field, show in (('label', lambda i: first_labels[i]), ('speaker', str)):
        one, two = getattr(first, field), getattr(second, field)
        where = np.flatnonzero(one != two)
        if where.size:
            shown = [show(values[where[0]]) or 'unknown' for values in (one, two)]
            return (
                f'{where.size} of {one.size} utterances have another {field}, e.g. '
                f'{first.id[where[0]]}: {shown[0]} and {shown[1]}'
            )
    return ''


CONFIG = {
    'representation': str,
    'model': {'name': str},
    'tasks': {str: {'kind': str, 'target': str}},
    'data': {
        'front_end': {
            **dict.fromkeys(('sample_rate', 'n_fft', 'win_length', 'hop_length', 'n_mels'), int),
            **dict.fromkeys(('fmin', 'fmax', 'floor'), _NUMBER),
        }
    },
}


_TEXTS = 'emotion', 'speaker', 'side'  # of an embedding, beside x and y


_PLOTTED = 'loss', 'validation_uar', 'validation_ccc'


_METRICS = {'fold': str, 'step': int}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, without one that is being written; [] where there is no such file.

    Raises:
        UserError: it holds something else.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
        rows = [checked(json.loads(line), _METRICS) for line in lines if line.endswith('}')]
        # Of training that diverged anything may be told: no point of a curve.
        for row in rows:
            row.update({name: None for name in _PLOTTED if mismatch(row.get(name), _NUMBER, '')})
        return rows
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error


def read_embedding(path: Path) -> list[dict[str, str]]:
    """The rows of `report/embedding.csv`; [] where there is no such file.

    Raises:
        UserError: it holds something else.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
        texts = all(isinstance(row[name], str) for row in rows for name in _TEXTS)
        if not texts or not all(math.isfinite(float(row[axis])) for row in rows for axis in 'xy'):
            raise ValueError('a row is not whole')
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error
