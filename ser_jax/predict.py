"""Tells the emotion (or whatever a system reports) of recordings: python -m ser_jax.predict --workdir=DIR FILE_OR_FOLDER...

--workdir     of a finished run of ser_jax.main, whose final model is used
--format      table, csv, or json (one object a line); default table
"""

from ser_jax import stopping

if __name__ == '__main__':
    stopping.listen('the same command starts over')

import argparse
import concurrent.futures
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import logging

from ser_jax.errors import UserError

_CHUNK = 64  # files decoded before they are predicted: bounds the memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 where a file could not be used."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.predict', description=__doc__.partition(':')[0]
    )
    parser.add_argument('--workdir', required=True, help='of a finished run')
    parser.add_argument('--format', default='table', choices=['table', 'csv', 'json'])
    parser.add_argument('paths', nargs='+', metavar='FILE_OR_FOLDER', help='wav, flac, ogg, mp3')
    options = parser.parse_args(arguments)
    os.environ.setdefault(
        'JAX_COMPILATION_CACHE_DIR', str(Path('~/.cache/ser_jax/compiled').expanduser())
    )
    logging.set_verbosity(logging.ERROR)  # Orbax warns of what is of no use here
    try:
        from ser_jax.predictor import load

        files = list(find_files(options.paths))
        predictor = load(options.workdir)
    except UserError as error:
        sys.exit(f'error: {error}')
    if predictor.synthetic:
        print('warning: trained on synthetic speech: says nothing about real', file=sys.stderr)
    write = {'table': _table, 'csv': _csv, 'json': _json}[options.format](predictor.tasks)
    bad = 0
    for path, answer in predict_files(predictor, files):
        if isinstance(answer, str):
            print(f'error: {answer}', file=sys.stderr)
            bad += 1
        else:
            write(path, answer)
    if bad:
        print(f'{bad} of {len(files)} files could not be used', file=sys.stderr)
    return int(bad > 0)


def predict_files(predictor, files: Sequence[Path]) -> Iterator[tuple[Path, object]]:
    """Decodes and predicts files, in order.

    Args:
        predictor: of `predictor.load`.
        files: audio files of any rate and number of channels.

    Yields:
        (file, {task: probabilities float32 [K], or a rating [1]}), or (file, what is wrong with it).
    """
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        chunks = [files[start : start + _CHUNK] for start in range(0, len(files), _CHUNK)]
        rate = predictor.front_end.sample_rate
        decode = lambda chunk: [pool.submit(_decode, path, rate) for path in chunk]
        following = decode(chunks[0]) if chunks else []
        for i, chunk in enumerate(chunks):
            waveforms = [future.result() for future in following]
            following = decode(chunks[i + 1]) if i + 1 < len(chunks) else []
            good = [w for w in waveforms if not isinstance(w, str)]
            found = predictor.predict(good) if good else {}
            answers = ({name: p[row] for name, p in found.items()} for row in range(len(good)))
            for path, waveform in zip(chunk, waveforms):
                yield path, waveform if isinstance(waveform, str) else next(answers)


def _decode(path: Path, sample_rate: int):
    from ser_jax.audio import AudioError, read_audio, unusable

    try:
        samples = read_audio(path, sample_rate)
    except AudioError as error:
        return str(error)
    problem = unusable(samples, sample_rate)
    return f'{path}: {problem}' if problem else samples


def find_files(paths: Sequence[str | Path]) -> Iterator[Path]:
    """Files as they are, and the audio files below folders, sorted.

    Raises:
        UserError: a folder without any.
    """
    from ser_jax.audio import AUDIO_ENDINGS

    for path in map(Path, paths):
        if not path.is_dir():
            yield path
            continue
        # macOS leaves files ._NAME behind.
        found = sorted(
            file
            for file in path.rglob('*')
            if file.suffix.lower() in AUDIO_ENDINGS and not file.name.startswith('.')
        )
        if not found:
            raise UserError(f'{path} holds no {", ".join(AUDIO_ENDINGS)}')
        yield from found


def _columns(tasks):
    """(task, position, title) of every probability: `happy`, or, with several tasks, `arousal high`."""
    title = lambda task, name: name if len(tasks) == 1 else f'{task.name} {name}'
    return [
        (task.name, k, title(task, name))
        for task in tasks
        if task.kind == 'classification'
        for k, name in enumerate(task.classes)
    ]


def _best(tasks, found):
    """Task -> its most probable class, or its rating."""
    best = lambda task, said: (
        round(float(said[0]), 3) if task.kind == 'regression' else task.classes[said.argmax()]
    )
    return {task.name: best(task, found[task.name]) for task in tasks}


def _table(tasks):
    columns = _columns(tasks)
    width = max(9, *(len(title) for *_, title in columns), *(len(task.name) for task in tasks))
    heads = [f'{task.name:<{width}}' for task in tasks]
    print('  '.join([*heads, *(f'{title:>{width}}' for *_, title in columns), 'file']))

    def write(path, found):
        best = [f'{said:<{width}}' for said in _best(tasks, found).values()]
        shares = [f'{100 * found[task][k]:>{width - 2}.1f} %' for task, k, _ in columns]
        print('  '.join([*best, *shares, str(path)]))

    return write


def _csv(tasks):
    columns = _columns(tasks)
    writer = csv.writer(sys.stdout, lineterminator='\n')
    names = [task.name for task in tasks]
    writer.writerow(['file', *names, *(title.replace(' ', '_') for *_, title in columns)])
    return lambda path, found: writer.writerow(
        [path, *_best(tasks, found).values(), *(f'{found[task][k]:.6f}' for task, k, _ in columns)]
    )


def _json(tasks):
    def write(path, found):
        told = [task for task in tasks if task.kind == 'classification']
        shares = {t.name: dict(zip(t.classes, map(float, found[t.name]))) for t in told}
        if len(tasks) == 1 and told:
            shares = shares[tasks[0].name]
        probabilities = {'probabilities': shares} if told else {}
        print(json.dumps({'file': str(path), **_best(tasks, found), **probabilities}))

    return write


if __name__ == '__main__':
    try:
        sys.exit(main())
    except BrokenPipeError:  # `… | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
