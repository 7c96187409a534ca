"""Shows finished runs, or compares two systems: python -m ser_jax.report --workdir=A [--against=B]

--workdir     a finished run of ser_jax.main, or several of one system with other seeds
--against     the same of another system, tested on the same utterances: A minus B
--condition   of the test; default clean, or clean_<first task> where the emotion is none
--format      table or json; default table
--replicates  of the bootstrap, and of the permutation where it is not exact; default 10000
--html        also writes one page with figures to that file; it needs nothing beside it
--audio       the page also plays the hardest utterances: it then holds recordings of the corpus
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command starts over')

import argparse
import json
import statistics
import sys
import textwrap
from collections.abc import Mapping, Sequence

from ser_jax.runtime.errors import UserError, printable, report_errors

_FEW = 8  # speakers: below, a p-value cannot become small
# Speakers below which the percentile interval is noticeably too narrow: normal differences of 10
# speakers it covers in 90 % of cases (1.96 √(9/10) of Student's t with 9 degrees of freedom), of 20
# in 93 %.
_NARROW = 20
_TOLD = ('system', 'options', 'settings_of', 'corpus')  # fields that a header tells in other words
_WAYS = {
    'mean_over_seeds': 'mean over seeds ± std',
    'averaged_posterior': 'averaged posterior',
}


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.report',
        description=__doc__.partition(':')[0],
        epilog='Several folders on a side are seeds of one system. With --against: A minus B, paired by '
        'utterance, whole speakers drawn (interval) and swapped (p).',
        allow_abbrev=False,
    )
    several = {'nargs': '+', 'action': 'extend', 'metavar': 'DIR'}
    parser.add_argument('--workdir', required=True, help='finished run(s) of system A', **several)
    parser.add_argument('--against', default=[], help='finished run(s) of system B', **several)
    parser.add_argument(
        '--condition', default='', help='of the test (default: clean, of the first task)'
    )
    parser.add_argument(
        '--format', default='table', choices=['table', 'json'], help='default: table'
    )
    parser.add_argument(
        '--replicates', type=int, default=10_000, help='of the bootstrap (default: 10000)'
    )
    parser.add_argument('--html', default='', metavar='FILE', help='write a page with figures')
    parser.add_argument('--audio', action='store_true', help='the page holds recordings, too')
    words = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args([part for word in words for part in _split(word)])
    try:
        if options.replicates < 100:
            raise UserError(f'--replicates={options.replicates}: an interval takes 100 at least')
        if options.audio and not options.html:
            raise UserError('--audio puts recordings into the page of --html=FILE: name one')
        (_compare if options.against else _show)(options)
    except UserError as error:
        sys.exit(f'error: {error}')
    return 0


def _split(word):
    """`--workdir=A`, followed by more, as argparse wants it."""
    return word.split('=', 1) if word.startswith(('--workdir=', '--against=')) else [word]


def _usual_condition(workdir):
    """`clean`, or that of the first task where the emotion is none."""
    from ser_jax.runs import finished

    there = finished.read_card(workdir)['conditions']
    clean = [name for name in there if name.startswith('clean')]
    return clean[0] if clean and 'clean' not in clean else 'clean'


def _compare(options):
    from ser_jax.evaluation import compare  # after the flags: it is slower to import

    condition = options.condition or _usual_condition(options.workdir[0])
    result = compare.compare_runs(options.workdir, options.against, condition, options.replicates)
    _write(options, result, comparison_table(result), result['warnings'])


def _show(options):
    from ser_jax.evaluation import compare
    from ser_jax.reporting import text as console
    from ser_jax.runs import finished

    cards = finished.read_seeds(options.workdir)
    for workdir, card in zip(options.workdir, cards):
        there, wanted = card['conditions'], options.condition
        if wanted not in ('', 'clean'):
            if wanted not in there:
                names = ', '.join(there) or 'none'
                raise UserError(
                    f'{workdir} has no condition {wanted}; it has {names} (--condition names one)'
                )
            card['conditions'] = {wanted: there[wanted]}
    tables = [console.print_table(card) for card in cards]
    if len(cards) == 1:
        _write(options, {'cards': cards, 'over_seeds': None}, tables[0], [])
    elif not any(card['conditions'] for card in cards):
        found = _validated([card['validation'] for card in cards])
        width, over = max(map(len, found)), f'mean over {len(cards)} seeds ± std'
        lines = [
            f'validation UAR, {name:<{width}}  {_spread(**rate)} %   {over}'
            for name, rate in found.items()
        ]
        content = {'cards': cards, 'over_seeds': {'validation': found}}
        _write(options, content, '\n'.join([*tables, *lines]), [])
    else:
        condition = options.condition or _usual_condition(options.workdir[0])
        result = compare.over_seeds(options.workdir, condition, options.replicates)
        text = '\n'.join([*tables, seeds_table(result)])
        _write(options, {'cards': cards, 'over_seeds': result}, text, result['warnings'])


def _validated(validations):
    """What seeds that tested nobody reached on validation speakers, clean and under the conditions that all of them tried."""
    rates = [{'clean': each['uar'], **each.get('conditions', {})} for each in validations]
    tried = [name for name in rates[0] if all(name in each for each in rates)]
    uar = {name: [each[name] for each in rates] for name in tried}
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


def comparison_table(result: Mapping) -> str:
    """The comparison of two systems as text.

    Args:
        result: of `paired.compare_runs`.

    Returns:
        Lines of at most 100 columns; rates in percent.
    """
    several = len(result['a']['seeds']) > 1 or len(result['b']['seeds']) > 1
    head = f'{"UAR in percent":<24}{"A":>11}{"B":>13}{"A − B":>9}   {"95 % interval":<16}p'
    rows = []
    for name, title in _WAYS.items() if several else [('mean_over_seeds', 'one seed each')]:
        found, mean = result[name], name == 'mean_over_seeds'
        a, b = (
            _spread(found[f'uar_{side}'], result[side]['uar_std'] if mean else None)
            for side in 'ab'
        )
        bounds = _bounds(found['ci95'], '+.1f')
        difference = 100 * found['difference']
        rows.append(f'{title:<24}{a:>11}{b:>13}{difference:>+9.1f}   {bounds:<16}{found["p"]:.3g}')
    n_clusters = result['n_speakers'] + result['n_unknown_speaker']
    p = 'two-sided; A and B swapped speaker by speaker, ' + (
        f'in all {2**n_clusters} ways'
        if result['p_exact']
        else f'in {result["replicates"]} random ways, to which the one observed is added'
    )
    if n_clusters < _FEW:
        p += f'; with {_count(n_clusters, "speaker")} no p is below {result["smallest_p"]:.3g}'
    notes = _notes(result, several, ', the same draw for A and B')
    notes.append(('p', f'{p}; not corrected for other comparisons'))
    sides = [('A', result['a']), ('B', result['b'])]
    return _blocks(_context(sides, result), [head, *rows], _noted(notes))


def seeds_table(result: Mapping) -> str:
    """The result of one system over several seeds as text.

    Args:
        result: of `paired.over_seeds`.

    Returns:
        Lines of at most 100 columns; rates in percent.
    """
    rows = [f'{"UAR in percent":<24}{"":>11}   95 % interval']
    for name, title in _WAYS.items():
        std = result['a']['uar_std'] if name == 'mean_over_seeds' else None
        uar = _spread(result[name]['uar'], std)
        rows.append(f'{title:<24}{uar:>11}   {_bounds(result[name]["ci95"], ".1f")}')
    context = _context([('', result['a'])], result)
    return _blocks(context, rows, _noted(_notes(result, True, '')))


def _spread(mean, std=None):
    """A rate in percent, and room for ± where there is none, so that the numbers stand in line."""
    return f'{100 * mean:.1f}' + (f' ± {100 * std:.1f}' if std is not None else ' ' * 6)


def _count(n, word):
    return f'{n} {word}' + 's' * (n != 1)


def _bounds(interval, form):
    lower, upper = interval
    return '–' if lower is None else f'[{100 * lower:{form}}, {100 * upper:{form}}]'


def _context(sides, result):
    """Whose numbers they are and what they were computed on."""
    across = result['condition'].startswith('cross_')
    lines = []
    for name, side in sides:
        seeds = f'seed{"s" * (len(side["seeds"]) > 1)} ' + ', '.join(map(str, side['seeds']))
        commits = ', '.join(commit[:10] or 'unknown' for commit in side['commits'])
        trained = f', trained on {" and ".join(side["trained_on"])}' if across else ''
        lines.append(f'{name}  {side["system"]}{trained}, {seeds}, commit {commits}'.strip())
    speech = 'SYNTHETIC speech' if result['synthetic'] else 'real speech'
    folds = f', {result["protocol"]}, {result["n_folds"][0]} of {result["n_folds"][1]} folds'
    lines.append(
        f'{result["corpus"]} ({speech}){"" if across else folds}, condition {result["condition"]}'
    )
    configs = [side['config'] for _, side in sides if side['config']]
    if len(configs) == 2:
        fields = [name for name in configs[0] | configs[1] if name not in _TOLD]
        texts = [[f'{name} {config.get(name, "–")}' for name in fields] for config in configs]
        for (name, _), own, other in zip(sides, texts, texts[::-1]):
            differing = [text for text, against in zip(own, other) if text != against]
            if differing:
                lines.append(f'{name} alone: {", ".join(differing)}')
    unknown = result['n_unknown_speaker']
    lines.append(
        f'{result["n"]} utterances, {_count(result["n_speakers"], "speaker")}'
        + (f', {unknown} utterances of unknown speakers, each by itself' if unknown else '')
        + f', {len(result["labels"])} classes: {" ".join(result["labels"])}'
    )
    return [part for line in lines for part in textwrap.wrap(line, 100, subsequent_indent='   ')]


def _notes(result, several, same):
    """What each line and column means."""
    ways = [
        ('mean', 'the UAR of each seed, then their mean; seeds as they are: nothing of a new one'),
        ('averaged', 'the mean of the probabilities over the seeds, then the UAR'),
    ]
    n_clusters = result['n_speakers'] + result['n_unknown_speaker']
    if result['mean_over_seeds']['ci95'][0] is None:
        reason = 'not one draw of speakers in 100 holds every class'
        interval = f'none: {"a single speaker" if n_clusters < 2 else reason}'
    else:
        interval = (
            f'bootstrap over speakers, {result["replicates"]} replicates{same}; '
            f'{result["redrawn"]} draws lacked a class and were made again'
        )
        if n_clusters < _NARROW:
            interval += f'; with {n_clusters} speakers rather too narrow' + (
                ': where it and p disagree, believe p' if same else ''
            )
    return [*(ways if several else []), ('interval', interval)]


def _noted(notes):
    wrap = lambda name, text: textwrap.wrap(f'{name:<10}{text}', 100, subsequent_indent=' ' * 10)
    return [line for name, text in notes for line in wrap(name, text)]


def _blocks(*blocks):
    tidy = lambda block: '\n'.join(printable(line.rstrip()) for line in block) + '\n'
    return '\n'.join(map(tidy, blocks))


if __name__ == '__main__':
    sys.exit(main())
