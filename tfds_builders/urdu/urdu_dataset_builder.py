"""URDU (Latif et al., FIT 2018): talk-show speech in Urdu, 29 speakers, 4 emotions, 400 utterances."""

import pathlib
import re

from tfds_builders.core.base import CorpusBuilder, Listing, list_labelled
from tfds_builders.core.folders import audio_files, nothing_found
from tfds_builders.core.utterance import Utterance

_EMOTIONS = {'Angry': 'angry', 'Happy': 'happy', 'Neutral': 'neutral', 'Sad': 'sad'}
_NAME = re.compile(r'(?P<folder>\w+)/S(?P<gender>[MF])(?P<number>\d+)_F\d+_[AHNS]\d+')


def _published() -> list[str]:
    """Ids of all 400."""
    return pathlib.Path(__file__).with_name('published.txt').read_text().split()


class Builder(CorpusBuilder):
    """Builder of URDU: `Angry/SM1_F10_A010.wav` = male speaker 1, file 10, emotion A, number 10.

    Men and women are numbered separately: a speaker is gender and number. 26 of the 29 speakers have one emotion only:
    results within this corpus would confound the two, hence no default protocol.
    """

    LABELS = tuple(_EMOTIONS.values())
    PROTOCOL = None
    SAMPLE_RATE = 44100
    DOWNLOAD = 'https://github.com/siddiquelatif/URDU-Dataset/archive/refs/heads/master.zip'
    PACKED_IN_FOLDER = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'download https://github.com/siddiquelatif/URDU-Dataset (it holds the folders Angry/ Happy/ '
        'Neutral/ Sad/)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists `Angry/*.wav` (or flac) and so on."""
        nothing = nothing_found('URDU utterance', folder, folder / 'Angry/SM1_F10_A010.wav')
        rows = [_utterance(name) for name in _published()]
        return list_labelled(rows, audio_files(folder, '*/*'), 'URDU', nothing)


def _utterance(name: str) -> Utterance:
    parts = _NAME.fullmatch(name)
    return Utterance(
        id=name,
        emotion=_EMOTIONS[parts['folder']],
        speaker=f'urdu/{parts["gender"]}{parts["number"]}',
        language='ur',
        gender='male' if parts['gender'] == 'M' else 'female',
    )
