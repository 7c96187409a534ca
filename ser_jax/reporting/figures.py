"""Figures of runs and grids: one chart engine for PNG files and for SVG in pages, without display or global state."""

import functools
import io
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

from ser_jax.runtime.files import replacing
from ser_jax.runtime.text import interval, percent

if TYPE_CHECKING:
    from ser_jax.audio.overview import Overview
    from ser_jax.evaluation.diagnostics import Attention, Codes, DecodedPath
    from ser_jax.metrics.rates import ConfidenceBins
    from ser_jax.serving.results import Timeline

INK, SOFT, LINE, GRID, HEAT = '#17212e', '#55626f', '#b9c3cd', '#e4e9ee', '#1f77c8'
# Distinguishable in print and by colour-blind readers (after Okabe & Ito 2008). With the markers, 28 pairs differ.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#b8558f', '#b97a00', '#3a9bd1', '#3d4650')
MARKERS = 'osD^'
MOST_NAMES = len(COLOURS) * len(MARKERS)
# In the order of COLOURS: sad is blue, angry vermilion, neutral green.
_EMOTIONS = 'sad', 'angry', 'neutral', 'fearful', 'happy', 'surprised', 'disgusted'
# Colours of the style sheet of pages, which differ between light and dark.
_PAGE_COLOURS = {INK: 'currentColor', SOFT: 'var(--soft)', LINE: 'var(--line)', GRID: 'var(--grid)'}
_PAGE_COLOURS |= {HEAT: 'var(--heat)', '#ffffff': 'var(--paper)'}
_PAGE_COLOURS |= {colour: f'var(--c{number})' for number, colour in enumerate(COLOURS)}
_STYLE = {
    'font.size': 9,
    'text.color': INK,
    'text.parse_math': False,  # names may contain $
    'axes.edgecolor': LINE,
    'axes.facecolor': 'none',
    'axes.labelcolor': SOFT,
    'axes.labelsize': 9,
    'axes.titlelocation': 'left',
    'axes.titlesize': 10,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'grid.color': GRID,
    'legend.frameon': False,
    'legend.fontsize': 8,
    'xtick.color': LINE,
    'ytick.color': LINE,
    'xtick.labelcolor': SOFT,
    'ytick.labelcolor': SOFT,
    'lines.linewidth': 1.6,
    'lines.markersize': 5,
    'svg.fonttype': 'none',  # text stays text
    'svg.hashsalt': 'ser_jax',  # the same figure has the same ids
}
_TITLES, _NEXT = 'titles: ', '\u2029'  # prefix and separator of the titles in a gid
_LINK = '{http://www.w3.org/1999/xlink}href'
_UNPRINTABLE = {code: '�' for code in range(32) if chr(code) not in '\t\n'}
_NUMBER = r'-?\d+(?:\.\d+)?(?:e[+-]?\d+)?'  # as in names of results
_NOISE = re.compile(rf'noise_(\w+)_({_NUMBER})db')
_ATTACK = re.compile(rf'((?:transfer_)?(?:random_sign|fgsm|bim|pgd)(_waveform)?)((?:_{_NUMBER})+)')
_LEVEL = re.compile(rf'(gain|reverberation|clipping)_({_NUMBER})')
_UNITS = {'gain': ' dB', 'reverberation': ' s', 'clipping': ''}


# The engine.


def styled(draw):
    """Decorates a function that uses matplotlib: its settings hold inside only."""

    @functools.wraps(draw)
    def drawn(*arguments, **named):
        import matplotlib  # slow (0.5 s): only commands that draw pay

        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'Glyph')  # a PNG shows a box, a browser has the font
            return draw(*arguments, **named)

    return drawn


def new_figure(width: float, height: float, title: str = '', layout: str | None = 'constrained'):
    """A matplotlib figure of a size in inches, independent of displays."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    if title:
        figure.suptitle(title, x=0.01, ha='left', size=10)
    return figure


@styled
def save_figure(figure, path) -> None:
    """Writes a figure as PNG, atomically; makes its folder."""
    # 'tight' includes a title wider than the axes.
    settings = {'dpi': 120, 'facecolor': 'white', 'bbox_inches': 'tight', 'pad_inches': 0.1}
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png', **settings)


def add_titles(artist, titles: Sequence[str]) -> None:
    """Sets the texts that a page shows over an artist: one per marker, or one for all of it."""
    artist.set_gid(_TITLES + _NEXT.join(titles))


@styled
def to_svg(figure, label: str, prefix: str) -> str:
    """A figure as an `svg` element of a page: transparent, in the colours of its style sheet, with titles for hovering.

    Args:
        figure: figure of this module.
        label: text for screen readers.
        prefix: start of all ids, unique in the page.
    """
    file = io.StringIO()
    figure.savefig(file, format='svg', transparent=True, metadata={'Date': None})
    source = ElementTree.fromstring(printable_xml(file.getvalue()).encode())
    box = source.get('viewBox')
    svg = ElementTree.Element(
        'svg', {'role': 'img', 'aria-label': printable_xml(label), 'viewBox': box}
    )
    svg.set('style', f'--width: {float(box.split()[2]):.0f}px')
    svg.extend(node for child in source for node in _compact(child, prefix))
    return ElementTree.tostring(svg, encoding='unicode')


def printable_xml(value) -> str:
    """Text without control characters and invalid UTF-8, which XML does not allow."""
    return str(value).translate(_UNPRINTABLE).encode('utf-8', 'replace').decode()


def _compact(node, prefix: str) -> list:
    """A node of matplotlib's SVG as nodes of a page: what is visible, referred to, or a title."""
    tag, name = node.tag.rpartition('}')[2], node.get('id', '')
    style = dict(part.split(': ', 1) for part in node.get('style', '').split('; ') if part)
    style.pop('font-family', None)
    if tag in ('metadata', 'style', 'clipPath') or style == {'fill': 'none'}:
        return []
    style = '; '.join(f'{key}: {_PAGE_COLOURS.get(value, value)}' for key, value in style.items())
    new = ElementTree.Element(tag, {'style': style} if style else {})
    new.text = node.text if tag == 'text' else None
    new.extend(part for child in node for part in _compact(child, prefix))
    if tag == 'image':
        new.set('href', node.get(_LINK))
    for key in ('d', 'x', 'y', 'width', 'height', 'transform'):
        value = ' '.join(node.get(key, '').split())
        if value and not value.startswith('rotate(-0 '):
            new.set(key, re.sub(r'-?\d+\.\d+', lambda match: f'{float(match[0]):.2f}', value))
    if tag == 'path' and name:
        new.set('id', prefix + name)
    if tag == 'use':
        new.set('href', '#' + prefix + node.get(_LINK)[1:])
    shared = {child.get('style', '') if child.tag == 'use' else None for child in new}
    if len(shared) == 1 and None not in shared:  # the marks of one series
        new.set('style', shared.pop())
        for child in new:
            child.attrib.pop('style', None)
    if name.startswith(_TITLES):
        titles, marks = name.removeprefix(_TITLES).split(_NEXT), list(new.iter('use'))
        for owner, title in zip(marks if len(titles) == len(marks) else [new], titles):
            owner.insert(0, ElementTree.Element('title'))
            owner[0].text = title
        return [new]
    plain = tag in ('g', 'defs') and not new.attrib  # groups without a purpose here
    return list(new) if plain and (tag == 'g' or not len(new)) else [new]


# Data of figures.


def of_task(results: Mapping[str, Mapping], suffix: str) -> dict[str, Mapping]:
    """Condition -> result of one task, from those of a card; `suffix` is '' for the emotion, else `_<task>`."""
    return {
        name.removesuffix(suffix): result
        for name, result in results.items()
        if name.endswith(suffix) and result.get('task', '') == suffix[1:]
    }


def chance(result: Mapping) -> float:
    """UAR of guessing: the share of one class among those that occur."""
    return 1 / max(1, sum(recall is not None for recall in result['recall'].values()))


_SNR, _SINGLE = 'SNR, dB', 'corruption'  # headings of panels


def robustness_panels(results: Mapping[str, Mapping]) -> dict[str, dict[str, list[tuple]]]:
    """The panels of `robustness_figure`.

    Args:
        results: condition -> result with `uar` and `uar_ci95`. Clean speech and other corpora are left out.

    Returns:
        Heading of the x axis -> {series: [(x, UAR, (lower, upper)), …]}. Levels of which each series has one
        only are corruptions.
    """
    drawn = {}
    for name, result in results.items():
        if name.startswith(('clean', 'cross_')):
            continue
        noise, attack = _NOISE.fullmatch(name), _ATTACK.fullmatch(name)
        if noise and math.isfinite(float(noise[2])):
            series = re.sub(r'babble(\d+)', r'babble of \1', noise[1])
            heading, x = _SNR, float(noise[2])
        elif attack and all(map(math.isfinite, map(float, attack[3].split('_')[1:]))):
            heading = f'epsilon, {"waveform" if attack[2] else "standardised log-mel"}'
            x, *counts = map(float, attack[3].split('_')[1:])
            counted = zip(counts, ('steps', 'starts'))
            series = attack[1] + ''.join(f', {n:g} {what}' for n, what in counted if n > 1)
        else:
            heading, series, x = _SINGLE, '', name
            if level := _LEVEL.fullmatch(name):
                x = f'{level[1]}, {level[2]}{_UNITS[level[1]]}'
        point = (x, result['uar'], result['uar_ci95'])
        drawn.setdefault(heading, {}).setdefault(series, []).append(point)
    singles = drawn.pop(_SINGLE, {'': []})['']
    for heading, series in list(drawn.items()):
        for points in series.values():
            points.sort()
        if all(len(points) == 1 for points in series.values()):
            del drawn[heading]
            for name, ((level, *rates),) in series.items():
                singles.append((f'{name}, {level:g}' + ' dB' * (heading == _SNR), *rates))
    return {_SINGLE: {'': singles}} | drawn if singles else drawn


def draw_run(
    card: Mapping,
    folder: Path,
    *,
    attention: 'Attention | None' = None,
    codes: 'Codes | None' = None,
) -> None:
    """Writes the figures of a finished run.

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
        figure = confusion_matrix_figure(result['confusion'], list(result['recall']), title)
        save_figure(figure, folder / f'confusion_matrix{suffix}.png')
        drawn = robustness_panels(of_task(results, suffix)) if clean else {}
        if drawn:
            figure = robustness_figure(
                drawn, {'clean': result['uar']}, title, chance=chance(result)
            )
            save_figure(figure, folder / f'robustness{suffix}.png')
    speech = f'{card["corpus"]} ({"SYNTHETIC" if card["synthetic"] else "real"} speech)'
    if attention:
        save_figure(attention_figure(attention, speech), folder / 'attention.png')
    if codes:
        title = f'Codes: {speech}, {codes.fold}'
        figure = scatter_figure(codes.points, codes.labels, title=title, shares=codes.shares)
        save_figure(figure, folder / 'codes.png')
        if codes.path:
            figure = path_figure(codes.path, f'{speech}, {codes.fold}')
            save_figure(figure, folder / 'path.png')


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


# The figures.


@styled
def confusion_matrix_figure(confusion, labels: Sequence[str], title: str = ''):
    """A confusion matrix, counts [K, K], row = true class: row percent as colour and number, counts below."""
    from matplotlib.patches import Rectangle

    confusion = np.asarray(confusion)
    n_classes, totals = len(labels), confusion.sum(1)
    side = 0.9 + max(2.4, 0.6 * n_classes)
    figure = new_figure(side + 0.5, side + (0.6 if title else 0), title)
    ends = -0.5, n_classes - 0.5
    axes = figure.add_subplot(xlim=ends, ylim=ends[::-1], aspect='equal')
    for (row, column), count in np.ndenumerate(confusion):
        share, own = np.clip(count / max(totals[row], 1), 0, 1), row == column
        place, edge = (column - 0.47, row - 0.47), {'edgecolor': SOFT, 'lw': 0.8}
        axes.add_patch(Rectangle(place, 0.94, 0.94, facecolor=HEAT, alpha=0.75 * share))
        if own:
            axes.add_patch(Rectangle(place, 0.94, 0.94, fill=False, **edge))
        number = f'{100 * share:.0f} %' if totals[row] else '–'
        style = {'ha': 'center', 'va': 'center', 'color': INK if count else SOFT}
        axes.text(column, row - 0.1, number, size=9.5, weight='bold' if own else 'normal', **style)
        axes.text(column, row + 0.24, f'{count}', size=7.5, **style)
    names, crowded = [textwrap.fill(label, 16) for label in labels], max(map(len, labels)) > 8
    turned = {'rotation': 40, 'ha': 'right', 'rotation_mode': 'anchor'} if crowded else {}
    axes.set_xticks(range(n_classes), names, **turned)
    counted = [f'{name}\nn = {total}' for name, total in zip(names, totals)]
    axes.set_yticks(range(n_classes), counted)
    axes.set(xlabel='predicted', ylabel='true')
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def robustness_figure(
    panels: Mapping, references: Mapping[str, float], title: str = '', chance: float | None = None
):
    """The UAR against the level of conditions: one panel per kind of condition, one line per series.

    Args:
        panels: heading of the x axis -> {series: [(x, UAR, (lower, upper)), …]}, rates as fractions; x
            may be text (single conditions, drawn without a line).
        references: name -> UAR of clean speech, a dashed line in every panel, in the colour of the series of
            that name.
        title: heading.
        chance: UAR of guessing, a dotted line.
    """
    lines = -(-len(panels) // 3)  # more columns are illegible at the width of a column of text
    columns = -(-len(panels) // lines)
    width = 0.6 + 3.2 * columns if len(panels) > 1 else 8
    size = (width, 0.4 + 3.1 * lines) if title else (5, 3.7)
    explained = f'{title}; error bars: 95 % interval over speakers; dashed: clean, dotted: chance'
    figure = new_figure(*size, explained if title else '')
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    systems = [name for name in references if name != 'clean']  # in all panels, in one colour
    for axes in grid.ravel()[len(panels) :]:
        axes.set_visible(False)
    for axes, (heading, series) in zip(grid.ravel(), panels.items()):
        names = list(dict.fromkeys([*systems, *series]))
        for name, rate in references.items():
            colour = SOFT if name == 'clean' else COLOURS[names.index(name) % len(COLOURS)]
            axes.axhline(100 * rate, color=colour, linestyle='--', linewidth=1)
        if chance is not None:
            axes.axhline(100 * chance, color=SOFT, linestyle=':', linewidth=1)
        for name, points in series.items():
            _draw_series(
                axes, name or heading, points, names.index(name), len(names), _levels(series)
            )
        _scale_levels(axes, heading, series)
        if any(series) and not systems:
            _legend([axes], [_mark(number, name) for number, name in enumerate(series)])
    if systems:
        _legend(figure.axes, [_mark(number, name) for number, name in enumerate(systems)])
    for axes in grid[:, 0]:
        axes.set_ylabel('UAR, %')
        axes.set_ylim(0, 100)
    return figure


def _levels(series: Mapping) -> list:
    """The distinct levels of a panel."""
    return list(dict.fromkeys(x for points in series.values() for x, *_ in points))


def _draw_series(axes, name, points, number, n_series, levels) -> None:
    x, rates, intervals = zip(*points)
    single = isinstance(
        x[0], str
    )  # conditions, with the series side by side, so that bars do not overlap
    offset = 0.6 * ((number + 0.5) / n_series - 0.5)
    bars = axes.errorbar(
        [levels.index(level) + offset for level in x] if single else x,
        100 * np.array(rates),
        _reach(rates, intervals),
        **_look(number),
        linestyle='none' if single else '-',
        elinewidth=0.7,
        capsize=2,
        label=name,
    )
    shown = x if single else [f'{level:g}' for level in x]
    values = [f'UAR {percent(rate)} % {interval(bounds)}' for _, rate, bounds in points]
    add_titles(bars.lines[0], [f'{name} {level}: {text}' for level, text in zip(shown, values)])


def _reach(rates, intervals) -> np.ndarray:
    """Lengths [2, N] of the bars of intervals, in percent; 0 where a bound is unknown."""
    bounds = [[rate if b is None else b for b in pair] for rate, pair in zip(rates, intervals)]
    low, high = np.array(bounds).T
    return 100 * np.maximum([np.array(rates) - low, high - np.array(rates)], 0)


def _scale_levels(axes, heading: str, series: Mapping) -> None:
    """Sets up the x axis."""
    levels = _levels(series)
    if isinstance(levels[0], str):
        room = 10 * axes.figure.get_figwidth() / len(axes.figure.axes) / len(levels)  # characters
        names = [level.replace(', ', '\n') for level in levels]
        if max(len(line) for name in names for line in name.split('\n')) < room:
            axes.set_xticks(range(len(levels)), names)
        else:
            axes.set_xticks(range(len(levels)), levels, rotation=30, ha='right')
        axes.margins(x=0.15)
    elif 'epsilon' in heading and any(level > 0 for level in levels):
        # Epsilons differ by factors; 0 is drawn, too.
        axes.set_xscale('symlog', linthresh=min(level for level in levels if level > 0))
        axes.set_xticks(sorted(levels), [f'{level:g}' for level in sorted(levels)])
    else:
        axes.set_xticks(sorted(levels))
    axes.minorticks_off()
    axes.set_xlabel(heading)
    axes.grid(axis='y')


def _legend(axes, handles: Sequence) -> None:
    """A legend of axes: below them if the figure has no others, else inside."""
    figure = axes[0].figure
    if len(axes) < len(figure.axes):
        axes[0].legend(handles=handles)
        return
    wide = 72 * figure.get_figwidth() - 10
    columns = int(wide // (34 + 5 * max(len(handle.get_label()) for handle in handles)))
    columns = max(1, min(len(handles), columns))
    figure.legend(handles=handles, loc='outside lower center', ncols=columns)


@styled
def bar_figure(
    names: Sequence[str],
    rates: Sequence[float],
    columns: Mapping[str, Sequence[str]],
    *,
    intervals: Sequence[Sequence[float | None]] = (),
    chance: float | None = None,
    clean: float | None = None,
):
    """Rates as horizontal bars, with columns of text right of them.

    Args:
        names: N names.
        rates: N fractions.
        columns: heading -> N texts.
        intervals: N intervals, as fractions.
        chance: rate of guessing, a dotted line.
        clean: rate on clean speech, a dashed line.
    """
    figure = new_figure(5, 0.75 + 0.24 * len(names))
    axes = figure.add_subplot(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6))
    percents, places = 100 * np.array(rates), range(len(names))
    bars = axes.barh(places, percents, height=0.62, color=COLOURS[0], alpha=0.6)
    if len(intervals):
        reach = _reach(rates, intervals)
        axes.errorbar(
            percents, places, xerr=reach, color=INK, fmt='none', elinewidth=0.8, capsize=2
        )
    for rate, linestyle in ((chance, ':'), (clean, '--')):
        if rate is not None:
            axes.axvline(100 * rate, color=INK, linestyle=linestyle, linewidth=1.2)
    for number, (bar, name) in enumerate(zip(bars, names)):
        texts = [
            f'{heading.removesuffix(" %")} {texts[number]}{" %" * heading.endswith(" %")}'
            for heading, texts in columns.items()
        ]
        add_titles(bar, [f'{name}: {", ".join(texts)}'])
    right = 6  # points from the axes
    for heading, texts in columns.items():
        right += 8 + 5 * max(map(len, (heading, *texts)))
        for place, text in ((-1, heading), *enumerate(texts)):
            style = {'color': INK if place >= 0 else SOFT, 'ha': 'right', 'va': 'center', 'size': 8}
            where = {'xycoords': axes.get_yaxis_transform(), 'textcoords': 'offset points'}
            axes.annotate(text, (1, place), (right, 0), annotation_clip=False, **where, **style)
    axes.set_yticks(places, [textwrap.fill(name, 24) for name in names], size=8, color=INK)
    axes.set_xlabel('UAR, %')
    axes.grid(axis='x')
    axes.tick_params(axis='y', length=0)
    axes.spines['left'].set_visible(False)
    return figure


@styled
def curve_figure(
    curves: Mapping[str, Sequence[tuple]],
    unit: str,
    chance: float | None = None,
    legend: bool = False,
):
    """Curves over the training steps.

    Args:
        curves: name -> [(step, value), …]; colours and markers in this order.
        unit: quantity and unit of the values. Rates, in %, have an axis from 0 to 100.
        chance: rate of guessing in percent, a dotted line.
        legend: whether there is a legend, below the axes.
    """
    handles = [_mark(number, name, _dashes(number)) for number, name in enumerate(curves)]
    figure = new_figure(5, 3.3 + 0.17 * legend * -(-len(handles) // 4))
    axes = figure.add_subplot()
    if legend:
        figure.legend(handles=handles, loc='outside lower center', ncols=4, columnspacing=1.2)
    thin = {'linewidth': 1.0, 'markersize': 3.5, 'alpha': 0.85} if len(curves) > 1 else {}
    for number, (name, points) in enumerate(curves.items()):
        if not points:
            continue
        look = _look(number) | thin | ({} if len(points) < 30 else {'marker': ''})
        (line,) = axes.plot(*zip(*points), linestyle=_dashes(number), **look)
        titles = [f'{name}, step {step}: {value:.4g}' for step, value in points]
        add_titles(line, titles if look['marker'] else [name])
    if chance is not None:
        axes.axhline(chance, color=SOFT, linestyle=':', linewidth=1)
    axes.set(xlabel='training step', ylabel=unit)
    axes.set_xlim(left=0)
    axes.locator_params(axis='x', integer=True, nbins=6)
    if '%' in unit:
        axes.set_ylim(0, 100)
    axes.grid(axis='y')
    return figure


def _mark(number: int, name: str, linestyle: str = ''):
    """A sample of a series for legends."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle=linestyle, label=name, **_look(number))


def class_numbers(classes: Collection[str]) -> dict[str, int]:
    """Class -> its number among `COLOURS`: one of `_EMOTIONS` has the same one in every figure, others take what is left."""
    known = {name: _EMOTIONS.index(name) for name in classes if name in _EMOTIONS}
    left = (number for number in itertools.count() if number not in known.values())
    return {name: known[name] if name in known else next(left) for name in classes}


def _look(number: int) -> dict[str, str]:
    """Colour and marker of a series."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    return {'color': colour, 'marker': marker}


def _dashes(number: int) -> str:
    """Style of the line of a series, which differs where colours repeat."""
    return ('-', '--', '-.', ':')[number // len(COLOURS) % 4]


@styled
def reliability_figure(bins: 'ConfidenceBins', n_bins: int):
    """Reliability diagram: accuracy against confidence in the non-empty bins, with the share of the utterances in grey."""
    figure = new_figure(5, 3.7)
    axes = figure.add_subplot(xlim=(0, 100), ylim=(0, 100))
    width, share = 100 / n_bins, 100 * bins.share
    bars = axes.bar(100 * bins.lower, share, 0.92 * width, align='edge', color=SOFT, alpha=0.28)
    for bar, one in zip(bars, share):
        add_titles(bar, [f'{one:.1f} % of the utterances'])
    axes.plot((0, 100), (0, 100), color=SOFT, linestyle='--', linewidth=1)
    (line,) = axes.plot(100 * bins.confidence, 100 * bins.accuracy, color=COLOURS[0], marker='o')
    pairs = zip(bins.confidence, bins.accuracy)
    add_titles(line, [f'confidence {percent(c)} %, accuracy {percent(a)} %' for c, a in pairs])
    axes.set(xlabel='confidence: probability of the predicted class, %', ylabel='accuracy, %')
    axes.grid(axis='y')
    return figure


@styled
def scatter_figure(
    points: np.ndarray,
    labels: Mapping[str, Sequence[str]],
    tested: np.ndarray | bool = True,
    title: str = '',
    shares: Sequence[float] = (),
):
    """Utterances on two axes of the same scale, one panel per kind of label.

    Args:
        points: positions [N, 2].
        labels: heading -> N names, e.g. emotions or speakers, in their own colours and markers.
        tested: bool [N], drawn filled and on top; the others are hollow.
        title: heading.
        shares: fractions of the variance on the two axes.
    """
    figure = new_figure(*((1 + 4.2 * len(labels), 4.9) if title else (5, 4.4)), title)
    panels = figure.subplots(1, len(labels), squeeze=False)[0]
    axis_names = ['first main axis', 'second main axis']
    for number, share in enumerate(shares):
        axis_names[number] += f' ({100 * share:.0f} % of the variance)'
    for axes, (heading, names) in zip(panels, labels.items()):
        names, numbers = np.asarray(names), class_numbers(sorted(set(names)))
        for filled in (False, True):
            fill = {'markeredgewidth': 0} if filled else {'markerfacecolor': 'none'}
            style = {'markersize': 3.6, 'linestyle': 'none', 'markeredgewidth': 0.7, **fill}
            for kind, number in numbers.items():
                own = points[(names == kind) & (tested == filled)]
                if len(own):
                    (line,) = axes.plot(*own.T, **_look(number), **style)
                    add_titles(line, [kind])
        axes.set_title(heading)
        axes.set(xlabel=axis_names[0], xticks=[], yticks=[], aspect='equal', adjustable='datalim')
        if len(numbers) <= MOST_NAMES:
            _legend([axes], [_mark(number, kind) for kind, number in numbers.items()])
    panels[0].set_ylabel(axis_names[1])
    return figure


@styled
def attention_figure(attention: 'Attention', speech: str):
    """Waveforms with the attention weights of every task below them, as in figure 2 of Zhang et al. 2019."""
    signals, frame, hop, rate = attention.signals, attention.frame, attention.hop, attention.rate
    lines, columns = 1 + len(attention.weights), len(signals)
    title = (
        f'Attention over time: {speech}, {attention.fold}, test speakers\n'
        '(weight × number of frames; dashed: no preference)'
    )
    figure = new_figure(1 + 3.6 * columns, 1.6 + 1.2 * lines, title)
    grid = figure.subplots(lines, columns, sharex='col', sharey='row', squeeze=False)
    for column, (signal, title) in enumerate(zip(signals, attention.titles)):
        grid[0, column].plot(np.arange(len(signal)) / rate, signal, color=SOFT, linewidth=0.4)
        grid[0, column].set_title(title)
        count = 1 + (max(len(signal), frame) - frame) // hop
        middle = (np.arange(count) * hop + frame / 2) / rate
        for line, (name, rows) in enumerate(attention.weights.items(), 1):
            axes, colour = grid[line, column], COLOURS[(line - 1) % len(COLOURS)]
            # 1 is the weight of every frame if none is preferred.
            axes.fill_between(middle, count * rows[column, :count], color=colour, linewidth=0)
            axes.axhline(1, color=SOFT, linewidth=0.8, linestyle='--')
            if not column:
                axes.set_ylabel(name)
        grid[-1, column].set_xlabel('seconds')
    return figure


@styled
def path_figure(decoded: 'DecodedPath', speech: str):
    """Log-mels side by side, from one emotion to another."""
    log_mels, count = decoded.log_mels, len(decoded.log_mels)
    title = f'Decoded between the mean codes of two emotions: {speech}, training speakers'
    figure = new_figure(1 + 2.8 * count, 3.2, title)
    scale = {'vmin': log_mels.min(), 'vmax': log_mels.max(), 'cmap': 'magma'}
    for number, (axes, log_mel) in enumerate(zip(figure.subplots(1, count, sharey=True), log_mels)):
        image = axes.imshow(log_mel.T, aspect='auto', origin='lower', **scale)
        share = round(100 * number / max(count - 1, 1))
        names = {0: decoded.emotions[0], count - 1: decoded.emotions[1]}
        axes.set_title(names.get(number, f'{100 - share} % : {share} %'), loc='center')
        axes.set_xlabel('frames of 10 ms')
        if not number:
            axes.set_ylabel('mel band')
    figure.colorbar(image, label='log mel power')
    return figure


# Both ends of the time axis of `timeline_figure`, as fractions of its width.
TIME_AXIS = (0.06, 0.985)
_RANGE = 60 * math.log(10) / 10  # of a spectrogram: 60 dB, in nats


@styled
def timeline_figure(timeline: 'Timeline', overview: 'Overview'):
    """Waveform with the segments, spectrogram, and probabilities of the windows, on one time axis.

    Args:
        timeline: timeline of a recording.
        overview: waveform and spectrogram of the recording.
    """
    from matplotlib.colors import to_rgb

    figure = new_figure(14, 5.4, layout=None)
    width = TIME_AXIS[1] - TIME_AXIS[0]
    places = ((0.75, 0.2), (0.44, 0.29), (0.08, 0.28))  # bottom and height
    wave, mel, lines = (figure.add_axes((TIME_AXIS[0], low, width, high)) for low, high in places)
    for axes in (wave, mel, lines):
        axes.set_xlim(0, timeline.duration)
    for axes in (wave, mel):
        axes.tick_params(labelbottom=False)
    times = np.linspace(0, timeline.duration, len(overview.low))
    wave.fill_between(times, overview.low, overview.high, color=SOFT, linewidth=0.3)
    reach = max(1e-3, np.abs([overview.low, overview.high]).max())
    wave.set(ylim=(-reach, reach), yticks=[], ylabel='waveform')
    # One colour with varying transparency is legible on light and dark pages.
    image = np.empty((*overview.log_mel.T.shape, 4), np.float32)
    image[..., :3] = to_rgb(HEAT)
    image[..., 3] = np.clip(1 + (overview.log_mel.T - overview.log_mel.max()) / _RANGE, 0, 1)
    bands = (-0.5, len(overview.band_hz) - 0.5)
    mel.imshow(image, aspect='auto', origin='lower', extent=(0, timeline.duration, *bands))
    kilohertz = [0.5, 1, 2, 4]
    ticks = np.interp(1000 * np.array(kilohertz), overview.band_hz, range(len(overview.band_hz)))
    mel.set_yticks(ticks, [f'{value:g}' for value in kilohertz])
    mel.set_ylabel('kHz')
    _draw_segments(wave, timeline)
    _draw_windows(lines, timeline)
    lines.set(xlabel='seconds', ylabel='probability, %', ylim=(-2, 102))
    lines.grid(axis='y')
    numbers = class_numbers(timeline.task.classes)
    handles = [_mark(number, name, _dashes(number)) for name, number in numbers.items()]
    figure.legend(
        handles=handles, loc='upper left', bbox_to_anchor=(TIME_AXIS[0] - 0.008, 0.435),
        ncols=len(handles), fontsize=9,
    )  # fmt: skip
    return figure


def _draw_segments(axes, timeline: 'Timeline') -> None:
    """Bars in the colours of the classes over axes, with the labels that fit."""
    per_second = 72 * 14 * (TIME_AXIS[1] - TIME_AXIS[0]) / timeline.duration  # points
    numbers = class_numbers(timeline.task.classes)
    for one in timeline.segments:
        colour = _look(numbers[one.label])['color']
        place = {'color': colour, 'linewidth': 0}
        bar = axes.axvspan(one.start, one.end, ymin=1.02, ymax=1.2, clip_on=False, **place)
        area = axes.axvspan(one.start, one.end, alpha=0.13, **place)
        title = f'{one.label} {percent(one.confidence)} %, {one.start:.1f}–{one.end:.1f} s'
        for artist in (bar, area):
            add_titles(artist, [title])
        if (one.end - one.start) * per_second > 6 + 5.5 * len(one.label):
            where = ((one.start + one.end) / 2, 1.1)
            style = {'ha': 'center', 'va': 'center', 'size': 8.5, 'color': 'white'}
            axes.text(*where, one.label, transform=axes.get_xaxis_transform(), **style)


def _draw_windows(axes, timeline: 'Timeline') -> None:
    """Probabilities over the centres of the windows, and grey areas where windows have flags."""
    windows = timeline.windows
    for flags, start, end in _flagged(windows):
        area = axes.axvspan(start, end, color=SOFT, alpha=0.22, linewidth=0)
        add_titles(area, [f'{", ".join(flags)}: {start:.1f}–{end:.1f} s'])
    for run in _overlapping(windows):
        centres = [(window.start + window.end) / 2 for window in run]
        rows = 100 * np.stack([window.outputs[timeline.task.name] for window in run])
        for values, (name, number) in zip(rows.T, class_numbers(timeline.task.classes).items()):
            look = _look(number)
            x = [run[0].start, *centres, run[-1].end]
            axes.plot(
                x, values[[0, *range(len(run)), -1]], linestyle=_dashes(number), color=look['color']
            )
            if len(windows) < 120:
                (marks,) = axes.plot(centres, values, linestyle='', markersize=3.5, **look)
                titles = [f'{name} {y:.1f} % at {t:.1f} s' for t, y in zip(centres, values)]
                add_titles(marks, titles)


def _overlapping(windows) -> list[list]:
    """The runs of overlapping windows that have a label."""
    runs = []
    for window in windows:
        if window.labelled and runs and window.start <= runs[-1][-1].end:
            runs[-1].append(window)
        elif window.labelled:
            runs.append([window])
    return runs


def _flagged(windows) -> list[tuple[tuple[str, ...], float, float]]:
    """(flags, start, end) of the stretches whose overlapping windows have the same flags."""
    found = []
    for window in windows:
        if found and found[-1][0] == window.flags and window.start <= found[-1][2]:
            found[-1][2] = window.end
        else:
            found.append([window.flags, window.start, window.end])
    return [tuple(one) for one in found if one[0]]
