"""Writes the tables of README.md, results/README.md and results/development.md from the result cards: `python results/make_tables.py [--grids] [--check]`.

A run behind a number of the README lies in `results/<group>/<run>/`: `results.json` (the card),
`predictions/<condition>.csv`, `command.txt` (its command line). On a page, `<!-- table: GROUP -->` and `<!-- end table -->` enclose
the table of a group; of a grid, its `robustness_….md` or `matrix.md`. Further tables of a grid:

GROUP.CONDITION    rows of its `table.md` under one condition, with paired tests
GROUP.confusions   most frequent errors of its variants
GROUP.agreement    number of recordings that all, some or none of its runs classify correctly
GROUP.speakers     speakers of the two classes that are confused most
GROUP.parts        gain of each part of MTL-AUG
GROUP.ways         means over a matrix of corpora
GROUP.tries        results of its variants on validation speakers

`<!-- table: overview -->` is a table over several groups.

`--grids` first regenerates the tables and figures of all stored grids from their runs (a minute). `--check` writes no page and exits
with 1 if one differs from the cards.
"""

import argparse
import json
import re
import statistics
import sys
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PAGES = ('README.md', 'results/README.md', 'results/development.md')
CAPTION = (
    'UAR on predictions pooled over the folds, mean ± standard deviation over the seeds; 95 % '
    'interval: bootstrap over speakers, the mean of the bounds over the seeds; time: training of '
    'all folds, mean over the seeds; command: of the first seed.'
)
TASK_CAPTION = (
    'UAR in percent on predictions pooled over the folds, mean ± standard deviation over the seeds, and 95 % interval: '
    'bootstrap over speakers, the mean of the bounds over the seeds; CCC: of ratings, whose levels have the UAR; time: training of '
    'all networks of the row, mean over the seeds; command: of its first network and seed.'
)
CONFUSIONS_CAPTION = (
    "Percentage of a class's recordings that are predicted as another, clean, pooled over the folds, mean ± standard deviation over the seeds; "
    'pairs above 3 in any row.'
)
AGREEMENT_CAPTION = (
    'Clean recordings by the share of the {} runs (all variants and seeds) that classify them correctly; last: most frequent wrong predictions '
    'of those that fewer than half classify correctly.'
)
SPEAKERS_CAPTION = (
    'The two emotions that the {} runs of all variants and seeds confuse most, clean, mean over the runs. Area: under the ROC curve of the log odds of '
    'the two, 50 = chance; pooled over the speakers it is lower where the decision threshold would have to differ between them.'
)
WAYS_CAPTION = (
    'UAR in percent, mean over the pairs of a trained and a tested corpus, ± standard deviation of that mean over the seeds; last: of how many pairs the '
    'mean over the seeds is highest. Ties count for neither. Pairs with the same corpora share recordings: the means are descriptive only.'
)
TRIES_CAPTION = (
    'UAR in percent on the validation speakers at the last step, mean over the folds (and the seeds, ± standard deviation); '
    'corrupted: mean over the conditions right of it.'
)
# Part of MTL-AUG -> (variant with it, variant without it).
PARTS = {
    'augmentation, as data': ('augmentation_as_data', 'single_task'),
    'its type as a task': ('augmentation_type', 'augmentation_as_data'),
    'reconstruction': ('reconstruction', 'augmentation_as_data'),
    'both tasks': ('full', 'augmentation_as_data'),
    'unlabelled speech': ('full_unlabelled', 'full'),
    'augmentation and both tasks': ('full', 'single_task'),
}
# Kind of condition -> prefixes of the conditions that are averaged; a condition belongs to the first matching kind.
KINDS = {
    'clean': ('clean',),
    'babble': ('noise_babble',),
    'other noise': ('noise_',),
    'room, channel': ('reverberation_', 'telephone', 'mu_law', 'clipping_'),
    '20 dB softer': ('gain_-20',),
    'attack': ('fgsm_', 'pgd_'),
}
PARTS_CAPTION = (
    'Points of UAR that a part adds, mean over the seeds and the conditions of a kind (their number in brackets), with a 95 % bootstrap interval over '
    'speakers; p: two-sided permutation test over speakers, Holm-corrected for the {} comparisons of a column. '
    'Intervals and p-values reflect speaker sampling, not seed variance.'
)
# Row of the overview -> pattern of its runs, or of the file of a baseline.
OVERVIEW = {
    'openSMILE ComParE and SVM': 'opensmile_{corpus}.json',
    'single task, from scratch': '{group}/{corpus}-single_task-seed*',
    'MTL-AUG, from scratch': '{group}/{corpus}-full-seed*',
    'linear probe on frozen Whisper tiny.en': 'encoders/{corpus}-probe-seed*',
    '… trained on augmented views': 'encoders/{corpus}-probe_views-seed*',
}
# Corpus -> group of the runs from scratch.
OVERVIEW_GROUPS = {'emodb': 'mtl_aug', 'ravdess': 'ravdess', 'nemo': 'nemo'}
# Column of the overview -> corpus, condition.
OVERVIEW_COLUMNS = {
    'EMO-DB': ('emodb', 'clean'),
    'telephone': ('emodb', 'telephone'),
    'rain, 5 dB': ('emodb', 'noise_rain_5db'),
    'babble, 5 dB': ('emodb', 'noise_babble3_5db'),
    'RAVDESS': ('ravdess', 'clean'),
    'nEMO': ('nemo', 'clean'),
}
OVERVIEW_CAPTION = (
    'UAR in percent on unseen speakers, mean over {} to {} seeds; in brackets the 95 % interval, bootstrap over speakers. EMO-DB: 4 emotions, leave one '
    "speaker out; telephone, rain and babble (at 5 dB) are conditions of its test. RAVDESS: 8 emotions, EmoBox's folds; nEMO: 6, leave one speaker out. "
    '–: not run.'
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
_GRID_FOLDER = re.compile(r'([^-]+)-([^-]+)-seed(\d+)')  # SETTING-VARIANT-seedK
MARKED = re.compile(r'(<!-- table: ([\w.-]+) -->\n).*?(<!-- end table -->)', re.DOTALL)


class CardError(Exception):
    """A card, a command or a marker from which no table can be made; the message names the place."""


def read_runs(group: Path) -> list[dict]:
    """The cards of a group's runs, each with its `command`, sorted by corpus, protocol, system, seed.

    Raises:
        CardError: no run, an unreadable card, or a run without `command.txt`.
    """
    runs = []
    for path in sorted(group.glob('*/results.json')):
        try:
            card = json.loads(path.read_text(encoding='utf-8'))
            command = (path.parent / 'command.txt').read_text(encoding='utf-8').strip()
            if not any(name.startswith('clean') for name in card['conditions']):
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
    """The Markdown table of runs: one row per corpus, protocol and system, over its seeds.

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
    first, clean = runs[0], _seeds_of_one_system(runs, 'clean')
    rate, interval = _rate(clean)
    return [
        first['system'],
        *_where(first),
        str(clean[0]['n']),
        ', '.join(str(run['seed']) for run in runs),
        rate,
        interval,
        f'{100 * statistics.mean(result["wa"] for result in clean):.1f}',
        _duration([run['cost'].get('train_seconds') for run in runs]),
        '; '.join(dict.fromkeys(run['device'] for run in runs)),
        f'`{first["command"]}`',
    ]


def _seeds_of_one_system(runs, condition):
    """The results of a row's runs under a condition."""
    first, seeds = runs[0], [run['seed'] for run in runs]
    where = f'{first["system"]} on {first["corpus"]}'
    results = [run['conditions'][condition] for run in runs]
    numbers = sorted({result['n'] for result in results})
    if len(set(seeds)) < len(seeds):
        raise CardError(f'{where}: seed twice among {seeds}')
    if len(numbers) > 1:
        raise CardError(f'{where}: its seeds tested {numbers}')
    for field in ('config_hash', 'corpus_hash'):
        if len({run[field] for run in runs}) > 1:
            raise CardError(f'{where}: seeds differ in {field}')
    dirty = [run['seed'] for run in runs if '+changes' in run['commit']]
    if dirty:
        raise CardError(f'{where}: seed {dirty[0]} ran uncommitted code')
    return results


def _rate(results):
    """UAR over the seeds with its standard deviation, and its interval."""
    bounds = [
        '–' if None in side else f'{100 * statistics.mean(side):.1f}'
        for side in zip(*(result['uar_ci95'] for result in results))
    ]
    return _spread([100 * result['uar'] for result in results]), f'{bounds[0]} – {bounds[1]}'


def _spread(values):
    """Mean; of several values, with their standard deviation."""
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def _where(card):
    folds = '{} of {} folds'.format(*card['n_folds'])
    return card['corpus'] + ' (synthetic)' * card['synthetic'], f'`{card["protocol"]}`, {folds}'


def _duration(seconds):
    from ser_jax.reporting.text import duration  # after main() has made the clone importable

    return '–' if None in seconds else duration(statistics.mean(seconds))


def make_task_table(runs: list[dict]) -> str:
    """The table of runs that report several tasks, or one each: one column per task; single-task runs share a row.

    Raises:
        CardError: see `make_table`; or the networks of a row have different seeds.
    """
    systems = {}
    for run in runs:
        tasks = tuple(run['tasks'])
        words = [word for word in run['system'].split(',') if word not in tasks]
        how = f'one network for {", ".join(tasks)}' if len(tasks) > 1 else 'a network a task'
        key = (*_where(run), ','.join(words), how)
        systems.setdefault(key, {}).setdefault(tasks, []).append(run)
    names = list(dict.fromkeys(task for run in runs for task in run['tasks']))
    head = ('system', 'corpus', 'protocol', 'seeds', *names, 'time', 'hardware', 'command')
    lines = [head, ['---'] * len(head)]
    for (*_, system, how), parts in systems.items():
        cells, seconds = dict.fromkeys(names, 'not run'), 0
        everything = [run for seeds in parts.values() for run in seeds]
        if len({tuple(run['seed'] for run in seeds) for seeds in parts.values()}) > 1:
            raise CardError(f'{system}, {how}: its networks have different seeds')
        for tasks, seeds in parts.items():
            for task in tasks:
                name = 'clean' if task == 'emotion' else f'clean_{task}'
                results = _seeds_of_one_system(seeds, name)
                cells[task] = '{} [{}], n = {}'.format(*_rate(results), results[0]['n'])
                if 'ccc' in results[0]:
                    ccc = statistics.mean(result['ccc'] for result in results)
                    cells[task] += f', CCC {ccc:.3f}'
            seconds += statistics.mean(run['cost']['train_seconds'] for run in seeds)
        first = everything[0]
        lines.append(
            (
                f'{system}, {how}',
                *_where(first),
                ', '.join(str(run['seed']) for run in next(iter(parts.values()))),
                *cells.values(),
                _duration([seconds]),
                '; '.join(dict.fromkeys(run['device'] for run in everything)),
                f'`{first["command"]}`',
            )
        )
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    return f'{table}\n\n{TASK_CAPTION}\n'


def make_paired_table(group: Path, condition: str) -> str:
    """The rows of a grid's `table.md` under one condition, without constant columns.

    Raises:
        CardError: no such file or condition, or another layout.
    """
    try:
        text = (group / 'table.md').read_text(encoding='utf-8')
    except OSError as error:
        raise CardError(f'{group}: {error!r}') from error
    parts = [part.strip() for part in text.split('\n\n') if part.strip()]
    if len(parts) < 4 or not parts[2].startswith('| setting |'):
        raise CardError(f'{group}/table.md is not laid out as ser_jax.grid writes it')
    _, finished, table, caption, *notes = parts
    caption = caption.replace('of this table (', "of the grid's whole table (")
    head, _, *rows = [line.strip('| ').split(' | ') for line in table.splitlines()]
    rows = [row for row in rows if row[head.index('condition')] == condition]
    if not rows:
        raise CardError(f'{group}: table.md has no condition {condition}')
    names = (
        'variant',
        'seeds',
        'UAR % (mean ± std)',
        '95 % interval',
        'difference',
        'p',
        'p (Holm)',
    )
    shown = [
        number
        for number, name in enumerate(head)
        if name in (*names, 'time') or len({row[number] for row in rows}) > 1
    ]
    common = ', '.join(
        f'n = {cell}' if name == 'n' else cell
        for number, (name, cell) in enumerate(zip(head, rows[0]))
        if number not in shown and name != 'setting'
    )
    lines = [head, ['---'] * len(head), *rows]
    table = '\n'.join('| ' + ' | '.join(line[n] for n in shown) + ' |' for line in lines)
    return '\n\n'.join([f'{common}. {finished}', table, caption, *notes]) + '\n'


def make_confusion_table(group: Path) -> str:
    """The confusions of a grid's variants: one row per variant, one column per pair of classes, the most frequent first.

    Raises:
        CardError: see `_by_variant`.
    """

    def confusions(card):
        result = card['conditions']['clean']
        return {
            f'{true} as {predicted}': 100 * count / max(1, sum(row))
            for true, row in zip(result['recall'], result['confusion'])
            for predicted, count in zip(result['recall'], row)
            if predicted != true
        }

    rates = _by_variant(group, confusions)
    most = {
        pair: max(statistics.mean(run[pair] for run in runs.values()) for runs in rates.values())
        for pair in _first(rates)
    }
    shown = sorted((pair for pair in most if most[pair] > 3), key=lambda pair: -most[pair])
    return _variants_table(rates, shown, CONFUSIONS_CAPTION)


def make_agreement_table(group: Path) -> str:
    """How many recordings of each emotion all, most, few and none of a grid's runs classify correctly, and the wrong predictions.

    Raises:
        CardError: no run, or runs that cannot be paired (see `finished.read_runs`).
    """
    runs = _all_runs(group)
    predicted = runs.probabilities.argmax(2)
    names = ('emotion', 'recordings', 'all right', 'half or more', 'fewer', 'none', 'heard as')
    lines = [names, ['---'] * len(names)]
    for number, name in enumerate(runs.labels):
        votes = predicted[:, runs.label == number]
        right = (votes == number).mean(0)
        parts = right == 1, (right >= 0.5) & (right < 1), (right > 0) & (right < 0.5), right == 0
        often = Counter(
            Counter(one[one != number].tolist()).most_common(1)[0][0]
            for one in votes[:, right < 0.5].T
        )
        wrong = ', '.join(f'{runs.labels[k]} {count}' for k, count in often.most_common())
        lines.append((name, str(len(right)), *(str(part.sum()) for part in parts), wrong or '–'))
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    return f'{table}\n\n{AGREEMENT_CAPTION.format(len(runs.cards))}\n'


def make_speakers_table(group: Path) -> str:
    """The two emotions that a grid's runs confuse most, by speaker: one row per speaker, the last one for all.

    Raises:
        CardError: see `make_agreement_table`; or the two are never confused.
    """
    runs = _all_runs(group)
    predicted = runs.probabilities.argmax(2)
    counts = runs.confusions(runs.probabilities).sum((0, 1))
    rates = counts / counts.sum(1, keepdims=True).clip(1)
    np.fill_diagonal(rates, 0)
    a, b = np.unravel_index((rates + rates.T).argmax(), rates.shape)
    if not rates[a, b] + rates[b, a]:
        raise CardError(f'{group}: its runs confuse nothing')
    odds = np.log(runs.probabilities[..., a].clip(1e-9) / runs.probabilities[..., b].clip(1e-9))
    one, other = runs.labels[a], runs.labels[b]
    lines = [('speaker', one, f'% as {other}', other, f'% as {one}', 'area %'), ['---'] * 6]
    for name in (*np.unique(runs.speaker), None):
        own = (runs.speaker == name) | (name is None)
        first, second = (np.flatnonzero(own & (runs.label == k)) for k in (a, b))
        if not (len(first) and len(second)):
            continue
        between = odds[:, first, None] - odds[:, None, second]
        cells = (
            (predicted[:, first] == b).mean(),
            (predicted[:, second] == a).mean(),
            _area(between),
        )
        shown = [f'{100 * cell:.1f}' for cell in cells]
        numbers = len(first), len(second)
        lines.append(
            (
                'all' if name is None else name or 'unknown',
                str(numbers[0]),
                shown[0],
                str(numbers[1]),
                shown[1],
                shown[2],
            )
        )
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    return f'{table}\n\n{SPEAKERS_CAPTION.format(len(runs.cards))}\n'


def _area(differences):
    """Area under the ROC curve: the fraction of pairs in the right order, ties count half."""
    return (differences > 0).mean() + (differences == 0).mean() / 2


def _all_runs(group):
    """All runs of a grid under the clean condition, paired.

    Raises:
        CardError: no run, or runs that cannot be paired (see `finished.read_runs`).
    """
    from ser_jax.runs import finished  # after main() has made the clone importable
    from ser_jax.runtime.errors import UserError

    folders = sorted(path.parent for path in group.glob('*/results.json'))
    if not folders:
        raise CardError(f'{group} holds no results.json')
    try:
        cards = [finished.read_card(folder) for folder in folders]
        return finished.read_runs(folders, cards, 'clean')
    except UserError as error:
        raise CardError(f'{group}: {error}') from error


def make_parts_table(group: Path) -> str:
    """The gain of each part of MTL-AUG over the variant without it: one row per part, one column per kind of condition.

    Raises:
        CardError: no such runs, or runs that cannot be paired (see `finished.read_runs`).
    """
    from ser_jax.metrics import significance
    from ser_jax.runs import finished  # after main() has made the clone importable
    from ser_jax.runtime.errors import UserError

    folders = {
        variant: sorted(group.glob(f'*-{variant}-seed*'))
        for variant in dict.fromkeys(variant for pair in PARTS.values() for variant in pair)
    }
    missing = [variant for variant, found in folders.items() if not found]
    if missing:
        raise CardError(f'{group} holds no run of {", ".join(missing)}')
    columns = {}
    try:
        cards = {variant: finished.read_seeds(found) for variant, found in folders.items()}
        every = [
            (folder, card) for name in folders for folder, card in zip(folders[name], cards[name])
        ]
        owner = [name for name in folders for _ in folders[name]]
        if len({tuple(sorted(card['seed'] for card in own)) for own in cards.values()}) > 1:
            raise CardError(f'{group}: its variants have different seeds')
        names = list(every[0][1]['conditions'])
        kinds = {
            name: next((kind for kind, starts in KINDS.items() if name.startswith(starts)), None)
            for name in names
        }
        for kind in KINDS:
            chosen = [name for name in names if kinds[name] == kind]
            if not chosen:
                raise CardError(f'{group} tests nothing of the kind {kind}')
            counts = {variant: [] for variant in folders}
            for condition in chosen:
                runs = finished.read_runs(*zip(*every), condition)
                for variant, count in zip(owner, runs.confusions(runs.probabilities)):
                    counts[variant].append(count)
            found = [significance.compare(counts[a], counts[b]) for a, b in PARTS.values()]
            columns[f'{kind} ({len(chosen)})'] = zip(
                found, significance.holm([one.p for one in found])
            )
    except UserError as error:
        raise CardError(f'{group}: {error}') from error
    lines = [('part', 'compared', *columns), ['---'] * (2 + len(columns))]
    for (part, (a, b)), *cells in zip(PARTS.items(), *columns.values()):
        shown = (
            '{:+.1f} [{:+.1f}, {:+.1f}], p {:.2g}'.format(
                100 * one.difference, *(100 * bound for bound in one.interval), p
            )
            for one, p in cells
        )
        lines.append((part, f'{a} - {b}', *shown))
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    return f'{table}\n\n{PARTS_CAPTION.format(len(PARTS))}\n'


def make_ways_table(group: Path) -> str:
    """The means over a matrix of corpora: one row per way to test another corpus (as it is, adapted, …), one column per variant.

    Raises:
        CardError: an unreadable card, a folder that is not SETTING-VARIANT-seedK, or variants with different pairs or seeds.
    """
    from ser_jax.grid.matrix import matrices  # after main() has made the clone importable

    rates = {}  # way -> variant -> seed -> (trained, tested) -> UAR
    for path in sorted(group.glob('*/results.json')):
        name = _GRID_FOLDER.fullmatch(path.parent.name)
        if not name:
            raise CardError(f'{path}: the folder is not called SETTING-VARIANT-seedK')
        setting, variant, seed = name.groups()
        try:
            conditions = json.loads(path.read_text(encoding='utf-8'))['conditions']
            rows = [
                {**result, 'setting': setting, 'variant': variant, 'condition': condition}
                for condition, result in conditions.items()
            ]
            for (_, way), cells in matrices(rows).items():
                pairs = rates.setdefault(way, {}).setdefault(variant, {}).setdefault(int(seed), {})
                pairs |= {pair: 100 * row['uar'] for pair, row in cells.items()}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CardError(f'{path}: {error!r}') from error
    if not rates:
        raise CardError(f'{group} tests no other corpora')
    variants = list(dict.fromkeys(variant for found in rates.values() for variant in found))
    names = ('way', 'pairs', 'seeds', *variants, *(f'{variant} is best' for variant in variants))
    lines = [names, ['---'] * len(names)]
    for way, found in rates.items():
        tested = {
            variant: {seed: frozenset(pairs) for seed, pairs in seeds.items()}
            for variant, seeds in found.items()
        }
        first = next(iter(tested.values()))
        pairs = next(iter(first.values()))
        if len(tested) < len(variants) or any(
            one.keys() != first.keys() or set(one.values()) != {pairs} for one in tested.values()
        ):
            raise CardError(f'{group}: {way}: the variants have different pairs or seeds')
        means = {
            variant: {
                pair: statistics.mean(one[pair] for one in found[variant].values())
                for pair in pairs
            }
            for variant in variants
        }
        best = Counter(
            variant
            for pair in pairs
            for variant in variants
            if all(means[variant][pair] > means[one][pair] for one in variants if one != variant)
        )
        cells = [
            _spread([statistics.mean(one.values()) for one in found[variant].values()])
            for variant in variants
        ]
        counts = [str(best[variant]) for variant in variants]
        lines.append((way, str(len(pairs)), ', '.join(map(str, sorted(first))), *cells, *counts))
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    return f'{table}\n\n{WAYS_CAPTION}\n'


def make_tries_table(group: Path) -> str:
    """Results of a grid's variants on validation speakers at their last step, clean and corrupted: one row per variant.

    Raises:
        CardError: see `_by_variant`; or a run that was tested or selected an earlier step.
    """

    def validated(card):
        if card['conditions'] or card['config']['eval_every'] != card['config']['steps']:
            raise ValueError('tested, or not judged at its last step')
        found = {'clean': 100 * card['validation']['uar']}
        tried = {name: 100 * uar for name, uar in card['validation'].get('conditions', {}).items()}
        if tried:
            found['corrupted'] = statistics.mean(tried.values())
        return found | tried

    rates = _by_variant(group, validated)
    return _variants_table(rates, list(_first(rates)), TRIES_CAPTION)


def _by_variant(group, read):
    """Variant of a grid (with its setting if there are several) -> seed -> `read(card)`.

    Raises:
        CardError: no run or an unreadable one, a folder that is not SETTING-VARIANT-seedK, runs with different data or
            columns, seeds of one variant with different configs, uncommitted code.
    """
    found, alike, hashes = {}, {}, {}
    for path in sorted(group.glob('*/results.json')):
        name = _GRID_FOLDER.fullmatch(path.parent.name)
        try:
            if not name:
                raise ValueError('the folder is not called SETTING-VARIANT-seedK')
            setting, variant, seed = name.groups()
            card = json.loads(path.read_text(encoding='utf-8'))
            if '+changes' in card['commit']:
                raise ValueError('it ran uncommitted code')
            taken = read(card)
            if alike.setdefault('columns', tuple(taken)) != tuple(taken):
                raise ValueError('other classes or conditions than the runs before')
            data = card['corpus_hash'], card['n_folds']
            if alike.setdefault(setting, data) != data:
                raise ValueError('another corpus or other folds than the runs before')
            if hashes.setdefault((setting, variant), card['config_hash']) != card['config_hash']:
                raise ValueError('another config than the seeds before')
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CardError(f'{path}: {error!r}') from error
        found.setdefault((setting, variant), {})[int(seed)] = taken
    if not found:
        raise CardError(f'{group} holds no results.json')
    several = len({setting for setting, _ in found}) > 1
    return {f'{s}, {v}' if several else v: seeds for (s, v), seeds in found.items()}


def _first(rates):
    return next(iter(next(iter(rates.values())).values()))


def _variants_table(rates, columns, caption):
    """One row per variant: mean and standard deviation over its seeds."""
    lines = [('variant', 'seeds', *columns), ['---'] * (len(columns) + 2)]
    for variant, runs in rates.items():
        cells = (_spread([run[name] for run in runs.values()]) for name in columns)
        lines.append((variant, ', '.join(map(str, sorted(runs))), *cells))
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    return f'{table}\n\n{caption}\n'


def _some_matrices(text: str) -> str:
    """The first variant's matrices of a `matrix.md`, unadapted and with target statistics; the others are in the file only."""
    found = re.findall(
        r'^(\*\*([^\n]+?), ([^\n]+?)\*\* .*?)(?=\n\n\*\*|\s*\Z)', text, re.MULTILINE | re.DOTALL
    )
    chosen = [
        matrix
        for matrix, variant, way in found
        if variant == found[0][1] and way in ('as it is', 'target statistics')
    ]
    return '\n\n'.join(chosen) + '\n'


def make_overview_table(results: Path) -> str:
    """The main results of several groups: one row per system, one column per corpus or condition.

    Raises:
        CardError: see `make_table`.
    """
    lines, counts = [('system', *OVERVIEW_COLUMNS), ['---'] * (1 + len(OVERVIEW_COLUMNS))], []
    for system, pattern in OVERVIEW.items():
        cells = []
        for corpus, condition in OVERVIEW_COLUMNS.values():
            name = pattern.format(corpus=corpus, group=OVERVIEW_GROUPS[corpus])
            files = sorted(results.glob(name))
            cards = [
                json.loads((file / 'results.json' if file.is_dir() else file).read_text())
                for file in files
            ]
            if cards and 'svc' in cards[0]:
                found = [cards[0]['svc']] if condition == 'clean' else []
            else:
                found = _seeds_of_one_system(cards, condition) if cards else []
                counts += [len(found)] if found else []
            cells.append('–')
            if found:
                cells[-1] = f'{100 * statistics.mean(one["uar"] for one in found):.1f}'
            if found and condition == 'clean':
                low, high = (100 * statistics.mean(b) for b in zip(*(f['uar_ci95'] for f in found)))
                cells[-1] += f' [{low:.1f}, {high:.1f}]'
        lines.append((system, *cells))
    table = '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
    return f'{table}\n\n{OVERVIEW_CAPTION.format(min(counts), max(counts))}\n'


def fill(page: str, results: Path) -> str:
    """A page's text with every marked table regenerated.

    Raises:
        CardError: a marker without its end or without its runs, or no marker at all.
    """
    found = MARKED.findall(page)
    if len(found) != page.count('<!-- table: ') or len(found) != page.count('<!-- end table'):
        raise CardError('every <!-- table: GROUP --> of a page needs its <!-- end table -->')
    if not found:
        raise CardError('a page has no <!-- table: GROUP --> … <!-- end table -->')

    def renew(match):
        if match[2] == 'overview':
            return f'{match[1]}{make_overview_table(results)}{match[3]}'
        group, condition = results / match[2].partition('.')[0], match[2].partition('.')[2]
        if condition:
            own = {
                'agreement': make_agreement_table,
                'confusions': make_confusion_table,
                'parts': make_parts_table,
                'speakers': make_speakers_table,
                'tries': make_tries_table,
                'ways': make_ways_table,
            }
            table = (
                own[condition](group) if condition in own else make_paired_table(group, condition)
            )
            return f'{match[1]}{table}{match[3]}'
        files = [*group.glob('robustness_*.md'), *group.glob('matrix.md')]
        if files:
            # Without the heading and the grid's summary.
            table = files[0].read_text(encoding='utf-8').split('\n\n', 2)[2]
            if files[0].name == 'matrix.md':
                table = _some_matrices(table)
        else:
            runs = read_runs(group)
            of_tasks = any(set(run.get('tasks', ('emotion',))) != {'emotion'} for run in runs)
            table = (make_task_table if of_tasks else make_table)(runs)
        return f'{match[1]}{table}{match[3]}'

    return MARKED.sub(renew, page)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing, exit 1 on difference')
    parser.add_argument(
        '--readme', type=Path, action='append', help='page; default: all with tables'
    )
    parser.add_argument('--results', type=Path, default=ROOT / 'results')
    parser.add_argument('--grids', action='store_true', help="first regenerate the grids' tables")
    options = parser.parse_args(arguments)
    sys.path.insert(0, str(ROOT))
    if options.grids:
        import store_grid  # beside this file

        names = sorted(path.parent.name for path in options.results.glob('*/table.md'))
        if store_grid.main([*names, f'--results={options.results}']):
            return 1
    try:
        files = options.readme or [ROOT / name for name in PAGES]
        old = {file: file.read_text(encoding='utf-8') for file in files}
        new = {}
        for file, text in old.items():
            try:
                new[file] = fill(text, options.results)
            except CardError as error:
                raise CardError(f'{file.name}: {error}') from error
    except (CardError, OSError) as error:
        print(f'make_tables: {error}', file=sys.stderr)
        return 1
    differing = [file for file in files if new[file] != old[file]]
    for file in differing:
        if options.check:
            message = f'{file} differs from the cards: run python results/make_tables.py'
            print(message, file=sys.stderr)
        else:
            file.write_text(new[file], encoding='utf-8')
    return int(bool(differing) and options.check)


if __name__ == '__main__':
    sys.exit(main())
