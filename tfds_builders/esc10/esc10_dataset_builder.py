"""ESC-10 (Piczak, ACM Multimedia 2015): environmental noise, 10 types, 400 clips of 5 s."""

import pathlib

from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import LOSSLESS, audio_files, nothing_found
from tfds_builders.core.utterance import Utterance

_TYPES = {
    '001 - Dog bark': 'dog_bark',
    '002 - Rain': 'rain',
    '003 - Sea waves': 'sea_waves',
    '004 - Baby cry': 'baby_cry',
    '005 - Clock tick': 'clock_tick',
    '006 - Person sneeze': 'person_sneeze',
    '007 - Helicopter': 'helicopter',
    '008 - Chainsaw': 'chainsaw',
    '009 - Rooster': 'rooster',
    '010 - Fire crackling': 'fire_crackling',
}


class Builder(CorpusBuilder):
    """Builder of ESC-10: `002 - Rain/1-17367-A.ogg`. The type, such as `rain` or `baby_cry`, is the record's `script`."""

    PROTOCOL = None
    SAMPLE_RATE = 44100
    PUBLISHED = 400
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'download ESC-10 from https://github.com/karolpiczak/ESC-10 (commit 553c8f1; it holds the folders '
        '"001 - Dog bark"/ to "010 - Fire crackling"/)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the clips in the folders of the ten types."""
        files = audio_files(folder, '*/*', (*LOSSLESS, '.ogg'))
        utterances = [
            Utterance(id=name, path=str(path), script=_TYPES[name.split('/')[0]])
            for name, path in files.items()
            if name.split('/')[0] in _TYPES
        ]
        if not utterances:
            raise nothing_found('ESC-10 clip', folder, folder / '002 - Rain/1-17367-A.ogg')
        notes = []
        if len(utterances) < len(files):
            notes.append(f'{len(files) - len(utterances)} files are of none of the ten types')
        return Listing(utterances, notes=tuple(notes), n_published=cls.PUBLISHED)
