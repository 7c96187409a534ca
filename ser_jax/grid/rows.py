"""Rows of a grid's table, from the result cards and predictions of its finished runs."""

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_jax.evaluation.compare import compare_runs
from ser_jax.grid.plan import Grid, Run
from ser_jax.metrics import significance
from ser_jax.runs import finished
from ser_jax.runtime.errors import UserError

Row = dict[str, Any]
# Reason why validation results are not compared.
VALIDATION = 'results on validation speakers, who are not independent over the folds'
# Columns of `as_csv` that are text; the others are JSON.
_TEXTS = (
    'setting',
    'condition',
    'variant',
    'system',
    'corpus',
    'protocol',
    'hardware',
    'not_compared',
)
# Columns that are None without a comparison.
_COMPARED = (
    *('difference', 'difference_low', 'difference_high'),
    *('p', 'p_holm', 'smallest_p', 'not_compared'),
)


def make_rows(grid: Grid, workdir: Path) -> list[Row]:
    """One row per setting, condition and variant, over the finished runs.

    Args:
        grid: grid to summarise.
        workdir: folder of the grid, or of its stored runs.

    Returns:
        Rows in the grid's order: `setting`, `condition`, `variant`, `system`, `trained_on`, `corpus` (tested), `synthetic`,
        `protocol`, `folds` [tested, all], `n`, `seeds`, `chance`, `uar` (mean), `uar_std`, `uar_low`, `uar_high`, `wa`,
        `train_seconds`, `hardware`, `commits`, `perturbation_snr_db`, `failed_checks` (of attacks), `p_holm`, and the fields of
        `difference_to_baseline`: `difference`, `difference_low`, `difference_high`, `p`, `smallest_p`, `warnings`, `not_compared`.
        Rates are fractions; None = undefined.

    Raises:
        UserError: an unreadable card, or seeds of one row that were tested differently.
    """
    cards: dict[tuple[str, str], list[tuple[Run, dict]]] = {}
    for run in grid.runs:
        if card := finished.find_card(workdir / run.folder):
            cards.setdefault((run.setting, run.variant), []).append((run, card))
    settings = list(dict.fromkeys(run.setting for run in grid.runs))
    variants = list(dict.fromkeys(run.variant for run in grid.runs))
    rows = []
    for setting in settings:
        finished_runs = {variant: cards.get((setting, variant), []) for variant in variants}
        conditions = dict.fromkeys(
            name for runs in finished_runs.values() for _, card in runs for name in _results(card)
        )
        for condition in conditions:
            tested = {
                variant: [(run, card) for run, card in runs if condition in _results(card)]
                for variant, runs in finished_runs.items()
            }
            rows += _rows_of(condition, tested, grid.baseline, workdir)
    for family in families(rows, grid):
        for row, p in zip(family, significance.holm([row['p'] for row in family])):
            row['p_holm'] = float(p)
    return rows


def families(rows: Sequence[Row], grid: Grid) -> list[list[Row]]:
    """The rows that have a p-value, grouped into families of `Grid.family`."""
    found: dict[tuple, list[Row]] = {}
    for row in rows:
        if row['p'] is not None:
            key = (row['setting'], row['condition']) if grid.family == 'condition' else ()
            found.setdefault(key, []).append(row)
    return list(found.values())


def _results(card: Mapping) -> Mapping[str, Mapping]:
    """Condition -> rates; of a run that reads no test speakers, the validation results."""
    if card['conditions']:
        return card['conditions']
    validation = card['validation']
    n = sum(fold['n'] for fold in validation['folds'])
    corrupted = {
        f'validation_{name}': {'uar': uar, 'n': n}
        for name, uar in validation.get('conditions', {}).items()
    }
    return {'validation': {**validation, 'n': n}, **corrupted}


def _rows_of(condition, tested, baseline, workdir) -> list[Row]:
    rows = []
    folders = {
        variant: [workdir / run.folder for run, _ in runs] for variant, runs in tested.items()
    }
    for variant, runs in tested.items():
        if runs:
            row = _row(condition, runs)
            if variant != baseline and folders.get(baseline):
                if condition.startswith('validation'):
                    row |= {'not_compared': VALIDATION}
                else:
                    row |= difference_to_baseline(folders[variant], folders[baseline], condition)
                    # Tables name runs relative to the grid's folder.
                    row['warnings'] = [line.replace(f'{workdir}/', '') for line in row['warnings']]
            rows.append(row)
    return rows


def _row(condition: str, runs: Sequence[tuple[Run, dict]]) -> Row:
    run, card = runs[0]
    cards = [card for _, card in runs]
    results = [_results(card)[condition] for card in cards]
    for field in ('corpus_hash', 'n_folds', 'labels'):
        if any(other[field] != card[field] for other in cards):
            raise UserError(
                f'{run.setting}/{run.variant}: its seeds differ in {field}: delete the '
                'outdated ones and start again'
            )
    for field in ('n', 'corpus_hash', 'labels'):
        if any(result.get(field) != results[0].get(field) for result in results):
            raise UserError(
                f'{run.setting}/{run.variant}: its seeds differ in {field} under {condition}: delete the '
                'outdated ones and start again'
            )
    uar = [result['uar'] for result in results]
    bounds = [result.get('uar_ci95', (None, None)) for result in results]
    low, high = (mean(bound) for bound in zip(*bounds))
    return {
        'setting': run.setting,
        'condition': condition,
        'variant': run.variant,
        'system': card['system'],
        'trained_on': card.get('trained_on', [card['corpus']]),
        'corpus': results[0].get('corpus', card['corpus']),
        'synthetic': results[0].get('synthetic', card['synthetic']),
        'protocol': card['protocol'],
        'folds': card['n_folds'],
        'n': results[0]['n'],
        'seeds': [run.seed for run, _ in runs],
        'chance': _chance(results[0], card),
        'uar': mean(uar),
        'uar_std': statistics.stdev(uar) if len(uar) > 1 else None,
        'uar_low': low,
        'uar_high': high,
        'wa': mean([result.get('wa') for result in results]),
        'train_seconds': mean([card['cost'].get('train_seconds') for card in cards]),
        'hardware': '; '.join(dict.fromkeys(card['device'] for card in cards)),
        'commits': list(dict.fromkeys(card['commit'] for card in cards)),
        'perturbation_snr_db': mean([result.get('perturbation_snr_db') for result in results]),
        'failed_checks': [
            check['check']
            for card in cards
            for check in card.get('attack_checks', ())
            if not check['holds']
        ],
        'warnings': [],
        **dict.fromkeys(_COMPARED),
    }


def _chance(result: Mapping, card: Mapping) -> float:
    """UAR at chance level; for validation results, the mean over the tasks, as their UAR is."""
    if 'recall' in result:
        return 1 / sum(recall is not None for recall in result['recall'].values())
    counts = [len(classes) for classes in card.get('tasks', {'emotion': card['labels']}).values()]
    return statistics.mean(1 / count for count in counts)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where a value is."""
    return None if None in values else statistics.mean(values)


def difference_to_baseline(
    workdirs: Sequence[Path], baseline: Sequence[Path], condition: str
) -> Row:
    """Compares a variant with the baseline, run directories of each by seed, under a test condition of both.

    Returns:
        `difference`, `difference_low`, `difference_high`, `p`, `smallest_p` (attainable with these speakers), `warnings`;
        or `not_compared`, the reason why the two cannot be paired.
    """
    try:
        result = compare_runs(workdirs, baseline, condition)
    except UserError as error:
        return {'not_compared': str(error)}
    found = result['mean_over_seeds']
    low, high = found['ci95']
    difference = {'difference': found['difference'], 'difference_low': low, 'difference_high': high}
    warnings = {'p': found['p'], 'smallest_p': result['smallest_p'], 'warnings': result['warnings']}
    return difference | warnings


def as_csv(rows: Sequence[Row]) -> str:
    """The rows as CSV: lists as JSON, undefined values as empty cells."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator='\n')
    writer.writeheader()
    for row in rows:
        cells = {
            name: value if name in _TEXTS or value is None else json.dumps(value)
            for name, value in row.items()
        }
        writer.writerow(cells)
    return text.getvalue()


def read_csv(path: Path) -> list[Row]:
    """Reads the rows of a file of `as_csv`; raises UserError where it is missing or malformed."""
    try:
        with path.open(newline='', encoding='utf-8') as file:
            return [
                {
                    name: cell if name in _TEXTS and cell else json.loads(cell or 'null')
                    for name, cell in row.items()
                }
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error
