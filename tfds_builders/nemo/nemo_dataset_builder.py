"""nEMO (Christop, LREC-COLING 2024): Polish, 9 actors, 6 emotions, 4481 utterances."""

import csv
import pathlib

from ser_jax.data.records import GENDERS
from ser_jax.runtime.errors import UserError
from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import audio_files, file_notes, with_files
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
        """Lists the rows of `data.tsv` that have a recording, `samples/*.wav` (or flac).

        Raises:
            UserError: no table, a missing column, an unknown label, or no recording.
        """
        table = _read(folder / _TABLE)
        rows = [_utterance(row, folder / _TABLE) for row in table]
        files = audio_files(folder, 'samples/*')
        wanted = {row.id: row for row in rows}
        found = with_files(sorted(wanted.values(), key=lambda row: row.id), files)
        if not found:
            raise UserError(
                f'no nEMO utterance in {folder}: expected {folder}/samples/WR0_surprised_70.wav and so on'
            )
        notes = file_notes(files, wanted.keys() & files.keys(), 'nEMO')
        if any(row['speaker_id'] != row['speaker_id'].strip() for row in table):
            notes.append('speaker ids are padded with blanks, as published; they are stripped')
        return Listing(found, rows, tuple(notes), (_TABLE,), cls.PUBLISHED)


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UserError(f'no {_TABLE} in {path.parent}: it holds the labels of nEMO')
    with path.open(encoding='utf-8', newline='') as file:
        table = csv.DictReader(file, delimiter='\t')
        needed = ('file_id', 'emotion', 'speaker_id', 'gender')
        absent = [name for name in needed if name not in (table.fieldnames or ())]
        if absent:
            raise UserError(f'{path} has no column {absent[0]!r}')
        rows = list(table)
    for line, row in enumerate(rows, 2):
        if not all(row[name] for name in needed):
            raise UserError(f'{path}, line {line}: {", ".join(needed)} must not be empty')
    return rows


def _utterance(row: dict[str, str], path: pathlib.Path) -> Utterance:
    name = pathlib.PurePath(row['file_id'].strip()).stem
    emotion = row['emotion'].strip()
    if emotion not in _EMOTIONS:
        raise UserError(f'{path}: {name} has the unknown emotion {emotion!r}')
    return Utterance(
        id=f'samples/{name}',
        emotion=_EMOTIONS[emotion],
        # The published table pads the speakers with blanks.
        speaker=f'nemo/{row["speaker_id"].strip()}',
        script=name.rpartition('_')[2],
        language='pl',
        gender=gender if (gender := row['gender'].strip()) in GENDERS else '',
    )
