"""Finds the recordings below a folder, and whether they have changed since."""

import collections
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ser_jax.audio.reading import AUDIO_ENDINGS

_MOST_NAMES = 3  # of each ending
# Recordings that libsndfile does not read.
_CONVERTIBLE = {
    *('.3gp', '.aac', '.ac3', '.amr', '.ape', '.avi', '.dss', '.m4a', '.m4b', '.mka', '.mkv'),
    *('.mov', '.mp4', '.mpg', '.ra', '.tta', '.webm', '.wma', '.wv'),
}
# Tables, answers and pages that ser_jax reads or writes, usually next to recordings.
_NOT_RECORDINGS = {'.csv', '.html', '.json', '.jsonl', '.textgrid'}


class Found(NamedTuple):
    """The files below a folder. Names that begin with a dot, such as the `._NAME` of macOS, are left out.

    Attributes:
        audio: files with an ending of `AUDIO_ENDINGS`, sorted.
        others: the other files, sorted.
        unreadable: folders that cannot be read, sorted.
    """

    audio: list[Path]
    others: list[Path]
    unreadable: list[Path]


def find_audio(folder: str | os.PathLike) -> Found:
    """Searches a folder at any depth; linked folders are followed, each folder is searched once."""
    folders, links, searched = [Path(folder)], [], set()
    found = Found([], [], [])
    while folders or links:  # links last: a folder that lies below, too, keeps its own path
        current = folders.pop() if folders else links.pop()
        identity = os.path.realpath(current)
        if identity in searched:
            continue
        searched.add(identity)
        hidden = any(part.startswith('.') for part in current.relative_to(folder).parts)
        try:
            entries = list(os.scandir(current))
        except OSError:
            found.unreadable.append(current)
            continue
        for entry in entries:
            path = current / entry.name
            if entry.is_symlink() and path.is_dir():
                links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif not entry.name.startswith('.'):
                if path.suffix.lower() in AUDIO_ENDINGS:
                    found.audio.append(path)
                elif not hidden:
                    found.others.append(path)
        links.sort(reverse=True)
    for paths in found:
        paths.sort()
    return found


def passed_over(found: Found) -> str:
    """One line on the files of a folder that may be recordings but are not read, by ending, with some names; '' if there are none."""
    endings = collections.defaultdict(list)
    for path in found.others:
        if (ending := path.suffix.lower()) not in _NOT_RECORDINGS:
            endings[ending or 'no ending'].append(path.name)
    parts = [
        f'{ending} {len(names)} ({", ".join(names[:_MOST_NAMES])}{", …" * (len(names) > _MOST_NAMES)})'
        for ending, names in sorted(endings.items())
    ]
    text = ''
    if parts:
        count = sum(map(len, endings.values()))
        files = '1 file that is' if count == 1 else f'{count} files that are'
        text = f'passed over {files} not read: {", ".join(parts)}'
        if endings.keys() & _CONVERTIBLE:
            text += '; convert recordings among them, e.g. ffmpeg -i NAME.m4a NAME.wav'
    if found.unreadable:
        text += (
            '; ' * bool(text) + f'cannot read the folders {", ".join(map(str, found.unreadable))}'
        )
    return text


def file_states(
    folder: str | os.PathLike, names: Iterable[str] | None = None
) -> dict[str, list[int] | None]:
    """Size and time of recordings, to notice later whether they have changed; by default of all recordings below a folder.

    Returns:
        Relative path -> [bytes, time of the last change in nanoseconds]; None for a missing file.
    """
    if names is None:
        names = [path.relative_to(folder).as_posix() for path in find_audio(folder).audio]
    return {name: _state(os.path.join(folder, name)) for name in names}


def _state(path: str) -> list[int] | None:
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return None
    return [stat.st_size, stat.st_mtime_ns]


class SimilarNames:
    """Finds the files that are meant by names with another spelling: case, Unicode form, ending, or folder.

    Args:
        names: paths of files as text, with '/'.
    """

    def __init__(self, names: Iterable[str]):
        self._names = collections.defaultdict(list)
        for name in sorted(names):
            self._names[_key(name)[-1]].append(name)

    def find(self, wanted: str) -> tuple[str, str]:
        """(file with the most similar name, difference such as 'in another folder'); ('', '') where no name is similar."""
        parts = _key(wanted)
        same = lambda name: [one == other for one, other in zip(_key(name)[::-1], parts[::-1])]
        name = max(self._names.get(parts[-1], ['']), key=same)
        return name, _difference(wanted, name) if name else ''


def _key(name: str) -> list[str]:
    """The parts of a path, without differences of case, Unicode form and ending."""
    parts = unicodedata.normalize('NFKC', name.replace('\\', '/')).casefold().split('/')
    stem, ending = os.path.splitext(parts[-1])
    return [*parts[:-1], stem if ending in AUDIO_ENDINGS else parts[-1]]


def _difference(one: str, other: str) -> str:
    plain = lambda name: unicodedata.normalize('NFC', name)
    if plain(one) == plain(other):
        return 'in another Unicode form'
    if plain(one).casefold() == plain(other).casefold():
        return 'in another case'
    return 'with another ending' if _key(one) == _key(other) else 'in another folder'
