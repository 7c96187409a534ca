"""ESC-10 (Piczak, ACM Multimedia 2015): environmental noise, 10 types, 400 clips of 5 s."""

import pathlib
import re

from ser_jax.errors import UserError
from tfds_builders.base import CorpusBuilder, Listing
from tfds_builders.folders import audio_files
from tfds_builders.utterance import Utterance

_FOLDER = re.compile(r'\d{3} - (?P<type>[\w ]+)')


class Builder(CorpusBuilder):
    """Builder of ESC-10: `002 - Rain/1-17367-A.ogg`. The type, such as `rain` or `baby_cry`, is the record's `script`."""

    PROTOCOL = None
    PUBLISHED = 400
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        'download ESC-10 from https://github.com/karolpiczak/ESC-10 (commit 553c8f1; it holds the folders '
        '"001 - Dog bark"/ to "010 - Fire crackling"/)'
    )

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the clips in the folders of the ten types.

        Raises:
            UserError: there is none.
        """
        utterances = []
        for name, path in audio_files(folder, '* - */*').items():
            kind = _FOLDER.fullmatch(name.split('/')[0])
            if kind:
                script = kind['type'].lower().replace(' ', '_')
                utterances.append(Utterance(id=name, path=str(path), script=script))
        if not utterances:
            raise UserError(
                f'no ESC-10 clip in {folder}: expected {folder}/002 - Rain/1-17367-A.ogg and so on'
            )
        return Listing(utterances, n_published=cls.PUBLISHED)
