"""The result card of a run as the beginning of its page."""

import json
from collections.abc import Mapping

from ser_jax.reporting import text as console
from ser_jax.reporting.html.charts import interval, percent
from ser_jax.reporting.html.markup import details, element, facts, table


def head(card: Mapping, command: str) -> list:
    """What was tested, the rates on clean speech, and what every number needs beside it.

    Args:
        card: of a run.
        command: that made it, '' = not known.

    Returns:
        Elements.
    """
    n_folds, of = card['n_folds']
    protocol = card['protocol'] + (f', {n_folds} of {of} folds' if of else '')
    pairs = [
        ('protocol', protocol),
        ('trained on', ' and '.join(card.get('trained_on', [card['corpus']]))),
        ('seed', card['seed']),
        *console.facts(card),
    ]
    found = [
        element('h1', f'{card["system"]} on {card["corpus"]} ', _badge(card)),
        _tiles(card),
        facts(pairs),
    ]
    if command:
        found.append(element('pre', command, class_='command'))
    folds = [row for name, found in _clean(card).items() for row in _folds(found, name)]
    if folds:
        titles = ('fold', 'tested speakers', 'tested', 'n', 'UAR %', 'accuracy %')
        found.append(details('Folds', table(titles, folds, texts=3)))
    for title, content in (
        ('Config', card.get('config')),
        ('Versions', card.get('versions')),
        ('Checks of the attacks', {c['check']: _held(c) for c in card.get('attack_checks', [])}),
    ):
        if content:
            rows = [(name, element('td', _short(value))) for name, value in content.items()]
            found.append(details(title, table(('', ''), rows, texts=2)))
    return found


def _held(check):
    return 'holds' if check['holds'] else 'DOES NOT HOLD'


def _short(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _badge(card):
    kind = 'SYNTHETIC speech' if card['synthetic'] else 'real speech'
    return element('span', kind, class_='badge synthetic' if card['synthetic'] else 'badge')


def _clean(card):
    """The results on clean speech, of all tasks."""
    return {name: r for name, r in card['conditions'].items() if name.startswith('clean')}


def _tiles(card):
    """The rates of every reported task, or of validation where nothing was tested."""
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
        text = 'validation UAR' + ('' if shown else '; no test speaker was read')
        tiles.append((f'{percent(card["validation"]["uar"])} %', text))
        tried = card['validation'].get('conditions', {})
        tiles += [
            (f'{percent(uar)} %', f'validation UAR, {name}, mean over folds and tasks')
            for name, uar in tried.items()
        ]
    made = [
        element(
            'div', element('b', rate), *(element('span', text) for text in texts), class_='tile'
        )
        for rate, *texts in tiles
    ]
    return element('div', *made, class_='tiles') if made else None


def _folds(result, name):
    for fold in result['folds']:
        who = ' '.join(fold['test_speakers']) or '?'
        rates = percent(fold['uar']), percent(fold['wa'])
        yield fold['fold'], element('td', who, class_='id'), name, fold['n'], *rates
