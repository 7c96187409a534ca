"""Keeps the finished runs of grids in this folder and makes tables and figures from what is kept: `python results/store_grid.py NAME… [--workdir FOLDER]`

NAME        of a file in `configs/grids/`
--workdir   of the grid, where it has run: its finished runs are copied first, the card, the predictions and
            the command line of each to `results/NAME/SETTING-VARIANT-seedK/`. Without it the tables and
            figures are made anew from what is kept.

`python results/make_tables.py` puts the tables on the pages.
"""

import argparse
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from ser_jax import finished, grid_rows, grid_table
from ser_jax.errors import UserError
from ser_jax.grid_plan import Grid, Run, read_grid

ROOT = Path(__file__).resolve().parent.parent


def copy_runs(grid: Grid, workdir: Path, kept: Path) -> None:
    """Copies card and predictions of every run that has a card, and writes its command line without `--workdir`.

    Args:
        grid: the grid.
        workdir: where it has run.
        kept: folder of the copies.

    Raises:
        UserError: no run has a card, or one is damaged.
    """
    done = [run for run in grid.runs if (workdir / run.folder / 'results.json').exists()]
    if not done:
        raise UserError(f'{workdir} holds no finished run of the grid {grid.name}')
    for run in done:
        finished.read_card(workdir / run.folder)
    for run in done:
        there, here = workdir / run.folder, kept / _kept_name(run)
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        shutil.copy(there / 'results.json', here)
        # Of the whole test, not of its folds.
        (here / 'predictions').mkdir()
        for path in (there / 'predictions').glob('*.csv'):
            shutil.copy(path, here / 'predictions')
        *command, _ = run.command(Path('runs/grids') / grid.name)
        (here / 'command.txt').write_text(shlex.join(command) + '\n', encoding='utf-8')


def write_tables(grid: Grid, kept: Path) -> None:
    """Writes the tables and figures of a grid beside its runs.

    Args:
        grid: the grid.
        kept: folder of the runs, of `copy_runs`.

    Raises:
        UserError: none is kept, one is damaged, or seeds of a variant were not tested alike.
    """
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder).resolve()  # a grid's own layout
        done = [run for run in grid.runs if (kept / _kept_name(run)).is_dir()]
        for run in done:
            (workdir / run.folder).parent.mkdir(parents=True, exist_ok=True)
            (workdir / run.folder).symlink_to((kept / _kept_name(run)).resolve())
        rows = grid_rows.make_rows(grid, workdir)
    if not rows:
        raise UserError(f'{kept} holds no run of the grid {grid.name}')
    summary = f'{len(done)} of {len(grid.runs)} runs are finished'
    grid_table.write_tables(rows, grid, summary, kept)


def _kept_name(run: Run) -> str:
    return f'{run.setting}-{run.variant}-seed{run.seed}'


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('names', nargs='+', metavar='NAME')
    parser.add_argument('--workdir', type=Path)
    parser.add_argument('--results', type=Path, default=ROOT / 'results')
    options = parser.parse_args(arguments)
    if options.workdir and len(options.names) > 1:
        parser.error('--workdir is of one grid')
    try:
        for name in options.names:
            grid = read_grid(str(ROOT / f'configs/grids/{name}.py'))
            if options.workdir:
                copy_runs(grid, options.workdir, options.results / name)
            write_tables(grid, options.results / name)
            print(f'{options.results / name}: table.md, table.csv and pictures')
    except (UserError, OSError) as error:
        print(f'store_grid: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
