"""The result card as plain text, at most 100 columns wide: what is read at the end of a run."""

import textwrap
from collections.abc import Mapping, Sequence

from ser_jax.runtime.errors import printable

_WIDTH = 100


def print_table(card: Mapping) -> str:
    """The table of a result card: header, rates, confusion matrix, folds, leak check, cost.

    A card without a test condition (`report_test = False`) shows the validation UAR only, and that under conditions.

    Args:
        card: `evaluation.result_card(…)` or a `results.json`.

    Returns:
        Lines of at most 100 columns; rates in percent.
    """
    conditions = card['conditions']
    speech = 'SYNTHETIC speech' if card['synthetic'] else 'real speech'
    folds = f'{card["n_folds"][0]} of {card["n_folds"][1]} folds, ' if card['n_folds'][1] else ''
    header = (
        f'{card["system"]} on {card["corpus"]} ({speech}), {card["protocol"]}, '
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
    if card.get('attack_checks'):
        blocks.append(_attack_checks(card['attack_checks']))
    blocks.append(_footer(card))
    tidy = lambda block: '\n'.join(printable(line.rstrip()) for line in block) + '\n'
    return '\n'.join(map(tidy, blocks))


def _percent(value, digits=1):
    return '–' if value is None else f'{100 * value:.{digits}f}'


def _interval(interval):
    return '–' if None in interval else f'[{_percent(interval[0])}, {_percent(interval[1])}]'


def _condition(name, result):
    n_speakers = len({name for fold in result['folds'] for name in fold['test_speakers']})
    present = sum(recall is not None for recall in result['recall'].values())
    if None in result['uar_ci95']:
        interval = 'no interval: a single speaker'
    else:
        interval = f'{_interval(result["uar_ci95"])} 95 % bootstrap over {n_speakers} speakers'
    rates = [
        f'UAR       {_percent(result["uar"]):>5} %   {interval}',
        f'chance    {_percent(1 / present):>5} %   {present} classes, n = {result["n"]}'
        + (f', condition {name}' if name != 'clean' else ''),
        f'WA        {_percent(result["wa"]):>5} %',
        f'macro-F1  {_percent(result["macro_f1"]):>5} %',
    ]
    if 'ccc' in result:
        bounds = ', '.join('–' if bound is None else f'{bound:.3f}' for bound in result['ccc_ci95'])
        rates.insert(
            0,
            f'CCC       {result["ccc"]:5.3f}     [{bounds}] 95 %; below: of the classes ratings fall into',
        )
    return [rates, _confusion(result), _folds(result['folds'], 'test_speakers', ('uar', 'wa'))]


def _confusion(result):
    labels = list(result['recall'])
    first = max(len('true'), *(min(len(label), 16) for label in labels))
    room = (_WIDTH - first - 17) // len(labels) - 2
    counts = result['confusion']
    widest = max(len(str(count)) for row in counts for count in row)
    cell = max(widest, min(room, max(map(len, labels))))
    head = ''.join(f'  {label[:cell]:>{cell}}' for label in labels)
    lines = [f'{"true":<{first}}  {"n":>5}  recall %{head}   <- predicted'[:_WIDTH]]
    for label, row in zip(labels, counts):
        recall = _percent(result['recall'][label])
        cells = ''.join(f'  {count:>{cell}}' for count in row)
        lines.append(f'{label[:first]:<{first}}  {sum(row):>5}  {recall:>8}{cells}')
    return lines


def _folds(folds: Sequence[Mapping], speakers: str, rates: Sequence[str]):
    """One line a fold; the part that all speakers have in common, `emodb/`, is left out."""
    everybody = [name for fold in folds for name in fold[speakers]]
    corpora = {name.rpartition('/')[0] for name in everybody}
    skip = len(corpora.pop()) + 1 if len(corpora) == 1 and '' not in corpora else 0
    shown = [' '.join(name[skip:] for name in fold[speakers]) or '?' for fold in folds]
    title = speakers.replace('_', ' ')
    name_width = max(len(fold['fold']) for fold in folds)
    room = _WIDTH - name_width - 8 - 8 * len(rates) - 2
    width = min(room, max(len(title), *map(len, shown)))
    shown = [text if len(text) <= width else text[: width - 1] + '…' for text in shown]
    head = ''.join(f'{rate.upper() + " %":>8}' for rate in rates)
    lines = [f'{"fold":<{name_width}}  {title:<{width}}{"n":>8}{head}']
    for fold, text in zip(folds, shown):
        values = ''.join(f'{_percent(fold[rate]):>8}' for rate in rates)
        lines.append(f'{fold["fold"]:<{name_width}}  {text:<{width}}{fold["n"]:>8}{values}')
    return lines


def _conditions(conditions):
    width = min(40, max(len('condition'), *map(len, conditions)))
    lines = [f'{"condition":<{width}}{"n":>8}{"UAR %":>8}  {"95 % interval":<14}{"WA %":>8}']
    for name, result in conditions.items():
        rates = f'{_percent(result["uar"]):>8}  {_interval(result["uar_ci95"]):<14}'
        line = f'{name[:width]:<{width}}{result["n"]:>8}{rates}{_percent(result["wa"]):>8}'
        if 'perturbation_snr_db' in result:
            line += f'   {result["perturbation_snr_db"]:.0f} dB below the speech'
        lines.append(line)
    return lines


def _attack_checks(checks):
    """Whether the attacks work as attacks do: only then do their numbers say anything about robustness."""
    lines = []
    for check in checks:
        text = f'{"holds" if check["holds"] else "FAILS":<7}{check["check"]}'
        lines += textwrap.wrap(text, _WIDTH, subsequent_indent=' ' * 7)
    return ['checks of the attacks', *lines]


def _validation(result):
    line = f'{_validation_line(result)}; no test speaker was read'
    blocks = [[line], _folds(result['folds'], 'validation_speakers', ('uar',))]
    tried = result.get('conditions', {})
    if tried:
        width = min(40, max(len('condition'), *map(len, tried)))
        lines = [f'{name[:width]:<{width}}{_percent(uar):>8}' for name, uar in tried.items()]
        over = 'on the validation speakers, mean over folds and tasks'
        blocks.append([f'{"condition":<{width}}{"UAR %":>8}  {over}', *lines])
    return blocks


def _validation_line(result):
    n_folds = len(result['folds'])
    tasks = any(name.startswith(('uar_', 'ccc_')) for name in result)
    over = f'mean over {"tasks and " * tasks}{n_folds} fold{"s" * (n_folds != 1)}'
    rates = f'validation UAR  {_percent(result["uar"])} %'
    if 'ccc' in result:  # that, or the mean of both, selects
        rates += f', CCC {result["ccc"]:.3f}'
    return f'{rates}   {over}, at the checkpoint it selected'


def _footer(card):
    lines = []
    for name, text in facts(card):
        lines += textwrap.wrap(f'{name:<12}{text}', _WIDTH, subsequent_indent=' ' * 12)
    return lines


def facts(card: Mapping) -> list[tuple[str, str]]:
    """What stands below the rates of a result card: leak check, labels, cost, device, model, as (name, text)."""
    leaks, cost = card['leak_check'], card['cost']
    twice = {name: leaks[name] for name in ('speakers', 'audio', 'ids') if leaks.get(name)}
    told = (
        ', '.join(f'{count} {name}' for name, count in twice.items()) or 'no speaker, audio or id'
    )
    checked = f'{"FAILED" if twice else "passed"}: {told} on two sides'
    checked += f'; {leaks["scripts"]} scripts spoken on both'
    if leaks.get('unknown_speakers'):
        checked += f'; {leaks["unknown_speakers"]} utterances of unknown speakers in use'
    if leaks.get('excluded'):
        checked += f'; {leaks["excluded"]} utterances of unknown speakers left out'
    costs = [
        (cost.get('train_seconds'), lambda value: f'training {duration(value)}'),
        (cost.get('compile_seconds'), lambda value: f'of it compiling {duration(value)}'),
        (cost.get('utterances_per_second'), lambda value: f'{value:.0f} utterances/s'),
        (cost.get('peak_memory_mb'), lambda value: f'{value:.0f} MB at most'),
        (cost.get('data_wait_fraction'), lambda value: f'{_percent(value)} % waiting for data'),
    ]
    spent = ', '.join(text(value) for value, text in costs if value is not None)
    model = f'{card["n_params"]:,} parameters, commit {_short(card["commit"])}'
    labels = card.get('n_labels')
    used = ''
    if labels:
        used = f'a fold trains with {labels["train"]:.0f} and selects with {labels["validation"]:.0f}, on average'
    return [
        ('leak check', checked),
        *([('labels', used)] if used else []),
        ('cost', spent),
        ('device', card['device']),
        ('model', model),
    ]


def _short(commit):
    """Ten digits, and the mark of code that differs from the commit."""
    return commit[:10] + ('+changes' if '+changes' in commit else '') if commit else 'unknown'


def duration(seconds: float) -> str:
    """Seconds as a person says them: `8.4 s`, `3 min 05 s`, `2 h 07 min`."""
    if seconds < 59.95:
        return f'{seconds:.1f} s'
    if round(seconds) < 3600:
        return f'{round(seconds) // 60} min {round(seconds) % 60:02d} s'
    return f'{round(seconds / 60) // 60} h {round(seconds / 60) % 60:02d} min'
