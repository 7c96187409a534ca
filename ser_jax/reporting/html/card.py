"""The result card at the top of a run's page."""

import json
from collections.abc import Mapping

from ser_jax.reporting.html.markup import definitions, details, element, table
from ser_jax.reporting.text import card_facts, interval, percent, speaker_prefix


def head(card: Mapping, command: str) -> list:
    """Elements with the system and corpus, the rates on clean speech, and the details of a run.

    Args:
        card: result card.
        command: command of the run; '' = unknown.
    """
    n_folds, of = card['n_folds']
    protocol = card['protocol'] + (f', {n_folds} of {of} folds' if of else '')
    pairs = [
        ('protocol', protocol),
        ('trained on', ' and '.join(card.get('trained_on', [card['corpus']]))),
        ('seed', card['seed']),
        *card_facts(card),
    ]
    found = [
        element('h1', f'{card["system"]} on {card["corpus"]} ', _badge(card)),
        _tiles(card),
        definitions(pairs),
    ]
    if command:
        found.append(element('pre', command, class_='command'))
    folds = [row for name, found in _clean(card).items() for row in _folds(found, name)]
    if folds:
        titles = ('fold', 'test speakers', 'condition', 'n', 'UAR %', 'accuracy %')
        found.append(details('Folds', table(titles, folds, texts=3)))
    checks = card.get('attack_checks', [])
    checks = {check['check']: 'holds' if check['holds'] else 'FAILS' for check in checks}
    for title, content in (
        ('Config', card.get('config')),
        ('Versions', card.get('versions')),
        ('Checks of the attacks', checks),
    ):
        if content:
            rows = [(name, element('td', _short(value))) for name, value in content.items()]
            found.append(details(title, table(('', ''), rows, texts=2)))
    return found


def _short(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _badge(card):
    kind = 'SYNTHETIC speech' if card['synthetic'] else 'real speech'
    return element('span', kind, class_='badge synthetic' if card['synthetic'] else 'badge')


def _clean(card):
    """The results on clean speech of all tasks."""
    return {name: r for name, r in card['conditions'].items() if name.startswith('clean')}


def _tiles(card):
    """Tiles with the rates of every reported task and of validation."""
    tiles, shown = [], _clean(card)
    for found in shown.values():
        n_classes = sum(recall is not None for recall in found['recall'].values())
        where = f', {found["task"]}' if found.get('task') else ''
        if 'ccc' in found:
            low, high = found['ccc_ci95']
            known = None not in found['ccc_ci95']
            bounds = f'95 % [{low:.3f}, {high:.3f}]' if known else 'no interval'
            tiles.append((f'{found["ccc"]:.3f}', f'CCC{where}', bounds))
        bounds = f'95 %: {interval(found["uar_ci95"])}, over speakers'
        below = f'chance {100 / n_classes:.1f} %; n = {found["n"]}'
        tiles += [
            (f'{percent(found["uar"])} %', f'UAR{where}', bounds, below),
            (f'{percent(found["wa"])} %', f'accuracy (WA){where}'),
            (f'{percent(found["macro_f1"])} %', f'macro-F1{where}'),
        ]
    if card.get('validation'):
        caption = 'validation UAR' + ('' if shown else '; no test speaker was read')
        tiles.append((f'{percent(card["validation"]["uar"])} %', caption))
        tried = card['validation'].get('conditions', {})
        tiles += [
            (f'{percent(uar)} %', f'validation UAR, {name}, mean over folds and tasks')
            for name, uar in tried.items()
        ]
    nodes = [
        element(
            'div', element('b', rate), *(element('span', line) for line in lines), class_='tile'
        )
        for rate, *lines in tiles
    ]
    return element('div', *nodes, class_='tiles') if nodes else None


def _folds(result, name):
    skip = speaker_prefix(name for fold in result['folds'] for name in fold['test_speakers'])
    for fold in result['folds']:
        speakers = ' '.join(name[skip:] for name in fold['test_speakers']) or '?'
        rates = percent(fold['uar']), percent(fold['wa'])
        yield fold['fold'], element('td', speakers, class_='id'), name, fold['n'], *rates
