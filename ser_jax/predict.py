"""Tells the emotion (or whatever a system reports) of recordings: python -m ser_jax.predict --workdir=DIR FILE_OR_FOLDER...

--workdir     of a finished run of ser_jax.main, whose final model is used
--format      table, csv, or json (one object a line); default table
--windows     also what is said of each window of 10 s of a long recording
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command starts over')

import argparse
import concurrent.futures
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import tqdm
from absl import logging

from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import set_compilation_cache

# Files decoded before they are predicted, and their seconds: bounds the memory.
_CHUNK, _CHUNK_SECONDS = 64, 1800


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 where a file could not be used."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.predict',
        description=__doc__.partition(':')[0],
        epilog='A recording that is too short, silent or no speech by the sound of it gets a flag instead of a label. '
        'Exit status 1 where a file could not be used; the others are told all the same.',
    )
    parser.add_argument(
        '--workdir',
        required=True,
        metavar='DIR',
        help='of a finished run of ser_jax.main, whose final model is used',
    )
    parser.add_argument(
        '--format',
        default='table',
        choices=['table', 'csv', 'json'],
        help='json: an object a line; default table',
    )
    parser.add_argument(
        '--windows',
        action='store_true',
        help='also what is said of each window of 10 s of a long recording',
    )
    parser.add_argument(
        'paths',
        nargs='+',
        metavar='FILE_OR_FOLDER',
        help='wav, flac, ogg or mp3 of any rate, channels and length; of a folder all below it; a '
        "pattern such as '**/*.wav'; or - for a list on standard input",
    )
    options = parser.parse_args(arguments)
    set_compilation_cache()
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what is of no use here
    try:
        from ser_jax.serving.formats import FORMATS
        from ser_jax.serving.predictor import load

        predictor = load(options.workdir)
    except UserError as error:
        sys.exit(f'error: {error}')
    if predictor.synthetic:
        print('warning: trained on synthetic speech: says nothing about real', file=sys.stderr)
    if predictor.uncalibrated:
        print(f'warning: {predictor.uncalibrated}', file=sys.stderr)
    if '-' in options.paths:
        sys.stdin.reconfigure(errors='surrogateescape')
    found = list(find_files(options.paths))
    files = [path for path in found if isinstance(path, Path)]
    problems = [problem for problem in found if isinstance(problem, str)]
    for problem in problems:
        print(f'error: {problem}', file=sys.stderr)
    write = FORMATS[options.format](predictor.tasks, options.windows)
    return max(bool(problems), _predict_all(predictor, files, write))


def _predict_all(predictor, files: Sequence[Path], write: Callable) -> int:
    """Predicts and writes; returns the exit status."""
    bad = []
    # Lines above the bar, if both are seen on one terminal.
    told = lambda: tqdm.tqdm.external_write_mode(file=sys.stdout)
    quiet = True if len(files) < 2 else None  # None: where nobody looks
    with tqdm.tqdm(total=len(files), unit='file', disable=quiet) as bar:
        for path, answer in predict_files(predictor, files):
            with told():
                if isinstance(answer, str):
                    print(f'error: {answer}', file=sys.stderr)
                    bad.append(path)
                else:
                    write(path, answer)
                    if answer.flags:
                        print(f'warning: {path}: {_explained(answer.flags)}', file=sys.stderr)
            bar.update()
    if bad:
        names = ', '.join(map(str, bad[:5])) + ', …' * (len(bad) > 5)
        print(f'{len(bad)} of {len(files)} files could not be used: {names}', file=sys.stderr)
    return int(bool(bad))


_MEANINGS = {
    'too_short': 'too short to be labelled',
    'silent': 'silent: no label',
    'clipped': 'clipped: overdriven speech is easily taken for anger',
    'non_speech': 'no speech by the sound of it: no label',
}


def _explained(flags: Sequence[str]) -> str:
    return '; '.join(_MEANINGS[flag] for flag in flags)


def predict_files(predictor, files: Sequence[Path]) -> Iterator[tuple[Path, object]]:
    """Decodes and predicts files, in order.

    Args:
        predictor: of `predictor.load`.
        files: audio files of any rate and number of channels.

    Yields:
        (file, `predictor.Answer`), or (file, what is wrong with it).
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = _chunks(files)
        rate = predictor.front_end.sample_rate
        decode = lambda chunk: [pool.submit(_decode, path, rate) for path in chunk]
        chunk = next(chunks, [])
        decoding = decode(chunk)
        while chunk:
            waveforms = [future.result() for future in decoding]
            following = next(chunks, [])
            decoding = decode(following)
            good = [w for w in waveforms if not isinstance(w, str)]
            answers = iter(predictor.predict_batch(good))
            for path, waveform in zip(chunk, waveforms):
                yield path, waveform if isinstance(waveform, str) else next(answers)
            chunk = following


def _chunks(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in portions of _CHUNK files or _CHUNK_SECONDS, whichever is less; of one at least."""
    from ser_jax.audio.reading import file_seconds

    chunk, total = [], 0.0
    for path in files:
        seconds = file_seconds(path)
        if chunk and (len(chunk) == _CHUNK or total + seconds > _CHUNK_SECONDS):
            yield chunk
            chunk, total = [], 0.0
        chunk, total = [*chunk, path], total + seconds
    if chunk:
        yield chunk


def _decode(path: Path, sample_rate: int):
    from ser_jax.audio.reading import AudioError, read_audio

    try:
        return read_audio(path, sample_rate)
    except AudioError as error:
        return str(error)


def find_files(words: Iterable[str | Path]) -> Iterator[Path | str]:
    """Files as they are, the audio files below folders, what matches a pattern such as `**/*.wav`, and for `-` all that
    a list on standard input names.

    Args:
        words: of the command line.

    Yields:
        Paths, of a folder or pattern sorted; or what is wrong with a word.
    """
    for word in map(str, words):
        if word == '-':
            for line in sys.stdin:
                if line.strip():
                    yield from _below(Path(line.rstrip('\n')))
        elif glob.has_magic(word) and not os.path.lexists(word):
            found = sorted(glob.glob(word, recursive=True))
            yield from map(Path, found) if found else [f'nothing matches {word}']
        else:
            yield from _below(Path(word))


def _below(path: Path) -> Iterator[Path | str]:
    """The audio files below a folder, or the file itself."""
    from ser_jax.audio.reading import AUDIO_ENDINGS

    if not os.path.isdir(path):
        yield path
        return
    # macOS leaves files ._NAME behind.
    found = sorted(
        file
        for file in path.rglob('*')
        if file.suffix.lower() in AUDIO_ENDINGS and not (file.name.startswith('.') or file.is_dir())
    )
    yield from found or [f'{path} holds no {", ".join(AUDIO_ENDINGS)}']


if __name__ == '__main__':
    sys.exit(main())
