"""Records and their index rows; and a shard that a Beam worker makes all by itself."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ser_jax.audio.log_mel import FrontEnd, mel_matrix
from ser_jax.data.records import DIMENSIONS, GENDERS
from tfds_builders.core.index import build_index
from tfds_builders.core.utterance import Problem, Recording, Utterance, record

TEXTS = ('speaker', 'session', 'script', 'language')
_SIDECAR = 'rows-{:05d}.npz'


def record_of(
    item: Utterance, recording: Recording, names: Sequence[str], sample_rate: int
) -> tuple[dict, dict]:
    """Every field of a record but its array, and of its row of the index.

    Args:
        item: the utterance.
        recording: its audio.
        names: of the emotion codes.
        sample_rate: of the recording, Hz.

    Returns:
        (record, index row: the record and the sums over its log-mel, float64 [F] each).
    """
    fields = {
        'id': item.id,
        'emotion': names.index(item.emotion) if item.emotion else -1,
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


@dataclasses.dataclass(frozen=True)
class Shard:
    """The records of some utterances, called where a Beam worker may be; the rows of the index are left in a file beside them.

    Attributes:
        number: of the shard.
        utterances: of the shard.
        load: (utterance, sample rate) -> int16 [S], importable by name.
        front_end: log-mel parameters.
        names: of the emotion codes.
        representation: 'log_mel' or 'waveform'.
        folder: for the rows.
    """

    number: int
    utterances: tuple[Utterance, ...]
    load: Callable[[Utterance, int], np.ndarray]
    front_end: FrontEnd
    names: tuple[str, ...]
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
            fields, row = record_of(item, recording, self.names, self.front_end.sample_rate)
            rows.append(row)
            yield item.id, {**fields, self.representation: getattr(recording, self.representation)}
        skipped = json.dumps([dataclasses.asdict(problem) for problem in problems])
        path = pathlib.Path(self.folder) / _SIDECAR.format(self.number)
        np.savez(path, skipped=np.array(skipped), **(build_index(rows) if rows else {}))


def take_rows(folder: pathlib.Path, shards: int) -> tuple[dict[str, np.ndarray], list[Problem]]:
    """Reads and removes what the shards have left.

    Args:
        folder: where.
        shards: how many there are.

    Returns:
        (index, {} where there is no record; utterances without a usable recording).
    """
    parts, problems = [], []
    for number in range(shards):
        path = folder / _SIDECAR.format(number)
        with np.load(path, allow_pickle=False) as stored:
            part = {name: stored[name] for name in stored.files}
        problems += [Problem(**problem) for problem in json.loads(str(part.pop('skipped')))]
        parts += [part] * bool(part)
        path.unlink()
    names = parts[0] if parts else ()
    return {name: np.concatenate([part[name] for part in parts]) for name in names}, problems
