"""Self-contained HTML page of finished runs: a Jinja2 template, filled with the figures of `reporting.figures`."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import jinja2
import numpy as np

from ser_jax.data.corpora import Corpus
from ser_jax.metrics import rates
from ser_jax.reporting import figures
from ser_jax.reporting.figures import chance, of_task, robustness_panels
from ser_jax.reporting.html.recordings import open_records, read_recordings
from ser_jax.reporting.text import card_facts, speaker_prefix
from ser_jax.runs import finished
from ser_jax.runs.finished import read_embedding, read_metrics
from ser_jax.runs.predictions import Predictions, read_predictions
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically
from ser_jax.runtime.text import duration, interval, percent

_BINS = 10  # confidence bins
_MOST_POINTS = 4000  # points of a map; more would only make the page larger
_MOST_ERRORS = 12
_MOST_BARS = 24  # a figure; more would be taller than a screen
_MEANING = (
    'UAR is the mean over the classes of the percentage of their utterances that is recognised; it is computed on the '
    'predictions of all folds together, and its 95 % interval is a bootstrap over test speakers, without seed variance.'
)
_MEANING_OF_RATINGS = ' CCC is the concordance of predicted and true ratings, 1 at best; the rates count ratings binned into classes.'


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
    systems = ['A'] * len(workdirs) + ['B'] * len(against)
    title = ' against '.join(dict.fromkeys(run.card['system'] for run in runs))
    draw = _Drawing()
    content = {
        'title': f'{title} on {runs[0].card["corpus"]}' if len(runs) == 1 else title,
        'runs': [_content(run, draw, audio) for run in runs],
        'overview': _overview(systems, runs),
        'comparison': _comparison(result) if result else None,
        'text': text,
    }
    files = resources.files('ser_jax.reporting.html')
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: (
            value if hasattr(value, '__html__') else figures.printable_xml(value)
        ),
    )
    template = environment.from_string(files.joinpath('page.html.j2').read_text('utf-8'))
    css = files.joinpath('page.css').read_text('utf-8')
    path = Path(path)
    try:
        write_atomically(path, template.render(content, css=css))
    except OSError as error:
        raise UserError(f'cannot write the page {path}: {error.strerror}') from error


def _read(workdir) -> _Run:
    workdir, card = Path(workdir), _valid(finished.read_card(workdir))
    clean = []
    for name, result in card['conditions'].items():
        if not name.startswith('clean'):
            continue
        path = workdir / 'predictions' / f'{name}.csv'
        found, labels = read_predictions(path)
        values = (found.probabilities, *([found.predicted_rating] if found.rated else ()))
        if not all(np.isfinite(value).all() for value in values):
            raise UserError(f'{path} holds predictions that are not finite')
        if len(found.id) != result['n']:
            raise UserError(
                f'{path} holds {len(found.id)} utterances, but results.json has {result["n"]}'
            )
        clean.append(_Clean(name, found, labels))
    command = workdir / 'command.txt'
    command = command.read_text('utf-8', 'replace').strip() if command.exists() else ''
    return _Run(
        workdir,
        card,
        command,
        clean,
        _valid(read_metrics(workdir / 'metrics.jsonl')),
        read_embedding(workdir / 'report' / 'embedding.csv'),
    )


def _valid(content):
    """JSON content without halves of surrogate pairs, which JSON files may contain, but no page and no font."""
    text = json.dumps(content, ensure_ascii=False)
    return json.loads(text.encode('utf-8', 'replace'))


class _Drawing:
    """Makes figures of a page, with ids that are unique in it."""

    def __init__(self):
        self._numbers = itertools.count()

    def __call__(self, heading: str, figure, note: str = '') -> dict:
        svg = figures.to_svg(figure, heading or 'legend', f'f{next(self._numbers)}-')
        return {'heading': heading, 'svg': svg, 'note': note}


def _table(head, rows, texts: int = 1, summary: str = '', sounds: Sequence[str] = ()) -> dict:
    """A table, the first columns of which are texts; collapsed under a summary, and with recordings, if there are some."""
    return {'head': head, 'rows': rows, 'texts': texts, 'summary': summary, 'sounds': sounds}


def _section(heading, drawn=(), tables=(), note: str = '', large: bool = False) -> list[dict]:
    """A section as a list, empty without content; it spans as many columns of the page as its figures need."""
    span = min((1 + large) * len(drawn), 3)
    section = {'heading': heading, 'note': note, 'span': span, 'large': large}
    return [section | {'figures': drawn, 'tables': tables}] if drawn or tables else []


def _content(run: _Run, draw: _Drawing, audio: bool) -> dict:
    """The part of a page about one run."""
    card, n_folds = run.card, run.card['n_folds']
    conditions = card['conditions']
    clean = {name: one for name, one in conditions.items() if name.startswith('clean')}
    folds = ', {} of {} folds'.format(*n_folds) if n_folds[1] else ''
    facts = [
        ('protocol', card['protocol'] + folds),
        ('trained on', ' and '.join(card.get('trained_on', [card['corpus']]))),
        ('seed', card['seed']),
        *card_facts(card),
    ]
    titles = ('fold', 'test speakers', 'condition', 'n', 'UAR %', 'accuracy %')
    rows = [row for name, result in clean.items() for row in _fold_rows(result, name)]
    details = [_table(titles, rows, 3, 'Folds')] if rows else []
    checks = card.get('attack_checks', [])
    checks = {check['check']: 'holds' if check['holds'] else 'FAILS' for check in checks}
    for title, pairs in (
        ('Config', card.get('config')),
        ('Versions', card.get('versions')),
        ('Checks of the attacks', checks),
    ):
        if pairs:
            rows = [(name, _plain(value)) for name, value in pairs.items()]
            details.append(_table((), rows, 2, title))
    rated = any('ccc' in result for result in clean.values())
    return {
        'title': f'{card["system"]} on {card["corpus"]}',
        'synthetic': card['synthetic'],
        'tiles': list(_tiles(card, clean)),
        'meaning': _MEANING + _MEANING_OF_RATINGS * rated if clean else '',
        'facts': [(name, value) for name, value in facts if value is not None and value != ''],
        'command': run.command,
        'details': details,
        'sections': _sections(run, draw, audio),
    }


def _plain(value):
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tiles(card, clean) -> Iterator[tuple[str, str, list[str]]]:
    """(rate, caption, lines) of every reported task and of validation."""
    for found in clean.values():
        where = f', {found["task"]}' if found.get('task') else ''
        if 'ccc' in found:
            low, high = found['ccc_ci95']
            known = None not in found['ccc_ci95']
            bounds = f'95 % [{low:.3f}, {high:.3f}]' if known else 'no interval'
            yield f'{found["ccc"]:.3f}', f'CCC{where}', [bounds]
        bounds = f'95 %: {interval(found["uar_ci95"])}, over speakers'
        lines = [bounds, f'chance {percent(chance(found))} %; n = {found["n"]}']
        yield f'{percent(found["uar"])} %', f'UAR{where}', lines
        yield f'{percent(found["wa"])} %', f'accuracy (WA){where}', []
        yield f'{percent(found["macro_f1"])} %', f'macro-F1{where}', []
    if card.get('validation'):
        unread = [] if clean else ['no test speaker was read']
        yield f'{percent(card["validation"]["uar"])} %', 'validation UAR', unread
        for name, uar in card['validation'].get('conditions', {}).items():
            lines = ['mean over folds and tasks']
            yield f'{percent(uar)} %', f'validation UAR, {name}', lines


def _fold_rows(result, name):
    skip = speaker_prefix(name for fold in result['folds'] for name in fold['test_speakers'])
    for fold in result['folds']:
        speakers = ' '.join(name[skip:] for name in fold['test_speakers']) or '?'
        yield fold['fold'], speakers, name, fold['n'], percent(fold['uar']), percent(fold['wa'])


def _sections(run: _Run, draw: _Drawing, audio: bool) -> list[dict]:
    """The sections of a run; those without data are left out."""
    card, conditions = run.card, run.card['conditions']
    records = open_records(run.workdir, card['corpus']) if audio and run.clean else None
    matrices = [
        draw(name, figures.confusion_matrix_figure(found['confusion'], list(found['recall'])))
        for name, found in conditions.items()
        if name.startswith(('clean', 'cross_'))
    ]
    note = 'Percent of the true class, and number of utterances.'
    large = any(len(found['recall']) > 6 for found in conditions.values())
    found = _section('Confusion matrices', matrices, note=note, large=large)
    note = 'Clean speech; no test speaker is in the training data.'
    speakers = [one for clean in run.clean for one in _speakers(clean, conditions, draw)]
    found += _section('Speakers', speakers, note=note)
    found += _robustness(conditions, draw)
    calibration = card.get('calibration') or {}
    diagrams = [
        _reliability(one, calibration.get(one.name), draw)
        for one in run.clean
        if not one.predictions.rated  # ratings have no probabilities
    ]
    found += _section('Calibration', diagrams, note='Clean speech, the folds pooled.')
    level = 100 * np.mean([1 / len(one.labels) for one in run.clean]) if run.clean else None
    found += _section('Learning curves', _learning_curves(run.metrics, level, draw))
    fold = run.clean[0].predictions.fold[0] if run.clean else ''
    note = f'Input of the heads for the utterances of {fold}, on its two main axes (PCA). Filled: test; hollow: training and validation.'
    found += _section('Map of utterances', _maps(run.embedding, draw), note=note)
    for one in run.clean:
        rated = one.predictions.rated
        found += _section(
            'Worst errors' + (f': {one.name}' if len(run.clean) > 1 else ''),
            tables=errors_tables(one.predictions, one.labels, records),
            note='Largest errors of the rating.'
            if rated
            else 'Wrong predictions with the highest confidence.',
        )
    return found


def _speakers(clean: _Clean, conditions, draw) -> list[dict]:
    """UAR and accuracy of every speaker; none if all are unknown."""
    found = clean.predictions
    known = found.speaker != ''
    names = sorted(set(found.speaker[known].tolist()))
    if not names:
        return []
    labels = found.label[known], found.prediction[known]
    counts = rates.confusion_by_speaker(*labels, found.speaker[known], len(clean.labels))
    skip, unknown = speaker_prefix(names), int((~known).sum())
    level = chance(conditions[clean.name])
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
    """Training loss and validation scores over the steps, one line per fold, and their legend."""
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
            drawn.append(draw(heading, figures.curve_figure(curves, unit, level), note))
    if drawn and 1 < len(folds) <= figures.MOST_NAMES:
        drawn.append(draw('', figures.legend_figure(folds)))
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
            note = f'Dashed: clean, {percent(uar)} %; dotted: chance, {percent(level)} %.'
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
    table = _table(titles, rows, summary=f'All {len(rows)} conditions')
    return _section('Other conditions', drawn, [table])


def _reliability(clean: _Clean, calibration: Mapping | None, draw) -> dict:
    found = clean.predictions
    confidence, right = found.probabilities.max(1), found.prediction == found.label
    error = rates.expected_calibration_error(found.probabilities, found.label, _BINS)
    note = f'Expected calibration error {percent(error)} % ({_BINS} bins). '
    calibrated = (calibration or {}).get('ece_calibrated')
    if calibrated is not None:
        note += f'{percent(calibrated)} % with a temperature fitted on the validation speakers of each fold. '
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
        figure = figures.map_figure(points, names, tested)
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


def errors_tables(
    predictions: Predictions, labels: Sequence[str], records: Corpus | None
) -> list[dict]:
    """The worst errors as a table; none if there are none.

    Args:
        predictions: predictions for clean speech.
        labels: K class names.
        records: waveforms of the corpus, to embed the recordings; None to leave them out.

    Raises:
        UserError: the corpus lacks an utterance.
    """
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
    return [_table(head, rows, 2 if predictions.rated else 4, sounds=sounds)] if rows else []


def _overview(systems, runs) -> dict:
    """All runs in one table."""
    rows = []
    for system, run in zip(systems, runs):
        card = run.card
        title = f'{card["system"]}, seed {card["seed"]}'
        corpus = card['corpus'] + (' (SYNTHETIC)' if card['synthetic'] else '')
        time = duration(card['cost'].get('train_seconds'))
        for name, found in [*card['conditions'].items()] or [('validation only', None)]:
            if found and not name.startswith('clean'):
                continue
            shown = ['–'] * 5
            if found:
                uar, wa, f1 = (percent(found[key]) for key in ('uar', 'wa', 'macro_f1'))
                shown = [found['n'], uar, interval(found['uar_ci95']), wa, f1]
            rows.append((system, title, corpus, name, *shown, time))
    shown = ('n', 'UAR %', '95 % interval', 'accuracy %', 'macro-F1 %', 'training')
    (section,) = _section(
        'Runs', tables=[_table(('', 'run', 'corpus', 'condition', *shown), rows, 4)]
    )
    return section


def _comparison(result) -> dict:
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
            shown = percent(found['uar_a']), percent(found['uar_b'])
            difference = percent(found['difference'], signed=True)
            rows.append((name, *shown, difference, bounds, f'{found["p"]:.3g}'))
        else:
            rows.append((name, percent(found['uar']), bounds))
    middle = ('A', 'B', 'A − B') if two else ('',)
    return {
        'heading': f'{"Comparison" if two else "Over seeds"}: {result["condition"]}',
        'warnings': result['warnings'],
        'table': _table(('UAR in percent', *middle, '95 % interval', *['p'] * two), rows),
    }
