"""Prints predictions as a table, as CSV, or as JSON lines.

Each format is a function (tasks, whether to show windows) -> write(path, prediction); it may print a header at once.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from ser_jax.data.tasks import Task
from ser_jax.runtime.errors import printable
from ser_jax.runtime.files import csv_writer
from ser_jax.runtime.text import percent
from ser_jax.serving.predictor import Prediction

_NONE = '–'

Writer = Callable[[Path, Prediction], None]


def table(tasks: tuple[Task, ...], windows: bool) -> Writer:
    """Aligned columns; the row of a window has its time behind the file."""
    columns = _columns(tasks)
    width = max(9, *(len(title) for *_, title in columns), *(len(task.name) for task in tasks))
    heads = [f'{task.name:<{width}}' for task in tasks]
    print('  '.join([*heads, *(f'{title:>{width}}' for *_, title in columns), 'file']))

    def row(prediction, name):
        best = [prediction.best(task) for task in tasks]
        cells = [f'{_NONE if value is None else value:<{width}}' for value in best]
        for task, label, _ in columns:
            probabilities = prediction.probabilities(task)
            cell = f'{percent(probabilities[label])} %' if probabilities else _NONE
            cells.append(f'{cell:>{width}}')
        flags = f'  ({", ".join(prediction.flags)})' if prediction.flags else ''
        print(printable('  '.join([*cells, name + flags])))

    def write(path, prediction):
        name = str(path).replace('\n', '\\n')
        row(prediction, name)
        for part in prediction.windows if windows else ():
            row(part, f'{name} {part.start:.1f}–{part.end:.1f} s')

    return write


def comma_separated(tasks: tuple[Task, ...], windows: bool) -> Writer:
    """CSV; `start` and `end` in seconds, the rows of windows after that of their recording."""
    columns = _columns(tasks)
    writer = csv_writer(sys.stdout)
    titles = [title.replace(' ', '_') for *_, title in columns]
    writer.writerow(['file', 'start', 'end', *(task.name for task in tasks), *titles, 'flags'])

    def write(path, prediction):
        for part in (prediction, *(prediction.windows if windows else ())):
            best = [part.best(task) for task in tasks]  # None becomes an empty cell
            probabilities = {task.name: part.probabilities(task) for task, *_ in columns}
            cells = [
                f'{probabilities[task.name][label]:.6f}' if probabilities[task.name] else ''
                for task, label, _ in columns
            ]
            times = [f'{part.start:.3f}', f'{part.end:.3f}']
            writer.writerow([path, *times, *best, *cells, ' '.join(part.flags)])

    return write


def json_lines(tasks: tuple[Task, ...], windows: bool) -> Writer:
    """One JSON object a line; null where a flag suppresses the label."""
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
        print(json.dumps(line))

    return write


FORMATS = {'table': table, 'csv': comma_separated, 'json': json_lines}


def _columns(tasks: tuple[Task, ...]) -> list[tuple[Task, str, str]]:
    """(task, class, title) of every probability; the title is `happy`, or `arousal high` with several tasks."""
    title = lambda task, label: label if len(tasks) == 1 else f'{task.name} {label}'
    return [
        (task, label, title(task, label))
        for task in tasks
        if task.kind == 'classification'
        for label in task.classes
    ]
