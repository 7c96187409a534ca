"""Predictions in files: one that grows by a recording at a time and is continued later, or a folder of TextGrids."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import try_lock, write_atomically
from ser_jax.serving.results import Timeline

_ENCODING = {'encoding': 'utf-8', 'errors': 'surrogateescape', 'newline': ''}  # any file name


class Answers:
    """CSV or JSON lines of `serving.formats` in a file.

    What the file holds is checked and kept, except a row that was cut off. Segments in CSV take several rows: those of
    the last recording are removed, too, as some may be missing.

    Args:
        path: file to write or to continue; its folder is created.
        make_writer: text file -> write(path, result); writes the header of CSV at once.
        form: 'csv' or 'json'.
        model: `Predictor.model`.
        parts: 'windows' or 'segments' if these are written, else ''.

    Attributes:
        done: files whose rows are there.

    Raises:
        UserError: the file cannot be written, another process writes it, or it holds something else or answers of another
            model.
    """

    def __init__(
        self,
        path: Path,
        make_writer: Callable[[IO[str]], Callable],
        *,
        form: str,
        model: str,
        parts: str,
    ):
        self.path, self._form, self._model, self._parts = path, form, model, parts
        self._buffer = io.StringIO()
        self._write = make_writer(self._buffer)
        header, self.done = self._take(), set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open('r+' if path.exists() else 'x+', **_ENCODING)
            try:
                if try_lock(self._file) is False:
                    raise self._refusal('is being written by another process', ', or wait')
                end = self._read(header)
            except UserError:
                self._file.close()
                raise
            self._file.seek(end)
            self._file.truncate()
            if not end:
                self._append(header)
        except OSError as error:
            raise UserError(f'--out={path} cannot be written: {error.strerror or error}') from error

    def write(self, path: Path, result) -> None:
        """Appends the rows of a recording, in one piece."""
        self._write(path, result)
        self._append(self._take())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _take(self) -> str:
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text

    def _append(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def _read(self, header: str) -> int:
        """Reads `done`; returns the position after the last row to keep."""
        position, last, kept = 0, None, 0
        for text, whole in _rows(self._file, self._form):
            if not position and header:
                if text != header and (whole or not header.startswith(text)):
                    raise self._refusal('has other columns')
                if not whole:
                    return 0
            elif whole:
                name, model = map(str, self._parse(text))
                if model != self._model:
                    raise self._refusal(f'holds answers of the model {model}, not {self._model}')
                if name != last:
                    last, kept = name, position
                    self.done.add(name)
            else:
                break
            position += len(text.encode(_ENCODING['encoding'], _ENCODING['errors']))
        if self._form == 'csv' and self._parts and last is not None:
            self.done.discard(last)
            return kept
        return position

    def _parse(self, row: str) -> tuple[str, str]:
        """(file, model) of a row."""
        try:
            if self._form == 'csv':
                (cells,) = csv.reader(io.StringIO(row, newline=''))
                return cells[0], cells[-1]
            content = json.loads(row)
            parts = [name for name in ('windows', 'segments') if name in content]
            if parts != [self._parts] * bool(self._parts):
                raise self._refusal(
                    f'holds rows {"with " + parts[0] if parts else "without " + self._parts}'
                )
            return content['file'], content['model']
        except (ValueError, LookupError, TypeError, csv.Error) as error:
            raise self._refusal(f'holds a row that is no {self._form}') from error

    def _refusal(self, problem: str, remedy: str = ', or remove it') -> UserError:
        return UserError(f'--out={self.path} {problem}: choose another file{remedy}')


def textgrid_folder(
    folder: Path, files: Sequence[Path], make_writer: Callable[[IO[str]], Callable]
) -> Callable[[Path, Timeline], None]:
    """A function write(path, timeline) for one TextGrid a recording, below a folder as the recordings lie.

    Args:
        folder: folder to write to; existing TextGrids are replaced.
        files: the recordings.
        make_writer: text file -> write(path, timeline).

    Raises:
        UserError: two recordings differ by their ending only, or lie on several drives of Windows.
    """
    whole = {path: Path(os.path.abspath(path)) for path in files}  # without ..
    try:
        root = os.path.commonpath([path.parent for path in whole.values()]) if files else '.'
    except ValueError as error:
        raise UserError('the recordings lie on several drives: name those of one') from error
    names = {path: one.relative_to(root).with_suffix('.TextGrid') for path, one in whole.items()}
    once: dict[Path, Path] = {}
    for path, name in names.items():
        if once.setdefault(name, path) != path:
            raise UserError(f'{once[name]} and {path} would both become {folder / name}')

    def write(path, timeline):
        text = io.StringIO()
        make_writer(text)(path, timeline)
        try:
            write_atomically(folder / names[path], text.getvalue())
        except OSError as error:
            raise UserError(f'cannot write {folder / names[path]}: {error.strerror}') from error

    return write


def _rows(file: IO[str], form: str) -> Iterator[tuple[str, bool]]:
    """Yields (text, whether it is whole) of every row; quoted cells of CSV may hold line breaks."""
    row = ''
    for line in file:
        row += line
        if line.endswith('\n') and (form == 'json' or row.count('"') % 2 == 0):
            yield row, True
            row = ''
    if row:
        yield row, False
