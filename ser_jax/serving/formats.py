"""Writes predictions as a table, CSV or JSON lines, and timelines also as TextGrids of Praat.

Each format is a function that takes a predictor and an open text file, writes a header where there is one, and returns
write(path, prediction) or write(path, timeline). CSV and JSON name the model.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from ser_jax.data.tasks import Task
from ser_jax.runtime.errors import printable
from ser_jax.runtime.files import csv_writer
from ser_jax.runtime.text import percent
from ser_jax.serving.predictor import Predictor
from ser_jax.serving.results import Prediction, Segment, Timeline

_NONE = '–'

Writer = Callable[[Path, Prediction], None]
SegmentWriter = Callable[[Path, Timeline], None]


# Predictions; the last argument tells whether to write windows.


def _table(predictor: Predictor, file: IO[str], windows: bool) -> Writer:
    """Aligned columns; the row of a window has its time behind the file."""
    tasks = predictor.tasks
    columns = _columns(tasks)
    width = max(9, *(len(title) for *_, title in columns), *(len(task.name) for task in tasks))
    heads = [f'{task.name:<{width}}' for task in tasks]
    print('  '.join([*heads, *(f'{title:>{width}}' for *_, title in columns), 'file']), file=file)

    def row(prediction, name):
        best = [prediction.best(task) for task in tasks]
        cells = [f'{_NONE if value is None else value:<{width}}' for value in best]
        for task, label, _ in columns:
            probabilities = prediction.probabilities(task)
            cell = f'{percent(probabilities[label])} %' if probabilities else _NONE
            cells.append(f'{cell:>{width}}')
        print(printable('  '.join([*cells, name + _in_brackets(prediction.flags)])), file=file)

    def write(path, prediction):
        row(prediction, str(path))
        for part in prediction.windows if windows else ():
            row(part, f'{path} {part.start:.1f}–{part.end:.1f} s')

    return write


def _csv(predictor: Predictor, file: IO[str], windows: bool) -> Writer:
    """CSV; `start` and `end` in seconds, the rows of windows after that of their recording."""
    tasks = predictor.tasks
    columns = _columns(tasks)
    writer = csv_writer(file)
    titles = [title.replace(' ', '_') for *_, title in columns]
    names = (task.name for task in tasks)
    writer.writerow(['file', 'start', 'end', *names, *titles, 'flags', 'model'])

    def write(path, prediction):
        for part in (prediction, *(prediction.windows if windows else ())):
            best = [part.best(task) for task in tasks]  # None becomes an empty cell
            probabilities = {task.name: part.probabilities(task) for task, *_ in columns}
            cells = [
                f'{probabilities[task.name][label]:.6f}' if probabilities[task.name] else ''
                for task, label, _ in columns
            ]
            times = [f'{part.start:.3f}', f'{part.end:.3f}']
            flags = ' '.join(part.flags)
            writer.writerow([path, *times, *best, *cells, flags, predictor.model])

    return write


def _json(predictor: Predictor, file: IO[str], windows: bool) -> Writer:
    """One JSON object a line; null where a flag suppresses the label."""
    tasks = predictor.tasks
    classifications = [task for task in tasks if task.kind == 'classification']

    def content(prediction):
        result = {task.name: prediction.best(task) for task in tasks}
        if classifications:
            by_task = {task.name: prediction.probabilities(task) for task in classifications}
            several = len(tasks) > 1
            result['probabilities'] = by_task if several else by_task[classifications[0].name]
        return result | {'flags': list(prediction.flags)}

    def write(path, prediction):
        line = {'file': str(path), 'seconds': round(prediction.end, 3), **content(prediction)}
        if windows:
            line['windows'] = [
                {'start': round(part.start, 3), 'end': round(part.end, 3), **content(part)}
                for part in prediction.windows
            ]
        print(json.dumps(line | {'model': predictor.model}), file=file)

    return write


FORMATS = {'table': _table, 'csv': _csv, 'json': _json}


# Timelines, of the classification `task`. A recording without segments has one row without a label in tables and CSV.


def _segment_table(predictor: Predictor, file: IO[str], task: Task) -> SegmentWriter:
    """Aligned columns, times in seconds."""
    width = max(map(len, (task.name, *task.classes)))
    print(f'{task.name:<{width}}  confidence     start       end  file', file=file)

    def write(path, timeline):
        for one in timeline.segments or [_without_label(timeline)]:
            label = one.label or _NONE
            confidence = f'{percent(one.confidence)} %' if one.label else _NONE
            cells = f'{label:<{width}}  {confidence:>10}  {one.start:8.2f}  {one.end:8.2f}  {path}'
            print(printable(cells + _in_brackets(one.flags)), file=file)

    return write


def _segment_csv(predictor: Predictor, file: IO[str], task: Task) -> SegmentWriter:
    """CSV, times in seconds."""
    writer = csv_writer(file)
    writer.writerow(['file', 'start', 'end', task.name, 'confidence', 'flags', 'model'])

    def write(path, timeline):
        for one in timeline.segments or [_without_label(timeline)]:
            confidence = f'{one.confidence:.6f}' if one.label else ''
            times, flags = (f'{one.start:.3f}', f'{one.end:.3f}'), ' '.join(one.flags)
            writer.writerow([path, *times, one.label, confidence, flags, predictor.model])

    return write


def _segment_json(predictor: Predictor, file: IO[str], task: Task) -> SegmentWriter:
    """One JSON object a line and recording."""

    def write(path, timeline):
        segments = [
            {
                'start': round(one.start, 3),
                'end': round(one.end, 3),
                task.name: one.label,
                'confidence': round(one.confidence, 6),
                'flags': list(one.flags),
            }
            for one in timeline.segments
        ]
        line = {'file': str(path), 'seconds': round(timeline.duration, 3), 'segments': segments}
        line |= {'flags': list(timeline.flags), 'detector': timeline.detector}
        print(json.dumps(line | {'model': predictor.model}), file=file)

    return write


def _textgrid(predictor: Predictor, file: IO[str], task: Task) -> SegmentWriter:
    """A TextGrid of Praat in its long text form, for one recording: a tier of labels, and one of their confidence."""

    def write(path, timeline):
        end, intervals = 0.0, []
        for one in timeline.segments:
            if one.start > end:
                intervals.append((end, one.start, '', ''))
            intervals.append((one.start, one.end, one.label, f'{one.confidence:.2f}'))
            end = one.end
        if timeline.duration > end:
            intervals.append((end, timeline.duration, '', ''))
        lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', '']
        lines += [*_span(0, timeline.duration), 'tiers? <exists>', 'size = 2', 'item []:']
        for number, (name, column) in enumerate(((task.name, 2), ('confidence', 3)), 1):
            lines += [f'    item [{number}]:', '        class = "IntervalTier"']
            lines += [f'        name = {_quoted(name)}', *_span(8, timeline.duration)]
            lines.append(f'        intervals: size = {len(intervals)}')
            for place, interval in enumerate(intervals, 1):
                lines += [f'        intervals [{place}]:', *_span(12, interval[1], interval[0])]
                lines.append(f'            text = {_quoted(interval[column])}')
        print('\n'.join(lines), file=file)

    return write


SEGMENT_FORMATS = {
    'table': _segment_table,
    'csv': _segment_csv,
    'json': _segment_json,
    'textgrid': _textgrid,
}


def _without_label(timeline: Timeline) -> Segment:
    return Segment(0.0, timeline.duration, '', math.nan, timeline.flags)


def _span(indent: int, end: float, start: float = 0.0) -> list[str]:
    """Lines of a TextGrid with both ends of an interval."""
    return [f'{" " * indent}xmin = {start:.6f}', f'{" " * indent}xmax = {end:.6f}']


def _quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""'))


def _in_brackets(flags: Sequence[str]) -> str:
    return f'  ({", ".join(flags)})' if flags else ''


def _columns(tasks: tuple[Task, ...]) -> list[tuple[Task, str, str]]:
    """(task, class, title) of every probability; the title is `happy`, or `arousal high` with several tasks."""
    title = lambda task, label: label if len(tasks) == 1 else f'{task.name} {label}'
    return [
        (task, label, title(task, label))
        for task in tasks
        if task.kind == 'classification'
        for label in task.classes
    ]
