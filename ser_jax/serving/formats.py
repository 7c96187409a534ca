"""How predictions of recordings are printed: as a table, as csv, as one JSON object a line.

Each is a function (tasks, whether windows are shown) -> write(path, answer), which may print a header at once.
"""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

from ser_jax.data.tasks import Task
from ser_jax.runtime.errors import printable
from ser_jax.serving.predictor import Answer

_NONE = '–'

Writer = Callable[[Path, Answer], None]


def table(tasks: tuple[Task, ...], windows: bool) -> Writer:
    """For reading; a window's time stands behind the file."""
    columns = _columns(tasks)
    width = max(9, *(len(title) for *_, title in columns), *(len(task.name) for task in tasks))
    heads = [f'{task.name:<{width}}' for task in tasks]
    print('  '.join([*heads, *(f'{title:>{width}}' for *_, title in columns), 'file']))

    def row(answer, name):
        best = [answer.best(task) for task in tasks]
        cells = [f'{_NONE if said is None else said:<{width}}' for said in best]
        for task, label, _ in columns:
            shares = answer.probabilities(task)
            share = f'{100 * shares[label]:.1f} %' if shares else _NONE
            cells.append(f'{share:>{width}}')
        flags = f'  ({", ".join(answer.flags)})' if answer.flags else ''
        print(printable('  '.join([*cells, name + flags])))

    def write(path, answer):
        name = str(path).replace('\n', '\\n')
        row(answer, name)
        for part in answer.windows if windows else ():
            row(part, f'{name} {part.start:.1f}–{part.end:.1f} s')

    return write


def comma_separated(tasks: tuple[Task, ...], windows: bool) -> Writer:
    """For spreadsheets; `start` and `end` in seconds, a window's row behind its recording's."""
    columns = _columns(tasks)
    writer = csv.writer(sys.stdout, lineterminator='\n')
    titles = [title.replace(' ', '_') for *_, title in columns]
    writer.writerow(['file', 'start', 'end', *(task.name for task in tasks), *titles, 'flags'])

    def write(path, answer):
        for part in (answer, *(answer.windows if windows else ())):
            best = [part.best(task) for task in tasks]  # None is written as nothing
            said = {task.name: part.probabilities(task) for task, *_ in columns}
            shares = [
                f'{said[task.name][label]:.6f}' if said[task.name] else ''
                for task, label, _ in columns
            ]
            times = [f'{part.start:.3f}', f'{part.end:.3f}']
            writer.writerow([path, *times, *best, *shares, ' '.join(part.flags)])

    return write


def json_lines(tasks: tuple[Task, ...], windows: bool) -> Writer:
    """For programs; null where nothing can be told."""
    told = [task for task in tasks if task.kind == 'classification']

    def content(answer):
        result = {task.name: answer.best(task) for task in tasks}
        if told:
            shares = {task.name: answer.probabilities(task) for task in told}
            result['probabilities'] = shares if len(tasks) > 1 else shares[told[0].name]
        return result | {'flags': list(answer.flags)}

    def write(path, answer):
        line = {'file': str(path), 'seconds': round(answer.end, 3), **content(answer)}
        if windows:
            line['windows'] = [
                {'start': round(part.start, 3), 'end': round(part.end, 3), **content(part)}
                for part in answer.windows
            ]
        print(json.dumps(line))

    return write


FORMATS = {'table': table, 'csv': comma_separated, 'json': json_lines}


def _columns(tasks: tuple[Task, ...]) -> list[tuple[Task, str, str]]:
    """(task, class, title) of every probability: `happy`, or, with several tasks, `arousal high`."""
    title = lambda task, label: label if len(tasks) == 1 else f'{task.name} {label}'
    return [
        (task, label, title(task, label))
        for task in tasks
        if task.kind == 'classification'
        for label in task.classes
    ]
