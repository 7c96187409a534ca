"""`python -m tfds_builders.build NAME`: prepares a corpus.

python -m tfds_builders.build emodb --manual_dir=~/corpora/emodb
python -m tfds_builders.build csv_corpus/mine --manual_dir=~/recordings --map bored=neutral
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('nothing was changed')

import argparse
import sys
from collections.abc import Sequence

from ser_jax.data.records import DEFAULT_DATA_DIR, REPRESENTATIONS
from ser_jax.runtime.errors import UserError, report_errors
from tfds_builders.core.catalogue import corpus_names


def parse_map(pairs: Sequence[str]) -> dict[str, str]:
    """`['bored=neutral', 'xxx=']` -> {'bored': 'neutral', 'xxx': ''}; an empty right side drops the label.

    Raises:
        UserError: an item without '=', or two for one label, whose case does not matter.
    """
    result, seen = {}, {}
    for pair in pairs:
        label, sign, name = pair.partition('=')
        if not sign or not label:
            raise UserError(f'--map {pair}: expected LABEL=EMOTION, such as bored=neutral')
        label, name = label.strip(), name.strip()
        if seen.setdefault(label.lower(), name) != name:
            raise UserError(
                f'--map {pair}: another --map reads {label!r} as {seen[label.lower()]!r}'
            )
        result[label] = name
    return result


def csv_options(flags: argparse.Namespace) -> dict:
    """Options of csv corpora from `--map` and `--own_labels`; checks `--workers` and `--num_shards`, too.

    Raises:
        UserError: a malformed value, or options of csv corpora for another corpus.
    """
    for name in ('workers', 'num_shards'):
        value = getattr(flags, name, None)
        if value is not None and value < 1:
            raise UserError(f'--{name}={value}: expected 1 or more')
    options = {}
    if flags.map:
        options['map'] = parse_map(flags.map)
    if flags.own_labels:
        options['own_labels'] = True
    if options and not flags.name.startswith('csv_corpus/'):
        raise UserError('--map and --own_labels are for csv_corpus/<name> only')
    return options


def parser() -> argparse.ArgumentParser:
    """The command's flags."""
    result = argparse.ArgumentParser(
        prog='python -m tfds_builders.build',
        description='Prepares a corpus for ser_jax.',
        epilog=f'Corpora: {", ".join(corpus_names())}. Source, licence and folder layout of each: '
        'tfds_builders/<name>/README.md.',
    )
    result.add_argument(
        'name', help='corpus, e.g. emodb; csv_corpus/<name> for your own recordings'
    )
    result.add_argument(
        '--manual_dir',
        help='folder with the corpus as distributed by its owner; default $SER_JAX_MANUAL_DIR/<corpus>, '
        'else it is downloaded where it is public',
    )
    result.add_argument(
        '--data_dir', help=f'root of the prepared corpora; default {DEFAULT_DATA_DIR}'
    )
    result.add_argument(
        '--representation',
        choices=(*REPRESENTATIONS, 'both'),
        default='log_mel',
        help='waveform: for end_to_end, and for noise mixed in at test time; default log_mel',
    )
    result.add_argument('--strict', action='store_true', help='stop at the first unusable file')
    result.add_argument(
        '--num_shards',
        type=int,
        help='number of shards; default: one per thousand utterances or 256 MB of audio',
    )
    result.add_argument(
        '--beam_runner',
        help='runner of Apache Beam, e.g. DirectRunner, DataflowRunner (extra [beam])',
    )
    result.add_argument(
        '--beam_options', action='append', default=[], metavar='OPTION',
        help='option of the runner, e.g. --beam_options=--project=mine (repeatable)',
    )  # fmt: skip
    result.add_argument('--workers', type=int, help='processes; default: one per core')
    result.add_argument(
        '--map', action='append', default=[], metavar='LABEL=EMOTION',
        help='csv_corpus: read LABEL as EMOTION (repeatable; an empty EMOTION drops the label)',
    )  # fmt: skip
    result.add_argument(
        '--own_labels',
        action='store_true',
        help='csv_corpus: keep its label names (rules out runs across corpora)',
    )
    return result


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    flags = parser().parse_args(arguments)
    # After --help: importing TFDS is slow.
    from tfds_builders.core.prepare import prepare

    try:
        options = csv_options(flags)
        both = flags.representation == 'both'
        for representation in REPRESENTATIONS if both else (flags.representation,):
            prepare(
                flags.name,
                manual_dir=flags.manual_dir,
                data_dir=flags.data_dir,
                representation=representation,
                options=options,
                strict=flags.strict,
                workers=flags.workers,
                num_shards=flags.num_shards,
                beam_runner=flags.beam_runner,
                beam_options=flags.beam_options,
                rebuild=True,
                log=print,
            )
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
