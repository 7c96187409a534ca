"""The table and the figure of a grid, from the result cards and predictions of the runs that are finished."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_jax import comparison, conditions, paired
from ser_jax.console import duration
from ser_jax.errors import UserError
from ser_jax.figures import robustness_figure
from ser_jax.grid_figure import draw_grid
from ser_jax.grid_matrix import as_markdown, draw_matrices, matrices
from ser_jax.grid_plan import Grid, Run
from ser_jax.workdir import write_atomically

Row = dict[str, Any]

CAPTION = (
    'UAR on predictions pooled over the folds, mean ± standard deviation over the seeds; 95 % '
    'interval: bootstrap over speakers, the mean of the bounds over the seeds; time: training of '
    'all folds, mean over the seeds. Condition "validation": mean over the folds at the checkpoint '
    'it selected, no test speaker was read. Difference: of the mean UAR to the baseline on the same '
    'utterances, in points, with a 95 % bootstrap interval over speakers; p: two-sided, speakers '
    'swapped between the two; both say how sure it is for other speakers, not for other seeds. '
    'Holm: p corrected for every comparison of this table ({count}). '
    '–: not defined.'
)


def make_rows(grid: Grid, workdir: Path) -> list[Row]:
    """One row a setting, condition and variant, over the finished runs.

    Args:
        grid: the grid.
        workdir: its folder.

    Returns:
        Rows by setting, condition and variant, in the grid's order: `setting`, `condition`,
        `variant`, `system`, `trained_on`, `corpus` (tested), `synthetic`, `protocol`, `folds` [run,
        there are], `n`, `seeds`, `chance`, `uar` (mean), `uar_std`, `uar_low`, `uar_high`, `wa`, `train_seconds`,
        `hardware`, `commits`, `difference`, `difference_low`, `difference_high`, `p`, `p_holm`,
        `not_compared`.
        Rates are fractions; None = undefined.

    Raises:
        UserError: an unreadable card, or seeds of one row that were not tested alike.
    """
    cards: dict[tuple[str, str], list[tuple[Run, dict]]] = {}
    for run in grid.runs:
        folder = workdir / run.folder
        if (folder / 'results.json').exists():
            cards.setdefault((run.setting, run.variant), []).append((run, paired.read_card(folder)))
    settings = list(dict.fromkeys(run.setting for run in grid.runs))
    variants = list(dict.fromkeys(run.variant for run in grid.runs))
    rows = []
    for setting in settings:
        here = {variant: cards.get((setting, variant), []) for variant in variants}
        names = dict.fromkeys(
            name for runs in here.values() for _, card in runs for name in _results(card)
        )
        for condition in names:
            tested = {
                variant: [(run, card) for run, card in runs if condition in _results(card)]
                for variant, runs in here.items()
            }
            rows += _rows_of(condition, tested, grid.baseline, workdir)
    compared = [row for row in rows if row['p'] is not None]
    for row, p in zip(compared, comparison.holm([row['p'] for row in compared])):
        row['p_holm'] = float(p)
    return rows


def _results(card: Mapping) -> Mapping[str, Mapping]:
    """Condition -> rates; a run that never reads test speakers has its validation only."""
    if card['conditions']:
        return card['conditions']
    validation = card['validation']
    return {'validation': {**validation, 'n': sum(fold['n'] for fold in validation['folds'])}}


def _rows_of(condition, tested, baseline, workdir) -> list[Row]:
    rows = []
    folders = {
        variant: [workdir / run.folder for run, _ in runs] for variant, runs in tested.items()
    }
    for variant, runs in tested.items():
        if runs:
            row = _row(condition, runs)
            # A validation is over other speakers for every fold, and has no predictions.
            if condition != 'validation' and variant != baseline and folders.get(baseline):
                row |= compare(folders[variant], folders[baseline], condition)
            rows.append(row)
    return rows


def _row(condition: str, runs: Sequence[tuple[Run, dict]]) -> Row:
    run, card = runs[0]
    cards = [card for _, card in runs]
    results = [_results(card)[condition] for card in cards]
    for field in ('corpus_hash', 'n_folds', 'labels'):
        if any(other[field] != card[field] for other in cards):
            raise UserError(
                f'{run.setting}/{run.variant}: its seeds differ in {field}: delete those that are '
                'out of date and start again'
            )
    recalls = results[0].get('recall', dict.fromkeys(card['labels'], 0)).values()  # None: absent
    uar = [result['uar'] for result in results]
    bounds = [result.get('uar_ci95', (None, None)) for result in results]
    low, high = (_mean(side) for side in zip(*bounds))
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
        'chance': 1 / sum(recall is not None for recall in recalls),
        'uar': _mean(uar),
        'uar_std': statistics.stdev(uar) if len(uar) > 1 else None,
        'uar_low': low,
        'uar_high': high,
        'wa': _mean([result.get('wa') for result in results]),
        'train_seconds': _mean([card['cost'].get('train_seconds') for card in cards]),
        'hardware': '; '.join(dict.fromkeys(card['device'] for card in cards)),
        'commits': list(dict.fromkeys(card['commit'] for card in cards)),
        **dict.fromkeys(
            ('difference', 'difference_low', 'difference_high', 'p', 'p_holm', 'not_compared')
        ),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    return None if None in values else statistics.mean(values)


def compare(ours: Sequence[Path], baseline: Sequence[Path], condition: str) -> Row:
    """Compares a variant with the baseline.

    Args:
        ours: workdirs of the variant, one a seed.
        baseline: those of the baseline.
        condition: under which both were tested.

    Returns:
        `difference`, `difference_low`, `difference_high`, `p`; where the two cannot be paired,
        `not_compared`, which says why.
    """
    try:
        found = paired.compare_runs(ours, baseline, condition)['mean_over_seeds']
    except UserError as error:
        return {'not_compared': str(error)}
    low, high = found['ci95']
    difference = {'difference': found['difference'], 'difference_low': low, 'difference_high': high}
    return {**difference, 'p': found['p']}


def curves(rows: Sequence[Row], grid: Grid) -> dict[str, tuple[dict, dict]]:
    """What `figures.robustness_figure` draws of the conditions that have levels: a panel a series, a line a variant.

    Args:
        rows: of `make_rows`.
        grid: the grid.

    Returns:
        Setting -> (panels, UAR of every variant on clean speech); settings without such conditions are left out.
    """
    found: dict[str, tuple[dict, dict]] = {}
    for run in grid.runs:
        results = {
            row['condition']: {'uar': row['uar'], 'uar_ci95': (row['uar_low'], row['uar_high'])}
            for row in rows
            if (row['setting'], row['variant']) == (run.setting, run.variant)
        }
        asked = conditions.parse_conditions(run.config.conditions)
        asked = {name: condition for name, condition in asked.items() if name in results}
        panels, references = found.setdefault(run.setting, ({}, {}))
        for heading, series in conditions.panels(asked, results).items():
            for name, points in series.items():
                panels.setdefault(f'{name}: {heading}' if name else heading, {})[run.variant] = (
                    points
                )
        if 'clean' in results:
            references[run.variant] = results['clean']['uar']
    return {setting: drawn for setting, drawn in found.items() if drawn[0]}


def _percent(value: float | None, signed: bool = False) -> str:
    return '–' if value is None else f'{100 * value:{"+" if signed else ""}.1f}'


def _cells(row: Row) -> dict[str, str]:
    """Column -> what stands in it."""
    spread = '' if row['uar_std'] is None else f' ± {_percent(row["uar_std"])}'
    difference = _percent(row['difference'], signed=True)
    if row['difference_low'] is not None:
        low, high = row['difference_low'], row['difference_high']
        difference += f' [{_percent(low, signed=True)}, {_percent(high, signed=True)}]'
    p, p_holm = ('–' if row[name] is None else f'{row[name]:.4f}' for name in ('p', 'p_holm'))
    seconds = row['train_seconds']
    return {
        'setting': row['setting'],
        'condition': row['condition'],
        'variant': row['variant'],
        'corpus': f'{row["corpus"]} ({"SYNTHETIC" if row["synthetic"] else "real"})',
        'protocol': f'trained on {" and ".join(row["trained_on"])}'
        if row['condition'].startswith('cross_')
        else f'{row["protocol"]}, {row["folds"][0]} of {row["folds"][1]} folds',
        'n': str(row['n']),
        'seeds': ', '.join(map(str, row['seeds'])),
        'UAR % (mean ± std)': _percent(row['uar']) + spread,
        '95 % interval': f'{_percent(row["uar_low"])} – {_percent(row["uar_high"])}',
        'WA %': _percent(row['wa']),
        'time': '–' if seconds is None else duration(seconds),
        'hardware': row['hardware'],
        'difference': difference,
        'p': p,
        'p (Holm)': p_holm,
    }


def as_text(rows: Sequence[Row]) -> str:
    """The table for a terminal, without protocol, cost and WA."""
    left = ('setting', 'condition', 'variant', 'corpus')
    shown = [*left, 'seeds', 'UAR % (mean ± std)', '95 % interval', 'difference', 'p (Holm)']
    lines = [shown, *([_cells(row)[name] for name in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    return '\n'.join(
        '  '.join(
            f'{cell:{"<" if name in left else ">"}{width}}'
            for name, cell, width in zip(shown, line, widths)
        ).rstrip()
        for line in lines
    )


def write_tables(rows: Sequence[Row], grid: Grid, summary: str, workdir: Path) -> None:
    """Writes `table.md`, `table.csv` and `table.png`, each whole or not at all.

    Where corpora are tested across there are `matrix.md` and `matrix.png`, too; where noise, attacks or other conditions
    of `config.conditions`, `robustness_<setting>.png`, which draws them instead of `table.png`.

    Args:
        rows: at least one, of `make_rows`.
        grid: the grid.
        summary: how many runs are finished.
        workdir: of the grid.
    """
    cells = [_cells(row) for row in rows]
    lines = [list(cells[0]), ['---'] * len(cells[0]), *(list(line.values()) for line in cells)]
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    count = sum(row['p'] is not None for row in rows)
    against = f'Baseline: {grid.baseline}. ' if grid.baseline else ''
    commits = list(dict.fromkeys(commit or 'unknown' for row in rows for commit in row['commits']))
    notes = [
        f'- Not compared: {row["setting"]}, {row["condition"]}, {row["variant"]}: {row["not_compared"]}\n'
        for row in rows
        if row['not_compared']
    ]
    text = (
        f'# Grid {grid.name}\n\n{summary}. {against}Code: commit {", ".join(commits)}.\n\n{table}\n\n'
        f'{CAPTION.format(count=count)}\n' + ''.join(['\n', *notes] if notes else [])
    )
    write_atomically(workdir / 'table.md', text)
    file = io.StringIO()
    writer = csv.DictWriter(file, rows[0], lineterminator='\n')
    writer.writeheader()
    for row in rows:
        lists = {name: ' '.join(map(str, v)) for name, v in row.items() if isinstance(v, list)}
        writer.writerow(row | lists | {'synthetic': str(row['synthetic']).lower()})
    write_atomically(workdir / 'table.csv', file.getvalue())
    drawn = curves(rows, grid)
    for setting, (panels, references) in drawn.items():
        path = workdir / f'robustness_{setting}.png'
        robustness_figure(panels, references, f'{grid.name}, {setting}: {summary}', path)
    whole = [
        row for row in rows if row['condition'].startswith('clean') or row['setting'] not in drawn
    ]
    draw_grid(whole, f'{grid.name}: {summary}', workdir / 'table.png')
    panels = matrices(rows)
    if panels:
        write_atomically(
            workdir / 'matrix.md', f'# Grid {grid.name}\n\n{summary}.\n\n{as_markdown(panels)}'
        )
        draw_matrices(panels, f'{grid.name}: {summary}', workdir / 'matrix.png')
