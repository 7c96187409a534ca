"""Keeps the finished runs of grids in this folder and makes tables and figures from what is kept: `python results/store_grid.py NAME… [--workdir FOLDER]`

NAME        of a file in `configs/grids/`
--results   folder to keep them in; default this one
--workdir   of the grid, where it has run: its finished runs are copied first, the card, the predictions and
            the command line of each to `results/NAME/SETTING-VARIANT-seedK/`. Without it the tables and
            figures are made anew from what is kept.

`python results/make_tables.py` puts the tables on the pages.
"""

import argparse
import contextlib
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this clone's, whichever is installed

from ser_jax.config import as_json, compared  # noqa: E402
from ser_jax.grid import rows as grid_rows  # noqa: E402
from ser_jax.grid import tables  # noqa: E402
from ser_jax.grid.plan import Grid, Run, read_grid  # noqa: E402
from ser_jax.runs import finished  # noqa: E402
from ser_jax.runs.predictions import read_predictions  # noqa: E402
from ser_jax.runtime.errors import UserError  # noqa: E402


def copy_runs(grid: Grid, workdir: Path, kept: Path) -> None:
    """Copies card and predictions of every run that has a card, and writes its command line without `--workdir`.

    Args:
        grid: the grid.
        workdir: where it has run.
        kept: folder of the copies; a run that is there already is replaced, whole or not at all.

    Raises:
        UserError: no run has a card, or one of them is damaged or of another grid; then nothing is copied.
    """
    done = [run for run in grid.runs if (workdir / run.folder / 'results.json').exists()]
    if not done:
        raise UserError(f'{workdir} holds no finished run of the grid {grid.name}')
    predictions = {run: _checked_predictions(run, workdir / run.folder) for run in done}
    for run in done:
        here = kept / _kept_name(run)
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


def write_tables(grid: Grid, kept: Path) -> str:
    """Writes the tables and figures of a grid beside its runs.

    Args:
        grid: the grid.
        kept: folder of the runs, of `copy_runs`.

    Returns:
        How many of its runs are kept.

    Raises:
        UserError: no run is kept, one is damaged or of another grid, or seeds of a variant were not tested alike.
    """
    done = [run for run in grid.runs if (kept / _kept_name(run)).is_dir()]
    if not done:
        raise UserError(f'{kept} holds no run of the grid {grid.name}')
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder).resolve()  # a grid's own layout
        for run in done:
            _checked_predictions(run, kept / _kept_name(run))
            (workdir / run.folder).parent.mkdir(parents=True, exist_ok=True)
            (workdir / run.folder).symlink_to((kept / _kept_name(run)).resolve())
        rows = grid_rows.make_rows(grid, workdir)
    summary = f'{len(done)} of {len(grid.runs)} runs are finished'
    tables.write_tables(rows, grid, summary, kept)
    return summary


def _kept_name(run: Run) -> str:
    return f'{run.setting}-{run.variant}-seed{run.seed}'


def _checked_predictions(run: Run, folder: Path) -> list[Path]:
    """The files of predictions of a run, one for every condition of its card.

    Raises:
        UserError: card or predictions are missing or damaged, or of another config than the grid's.
    """
    card = finished.read_card(folder)
    asked = compared(as_json(run.config)) | {'seed': run.seed}
    told = card.get('config', {}) | {'seed': card['seed']}
    for name in told.keys() & asked.keys():  # the program may have got further fields since
        if told[name] != asked[name] and not (run.source and name == 'attack_source'):
            raise UserError(
                f'{folder} is of another grid: {name} is {told[name]} there, {asked[name]} in this one'
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
        parser.error('--workdir is of one grid')
    workdir, results = options.workdir and options.workdir.resolve(), options.results.resolve()
    try:
        with contextlib.chdir(ROOT):  # grids name their configs from there
            grids = {name: read_grid(f'configs/grids/{name}.py') for name in options.names}
        for name, grid in grids.items():
            if workdir:
                copy_runs(grid, workdir, results / name)
            told = write_tables(grid, results / name)
            print(f'{results / name}: table.md, table.csv and pictures: {told}')
    except (UserError, OSError) as error:
        print(f'store_grid: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
