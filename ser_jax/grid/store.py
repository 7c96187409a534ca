"""Stores the finished runs of a grid in one folder (see `runs.stored`) and checks that its numbers follow from the predictions."""

import io
import math
import shlex
from collections.abc import Iterator
from pathlib import Path

from ser_jax.config import as_json, compared
from ser_jax.evaluation.summary import summarise
from ser_jax.grid import plan, rows, tables
from ser_jax.grid.plan import Grid, Run
from ser_jax.metrics import rates
from ser_jax.runs import finished, stored
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import replacing
from ser_jax.runtime.text import percent

_LARGEST_FIGURE = 150_000  # bytes
_COLOURS = (256, 128, 64, 32, 16)  # of a figure; tried in this order
_ECE_TOLERANCE = 1e-3  # half a digit and the rounding of the probabilities
_UNITS = {'n': str, 'redrawn': str, 'confusion': str, 'ccc': '{:.3f}'.format}  # others: percent


def store(grid: Grid, workdir: Path, folder: Path) -> str:
    """Adds the finished runs of a grid to a folder of stored runs and writes its tables and figures.

    Args:
        grid: grid of the runs.
        workdir: folder of the grid.
        folder: stored runs; those that are finished in `workdir` are replaced, the others stay.

    Returns:
        Number of stored runs, as text.

    Raises:
        UserError: no run is finished, one is damaged or of another config; nothing is written then.
    """
    done = [run for run in grid.runs if finished.find_card(workdir / run.folder)]
    if not done:
        raise UserError(f'{workdir} holds no finished run of the grid {grid.name}')
    runs = {}
    if stored.exists(folder):
        before = stored.read(folder)
        runs = {name: before.run(name) for name in before.names}
    for run in done:
        *command, _ = run.command(Path('runs/grids') / grid.name)  # the last one is --workdir
        runs[run.folder] = _read(run, workdir / run.folder, shlex.join(command))
    planned = {run.folder: run for run in grid.runs}
    for name, one in runs.items():
        if name not in planned:
            raise UserError(f'{folder} holds {name}, which is not in the grid {grid.name}')
        _check_config(planned[name], one.card, folder / name)
    stored.write(folder, {name: runs[name] for name in planned if name in runs})
    return write_tables(grid, folder)


def _read(run: Run, folder: Path, command: str) -> stored.StoredRun:
    card = finished.read_card(folder)
    predictions = {name: finished.read_condition(folder, name) for name in card['conditions']}
    for name, result in card['conditions'].items():
        n = len(predictions[name][0].id)
        if n != result['n']:
            raise UserError(f'{folder}: {name} has {n} predictions, results.json {result["n"]}')
    return stored.StoredRun(card, command, predictions)


def _check_config(run: Run, card: dict, where: Path) -> None:
    planned = compared(as_json(run.config)) | {'seed': run.seed}
    ran = card.get('config', {}) | {'seed': card['seed']}
    for name in ran.keys() & planned.keys():  # config fields may have been added since
        if ran[name] != planned[name] and not (run.source and name == 'attack_source'):
            raise UserError(
                f'{where} is of another grid: {name} is {ran[name]} there, {planned[name]} in this one'
            )


def write_tables(grid: Grid, folder: Path) -> str:
    """Writes the tables and figures of stored runs into their folder; returns the number of stored runs, as text."""
    text = summary(grid, folder)
    tables.write_tables(rows.make_rows(grid, folder), grid, text, folder)
    for path in folder.glob('*.png'):
        shrink(path)
    return text


def summary(grid: Grid, folder: Path) -> str:
    """Number of stored runs, as text."""
    names = set(stored.read(folder).names)
    count = sum(run.folder in names for run in grid.runs)
    return grid.summary(count)


def shrink(path: Path) -> None:
    """Reduces a PNG file to as few colours as keep it below 150 kB."""
    from PIL import Image  # comes with matplotlib; imported here: slow

    with Image.open(path) as image:
        image = image.convert('RGB')
    for colours in _COLOURS:
        file = io.BytesIO()
        # Median cut would merge the colours of thin lines.
        few = image.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few.save(file, 'PNG', optimize=True)
        if file.tell() <= _LARGEST_FIGURE:
            break
    with replacing(path) as temporary:
        temporary.write_bytes(file.getvalue())


def check(folder: Path) -> list[str]:
    """Recomputes the test results of stored runs from their predictions, and the tables of a grid from its cards.

    A folder with `rows.csv` holds the grid `configs/grids/<name of the folder>.py`. Returns the differences, one line each; one
    of them may say that the cards of a grid do not go together.

    Raises:
        UserError: cards or predictions that are missing or malformed.
    """
    store = stored.read(folder)
    lines = [line for name in store.names for line in _check_run(store, name)]
    if (folder / 'rows.csv').exists():
        try:
            lines += _check_tables(folder, read_grid(folder))
        except UserError as error:
            lines.append(str(error))  # cards that do not go together; the lines before may say why
    return lines


def read_grid(folder: Path) -> Grid:
    """The grid of stored runs."""
    return plan.read_grid(f'configs/grids/{folder.resolve().name}.py')


def _check_run(store: stored.Store, name: str) -> Iterator[str]:
    """Compares a card with the predictions."""
    card = store.card(name)
    for condition, result in card['conditions'].items():
        predictions, labels = store.predictions(name, condition)
        made = summarise(predictions, labels)
        # The stored order of the utterances is another one.
        by_fold = lambda folds: {fold['fold']: fold for fold in folds}
        pairs = [(field, result[field], value) for field, value in made.items() if field in result]
        pairs = [pair for pair in pairs if pair[0] != 'folds']
        folds, again = by_fold(result['folds']), by_fold(made['folds'])
        pairs += [
            (f'{rate} of {fold}', folds.get(fold, {}).get(rate), again.get(fold, {}).get(rate))
            for fold in folds | again
            for rate in ('n', 'uar', 'wa')
        ]
        if condition in card.get('calibration', {}):
            ece = card['calibration'][condition].get('ece')
            found = rates.expected_calibration_error(predictions.probabilities, predictions.label)
            if ece is not None and abs(found - ece) > _ECE_TOLERANCE:
                pairs.append(('ece', ece, found))
        for field, before, after in pairs:
            before, after = (_printed(field, value) for value in (before, after))
            if before != after:
                yield (
                    f'{store.folder / name}, {condition}: {field} is {before} in {stored.CARDS}, '
                    f'{after} from {stored.PREDICTIONS}'
                )


def _printed(field: str, value) -> str:
    """A value of a card as tables print it."""
    show = _UNITS.get(field.partition('_')[0].partition(' ')[0], percent)
    if field == 'confusion' or value is None:
        return str(value)
    if isinstance(value, dict):
        return ' '.join(f'{name} {percent(rate)}' for name, rate in value.items())
    if isinstance(value, list | tuple):
        return ' – '.join('–' if bound is None else show(bound) for bound in value)
    return show(value)


def _check_tables(folder: Path, grid: Grid) -> Iterator[str]:
    """Compares the tables of a grid with those that its stored runs make."""
    found = rows.make_rows(grid, folder)
    for name, text in tables.as_markdown(found, grid, summary(grid, folder)).items():
        yield from _differences(folder / name, text.splitlines())
    kept = rows.read_csv(folder / 'rows.csv')
    if len(kept) != len(found):
        yield f'{folder}/rows.csv has {len(kept)} rows, not {len(found)}'
    for before, after in zip(kept, found):
        where = ', '.join(after[name] for name in ('setting', 'condition', 'variant'))
        for column, value in after.items():
            if not _same(before.get(column), value):
                yield f'{folder}/rows.csv: {where}: {column} is {before.get(column)}, not {value}'


def _differences(path: Path, expected: list[str]) -> Iterator[str]:
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    if len(lines) != len(expected):
        yield f'{path} has {len(lines)} lines, not {len(expected)}'
    for number, (line, other) in enumerate(zip(lines, expected), 1):
        if line != other:
            yield f'{path}:{number} is {line!r}, not {other!r}'


def _same(before, after) -> bool:
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=1e-6, abs_tol=1e-9)
    return before == after
