"""Plain-text tables of result cards, seeds and comparisons, at most 100 columns wide."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from ser_jax.runtime.errors import printable
from ser_jax.runtime.text import duration, interval, percent, short_commits, text_table

_WIDTH = 100
_FEW = 8  # speakers; with fewer, no p-value can be small
# Speakers below which the percentile interval is noticeably too narrow. Its coverage for normal differences is 90 %
# with 10 speakers (1.96 √(9/10) of Student's t with 9 degrees of freedom) and 93 % with 20.
_NARROW = 20
_FEW_VALID_DRAWS = 'fewer than 1 in 100 draws of speakers hold every class'
_NOT_COMPARED = (
    'system',
    'options',
    'settings_of',
    'corpus',
)  # config fields shown elsewhere in the header
_WAYS = {
    'mean_over_seeds': 'mean over seeds ± std',
    'averaged_posterior': 'averaged posterior',
}


def speaker_prefix(speakers: Iterable[str]) -> int:
    """Length of the corpus prefix, e.g. `emodb/`, that all known speakers share; 0 if there is none."""
    corpora = {name.rpartition('/')[0] for name in speakers if name}
    return len(corpora.pop()) + 1 if len(corpora) == 1 and '' not in corpora else 0


def card_table(card: Mapping) -> str:
    """The table of one result card: header, rates in percent, confusion matrix, folds, leak check, cost; at most 100 columns.

    A card without test conditions (`report_test = False`) has validation rates only.
    """
    conditions = card['conditions']
    folds = f'{card["n_folds"][0]} of {card["n_folds"][1]} folds, ' if card['n_folds'][1] else ''
    header = (
        f'{card["system"]} on {card["corpus"]} ({_speech(card)}), {card["protocol"]}, '
        f'{folds}seed {card["seed"]}'
    )
    blocks = [textwrap.wrap(header, _WIDTH)]
    if conditions:
        shown = [name for name in conditions if name.startswith('clean')] or [*conditions][:1]
        for name in shown:
            blocks += _condition(name, conditions[name])
        if card.get('validation'):
            blocks.insert(2, [_validation_line(card['validation'])])
        if len(conditions) > len(shown):
            blocks.append(_conditions(conditions))
    else:
        blocks += _validation(card['validation'])
    checks = card.get('attack_checks')
    if checks:
        pairs = [('holds' if check['holds'] else 'FAILS', check['check']) for check in checks]
        blocks.append(['checks of the attacks', *_labelled(pairs, 7)])
    blocks.append(_labelled(card_facts(card), 12))
    return _join(*blocks)


def card_facts(card: Mapping) -> list[tuple[str, str]]:
    """The (name, text) pairs below the rates of a result card: leak check, labels, cost, device, model."""
    leaks, cost = card['leak_check'], card['cost']
    leaked = {name: leaks[name] for name in ('speakers', 'audio', 'ids') if leaks.get(name)}
    shared = ', '.join(f'{count} {name}' for name, count in leaked.items())
    checked = (
        f'{"FAILED" if leaked else "passed"}: {shared or "no speaker, audio or id"} in two splits'
    )
    if 'scripts' in leaks:
        checked += f'; {leaks["scripts"]} scripts in both training and test'
    if leaks.get('unknown_speakers'):
        checked += f'; {leaks["unknown_speakers"]} utterances of unknown speakers in use'
    if leaks.get('excluded'):
        checked += f'; {leaks["excluded"]} utterances of unknown speakers left out'
    costs = [
        (cost.get('train_seconds'), lambda value: f'training {duration(value)}'),
        (cost.get('compile_seconds'), lambda value: f'of which compiling {duration(value)}'),
        (cost.get('utterances_per_second'), lambda value: f'{value:.0f} utterances/s'),
        (cost.get('peak_memory_mb'), lambda value: f'peak memory {value:.0f} MB'),
        (cost.get('data_wait_fraction'), lambda value: f'{percent(value)} % waiting for data'),
    ]
    pairs = [('leak check', checked)]
    pairs += [('not learnt', remark) for remark in card.get('untrained_classes') or ()]
    labels = card.get('n_labels')
    if labels:
        counts = f'{labels["train"]:.0f} for training, {labels["validation"]:.0f} for validation'
        pairs.append(('labels', f'{counts}, mean per fold'))
    model = f'{card["n_params"]:,} parameters, commit {short_commits(card["commit"])}'
    spent = ', '.join(text(value) for value, text in costs if value is not None)
    return [*pairs, ('cost', spent), ('device', card['device']), ('model', model)]


def comparison_table(result: Mapping) -> str:
    """The table of `compare.compare_runs`, rates in percent."""
    several = len(result['a']['seeds']) > 1 or len(result['b']['seeds']) > 1
    rows = [('UAR in percent', 'A', 'B', 'A − B', '95 % interval', 'p')]
    for name, title in _WAYS.items() if several else [('mean_over_seeds', 'one seed each')]:
        found, mean = result[name], name == 'mean_over_seeds'
        a, b = (
            _spread(found[f'uar_{side}'], result[side]['uar_std'] if mean else None)
            for side in 'ab'
        )
        difference = percent(found['difference'], signed=True)
        bounds = interval(found['ci95'], signed=True)
        rows.append((title, a, b, difference, bounds, f'{found["p"]:.3g}'))
    n_clusters = result['n_speakers'] + result['n_unknown_speaker']
    p = 'two-sided; A and B swapped speaker by speaker, ' + (
        f'in all {2**n_clusters} ways'
        if result['p_exact']
        else f'in {result["replicates"]} random ways and as observed'
    )
    if n_clusters < _FEW:
        p += f'; with {_count(n_clusters, "speaker")} no p is below {result["smallest_p"]:.3g}'
    notes = _notes(result, several, paired=True)
    notes.append(('p', f'{p}; not corrected for other comparisons'))
    systems = [('A', result['a']), ('B', result['b'])]
    table = text_table(rows, texts=(0, 4, 5))
    return _join(_context(systems, result), table, _labelled(notes, 10))


def seeds_table(result: Mapping) -> str:
    """The table of `compare.over_seeds`, rates in percent."""
    rows = [('UAR in percent', '', '95 % interval')]
    for name, title in _WAYS.items():
        std = result['a']['uar_std'] if name == 'mean_over_seeds' else None
        rows.append((title, _spread(result[name]['uar'], std), interval(result[name]['ci95'])))
    notes = _notes(result, several=True, paired=False)
    table = text_table(rows, texts=(0, 2))
    return _join(_context([('', result['a'])], result), table, _labelled(notes, 10))


def validation_table(rates: Mapping[str, Mapping[str, float]], n_seeds: int) -> str:
    """The lines of validation UARs over seeds, condition -> `mean` and `std`."""
    over = f'mean over {n_seeds} seeds ± std'
    rows = [
        (f'validation UAR, {name}', f'{_spread(**rate)} %', over) for name, rate in rates.items()
    ]
    return '\n'.join(text_table(rows, texts=(0, 2), width=_WIDTH))


def _join(*blocks: Iterable[str]) -> str:
    """Blocks of lines, separated by empty lines."""
    return '\n'.join(
        '\n'.join(printable(line.rstrip()) for line in block) + '\n' for block in blocks
    )


def _labelled(pairs: Iterable[tuple[str, str]], indent: int) -> list[str]:
    """Lines of (label, text) pairs, wrapped with a hanging indent."""
    options = {'width': _WIDTH, 'subsequent_indent': ' ' * indent}
    return [
        line
        for label, text in pairs
        for line in textwrap.wrap(f'{label:<{indent}}{text}', **options)
    ]


def _speech(card):
    return 'SYNTHETIC speech' if card['synthetic'] else 'real speech'


def _count(n, word):
    return f'{n} {word}' + 's' * (n != 1)


def _spread(mean, std=None):
    """A mean in percent with its ± std, or with spaces of that width to keep columns aligned."""
    return percent(mean) + (f' ± {percent(std)}' if std is not None else ' ' * 6)


def _condition(name, result):
    n_speakers = len({name for fold in result['folds'] for name in fold['test_speakers']})
    unknown = result.get('unknown_speakers', 0)
    present = sum(recall is not None for recall in result['recall'].values())
    if None not in result['uar_ci95']:
        speakers = f'{n_speakers} speakers'
        if unknown:
            speakers += f' and {unknown} utterances of unknown ones'
        bounds = f'{interval(result["uar_ci95"])} 95 % bootstrap over {speakers}'
    elif n_speakers == 1 and not unknown:
        bounds = 'no interval: a single speaker'
    else:
        bounds = f'no interval: {_FEW_VALID_DRAWS}'
    where = f', condition {name}' if name != 'clean' else ''
    rates = [
        ('UAR', f'{percent(result["uar"])} %', bounds),
        ('chance', f'{percent(1 / present)} %', f'{present} classes, n = {result["n"]}{where}'),
        ('WA', f'{percent(result["wa"])} %', ''),
        ('macro-F1', f'{percent(result["macro_f1"])} %', ''),
    ]
    if 'ccc' in result:
        bounds = ', '.join('–' if bound is None else f'{bound:.3f}' for bound in result['ccc_ci95'])
        text = f'[{bounds}] 95 %; rates below: ratings binned into classes'
        rates.insert(0, ('CCC', f'{result["ccc"]:.3f}  ', text))
    rates = text_table(rates, texts=(0, 2), width=_WIDTH)
    return [rates, _confusion(result), _folds(result['folds'], 'test_speakers', ('uar', 'wa'))]


def _confusion(result):
    """The confusion matrix; where the names of the classes are too wide for columns, their numbers head them."""
    labels = list(result['recall'])
    numbers = [str(number) for number in range(1, len(labels) + 1)]
    numbered = [f'{number} {label}' for number, label in zip(numbers, labels)]
    for names, columns, width in ((labels, labels, 0), (numbered, numbers, _WIDTH)):
        rows = [('true', 'n', 'recall %', *columns)]
        for name, label, counts in zip(names, labels, result['confusion']):
            rows.append((name, sum(counts), percent(result['recall'][label]), *counts))
        lines = text_table(rows, width=width)
        if max(map(len, lines)) <= _WIDTH:
            break
    head = f'{lines[0]}  <- predicted'
    return [head if len(head) <= _WIDTH else lines[0], *lines[1:]]


def _folds(folds: Sequence[Mapping], speakers: str, rates: Sequence[str]):
    """One line per fold."""
    skip = speaker_prefix(name for fold in folds for name in fold[speakers])
    rows = [('fold', speakers.replace('_', ' '), 'n', *(f'{rate.upper()} %' for rate in rates))]
    for fold in folds:
        names = ' '.join(name[skip:] for name in fold[speakers]) or '?'
        rows.append((fold['fold'], names, fold['n'], *(percent(fold[rate]) for rate in rates)))
    return text_table(rows, texts=(0, 1), width=_WIDTH)


def _conditions(conditions):
    rows = [('condition', 'n', 'UAR %', '95 % interval', 'WA %', '')]
    for name, result in conditions.items():
        rates = percent(result['uar']), interval(result['uar_ci95']), percent(result['wa'])
        level = result.get('perturbation_snr_db')
        below = '' if level is None else f'{level:.0f} dB below the speech'
        rows.append((name, result['n'], *rates, below))
    return text_table(rows, texts=(0, 3, 5), width=_WIDTH)


def _validation(result):
    line = f'{_validation_line(result)}; no test speaker was read'
    blocks = [[line], _folds(result['folds'], 'validation_speakers', ('uar',))]
    tried = result.get('conditions', {})
    if tried:
        over = 'on the validation speakers, mean over folds and tasks'
        rows = [('condition', 'UAR %', over)]
        rows += [(name, percent(uar), '') for name, uar in tried.items()]
        blocks.append(text_table(rows, texts=(0, 2), width=_WIDTH))
    return blocks


def _validation_line(result):
    n_folds = len(result['folds'])
    tasks = any(name.startswith(('uar_', 'ccc_')) for name in result)
    over = f'mean over {"tasks and " * tasks}{_count(n_folds, "fold")}'
    rates = f'validation UAR  {percent(result["uar"])} %'
    if 'ccc' in result:  # it, or its mean with the UAR, selects the checkpoint
        rates += f', CCC {result["ccc"]:.3f}'
    return f'{rates}   {over}, at the checkpoint it selected'


def _context(systems, result):
    """The header: the (name, entry of the result) pairs of the systems, and the data that the rates were computed on."""
    across = result['condition'].startswith('cross_')
    lines = []
    for name, system in systems:
        seeds = f'seed{"s" * (len(system["seeds"]) > 1)} ' + ', '.join(map(str, system['seeds']))
        commits = short_commits('; '.join(system['commits']))
        trained = f', trained on {" and ".join(system["trained_on"])}' if across else ''
        lines.append(f'{name}  {system["system"]}{trained}, {seeds}, commit {commits}'.strip())
    folds = f', {result["protocol"]}, {result["n_folds"][0]} of {result["n_folds"][1]} folds'
    lines.append(
        f'{result["corpus"]} ({_speech(result)}){"" if across else folds}, condition {result["condition"]}'
    )
    configs = [system['config'] for _, system in systems if system['config']]
    if len(configs) == 2:
        fields = [name for name in configs[0] | configs[1] if name not in _NOT_COMPARED]
        texts = [[f'{name} {config.get(name, "–")}' for name in fields] for config in configs]
        for (name, _), own, other in zip(systems, texts, texts[::-1]):
            differing = [text for text, against in zip(own, other) if text != against]
            if differing:
                lines.append(f'{name} only: {", ".join(differing)}')
    unknown = result['n_unknown_speaker']
    lines.append(
        f'{result["n"]} utterances, {_count(result["n_speakers"], "speaker")}'
        + (
            f', {unknown} utterances of unknown speakers, each as its own cluster'
            if unknown
            else ''
        )
        + f', {len(result["labels"])} classes: {" ".join(result["labels"])}'
    )
    return [part for line in lines for part in textwrap.wrap(line, _WIDTH, subsequent_indent='   ')]


def _notes(result, several, paired):
    """The (label, text) pairs that explain the rows and the interval, of several seeds or of two compared systems."""
    n_clusters = result['n_speakers'] + result['n_unknown_speaker']
    if result['mean_over_seeds']['ci95'][0] is None:
        text = f'none: {"a single speaker" if n_clusters < 2 else _FEW_VALID_DRAWS}'
    else:
        text = (
            f'bootstrap over speakers, {result["replicates"]} replicates'
            f'{", the same draw for A and B" * paired}; '
            f'{result["redrawn"]} draws lacked a class and were redrawn'
        )
        if n_clusters < _NARROW:
            text += f'; somewhat too narrow with {n_clusters} speakers'
            text += ': where it disagrees with p, prefer p' * paired
    ways = [
        ('mean', 'UAR of each seed, then the mean; seed variance is excluded from the interval'),
        ('averaged', 'probabilities averaged over the seeds, then the UAR'),
    ]
    return [*(ways if several else []), ('interval', text)]
