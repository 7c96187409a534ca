"""Local paths, checksums of files, and writes that are atomic."""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ser_jax.runtime.errors import UserError


def local_path(path: str | os.PathLike) -> Path:
    """A path with `~` expanded.

    Raises:
        UserError: the address of a bucket, which would quietly become a folder `gs:` here.
    """
    if re.match(r'[a-z0-9]{2,}:/', text := os.fspath(path)):  # Path makes one slash of two
        raise UserError(
            f'{text} is no folder: mount the bucket and name the folder it is mounted on, as cloud/README.md says'
        )
    return Path(path).expanduser()


def keep_compiled(data_dir: str | os.PathLike = '~/.cache/ser_jax/records') -> None:
    """Has JAX keep what it compiles beside the prepared corpora, for the next start; before JAX is imported.

    Small programs, too: JAX would compile those of less than a second each time, and a run has forty.

    Args:
        data_dir: where the corpora lie.
    """
    folder = Path(data_dir).expanduser().parent / 'compiled'
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')


CHECKSUMS_FILE = 'checksums.json'


_HEAD = 1 << 16  # bytes at the beginning of a file that are looked at whenever it is opened


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def write_checksums(folder: Path) -> None:
    """Writes sizes and SHA-256 sums of all files of a folder into it."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    sums = {
        path.name: {
            'bytes': path.stat().st_size,
            'head_sha256': _head_sha256(path),
            'sha256': file_sha256(path),
        }
        for path in files
    }
    (folder / CHECKSUMS_FILE).write_text(json.dumps(sums, indent=1), encoding='utf-8')


def _head_sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.sha256(file.read(_HEAD)).hexdigest()


def damaged_file(folder: Path, *, whole: bool) -> str | None:
    """The first file of a prepared corpus that is not what was written; None where all are.

    Args:
        folder: of the corpus; one prepared before there were checksums passes.
        whole: whether to read the files, and not only their sizes and beginnings.
    """
    if not (folder / CHECKSUMS_FILE).exists():
        return None
    there = {path.name for path in folder.iterdir() if path.is_file()} - {CHECKSUMS_FILE}
    try:
        sums = json.loads((folder / CHECKSUMS_FILE).read_text(encoding='utf-8'))
        if not sums or sums.keys() - there:
            return min(sums.keys() - there, default='') or CHECKSUMS_FILE
        for name, told in sums.items():
            path = folder / name
            found = file_sha256(path) if whole else _head_sha256(path)
            if (
                path.stat().st_size != told['bytes']
                or found != told['sha256' if whole else 'head_sha256']
            ):
                return name
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return CHECKSUMS_FILE
    return None


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_text(text, encoding='utf-8')
        os.replace(temporary, path)
    except OSError:  # a full disk
        temporary.unlink(missing_ok=True)
        raise


def write_json(path, content) -> None:
    """Writes JSON, whole or not at all; NumPy values become plain ones and NaN becomes null.

    Args:
        path: file to write; its folder is made.
        content: dicts, lists, scalars and arrays.
    """
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(Path(path), text + '\n')


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value
