"""Tables and figures of a grid, from its rows."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from ser_jax.evaluation.compare import COMMITS_DIFFER, SEEDS_DIFFER
from ser_jax.grid import matrix
from ser_jax.grid.figures import draw_grid
from ser_jax.grid.plan import Grid
from ser_jax.grid.rows import VALIDATION, Row, as_csv, families
from ser_jax.metrics import significance
from ser_jax.reporting import figures
from ser_jax.runtime.files import write_atomically
from ser_jax.runtime.text import (
    duration,
    interval,
    markdown_table,
    percent,
    short_commits,
    text_table,
)
from ser_jax.transforms import conditions

_MOST_DRAWN = 100  # rows; a longer figure is unreadable
READING = (
    'UAR on predictions pooled over the folds, mean ± standard deviation over the seeds; 95 % '
    'interval: bootstrap over speakers, the mean of the bounds over the seeds; time: training, mean '
    'over the seeds. Difference: of the mean UAR to the baseline on the same utterances, in points, '
    'with a 95 % bootstrap interval over speakers; detectable: the smallest difference that a test '
    'on these speakers finds with 80 % power; p: two-sided permutation test over speakers. '
    'Intervals and p-values reflect speaker sampling, not seed variance; with fewer seeds, a mean '
    'varies more. –: not defined.'
)
VALIDATION_CAPTION = (
    'Conditions "validation…": mean over the folds (and tasks) at the checkpoint that clean validation selected, no test speaker '
    'was read. '
)


def curves(rows: Sequence[Row], grid: Grid) -> dict[str, tuple[dict, dict]]:
    """Curves over the levels of conditions, for `figures.robustness_figure`: one panel per series, one line per variant.

    Args:
        rows: rows of `rows.make_rows`.
        grid: grid of the rows.

    Returns:
        Setting -> (panels, UAR of every variant on clean speech), of settings with such conditions.
    """
    found: dict[str, tuple[dict, dict]] = {}
    for run in grid.runs:
        results = {
            row['condition']: {'uar': row['uar'], 'uar_ci95': (row['uar_low'], row['uar_high'])}
            for row in rows
            if (row['setting'], row['variant']) == (run.setting, run.variant)
        }
        asked = conditions.parse_conditions(run.config.conditions)
        asked = {name: results[name] for name in asked if name in results}
        panels, references = found.setdefault(run.setting, ({}, {}))
        for heading, series in figures.robustness_panels(asked).items():
            for name, points in series.items():
                panels.setdefault(f'{name}: {heading}' if name else heading, {})[run.variant] = (
                    points
                )
        if 'clean' in results:
            references[run.variant] = results['clean']['uar']
    return {setting: drawn for setting, drawn in found.items() if drawn[0]}


def levels_as_markdown(panels: Mapping[str, Mapping], references: Mapping[str, float]) -> str:
    """The curves of one setting as Markdown tables, one per kind of level: UAR in percent by series and variant."""
    kinds: dict[str, list[tuple[str, str, dict]]] = {}
    for heading, lines in panels.items():
        series, _, axis = heading.rpartition(': ')
        for variant, points in lines.items():
            rates = {x if isinstance(x, str) else f'{x:g}': uar for x, uar, _ in points}
            kinds.setdefault(axis, []).append((series, variant, rates))
    parts = []
    for axis, rows in kinds.items():
        levels = list(dict.fromkeys(level for *_, rates in rows for level in rates))
        lines = []
        for series, variant, rates in rows:
            cells = [percent(rates.get(level)) for level in levels]
            lines.append([series, variant, percent(references.get(variant)), *cells])
        first = 0 if any(series for series, *_ in rows) else 1  # single conditions have no series
        headings = [axis, 'system', 'clean', *levels]
        parts.append(markdown_table(headings[first:], [line[first:] for line in lines]))
    return '\n\n'.join(parts) + '\n'


def cells(row: Row) -> dict[str, str]:
    """The cells of a row: heading -> text."""
    spread = '' if row['uar_std'] is None else f' ± {percent(row["uar_std"])}'
    difference, detectable = percent(row['difference'], signed=True), None
    if row['difference_low'] is not None:
        bounds = row['difference_low'], row['difference_high']
        difference += f' {interval(bounds, signed=True)}'
        detectable = significance.detectable_difference(bounds)
    p, p_holm = ('–' if row[name] is None else f'{row[name]:.4f}' for name in ('p', 'p_holm'))
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
        'UAR % (mean ± std)': percent(row['uar']) + spread,
        '95 % interval': '–'
        if row['uar_low'] is row['uar_high'] is None
        else f'{percent(row["uar_low"])} – {percent(row["uar_high"])}',
        'WA %': percent(row['wa']),
        'time': duration(row['train_seconds']),
        'hardware': row['hardware'],
        'difference': difference,
        'detectable': percent(detectable),
        'p': p,
        'p (Holm)': p_holm,
    }


def as_text(rows: Sequence[Row]) -> str:
    """The table for a terminal, without protocol, cost and WA."""
    left = ('setting', 'condition', 'variant', 'corpus')
    shown = [*left, 'seeds', 'UAR % (mean ± std)', '95 % interval', 'difference', 'p (Holm)']
    lines = [shown, *([cells(row)[name] for name in shown] for row in rows)]
    return '\n'.join(text_table(lines, range(len(left))))


def caption(rows: Sequence[Row], grid: Grid) -> str:
    """The text below a table of a grid, apart from `READING`: what Holm's correction covers."""
    text = ''
    if any(row['condition'].startswith('validation') for row in rows):
        text = VALIDATION_CAPTION
    compared = families(rows, grid)
    if not compared:
        return text.strip()
    least = min(len(family) * min(row['smallest_p'] for row in family) for family in compared)
    several = len({(row['setting'], row['condition']) for row in rows}) > 1 < len(compared)
    family = 'under the same condition' if grid.family == 'condition' else "of the grid's table"
    return (
        f'{text}Holm: p corrected for every comparison {family} ({max(map(len, compared))}), with these speakers never '
        f'below {min(1.0, least):.2g}{", the smallest bound of all" * several}.'
    )


def origin(rows: Sequence[Row], grid: Grid, summary: str) -> str:
    """The text above the table: number of runs, baseline, commits. A run that was resumed has several."""
    against = f'Baseline: {grid.baseline}. ' if grid.baseline else ''
    commits = dict.fromkeys(commit for row in rows for commit in row['commits'])
    return f'{summary}. {against}Code: commit {short_commits("; ".join(commits))}.'


def notes(rows: Sequence[Row]) -> str:
    """A Markdown list of failed checks, missing comparisons and warnings, each once; '' if there are none.

    Without differences in commit and in the number of seeds, which rows.csv and the table show.
    """
    found, warned = {}, {}
    for row in rows:
        where = f'{row["setting"]}, {row["variant"]}'
        for check in row['failed_checks']:
            note = f'A check of the attacks FAILS, so that they say nothing about robustness: {where}: {check}'
            found[note] = None
        for warning in row['warnings']:
            if not (warning.startswith(COMMITS_DIFFER) or warning.endswith(SEEDS_DIFFER)):
                warned.setdefault(warning, {})[where] = None
        if row['not_compared'] == VALIDATION:
            found[f'Not compared: {VALIDATION}'] = None
        elif row['not_compared']:
            found[f'Not compared: {where}, {row["condition"]}: {row["not_compared"]}'] = None
    lines = [*found, *(f'{"; ".join(places)}: {warning}' for warning, places in warned.items())]
    return ''.join(f'- {line}\n' for line in lines)


def as_markdown(rows: Sequence[Row], grid: Grid, summary: str) -> dict[str, str]:
    """The Markdown files of a grid, name -> text, from its rows and the number of finished runs as text."""
    head = f'# Grid {grid.name}\n\n{origin(rows, grid, summary)}\n\n'
    lines = [cells(row) for row in rows]
    table = markdown_table(lines[0], [line.values() for line in lines])
    listed = notes(rows)
    below = ' '.join(filter(None, [READING, caption(rows, grid)]))
    pages = {'table.md': f'{head}{table}\n\n{below}\n' + f'\n{listed}' * bool(listed)}
    for setting, drawn in curves(rows, grid).items():
        heading = f'# Grid {grid.name}, {setting}: UAR %\n\n{summary}.'
        pages[f'robustness_{setting}.md'] = f'{heading}\n\n{levels_as_markdown(*drawn)}'
    if panels := matrix.matrices(rows):
        pages['matrix.md'] = head + matrix.as_markdown(panels)
    return pages


def write_tables(rows: Sequence[Row], grid: Grid, summary: str, folder: Path) -> None:
    """Writes `table.md`, `rows.csv` and `table.png` to the folder of a grid, each atomically.

    Cross-corpus results are also written to `matrix.md` and `.png`, conditions of `config.conditions` to
    `robustness_<setting>.md` and `.png`, which `table.png` then omits. With more than 100 rows left there is no `table.png`.
    Files of an earlier state of the grid that do not belong to this one are removed.
    """
    pages = as_markdown(rows, grid, summary)
    for name, text in pages.items():
        write_atomically(folder / name, text)
    for path in [*folder.glob('robustness_*.md'), *folder.glob('matrix.md')]:
        if path.name not in pages and path.read_text(encoding='utf-8').startswith('# Grid '):
            path.with_suffix('.png').unlink(missing_ok=True)
            path.unlink()
    write_atomically(folder / 'rows.csv', as_csv(rows))
    total = len(grid.runs)
    state = '' if summary.startswith(f'{total} of {total} ') else f': {summary}'
    levels, title = curves(rows, grid), f'{grid.name}{state}'
    for setting, drawn in levels.items():
        heading = f'{grid.name}, {setting}{state}'
        clean = [row for row in rows if row['setting'] == setting and row['condition'] == 'clean']
        chance = statistics.mean(row['chance'] for row in clean)
        figure = figures.robustness_figure(*drawn, heading, chance=chance)
        figures.save_figure(figure, folder / f'robustness_{setting}.png')
    drawn = [
        row
        for row in rows
        if row['condition'].startswith(('clean', 'cross_')) or row['setting'] not in levels
    ]
    if len(drawn) <= _MOST_DRAWN:
        draw_grid(drawn, title, folder / 'table.png')
    else:
        (folder / 'table.png').unlink(missing_ok=True)  # drawn when the grid was smaller
    if panels := matrix.matrices(rows):
        # The figure shows the baseline through the differences to it.
        others = {key: found for key, found in panels.items() if key[0] != grid.baseline}
        if others and len(others) < len(panels):
            title += f'; differences to {grid.baseline}'
        matrix.draw_matrices(others or panels, title, folder / 'matrix.png')
