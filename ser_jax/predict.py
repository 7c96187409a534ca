"""Predicts the emotion (or other tasks of a run) of recordings: python -m ser_jax.predict --workdir=DIR FILE_OR_FOLDER...

--workdir     a finished run of ser_jax.main, whose final model is used
--format      table, csv, or json (one object a line); default table
--windows     also show each 10 s window of long recordings
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command starts over')

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tqdm
from absl import logging

from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import docstring, set_compilation_cache


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 where a file could not be used."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.predict',
        description=docstring(__file__).partition(':')[0],
        epilog='A recording that is too short, silent or does not sound like speech gets a flag instead of a label. '
        'Exit status 1 if a file could not be used; the others are predicted all the same.',
    )
    parser.add_argument(
        '--workdir',
        required=True,
        metavar='DIR',
        help='a finished run of ser_jax.main, whose final model is used',
    )
    parser.add_argument(
        '--format',
        default='table',
        choices=['table', 'csv', 'json'],
        help='json: one object a line; default table',
    )
    parser.add_argument(
        '--windows', action='store_true', help='also show each 10 s window of long recordings'
    )
    parser.add_argument(
        'paths',
        nargs='+',
        metavar='FILE_OR_FOLDER',
        help='wav, flac, ogg or mp3 of any rate, channels and length; a folder, with all audio files below it; a '
        "pattern such as '**/*.wav'; or - for a list on standard input",
    )
    options = parser.parse_args(arguments)
    set_compilation_cache()
    logging.set_verbosity(logging.ERROR)  # hides warnings of Orbax that do not matter here
    try:
        # After the flags: JAX is slow to import.
        from ser_jax.serving.files import find_files
        from ser_jax.serving.formats import FORMATS
        from ser_jax.serving.predictor import load

        predictor = load(options.workdir)
    except UserError as error:
        sys.exit(f'error: {error}')
    if predictor.synthetic:
        print(
            'warning: trained on synthetic speech: not meaningful for real speech', file=sys.stderr
        )
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
    return max(bool(problems), _print_predictions(predictor, files, write))


def _print_predictions(predictor, files: Sequence[Path], write: Callable) -> int:
    """Predicts and prints files; returns the exit status."""
    from ser_jax.serving.files import predict_files
    from ser_jax.serving.screening import FLAGS

    unusable = []
    disable = True if len(files) < 2 else None  # None: unless standard error is a terminal
    with tqdm.tqdm(total=len(files), unit='file', disable=disable) as bar:
        for path, prediction in predict_files(predictor, files):
            # Above the progress bar where both are on one terminal.
            with tqdm.tqdm.external_write_mode(file=sys.stdout):
                if isinstance(prediction, str):
                    print(f'error: {prediction}', file=sys.stderr)
                    unusable.append(path)
                else:
                    write(path, prediction)
                    if prediction.flags:
                        reasons = '; '.join(FLAGS[flag] for flag in prediction.flags)
                        print(f'warning: {path}: {reasons}', file=sys.stderr)
            bar.update()
    if unusable:
        names = ', '.join(map(str, unusable[:5])) + ', …' * (len(unusable) > 5)
        print(f'{len(unusable)} of {len(files)} files could not be used: {names}', file=sys.stderr)
    return int(bool(unusable))


if __name__ == '__main__':
    sys.exit(main())
