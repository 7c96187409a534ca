"""Figure of a grid: UAR and interval of every variant."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ser_jax.reporting.figures import save_figure

_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000', '#999999')
_MARKERS = 'osD^v'  # the next one after every eight variants


def draw_grid(rows: Sequence[Mapping], title: str, path: Path) -> None:
    """Draws UAR and interval of every row, grouped by setting and condition, coloured by variant.

    Args:
        rows: at least one row of `rows.make_rows`.
        title: title, one line.
        path: PNG file, written atomically.
    """
    # Imported here: matplotlib costs half a second.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = list(dict.fromkeys((row['setting'], row['condition']) for row in rows))
    variants = list(dict.fromkeys(row['variant'] for row in rows))
    step = 0.75 / len(variants)
    figure = Figure(
        figsize=(8, 1.4 + len(groups) * (0.2 + 0.16 * len(variants))), layout='constrained'
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = {}
    for row in rows:
        group = groups.index((row['setting'], row['condition']))
        number = variants.index(row['variant'])
        y, uar = group + (number - (len(variants) - 1) / 2) * step, 100 * row['uar']
        bounds = [
            uar if row[bound] is None else 100 * row[bound] for bound in ('uar_low', 'uar_high')
        ]
        style = {'color': _COLOURS[number % len(_COLOURS)]}
        axes.plot(bounds, (y, y), lw=1.6, solid_capstyle='butt', **style)
        marker = _MARKERS[number // len(_COLOURS) % len(_MARKERS)]
        axes.plot(uar, y, marker, ms=5.5, label=row['variant'], **style)
        axes.plot(
            [100 * row['chance']] * 2, (group - 0.45, group + 0.45), ':', color='#9aa5b1', lw=1
        )
        kind = 'SYNTHETIC' if row['synthetic'] else 'real'
        where = ': '.join(dict.fromkeys((row['setting'], row['corpus'])))
        names[group] = f'{row["condition"]}\n{where} ({kind})'
    axes.set_yticks(list(names), list(names.values()), size=8)
    for border in range(1, len(groups)):
        axes.axhline(border - 0.5, color='#e4e7eb', lw=0.8)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    intervals = any(row['uar_low'] is not None for row in rows)  # validation results have none
    interval = '; 95 % interval over speakers' if intervals else ''
    axes.set_xlabel(f'UAR %, mean over the seeds{interval}; dotted: chance')
    axes.grid(axis='x', color='#e4e7eb', lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.tick_params(length=0)
    axes.set_title(title, loc='left', size=10, weight='bold')
    handles = dict(zip(*axes.get_legend_handles_labels()[::-1]))
    figure.legend(
        [handles[name] for name in variants], variants, loc='outside lower center', ncols=4,
        frameon=False, fontsize=8,
    )  # fmt: skip
    save_figure(figure, path)
