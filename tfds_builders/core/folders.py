"""Finding the audio files of a corpus."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

from ser_jax.runtime.errors import UserError
from tfds_builders.core.utterance import Utterance

# The first ending wins where a recording lies there twice.
LOSSLESS = ('.wav', '.flac')


def audio_files(
    folder: pathlib.Path, pattern: str, endings: tuple[str, ...] = LOSSLESS
) -> dict[str, pathlib.Path]:
    """Audio files below a folder by id, sorted by id.

    Args:
        folder: the corpus.
        pattern: glob without ending, relative to it, such as 'wav/*' or 'Actor_*/*'.
        endings: of audio files, preferred ones first.

    Returns:
        id (path without ending, with '/') -> file; hidden files (such as the `._*` that macOS
        leaves) are passed over.
    """
    rank = {ending: n for n, ending in enumerate(endings)}
    found = {}
    for path in folder.glob(pattern):
        ending = path.suffix.lower()
        if ending not in rank or path.name.startswith('.') or not path.is_file():
            continue
        name = path.relative_to(folder).with_suffix('').as_posix()
        name = name.encode('utf-8', 'backslashreplace').decode()  # it may be no text, an id is
        if name not in found or rank[ending] < rank[found[name].suffix.lower()]:
            found[name] = path
    return dict(sorted(found.items()))


def with_files(
    utterances: Iterable[Utterance], files: Mapping[str, pathlib.Path]
) -> list[Utterance]:
    """Those utterances of a list of labels whose recording is there, with its path.

    Args:
        utterances: without paths.
        files: of `audio_files`.
    """
    return [
        dataclasses.replace(item, path=str(files[item.id]))
        for item in utterances
        if item.id in files
    ]


def read_text(path: pathlib.Path) -> str:
    """A file of labels as text.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path} is not text in UTF-8 (byte {error.start})') from error


def file_notes(files: Mapping[str, pathlib.Path], found: Iterable[str], where: str) -> list[str]:
    """What a user should know of the files of a corpus: which are strangers, and how many are recoded.

    Args:
        files: of `audio_files`.
        found: ids of those that belong to the corpus, which its owner distributes as wav.
        where: what strangers are not of, such as 'EMO-DB'.

    Returns:
        One sentence each.
    """
    found, notes = set(found), []
    strangers = sorted(set(files) - found)
    if strangers:
        notes.append(f'{len(strangers)} files are not of {where} and left out: {strangers[0]}, …')
    recoded = sum(files[name].suffix.lower() != '.wav' for name in found)
    if recoded:
        notes.append(f'{recoded} files are recoded (flac)')
    return notes
