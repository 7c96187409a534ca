"""`python -m tfds_builders.doctor NAME`: says what of a corpus is there, without building anything.

    python -m tfds_builders.doctor emodb --manual_dir=~/corpora/emodb

Exit status 0: every published utterance (of a csv corpus: every row) is there and can be used. Recoded files and the
owner's own faults are notes. Else 1.
"""

import argparse
import collections
import sys
from collections.abc import Sequence

import numpy as np

from ser_jax.errors import UserError

# More names than this are counted, not listed, unless --all.
_LISTED = 5


def _names(names: Sequence[str], everything: bool) -> str:
    shown = names if everything else names[:_LISTED]
    return ', '.join(shown) + (', …' if len(shown) < len(names) else '')


def _counts(found, wanted) -> str:
    """'angry 127 of 127, bored 9 of 81', or without 'of' where nobody says how many there should be."""
    have = collections.Counter(item.emotion or 'no label' for item in found)
    total = collections.Counter(item.emotion or 'no label' for item in wanted)
    return ', '.join(
        f'{name} {have[name]} of {total[name]}' if wanted else f'{name} {have[name]}'
        for name in sorted(total or have)
    )


def examine(
    name: str,
    manual_dir: str | None = None,
    *,
    options: dict | None = None,
    workers: int | None = None,
    everything: bool = False,
) -> tuple[list[str], bool]:
    """Looks a corpus folder over.

    Args:
        name: the corpus.
        manual_dir: its folder; None = `$SER_JAX_MANUAL_DIR/<corpus>`.
        options: of csv corpora.
        workers: processes.
        everything: whether to list every missing and unusable name.

    Returns:
        The lines to print, and whether all is well.

    Raises:
        UserError: no such corpus or folder, or nothing of the corpus in it.
    """
    from tfds_builders import pool, prepare
    from tfds_builders.base import duplicate_notes
    from tfds_builders.utterance import Problem, audio_sha256

    builder = prepare.builder_class(name)
    if not builder.NEEDS_FOLDER:
        return [f'{name} is synthesised: it needs no files'], True
    folder = prepare.find_folder(name, manual_dir)
    if folder is None:
        raise prepare.not_preparable(name)
    listing = prepare.list_corpus(name, folder, **(options or {}))
    results = list(
        pool.pool_map(
            audio_sha256,
            listing.utterances,
            (builder.LOAD, 16000),
            workers=workers,
            description=name,
        )
    )
    bad = [
        (item, result.reason)
        for item, result in zip(listing.utterances, results)
        if isinstance(result, Problem)
    ]
    gone = {item.id for item, _ in bad}
    good = [item for item in listing.utterances if item.id not in gone]
    published = max(len(listing.published), listing.n_published)
    total = published or len(listing.utterances)
    what = 'published utterances' if published else 'rows'
    # A list of labels that is itself short is no measure of what should be there.
    named = listing.published if len(listing.published) == published else ()
    missing = [item.id for item in listing.missing]
    lines = [
        f'{name} in {folder}: found {len(listing.utterances)} of {total} {what}, '
        f'missing {listing.n_missing}, unusable {len(bad)}',
        f'by emotion: {_counts(good, named)}',
    ]
    if named and builder.LABELS:
        in_task = lambda item: builder.MERGED.get(item.emotion, item.emotion) in builder.LABELS
        chosen = [item for item in good if in_task(item)]
        wanted = [item for item in named if in_task(item)]
        lines.append(f'default task ({", ".join(builder.LABELS)}): {len(chosen)} of {len(wanted)}')
    speakers = {item.speaker for item in good} - {''}
    lines.append(f'speakers: {len(speakers)}')
    if missing:
        lines.append(f'missing: {_names(missing, everything)}')
    lines += [f'unusable: {item.path or item.id}: {reason}' for item, reason in bad]
    digests = [result for result in results if isinstance(result, str)]
    heard = {'id': np.array([item.id for item in good]), 'audio_sha256': np.array(digests)}
    lines += [f'note: {note}' for note in (*listing.notes, *duplicate_notes(heard))]
    return lines, not listing.n_missing and not bad


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m tfds_builders.doctor',
        description='Says what of a corpus is there, without building anything.',
    )
    parser.add_argument(
        'name', help='a folder here, e.g. emodb, or csv_corpus/<name>, folder/<name>'
    )
    parser.add_argument('--manual_dir', help='the corpus; default $SER_JAX_MANUAL_DIR/<corpus>')
    parser.add_argument('--all', action='store_true', help='list every missing name')
    parser.add_argument('--workers', type=int, help='processes; default: one a core')
    parser.add_argument(
        '--map', action='append', default=[], metavar='LABEL=EMOTION', help='as for build'
    )
    parser.add_argument('--own_labels', action='store_true', help='as for build')
    flags = parser.parse_args(arguments)
    from tfds_builders.build import csv_options

    try:
        lines, well = examine(
            flags.name,
            flags.manual_dir,
            options=csv_options(flags),
            workers=flags.workers,
            everything=flags.all,
        )
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print('\n'.join(lines))
    return 0 if well else 1


if __name__ == '__main__':
    sys.exit(main())
