"""Writes the README's tables from the result cards: `python results/make_tables.py [--check]`.

A run behind a number of the README lies in `results/<group>/<run>/`: `results.json` (the card),
`predictions/<condition>.csv`, `command.txt` (the command that made it). `<!-- table: GROUP -->` and
`<!-- end table -->` in the README enclose the table of a group; of a grid's folder, its `robustness_….md` or
`matrix.md`. `--check` writes nothing and exits
with 1 where the README says something else than the cards.
"""

import argparse
import json
import re
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CAPTION = (
    'UAR on predictions pooled over the folds, mean ± standard deviation over the seeds; 95 % '
    'interval: bootstrap over speakers, the mean of the bounds over the seeds; time: training of '
    'all folds, mean over the seeds; command: of the first seed.'
)
COLUMNS = (
    'system',
    'corpus',
    'protocol',
    'n',
    'seeds',
    'UAR % (mean ± std)',
    '95 % interval',
    'WA %',
    'time',
    'hardware',
    'command',
)
MARKED = re.compile(r'(<!-- table: ([\w.-]+) -->\n).*?(<!-- end table -->)', re.DOTALL)


class CardError(Exception):
    """A card, a command or a marker that no table can be made of; says where."""


def read_runs(group: Path) -> list[dict]:
    """The cards of a group's runs, each with its `command`, by system, corpus, protocol, seed.

    Raises:
        CardError: no run, an unreadable card, or a run without `command.txt`.
    """
    runs = []
    for path in sorted(group.glob('*/results.json')):
        try:
            card = json.loads(path.read_text(encoding='utf-8'))
            command = (path.parent / 'command.txt').read_text(encoding='utf-8').strip()
            if 'clean' not in card['conditions']:
                raise CardError(f'{path} has no condition "clean": not a tested run')
        except (OSError, ValueError, KeyError) as error:
            raise CardError(f'{path}: {error!r}') from error
        runs.append({**card, 'command': command})
    if not runs:
        raise CardError(f'{group} holds no results.json')
    return sorted(runs, key=lambda run: (*_row_key(run), run['seed']))


def _row_key(run):
    return run['corpus'], run['protocol'], run['system']


def make_table(runs: list[dict]) -> str:
    """The table of some runs as Markdown: one row per corpus, protocol and system, seeds joined.

    Raises:
        CardError: a seed twice, or seeds tested on different numbers of utterances.
    """
    rows = {}
    for run in runs:
        rows.setdefault(_row_key(run), []).append(run)
    lines = [COLUMNS, ['---'] * len(COLUMNS)] + [_row(seeds) for seeds in rows.values()]
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    return f'{table}\n\n{CAPTION}\n'


def _row(runs):
    from ser_jax.console import duration  # after main() has made the clone importable

    first = runs[0]
    seeds = [run['seed'] for run in runs]
    clean = [run['conditions']['clean'] for run in runs]
    numbers = sorted({result['n'] for result in clean})
    if len(set(seeds)) < len(seeds):
        raise CardError(f'{first["system"]} on {first["corpus"]}: seed twice among {seeds}')
    if len(numbers) > 1:
        raise CardError(f'{first["system"]} on {first["corpus"]}: its seeds tested {numbers}')
    for field in ('config_hash', 'corpus_hash'):
        if len({run[field] for run in runs}) > 1:
            raise CardError(f'{first["system"]} on {first["corpus"]}: seeds differ in {field}')
    dirty = [run['seed'] for run in runs if '+changes' in run['commit']]
    if dirty:
        raise CardError(f'{first["system"]} on {first["corpus"]}: seed {dirty[0]} ran changed code')
    uar = [100 * result['uar'] for result in clean]
    spread = f' ± {statistics.stdev(uar):.1f}' if len(uar) > 1 else ''
    intervals = [result['uar_ci95'] for result in clean]
    bounds = [
        '–' if None in side else f'{100 * statistics.mean(side):.1f}' for side in zip(*intervals)
    ]
    seconds = [run['cost'].get('train_seconds') for run in runs]
    return [
        first['system'],
        first['corpus'] + (' (synthetic)' if first['synthetic'] else ''),
        f'`{first["protocol"]}`, {first["n_folds"][0]} of {first["n_folds"][1]} folds',
        str(numbers[0]),
        ', '.join(map(str, seeds)),
        f'{statistics.mean(uar):.1f}{spread}',
        f'{bounds[0]} – {bounds[1]}',
        f'{100 * statistics.mean(result["wa"] for result in clean):.1f}',
        '–' if None in seconds else duration(statistics.mean(seconds)),
        '; '.join(dict.fromkeys(run['device'] for run in runs)),
        f'`{first["command"]}`',
    ]


def fill(readme: str, results: Path) -> str:
    """The README's text with every marked table made anew.

    Raises:
        CardError: a marker without its end or without its runs, or no marker at all.
    """
    found = MARKED.findall(readme)
    if len(found) != readme.count('<!-- table: ') or len(found) != readme.count('<!-- end table'):
        raise CardError('every <!-- table: GROUP --> needs its <!-- end table -->')
    if not found:
        raise CardError('the README has no <!-- table: GROUP --> … <!-- end table -->')

    def renew(match):
        group = results / match[2]
        files = [*group.glob('robustness_*.md'), *group.glob('matrix.md')]
        if files:
            table = files[0].read_text(encoding='utf-8').partition('finished.\n\n')[2]
            # Of matrices, the models as they are and with target statistics; the rest stands in the file.
            table = '\n\n**'.join(table.split('\n\n**')[:2]).rstrip() + '\n'
        else:
            table = make_table(read_runs(group))
        return f'{match[1]}{table}{match[3]}'

    return MARKED.sub(renew, readme)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing, exit 1 on difference')
    parser.add_argument('--readme', type=Path, default=ROOT / 'README.md')
    parser.add_argument('--results', type=Path, default=ROOT / 'results')
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    try:
        old = options.readme.read_text(encoding='utf-8')
        new = fill(old, options.results)
    except (CardError, OSError) as error:
        print(f'make_tables: {error}', file=sys.stderr)
        return 1
    if options.check:
        if new != old:
            print(
                f'{options.readme} differs from the cards: run python results/make_tables.py',
                file=sys.stderr,
            )
        return int(new != old)
    options.readme.write_text(new, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
