"""nEMO (Christop, LREC-COLING 2024): Polish, 9 actors, 6 emotions, 4481 utterances."""

import pathlib

from ser_jax.data.records import GENDERS
from ser_jax.runtime.errors import UserError
from tfds_builders.core.base import CorpusBuilder, Listing, list_labelled
from tfds_builders.core.folders import audio_files, nothing_found
from tfds_builders.core.tables import Row, read_csv
from tfds_builders.core.utterance import Utterance

_EMOTIONS = {
    'anger': 'angry',
    'fear': 'fearful',
    'happiness': 'happy',
    'neutral': 'neutral',
    'sadness': 'sad',
    'surprised': 'surprised',
}
_TABLE = 'data.tsv'
_NEEDED = ('file_id', 'emotion', 'speaker_id', 'gender')


class Builder(CorpusBuilder):
    """Builder of nEMO: `samples/WR0_surprised_70.wav` = speaker, emotion, sentence; labels from `data.tsv`."""

    LABELS = tuple(_EMOTIONS.values())
    PUBLISHED = 4481
    COUNTS = {  # noqa: RUF012
        'neutral': 809,
        'sad': 769,
        'happy': 749,
        'angry': 749,
        'fearful': 736,
        'surprised': 669,
    }
    SAMPLE_RATE = 24000
    DOWNLOAD = 'https://github.com/amu-cai/nEMO/archive/refs/heads/main.zip'
    PACKED_IN_FOLDER = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'download https://github.com/amu-cai/nEMO (it holds data.tsv and the folder samples/)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the rows of `data.tsv` that have a recording, `samples/*.wav` (or flac)."""
        rows = {row.id: row for row in map(_utterance, _read(folder / _TABLE))}
        rows, files = [rows[name] for name in sorted(rows)], audio_files(folder, 'samples/*')
        nothing = nothing_found('nEMO utterance', folder, folder / 'samples/WR0_surprised_70.wav')
        return list_labelled(rows, files, 'nEMO', nothing, (_TABLE,), cls.PUBLISHED)


def _read(path: pathlib.Path) -> list[Row]:
    if not path.is_file():
        raise UserError(f'no {_TABLE} in {path.parent}: it holds the labels of nEMO')
    rows = read_csv(path, _NEEDED)
    for row in rows:
        if not all(row.cells[name] for name in _NEEDED):
            raise UserError(f'{row.where}: {", ".join(_NEEDED)} must not be empty')
    return rows


def _utterance(row: Row) -> Utterance:
    cells = row.cells
    name = pathlib.PurePath(cells['file_id']).stem
    if cells['emotion'] not in _EMOTIONS:
        raise UserError(f'{row.where}: {name} has the unknown emotion {cells["emotion"]!r}')
    return Utterance(
        id=f'samples/{name}',
        emotion=_EMOTIONS[cells['emotion']],
        speaker=f'nemo/{cells["speaker_id"]}',
        script=name.rpartition('_')[2],
        language='pl',
        gender=cells['gender'] if cells['gender'] in GENDERS else '',
    )
