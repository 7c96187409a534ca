"""folder/<name>: any folder of recordings, as speech (or noise) without labels."""

import pathlib
from collections.abc import Sequence

import numpy as np

from ser_jax.audio.finding import find_audio, passed_over
from ser_jax.audio.reading import AUDIO_ENDINGS, AudioError, read_audio
from ser_jax.runtime.errors import UserError
from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.folders import relative_id
from tfds_builders.core.utterance import Utterance


class Builder(CorpusBuilder):
    """Builder of folders: all recordings below the folder, at any depth; `script` is the name of the containing folder.

    Without labels and speakers: for `config.unlabelled`, and as noise, whose type is the `script`.
    """

    PROTOCOL = None
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'it needs a folder with recordings'

    @classmethod
    def list_utterances(cls, folder: pathlib.Path) -> Listing:
        """Lists the recordings."""
        found = find_audio(folder)
        rest = passed_over(found)
        dangling = [path for path in found.audio if not path.is_file()]
        if dangling:
            rest += '; ' * bool(rest) + f'{len(dangling)} links lead nowhere: {dangling[0]}, …'
        if len(dangling) == len(found.audio):
            raise UserError(
                f'no recording below {folder}: one of {", ".join(AUDIO_ENDINGS)}'
                + (f'; {rest}' if rest else '')
            )
        files, copies = _by_id(folder, [path for path in found.audio if path.is_file()])
        parent = lambda name: pathlib.PurePosixPath(name).parent.name
        utterances = [
            Utterance(id=name, path=str(path), script=parent(name)) for name, path in files.items()
        ]
        notes = [rest] * bool(rest)
        if copies:
            notes.append(
                f'{len(copies)} recordings are there in two formats, with the same audio, and are used once: {copies[0]}, …'
            )
        return Listing(utterances, notes=tuple(notes))


def _by_id(
    folder: pathlib.Path, paths: Sequence[pathlib.Path]
) -> tuple[dict[str, pathlib.Path], list[str]]:
    """Files by id (path without ending), and the names of the files left out as copies.

    Of files that differ in their ending only, those with other audio keep the ending in their id.
    """
    files, copies = {}, []
    rank = lambda path: (AUDIO_ENDINGS.index(path.suffix.lower()), path)
    for path in sorted(paths, key=rank):
        name, short = (relative_id(folder, path, ending=ending) for ending in (True, False))
        if short not in files:
            files[short] = path
        elif _same_audio(files[short], path):
            copies.append(name)
        else:
            while name in files:
                name += '+'
            files[name] = path
    return dict(sorted(files.items())), sorted(copies)


def _same_audio(one: pathlib.Path, other: pathlib.Path) -> bool:
    try:
        return np.array_equal(read_audio(one), read_audio(other))
    except AudioError:
        return False  # both are listed: the build reports what cannot be read
