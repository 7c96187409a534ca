"""Local paths, docstrings, atomic writes, locks, and checksums of folders."""

import ast
import contextlib
import csv
import glob
import hashlib
import json
import math
import os
import re
import shutil
import socket
import types
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from ser_jax.runtime import signals
from ser_jax.runtime.errors import UserError

CHECKSUMS_FILE = 'checksums.json'
_HEAD = 1 << 16  # bytes at the beginning of a file that are checked whenever it is opened


def local_path(path: str | os.PathLike) -> Path:
    """A path with `~` expanded.

    Raises:
        UserError: a bucket's address, which would silently become a local folder `gs:`.
    """
    if re.match(r'[a-z0-9]{2,}:/', text := os.fspath(path)):  # Path makes one slash of two
        raise UserError(
            f'{text} is not a local folder: mount the bucket and use its mount point, see cloud/README.md'
        )
    return Path(path).expanduser()


def library_path(path: str | os.PathLike) -> Path:
    """`local_path` for folders that C++ libraries read or write: they take text only.

    Raises:
        UserError: also a name that is not text in this locale.
    """
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f'{path}: the name is not text in this locale: set PYTHONUTF8=1, or rename the folder'
        ) from error
    return local_path(path)


def csv_writer(file: IO[str]):
    r"""A `csv.writer` with lines that end with `\n`.

    With `lineterminator='\n'`, the module leaves cells with a carriage return unquoted, which readers take for the end of the row.
    """
    write = lambda row: file.write(row.removesuffix('\r\n') + '\n')
    return csv.writer(types.SimpleNamespace(write=write))


def docstring(file: str | os.PathLike) -> str:
    """The docstring of a Python file, which `python -OO` takes out of the module."""
    return ast.get_docstring(ast.parse(Path(file).read_text(encoding='utf-8'))) or ''


def set_compilation_cache(data_dir: str | os.PathLike = '~/.cache/ser_jax/records') -> None:
    """Makes JAX cache compiled programs next to the prepared corpora; to be called before JAX is imported.

    Small programs too: by default JAX recompiles those of less than a second at every start, and a run has forty.
    """
    folder = Path(data_dir).expanduser().parent / 'compiled'
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')


def temporary_beside(path: Path) -> Path:
    """Temporary path in the folder of another, for what will replace it; named after this machine and process."""
    return path.with_name(f'{path.name}.{_machine()}-{os.getpid()}.tmp')


def remove_leftovers(path: Path) -> None:
    """Removes what killed processes of this machine left next to a path (`temporary_beside`, or the same with .old)."""
    for left in path.parent.glob(f'{glob.escape(path.name)}.{_machine()}-*'):
        process = left.stem.rpartition('-')[2]
        if (
            left.suffix in ('.tmp', '.old')
            and process.isdecimal()
            and not _is_running(int(process))
        ):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Moves a finished folder (`temporary_beside`) to its place, over an older one."""
    old = temporary.with_suffix('.old')
    with signals.postponed():
        if folder.exists():
            os.replace(folder, old)
        os.replace(temporary, folder)
        shutil.rmtree(old, ignore_errors=True)
        remove_leftovers(folder)


def _machine() -> str:
    return f'{zlib.crc32(socket.gethostname().encode()):08x}'


def _is_running(process: int) -> bool:
    if os.name == 'nt':  # where signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Writes a file atomically: yields a temporary path, renamed to `path` unless the block raises; makes its folder."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
        remove_leftovers(path)
    except BaseException:  # e.g. a full disk
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def waiting_lock(path: Path, announce: Callable[[], object]) -> Iterator[None]:
    """Holds a lock file, which the system releases when the process ends; `announce` is called if another process has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w') as file:
        if try_lock(file) is False:
            import fcntl

            announce()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def try_lock(file: IO) -> bool | None:
    """Locks an open file until it is closed; returns whether it did, None on Windows and file systems without locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def write_atomically(path: str | os.PathLike, text: str) -> None:
    """Writes a text file atomically; its folder is created."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def write_json(path: str | os.PathLike, content) -> None:
    """Writes JSON atomically; NumPy values become plain ones and NaN becomes null. Makes its folder."""
    text = json.dumps(to_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + '\n')


def to_plain(value):
    """Converts NumPy values, tuples and mappings to what JSON holds; values that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    value = value.tolist() if hasattr(value, 'tolist') else value  # NumPy
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _head_sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.sha256(file.read(_HEAD)).hexdigest()


def write_checksums(folder: Path) -> None:
    """Writes the sizes and SHA-256 sums of a folder's other files to its `checksums.json`."""
    files = sorted(
        path for path in folder.iterdir() if path.is_file() and path.name != CHECKSUMS_FILE
    )
    sums = {
        path.name: {
            'bytes': path.stat().st_size,
            'head_sha256': _head_sha256(path),
            'sha256': file_sha256(path),
        }
        for path in files
    }
    (folder / CHECKSUMS_FILE).write_text(json.dumps(sums, indent=1), encoding='utf-8')


def damaged_file(folder: Path, *, whole: bool) -> str | None:
    """The first file that does not match its folder's `checksums.json`; None if all do.

    Args:
        folder: folder of a prepared corpus; without `checksums.json` it passes.
        whole: whether to read the files completely, not only their sizes and beginnings.
    """
    if not (folder / CHECKSUMS_FILE).exists():
        return None
    present = {path.name for path in folder.iterdir() if path.is_file()} - {CHECKSUMS_FILE}
    try:
        sums = json.loads((folder / CHECKSUMS_FILE).read_text(encoding='utf-8'))
        if not sums or sums.keys() - present:
            return min(sums.keys() - present, default='') or CHECKSUMS_FILE
        for name, expected in sums.items():
            path = folder / name
            found = file_sha256(path) if whole else _head_sha256(path)
            if (
                path.stat().st_size != expected['bytes']
                or found != expected['sha256' if whole else 'head_sha256']
            ):
                return name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return CHECKSUMS_FILE
    return None
