"""The index of a prepared corpus: a row a record, what it hashes to, and what it tells."""

import hashlib
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from ser_jax.runtime.files import file_sha256


def build_index(rows: list[dict]) -> dict[str, np.ndarray]:
    """Index rows -> one array a field, [N, ...]; texts as fixed-width unicode, readable without pickle."""
    index = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        dtype = np.int32 if name in ('emotion', 'gender') else None
        index[name] = np.array(values, dtype=dtype)
    return index


def corpus_hash(index: dict[str, np.ndarray], vocabulary: Sequence[str], front_end: dict) -> str:
    """SHA-256 of what a corpus holds: audio, labels, vocabulary and front end, whatever the machine or folder."""
    digest = hashlib.sha256(json.dumps([list(vocabulary), front_end], sort_keys=True).encode())
    for name in sorted(index):
        if not name.startswith('log_mel'):  # sums may differ in the last bit between machines
            digest.update(f'{name}={index[name].tolist()!r};'.encode())
    return digest.hexdigest()


def duplicate_notes(index: dict[str, np.ndarray]) -> list[str]:
    """A sentence for each recording that occurs under several ids."""
    by_audio: dict[str, list[str]] = {}
    for name, digest in zip(index['id'].tolist(), index['audio_sha256'].tolist()):
        by_audio.setdefault(digest, []).append(name)
    return [
        f'identical audio: {" = ".join(names)}' for names in by_audio.values() if len(names) > 1
    ]


def label_hashes(folder: pathlib.Path | None, files: Sequence[str]) -> dict[str, str]:
    """SHA-256 of the files the labels came from, to notice later edits."""
    return {name: file_sha256(folder / name) for name in files} if folder else {}
