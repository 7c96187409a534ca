"""Finished runs read from disk, paired utterance by utterance, and compared."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ser_jax import comparison, evaluation, metrics
from ser_jax.errors import UserError

# What is read from a card. Two cards that differ in one of `_SUSPECT` may still be compared, but it
# has to be said.
_NEEDED = (
    'system config_hash commit device corpus corpus_hash synthetic labels protocol n_folds seed '
    'n_params conditions leak_check cost'
)
_SUSPECT = ('corpus', 'corpus_hash', 'protocol', 'commit')


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """R runs tested on the same utterances, row by row, in the order of the utterances' ids.

    Attributes:
        cards: the R result cards.
        labels: the K class names.
        label: true class, int [N].
        speaker: str [N], '' = unknown.
        probabilities: float64 [R, N, K].
    """

    cards: list[dict]
    labels: list[str]
    label: np.ndarray
    speaker: np.ndarray
    probabilities: np.ndarray

    def confusions(self, probabilities) -> np.ndarray:
        """Counts per speaker, int [R, S, K, K], of probabilities [R, N, K] for these utterances."""
        count = lambda said: metrics.confusion_by_speaker(
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
    path = Path(workdir) / 'results.json'
    try:
        card = json.loads(path.read_text(encoding='utf-8'))
    except FileNotFoundError as error:
        raise UserError(f'{workdir} holds no results.json: not a finished run') from error
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path}: {error}') from error
    lacking = [name for name in _NEEDED.split() if not isinstance(card, dict) or name not in card]
    if lacking:
        raise UserError(f'{path} is not a result card: it lacks {", ".join(lacking)}')
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
                raise UserError(
                    f'{workdirs[0]} and {workdir} are not seeds of one system: their {field} is '
                    f'{cards[0][field]} and {card[field]}'
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
            raise UserError(f'{workdir} has no condition {condition}; it has {there}')
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
    return Runs(list(cards), labels, first.label, first.speaker, probabilities)


def _read_sorted(path):
    found, labels = evaluation.read_predictions(path)
    order = np.argsort(found.id, kind='stable')
    fields = [field.name for field in dataclasses.fields(found)]
    found = evaluation.Predictions(*(getattr(found, name)[order] for name in fields))
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


def _context(runs, condition, replicates):
    """What every number needs beside it."""
    card, known = runs.cards[0], set(runs.speaker.tolist()) - {''}
    tested = card | card['conditions'][condition]  # a corpus across is named there
    return {name: tested[name] for name in ('corpus', 'synthetic', 'protocol', 'n_folds')} | {
        'condition': condition,
        'labels': runs.labels,
        'n': runs.label.size,
        'n_speakers': len(known),
        'n_unknown_speaker': int((runs.speaker == '').sum()),
        'replicates': replicates,
    }


def _side(workdirs, cards, confusions):
    uar = metrics.uar(confusions.sum(1))
    return {
        'system': cards[0]['system'],
        'seeds': [card['seed'] for card in cards],
        'commits': list(dict.fromkeys(card['commit'] for card in cards)),
        'workdirs': list(map(str, workdirs)),
        'uar_by_seed': uar.tolist(),
        'uar_std': float(uar.std(ddof=1)) if len(uar) > 1 else None,
    }


def _bounds(interval):
    return [None if np.isnan(bound) else bound for bound in interval]


def over_seeds(workdirs: Sequence, condition: str = 'clean', replicates: int = 10_000) -> dict:
    """The result of one system over its seeds, in two ways that are never to be mixed up.

    Args:
        workdirs: one for each seed.
        condition: e.g. `clean`.
        replicates: of the bootstrap over speakers.

    Returns:
        As `compare_runs`, without `b` and all that takes two systems; `mean_over_seeds` and
        `averaged_posterior` hold `uar` and its `ci95`.

    Raises:
        UserError: see `read_seeds` and `read_runs`.
    """
    runs = read_runs(workdirs, read_seeds(workdirs), condition)
    each = runs.confusions(runs.probabilities)
    averaged = runs.confusions(runs.probabilities.mean(0, keepdims=True))
    result = _context(runs, condition, replicates) | {'a': _side(workdirs, runs.cards, each)}
    for name, confusions in (('mean_over_seeds', each), ('averaged_posterior', averaged)):
        drawn, result['redrawn'] = comparison.bootstrap_uar(confusions, replicates)
        uar = metrics.uar(confusions.sum(1)).mean()
        result[name] = {'uar': float(uar), 'ci95': _bounds(comparison.interval(drawn.mean(1)))}
    return result | {'warnings': _warnings(workdirs, runs.cards)}


def compare_runs(
    workdirs_a: Sequence, workdirs_b: Sequence, condition: str = 'clean', replicates: int = 10_000
) -> dict:
    """Compares two systems utterance by utterance: A minus B.

    Args:
        workdirs_a: of system A, one for each seed.
        workdirs_b: of system B; it need not have the same seeds.
        condition: e.g. `clean`.
        replicates: of the bootstrap, and of the permutation where it is not exact.

    Returns:
        What the numbers were computed on; `a` and `b` (`system`, `seeds`, `uar_by_seed`, `uar_std`,
        …); for each of `mean_over_seeds` (the UAR of each seed, then the mean) and
        `averaged_posterior` (the mean of the probabilities over the seeds, then the UAR; with one
        seed a side the same) `uar_a`, `uar_b`, `difference`, `ci95` and `p`; `redrawn`, `p_exact`,
        `smallest_p`; `warnings` of what the cards do not share. None = undefined.

    Raises:
        UserError: see `read_seeds` and `read_runs`.
    """
    workdirs, split = [*workdirs_a, *workdirs_b], len(workdirs_a)
    cards = [*read_seeds(workdirs_a), *read_seeds(workdirs_b)]
    runs = read_runs(workdirs, cards, condition)
    sides = runs.probabilities[:split], runs.probabilities[split:]
    each = [runs.confusions(side) for side in sides]
    averaged = [runs.confusions(side.mean(0, keepdims=True)) for side in sides]
    result = _context(runs, condition, replicates) | {
        'a': _side(workdirs_a, cards[:split], each[0]),
        'b': _side(workdirs_b, cards[split:], each[1]),
    }
    for name, pair in (('mean_over_seeds', each), ('averaged_posterior', averaged)):
        found = comparison.compare(*pair, replicates)
        result[name] = {
            'uar_a': found.uar_a,
            'uar_b': found.uar_b,
            'difference': found.difference,
            'ci95': _bounds(found.interval),
            'p': found.p,
        }
    n_clusters = each[0].shape[1]
    return result | {
        'redrawn': found.redrawn,
        'p_exact': found.exact,
        'smallest_p': 2.0 ** (1 - n_clusters) if found.exact else 1 / (replicates + 1),
        'warnings': _warnings(workdirs, cards, split),
    }


def _warnings(workdirs, cards, split=None):
    """What readers must know before they trust the numbers, one line each."""
    lines = []
    for field in _SUSPECT:
        first = {}
        for workdir, card in zip(workdirs, cards):
            first.setdefault(card[field], workdir)
        if len(first) > 1:
            shown = ', '.join(f'{value or "unknown"} ({where})' for value, where in first.items())
            lines.append(f'the runs differ in {field}: {shown}')
    changed = [workdir for workdir, card in zip(workdirs, cards) if '+changes' in card['commit']]
    if changed:
        lines.append(
            f'code that differed from its commit was run in {", ".join(map(str, changed))}'
        )
    if split is not None and split != len(cards) - split:
        lines.append(
            f'{split} seeds against {len(cards) - split}: an averaged posterior gains with every seed'
        )
    return lines
