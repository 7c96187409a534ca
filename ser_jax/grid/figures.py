"""Figure of a grid: UAR and interval of every variant."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ser_jax.reporting.figures import COLOURS, GRID, MARKERS, SOFT, new_figure, save_figure, styled


@styled
def draw_grid(rows: Sequence[Mapping], title: str, path: Path) -> None:
    """Draws UAR and interval of every row of `rows.make_rows`, grouped by setting and condition, coloured by variant."""
    groups = list(dict.fromkeys((row['setting'], row['condition']) for row in rows))
    variants = list(dict.fromkeys(row['variant'] for row in rows))
    step = 0.75 / len(variants)
    figure = new_figure(8, 1.4 + len(groups) * (0.2 + 0.16 * len(variants)), title)
    axes = figure.add_subplot()
    names = {}
    for row in rows:
        group = groups.index((row['setting'], row['condition']))
        number = variants.index(row['variant'])
        y, uar = group + (number - (len(variants) - 1) / 2) * step, 100 * row['uar']
        bounds = [
            uar if row[bound] is None else 100 * row[bound] for bound in ('uar_low', 'uar_high')
        ]
        style = {'color': COLOURS[number % len(COLOURS)]}
        axes.plot(bounds, (y, y), lw=1.6, solid_capstyle='butt', **style)
        marker = MARKERS[number // len(COLOURS) % len(MARKERS)]
        axes.plot(uar, y, marker, ms=5.5, label=row['variant'], **style)
        axes.plot([100 * row['chance']] * 2, (group - 0.45, group + 0.45), ':', color=SOFT, lw=1)
        kind = 'SYNTHETIC' if row['synthetic'] else 'real'
        where = ': '.join(dict.fromkeys((row['setting'], row['corpus'])))
        names[group] = f'{row["condition"]}\n{where} ({kind})'
    axes.set_yticks(list(names), list(names.values()))
    for border in range(1, len(groups)):
        axes.axhline(border - 0.5, color=GRID, lw=0.8)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    intervals = any(row['uar_low'] is not None for row in rows)  # validation results have none
    interval = '; 95 % interval over speakers' if intervals else ''
    axes.set_xlabel(f'UAR %, mean over the seeds{interval}; dotted: chance')
    axes.grid(axis='x')
    axes.spines['left'].set_visible(False)
    axes.tick_params(length=0)
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1]))
    shown = [handles[name] for name in variants]
    figure.legend(shown, variants, loc='outside lower center', ncols=4)
    save_figure(figure, path)
