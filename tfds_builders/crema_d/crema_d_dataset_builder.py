"""CREMA-D (Cao et al., IEEE TAFFC 2014): English, 91 actors, 12 sentences, 6 emotions, 7442 utterances."""

import pathlib
import re

from ser_jax.data.records import GENDERS
from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import audio_files, file_notes, nothing_found
from tfds_builders.core.tables import read_csv
from tfds_builders.core.utterance import Utterance

_EMOTIONS = {
    'ANG': 'angry',
    'DIS': 'disgusted',
    'FEA': 'fearful',
    'HAP': 'happy',
    'NEU': 'neutral',
    'SAD': 'sad',
}
_NAME = re.compile(rf'AudioWAV/(\d{{4}})_([A-Z]{{3}})_({"|".join(_EMOTIONS)})_(LO|MD|HI|XX?)')
_TABLE = 'VideoDemographics.csv'
_COLUMNS = ('ActorID', 'Sex')


class Builder(CorpusBuilder):
    """Builder of CREMA-D: `AudioWAV/1001_DFA_ANG_XX.wav` = actor, sentence, emotion, intensity.

    The label is the acted emotion; the ratings of listeners are not read.
    """

    LABELS = tuple(_EMOTIONS.values())
    PROTOCOL = 'speaker_folds(5)'
    PUBLISHED = 7442
    COUNTS = dict.fromkeys(_EMOTIONS.values(), 1271) | {'neutral': 1087}
    SAMPLE_RATE = 16000
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'download https://github.com/CheyneyComputerScience/CREMA-D (git lfs; it holds AudioWAV/ and '
        f'{_TABLE})'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists `AudioWAV/*.wav` (or flac)."""
        files = audio_files(folder, 'AudioWAV/*')
        names = {name: match for name in files if (match := _NAME.fullmatch(name))}
        if not names:
            raise nothing_found(
                'CREMA-D utterance', folder, folder / 'AudioWAV/1001_DFA_ANG_XX.wav'
            )
        notes, genders = file_notes(files, names, 'CREMA-D'), {}
        if (folder / _TABLE).is_file():
            genders = _read_genders(folder / _TABLE)
        else:
            notes.append(f'no {_TABLE}: genders are unknown')
        utterances = [_utterance(match, files[name], genders) for name, match in names.items()]
        return Listing(
            utterances,
            notes=tuple(notes),
            label_files=(_TABLE,),
            n_published=cls.PUBLISHED,
        )


def _read_genders(path: pathlib.Path) -> dict[str, str]:
    """Actor -> gender."""
    sexes = {row.cells['actorid']: row.cells['sex'].lower() for row in read_csv(path, _COLUMNS)}
    return {actor: sex if sex in GENDERS else '' for actor, sex in sexes.items()}


def _utterance(match: re.Match, path: pathlib.Path, genders: dict[str, str]) -> Utterance:
    actor, sentence, emotion, _ = match.groups()
    return Utterance(
        id=match[0],
        path=str(path),
        emotion=_EMOTIONS[emotion],
        speaker=f'crema_d/{actor}',
        script=sentence,
        language='en',
        gender=genders.get(actor, ''),
    )
