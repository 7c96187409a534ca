"""Files of a corpus folder: audio, lists of labels, and notes on them."""

import codecs
import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

from ser_jax.audio.containers import lacks_end
from ser_jax.runtime.errors import UserError
from tfds_builders.core.utterance import Utterance

# Where a recording exists in several formats, the first ending counts.
LOSSLESS = ('.wav', '.flac')
_OGG = ('.ogg', '.oga', '.opus')
_MARKS = {codecs.BOM_UTF16_LE: 'UTF-16', codecs.BOM_UTF16_BE: 'UTF-16'}


def audio_files(
    folder: pathlib.Path, pattern: str, endings: tuple[str, ...] = LOSSLESS
) -> dict[str, pathlib.Path]:
    """Audio files below a folder by id, sorted by id.

    Args:
        folder: folder of the corpus.
        pattern: glob without ending, relative to the folder, such as 'wav/*' or 'Actor_*/*'.
        endings: endings of audio files, preferred ones first.

    Returns:
        id (path without ending, with '/') -> file. Hidden files, such as the `._*` of macOS, are skipped.
    """
    rank = {ending: n for n, ending in enumerate(endings)}
    found = {}
    for path in folder.glob(pattern):
        ending = path.suffix.lower()
        if ending not in rank or path.name.startswith('.') or not path.is_file():
            continue
        name = relative_id(folder, path)
        if name not in found or rank[ending] < rank[found[name].suffix.lower()]:
            found[name] = path
    return dict(sorted(found.items()))


def relative_id(folder: pathlib.Path, path: pathlib.Path, *, ending: bool = False) -> str:
    """The id of a file: its path relative to the folder with '/', without ending unless asked for."""
    relative = path.relative_to(folder)
    name = (relative if ending else relative.with_suffix('')).as_posix()
    return name.encode('utf-8', 'backslashreplace').decode()  # file names need not be valid text


def nothing_found(what: str, folder: pathlib.Path, *files: pathlib.Path | str) -> UserError:
    """The error of a folder without a recording of a corpus; names files of it as examples."""
    return UserError(f'no {what} in {folder}: expected {", ".join(map(str, files))} and so on')


def with_files(
    utterances: Iterable[Utterance], files: Mapping[str, pathlib.Path]
) -> list[Utterance]:
    """The utterances of a list of labels that have a recording in `files` (`audio_files`), with its path."""
    return [
        dataclasses.replace(item, path=str(files[item.id]))
        for item in utterances
        if item.id in files
    ]


def read_text(path: pathlib.Path) -> str:
    """Reads a file of labels; raises UserError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding='utf-8-sig')
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except UnicodeDecodeError as error:
        encoding = _MARKS.get(error.object[:2])
        line = 1 + error.object.count(b'\n', 0, error.start)
        problem = f'is text in {encoding}' if encoding else f'line {line} is not text in UTF-8'
        raise UserError(
            f'{path} {problem} (byte {error.start}): save it in UTF-8 (spreadsheets: "CSV UTF-8")'
        ) from error


def file_notes(files: Mapping[str, pathlib.Path], found: Iterable[str], corpus: str) -> list[str]:
    """Notes on foreign and recoded files of a corpus folder.

    Args:
        files: result of `audio_files`.
        found: ids that belong to the corpus, which its owner distributes as wav.
        corpus: name in the note on foreign files, such as 'EMO-DB'.

    Returns:
        One sentence each.
    """
    found, notes = set(found), []
    foreign = sorted(set(files) - found)
    if foreign:
        notes.append(f'{len(foreign)} files are not of {corpus} and left out: {foreign[0]}, …')
    recoded = sum(files[name].suffix.lower() != '.wav' for name in found)
    if recoded:
        notes.append(f'{recoded} files are recoded (flac)')
    return notes


def open_end_notes(utterances: Iterable[Utterance]) -> list[str]:
    """A note on ogg files that may be cut off: nothing in them states their size."""
    paths = [pathlib.Path(item.path) for item in utterances]
    paths = [path for path in paths if path.suffix.lower() in _OGG and path.is_file()]
    names = [path.name for path in paths if lacks_end(path)]
    if not names:
        return []
    return [
        f'{len(names)} ogg files do not end with a last page: cut off there, or from a program that does not mark it (recorders of '
        f'Android): {", ".join(names[:3])}{", …" * (len(names) > 3)}'
    ]
