"""Self-contained HTML page of finished runs: a Jinja2 template, filled with the figures of `reporting.figures`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_jax.data.corpora import Corpus
from ser_jax.metrics import rates
from ser_jax.reporting import figures
from ser_jax.reporting.figures import chance, of_task, robustness_panels
from ser_jax.reporting.html.recordings import open_records, read_recordings
from ser_jax.reporting.html.rendering import Drawing, render
from ser_jax.reporting.text import card_facts, speaker_prefix
from ser_jax.runs import finished
from ser_jax.runs.finished import read_embedding, read_metrics
from ser_jax.runs.predictions import Predictions
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically
from ser_jax.runtime.text import duration, interval, percent

_BINS = 10  # confidence bins
_MOST_POINTS = 4000  # points of a map; more would only make the page larger
_MOST_ERRORS = 12
_MOST_BARS = 24  # a figure; more would be taller than a screen


class _Clean(NamedTuple):
    """Predictions for clean speech of one task."""

    name: str
    predictions: Predictions
    labels: list[str]


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
    draw = Drawing()
    runs = [_run(Path(workdir), 'A', draw, audio) for workdir in workdirs]
    runs += [_run(Path(workdir), 'B', draw, audio) for workdir in against]
    title = ' against '.join(dict.fromkeys(run['card']['system'] for run in runs))
    functions = {'percent': percent, 'interval': interval, 'duration': duration, 'chance': chance}
    page = render(
        'page.html.j2',
        **functions,
        title=title if against or len(runs) > 1 else f'{title} on {runs[0]["card"]["corpus"]}',
        runs=runs,
        result=result,
        comparison_rows=_comparison_rows(result) if result else [],
        text=text,
    )
    try:
        write_atomically(Path(path), page)
    except OSError as error:
        raise UserError(f'cannot write the page {path}: {error.strerror}') from error


def _comparison_rows(result: Mapping) -> list[tuple[str, Mapping]]:
    """(name, entry) of a comparison; with one seed each, both entries are the same."""
    if all(len(result[side]['seeds']) == 1 for side in 'ab' if side in result):
        return [('one seed each', result['mean_over_seeds'])]
    names = {'mean_over_seeds': 'mean over seeds', 'averaged_posterior': 'averaged posterior'}
    return [(name, result[key]) for key, name in names.items()]


def _run(workdir: Path, side: str, draw: Drawing, audio: bool) -> dict:
    """What the template shows of a run; folders of `results/` have no metrics and no embedding."""
    card = _valid(finished.read_card(workdir))
    results = {name: one for name, one in card['conditions'].items() if name.startswith('clean')}
    clean = [_read_clean(workdir, name, result) for name, result in results.items()]
    folds = ', {} of {} folds'.format(*card['n_folds'])
    facts = [
        ('protocol', card['protocol'] + (folds if card['n_folds'][1] else '')),
        ('trained on', ' and '.join(card.get('trained_on', [card['corpus']]))),
        ('seed', card['seed']),
        *card_facts(card),
    ]
    checks = card.get('attack_checks', [])
    plain = lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return {
        'side': side,
        'card': card,
        'clean_results': results,
        'facts': facts,
        'command': finished.read_command(workdir),
        'folds': [row for name, result in results.items() for row in _fold_rows(result, name)],
        'config': [(name, plain(value)) for name, value in (card.get('config') or {}).items()],
        'checks': [(check['check'], 'holds' if check['holds'] else 'FAILS') for check in checks],
        'sections': _sections(workdir, card, clean, draw, audio),
    }


def _read_clean(workdir: Path, name: str, result: Mapping) -> _Clean:
    path = workdir / 'predictions' / f'{name}.csv'
    found, labels = finished.read_condition(workdir, name)
    values = (found.probabilities, *([found.predicted_rating] if found.rated else ()))
    if not all(np.isfinite(value).all() for value in values):
        raise UserError(f'{path} holds predictions that are not finite')
    if len(found.id) != result['n']:
        raise UserError(
            f'{path} holds {len(found.id)} utterances, but results.json has {result["n"]}'
        )
    return _Clean(name, found, labels)


def _valid(content):
    """JSON content without halves of surrogate pairs, which JSON files may contain, but no page and no font."""
    text = json.dumps(content, ensure_ascii=False)
    return json.loads(text.encode('utf-8', 'replace'))


def _section(heading, drawn=(), table=(), note: str = '', large: bool = False) -> list[dict]:
    """A section as a list, empty without content; it spans as many columns of the page as its figures need.

    `table` has the arguments of a macro of the template: `folded` below figures, else `table`.
    """
    section = {'heading': heading, 'figures': drawn, 'table': table, 'note': note, 'large': large}
    return [section | {'span': min((1 + large) * len(drawn), 3)}] if drawn or table else []


def _fold_rows(result, name):
    skip = speaker_prefix(name for fold in result['folds'] for name in fold['test_speakers'])
    for fold in result['folds']:
        speakers = ' '.join(name[skip:] for name in fold['test_speakers']) or '?'
        yield fold['fold'], speakers, name, fold['n'], percent(fold['uar']), percent(fold['wa'])


def _sections(workdir: Path, card: Mapping, clean: list[_Clean], draw, audio: bool) -> list[dict]:
    """The sections of a run; those without data are left out."""
    conditions, calibration = card['conditions'], card.get('calibration') or {}
    records = open_records(workdir, card['corpus']) if audio and clean else None
    found = _section(
        'Confusion matrices',
        [
            draw(name, figures.confusion_matrix_figure(one['confusion'], list(one['recall'])))
            for name, one in conditions.items()
            if name.startswith(('clean', 'cross_'))
        ],
        note='Percent of the true class, and number of utterances.',
        large=any(len(one['recall']) > 6 for one in conditions.values()),
    )
    found += _section(
        'Speakers',
        [figure for one in clean for figure in _speakers(one, conditions[one.name], draw)],
        note='Clean speech; no test speaker is in the training data.',
    )
    found += _robustness(conditions, draw)
    found += _section(
        'Calibration',
        [
            _reliability(one, calibration.get(one.name) or {}, draw)
            for one in clean
            if not one.predictions.rated  # ratings have no probabilities
        ],
        note='Clean speech, the folds pooled.',
    )
    level = 100 * np.mean([1 / len(one.labels) for one in clean]) if clean else None
    metrics = _valid(read_metrics(workdir / 'metrics.jsonl'))
    found += _section('Learning curves', _learning_curves(metrics, level, draw))
    found += _section(
        'Map of utterances',
        _maps(read_embedding(workdir / 'report' / 'embedding.csv'), draw),
        note=f'Input of the heads for the utterances of {clean[0].predictions.fold[0] if clean else ""}, on its two '
        'main axes (PCA). Filled: test; hollow: training and validation.',
    )
    for one in clean:
        note = 'Wrong predictions with the highest confidence.'
        found += _section(
            'Worst errors' + (f': {one.name}' if len(clean) > 1 else ''),
            table=_errors(one, records),
            note='Largest errors of the rating.' if one.predictions.rated else note,
        )
    return found


def _speakers(clean: _Clean, result: Mapping, draw) -> list[dict]:
    """UAR and accuracy of every speaker; none if all are unknown."""
    found = clean.predictions
    known = found.speaker != ''
    names = sorted(set(found.speaker[known].tolist()))
    if not names:
        return []
    labels = found.label[known], found.prediction[known]
    counts = rates.confusion_by_speaker(*labels, found.speaker[known], len(clean.labels))
    skip, unknown = speaker_prefix(names), int((~known).sum())
    level = chance(result)
    note = f"UAR over the classes of the speaker's utterances. Dotted: chance, {percent(level)} %."
    note += f' {unknown} utterances of unknown speakers are left out.' if unknown else ''
    uar = [float(rates.uar(one)) for one in counts]
    columns = {
        'UAR %': [percent(rate) for rate in uar],
        'accuracy %': [percent(float(rates.wa(one))) for one in counts],
        'n': [str(one.sum()) for one in counts],
    }
    per_figure = -(-len(names) // -(-len(names) // _MOST_BARS))
    drawn = []
    for first in range(0, len(names), per_figure):
        part = slice(first, first + per_figure)
        figure = figures.bar_figure(
            [name[skip:] for name in names[part]],
            uar[part],
            {heading: texts[part] for heading, texts in columns.items()},
            chance=level,
        )
        drawn.append(draw(clean.name if not first else f'{clean.name}, continued', figure, note))
        note = ''
    return drawn


def _learning_curves(rows: Sequence[Mapping], chance: float | None, draw) -> list[dict]:
    """Training loss and validation scores over the steps, one line per fold; the first has the legend."""
    folds, drawn = list(dict.fromkeys(row['fold'] for row in rows)), []
    for field, heading, unit in (
        ('loss', 'Training loss', 'loss, mean since the last point'),
        ('validation_uar', 'Validation UAR', 'UAR, %'),
        ('validation_ccc', 'Validation CCC', 'CCC'),
    ):
        scale = 100 if field == 'validation_uar' else 1
        curves = {fold: [] for fold in folds}
        for row in rows:
            if _drawable(row.get(field)) and _drawable(row['step']):
                curves[row['fold']].append((row['step'], scale * row[field]))
        if any(curves.values()):
            level = chance if field == 'validation_uar' else None
            note = f'Dotted: chance, {level:.1f} %.' if level else ''
            legend = not drawn and 1 < len(folds) <= figures.MOST_NAMES
            drawn.append(draw(heading, figures.curve_figure(curves, unit, level, legend), note))
    return drawn


def _drawable(value) -> bool:
    return isinstance(value, int | float) and abs(value) < 1e30  # neither NaN nor beyond any axis


def _robustness(conditions, draw) -> list[dict]:
    """The curves of every task, and a table of all conditions; none with clean speech only."""
    clean = [name for name in conditions if name.startswith('clean')]
    if len(clean) == len(conditions):
        return []
    drawn = []
    for name in clean:
        task, level = name.removeprefix('clean_').removeprefix('clean'), chance(conditions[name])
        about, uar = f': {task}' if task else '', conditions[name]['uar']
        for heading, lines in robustness_panels(of_task(conditions, name[5:])).items():
            note = f'Dashed: clean, {percent(uar)} %; dotted: chance, {percent(level)} %. Bars: 95 % interval over speakers.'
            if heading == 'corruption':
                names, uars, bounds = zip(*sorted(lines[''], key=lambda point: point[1]))
                columns = {
                    'UAR %': [percent(rate) for rate in uars],
                    '95 % interval': [interval(pair) for pair in bounds],
                }
                figure = figures.bar_figure(
                    names, uars, columns, intervals=bounds, chance=level, clean=uar
                )
                title = f'UAR under corruptions{about}'
            else:
                panel = {heading: lines}
                figure = figures.robustness_figure(panel, {'clean': uar}, chance=level)
                title = f'UAR against {heading}{about}'
            drawn.append(draw(title, figure, note))
    titles = ('condition', 'n', 'UAR %', '95 % interval', 'accuracy %')
    rows = [
        (name, one['n'], percent(one['uar']), interval(one['uar_ci95']), percent(one['wa']))
        for name, one in conditions.items()
    ]
    return _section('Other conditions', drawn, (f'All {len(rows)} conditions', titles, rows))


def _reliability(clean: _Clean, calibration: Mapping, draw) -> dict:
    found = clean.predictions
    confidence, right = found.probabilities.max(1), found.prediction == found.label
    error = rates.expected_calibration_error(found.probabilities, found.label, _BINS)
    note = f'Expected calibration error {percent(error)} % ({_BINS} bins). '
    calibrated = calibration.get('ece_calibrated')
    if calibrated is not None:
        note += f'{percent(calibrated)} % with a temperature fitted on the validation speakers of each fold'
        note += (
            ', which worsens it for these test speakers. '
            if round(calibrated, 3) > round(error, 3)
            else '. '
        )
    note += 'Dashed: perfect calibration; grey: share of the utterances.'
    bins = rates.confidence_bins(confidence, right, _BINS)
    return draw(clean.name, figures.reliability_figure(bins, _BINS), note)


def _maps(rows: Sequence[Mapping[str, str]], draw) -> list[dict]:
    """The map of a fold's utterances, coloured by emotion and by speaker."""
    total = len(rows)
    if total > _MOST_POINTS:
        drawn = np.random.default_rng(0).choice(total, _MOST_POINTS, replace=False)
        rows = [rows[number] for number in sorted(drawn)]
    points = np.array([(float(row['x']), float(row['y'])) for row in rows]).reshape(-1, 2)
    tested = np.array([row['side'] == 'test' for row in rows])
    found = []
    for field in ('emotion', 'speaker') if rows else ():
        skip = speaker_prefix(row[field] for row in rows) if field == 'speaker' else 0
        names = [row[field][skip:] or 'unknown' for row in rows]
        note = '' if len(set(names)) <= figures.MOST_NAMES else 'Colours repeat. '
        note += f'Drawn: {len(rows)} of {total}, at random.' if len(rows) < total else ''
        figure = figures.scatter_figure(points, {'': names}, tested)
        found.append(draw(f'{len(rows)} utterances by {field}', figure, note))
    return found


def worst_errors(predictions: Predictions) -> np.ndarray:
    """Rows of at most 12 utterances: the most confident wrong predictions, or the largest rating errors."""
    if predictions.rated:
        misses = np.abs(predictions.predicted_rating - predictions.rating)
        return np.argsort(-misses, kind='stable')[:_MOST_ERRORS]
    wrong = np.flatnonzero(predictions.prediction != predictions.label)
    confidence = predictions.probabilities[wrong].max(1)
    return wrong[np.argsort(-confidence, kind='stable')[:_MOST_ERRORS]]


def _errors(clean: _Clean, records: Corpus | None) -> tuple:
    """The worst errors as a table, with the recordings if there are records; () without errors."""
    predictions, labels = clean.predictions, clean.labels
    chosen = worst_errors(predictions)
    skip, rows = speaker_prefix(predictions.speaker.tolist()), []
    for row in chosen:
        line = [predictions.id[row], predictions.speaker[row][skip:] or '?']
        if predictions.rated:
            line += [f'{x[row]:.2f}' for x in (predictions.rating, predictions.predicted_rating)]
        else:
            pair = predictions.label[row], predictions.prediction[row]
            line += [labels[label] for label in pair]
            line += [percent(predictions.probabilities[row][label]) for label in pair[::-1]]
        rows.append(line)
    head = ['utterance', 'speaker', 'true', 'predicted', 'confidence %', 'true class %']
    if predictions.rated:
        head[2:] = ['true rating', 'predicted']
    sounds = read_recordings(records, predictions.id[chosen]) if records and rows else []
    head += ['listen'] if sounds else []
    return (head, rows, 2 if predictions.rated else 4, sounds) if rows else ()
