"""Finds the recordings below a folder, and whether they have changed since."""

import collections
import os
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
    """Searches a folder at any depth; linked folders are followed, each folder is searched once.

    Args:
        folder: path of the folder, the beginning of all paths found.
    """
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
    """One line on the files of a folder that are not read, by ending, with some names; '' if there are none."""
    endings = collections.defaultdict(list)
    for path in found.others:
        endings[path.suffix.lower() or 'no ending'].append(path.name)
    parts = [
        f'{ending} {len(names)} ({", ".join(names[:_MOST_NAMES])}{", …" * (len(names) > _MOST_NAMES)})'
        for ending, names in sorted(endings.items())
    ]
    text = ''
    if parts:
        text = f'passed over {len(found.others)} files that are not read: {", ".join(parts)}'
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
    """Size and time of recordings, to notice later whether they have changed.

    Args:
        folder: folder of the recordings.
        names: paths relative to the folder; None = all recordings below it.

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
