"""Tables of stored runs on Markdown pages.

`<!-- table: NAME -->` and `<!-- end table -->` enclose a table of the runs in `results/NAME`: of a grid, its curves over levels
or its first matrices, otherwise one row per system. Further tables:

NAME.CONDITION    a grid's rows under one condition, with paired tests
NAME.confusions   most frequent errors of its variants
NAME.agreement    number of recordings that all, some or none of its runs classify correctly
NAME.speakers     speakers of the two classes that are confused most
NAME.parts        gain of each part of MTL-AUG
NAME.ways         means over a matrix of corpora
NAME.tries        results of its variants on validation speakers

`<!-- table: overview -->` encloses a table over several folders. All raise UserError where runs are missing, tested different
data, are not of one config, or ran uncommitted code.
"""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.grid import matrix, plan, rows, store, tables
from ser_jax.metrics import significance
from ser_jax.runs import finished, stored
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically
from ser_jax.runtime.schema import read_json
from ser_jax.runtime.text import duration, interval, markdown_table, percent

Card = dict[str, Any]

CAPTION = 'Time: training of all folds, mean over the seeds; command: of the first seed.'
TASK_CAPTION = (
    'UAR: of ratings divided into levels; CCC: concordance of the ratings themselves; time: training of all networks of the row, '
    'mean over the seeds; command: of its first network and seed.'
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
    'mean over the seeds is highest. Ties are not counted. Pairs with the same corpora share recordings: the means are descriptive only.'
)
TRIES_CAPTION = (
    'UAR in percent on the validation speakers at the last step, mean over the folds (and the seeds, ± standard deviation); '
    'corrupted: mean over the conditions right of it.'
)
PARTS_CAPTION = (
    'Points of UAR that a part adds, mean over the seeds and the conditions of a kind (their number in brackets), with a 95 % bootstrap interval over '
    'speakers; p: Holm-corrected for the {} comparisons of a column.'
)
OVERVIEW_CAPTION = (
    'UAR in percent on unseen speakers, mean over {} to {} seeds (SVM: one fit, class weights chosen on test, in its favour); in '
    'brackets the 95 % bootstrap interval over speakers. EMO-DB: 4 emotions, leave-one-speaker-out. RAVDESS: 8 emotions, '
    "EmoBox's folds. –: not run."
)
# Row of the overview -> (folder of stored runs, variant); the folder of runs from scratch depends on the corpus.
MACHINES = ('svc', 'svc_balanced')
OVERVIEW = {
    'single task, from scratch': ('', 'single_task'),
    'MTL-AUG, from scratch': ('', 'full'),
    'linear probe on frozen Whisper tiny.en': ('encoders', 'probe'),
    '… trained on augmented views': ('encoders', 'probe_views'),
    'MTL-AUG on frames of Whisper tiny.en': ('encoders', 'mtl_aug'),
}
FROM_SCRATCH = {'emodb': 'mtl_aug', 'ravdess': 'ravdess'}
# Column of the overview -> corpus, condition.
OVERVIEW_COLUMNS = {
    'EMO-DB': ('emodb', 'clean'),
    'EMO-DB in rain, 5 dB SNR': ('emodb', 'noise_rain_5db'),
    'RAVDESS': ('ravdess', 'clean'),
}
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
_PAIRED = (
    *('variant', 'seeds', 'UAR % (mean ± std)', '95 % interval', 'WA %', 'time'),
    *('difference', 'detectable', 'p', 'p (Holm)'),
)
_OF_RUNS = ('agreement', 'confusions', 'parts', 'speakers', 'tries', 'ways')  # make_<kind>_table
_MARKED = re.compile(r'(<!-- table: ([\w.-]+) -->\n).*?(<!-- end table -->)', re.DOTALL)
_START, _END = (re.compile(f'^<!-- {kind}', re.MULTILINE) for kind in ('table: ', 'end table -->'))


def find_pages(root: Path) -> list[Path]:
    """The pages with tables below a repository's root: its README, results/ and docs/."""
    files = [
        root / 'README.md',
        *sorted(root.glob('results/*.md')),
        *sorted(root.glob('docs/**/*.md')),
    ]
    return [
        path for path in files if path.is_file() and _START.search(path.read_text(encoding='utf-8'))
    ]


def write_pages(pages: Iterable[Path], results: Path) -> list[Path]:
    """Rewrites the tables of Markdown pages from a folder of folders of stored runs; returns those that changed.

    Raises:
        UserError: see `fill`; no page is written then.
    """
    old = {page: _read_page(page) for page in pages}
    new = {}
    for page, text in old.items():
        try:
            new[page] = fill(text, results)
        except UserError as error:
            raise UserError(f'{page}: {error}') from error
    changed = [page for page in old if new[page] != old[page]]
    for page in changed:
        write_atomically(page, new[page])
    return changed


def _read_page(path):
    try:
        return path.read_text(encoding='utf-8')
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read {path}: {error}') from error


def fill(page: str, results: Path) -> str:
    """The text of a page with all marked tables made again.

    Also raises UserError for a marker without its end, or no marker at all.
    """
    found = _MARKED.findall(page)
    if not found or {len(mark.findall(page)) for mark in (_START, _END)} != {len(found)}:
        raise UserError('it needs one <!-- table: NAME --> per <!-- end table -->, at least one')

    def renew(match):
        name, _, kind = match[2].partition('.')
        try:
            overview = match[2] == 'overview'
            table = make_overview(results) if overview else make_table(results / name, kind)
            return f'{match[1]}{table}{match[3]}'
        except UserError as error:
            raise UserError(f'table {match[2]}: {error}') from error

    return _MARKED.sub(renew, page)


def make_table(folder: Path, kind: str) -> str:
    """One table, as Markdown, of a folder of stored runs; `kind` is the part of a marker after the name, see above."""
    if kind in _OF_RUNS:
        return globals()[f'make_{kind}_table'](folder)
    if kind:
        return make_paired_table(folder, kind)
    return make_level_table(folder) or make_system_table(read_cards(folder))


def make_overview(results: Path) -> str:
    """The main results of several folders: one row per system, one column per corpus or condition."""
    baselines = []
    for corpus, condition in OVERVIEW_COLUMNS.values():
        path = results / f'opensmile_{corpus}.json'
        machines = {}
        if condition == 'clean' and path.exists():
            machines = read_json(path, dict.fromkeys(MACHINES, dict[str, object]))
        own = [machines[name] for name in MACHINES if machines]
        baselines.append(sorted(own, key=lambda machine: machine['uar'])[-1:])
    systems = {'openSMILE ComParE and SVM': baselines}
    for system, (folder, variant) in OVERVIEW.items():
        systems[system] = []
        for corpus, condition in OVERVIEW_COLUMNS.values():
            found = stored.read(results / (folder or FROM_SCRATCH[corpus]))
            names = [name for name in found.names if name.startswith(f'{corpus}/{variant}/seed')]
            cards = [found.card(name) for name in names]
            systems[system].append(_seeds_of_one_system(cards, condition) if cards else [])
    counts = [len(seeds) for name in OVERVIEW for seeds in systems[name] if seeds]
    lines = []
    for system, columns in systems.items():
        cells = []
        for seeds, (_, condition) in zip(columns, OVERVIEW_COLUMNS.values()):
            cell = percent(statistics.mean(one['uar'] for one in seeds)) if seeds else '–'
            if seeds and condition == 'clean':
                bounds = [rows.mean(side) for side in zip(*(one['uar_ci95'] for one in seeds))]
                cell += '' if None in bounds else f' {interval(bounds)}'
            cells.append(cell)
        lines.append((system, *cells))
    table = markdown_table(('system', *OVERVIEW_COLUMNS), lines)
    return f'{table}\n\n{OVERVIEW_CAPTION.format(min(counts), max(counts))}\n'


def _read_grid(folder: Path) -> tuple[list[rows.Row], plan.Grid]:
    """The rows and the grid of stored runs."""
    return rows.read_csv(folder / 'rows.csv'), store.read_grid(folder)


def make_level_table(folder: Path) -> str:
    """The curves of a grid over the levels of its conditions, or its matrices of corpora; '' if it has neither.

    Of the matrices, those of the first variant, unadapted and with target statistics; the others are in `matrix.md`.
    """
    if not (folder / 'rows.csv').exists():
        return ''
    found, grid = _read_grid(folder)
    if levels := tables.curves(found, grid):
        headings = [f'{setting}:\n\n' if len(levels) > 1 else '' for setting in levels]
        parts = [tables.levels_as_markdown(*drawn) for drawn in levels.values()]
        return '\n'.join(heading + part for heading, part in zip(headings, parts))
    panels = matrix.matrices(found)
    first = next(iter(panels), ('',))[0]
    shown = [(first, way) for way in ('as it is', 'target statistics')]
    return matrix.as_markdown({key: panels[key] for key in panels if key in shown})


def make_paired_table(folder: Path, condition: str) -> str:
    """The rows of a grid under one condition; one table per tested corpus and protocol."""
    every, grid = _read_grid(folder)
    tested = [row for row in every if row['condition'] == condition]
    groups: dict[tuple, list] = {}
    for row in tested:
        cells = tables.cells(row)
        key = cells['corpus'], cells['protocol'], cells['n']
        groups.setdefault(key, []).append((row, cells))
    if not groups:
        raise UserError(f'{folder}: rows.csv has no condition {condition}')
    parts = [f'{condition}: {tables.origin(every, grid, store.summary(grid, folder))}']
    for (corpus, protocol, n), pairs in groups.items():
        found = [cells for _, cells in pairs]
        several = len({cells['setting'] for cells in found}) > 1
        shown = ('setting',) * several + _PAIRED
        hardware = '; '.join(
            dict.fromkeys(one for cells in found for one in cells['hardware'].split('; '))
        )
        parts += [
            f'{corpus}, {protocol}, n = {n}, {hardware}:',
            markdown_table(shown, [[cells[name] for name in shown] for cells in found]),
        ]
        if grid.family == 'condition':
            settings = {row['setting'] for row, _ in pairs}
            corrected = [row for row in tested if row['setting'] in settings]
            parts.append(tables.caption(corrected, grid))
    if grid.family != 'condition':
        parts.append(tables.caption(every, grid))
    parts.append(tables.notes(every).strip())
    return '\n\n'.join(filter(None, parts)) + '\n'


def read_cards(folder: Path) -> list[Card]:
    """The cards of stored runs, each with its `command`, sorted by corpus, protocol, system and seed."""
    found = stored.read(folder)
    cards = [{**found.card(name), 'command': found.command(name)} for name in found.names]
    for name, card in zip(found.names, cards):
        if not any(condition.startswith('clean') for condition in card['conditions']):
            raise UserError(f'{folder / name} has no condition "clean": not a tested run')
    return sorted(cards, key=lambda card: (*_row_key(card), card['seed']))


def _row_key(card):
    return card['corpus'], card['protocol'], card['system']


def make_system_table(cards: Sequence[Card]) -> str:
    """The table of cards: one row per corpus, protocol and system, over its seeds; with several tasks, `make_task_table`."""
    if any(set(card.get('tasks', ('emotion',))) != {'emotion'} for card in cards):
        return make_task_table(cards)
    groups = {}
    for card in cards:
        groups.setdefault(_row_key(card), []).append(card)
    lines = [_system_row(seeds) for seeds in groups.values()]
    return f'{markdown_table(lines[0], [line.values() for line in lines])}\n\n{CAPTION}\n'


def _system_row(cards):
    first, clean = cards[0], _seeds_of_one_system(cards, 'clean')
    corpus, protocol = _where(first)
    rate, bounds = _rate(clean)
    return {
        'system': first['system'],
        'corpus': corpus,
        'protocol': protocol,
        'n': clean[0]['n'],
        'seeds': _listed(card['seed'] for card in cards),
        'UAR % (mean ± std)': rate,
        '95 % interval': bounds,
        'WA %': f'{100 * statistics.mean(result["wa"] for result in clean):.1f}',
        'time': duration(_mean_seconds(cards)),
        'hardware': '; '.join(dict.fromkeys(card['device'] for card in cards)),
        'command': f'`{first["command"]}`',
    }


def _seeds_of_one_system(cards, condition):
    """The results of a row's runs under a condition."""
    first, seeds = cards[0], [card['seed'] for card in cards]
    where = f'{first["system"]} on {first["corpus"]}'
    if missing := [card['seed'] for card in cards if condition not in card['conditions']]:
        raise UserError(f'{where}: seed {missing[0]} has no condition {condition}')
    results = [card['conditions'][condition] for card in cards]
    numbers = sorted({result['n'] for result in results})
    if len(set(seeds)) < len(seeds):
        raise UserError(f'{where}: seed twice among {seeds}')
    if len(numbers) > 1:
        raise UserError(f'{where}: its seeds tested {numbers}')
    for field in ('config_hash', 'corpus_hash'):
        if len({card[field] for card in cards}) > 1:
            raise UserError(f'{where}: seeds differ in {field}')
    dirty = [card['seed'] for card in cards if '+changes' in card['commit']]
    if dirty:
        raise UserError(f'{where}: seed {dirty[0]} ran uncommitted code')
    return results


def _rate(results):
    """UAR over the seeds with its standard deviation, and its interval."""
    bounds = (rows.mean(side) for side in zip(*(result['uar_ci95'] for result in results)))
    return _spread([100 * result['uar'] for result in results]), ' – '.join(map(percent, bounds))


def _spread(values):
    """Mean; of several values, with their standard deviation."""
    spread = f' ± {statistics.stdev(values):.1f}' if len(values) > 1 else ''
    return f'{statistics.mean(values):.1f}{spread}'


def _where(card):
    folds = '{} of {} folds'.format(*card['n_folds'])
    return card['corpus'] + ' (synthetic)' * card['synthetic'], f'`{card["protocol"]}`, {folds}'


def _listed(values):
    return ', '.join(map(str, values))


def _mean_seconds(cards):
    return rows.mean([card['cost'].get('train_seconds') for card in cards])


def make_task_table(cards: Sequence[Card]) -> str:
    """The table of runs that report several tasks, or one each: one column per task; single-task runs share a row."""
    systems = {}
    for card in cards:
        tasks = tuple(card['tasks'])
        words = [word for word in card['system'].split(',') if word not in tasks]
        how = f'one network for {", ".join(tasks)}' if len(tasks) > 1 else 'one network per task'
        key = (*_where(card), ','.join(words), how)
        systems.setdefault(key, {}).setdefault(tasks, []).append(card)
    names = list(dict.fromkeys(task for card in cards for task in card['tasks']))
    lines = []
    for (*_, system, how), parts in systems.items():
        cells, networks = dict.fromkeys(names, 'not run'), list(parts.values())
        everything = [card for seeds in networks for card in seeds]
        if len({tuple(card['seed'] for card in seeds) for seeds in networks}) > 1:
            raise UserError(f'{system}, {how}: its networks have different seeds')
        for tasks, seeds in parts.items():
            for task in tasks:
                name = 'clean' if task == 'emotion' else f'clean_{task}'
                results = _seeds_of_one_system(seeds, name)
                cells[task] = '{} [{}], n = {}'.format(*_rate(results), results[0]['n'])
                if 'ccc' in results[0]:
                    ccc = statistics.mean(result['ccc'] for result in results)
                    cells[task] += f', CCC {ccc:.3f}'
        first, seconds = everything[0], [_mean_seconds(seeds) for seeds in networks]
        lines.append(
            (
                f'{system}, {how}',
                *_where(first),
                _listed(card['seed'] for card in networks[0]),
                *cells.values(),
                duration(None if None in seconds else sum(seconds)),
                '; '.join(dict.fromkeys(card['device'] for card in everything)),
                f'`{first["command"]}`',
            )
        )
    head = ('system', 'corpus', 'protocol', 'seeds', *names, 'time', 'hardware', 'command')
    return f'{markdown_table(head, lines)}\n\n{TASK_CAPTION}\n'


def _by_variant(
    folder: Path, read: Callable[[Card], dict[str, float]]
) -> dict[str, dict[int, dict]]:
    """Variant of a grid (with its setting if there are several) -> seed -> `read(card)`, all with the same columns."""
    found, alike, hashes = {}, {}, {}
    cards = stored.read(folder)
    for name in sorted(cards.names):
        card, (setting, variant, seed) = cards.card(name), _parts_of(folder, name)
        try:
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
        except (ValueError, KeyError) as error:
            raise UserError(f'{folder / name}: {error}') from error
        found.setdefault((setting, variant), {})[seed] = taken
    several = len({setting for setting, _ in found}) > 1
    return {f'{s}, {v}' if several else v: seeds for (s, v), seeds in found.items()}


def _parts_of(folder: Path, name: str) -> tuple[str, str, int]:
    """Setting, variant and seed of a grid's run."""
    match = re.fullmatch(r'([^/]+)/([^/]+)/seed(\d+)', name)
    if not match:
        raise UserError(f'{folder / name} is not called SETTING/VARIANT/seedK')
    return match[1], match[2], int(match[3])


def _variants_table(results: Mapping[str, Mapping], columns: Sequence[str], caption: str) -> str:
    """One row per variant: mean and standard deviation over its seeds."""
    lines = [
        [
            variant,
            _listed(sorted(seeds)),
            *(_spread([one[name] for one in seeds.values()]) for name in columns),
        ]
        for variant, seeds in results.items()
    ]
    return f'{markdown_table(["variant", "seeds", *columns], lines)}\n\n{caption}\n'


def make_confusions_table(folder: Path) -> str:
    """The confusions of a grid's variants: one row per variant, one column per pair of classes, the most frequent first."""

    def confusions(card):
        result = card['conditions']['clean']
        return {
            f'{true} as {predicted}': 100 * count / max(1, sum(row))
            for true, row in zip(result['recall'], result['confusion'])
            for predicted, count in zip(result['recall'], row)
            if predicted != true
        }

    results = _by_variant(folder, confusions)
    most = {
        pair: max(
            statistics.mean(one[pair] for one in seeds.values()) for seeds in results.values()
        )
        for pair in _columns(results)
    }
    shown = sorted((pair for pair in most if most[pair] > 3), key=lambda pair: -most[pair])
    return _variants_table(results, shown, CONFUSIONS_CAPTION)


def make_tries_table(folder: Path) -> str:
    """Results of a grid's variants on validation speakers at their last step, clean and corrupted: one row per variant."""

    def validated(card):
        if card['conditions'] or card['config']['eval_every'] != card['config']['steps']:
            raise ValueError('tested, or not judged at its last step')
        tried = {name: 100 * uar for name, uar in card['validation'].get('conditions', {}).items()}
        mean = {'corrupted': statistics.mean(tried.values())} if tried else {}
        return {'clean': 100 * card['validation']['uar']} | mean | tried

    results = _by_variant(folder, validated)
    return _variants_table(results, _columns(results), TRIES_CAPTION)


def _columns(results):
    return list(next(iter(next(iter(results.values())).values())))


def _all_runs(folder: Path) -> finished.Runs:
    """All runs of a grid under the clean condition, paired."""
    paths = [folder / name for name in sorted(stored.read(folder).names)]
    return finished.read_runs(paths, [finished.read_card(path) for path in paths], 'clean')


def make_agreement_table(folder: Path) -> str:
    """How many recordings of each emotion all, most, few and none of a grid's runs classify correctly; the wrong predictions."""
    runs = _all_runs(folder)
    predicted, lines = runs.probabilities.argmax(2), []
    for number, name in enumerate(runs.labels):
        votes = predicted[:, runs.label == number]
        right = (votes == number).mean(0)
        parts = right == 1, (right >= 0.5) & (right < 1), (right > 0) & (right < 0.5), right == 0
        often = Counter(
            Counter(one[one != number].tolist()).most_common(1)[0][0]
            for one in votes[:, right < 0.5].T
        )
        wrong = ', '.join(f'{runs.labels[k]} {count}' for k, count in often.most_common())
        lines.append((name, len(right), *(part.sum() for part in parts), wrong or '–'))
    head = 'emotion', 'recordings', 'all right', 'half or more', 'fewer', 'none', 'predicted as'
    return f'{markdown_table(head, lines)}\n\n{AGREEMENT_CAPTION.format(len(runs.cards))}\n'


def make_speakers_table(folder: Path) -> str:
    """The two emotions that a grid's runs confuse most, by speaker: one row per speaker, the last one for all."""
    runs = _all_runs(folder)
    predicted, lines = runs.probabilities.argmax(2), []
    counts = runs.confusions(runs.probabilities).sum((0, 1))
    rates = counts / counts.sum(1, keepdims=True).clip(1)
    np.fill_diagonal(rates, 0)
    a, b = np.unravel_index((rates + rates.T).argmax(), rates.shape)
    if not rates[a, b] + rates[b, a]:
        raise UserError(f'{folder}: its runs confuse nothing')
    odds = np.log(runs.probabilities[..., a].clip(1e-9) / runs.probabilities[..., b].clip(1e-9))
    for name in (*np.unique(runs.speaker), None):
        own = (runs.speaker == name) | (name is None)
        first, second = (np.flatnonzero(own & (runs.label == k)) for k in (a, b))
        if not (len(first) and len(second)):
            continue
        mistaken = (predicted[:, first] == b).mean(), (predicted[:, second] == a).mean()
        area = _area(odds[:, first, None] - odds[:, None, second])
        as_b, as_a, area = (f'{100 * share:.1f}' for share in (*mistaken, area))
        speaker = 'all' if name is None else name or 'unknown'
        lines.append((speaker, len(first), as_b, len(second), as_a, area))
    one, other = runs.labels[a], runs.labels[b]
    head = 'speaker', one, f'% as {other}', other, f'% as {one}', 'area %'
    return f'{markdown_table(head, lines)}\n\n{SPEAKERS_CAPTION.format(len(runs.cards))}\n'


def _area(differences):
    """Area under the ROC curve: the fraction of pairs in the right order, ties count half."""
    return (differences > 0).mean() + (differences == 0).mean() / 2


def make_parts_table(folder: Path) -> str:
    """The gain of each part of MTL-AUG over the variant without it: one row per part, one column per kind of condition."""
    variants = {variant: [] for pair in PARTS.values() for variant in pair}
    for name in sorted(stored.read(folder).names):
        _, variant, _ = _parts_of(folder, name)
        if variant in variants:
            variants[variant].append(folder / name)
    missing = [variant for variant, paths in variants.items() if not paths]
    if missing:
        raise UserError(f'{folder} holds no run of {", ".join(missing)}')
    cards = {variant: finished.read_seeds(paths) for variant, paths in variants.items()}
    if len({tuple(sorted(card['seed'] for card in own)) for own in cards.values()}) > 1:
        raise UserError(f'{folder}: its variants have different seeds')
    owners = [variant for variant, paths in variants.items() for _ in paths]
    paths, every = ([one for own in by.values() for one in own] for by in (variants, cards))
    kinds = {
        name: next((kind for kind, starts in KINDS.items() if name.startswith(starts)), None)
        for name in every[0]['conditions']
    }
    columns = {}
    for kind in KINDS:
        chosen = [name for name, own in kinds.items() if own == kind]
        if not chosen:
            raise UserError(f'{folder} tests nothing of the kind {kind}')
        counts = {variant: [] for variant in variants}
        for condition in chosen:
            runs = finished.read_runs(paths, every, condition)
            for variant, count in zip(owners, runs.confusions(runs.probabilities)):
                counts[variant].append(count)
        found = [significance.compare(counts[a], counts[b]) for a, b in PARTS.values()]
        corrected = significance.holm([one.p for one in found])
        columns[f'{kind} ({len(chosen)})'] = [
            '{:+.1f} [{:+.1f}, {:+.1f}], p {:.2g}'.format(
                *(100 * value for value in (one.difference, *one.interval)), p
            )
            for one, p in zip(found, corrected)
        ]
    lines = [
        (part, f'{a} - {b}', *cells)
        for (part, (a, b)), *cells in zip(PARTS.items(), *columns.values())
    ]
    table = markdown_table(('part', 'compared', *columns), lines)
    return f'{table}\n\n{PARTS_CAPTION.format(len(PARTS))}\n'


def make_ways_table(folder: Path) -> str:
    """The means over a matrix of corpora: one row per way to test another corpus (as it is, …), one column per variant."""
    rates = {}  # way -> variant -> seed -> (trained, tested) -> UAR
    cards = stored.read(folder)
    for name in sorted(cards.names):
        setting, variant, seed = _parts_of(folder, name)
        card = cards.card(name)
        place = {'setting': setting, 'variant': variant}
        results = [
            {'corpus': card['corpus'], **result, **place, 'condition': condition}
            for condition, result in card['conditions'].items()
        ]
        for (_, way), cells in matrix.matrices(results).items():
            pairs = rates.setdefault(way, {}).setdefault(variant, {}).setdefault(seed, {})
            pairs |= {pair: 100 * row['uar'] for pair, row in cells.items()}
    if not rates:
        raise UserError(f'{folder} tests no other corpora')
    variants = list(dict.fromkeys(variant for found in rates.values() for variant in found))
    lines = []
    for way, found in rates.items():
        tested = {
            variant: {seed: frozenset(pairs) for seed, pairs in seeds.items()}
            for variant, seeds in found.items()
        }
        seeds = next(iter(tested.values()))
        pairs = next(iter(seeds.values()))
        if len(tested) < len(variants) or any(
            one.keys() != seeds.keys() or set(one.values()) != {pairs} for one in tested.values()
        ):
            raise UserError(f'{folder}: {way}: the variants have different pairs or seeds')
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
        counts = [best[variant] for variant in variants]
        lines.append((way, len(pairs), _listed(sorted(seeds)), *cells, *counts))
    head = ('way', 'pairs', 'seeds', *variants, *(f'{variant} is best' for variant in variants))
    return f'{markdown_table(head, lines)}\n\n{WAYS_CAPTION}\n'
