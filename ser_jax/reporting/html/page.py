"""Self-contained HTML page of finished runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_jax.reporting.html import charts, markup
from ser_jax.reporting.html.card import head
from ser_jax.reporting.html.errors import errors_table, open_records
from ser_jax.reporting.html.markup import details, element, section, table
from ser_jax.reporting.text import duration, interval, percent
from ser_jax.runs import finished
from ser_jax.runs.finished import read_embedding, read_metrics
from ser_jax.runs.predictions import Predictions
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically


class _Clean(NamedTuple):
    """Predictions for clean speech of one task."""

    name: str
    predictions: Predictions
    labels: list[str]


class _Run(NamedTuple):
    """Contents of a workdir; folders of `results/` have no metrics and no embedding."""

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
        path: HTML file to write.
        workdirs: finished runs of one system, one per seed, or folders of `results/`.
        against: finished runs of another system.
        result: result of `compare.compare_runs` for both systems, or of `compare.over_seeds` for several seeds.
        text: the result as plain text.
        audio: whether recordings of the worst errors are embedded.

    Raises:
        UserError: a folder without a finished run, unreadable predictions, missing recordings, or a file that cannot
            be written.
    """
    runs = [_read(workdir) for workdir in [*workdirs, *against]]
    if len(runs) == 1:
        title = '{system} on {corpus}'.format(**runs[0].card)
        body = _sections(runs[0], audio)
    else:
        title = ' against '.join(dict.fromkeys(run.card['system'] for run in runs))
        systems = ['A'] * len(workdirs) + ['B'] * len(against)
        body = [element('h1', title), _overview(systems, runs)]
        body += [_comparison(result, text)] if result else []
        body += [element('section', *_sections(run, audio), class_='run') for run in runs]
    path = Path(path)
    try:
        write_atomically(path, markup.document(title, *body))
    except OSError as error:
        raise UserError(f'cannot write the page {path}: {error.strerror}') from error


def _read(workdir) -> _Run:
    workdir, card = Path(workdir), finished.read_card(workdir)
    clean = []
    for name, result in card['conditions'].items():
        if not name.startswith('clean'):
            continue
        path = workdir / 'predictions' / f'{name}.csv'
        found, labels = finished.read_condition(workdir, name)
        values = (found.probabilities, *([found.predicted_rating] if found.rated else ()))
        if not all(np.isfinite(value).all() for value in values):
            raise UserError(f'{path} holds predictions that are not finite')
        if len(found.id) != result['n']:
            raise UserError(
                f'{path} holds {len(found.id)} utterances, but results.json has {result["n"]}'
            )
        clean.append(_Clean(name, found, labels))
    return _Run(
        workdir,
        card,
        finished.read_command(workdir),
        clean,
        read_metrics(workdir / 'metrics.jsonl'),
        read_embedding(workdir / 'report' / 'embedding.csv'),
    )


def _sections(run: _Run, audio: bool) -> list:
    """The sections of a run; those without data are left out."""
    card, conditions = run.card, run.card['conditions']
    chance = float(np.mean([1 / len(one.labels) for one in run.clean])) if run.clean else None
    records = open_records(run.workdir, card['corpus']) if audio and run.clean else None
    calibration = card.get('calibration') or {}
    first_fold = run.clean[0].predictions.fold[0] if run.clean else ''
    parts = [
        _part(
            'Confusion matrices',
            'Percent of the true class, and number of utterances.',
            [
                charts.confusion(name, found)
                for name, found in conditions.items()
                if name.startswith(('clean', 'cross_'))
            ],
        ),
        _robustness(card),
        _part(
            'Speakers',
            'Clean speech; no test speaker is in the training data.',
            [charts.speakers(*one) for one in run.clean],
        ),
        _part('Learning curves', '', charts.learning_curves(run.metrics, chance)),
        _part(
            'Calibration',
            'Clean speech, the folds pooled.',
            [
                charts.reliability(one.name, one.predictions, calibration.get(one.name))
                for one in run.clean
                if not one.predictions.rated  # ratings have no probabilities
            ],
        ),
        _part(
            'Map of utterances',
            f'Input of the heads for the utterances of {first_fold}, on its two main axes (PCA).',
            charts.embedding_map(run.embedding),
        ),
        *(
            _part(
                'Worst errors' + (f': {one.name}' if len(run.clean) > 1 else ''),
                'Largest errors of the rating.'
                if one.predictions.rated
                else 'Wrong predictions with the highest confidence.',
                [errors_table(one.predictions, one.labels, records)],
            )
            for one in run.clean
        ),
    ]
    return [*head(card, run.command), *(part for part in parts if part is not None)]


def _part(heading, note, content):
    """A section of figures or of one table; None without content."""
    content = [node for node in content if node is not None]
    if not content:
        return None
    kind = 'panels wide' if heading in ('Confusion matrices', 'Speakers') else 'panels'
    body = element('div', *content, class_=kind) if content[0].tag == 'figure' else content[0]
    return section(heading, element('p', note, class_='soft') if note else None, body)


def _robustness(card):
    """The curves of every task, and a table of all conditions; None with clean speech only."""
    conditions = card['conditions']
    rows = [
        (name, found['n'], percent(found['uar']), interval(found['uar_ci95']), percent(found['wa']))
        for name, found in conditions.items()
    ]
    clean = [name for name in conditions if name.startswith('clean')]
    if len(clean) == len(conditions):
        return None
    figures = []
    for name in clean:
        figures += charts.robustness(conditions, name.removeprefix('clean'))
    titles = ('condition', 'n', 'UAR %', '95 % interval', 'accuracy %')
    return section(
        'Other conditions',
        element('div', *figures, class_='panels') if figures else None,
        details(f'All {len(rows)} conditions', table(titles, rows)),
    )


def _overview(systems, runs):
    """All runs in one table."""
    rows = []
    for system, run in zip(systems, runs):
        card = run.card
        title = f'{card["system"]}, seed {card["seed"]}'
        corpus = card['corpus'] + (' (SYNTHETIC)' if card['synthetic'] else '')
        seconds = card['cost'].get('train_seconds')
        time = '–' if seconds is None else duration(seconds)
        for name, found in [*card['conditions'].items()] or [('validation only', None)]:
            if found and not name.startswith('clean'):
                continue
            rates = ['–'] * 4
            if found:
                rates = [percent(found[key]) for key in ('uar', 'wa', 'macro_f1')]
                rates.insert(1, interval(found['uar_ci95']))
            rows.append((system, title, corpus, name, found['n'] if found else '–', *rates, time))
    rates = ('n', 'UAR %', '95 % interval', 'accuracy %', 'macro-F1 %', 'training')
    return section('Runs', table(('', 'run', 'corpus', 'condition', *rates), rows, texts=4))


def _comparison(result, text):
    """A minus B, or one system over its seeds."""
    two = 'b' in result
    several = any(len(result[side]['seeds']) > 1 for side in ('ab' if two else 'a'))
    rows = []
    for key, name in (
        ('mean_over_seeds', 'mean over seeds' if several else 'one seed each'),
        ('averaged_posterior', 'averaged posterior'),
    )[: None if several else 1]:
        found = result[key]
        bounds = interval(found['ci95'], signed=two)
        if two:
            rates = percent(found['uar_a']), percent(found['uar_b'])
            difference = percent(found['difference'], signed=True)
            rows.append((name, *rates, difference, bounds, f'{found["p"]:.3g}'))
        else:
            rows.append((name, percent(found['uar']), bounds))
    middle = ('A', 'B', 'A − B') if two else ('',)
    titles = ('UAR in percent', *middle, '95 % interval', *(['p'] if two else []))
    warnings = [element('p', line, class_='note') for line in result['warnings']]
    return section(
        f'Comparison: {result["condition"]}' if two else f'Over seeds: {result["condition"]}',
        *warnings,
        table(titles, rows),
        details('As text, with notes', element('pre', text)),
    )
