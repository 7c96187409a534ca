"""Figures of a run, drawn straight into files: no display and no global plotting state."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ser_jax.transforms.conditions import Attack
from ser_jax.transforms.corruptions import (
    Corruption,
)


def confusion_matrix_figure(confusion, labels, title: str, path) -> None:
    """Draws a confusion matrix: row-normalised percent as colour and number, the count below it.

    Args:
        confusion: counts [K, K], row = true class, column = predicted class.
        labels: K class names.
        title: heading; lines are separated by a newline, the first one is set larger.
        path: PNG file to write, whole or not at all; its folder is made.
    """
    # Imported here, and below: matplotlib costs half a second, which commands that draw nothing need not pay.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    confusion = np.asarray(confusion)
    n_classes = len(labels)
    totals = confusion.sum(1, keepdims=True)
    percent = 100 * confusion / np.maximum(totals, 1)
    side = 1.5 + max(3.2, 0.82 * n_classes)
    figure = Figure(figsize=(side + 0.4, side), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(percent, cmap='Blues', vmin=0, vmax=100)
    for row in range(n_classes):
        for column in range(n_classes):
            strong = percent[row, column] >= 55
            ink = 'white' if strong else '#1b2a41' if confusion[row, column] else '#9aa5b1'
            number = f'{percent[row, column]:.0f} %' if totals[row, 0] else '–'
            style = {'ha': 'center', 'va': 'center', 'color': ink}
            weight = 'bold' if row == column else 'normal'
            axes.text(column, row - 0.08, number, size=11, weight=weight, **style)
            axes.text(column, row + 0.24, f'{confusion[row, column]}', size=7.5, **style)
    crowded = max(map(len, labels)) > 9
    axes.set_xticks(
        range(n_classes), labels, rotation=40 if crowded else 0, ha='right' if crowded else 'center'
    )
    axes.set_yticks(
        range(n_classes), [f'{name}\nn = {total}' for name, total in zip(labels, totals[:, 0])]
    )
    axes.set_xlabel('predicted', labelpad=8)
    axes.set_ylabel('true', labelpad=8)
    heading, _, rest = title.partition('\n')
    axes.set_title(heading, loc='left', size=12, weight='bold', pad=24 if rest else 8)
    axes.annotate(rest, (0, 1), (0, 7), 'axes fraction', 'offset points', size=8.5, color='#52606d')
    # White lines between the cells keep pale neighbours apart.
    axes.set_xticks(np.arange(n_classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n_classes + 1) - 0.5, minor=True)
    axes.grid(which='minor', color='white', linewidth=2)
    axes.tick_params(which='both', length=0)
    axes.spines[:].set_visible(False)
    save_figure(figure, path)


# Distinguishable in print and with colour-blind eyes (Okabe & Ito 2008), told apart by markers as well.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
_MARKERS = 'osD^vPX'


def robustness_figure(panels, references, title: str, path) -> None:
    """Draws how the UAR falls as conditions get harder: one panel a kind of condition, one line a series.

    Args:
        panels: heading of the x axis -> {series: [(x, UAR, (lower, upper)), …]}, rates as fractions; x
            may be text (single conditions, drawn without a line).
        references: name -> UAR of clean speech, drawn as dashed lines in every panel; a name that is a series
            has the colour of that series.
        title: heading; lines are separated by a newline.
        path: PNG file to write, whole or not at all; its folder is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(1 + 4.2 * columns, 0.4 + 3.8 * lines), layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    for axes, (heading, series) in zip(grid.ravel(), panels.items()):
        # One colour a series in all panels, where the series are the same.
        names = list(dict.fromkeys([*(name for name in references if name != 'clean'), *series]))
        for name, rate in references.items():
            colour = '#52606d' if name == 'clean' else _COLOURS[names.index(name) % len(_COLOURS)]
            label = name if name == 'clean' else None
            axes.axhline(100 * rate, color=colour, linestyle='--', linewidth=1, label=label)
        for name, points in series.items():
            _draw_series(axes, name, points, names.index(name), _places(series, names, name))
        _scale_levels(axes, heading, series)
    for axes in grid[:, 0]:
        axes.set_ylabel('UAR, %   (bars: 95 % interval over speakers)', size=8)
        axes.set_ylim(0, 100)
    figure.suptitle(f'{title}; dashed: clean', x=0.01, ha='left', size=11)
    save_figure(figure, path)


def _levels(series: dict) -> list:
    """What stands on the axis of a panel, each once."""
    return list(dict.fromkeys(x for points in series.values() for x, *_ in points))


def _places(series: dict, names: list[str], name: str) -> dict[str, float]:
    """Single condition -> where on the axis a series has it: beside the others, whose bars would hide it."""
    offset = 0.6 * ((names.index(name) + 0.5) / len(names) - 0.5)
    return {x: place + offset for place, x in enumerate(_levels(series)) if isinstance(x, str)}


def _draw_series(axes, name: str, points: list, number: int, places: dict[str, float]) -> None:
    x, rates, intervals = zip(*points)
    rates = 100 * np.array(rates)
    bounds = np.array(
        [
            [rate if b is None else 100 * b for b in interval]
            for rate, interval in zip(rates, intervals)
        ]
    )
    axes.errorbar(
        [places.get(level, level) for level in x],
        rates,
        np.maximum([rates - bounds[:, 0], bounds[:, 1] - rates], 0),
        color=_COLOURS[number % len(_COLOURS)],
        marker=_MARKERS[number % len(_MARKERS)],
        linestyle='none' if places else '-',
        linewidth=1.5,
        markersize=5,
        elinewidth=0.7,
        capsize=2,
        label=name or None,
    )


def _scale_levels(axes, heading: str, series: dict) -> None:
    """The axis of levels, and the legend."""
    levels = _levels(series)
    if isinstance(levels[0], str):
        axes.set_xticks(range(len(levels)), levels, rotation=30, ha='right')
        axes.margins(x=0.15)
    elif 'epsilon' in heading and any(level > 0 for level in levels):
        # Epsilons are chosen by factors; 0 is drawn too.
        axes.set_xscale('symlog', linthresh=min(level for level in levels if level > 0))
        axes.set_xticks(sorted(levels), [f'{level:g}' for level in sorted(levels)])
    else:
        axes.set_xticks(sorted(levels))
    if any(series):
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel(heading)
    axes.grid(axis='y', color='#e4e7eb', linewidth=0.8)
    axes.spines[['top', 'right']].set_visible(False)


def attention_figure(
    signals, weights, *, sample_rate: int, frame: int, hop: int, titles, heading: str, path
) -> None:
    """Draws waveforms with the attention weights of every task below them, as in figure 2 of Zhang et al. 2019.

    Args:
        signals: N waveforms, float [S] each.
        weights: task -> weights of the frames, float [N, T], 0 behind an utterance's end.
        sample_rate: of the signals.
        frame, hop: samples of a frame and between the beginnings of two.
        titles: N texts.
        heading: of the whole.
        path: PNG file to write, whole or not at all; its folder is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines, columns = 1 + len(weights), len(signals)
    figure = Figure(figsize=(1 + 3.6 * columns, 1.6 + 1.2 * lines), layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(lines, columns, sharex='col', sharey='row', squeeze=False)
    for column, (signal, title) in enumerate(zip(signals, titles)):
        seconds = np.arange(len(signal)) / sample_rate
        grid[0, column].plot(seconds, signal, color='#52606d', linewidth=0.4)
        grid[0, column].set_title(title, size=9, loc='left')
        count = 1 + (max(len(signal), frame) - frame) // hop
        middle = (np.arange(count) * hop + frame / 2) / sample_rate
        for line, (name, rows) in enumerate(weights.items(), 1):
            axes, colour = grid[line, column], _COLOURS[(line - 1) % len(_COLOURS)]
            # 1 is the weight that every frame has where none is preferred.
            axes.fill_between(middle, count * rows[column, :count], color=colour, linewidth=0)
            axes.axhline(1, color='#9aa5b1', linewidth=0.8, linestyle='--')
            if not column:
                axes.set_ylabel(name, size=9)
        grid[-1, column].set_xlabel('seconds')
    for axes in grid.ravel():
        axes.spines[['top', 'right']].set_visible(False)
    figure.suptitle(
        f'Attention over time: {heading}\n(weight × number of frames; dashed: no preference)',
        x=0.01,
        ha='left',
        size=10,
    )
    save_figure(figure, path)


def codes_figure(codes, labels, title: str, path) -> None:
    """Draws codes on their two main axes, once for every kind of label.

    Args:
        codes: float [N, D], N and D at least 2.
        labels: heading -> str [N].
        title: heading of the whole.
        path: PNG file to write, whole or not at all; its folder is made.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    centred = codes - codes.mean(0)
    _, sizes, axes_of = np.linalg.svd(centred, full_matrices=False)
    points, shares = centred @ axes_of[:2].T, sizes**2 / max((sizes**2).sum(), 1e-12)
    figure = Figure(figsize=(1 + 4.2 * len(labels), 4.6), layout='constrained')
    FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(labels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (heading, names) in zip(grid, labels.items()):
        names = np.asarray(names).astype(str)
        kinds = sorted(set(names))
        for number, kind in enumerate(kinds):
            colour = _COLOURS[number % len(_COLOURS)]
            if len(kinds) > len(_COLOURS):
                colour = colormaps['turbo'](number / (len(kinds) - 1))
            own = points[names == kind]
            axes.scatter(
                *own.T, s=14, color=colour, marker=_MARKERS[number % len(_MARKERS)], label=kind
            )
        axes.set_title(heading, size=10, loc='left')
        axes.set_xlabel(f'first main axis ({100 * shares[0]:.0f} % of the variance)', size=8)
        axes.spines[['top', 'right']].set_visible(False)
        if len(kinds) <= 12:
            axes.legend(frameon=False, fontsize=7)
    grid[0].set_ylabel(f'second ({100 * shares[1]:.0f} %)', size=8)
    figure.suptitle(title, x=0.01, ha='left', size=11)
    save_figure(figure, path)


def path_figure(log_mels, ends: tuple[str, str], title: str, path) -> None:
    """Draws log-mels side by side, from one emotion to another.

    Args:
        log_mels: float [N, T, F].
        ends: what the first and the last are.
        title: heading of the whole.
        path: PNG file to write, whole or not at all; its folder is made.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(log_mels)
    figure = Figure(figsize=(1 + 2.8 * count, 3.2), layout='constrained')
    FigureCanvasAgg(figure)
    scale = {'vmin': log_mels.min(), 'vmax': log_mels.max(), 'cmap': 'magma'}
    for number, (axes, log_mel) in enumerate(zip(figure.subplots(1, count, sharey=True), log_mels)):
        image = axes.imshow(log_mel.T, aspect='auto', origin='lower', **scale)
        share = round(100 * number / max(count - 1, 1))
        names = {0: ends[0], count - 1: ends[1]}
        axes.set_title(names.get(number, f'{100 - share} % : {share} %'), size=10)
        axes.set_xlabel('frames of 10 ms', size=8)
        if not number:
            axes.set_ylabel('mel band', size=8)
    figure.colorbar(image, label='log mel power')
    figure.suptitle(title, x=0.01, ha='left', size=11)
    save_figure(figure, path)


def save_figure(figure, path) -> None:
    """Writes a matplotlib figure as PNG, whole or not at all; its folder is made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    # 'tight' takes a title wider than the matrix in as well.
    figure.savefig(
        scratch, format='png', dpi=160, facecolor='white', bbox_inches='tight', pad_inches=0.1
    )
    os.replace(scratch, path)


def panels(
    conditions: Mapping[str, Corruption | Attack], results: Mapping[str, Mapping]
) -> dict[str, dict[str, list[tuple]]]:
    """What `figures.robustness_figure` draws of some conditions.

    Args:
        conditions: of `parse_conditions`.
        results: name -> `evaluation.summarise(…)`.
    """
    drawn = {}
    for name, condition in conditions.items():
        if isinstance(condition, Attack):
            where = 'waveform' if '_waveform' in name else 'standardised log-mel'
            heading, x = f'epsilon, {where}', condition.arguments[0]
            words = zip(('steps', 'starts'), condition.arguments[1:])
            how = ''.join(f', {number:g} {word}' for word, number in words if number > 1)
            series = name.partition(condition.name)[0] + condition.name + how
        elif condition.name in ('noise', 'babble'):
            heading, x = 'SNR, dB', condition.arguments[1]
            series = name.removeprefix('noise_').rpartition('_')[0]
        else:
            heading, series, x = 'corruption', '', name
        point = (x, results[name]['uar'], results[name]['uar_ci95'])
        drawn.setdefault(heading, {}).setdefault(series, []).append(point)
    for series in drawn.values():
        for points in series.values():
            points.sort(key=lambda point: isinstance(point[0], str) or point[0])
    return drawn
