"""Formats rates, intervals, durations and tables, for terminals and Markdown."""

import math
import textwrap
from collections.abc import Iterable, Sequence


def percent(value: float | None, *, signed: bool = False) -> str:
    """A fraction in percent, without the % sign; – if undefined."""
    if value is None or math.isnan(value):
        return '–'
    return f'{100 * value:{"+" if signed else ""}.1f}'


def interval(bounds: Sequence[float | None], *, signed: bool = False) -> str:
    """An interval of fractions in percent, `[low, high]`; – if undefined."""
    if None in bounds:
        return '–'
    return '[{}, {}]'.format(*(percent(bound, signed=signed) for bound in bounds))


def duration(seconds: float | None) -> str:
    """A duration: `8.4 s`, `3 min 05 s`, `2 h 07 min`; – if unknown."""
    if seconds is None:
        return '–'
    if seconds < 59.95:
        return f'{seconds:.1f} s'
    if round(seconds) < 3600:
        return f'{round(seconds) // 60} min {round(seconds) % 60:02d} s'
    return f'{round(seconds / 60) // 60} h {round(seconds / 60) % 60:02d} min'


def short_commits(commits: str) -> str:
    """Ten digits of every commit of `A; B`, each with `+changes` if the code was modified; `unknown` for an empty one."""
    shown = (
        (one[:10] or 'unknown') + '+changes' * one.endswith('+changes')
        for one in commits.split('; ')
    )
    return ', '.join(dict.fromkeys(shown))


def markdown_table(head: Sequence, rows: Iterable[Sequence]) -> str:
    """A Markdown table, without a newline at the end."""
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join(f'| {" | ".join(map(str, line))} |' for line in lines)


def text_table(rows: Iterable[Sequence], texts: Iterable[int] = (0,), width: int = 0) -> list[str]:
    """Aligned columns, two spaces apart; no cell is cut.

    Args:
        rows: cells of every row, the headings first.
        texts: numbers of the columns that are aligned left; the others are numbers.
        width: width in characters; where the table is wider, the cells of its widest text column are broken into
            lines, at spaces where it has some. 0 = unlimited.

    Returns:
        Lines without trailing spaces.
    """
    rows, texts = [[str(cell) for cell in row] for row in rows], tuple(texts)
    widths = [max(map(len, column)) for column in zip(*rows)]
    excess = sum(widths) + 2 * (len(widths) - 1) - width
    if width and excess > 0:
        widest = max(texts, key=lambda number: widths[number])
        room = max(widths[widest] - excess, 8)
        split = [textwrap.wrap(row[widest], room, break_on_hyphens=False) or [''] for row in rows]
        widths[widest] = max(len(part) for parts in split for part in parts)
        rows = [
            [part if number == widest else cell * first for number, cell in enumerate(row)]
            for row, parts in zip(rows, split)
            for first, part in zip([True] + [False] * len(parts), parts)
        ]
    return [
        '  '.join(
            f'{cell:{"<" if number in texts else ">"}{widths[number]}}'
            for number, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]
