"""Comparison of finished runs, paired by utterance, with warnings on how the runs differ."""

import json
import re
from collections.abc import Sequence

import numpy as np

from ser_jax.metrics import rates, significance
from ser_jax.runs.finished import read_runs, read_seeds
from ser_jax.transforms.corruptions import COLOURS

# Parts of warnings, by which tables of grids recognise what they show otherwise.
COMMITS_DIFFER = 'the runs differ in commit'
SEEDS_DIFFER = 'a mean of fewer varies more, an averaged posterior gains with every seed'
# Fields of a card whose differences are reported as warnings.
_WARN_FIELDS = ('corpus', 'corpus_hash', 'protocol', 'commit')
# Fields of a card's `tested_with` that a condition depends on, by prefix of its name; the first match counts.
_CONDITION_INPUTS = {
    **{f'noise_{colour}_': () for colour in COLOURS},
    'noise_babble': ('babble_corpus', 'corpus_hashes'),
    'noise_': ('test_noise_corpus', 'corpus_hashes'),
    'transfer_': ('attack_models',),
    'cross_': ('few_shot', 'few_shot_speakers', 'few_shot_steps', 'few_shot_learning_rate'),
}


def _context(runs, condition, replicates):
    """What the numbers were computed on."""
    card, known = runs.cards[0], set(runs.speaker.tolist()) - {''}
    facts = card | card['conditions'][condition]  # with the corpus of a cross-corpus condition
    return {name: facts[name] for name in ('corpus', 'synthetic', 'protocol', 'n_folds')} | {
        'condition': condition,
        'labels': runs.labels,
        'n': runs.label.size,
        'n_speakers': len(known),
        'n_unknown_speaker': int((runs.speaker == '').sum()),
        'replicates': replicates,
    }


def _system(workdirs, cards, confusions):
    """What identifies one system, and its UAR by seed."""
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
    """Result of one system over its seeds: mean over seeds and averaged posterior, which are different quantities.

    Args:
        workdirs: run directories, one per seed.
        condition: e.g. `clean`.
        replicates: bootstrap replicates.

    Returns:
        As `compare_runs`, without `b` and what takes two systems; `mean_over_seeds` and `averaged_posterior` hold `uar` and
        `ci95`.

    Raises:
        UserError: see `read_seeds` and `read_runs`.
    """
    runs = read_runs(workdirs, read_seeds(workdirs), condition)
    each = runs.confusions(runs.probabilities)
    averaged = runs.confusions(runs.averaged())
    result = _context(runs, condition, replicates) | {'a': _system(workdirs, runs.cards, each)}
    for name, confusions in (('mean_over_seeds', each), ('averaged_posterior', averaged)):
        drawn, result['redrawn'] = significance.bootstrap_uar(confusions, replicates)
        uar = rates.uar(confusions.sum(1)).mean()
        result[name] = {'uar': float(uar), 'ci95': _bounds(significance.interval(drawn.mean(1)))}
    return result | {'warnings': _warnings(workdirs, runs.cards, condition)}


def compare_runs(
    workdirs_a: Sequence, workdirs_b: Sequence, condition: str = 'clean', replicates: int = 10_000
) -> dict:
    """Compares two systems, paired by utterance: A minus B.

    Args:
        workdirs_a: run directories of system A, one per seed.
        workdirs_b: run directories of system B, whose seeds may differ from A's.
        condition: e.g. `clean`.
        replicates: bootstrap replicates, and swaps of an inexact permutation test.

    Returns:
        What the numbers were computed on; `a` and `b` (`system`, `seeds`, `uar_by_seed`, `uar_std`, …); `uar_a`, `uar_b`,
        `difference`, `ci95` and `p` of `mean_over_seeds` (UAR of each seed, then the mean) and of `averaged_posterior`
        (probabilities or ratings averaged over seeds, then the UAR; the same for single seeds); `redrawn`, `p_exact`,
        `smallest_p`; `warnings` on how the runs differ. None = undefined.

    Raises:
        UserError: see `read_seeds` and `read_runs`.
    """
    workdirs, split = [*workdirs_a, *workdirs_b], len(workdirs_a)
    cards = [*read_seeds(workdirs_a), *read_seeds(workdirs_b)]
    runs = read_runs(workdirs, cards, condition)
    systems = slice(split), slice(split, None)
    each = [runs.confusions(runs.probabilities[system]) for system in systems]
    averaged = [runs.confusions(runs.averaged(system)) for system in systems]
    result = _context(runs, condition, replicates) | {
        'a': _system(workdirs_a, cards[:split], each[0]),
        'b': _system(workdirs_b, cards[split:], each[1]),
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
    """Differences between the runs that qualify the numbers, one line each."""
    lines = []
    facts = {field: [card[field] for card in cards] for field in _WARN_FIELDS}
    if condition.startswith('cross_'):  # the training corpora may differ
        facts = {'commit': facts['commit']}
        facts['tested corpus'] = [
            card['conditions'][condition].get('corpus_hash') for card in cards
        ]
    prefix = next((prefix for prefix in _CONDITION_INPUTS if condition.startswith(prefix)), None)
    for field in _CONDITION_INPUTS.get(prefix, ()):
        values = [(card.get('tested_with') or {}).get(field) for card in cards]
        if field == 'attack_models':
            # Each seed may be attacked through the same seed of another variant.
            values = [value and re.sub(r' seed \d+ ', ' ', value) for value in values]
        facts[field] = [json.dumps(value) for value in values]
    commits = facts['commit']
    if split is not None and sorted(commits[:split]) == sorted(commits[split:]):
        del facts['commit']  # the same on both sides: cannot cause a difference
    for field, values in facts.items():
        first = {}
        for workdir, value in zip(workdirs, values):
            first.setdefault(value, workdir)
        if len(first) > 1:
            shown = ', '.join(f'{value or "unknown"} ({where})' for value, where in first.items())
            lines.append(f'the runs differ in {field}: {shown}')
    changed = [workdir for workdir, card in zip(workdirs, cards) if '+changes' in card['commit']]
    if changed:
        lines.append(f'code with uncommitted changes was run in {", ".join(map(str, changed))}')
    if split is not None and split != len(cards) - split:
        lines.append(
            f'{split} {"seed" if split == 1 else "seeds"} against {len(cards) - split}: '
            f'{SEEDS_DIFFER}'
        )
    return lines
