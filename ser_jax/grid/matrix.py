"""Matrices of a grid that tests across corpora, trained × tested, as Markdown and figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_jax.reporting import figures
from ser_jax.runtime.text import interval, markdown_table, percent

Row = dict[str, Any]
Panels = dict[tuple[str, str], dict[tuple[str, str], Row]]


def matrices(rows: Sequence[Row]) -> Panels:
    """Arranges the rows of a table by trained and tested corpus.

    Args:
        rows: rows of `rows.make_rows`.

    Returns:
        (variant, way) -> {(setting, tested corpus): row}. The way is the part of the condition after `cross_<corpus>`, e.g.
        `target statistics`; without one, and within a corpus (`clean`), it is `as it is`; for tasks other than the emotion it
        is the task. Empty without cross-corpus results.
    """
    panels: Panels = {}
    for row in rows:
        stem = 'cross_' + row['corpus'].replace('/', '_')
        if row['condition'].startswith(('clean', stem)):
            way = row['condition'].removeprefix('clean').removeprefix(stem)
            way = way.replace('_', ' ').strip() or 'as it is'
            panels.setdefault((row['variant'], way), {})[row['setting'], row['corpus']] = row
    crossed = any(row['condition'].startswith('cross_') for row in rows)
    return panels if crossed else {}


def _axes(cells: Mapping[tuple[str, str], Row]) -> tuple[list[str], list[str]]:
    """Settings and tested corpora, the corpora in the order of the settings of the same name."""
    settings, corpora = (list(dict.fromkeys(names)) for names in zip(*cells))
    last = len(settings)
    return settings, sorted(corpora, key=lambda c: settings.index(c) if c in settings else last)


def _texts(row: Row) -> tuple[str, str, str]:
    """UAR, interval and difference; '' where there is none."""
    bounds, difference = (row['uar_low'], row['uar_high']), row['difference']
    star = '*' if row['p_holm'] is not None and row['p_holm'] < 0.05 else ''
    return (
        percent(row['uar']),
        '' if None in bounds else interval(bounds),
        '' if difference is None else f'({percent(difference, signed=True)}{star})',
    )


def as_markdown(panels: Panels) -> str:
    """The matrices as Markdown tables: UAR in percent, interval and, in parentheses, difference to the baseline."""
    parts = []
    for (variant, way), cells in panels.items():
        settings, corpora = _axes(cells)
        lines = []
        for setting in settings:
            found = [cells.get((setting, corpus)) for corpus in corpora]
            lines.append(
                [setting, *(' '.join(filter(None, _texts(row))) if row else '' for row in found)]
            )
        table = markdown_table(['trained ↓ tested →', *corpora], lines)
        parts.append(f'**{variant}, {way}** ({_legend(cells)})\n\n{table}\n')
    return '\n'.join(parts)


def _legend(cells: Mapping[tuple[str, str], Row]) -> str:
    """Describes the numbers of a matrix."""
    seeds = sorted({len(row['seeds']) for row in cells.values()})
    chance = sorted({round(100 * row['chance'], 1) for row in cells.values()})
    kinds = {'SYNTHETIC' if row['synthetic'] else 'real' for row in cells.values()}
    compared = any(row['difference'] is not None for row in cells.values())
    difference = ' (difference to the baseline, *: p < 0.05 after Holm)' * compared
    return (
        f'UAR in percent and 95 % interval over the tested speakers{difference}, seeds: {" or ".join(map(str, seeds))}, '
        f'chance {" or ".join(map(str, chance))}, {" and ".join(sorted(kinds))} speech'
    )


@figures.styled
def draw_matrices(panels: Panels, title: str, path: Path) -> None:
    """Draws the matrices side by side: colour from chance to 100 %; UAR, interval and difference in each cell."""
    shapes = [tuple(map(len, _axes(cells))) for cells in panels.values()]
    columns = min(len(panels), 2)
    lines = -(-len(panels) // columns)
    height, width = (max(lengths) for lengths in zip(*shapes))
    size = (columns * (1.6 + 1.15 * width), 0.8 + lines * (1.3 + 0.75 * height))
    legend = _legend({key: row for cells in panels.values() for key, row in cells.items()})
    figure = figures.new_figure(*size, f'{title}\n{legend}')
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, ((variant, way), cells) in zip(grid, panels.items()):
        settings, corpora = _axes(cells)
        for (setting, corpus), row in cells.items():
            x, y = corpora.index(corpus), settings.index(setting)
            share = max(0.0, (row['uar'] - row['chance']) / (1 - row['chance']))
            colour = (1 - 0.87 * share, 1 - 0.55 * share, 1 - 0.31 * share)  # white to blue
            axes.fill(
                [x - 0.5, x + 0.5, x + 0.5, x - 0.5], [y - 0.5] * 2 + [y + 0.5] * 2, color=colour
            )
            ink = 'white' if share > 0.55 else figures.INK
            style = {'ha': 'center', 'va': 'center', 'color': ink}
            uar, bounds, difference = _texts(row)
            axes.text(x, y - 0.1, uar, size=11, weight='bold', **style)
            axes.text(x, y + 0.2, bounds, size=6.5, **style)
            axes.text(x, y + 0.38, difference, size=6.5, **style)
        axes.set_xlim(-0.5, len(corpora) - 0.5)
        axes.set_ylim(len(settings) - 0.5, -0.5)
        axes.set_xticks(range(len(corpora)), corpora)
        axes.set_yticks(range(len(settings)), settings)
        axes.set(xlabel='tested', ylabel='trained')
        axes.tick_params(length=0)
        axes.spines[:].set_visible(True)
        axes.set_title(f'{variant}, {way}', weight='bold')
    figures.save_figure(figure, path)
