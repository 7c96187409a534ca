"""Shows finished runs, or compares two systems: python -m ser_jax.report --workdir=A [--against=B]"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command starts over')

import argparse
import json
import statistics
import sys
from collections.abc import Sequence

from ser_jax.runtime.errors import UserError, printable, report_errors
from ser_jax.runtime.files import docstring


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.report',
        description=docstring(__file__).partition(':')[0],
        epilog='Several folders per system are its seeds. With --against: A minus B, paired by '
        'utterance; speakers are resampled (interval) and swapped (p).',
        allow_abbrev=False,
    )
    several = {'nargs': '+', 'action': 'extend', 'metavar': 'DIR'}
    parser.add_argument('--workdir', required=True, help='finished run(s) of system A', **several)
    parser.add_argument('--against', default=[], help='finished run(s) of system B', **several)
    parser.add_argument(
        '--condition', default='', help='evaluation condition (default: clean, of the first task)'
    )
    parser.add_argument(
        '--format', default='table', choices=['table', 'json'], help='default: table'
    )
    parser.add_argument(
        '--replicates',
        type=int,
        default=10_000,
        help='of the bootstrap, and of a permutation test that is not exact; default 10000',
    )
    parser.add_argument(
        '--html', default='', metavar='FILE', help='also write a self-contained page with figures'
    )
    parser.add_argument(
        '--audio', action='store_true', help='embed the recordings of the worst errors in it'
    )
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args([part for argument in arguments for part in _split(argument)])
    try:
        if options.replicates < 100:
            raise UserError(
                f'--replicates={options.replicates}: an interval needs at least 100 replicates'
            )
        if options.audio and not options.html:
            raise UserError('--audio embeds recordings in a page: also set --html=FILE')
        (_compare if options.against else _show)(options)
    except UserError as error:
        sys.exit(f'error: {error}')
    return 0


def _split(argument):
    """Splits `--workdir=A`, which more folders may follow, as argparse requires."""
    return (
        argument.split('=', 1) if argument.startswith(('--workdir=', '--against=')) else [argument]
    )


def _default_condition(workdir):
    """`clean`, or that of the first task where the emotion is not tested."""
    from ser_jax.runs import finished

    clean = [name for name in finished.read_card(workdir)['conditions'] if name.startswith('clean')]
    return clean[0] if clean and 'clean' not in clean else 'clean'


def _compare(options):
    # Imported after parsing the flags, here and below: slow.
    from ser_jax.evaluation import compare
    from ser_jax.reporting import text

    condition = options.condition or _default_condition(options.workdir[0])
    result = compare.compare_runs(options.workdir, options.against, condition, options.replicates)
    _write(options, result, text.comparison_table(result), result['warnings'])


def _show(options):
    from ser_jax.evaluation import compare
    from ser_jax.reporting import text
    from ser_jax.runs import finished

    cards = finished.read_seeds(options.workdir)
    for workdir, card in zip(options.workdir, cards):
        tested, wanted = card['conditions'], options.condition
        if wanted:
            if wanted not in tested:
                names = ', '.join(tested) or 'none'
                raise UserError(
                    f'{workdir} has no condition {wanted}; it has {names} (--condition names one)'
                )
            card['conditions'] = {wanted: tested[wanted]}
    tables, over_seeds, warnings = [text.card_table(card) for card in cards], None, []
    if len(cards) > 1 and any(card['conditions'] for card in cards):
        condition = options.condition or _default_condition(options.workdir[0])
        over_seeds = compare.over_seeds(options.workdir, condition, options.replicates)
        tables.append(text.seeds_table(over_seeds))
        warnings = over_seeds['warnings']
    elif len(cards) > 1:
        rates = _validation_over_seeds([card['validation'] for card in cards])
        over_seeds = {'validation': rates}
        tables.append(text.validation_table(rates, len(cards)))
    _write(options, {'cards': cards, 'over_seeds': over_seeds}, '\n'.join(tables), warnings)


def _validation_over_seeds(validations):
    """Mean and std of the validation UARs of several seeds, under the conditions that all of them have."""
    rates = [{'clean': each['uar'], **each.get('conditions', {})} for each in validations]
    shared = [name for name in rates[0] if all(name in each for each in rates)]
    uar = {name: [each[name] for each in rates] for name in shared}
    return {
        name: {'mean': statistics.mean(u), 'std': statistics.stdev(u)} for name, u in uar.items()
    }


def _write(options, content, table, warnings):
    if options.html:
        from ser_jax.reporting.html import page

        result = content if options.against else content['over_seeds'] or {}
        page.write_page(
            options.html,
            options.workdir,
            options.against,
            result=result if 'mean_over_seeds' in result else None,
            text=table,
            audio=options.audio,
        )
    for line in warnings:
        print(f'warning: {printable(line)}', file=sys.stderr)
    print(json.dumps(content, indent=1, ensure_ascii=False) if options.format == 'json' else table)


if __name__ == '__main__':
    sys.exit(main())
