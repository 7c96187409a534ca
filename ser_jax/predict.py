"""Tells the emotion (or whatever a system reports) of recordings: python -m ser_jax.predict --workdir=DIR FILE_OR_FOLDER...

--workdir     of a finished run of ser_jax.main, whose final model is used
--format      table, csv, or json (one object a line); default table
--windows     also what is said of each window of 10 s of a long recording
"""

from ser_jax import stopping

if __name__ == '__main__':
    stopping.listen('the same command starts over')

import argparse
import concurrent.futures
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import tqdm
from absl import logging

from ser_jax.errors import UserError

# Files decoded before they are predicted, and their bytes: bounds the memory.
_CHUNK, _CHUNK_BYTES = 64, 1 << 25


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
    os.environ.setdefault(
        'JAX_COMPILATION_CACHE_DIR', str(Path('~/.cache/ser_jax/compiled').expanduser())
    )
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what is of no use here
    try:
        from ser_jax.prediction_formats import FORMATS
        from ser_jax.predictor import load

        files = list(find_files(_listed(options.paths)))
        predictor = load(options.workdir)
    except UserError as error:
        sys.exit(f'error: {error}')
    if predictor.synthetic:
        print('warning: trained on synthetic speech: says nothing about real', file=sys.stderr)
    if not predictor.calibrated and any(task.classes for task in predictor.tasks):
        print('warning: probabilities are not calibrated (no validation speakers)', file=sys.stderr)
    write = FORMATS[options.format](predictor.tasks, options.windows)
    return _predict_all(predictor, files, write)


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
        chunks = list(_chunks(files))
        rate = predictor.front_end.sample_rate
        decode = lambda chunk: [pool.submit(_decode, path, rate) for path in chunk]
        following = decode(chunks[0]) if chunks else []
        for i, chunk in enumerate(chunks):
            waveforms = [future.result() for future in following]
            following = decode(chunks[i + 1]) if i + 1 < len(chunks) else []
            good = [w for w in waveforms if not isinstance(w, str)]
            answers = iter(predictor.predict_batch(good))
            for path, waveform in zip(chunk, waveforms):
                yield path, waveform if isinstance(waveform, str) else next(answers)


def _chunks(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in portions of _CHUNK files or _CHUNK_BYTES, whichever is less; of one at least."""
    chunk, total = [], 0
    for path in files:
        size = path.stat().st_size if path.is_file() else 0
        if chunk and (len(chunk) == _CHUNK or total + size > _CHUNK_BYTES):
            yield chunk
            chunk, total = [], 0
        chunk, total = [*chunk, path], total + size
    if chunk:
        yield chunk


def _decode(path: Path, sample_rate: int):
    from ser_jax.audio import AudioError, read_audio

    try:
        return read_audio(path, sample_rate)
    except AudioError as error:
        return str(error)


def _listed(paths: Sequence[str]) -> Iterator[str]:
    """The paths, those on standard input in the place of `-`."""
    for path in paths:
        if path == '-':
            yield from filter(None, (line.rstrip('\n') for line in sys.stdin))
        else:
            yield path


def find_files(paths: Iterable[str | Path]) -> Iterator[Path]:
    """Files as they are, the audio files below folders, and what matches a pattern such as `**/*.wav`, sorted.

    Raises:
        UserError: a folder without any, or a pattern that nothing matches.
    """
    from ser_jax.audio import AUDIO_ENDINGS

    for path in map(Path, paths):
        if path.is_dir():
            # macOS leaves files ._NAME behind.
            found = sorted(
                file
                for file in path.rglob('*')
                if file.suffix.lower() in AUDIO_ENDINGS and not file.name.startswith('.')
            )
            if not found:
                raise UserError(f'{path} holds no {", ".join(AUDIO_ENDINGS)}')
            yield from found
        elif glob.has_magic(str(path)) and not path.exists():
            found = sorted(glob.glob(str(path), recursive=True))
            if not found:
                raise UserError(f'nothing matches {path}')
            yield from map(Path, found)
        else:
            yield path


if __name__ == '__main__':
    try:
        with stopping.in_order():
            sys.exit(main())
    except BrokenPipeError:  # `… | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
