"""Reads csv tables (comma, semicolon or tab) strictly: no row is merged with another one, and no cell is shifted."""

import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ser_jax.runtime.errors import UserError
from tfds_builders.core.folders import read_text

_MAX_COLUMNS = 1000
_MAX_CELL = 1 << 17  # characters
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?[,;\t]*', re.IGNORECASE)


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        where: file and line, for messages.
        cells: column -> text.
    """

    where: str
    cells: dict[str, str]


def read_csv(path: pathlib.Path, needed: Sequence[str] = ()) -> list[Row]:
    """Reads a csv table (comma, semicolon or tab).

    A cell may be quoted, over several lines, too, with `""` for a quote in it; other quotes inside a cell are text. A first
    line `sep=;`, as spreadsheets write it, names the separator.

    Args:
        path: path of the table.
        needed: required columns; case does not matter.

    Returns:
        The rows that are not empty, with lower-case columns and stripped cells.

    Raises:
        UserError: not UTF-8, not csv, a missing or repeated column, too many columns, no rows, a quoted cell that does
            not end or holds rows, a row with more cells than columns, or one that ends before a needed column.
    """
    text = read_text(path)
    if '\0' in text:
        raise UserError(f'{path} holds NUL characters: it is not a csv table in UTF-8')
    head, _, rest = text.partition('\n')
    named = _SEPARATOR_LINE.fullmatch(head)
    separator = named[1] if named else max(',;\t', key=head.count)
    records = _records(rest if named else text, separator, path, first=2 if named else 1)
    columns = [name.lower() for name in next(records, ('', []))[1]]
    if len(columns) > _MAX_COLUMNS:
        raise UserError(f'{path} has {len(columns)} columns; at most {_MAX_COLUMNS} are allowed')
    named = [name for name in columns if name]
    repeated = next((name for name in named if named.count(name) > 1), '')
    if repeated:
        raise UserError(f'{path} has the column {repeated!r} twice')
    missing = [name for name in needed if name.lower() not in columns]
    if missing:
        known = ', '.join(columns) or 'none'
        raise UserError(
            f'{path} lacks the column{"s" * (len(missing) > 1)} {", ".join(missing)}; it has {known}'
            + ' (commas, semicolons or tabs separate columns)' * (len(columns) == 1)
        )
    rows = []
    for where, cells in records:
        if not any(cells):
            continue
        if any(cells[len(columns) :]):
            raise UserError(
                f'{where} has {_cells(len(cells))}, the table has {len(columns)} columns: quote each cell that '
                'holds the separator ("well, fine")'
            )
        absent = [name for name in needed if columns.index(name.lower()) >= len(cells)]
        if absent:
            raise UserError(
                f'{where} has {_cells(len(cells))}, the table has {len(columns)} columns: {" and ".join(absent)} '
                'missing; write an empty cell for what is unknown'
            )
        cells += [''] * (len(columns) - len(cells))
        rows.append(Row(where, dict(zip(columns, cells))))
    if not rows:
        raise UserError(f'{path} has no rows')
    return rows


def _cells(count: int) -> str:
    return f'{count} cell' + 's' * (count != 1)


def _records(
    text: str, separator: str, path: pathlib.Path, first: int
) -> Iterator[tuple[str, list[str]]]:
    """Splits a table, from its line `first` on, into records: (file and line, stripped cells).

    Raises:
        UserError: a quoted cell that does not end or holds rows, or a cell that is too long.
    """
    blank = r'[^\S\n\t]*'
    cell = re.compile(
        rf'{blank}(?:"((?:[^"]++|"")*+)"{blank}(?=[{separator}\n]|\Z)|([^{separator}\n]*+))'
    )
    start, line, cells, width = 0, first, [], 0
    while match := cell.match(text, start):
        quoted, plain = match.groups()
        if quoted is None and plain.startswith('"'):
            raise UserError(
                f'{path} line {line}: a quote opens the cell {plain[:20]!r} and does not end it: remove the quote, or quote '
                'the whole cell and double the quotes inside'
            )
        if quoted is not None and '\n' in quoted:
            _refuse_rows(match[0], separator, width, len(cells), f'{path} line {line}')
        content = plain if quoted is None else quoted.replace('""', '"')
        line += match[0].count('\n')
        where = f'{path} line {line}'
        if len(content) > _MAX_CELL:
            raise UserError(f'{where} cannot be read as csv (a cell of {len(content)} characters)')
        cells.append(content.strip())
        start = match.end() + 1
        if start > len(text) or text[start - 1] == '\n':
            yield where, cells
            width, cells, line = width or len(cells), [], line + 1
            if start >= len(text):
                return


def _refuse_rows(quoted: str, separator: str, width: int, before: int, where: str) -> None:
    """Refuses a quoted cell over several lines that look like rows: two stray quotes enclose them.

    Args:
        quoted: the cell with its quotes.
        separator: separator of the table.
        width: number of columns; 0 in the head.
        before: number of cells before this one in its row.
        where: file and line where the quote opens.

    Raises:
        UserError: a line inside has as many cells as the table, or the last one as many as lead up to this cell.
    """
    *inner, last = [line.split(separator) for line in quoted.split('\n')[1:]]
    rows = [line for line in inner if len(line) == width]
    rows += [last] * (before > 0 and len(last) == before + 1)
    # In sentences, a blank follows the comma.
    rows = [line for line in rows if not any(cell[:1].isspace() for cell in line[1:])]
    if rows:
        raise UserError(
            f'{where}: the quoted cell that opens here holds what looks like a row, {separator.join(rows[0])[:40]!r}: remove '
            'the stray quotes, or write the cell in one line'
        )
