"""SVG charts for pages: lines, points and bars in a frame, coloured by the style sheet, with a legend."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from ser_jax.reporting.html.markup import element

_COLOURS = (
    7  # classes c0 … c6 of report.css, distinguishable by colour-blind readers; shapes differ, too
)
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 350, 10, 208  # frame, in a view box of 360 × 250
WIDTH, HEIGHT = _RIGHT - _LEFT, _BOTTOM - _TOP


class Axis(NamedTuple):
    """An axis of a chart.

    Attributes:
        label: quantity and unit.
        low, high: ends.
        ticks: (value, text) pairs.
        logarithmic: whether the scale is logarithmic.
    """

    label: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]] = ()
    logarithmic: bool = False

    def share(self, value: float) -> float:
        """Position of a value, from 0 at the low end to 1 at the high end."""
        scale = (lambda x: math.log(max(x, self.low))) if self.logarithmic else float
        low, high = scale(self.low), scale(self.high)
        return (scale(value) - low) / (high - low)


class Series(NamedTuple):
    """A line of a chart, or a group of points.

    Attributes:
        name: name in the legend; '' = not in the legend.
        points: (x, y) or (x, y, (lower, upper)); a bound of None is not drawn.
        number: number of the colour and shape.
        line, marks: whether the line and the marks are drawn.
        pale: whether it is drawn less prominently.
    """

    name: str
    points: Sequence[tuple]
    number: int = 0
    line: bool = True
    marks: bool = True
    pale: bool = False


PERCENT_TICKS = tuple((value, f'{value}') for value in range(0, 101, 20))


def axis_of(label: str, values: Sequence[float]) -> Axis:
    """An axis that covers some values, with round ticks."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    room = 0.04 * (high - low)
    low, high = low - room, high + room
    power = 10 ** math.floor(math.log10((high - low) / 4))
    step = next(power * n for n in (1, 2, 5, 10) if power * n * 5 >= high - low)
    count = range(math.ceil(low / step), math.floor(high / step) + 1)
    return Axis(label, low, high, [(n * step, f'{n * step:.6g}') for n in count])


def chart(
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    title: str,
    *,
    references: Sequence[Sequence[tuple[float, float]]] = (),
    bars: Sequence[tuple[float, float, float]] = (),
):
    """Draws lines or points in a frame.

    Args:
        series: lines and groups of points.
        x, y: axes.
        title: text for screen readers.
        references: dashed lines, each a list of (x, y) points.
        bars: (left, right, height), drawn in the background.

    Returns:
        An `svg` element.
    """
    at = lambda point: (
        round(_LEFT + x.share(point[0]) * WIDTH, 1),
        round(_BOTTOM - y.share(point[1]) * HEIGHT, 1),
    )
    children = [element('title', title), *_frame(x, y, at)]
    for left, right, height in bars:
        (x0, y0), (x1, y1) = at((left, height)), at((right, y.low))
        shape = {'x': x0 + 1, 'y': y0, 'width': round(x1 - x0 - 2, 1), 'height': round(y1 - y0, 1)}
        children.append(element('rect', class_='share', **shape))
    for points in references:
        path = _polyline([at(point) for point in points])
        children.append(element('path', class_='reference', d=path))
    children += [_drawn(one, at) for one in series if len(one.points)]
    return element('svg', *children, class_='chart', role='img', viewBox='0 0 360 250')


def _frame(x, y, at):
    for value, text in y.ticks:
        height = at((x.high, value))[1]
        yield element('line', class_='grid', x1=_LEFT, x2=_RIGHT, y1=height, y2=height)
        yield element('text', text, x=_LEFT - 6, y=height + 4, text_anchor='end')
    for value, text in x.ticks:
        place = at((value, y.low))[0]
        yield element('line', class_='frame', x1=place, x2=place, y1=_BOTTOM, y2=_BOTTOM + 4)
        yield element('text', text, x=place, y=_BOTTOM + 17, text_anchor='middle')
    yield element('path', class_='frame', d=f'M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}')
    middle = (_LEFT + _RIGHT) / 2
    yield element('text', x.label, x=middle, y=244, text_anchor='middle')
    middle = (_TOP + _BOTTOM) / 2
    turned = f'translate(12 {middle}) rotate(-90)'
    yield element('text', y.label, transform=turned, text_anchor='middle')


def _polyline(places):
    return 'M' + 'L'.join(f'{left:g} {down:g}' for left, down in places)


def _drawn(one, at):
    """A series: line, intervals of the points, and marks."""
    places = [at(point) for point in one.points]
    children = [element('title', one.name)] if one.name else []
    if one.line and len(places) > 1:
        dashes = '2 3' if one.pale else None
        children.append(
            element('path', class_='line', d=_polyline(places), stroke_dasharray=dashes)
        )
    for point in one.points:
        if len(point) > 2 and None not in point[2]:
            (left, low), (_, high) = (at((point[0], bound)) for bound in point[2])
            path = f'M{left} {low}V{high}M{left - 3} {low}h6M{left - 3} {high}h6'
            children.append(element('path', class_='whisker', d=path))
    if one.marks:
        path = ''.join(_mark(*place, one.number, 3.1) for place in places)
        children.append(element('path', class_='mark pale' if one.pale else 'mark', d=path))
    return element('g', *children, class_=f'c{one.number % _COLOURS}')


def _mark(x, y, number, r):
    """The outline of a circle, square, triangle or diamond."""
    shapes = (
        f'm{-r:g} 0a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z',
        f'm{-0.9 * r:g} {-0.9 * r:g}h{1.8 * r:g}v{1.8 * r:g}h{-1.8 * r:g}z',
        f'm0 {-1.25 * r:g}l{1.15 * r:g} {2.1 * r:g}h{-2.3 * r:g}z',
        f'm0 {-1.35 * r:g}l{1.1 * r:g} {1.35 * r:g}l{-1.1 * r:g} {1.35 * r:g}l{-1.1 * r:g} {-1.35 * r:g}z',
    )
    return f'M{x:g} {y:g}{shapes[number % len(shapes)]}'


def legend(series: Sequence[Series]):
    """The legend of some series; a name that occurs twice is shown once."""
    shown = {one.name: one for one in series if one.name}
    items = []
    for one in sorted(shown.values(), key=lambda one: one.number):
        parts = []
        if one.line:
            dashes = '2 3' if one.pale else None
            parts.append(element('path', class_='line', d='M0 6H22', stroke_dasharray=dashes))
        if one.marks:
            parts.append(element('path', class_='mark', d=_mark(11, 6, one.number, 3.4)))
        picture = element('svg', *parts, viewBox='0 0 22 12', aria_hidden='true')
        colour = f'c{one.number % _COLOURS}'
        items.append(
            element('li', picture, element('span', one.name, class_='name'), class_=colour)
        )
    return element('ul', *items, class_='legend')
