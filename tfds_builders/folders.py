"""Finding the audio files of a corpus."""

import pathlib

# The first ending wins where a recording lies there twice.
LOSSLESS = ('.wav', '.flac')


def audio_files(
    folder: pathlib.Path, pattern: str, endings: tuple[str, ...] = LOSSLESS
) -> dict[str, pathlib.Path]:
    """Audio files below a folder by id, sorted by id.

    Args:
        folder: the corpus.
        pattern: glob without ending, relative to it, such as 'wav/*' or 'Actor_*/*'.
        endings: of audio files.

    Returns:
        id (path without ending, with '/') -> file, wav before flac; hidden files (such as the `._*` that macOS
        leaves) are passed over.
    """
    found = {}
    for ending in reversed(endings):
        for path in folder.glob(pattern):
            if path.suffix.lower() == ending and not path.name.startswith('.') and path.is_file():
                found[path.relative_to(folder).with_suffix('').as_posix()] = path
    return dict(sorted(found.items()))
