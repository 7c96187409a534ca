"""Whether the files of a folder are still what was written."""

import hashlib
import json
import os
from pathlib import Path

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
