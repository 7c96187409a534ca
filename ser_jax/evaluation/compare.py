"""Comparison of finished runs, paired by utterance, and what must be said beside its numbers."""

import json
from collections.abc import Sequence

import numpy as np

from ser_jax.metrics import rates, significance
from ser_jax.runs.finished import read_runs, read_seeds

# Two cards that differ in one of these may still be compared, but it has to be said.
_SUSPECT = ('corpus', 'corpus_hash', 'protocol', 'commit')
# What a condition is made with, by the beginning of its name: fields of a card's `tested_with`.
_MADE_WITH = {
    'noise_babble': ('babble_corpus', 'corpus_hashes'),
    'noise_': ('test_noise_corpus', 'corpus_hashes'),
    'transfer_': ('attack_source', 'attack_models'),
    'cross_': ('few_shot', 'few_shot_speakers', 'few_shot_steps', 'few_shot_learning_rate'),
}


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
    uar = rates.uar(confusions.sum(1))
    return {
        'system': cards[0]['system'],
        'config': cards[0].get('config', {}),
        'trained_on': cards[0].get('trained_on', [cards[0]['corpus']]),
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
    averaged = runs.confusions(runs.averaged())
    result = _context(runs, condition, replicates) | {'a': _side(workdirs, runs.cards, each)}
    for name, confusions in (('mean_over_seeds', each), ('averaged_posterior', averaged)):
        drawn, result['redrawn'] = significance.bootstrap_uar(confusions, replicates)
        uar = rates.uar(confusions.sum(1)).mean()
        result[name] = {'uar': float(uar), 'ci95': _bounds(significance.interval(drawn.mean(1)))}
    return result | {'warnings': _warnings(workdirs, runs.cards, condition)}


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
        `averaged_posterior` (the mean of the probabilities over the seeds, or of the ratings, then the UAR; with one
        seed a side the same) `uar_a`, `uar_b`, `difference`, `ci95` and `p`; `redrawn`, `p_exact`,
        `smallest_p`; `warnings` of what the cards do not share. None = undefined.

    Raises:
        UserError: see `read_seeds` and `read_runs`.
    """
    workdirs, split = [*workdirs_a, *workdirs_b], len(workdirs_a)
    cards = [*read_seeds(workdirs_a), *read_seeds(workdirs_b)]
    runs = read_runs(workdirs, cards, condition)
    sides = slice(split), slice(split, None)
    each = [runs.confusions(runs.probabilities[side]) for side in sides]
    averaged = [runs.confusions(runs.averaged(side)) for side in sides]
    result = _context(runs, condition, replicates) | {
        'a': _side(workdirs_a, cards[:split], each[0]),
        'b': _side(workdirs_b, cards[split:], each[1]),
    }
    for name, pair in (('mean_over_seeds', each), ('averaged_posterior', averaged)):
        found = significance.compare(*pair, replicates)
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
        'warnings': _warnings(workdirs, cards, condition, split),
    }


def _warnings(workdirs, cards, condition, split=None):
    """What readers must know before they trust the numbers, one line each."""
    lines = []
    facts = {field: [card[field] for card in cards] for field in _SUSPECT}
    if condition.startswith('cross_'):  # other corpora train
        facts = {'commit': facts['commit']}
        facts['tested corpus'] = [
            card['conditions'][condition].get('corpus_hash') for card in cards
        ]
    start = next((start for start in _MADE_WITH if condition.startswith(start)), None)
    for field in _MADE_WITH.get(start, ()):
        facts[field] = [json.dumps((card.get('tested_with') or {}).get(field)) for card in cards]
    commits = facts['commit']
    if split is not None and sorted(commits[:split]) == sorted(commits[split:]):
        del facts['commit']  # both sides have the same: no difference of means comes of it
    for field, values in facts.items():
        first = {}
        for workdir, value in zip(workdirs, values):
            first.setdefault(value, workdir)
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
            f'{split} {"seed" if split == 1 else "seeds"} against {len(cards) - split}: '
            'a mean of fewer scatters more, an averaged posterior gains with every seed'
        )
    return lines
