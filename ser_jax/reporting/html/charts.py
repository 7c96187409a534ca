"""The figures of a run's page: confusion matrices, speakers, learning curves, robustness, calibration, map."""

from collections.abc import Mapping, Sequence

import numpy as np

from ser_jax.metrics import rates
from ser_jax.reporting.figures import of_task, robustness_panels
from ser_jax.reporting.html import svg
from ser_jax.reporting.html.markup import element, table
from ser_jax.reporting.html.svg import PERCENT_TICKS, Axis, Series
from ser_jax.reporting.text import interval, percent, speaker_prefix
from ser_jax.runs.predictions import Predictions

_BINS = 10  # confidence bins
_MOST_POINTS = 4000  # points of a map; more would only make the page larger
_MOST_NAMES = 28  # distinguishable by colour and shape


def figure(heading: str, *parts, note: str = ''):
    """A figure with heading and caption."""
    note = element('figcaption', note) if note else None
    return element('figure', element('h3', heading), *parts, note)


def confusion(heading: str, result: Mapping):
    """The confusion matrix of a result: row percent as colour and number, counts below.

    Args:
        heading: figure heading.
        result: result of a condition in the card.
    """
    labels = list(result['recall'])
    rows = []
    for number, (label, counts) in enumerate(zip(labels, result['confusion'])):
        total, cells = sum(counts), []
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            cells.append(
                element(
                    'td',
                    f'{100 * share:.0f} %' if total else '–',
                    element('small', count),
                    class_='cell own' if number == column else 'cell',
                    style=f'--share: {share:.3f}',
                )
            )
        rows.append((element('th', label, scope='row'), total, *cells))
    head = ('true ↓ predicted →', 'n', *labels)
    return figure(heading, table(head, rows, class_='confusion'))


def speakers(heading: str, predictions: Predictions, labels: Sequence[str]):
    """UAR and accuracy of every speaker; None if all are unknown.

    Args:
        heading: figure heading.
        predictions: predictions for clean speech.
        labels: K class names.
    """
    known = predictions.speaker != ''
    names = sorted(set(predictions.speaker[known].tolist()))
    if not names:
        return None
    by_speaker = rates.confusion_by_speaker(
        predictions.label[known],
        predictions.prediction[known],
        predictions.speaker[known],
        len(labels),
    )
    skip, rows = speaker_prefix(names), []
    for name, counts in zip(names, by_speaker):
        rate = float(rates.uar(counts))
        rows.append(
            (
                element('td', name[skip:], class_='speaker'),
                _bar(rate),
                percent(rate),
                percent(float(rates.wa(counts))),
                counts.sum(),
            )
        )
    per_column = -(-len(rows) // min(3, -(-len(rows) // 12)))
    head = ('speaker', 'UAR, 0 to 100\u00a0%', '%', 'accuracy\u00a0%', 'n')
    tables = [
        table(head, rows[start : start + per_column], texts=2)
        for start in range(0, len(rows), per_column)
    ]
    unknown = int((~known).sum())
    note = "UAR over the classes of the speaker's utterances."
    note += f' {unknown} utterances of unknown speakers are left out.' if unknown else ''
    return figure(heading, element('div', *tables, class_='panels wide'), note=note)


def learning_curves(rows: Sequence[Mapping], chance: float | None) -> list:
    """Training loss and validation scores over the steps, one line per fold.

    Args:
        rows: rows of metrics.jsonl.
        chance: chance level of the UAR; None = unknown.

    Returns:
        Figures; none without metrics.
    """
    folds = list(dict.fromkeys(row['fold'] for row in rows))
    found = []
    for field, heading, unit in (
        ('loss', 'Training loss', 'loss, mean since the last point'),
        ('validation_uar', 'Validation UAR', 'UAR, %'),
        ('validation_ccc', 'Validation CCC', 'CCC'),
    ):
        scale = 100 if field == 'validation_uar' else 1
        series = []
        for number, fold in enumerate(folds):
            own = [row for row in rows if row['fold'] == fold]
            points = [(row['step'], scale * row[field]) for row in own if _finite(row.get(field))]
            series.append(Series(fold, points, number, marks=len(points) < 30))
        series = [one for one in series if one.points]
        if not series:
            continue
        steps, values = zip(*(point for one in series for point in one.points))
        x = svg.axis_of('training step', [0, *steps])._replace(low=0)
        y = svg.axis_of(unit, values)
        lines = []
        if field == 'validation_uar':
            y = Axis(unit, 0, 100, PERCENT_TICKS)
            lines = [[(0, 100 * chance), (x.high, 100 * chance)]] if chance else []
        picture = svg.chart(series, x, y, f'{heading} of {len(series)} folds', references=lines)
        names = svg.legend(series) if len(series) <= _MOST_NAMES else None
        found.append(figure(heading, picture, names, note='Dashed: chance.' if lines else ''))
    return found


def _finite(value) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def robustness(results: Mapping[str, Mapping], suffix: str) -> list:
    """UAR against the level of noise and attacks, and under the other corruptions.

    Args:
        results: name -> result of a card.
        suffix: '' for the emotion, else `_<task>`.

    Returns:
        Figures; none without such conditions.
    """
    own = of_task(results, suffix)
    clean, found = own.get('clean'), []
    about = f': {suffix[1:]}' if suffix else ''
    for heading, lines in robustness_panels(own).items():
        if not heading.startswith(('SNR', 'epsilon')):
            found.append(_corruptions(f'UAR under corruptions{about}', lines['']))
            continue
        levels = sorted({point[0] for points in lines.values() for point in points})
        x = _levels(heading, levels)
        series = [
            Series(name, [_in_percent(point, x) for point in points], number)
            for number, (name, points) in enumerate(lines.items())
        ]
        rate = 100 * clean['uar'] if clean else None
        references = [[(x.low, rate), (x.high, rate)]] if clean else []
        y = Axis('UAR, %', 0, 100, PERCENT_TICKS)
        title = f'UAR against {heading}{about}'
        picture = svg.chart(series, x, y, title, references=references)
        note = 'Bars: 95 % interval over speakers.'
        note += f' Dashed: clean, {rate:.1f} %.' if clean else ''
        found.append(figure(title, picture, svg.legend(series), note=note))
    return found


def _corruptions(title, points):
    rows = [
        (name, _bar(rate), percent(rate), interval(bounds))
        for name, rate, bounds in sorted(points, key=lambda point: point[1])
    ]
    head = ('corruption', '0 to 100\u00a0%', 'UAR\u00a0%', '95\u00a0% interval')
    return figure(title, table(head, rows, texts=2))


def _bar(rate):
    """A cell with a bar that shows a fraction."""
    bar = element('div', element('div', '', style=f'--share: {rate:.3f}'))
    return element('td', bar, class_='bar')


def _levels(heading: str, levels: list) -> Axis:
    if heading.startswith('SNR') or levels[-1] <= 0:
        room = 0.06 * ((levels[-1] - levels[0]) or 1)
        ticks = [(level, f'{level:g}') for level in levels]
        return Axis(heading, levels[0] - room, levels[-1] + room, ticks)
    # Epsilons differ by factors; 0 is drawn at a third of the smallest.
    smallest = min(level for level in levels if level > 0)
    ticks = [(max(level, smallest / 3), f'{level:g}') for level in levels]
    return Axis(heading, ticks[0][0] / 1.3, levels[-1] * 1.3, ticks, logarithmic=True)


def _in_percent(point, x):
    level, rate, bounds = point
    bounds = tuple(None if bound is None else 100 * bound for bound in bounds)
    return max(level, x.low * 1.3) if x.logarithmic else level, 100 * rate, bounds


def reliability(heading: str, predictions: Predictions, calibration: Mapping | None):
    """Reliability diagram: accuracy against confidence, with the expected calibration error.

    Args:
        heading: figure heading.
        predictions: predicted class probabilities for clean speech.
        calibration: entry of the card for these predictions; None = unknown.
    """
    right = predictions.prediction == predictions.label
    bins = rates.confidence_bins(predictions.probabilities.max(1), right, _BINS)
    error = rates.expected_calibration_error(predictions.probabilities, predictions.label, _BINS)
    points = [*zip(100 * bins.confidence, 100 * bins.accuracy)]
    bars = [*zip(100 * bins.lower, 100 * bins.lower + 100 / _BINS, 100 * bins.share)]
    x = Axis('confidence: probability of the predicted class, %', 0, 100, PERCENT_TICKS)
    y = Axis('accuracy, %', 0, 100, PERCENT_TICKS)
    picture = svg.chart(
        [Series('', points)], x, y, heading, references=[[(0, 0), (100, 100)]], bars=bars
    )
    note = f'Expected calibration error {percent(error)} % ({_BINS} bins). '
    calibrated = (calibration or {}).get('ece_calibrated')
    if calibrated is not None:
        error = percent(calibrated)
        note += f'{error} % with a temperature fitted on the validation speakers of each fold. '
    note += 'Dashed: perfect calibration; grey: share of the utterances.'
    return figure(heading, picture, note=note)


def embedding_map(rows: Sequence[Mapping[str, str]]) -> list:
    """The map of a fold's utterances, coloured by emotion and by speaker.

    Args:
        rows: rows of report/embedding.csv.

    Returns:
        Two figures; none without rows.
    """
    if not rows:
        return []
    total = len(rows)
    if total > _MOST_POINTS:
        drawn = np.random.default_rng(0).choice(total, _MOST_POINTS, replace=False)
        rows = [rows[number] for number in sorted(drawn)]
    places = [(float(row['x']), float(row['y'])) for row in rows]
    # Both axes have the same scale, so that distances can be compared.
    spans = [(min(axis), max(axis)) for axis in zip(*places)]
    shape = svg.WIDTH / svg.HEIGHT
    reach = 0.53 * max((spans[0][1] - spans[0][0]) / shape, spans[1][1] - spans[1][0]) or 1.0
    x, y = (
        Axis(f'{name} main axis', sum(span) / 2 - room, sum(span) / 2 + room)
        for name, span, room in zip(('first', 'second'), spans, (reach * shape, reach))
    )
    found = []
    for field in ('emotion', 'speaker'):
        names = sorted({row[field] for row in rows})
        skip = speaker_prefix(names) if field == 'speaker' else 0
        series = []
        for tested in (False, True):  # test utterances on top
            for number, name in enumerate(names):
                chosen = [
                    place
                    for place, row in zip(places, rows)
                    if row[field] == name and (row['side'] == 'test') == tested
                ]
                title = name[skip:] or 'unknown'
                series.append(Series(title, chosen, number, line=False, pale=not tested))
        series = [one for one in series if one.points]
        picture = svg.chart(series, x, y, f'Map of {len(rows)} utterances by {field}')
        names = svg.legend(series) if len(names) <= _MOST_NAMES else None
        note = 'Strong: test; pale: training and validation.'
        note += '' if names is not None else ' Colours repeat.'
        note += f' Drawn: {len(rows)} of {total}, at random.' if len(rows) < total else ''
        found.append(figure(f'By {field}', picture, names, note=note))
    return found
