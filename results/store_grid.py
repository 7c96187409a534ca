"""Stores the finished runs of grids in this folder and writes their tables and figures: `python results/store_grid.py NAME… [--workdir FOLDER]`

NAME        name of a file in `configs/grids/`
--results   folder of the stored runs; default this one
--workdir   folder of the grid: card, predictions and command line of its finished runs are copied to
            `results/NAME/SETTING-VARIANT-seedK/` first. Without it, tables and figures are regenerated
            from the stored runs.

`python results/make_tables.py` inserts the tables into the pages.
"""

import argparse
import contextlib
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this clone's ser_jax, not the installed one

from ser_jax.config import as_json, compared  # noqa: E402
from ser_jax.grid import rows, tables  # noqa: E402
from ser_jax.grid.plan import Grid, Run, read_grid  # noqa: E402
from ser_jax.runs import finished  # noqa: E402
from ser_jax.runs.predictions import read_predictions  # noqa: E402
from ser_jax.runtime.errors import UserError  # noqa: E402


def copy_runs(grid: Grid, workdir: Path, stored: Path) -> None:
    """Copies card and predictions of every run that has a card, and writes its command line without `--workdir`.

    Args:
        grid: grid of the runs.
        workdir: folder of the grid.
        stored: folder of the copies; existing ones are replaced, each as a whole.

    Raises:
        UserError: no run has a card, or one is damaged or of another grid; nothing is copied then.
    """
    done = [run for run in grid.runs if (workdir / run.folder / 'results.json').exists()]
    if not done:
        raise UserError(f'{workdir} holds no finished run of the grid {grid.name}')
    predictions = {run: _checked_predictions(run, workdir / run.folder) for run in done}
    for run in done:
        here = stored / _stored_name(run)
        copy = here.with_name(f'{here.name}.tmp')
        shutil.rmtree(copy, ignore_errors=True)
        (copy / 'predictions').mkdir(parents=True)
        shutil.copy(workdir / run.folder / 'results.json', copy)
        for path in predictions[run]:
            shutil.copy(path, copy / 'predictions')
        *command, _ = run.command(Path('runs/grids') / grid.name)
        (copy / 'command.txt').write_text(shlex.join(command) + '\n', encoding='utf-8')
        if here.exists():
            shutil.rmtree(here)
        copy.rename(here)


def write_tables(grid: Grid, stored: Path) -> str:
    """Writes the tables and figures of a grid beside its stored runs.

    Args:
        grid: grid of the runs.
        stored: folder that `copy_runs` filled.

    Returns:
        Number of stored runs, as text.

    Raises:
        UserError: no run is stored, one is damaged or of another grid, or seeds of a variant were tested differently.
    """
    done = [run for run in grid.runs if (stored / _stored_name(run)).is_dir()]
    if not done:
        raise UserError(f'{stored} holds no run of the grid {grid.name}')
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder).resolve()  # laid out as a grid's folder
        for run in done:
            _checked_predictions(run, stored / _stored_name(run))
            (workdir / run.folder).parent.mkdir(parents=True, exist_ok=True)
            (workdir / run.folder).symlink_to((stored / _stored_name(run)).resolve())
        table = rows.make_rows(grid, workdir)
    summary = f'{len(done)} of {len(grid.runs)} runs are finished'
    tables.write_tables(table, grid, summary, stored)
    return summary


def _stored_name(run: Run) -> str:
    return f'{run.setting}-{run.variant}-seed{run.seed}'


def _checked_predictions(run: Run, folder: Path) -> list[Path]:
    """The prediction files of a run, one per condition of its card.

    Raises:
        UserError: card or predictions are missing, damaged, or of another config than the grid's.
    """
    card = finished.read_card(folder)
    planned = compared(as_json(run.config)) | {'seed': run.seed}
    ran = card.get('config', {}) | {'seed': card['seed']}
    for name in ran.keys() & planned.keys():  # config fields may have been added since
        if ran[name] != planned[name] and not (run.source and name == 'attack_source'):
            raise UserError(
                f'{folder} is of another grid: {name} is {ran[name]} there, {planned[name]} in this one'
            )
    files = []
    for name, result in card['conditions'].items():
        files.append(folder / 'predictions' / f'{name}.csv')
        n = len(read_predictions(files[-1])[0].id)
        if n != result['n']:
            raise UserError(f'{files[-1]} has {n} utterances, results.json {result["n"]}')
    return files


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('names', nargs='+', metavar='NAME')
    parser.add_argument('--workdir', type=Path)
    parser.add_argument('--results', type=Path, default=ROOT / 'results')
    options = parser.parse_args(arguments)
    if options.workdir and len(options.names) > 1:
        parser.error('--workdir takes one NAME only')
    workdir, results = options.workdir and options.workdir.resolve(), options.results.resolve()
    try:
        with contextlib.chdir(ROOT):  # grid files name their configs relative to it
            grids = {name: read_grid(f'configs/grids/{name}.py') for name in options.names}
        for name, grid in grids.items():
            if workdir:
                copy_runs(grid, workdir, results / name)
            summary = write_tables(grid, results / name)
            print(f'{results / name}: table.md, table.csv and figures: {summary}')
    except (UserError, OSError) as error:
        print(f'store_grid: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
