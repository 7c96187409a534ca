"""Records and their index: the fields of a record, its index row, and a shard that is built by one Beam worker.

The index of a corpus holds all fields but the arrays, one row a record, in the order of the records.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ser_jax.audio.log_mel import FrontEnd, mel_matrix
from ser_jax.data.records import DIMENSIONS, GENDERS
from tfds_builders.core.utterance import Problem, Recording, Utterance, record

TEXTS = ('speaker', 'session', 'script', 'language')
_ROWS_FILE = 'rows-{:05d}.npz'


def record_fields(
    item: Utterance, recording: Recording, vocabulary: Sequence[str], sample_rate: int
) -> tuple[dict, dict]:
    """All fields of a record but its array, and its index row: the fields and the sums over the frames of the log-mel."""
    fields = {
        'id': item.id,
        'emotion': vocabulary.index(item.emotion) if item.emotion else -1,
        'gender': GENDERS.index(item.gender) if item.gender else -1,
        'duration': np.float32(len(recording.waveform) / sample_rate),
        'frames': np.int32(len(recording.log_mel)),
        'audio_sha256': recording.audio_sha256,
        **{name: np.float32(getattr(item, name)) for name in DIMENSIONS},
        **{name: getattr(item, name) for name in TEXTS},
    }
    log_mel = recording.log_mel.astype(np.float64)
    sums = {'log_mel_sum': log_mel.sum(0), 'log_mel_squares': (log_mel**2).sum(0)}
    return fields, fields | sums


def build_index(rows: list[dict]) -> dict[str, np.ndarray]:
    """Index rows -> one array a field, [N, ...]; texts as fixed-width unicode, readable without pickle."""
    index = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        dtype = np.int32 if name in ('emotion', 'gender') else None
        index[name] = np.array(values, dtype=dtype)
    return index


def corpus_hash(index: dict[str, np.ndarray], vocabulary: Sequence[str], front_end: dict) -> str:
    """SHA-256 of a corpus' content: audio, labels, vocabulary and front end; the same on every machine."""
    digest = hashlib.sha256(json.dumps([list(vocabulary), front_end], sort_keys=True).encode())
    for name in sorted(index):
        if not name.startswith('log_mel'):  # sums may differ in the last bit between machines
            digest.update(f'{name}={index[name].tolist()!r};'.encode())
    return digest.hexdigest()


def duplicate_remarks(
    index: Mapping[str, Sequence], vocabulary: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Remarks on recordings that occur under several ids.

    Args:
        index: fields `id`, `audio_sha256`, `emotion` (-1 = none) and `speaker` ('' = unknown).
        vocabulary: names of the emotion codes.

    Returns:
        (warnings: one for each recording with several emotions or speakers; notes: one for each other recording).
    """
    by_audio, warnings, notes = collections.defaultdict(list), [], []
    for row, digest in enumerate(np.asarray(index['audio_sha256']).tolist()):
        by_audio[digest].append(row)
    for rows in filter(lambda rows: len(rows) > 1, by_audio.values()):
        emotions = {vocabulary[code] for row in rows if (code := int(index['emotion'][row])) >= 0}
        speakers = {str(index['speaker'][row]) for row in rows} - {''}
        text = f'identical audio: {" = ".join(str(index["id"][row]) for row in rows)}'
        several = [sorted(names) for names in (emotions, speakers) if len(names) > 1]
        if several:
            named = ' and '.join(' and '.join(map(repr, names)) for names in several)
            warnings.append(f'{text}, labelled {named}: correct the labels, or leave one out')
        else:
            notes.append(text)
    return warnings, notes


@dataclasses.dataclass(frozen=True)
class Shard:
    """The records of some utterances, generated on a Beam worker; their index rows go to a file in `folder`.

    Attributes:
        number: number of the shard.
        utterances: utterances of the shard.
        load: (utterance, sample rate) -> int16 [S], importable by name.
        front_end: log-mel parameters.
        vocabulary: names of the emotion codes.
        representation: 'log_mel' or 'waveform'.
        folder: folder of the index rows.
    """

    number: int
    utterances: tuple[Utterance, ...]
    load: Callable[[Utterance, int], np.ndarray]
    front_end: FrontEnd
    vocabulary: tuple[str, ...]
    representation: str
    folder: str

    def __call__(self) -> Iterator[tuple[str, dict]]:
        """Yields (id, record)."""
        mel, rows, problems = mel_matrix(self.front_end), [], []
        for item in self.utterances:
            recording = record(item, self.load, self.front_end, mel)
            if isinstance(recording, Problem):
                problems.append(recording)
                continue
            fields, row = record_fields(
                item, recording, self.vocabulary, self.front_end.sample_rate
            )
            rows.append(row)
            yield item.id, {**fields, self.representation: getattr(recording, self.representation)}
        skipped = json.dumps([dataclasses.asdict(problem) for problem in problems])
        path = pathlib.Path(self.folder) / _ROWS_FILE.format(self.number)
        np.savez(path, skipped=np.array(skipped), **(build_index(rows) if rows else {}))


def collect_rows(folder: pathlib.Path, shards: int) -> tuple[dict[str, np.ndarray], list[Problem]]:
    """Reads and removes the index rows that Beam's shards wrote: (index, {} without records; unusable utterances)."""
    parts, problems = [], []
    for number in range(shards):
        path = folder / _ROWS_FILE.format(number)
        with np.load(path, allow_pickle=False) as stored:
            part = {name: stored[name] for name in stored.files}
        problems += [Problem(**problem) for problem in json.loads(str(part.pop('skipped')))]
        parts += [part] * bool(part)
        path.unlink()
    names = parts[0] if parts else ()
    return {name: np.concatenate([part[name] for part in parts]) for name in names}, problems
