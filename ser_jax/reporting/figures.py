"""Figures as PNG files: confusion matrices, robustness curves, attention weights, codes; without display or global state."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ser_jax.reporting.text import percent
from ser_jax.runtime.files import replacing

if TYPE_CHECKING:
    from ser_jax.evaluation.diagnostics import Attention, Codes, DecodedPath

# Distinguishable in print and by colour-blind readers (Okabe & Ito 2008); the markers differ, too.
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#000000')
_MARKERS = 'osD^vPX'
_NUMBER = r'-?\d+(?:\.\d+)?(?:e[+-]?\d+)?'  # as in names of results
_NOISE = re.compile(rf'noise_(\w+)_({_NUMBER})db')
_ATTACK = re.compile(rf'((?:transfer_)?(?:random_sign|fgsm|bim|pgd)(_waveform)?)((?:_{_NUMBER})+)')


def draw_run(
    card: Mapping,
    folder: Path,
    *,
    attention: 'Attention | None' = None,
    codes: 'Codes | None' = None,
) -> None:
    """Draws the figures of a finished run.

    For every task: `confusion_matrix*.png` of clean speech and of other corpora, and `robustness*.png` if there are
    other conditions. `attention.png`, `codes.png` and `path.png` where the diagnostics are given.

    Args:
        card: result card.
        folder: folder of the figures.
        attention: attention weights of some test utterances.
        codes: codes of an autoencoder.
    """
    results = card['conditions']
    for name, result in results.items():
        clean = name.startswith('clean')
        if not clean and not name.startswith('cross_'):
            continue
        suffix, title = name.removeprefix('clean') if clean else f'_{name}', _title(card, name)
        path = folder / f'confusion_matrix{suffix}.png'
        confusion_matrix_figure(result['confusion'], list(result['recall']), title, path)
        drawn = robustness_panels(of_task(results, suffix)) if clean else {}
        if drawn:
            path = folder / f'robustness{suffix}.png'
            robustness_figure(drawn, {'clean': result['uar']}, title, path)
    speech = f'{card["corpus"]} ({"SYNTHETIC" if card["synthetic"] else "real"} speech)'
    if attention:
        attention_figure(attention, speech, folder / 'attention.png')
    if codes:
        codes_figure(codes, speech, folder / 'codes.png')
        if codes.path:
            path_figure(codes.path, f'{speech}, {codes.fold}', folder / 'path.png')


def _title(card: Mapping, name: str) -> str:
    result = card['conditions'][name]
    tested = {'corpus': card['corpus'], 'synthetic': card['synthetic']} | result
    task = f', {result["task"]}' if 'task' in result else ''
    where = f'{tested["corpus"]} ({"synthetic" if tested["synthetic"] else "real"} speech){task}'
    if name.startswith('clean'):
        folds = '{} of {} folds'.format(*card['n_folds'])
        how = f'{card["protocol"]}, {folds}, seed {card["seed"]}'
    else:
        how = f'{name}, trained on {" and ".join(card["trained_on"])}, seed {card["seed"]}'
    return f'{card["system"]} on {where}\n{how}: UAR {percent(result["uar"])} %, n = {result["n"]}'


def of_task(results: Mapping[str, Mapping], suffix: str) -> dict[str, Mapping]:
    """Condition -> result of one task.

    Args:
        results: name -> result of a card.
        suffix: '' for the emotion, else `_<task>`.
    """
    return {
        name.removesuffix(suffix): result
        for name, result in results.items()
        if name.endswith(suffix) and result.get('task', '') == suffix[1:]
    }


def robustness_panels(results: Mapping[str, Mapping]) -> dict[str, dict[str, list[tuple]]]:
    """The panels of `robustness_figure`.

    Args:
        results: condition -> result with `uar` and `uar_ci95`. Clean speech and other corpora are left out.

    Returns:
        Heading of the x axis -> {series: [(x, UAR, (lower, upper)), …]}.
    """
    drawn = {}
    for name, result in results.items():
        if name.startswith(('clean', 'cross_')):
            continue
        noise, attack = _NOISE.fullmatch(name), _ATTACK.fullmatch(name)
        if noise:
            heading, series, x = 'SNR, dB', noise[1], float(noise[2])
        elif attack:
            heading = f'epsilon, {"waveform" if attack[2] else "standardised log-mel"}'
            x, *counts = map(float, attack[3].split('_')[1:])
            counted = zip(counts, ('steps', 'starts'))
            series = attack[1] + ''.join(f', {n:g} {what}' for n, what in counted if n > 1)
        else:
            heading, series, x = 'corruption', '', name
        point = (x, result['uar'], result['uar_ci95'])
        drawn.setdefault(heading, {}).setdefault(series, []).append(point)
    for series in drawn.values():
        for points in series.values():
            points.sort(key=lambda point: isinstance(point[0], str) or point[0])
    return drawn


def new_figure(width: float, height: float):
    """A matplotlib figure of a size in inches, independent of displays."""
    from matplotlib.figure import Figure  # slow (0.5 s): only commands that draw pay

    return Figure(figsize=(width, height), layout='constrained')


def confusion_matrix_figure(confusion, labels: Sequence[str], title: str, path) -> None:
    """Draws a confusion matrix: row percent as colour and number, counts below.

    Args:
        confusion: counts [K, K], row = true class, column = predicted class.
        labels: K class names.
        title: heading; its first line is set larger.
        path: PNG file to write.
    """
    confusion = np.asarray(confusion)
    n_classes = len(labels)
    totals = confusion.sum(1, keepdims=True)
    share = 100 * confusion / np.maximum(totals, 1)
    side = 1.5 + max(3.2, 0.82 * n_classes)
    figure = new_figure(side + 0.4, side)
    axes = figure.add_subplot()
    axes.imshow(share, cmap='Blues', vmin=0, vmax=100)
    for row in range(n_classes):
        for column in range(n_classes):
            strong = share[row, column] >= 55
            ink = 'white' if strong else '#1b2a41' if confusion[row, column] else '#9aa5b1'
            number = f'{share[row, column]:.0f} %' if totals[row, 0] else '–'
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


def robustness_figure(panels, references, title: str, path) -> None:
    """Draws the UAR against the level of conditions: one panel per kind of condition, one line per series.

    Args:
        panels: heading of the x axis -> {series: [(x, UAR, (lower, upper)), …]}, rates as fractions; x
            may be text (single conditions, drawn without a line).
        references: name -> UAR of clean speech, a dashed line in every panel, in the colour of the series of
            that name.
        title: heading.
        path: PNG file to write.
    """
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = new_figure(1 + 4.2 * columns, 0.4 + 3.8 * lines)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    for axes, (heading, series) in zip(grid.ravel(), panels.items()):
        # Series that are the same in all panels have one colour.
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
    """The distinct levels of a panel."""
    return list(dict.fromkeys(x for points in series.values() for x, *_ in points))


def _places(series: dict, names: list[str], name: str) -> dict[str, float]:
    """Single condition -> position of a series on the x axis; side by side, so that bars do not overlap."""
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
    """Sets up the x axis and the legend."""
    levels = _levels(series)
    if isinstance(levels[0], str):
        axes.set_xticks(range(len(levels)), levels, rotation=30, ha='right')
        axes.margins(x=0.15)
    elif 'epsilon' in heading and any(level > 0 for level in levels):
        # Epsilons differ by factors; 0 is drawn, too.
        axes.set_xscale('symlog', linthresh=min(level for level in levels if level > 0))
        axes.set_xticks(sorted(levels), [f'{level:g}' for level in sorted(levels)])
    else:
        axes.set_xticks(sorted(levels))
    if any(series):
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel(heading)
    axes.grid(axis='y', color='#e4e7eb', linewidth=0.8)
    axes.spines[['top', 'right']].set_visible(False)


def attention_figure(attention: 'Attention', speech: str, path) -> None:
    """Draws waveforms with the attention weights of every task below them, as in figure 2 of Zhang et al. 2019.

    Args:
        attention: attention weights of some utterances.
        speech: corpus and kind of speech, for the heading.
        path: PNG file to write.
    """
    signals, frame, hop, rate = attention.signals, attention.frame, attention.hop, attention.rate
    lines, columns = 1 + len(attention.weights), len(signals)
    figure = new_figure(1 + 3.6 * columns, 1.6 + 1.2 * lines)
    grid = figure.subplots(lines, columns, sharex='col', sharey='row', squeeze=False)
    for column, (signal, title) in enumerate(zip(signals, attention.titles)):
        seconds = np.arange(len(signal)) / rate
        grid[0, column].plot(seconds, signal, color='#52606d', linewidth=0.4)
        grid[0, column].set_title(title, size=9, loc='left')
        count = 1 + (max(len(signal), frame) - frame) // hop
        middle = (np.arange(count) * hop + frame / 2) / rate
        for line, (name, rows) in enumerate(attention.weights.items(), 1):
            axes, colour = grid[line, column], _COLOURS[(line - 1) % len(_COLOURS)]
            # 1 is the weight of every frame if none is preferred.
            axes.fill_between(middle, count * rows[column, :count], color=colour, linewidth=0)
            axes.axhline(1, color='#9aa5b1', linewidth=0.8, linestyle='--')
            if not column:
                axes.set_ylabel(name, size=9)
        grid[-1, column].set_xlabel('seconds')
    for axes in grid.ravel():
        axes.spines[['top', 'right']].set_visible(False)
    figure.suptitle(
        f'Attention over time: {speech}, {attention.fold}, test speakers\n'
        '(weight × number of frames; dashed: no preference)',
        x=0.01,
        ha='left',
        size=10,
    )
    save_figure(figure, path)


def codes_figure(codes: 'Codes', speech: str, path) -> None:
    """Draws codes on their two main axes, one panel per kind of label.

    Args:
        codes: codes of some utterances.
        speech: corpus and kind of speech, for the heading.
        path: PNG file to write.
    """
    from matplotlib import colormaps

    figure = new_figure(1 + 4.2 * len(codes.labels), 4.6)
    grid = figure.subplots(1, len(codes.labels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (heading, names) in zip(grid, codes.labels.items()):
        kinds = sorted(set(names))
        for number, kind in enumerate(kinds):
            colour = _COLOURS[number % len(_COLOURS)]
            if len(kinds) > len(_COLOURS):
                colour = colormaps['turbo'](number / (len(kinds) - 1))
            own, marker = codes.points[names == kind], _MARKERS[number % len(_MARKERS)]
            axes.scatter(*own.T, s=14, color=colour, marker=marker, label=kind)
        axes.set_title(heading, size=10, loc='left')
        axes.set_xlabel(f'first main axis ({100 * codes.shares[0]:.0f} % of the variance)', size=8)
        axes.spines[['top', 'right']].set_visible(False)
        if len(kinds) <= 12:
            axes.legend(frameon=False, fontsize=7)
    grid[0].set_ylabel(f'second ({100 * codes.shares[1]:.0f} %)', size=8)
    figure.suptitle(f'Codes: {speech}, {codes.fold}', x=0.01, ha='left', size=11)
    save_figure(figure, path)


def path_figure(decoded: 'DecodedPath', speech: str, path) -> None:
    """Draws log-mels side by side, from one emotion to another.

    Args:
        decoded: log-mels decoded between two emotions.
        speech: corpus, kind of speech and fold, for the heading.
        path: PNG file to write.
    """
    log_mels, count = decoded.log_mels, len(decoded.log_mels)
    figure = new_figure(1 + 2.8 * count, 3.2)
    scale = {'vmin': log_mels.min(), 'vmax': log_mels.max(), 'cmap': 'magma'}
    for number, (axes, log_mel) in enumerate(zip(figure.subplots(1, count, sharey=True), log_mels)):
        image = axes.imshow(log_mel.T, aspect='auto', origin='lower', **scale)
        share = round(100 * number / max(count - 1, 1))
        names = {0: decoded.emotions[0], count - 1: decoded.emotions[1]}
        axes.set_title(names.get(number, f'{100 - share} % : {share} %'), size=10)
        axes.set_xlabel('frames of 10 ms', size=8)
        if not number:
            axes.set_ylabel('mel band', size=8)
    figure.colorbar(image, label='log mel power')
    title = f'Decoded between the mean codes of two emotions: {speech}, training speakers'
    figure.suptitle(title, x=0.01, ha='left', size=11)
    save_figure(figure, path)


def save_figure(figure, path) -> None:
    """Writes a matplotlib figure as PNG, atomically; makes its folder."""
    # 'tight' includes a title wider than the axes.
    settings = {'dpi': 160, 'facecolor': 'white', 'bbox_inches': 'tight', 'pad_inches': 0.1}
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png', **settings)
