"""Finds audio files, decodes and predicts them, with bounded memory."""

import concurrent.futures
import functools
import glob
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.audio.finding import SimilarNames, find_audio, passed_over
from ser_jax.audio.reading import AUDIO_ENDINGS, AudioError, file_seconds, read_audio
from ser_jax.serving.predictor import Prediction, Predictor

# Limits of a chunk, which is decoded as a whole before it is predicted: files and seconds of audio.
_CHUNK, _CHUNK_SECONDS = 64, 1800


def find_files(arguments: Iterable[str | Path]) -> Iterator[Path | str]:
    """Expands arguments of a command line to audio files.

    Args:
        arguments: files, which are not checked; folders, searched for audio files at any depth, linked ones too; patterns such as
            `**/*.wav`; `-` for a list of files and folders on standard input.

    Yields:
        Paths, sorted within a folder or pattern, or an error message for an argument that matches nothing.
    """
    for argument in map(str, arguments):
        if not argument:
            yield 'an argument is empty: name a file or a folder (. for this one)'
        elif argument == '-':
            empty = True
            for line in sys.stdin:
                line = line.removeprefix('\ufeff').rstrip('\r\n')  # lists written on Windows
                if line.strip():
                    empty = False
                    yield from _below(Path(line))
            if empty:
                yield 'standard input lists no files'
        elif glob.has_magic(argument) and not os.path.lexists(argument):
            found = sorted(glob.glob(argument, recursive=True), key=lambda name: (len(name), name))
            # ** follows linked folders round and round.
            once = {
                (os.path.realpath(path.parent), path.name): path for path in map(Path, found[::-1])
            }
            yield from sorted(once.values()) or [f'nothing matches {argument}']
        else:
            yield from _below(Path(argument))


def _below(path: Path) -> Iterator[Path | str]:
    """The audio files below a folder, or the file itself; warns of the files that are passed over."""
    if not os.path.isdir(path):
        near = '' if os.path.lexists(path) else _similar(path)
        yield f'{path}: no such file ({near})' if near else path
        return
    found = find_audio(path)
    rest = passed_over(found)
    if found.audio:
        yield from found.audio
        if rest:
            warnings.warn(f'{path}: {rest}', stacklevel=2)
    else:
        yield f'{path} holds no {", ".join(AUDIO_ENDINGS)}' + (f'; {rest}' if rest else '')


def _similar(path: Path) -> str:
    """The file in the same folder that a name with another spelling means: 'in another case: there is a.wav', or ''."""
    try:
        near, difference = _names_in(path.parent).find(path.name)
    except OSError:
        return ''
    return f'{difference}: there is {path.with_name(near)}' if near else ''


@functools.lru_cache(maxsize=8)  # for lists of many names
def _names_in(folder: Path) -> SimilarNames:
    return SimilarNames(os.listdir(folder))


def predict_files(
    predictor: Predictor, files: Sequence[Path]
) -> Iterator[tuple[Path, Prediction | str]]:
    """Decodes and predicts files in order.

    Args:
        predictor: a loaded model.
        files: audio files of any sample rate and number of channels.

    Yields:
        (file, prediction), or (file, error message) for a file that cannot be read.
    """
    return map_files(predictor.predict_batch, files, predictor.front_end.sample_rate)


def map_files(
    function: Callable[[list[np.ndarray]], list], files: Sequence[Path], sample_rate: int
) -> Iterator[tuple[Path, Any]]:
    """Decodes files in chunks and applies a function to each chunk; the next one is decoded meanwhile.

    Args:
        function: N waveforms, int16 [S] -> N results.
        files: audio files of any sample rate and number of channels.
        sample_rate: sample rate of the waveforms, Hz.

    Yields:
        (file, result) in order, or (file, error message) for a file that cannot be read.
    """
    chunks = _chunks(files)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        submit = lambda chunk: [pool.submit(_decode, path, sample_rate) for path in chunk]
        chunk = next(chunks, [])
        decoding = submit(chunk)
        while chunk:
            waveforms = [future.result() for future in decoding]
            following = next(chunks, [])
            decoding = submit(following)
            readable = [waveform for waveform in waveforms if not isinstance(waveform, str)]
            results = iter(function(readable))
            for path, waveform in zip(chunk, waveforms):
                yield path, waveform if isinstance(waveform, str) else next(results)
            chunk = following


def _chunks(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Splits files into chunks within both limits; a single file may exceed the seconds."""
    chunk, total = [], 0.0
    for path in files:
        seconds = file_seconds(path)
        if chunk and (len(chunk) == _CHUNK or total + seconds > _CHUNK_SECONDS):
            yield chunk
            chunk, total = [], 0.0
        chunk, total = [*chunk, path], total + seconds
    if chunk:
        yield chunk


def _decode(path: Path, sample_rate: int) -> np.ndarray | str:
    """The waveform of a file, int16 [S], or an error message."""
    try:
        return read_audio(path, sample_rate)
    except AudioError as error:
        return str(error)
