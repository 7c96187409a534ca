"""Finds audio files, decodes and predicts them, with bounded memory."""

import concurrent.futures
import functools
import glob
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.audio.finding import SimilarNames, find_audio, passed_over
from ser_jax.audio.reading import (
    AUDIO_ENDINGS,
    AudioError,
    file_seconds,
    read_blocks,
)
from ser_jax.runtime.errors import UserError
from ser_jax.serving.predictor import Predictor
from ser_jax.serving.results import Prediction, Timeline
from ser_jax.serving.timeline import make_timelines

# Files of the first chunk and of the largest; each has twice as many as the one before, so that answers come early and more recordings
# of like length are batched. Seconds of audio of a chunk, and of a recording that is predicted alone while it is decoded.
_FIRST_CHUNK, _LARGEST_CHUNK, _CHUNK_SECONDS, _LONG_SECONDS = 32, 256, 1800, 600


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
        files: audio files of any sample rate, number of channels and length.

    Yields:
        (file, prediction), or (file, error message) for a file that cannot be read.
    """
    rate = predictor.front_end.sample_rate
    return map_files(predictor.predict_batch, files, rate, predictor.predict)


def timeline_files(
    predictor: Predictor, files: Sequence[Path]
) -> Iterator[tuple[Path, Timeline | str]]:
    """Makes the timelines of files; arguments and results as of `predict_files` and `make_timelines`."""
    rate = predictor.front_end.sample_rate

    def of_batch(waveforms):
        return make_timelines(predictor, [lambda x=x: [x] for x in waveforms])

    return map_files(of_batch, files, rate, predictor.timeline)


def map_files(
    function: Callable[[list[np.ndarray]], list],
    files: Sequence[Path],
    sample_rate: int,
    stream: Callable[[Path], Any] | None = None,
) -> Iterator[tuple[Path, Any]]:
    """Decodes files in chunks and applies a function to each chunk; the next one is decoded meanwhile.

    Args:
        function: N waveforms, int16 [S] -> N results.
        files: audio files of any sample rate and number of channels.
        sample_rate: sample rate of the waveforms, Hz.
        stream: file -> result, for recordings that are too long to be held; without it they are decoded whole.

    Yields:
        (file, result) in order, or (file, error message) for a file that cannot be read.
    """
    chunks = _chunks(files)
    decode = functools.partial(
        _decode, rate=sample_rate, limit=_LONG_SECONDS if stream else math.inf
    )
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        submit = lambda chunk: [pool.submit(decode, path) for path in chunk]
        chunk = next(chunks, [])
        decoding = submit(chunk)
        while chunk:
            waveforms = [future.result() for future in decoding]
            following = next(chunks, [])
            decoding = submit(following)
            results = iter(function([one for one in waveforms if isinstance(one, np.ndarray)]))
            for path, waveform in zip(chunk, waveforms):
                if waveform is None:
                    try:
                        waveform = stream(path)
                    except UserError as error:
                        waveform = str(error)
                yield path, next(results) if isinstance(waveform, np.ndarray) else waveform
            chunk = following


def _chunks(files: Sequence[Path]) -> Iterator[list[Path]]:
    """Splits files into chunks within both limits; a single file may exceed the seconds."""
    chunk, total, largest = [], 0.0, _FIRST_CHUNK
    for path in files:
        seconds = file_seconds(path)
        if chunk and (len(chunk) == largest or total + seconds > _CHUNK_SECONDS):
            yield chunk
            chunk, total, largest = [], 0.0, min(2 * largest, _LARGEST_CHUNK)
        chunk, total = [*chunk, path], total + seconds
    if chunk:
        yield chunk


def _decode(path: Path, rate: int, limit: float) -> np.ndarray | str | None:
    """The waveform of a file, int16 [S]; None if it is longer than `limit` seconds; or an error message."""
    if file_seconds(path) > limit:
        return None
    blocks, samples = [], 0
    try:
        for block in read_blocks(path, rate):
            blocks.append(block)
            samples += len(block)
            if samples > limit * rate:  # headers need not tell the length
                return None
    except AudioError as error:
        return str(error)
    return np.concatenate(blocks)
