"""Reads tables of recordings and labels: metadata.csv, audformat's db.*.csv, EmoBox' jsonl manifests."""

import csv
import io
import json
import pathlib
from typing import NamedTuple

from ser_jax.runtime.errors import UserError
from tfds_builders.core.folders import read_text

TABLE = 'metadata.csv'
NEEDED = ('file', 'emotion', 'speaker')
_MAX_COLUMNS = 1000


class Row(NamedTuple):
    """One recording.

    Attributes:
        where: file and line, for messages.
        cells: column -> text.
    """

    where: str
    cells: dict[str, str]


def read_folder(folder: pathlib.Path) -> tuple[list[Row], tuple[str, ...]]:
    """Reads the table of a folder: `metadata.csv`, else the tables of an audformat database, else one jsonl manifest.

    Args:
        folder: folder of the recordings.

    Returns:
        (rows in their order; names of the files that were read).

    Raises:
        UserError: no table, or one that cannot be read.
    """
    audformat = sorted(folder.glob('db.*.csv'))
    manifests = sorted(path for path in folder.glob('*.jsonl') if not path.name.startswith('.'))
    if (folder / TABLE).is_file():
        return read_csv(folder / TABLE, NEEDED), (TABLE,)
    if audformat:
        return _read_audformat(audformat), tuple(path.name for path in audformat)
    if len(manifests) == 1:
        labels = folder / 'label_map.json'
        names = (manifests[0].name, *([labels.name] if labels.is_file() else []))
        return _read_manifest(manifests[0], labels), names
    if manifests:
        raise UserError(
            f'{folder} holds {len(manifests)} jsonl manifests: leave one, or write {TABLE}'
        )
    raise UserError(
        f'{folder / TABLE} is missing: a csv corpus needs it, columns {", ".join(NEEDED)} (or the db.*.csv of an audformat '
        'database, or a jsonl manifest)'
    )


def read_csv(path: pathlib.Path, needed: tuple[str, ...]) -> list[Row]:
    """Reads a csv table (comma, semicolon or tab).

    Args:
        path: path of the table.
        needed: required columns.

    Returns:
        The rows that are not empty, with lower-case columns and stripped cells.

    Raises:
        UserError: not UTF-8, not csv, a missing or repeated column, too many columns, or no rows.
    """
    text = read_text(path)
    if '\0' in text:
        raise UserError(f'{path} holds NUL characters: it is not a csv table in UTF-8')
    head = text.partition('\n')[0]
    reader = csv.reader(io.StringIO(text, newline=''), delimiter=max(',;\t', key=head.count))
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        if len(columns) > _MAX_COLUMNS:
            raise UserError(
                f'{path} has {len(columns)} columns; at most {_MAX_COLUMNS} are allowed'
            )
        named = [name for name in columns if name]
        repeated = next((name for name in named if named.count(name) > 1), '')
        if repeated:
            raise UserError(f'{path} has the column {repeated!r} twice')
        missing = [name for name in needed if name not in columns]
        if missing:
            known = ', '.join(columns) or 'none'
            raise UserError(f'{path} lacks the column {" and ".join(missing)}; it has {known}')
        rows = []
        for cells in reader:
            cells = [cell.strip() for cell in cells] + [''] * (len(columns) - len(cells))
            if any(cells):
                rows.append(Row(f'{path} line {reader.line_num}', dict(zip(columns, cells))))
    except csv.Error as error:
        raise UserError(f'{path} line {reader.line_num} cannot be read as csv ({error})') from error
    if not rows:
        raise UserError(f'{path} has no rows')
    return rows


def _read_audformat(paths: list[pathlib.Path]) -> list[Row]:
    """Joins the tables of an audformat database that are indexed by file; of equal columns the first counts."""
    joined = {}
    for path in paths:
        if 'file' not in read_text(path).partition('\n')[0].lower().split(','):
            continue  # such as a table of speakers
        for row in read_csv(path, ('file',)):
            if _starts_later(row.cells.get('start', '')):
                raise UserError(
                    f'{row.where}: segments of files are not read; cut them into separate files'
                )
            cells = joined.setdefault(row.cells['file'], row).cells
            cells |= {name: text for name, text in row.cells.items() if not cells.get(name)}
    if not joined:
        raise UserError(f'none of {", ".join(path.name for path in paths)} has the column file')
    unused = ('start', 'end', 'duration')
    keep = lambda cells: {name: text for name, text in cells.items() if name not in unused}
    blank = dict.fromkeys(NEEDED, '')
    return [Row(row.where, blank | keep(row.cells)) for row in joined.values()]


def _starts_later(start: str) -> bool:
    """Whether a time such as '0 days 00:00:01.5' is not zero."""
    return any(digit in '123456789' for digit in start)


def _read_manifest(path: pathlib.Path, labels: pathlib.Path) -> list[Row]:
    """EmoBox' manifest: one object a line, with `wav` and `emo`; label_map.json beside it may give names of emotions."""
    names = _read_object(labels, read_text(labels), str(labels)) if labels.is_file() else {}
    rows = []
    for number, line in enumerate(read_text(path).split('\n'), 1):
        if not line.strip():
            continue
        where = f'{path} line {number}'
        item = _read_object(path, line, where)
        if not isinstance(item.get('wav'), str):
            raise UserError(f'{where}: no "wav" names the recording')
        text = lambda *fields, item=item: next(
            (str(item[name]).strip() for name in fields if item.get(name) is not None), ''
        )
        emotion = text('emo', 'emotion')
        file = item['wav']
        if not (path.parent / 'downloads').is_dir():  # where the toolkit keeps its corpora
            file = file.removeprefix(f'downloads/{text("dataset")}/')
        cells = {name: text(name) for name in ('gender', 'session', 'script', 'language')}
        cells |= {
            'file': file,
            'emotion': str(names.get(emotion, emotion)),
            'speaker': text('spk', 'speaker'),
        }
        rows.append(Row(where, cells))
    if not rows:
        raise UserError(f'{path} has no rows')
    return rows


def _read_object(path: pathlib.Path, text: str, where: str) -> dict:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where} cannot be read as JSON') from error
    if not isinstance(found, dict):
        raise UserError(f'{where} is no JSON object')
    return found
