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
        UserError: an item without '='.
    """
    result = {}
    for pair in pairs:
        label, sign, name = pair.partition('=')
        if not sign or not label:
            raise UserError(f'--map {pair}: expected LABEL=EMOTION, such as bored=neutral')
        result[label.strip()] = name.strip()
    return result


def csv_options(flags: argparse.Namespace) -> dict:
    """`--map` and `--own_labels` as the builder of csv corpora takes them; checks `--workers` and `--num_shards` too.

    Raises:
        UserError: given for another corpus, or malformed.
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
        epilog=f'Corpora: {", ".join(corpus_names())}. tfds_builders/<name>/README.md says where to get one, '
        'under which licence, and what its folder looks like.',
    )
    result.add_argument(
        'name', help='of the corpus, e.g. emodb; csv_corpus/<name> for recordings of your own'
    )
    result.add_argument(
        '--manual_dir',
        help='folder with the corpus as its owner delivers it; default $SER_JAX_MANUAL_DIR/<corpus>, '
        'else it is downloaded, where its owner lets everybody',
    )
    result.add_argument(
        '--data_dir', help=f'where prepared corpora lie; default {DEFAULT_DATA_DIR}'
    )
    result.add_argument(
        '--representation',
        choices=(*REPRESENTATIONS, 'both'),
        default='log_mel',
        help='waveform: for end_to_end, and to mix in noise at test time; default log_mel',
    )
    result.add_argument('--strict', action='store_true', help='stop at the first unusable file')
    result.add_argument(
        '--num_shards',
        type=int,
        help='files of records; default: one a thousand utterances or 256 MB of audio',
    )
    result.add_argument(
        '--beam_runner', help='of Apache Beam, e.g. DirectRunner, DataflowRunner (extra [beam])'
    )
    result.add_argument(
        '--beam_options', action='append', default=[], metavar='OPTION',
        help='for the runner, e.g. --beam_options=--project=mine (repeatable)',
    )  # fmt: skip
    result.add_argument('--workers', type=int, help='processes; default: one a core')
    result.add_argument(
        '--map', action='append', default=[], metavar='LABEL=EMOTION',
        help='csv_corpus: read LABEL as EMOTION (repeatable; nothing after = drops the label)',
    )  # fmt: skip
    result.add_argument(
        '--own_labels',
        action='store_true',
        help='csv_corpus: keep its own label names (then no runs across corpora)',
    )
    return result


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status."""
    flags = parser().parse_args(arguments)
    # After --help: importing TFDS takes a while.
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
