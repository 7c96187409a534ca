"""One page that shows finished runs: nothing has to lie beside it, and nothing is loaded."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_jax.evaluation.worst_errors import hardest_table, open_records
from ser_jax.reporting import text as console
from ser_jax.reporting.html import charts, markup
from ser_jax.reporting.html.card import head
from ser_jax.reporting.html.charts import interval, percent
from ser_jax.reporting.html.markup import details, element, section, table
from ser_jax.runs import finished
from ser_jax.runs.finished import read_embedding, read_metrics
from ser_jax.runs.predictions import Predictions, read_predictions
from ser_jax.runs.workdir import result_name
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically


class _Clean(NamedTuple):
    """What was said of clean speech in one task."""

    name: str
    predictions: Predictions
    labels: list[str]


class _Run(NamedTuple):
    """What a workdir holds; folders of `results/` have no metrics and no embedding."""

    workdir: Path
    card: Mapping
    command: str
    clean: list[_Clean]
    metrics: list[dict]
    embedding: list[dict[str, str]]


def write_page(
    path: str | Path,
    workdirs: Sequence,
    against: Sequence = (),
    *,
    result: Mapping | None = None,
    text: str = '',
    audio: bool = False,
) -> None:
    """Writes the page of finished runs.

    Args:
        path: HTML file to write, whole or not at all; its folder is made.
        workdirs: of one system, a seed each; or folders of `results/`.
        against: of another system.
        result: `paired.compare_runs(…)` of both, or `paired.over_seeds(…)` of several seeds.
        text: the result as the command prints it.
        audio: whether the hardest utterances can be heard: the page then holds recordings of the corpus.

    Raises:
        UserError: a folder without a finished run, predictions that cannot be read, audio that is not at hand,
            or a file that cannot be written.
    """
    runs = [_read(workdir) for workdir in [*workdirs, *against]]
    if len(runs) == 1:
        title = '{system} on {corpus}'.format(**runs[0].card)
        body = _shown(runs[0], audio)
    else:
        title = ' against '.join(dict.fromkeys(run.card['system'] for run in runs))
        sides = ['A'] * len(workdirs) + ['B'] * len(against)
        body = [element('h1', title), _overview(sides, runs)]
        body += [_compared(result, text)] if result else []
        body += [element('section', *_shown(run, audio), class_='run') for run in runs]
    path = Path(path)
    try:
        write_atomically(path, markup.document(title, *body))
    except OSError as error:
        raise UserError(f'cannot write the page {path}: {error.strerror}') from error


def _read(workdir) -> _Run:
    workdir, card = Path(workdir), finished.read_card(workdir)
    clean = []
    for task in card.get('tasks', {'emotion': card['labels']}):
        name = result_name('clean', task)
        if name in card['conditions']:
            path = workdir / 'predictions' / f'{name}.csv'
            found, labels = read_predictions(path)
            values = (found.probabilities, *([found.predicted_rating] if found.rated else ()))
            if not all(np.isfinite(value).all() for value in values):
                raise UserError(f'{path} holds predictions that are not finite')
            if len(found.id) != card['conditions'][name]['n']:
                raise UserError(
                    f'{path} holds {len(found.id)} utterances, but results.json tells of '
                    f'{card["conditions"][name]["n"]}'
                )
            clean.append(_Clean(name, found, labels))
    return _Run(
        workdir,
        card,
        _text(workdir / 'command.txt').strip(),
        clean,
        read_metrics(workdir / 'metrics.jsonl'),
        read_embedding(workdir / 'report' / 'embedding.csv'),
    )


def _text(path):
    """The text of a file, '' where there is none."""
    return path.read_text(encoding='utf-8', errors='replace') if path.exists() else ''


def _shown(run: _Run, audio: bool) -> list:
    """All that there is to say of a run; parts whose data are not there are left out."""
    card, conditions = run.card, run.card['conditions']
    chance = float(np.mean([1 / len(one.labels) for one in run.clean])) if run.clean else None
    records = open_records(run.workdir, card['corpus']) if audio and run.clean else None
    told = card.get('calibration') or {}
    first_fold = run.clean[0].predictions.fold[0] if run.clean else ''
    parts = [
        _part(
            'Confusion matrices',
            'Percent of the true class; below it the number of utterances.',
            [
                charts.confusion(name, found)
                for name, found in conditions.items()
                if name.startswith(('clean', 'cross_'))
            ],
        ),
        _robustness(card),
        _part(
            'Speakers',
            'Clean speech; nobody tested was heard in training.',
            [charts.speakers(*one) for one in run.clean],
        ),
        _part('Learning curves', '', charts.learning_curves(run.metrics, chance)),
        _part(
            'Calibration',
            'Clean speech, the folds pooled.',
            # A predicted rating has no probabilities.
            [
                charts.reliability(one.name, one.predictions, told.get(one.name))
                for one in run.clean
                if not one.predictions.rated
            ],
        ),
        _part(
            'Map of utterances',
            f'What the heads see of the utterances of {first_fold}, on its two main axes (PCA).',
            charts.embedding_map(run.embedding),
        ),
        *(
            _part(
                'Hardest utterances' + (f': {one.name}' if len(run.clean) > 1 else ''),
                'Ratings missed by most.'
                if one.predictions.rated
                else 'Told wrong with the most confidence.',
                [hardest_table(one.predictions, one.labels, records)],
            )
            for one in run.clean
        ),
    ]
    return [*head(card, run.command), *(part for part in parts if part is not None)]


def _part(heading, note, found):
    """A section of what was found; None where that is nothing."""
    found = [one for one in found if one is not None]
    if not found:
        return None
    kind = 'panels wide' if heading in ('Confusion matrices', 'Speakers') else 'panels'
    around = element('div', *found, class_=kind) if found[0].tag == 'figure' else found[0]
    return section(heading, element('p', note, class_='soft') if note else None, around)


def _robustness(card):
    """The curves of every task, and all conditions but clean in a table."""
    conditions = card['conditions']
    rows = [
        (name, found['n'], percent(found['uar']), interval(found['uar_ci95']), percent(found['wa']))
        for name, found in conditions.items()
    ]
    others = [name for name in conditions if not name.startswith('clean')]
    if not others:
        return None
    figures = []
    for name in conditions:
        if name.startswith('clean'):
            figures += charts.robustness(conditions, name.removeprefix('clean'))
    titles = ('condition', 'n', 'UAR %', '95 % interval', 'accuracy %')
    return section(
        'Other conditions',
        element('div', *figures, class_='panels') if figures else None,
        details(f'All {len(rows)} conditions', table(titles, rows)),
    )


def _overview(sides, runs):
    """All runs in one table."""
    rows = []
    for side, run in zip(sides, runs):
        card = run.card
        who = f'{card["system"]}, seed {card["seed"]}'
        where = card['corpus'] + (' (SYNTHETIC)' if card['synthetic'] else '')
        hours = card['cost'].get('train_seconds')
        time = '–' if hours is None else console.duration(hours)
        for name, found in [*card['conditions'].items()] or [('validation only', None)]:
            if found and not name.startswith('clean'):
                continue
            rates = ['–'] * 4
            if found:
                rates = [percent(found[key]) for key in ('uar', 'wa', 'macro_f1')]
                rates.insert(1, interval(found['uar_ci95']))
            rows.append((side, who, where, name, found['n'] if found else '–', *rates, time))
    rates = ('n', 'UAR %', '95 % interval', 'accuracy %', 'macro-F1 %', 'training')
    return section('Runs', table(('', 'run', 'corpus', 'tested', *rates), rows, texts=4))


def _compared(result, text):
    """A minus B, or the seeds of one system joined."""
    two = 'b' in result
    several = any(len(result[side]['seeds']) > 1 for side in ('ab' if two else 'a'))
    rows = []
    for key, name in (
        ('mean_over_seeds', 'mean over seeds' if several else 'one seed each'),
        ('averaged_posterior', 'averaged posterior'),
    )[: None if several else 1]:
        found = result[key]
        rates = [f'{percent(found[f"uar_{side}"])}' for side in 'ab'] if two else []
        middle = [f'{100 * found["difference"]:+.1f}'] if two else [percent(found['uar'])]
        p = [f'{found["p"]:.3g}'] if two else []
        low, high = found['ci95']
        bounds = '–' if low is None else f'[{100 * low:+.1f}, {100 * high:+.1f}]'
        if not two:
            bounds = interval(found['ci95'])
        rows.append((name, *rates, *middle, bounds, *p))
    middle = ('A', 'B', 'A − B') if two else ('',)
    titles = ('UAR in percent', *middle, '95 % interval', *(['p'] if two else []))
    warnings = [element('p', line, class_='note') for line in result['warnings']]
    return section(
        f'Comparison: {result["condition"]}' if two else f'Over seeds: {result["condition"]}',
        *warnings,
        table(titles, rows),
        details('What the numbers stand on', element('pre', text)),
    )
