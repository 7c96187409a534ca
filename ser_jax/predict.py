"""Predicts the emotion (or other tasks of a run) of recordings: python -m ser_jax.predict FILE_OR_FOLDER...

--workdir     a finished run of ser_jax.main, whose final model is used; default: the general model that comes with ser_jax
--format      table, csv, json (one object a line), or textgrid (Praat); default: by the ending of --out, else table
--segments    the stretches of speech in each recording, with their labels
--windows     also show each 4 s window of recordings above 5 s
--out         file to write to, or to continue; a folder for TextGrids
--html        page with the segments, charts and players of the recordings
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command starts over, or goes on where --out stopped')

import argparse
import contextlib
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import tqdm
from absl import logging

from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import docstring, local_path, set_compilation_cache


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
        default='general',
        metavar='DIR',
        help='a finished run of ser_jax.main, whose final model is used; default: the general model that comes with '
        'ser_jax (see ser_jax/pretrained/general/README.md)',
    )
    parser.add_argument(
        '--format',
        choices=['table', 'csv', 'json', 'textgrid'],
        help='json: one object a line; textgrid: segments for Praat; default: by the ending of --out, else table',
    )
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument(
        '--segments',
        action='store_true',
        help='show the stretches of speech in each recording with their labels (of the first classification)',
    )
    parts.add_argument(
        '--windows', action='store_true', help='also show each 4 s window of recordings above 5 s'
    )
    parser.add_argument(
        '--out',
        type=Path,
        metavar='FILE',
        help='write to a file instead of standard output; recordings whose rows it holds are not predicted again. '
        'With --format=textgrid: a folder',
    )
    parser.add_argument(
        '--html',
        type=Path,
        metavar='FILE',
        help='also write a page with segments, charts and a player of each recording (implies --segments)',
    )
    parser.add_argument(
        'paths',
        nargs='+',
        metavar='FILE_OR_FOLDER',
        help='wav, flac, ogg or mp3 of any rate, channels and length; a folder, with all audio files below it; a '
        "pattern such as '**/*.wav'; or - for a list on standard input",
    )
    options = parser.parse_args(arguments)
    _complete(options, parser)
    set_compilation_cache()
    logging.set_verbosity(logging.ERROR)  # hides warnings of Orbax that do not matter here
    try:
        # After the flags: JAX is slow to import.
        from ser_jax.serving.predictor import load

        return _predict(load(options.workdir), options)
    except UserError as error:
        sys.exit(f'error: {error}')


def _complete(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Fills in what follows from other flags, and refuses what does not go together."""
    endings = {'.csv': 'csv', '.json': 'json', '.jsonl': 'json'}
    named = endings.get(options.out.suffix.lower()) if options.out else None
    if options.format is None:
        options.format = named or 'table'
    elif named not in (None, options.format):
        parser.error(
            f'--out={options.out} does not match --format={options.format}: change one of them'
        )
    if options.windows and (options.html or options.format == 'textgrid'):
        parser.error('--html and --format=textgrid show segments, not --windows')
    options.segments |= bool(options.html) or options.format == 'textgrid'
    if options.out and options.format == 'table':
        parser.error('--out needs --format=csv, json or textgrid')
    if options.out and options.windows and options.format == 'csv':
        parser.error('--out with --windows needs --format=json, one line a recording')
    if options.out and options.html:
        parser.error('--html shows what the same command predicts: leave out --out')


def _predict(predictor, options: argparse.Namespace) -> int:
    """Predicts all recordings; returns the exit status."""
    from ser_jax.serving.files import find_files

    for name in ('out', 'html'):
        if path := getattr(options, name):
            setattr(options, name, local_path(path))
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
    if options.html:
        from ser_jax.reporting.html.timeline import check_page

        check_page(options.html, len(files))
    with contextlib.ExitStack() as stack:
        write, done = _writer(predictor, options, files, stack)
        if done:
            files = [path for path in files if str(path) not in done]
            print(
                f'{options.out} holds {len(done)} recordings, {len(files)} are left',
                file=sys.stderr,
            )
        status = _print_predictions(predictor, files, options, write)
    return max(bool(problems), status)


def _writer(predictor, options, files, stack) -> tuple[Callable, Collection[str]]:
    """A function write(path, prediction or timeline), and the files whose answers are there."""
    from ser_jax.serving import answers
    from ser_jax.serving.formats import FORMATS, SEGMENT_FORMATS
    from ser_jax.serving.timeline import classification

    if options.segments:
        task = classification(predictor)
        make = lambda file: SEGMENT_FORMATS[options.format](predictor, file, task)
    else:
        make = lambda file: FORMATS[options.format](predictor, file, options.windows)
    if options.format == 'textgrid':
        if options.out:
            return answers.textgrid_folder(options.out, files, make), ()
        if len(files) > 1:
            raise UserError('--format=textgrid: several recordings need --out=FOLDER')
    if not options.out:
        return make(sys.stdout), ()
    parts = 'segments' * options.segments or 'windows' * options.windows
    file = answers.Answers(
        options.out, make, form=options.format, model=predictor.model, parts=parts
    )
    stack.callback(file.close)
    return file.write, file.done


def _print_predictions(
    predictor, files: Sequence[Path], options: argparse.Namespace, write: Callable
) -> int:
    """Predicts and writes files; returns the exit status."""
    from ser_jax.audio.screening import FLAGS
    from ser_jax.serving.files import predict_files, timeline_files

    predict = timeline_files if options.segments else predict_files
    unusable, shown = [], []
    disable = True if len(files) < 2 else None  # None: unless standard error is a terminal
    with tqdm.tqdm(total=len(files), unit='file', disable=disable) as bar:
        for path, prediction in predict(predictor, files):
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
                    if options.html:
                        shown.append((path, prediction))
            bar.update()
    if unusable and len(files) > 1:
        names = ', '.join(map(str, unusable[:5])) + ', …' * (len(unusable) > 5)
        print(f'{len(unusable)} of {len(files)} files could not be used: {names}', file=sys.stderr)
    if shown:
        from ser_jax.reporting.html.timeline import write_page

        write_page(options.html, shown, predictor)
        print(f'{options.html} is written', file=sys.stderr)
    elif options.html:
        print(f'error: {options.html} is not written: no recording could be used', file=sys.stderr)
    return int(bool(unusable))


if __name__ == '__main__':
    sys.exit(main())
