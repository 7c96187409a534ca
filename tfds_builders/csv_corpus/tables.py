"""Reads tables of recordings and labels: metadata.csv, audformat's db.*.csv, EmoBox' jsonl manifests."""

import json
import pathlib
import re
from collections.abc import Sequence

from ser_jax.audio.reading import file_seconds
from ser_jax.data.records import DIMENSIONS
from ser_jax.runtime.errors import UserError
from tfds_builders.core.folders import read_text
from tfds_builders.core.tables import Row, read_csv

TABLE = 'metadata.csv'
_AUDFORMAT, _MANIFESTS, _LABEL_MAP = 'db.*.csv', '*.jsonl', 'label_map.json'
NEEDED = ('file', 'emotion', 'speaker')
NAMES = ('speaker', 'gender', 'session', 'script', 'language')
COLUMNS = (*NEEDED, *NAMES[1:], *DIMENSIONS)
# '0 days 00:00:01.5', '1:02:03', '2.5'
_TIME = re.compile(r'(?:(\d+) days?,? ?)?(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?)?')
# Fields of EmoBox' manifests that are read under another name, or not needed.
_MANIFEST = {
    'wav',
    'emo',
    'spk',
    'key',
    'dataset',
    'type',
    'sample_rate',
    'length',
    'task',
    'channel',
}
_TABLES = ('.csv', '.tsv', '.txt', '.xlsx', '.xls', '.ods', '.json', '.parquet')  # endings
_MARGIN = 0.1  # seconds by which an end may be before the end of the file


def read_folder(folder: pathlib.Path) -> tuple[list[Row], tuple[str, ...]]:
    """Reads the table of a folder: `metadata.csv`, else the tables of an audformat database, else one jsonl manifest.

    Returns:
        (rows in their order; patterns of the files that count, also those that might be there).

    Raises:
        UserError: no table, or one that cannot be read.
    """
    audformat = sorted(folder.glob(_AUDFORMAT))
    manifests = sorted(path for path in folder.glob(_MANIFESTS) if not path.name.startswith('.'))
    if (folder / TABLE).is_file():
        rows = read_csv(folder / TABLE, NEEDED)
        if {'start', 'end'} <= rows[0].cells.keys():
            _refuse_segments(rows, folder)
        return rows, (TABLE,)
    if audformat:
        return _read_audformat(audformat), (TABLE, _AUDFORMAT)
    if len(manifests) == 1:
        rows = _read_manifest(manifests[0], folder / _LABEL_MAP)
        return rows, (TABLE, _AUDFORMAT, _MANIFESTS, _LABEL_MAP)
    if manifests:
        raise UserError(
            f'{folder} holds {len(manifests)} jsonl manifests: leave one, or write {TABLE}'
        )
    others = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in _TABLES)
    there = f'; there is {", ".join(others[:3])}: save it as {TABLE}' if others else ''
    raise UserError(
        f'{folder / TABLE} is missing: a csv corpus needs it, columns {", ".join(NEEDED)} (or the db.*.csv of an audformat '
        f'database, or a jsonl manifest){there}'
    )


def _read_audformat(paths: list[pathlib.Path]) -> list[Row]:
    """Joins the tables of an audformat database that are indexed by file.

    Raises:
        UserError: a file twice in one table, with different values of one column in two, or in segments.
    """
    joined = {}
    for path in paths:
        rows, files = read_csv(path), set()
        if 'file' not in rows[0].cells:
            continue  # such as a table of speakers
        _refuse_segments(rows, path.parent)
        for row in rows:
            file = row.cells['file']
            if file in files:
                raise UserError(f'{row.where}: {file!r} is in this table already')
            files.add(file)
            earlier = joined.setdefault(file, row)
            cells = earlier.cells
            for name in COLUMNS:
                one, other = cells.get(name), row.cells.get(name)
                if one and other and one != other:
                    raise UserError(
                        f'{row.where}: {name} of {file!r} is {other!r}, in {earlier.where} {one!r}: leave one of the tables in '
                        f'the folder, or write {TABLE}'
                    )
            cells |= {name: text for name, text in row.cells.items() if not cells.get(name)}
    if not joined:
        raise UserError(f'none of {", ".join(path.name for path in paths)} has the column file')
    unused = ('start', 'end', 'duration')
    keep = lambda cells: {name: text for name, text in cells.items() if name not in unused}
    blank = dict.fromkeys(NEEDED, '')
    return [Row(row.where, blank | keep(row.cells)) for row in joined.values()]


def _refuse_segments(rows: Sequence[Row], folder: pathlib.Path) -> None:
    """Refuses rows for a part of a file, from `start` to `end`: the whole file would get their labels. Raises UserError."""
    for where, cells in rows:
        start, end = (_seconds(cells.get(name, '')) for name in ('start', 'end'))
        if start or (end and end < file_seconds(folder / cells['file']) - _MARGIN):
            raise UserError(
                f'{where}: segments of files are not read (start {cells.get("start", "")!r}, end {cells.get("end", "")!r}): cut '
                'them into separate files, or rename the columns if they tell something else'
            )


def _seconds(text: str) -> float | None:
    """A time such as '0 days 00:00:01.5' or '1.5' in seconds; None for another text, such as 'NaT' or a date."""
    match = _TIME.fullmatch(text)
    if not text or not match:
        return None
    days, hours, minutes, seconds = (float((n or '0').replace(',', '.')) for n in match.groups())
    return 86400 * days + 3600 * hours + 60 * minutes + seconds


def _read_manifest(path: pathlib.Path, labels: pathlib.Path) -> list[Row]:
    """EmoBox' manifest: one object per line, with `wav` and `emo`; a label_map.json in its folder may give names of emotions."""
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
        # Unknown fields get a note like unknown columns.
        cells = {name: text(name) for name in item.keys() - _MANIFEST | {*NAMES, *DIMENSIONS}}
        cells |= {
            'file': file,
            'emotion': str(names.get(emotion, emotion)),
            'speaker': text('spk', 'speaker'),
        }
        rows.append(Row(where, cells))
    if not rows:
        raise UserError(f'{path} has no rows')
    _refuse_segments(rows, path.parent)
    return rows


def _read_object(path: pathlib.Path, text: str, where: str) -> dict:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{where} cannot be read as JSON') from error
    if not isinstance(found, dict):
        raise UserError(f'{where} is no JSON object')
    return found
