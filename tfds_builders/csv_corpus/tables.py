"""Reads tables of recordings and labels: metadata.csv, audformat's db.*.csv, EmoBox' jsonl manifests."""

import json
import pathlib

from ser_jax.runtime.errors import UserError
from tfds_builders.core.folders import read_text
from tfds_builders.core.tables import Row, read_csv

TABLE = 'metadata.csv'
NEEDED = ('file', 'emotion', 'speaker')


def read_folder(folder: pathlib.Path) -> tuple[list[Row], tuple[str, ...]]:
    """Reads the table of a folder: `metadata.csv`, else the tables of an audformat database, else one jsonl manifest.

    Args:
        folder: folder of the recordings.

    Returns:
        (rows in their order; names of the files that count, also those that might be there).

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
        return _read_manifest(manifests[0], labels), (manifests[0].name, labels.name)
    if manifests:
        raise UserError(
            f'{folder} holds {len(manifests)} jsonl manifests: leave one, or write {TABLE}'
        )
    raise UserError(
        f'{folder / TABLE} is missing: a csv corpus needs it, columns {", ".join(NEEDED)} (or the db.*.csv of an audformat '
        'database, or a jsonl manifest)'
    )


def _read_audformat(paths: list[pathlib.Path]) -> list[Row]:
    """Joins the tables of an audformat database that are indexed by file; of equal columns the first counts."""
    joined = {}
    for path in paths:
        rows, files = read_csv(path), set()
        if 'file' not in rows[0].cells:
            continue  # such as a table of speakers
        for row in rows:
            file = row.cells['file']
            if file in files:
                raise UserError(f'{row.where}: {file!r} is in this table already')
            files.add(file)
            if _starts_later(row.cells.get('start', '')):
                raise UserError(
                    f'{row.where}: segments of files are not read; cut them into separate files'
                )
            cells = joined.setdefault(file, row).cells
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
