"""`python -m tfds_builders.doctor NAME`: checks a corpus folder against what was published, without building anything.

    python -m tfds_builders.doctor emodb --manual_dir=~/corpora/emodb

Exit status 0 where every published utterance (csv corpora: every row) is there and usable, else 1. Recoded files and
faults of the published recordings are notes.

    python -m tfds_builders.doctor emodb --records

compares the prepared records with their checksums instead.
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command starts over')

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ser_jax.data.records import REPRESENTATIONS, corpus_folder, read_sources
from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import CHECKSUMS_FILE, damaged_file
from tfds_builders.core.catalogue import corpus_names
from tfds_builders.core.utterance import grouped

if TYPE_CHECKING:
    from tfds_builders.core.examination import Examination

# Missing names, speakers and unusable files to list without --all.
_MAX_NAMES = 5
_MAX_SPEAKERS = 12
_MAX_PROBLEMS = 20  # of one kind


def _names(names: Sequence[str], everything: bool) -> str:
    shown = names if everything else names[:_MAX_NAMES]
    return ', '.join(shown) + (', …' if len(shown) < len(names) else '')


def _of(have: int, wanted: int | None) -> str:
    return str(have) if wanted is None else f'{have} of {wanted}'


def _by(counts: Mapping[str, int], corpus: str, everything: bool) -> str:
    """'10: 03 35, 08 41, …'."""
    named = {name.removeprefix(f'{corpus}/') or 'unknown': n for name, n in counts.items()}
    text = ', '.join(f'{name} {count}' for name, count in named.items())
    return f'{len(set(counts) - {""})}' + f': {text}' * (everything or len(named) <= _MAX_SPEAKERS)


def report_lines(found: 'Examination', everything: bool) -> list[str]:
    """The lines of the report; `everything`: all missing names, speakers and unusable files."""
    unusable = len(found.unusable)
    if found.published is None:  # rows of a table, some without a file, or files of a folder
        total = found.found + found.missing
        counts = f'{found.found - unusable} of {total} recordings are usable'
    else:
        counts = (
            f'found {found.found} of {found.published} published utterances, '
            f'missing {found.missing}, unusable {unusable}'
        )
    emotions = [f'{name or "no label"} {_of(*pair)}' for name, pair in found.emotions.items()]
    lines = [
        f'{found.corpus} in {found.folder}: {counts}',
        f'by emotion: {", ".join(emotions)}',
    ]
    if found.task:
        lines.append(f'default task ({", ".join(found.task_labels)}): {_of(*found.task)}')
    lines.append(f'speakers: {_by(found.speakers, found.corpus, everything)}')
    if found.sessions:
        lines.append(f'sessions: {_by(found.sessions, found.corpus, everything)}')
    if any(found.rated.values()):
        lines.append(f'rated: {", ".join(f"{name} {n}" for name, n in found.rated.items())}')
    rates = ', '.join(f'{rate} Hz {count}' for rate, count in found.sample_rates.items())
    lines.append(f'audio: {found.seconds / 60:.1f} min; {rates or "none"}')
    if found.missing_names:
        lines.append(f'missing: {_names(found.missing_names, everything)}')
    problems = [(problem['file'], problem['reason']) for problem in found.unusable]
    most = None if everything else _MAX_PROBLEMS
    lines += [f'unusable: {line}' for line in grouped(problems, most)]
    lines += [f'warning: {warning}' for warning in found.warnings]
    return lines + [f'note: {note}' for note in found.notes]


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m tfds_builders.doctor',
        description='Checks whether a corpus is complete and usable, without building anything.',
        epilog='Exit status 0 where every published utterance is there and usable, else 1. Corpora: '
        f'{", ".join(corpus_names())}.',
    )
    parser.add_argument(
        'name', help='corpus, e.g. emodb; csv_corpus/<name> for your own recordings'
    )
    parser.add_argument(
        '--manual_dir',
        help='folder with the corpus as distributed by its owner; default $SER_JAX_MANUAL_DIR/<corpus>',
    )
    parser.add_argument(
        '--all',
        action='store_true',
        help='list all missing names, all speakers and all unusable files',
    )
    parser.add_argument('--json', action='store_true', help='one JSON object instead of lines')
    parser.add_argument('--workers', type=int, help='processes; default: one per core')
    parser.add_argument(
        '--map', action='append', default=[], metavar='LABEL=EMOTION', help='as for build'
    )
    parser.add_argument('--own_labels', action='store_true', help='as for build')
    parser.add_argument(
        '--records',
        action='store_true',
        help='check the prepared records, byte by byte, instead',
    )
    parser.add_argument('--data_dir', help='with --records: root of the prepared corpora')
    flags = parser.parse_args(arguments)
    # After --help: importing TFDS is slow.
    from tfds_builders.build import csv_options
    from tfds_builders.core.examination import examine

    try:
        if flags.records:
            return _check_records(flags.name, flags.data_dir)
        found = examine(
            flags.name, flags.manual_dir, options=csv_options(flags), workers=flags.workers
        )
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    if found is None:
        print(f'{flags.name} is synthesised: it needs no files')
        return 0
    if flags.json:
        print(json.dumps(found.as_json(), indent=1, ensure_ascii=False))
    else:
        print('\n'.join(report_lines(found, flags.all)))
    return 0 if found.well else 1


def _check_records(name: str, data_dir: str | None) -> int:
    """Compares the prepared records of a corpus with their checksums; returns the exit status."""
    folders = [
        corpus_folder(name, data_dir=data_dir, representation=kind) for kind in REPRESENTATIONS
    ]
    prepared = [folder for folder in folders if folder.exists()]
    if not prepared:
        raise UserError(f'{name} is not prepared: there is no {folders[0]}')
    problems = [_problem_of(folder) for folder in prepared]
    for folder, problem in zip(prepared, problems):
        print(f'{folder}: {problem or "intact"}')
        origin = '' if problem else read_sources(folder).get('manual_dir')
        if origin and not Path(origin).is_dir():
            print(f'note: prepared from {origin}, which is not here: later changes go unnoticed')
    if any(problems):
        print('delete the folder; the next run that needs it prepares it again', file=sys.stderr)
    return int(any(problems))


def _problem_of(folder: Path) -> str:
    if not (folder / CHECKSUMS_FILE).exists():
        return 'checksums.json is missing: deleted, or prepared by an older version'
    damaged = damaged_file(folder, whole=True)
    return f'{damaged} does not match its checksum' if damaged else ''


if __name__ == '__main__':
    sys.exit(main())
