"""folder/<name>: any folder of recordings, as speech (or noise) without labels."""

import pathlib

from ser_jax.audio.reading import AUDIO_ENDINGS
from ser_jax.runtime.errors import UserError
from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import audio_files
from tfds_builders.core.utterance import Utterance


class Builder(CorpusBuilder):
    """Builder of folders: all recordings below the folder, at any depth; `script` is the name of the containing folder.

    Without labels and speakers: for `config.unlabelled`, and as noise, whose type is the `script`.
    """

    PROTOCOL = None
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'it needs a folder with recordings'

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the recordings.

        Raises:
            UserError: no recording found.
        """
        files = audio_files(folder, '**/*', AUDIO_ENDINGS)
        if not files:
            raise UserError(f'no recording below {folder}: one of {", ".join(AUDIO_ENDINGS)}')
        parent = lambda name: pathlib.PurePosixPath(name).parent.name
        utterances = [
            Utterance(id=name, path=str(path), script=parent(name)) for name, path in files.items()
        ]
        return Listing(utterances)
