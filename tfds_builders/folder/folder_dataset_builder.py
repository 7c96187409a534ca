"""folder/<name>: any folder of recordings, as speech (or noise) without labels."""

import pathlib

from ser_jax.audio.reading import AUDIO_ENDINGS
from ser_jax.runtime.errors import UserError
from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import audio_files
from tfds_builders.core.utterance import Utterance


class Builder(CorpusBuilder):
    """Builder of folders: every recording below the folder, however deep. The folder it lies in is the record's `script`.

    Nothing is known of them, the speakers neither: for `config.unlabelled`, and, by the names of the folders, as noise of several types.
    """

    PROTOCOL = None
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'it needs a folder with recordings'

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the recordings.

        Raises:
            UserError: there is none.
        """
        files = audio_files(folder, '**/*', AUDIO_ENDINGS)
        if not files:
            raise UserError(f'no recording below {folder}: one of {", ".join(AUDIO_ENDINGS)}')
        parent = lambda name: pathlib.PurePosixPath(name).parent.name
        utterances = [
            Utterance(id=name, path=str(path), script=parent(name)) for name, path in files.items()
        ]
        return Listing(utterances)
