"""Runs a grid, settings × variants × seeds: python -m ser_jax.grid --config=configs/grids/NAME.py

--config    a grid file, e.g. configs/grids/demo.py, which shows how to write one
--workdir   the grid's folder; default runs/grids/NAME. The same folder again skips what is finished,
            resumes what was cut short and tries again what failed
--list      prints the runs and how far they are, runs nothing
--jobs      FILE to write the command line of every run to, for a scheduler; runs nothing
--share     K/N: only every Nth run from the Kth, e.g. 2/4 on the second of four machines that share
            the folder; default 1/1
--table     makes the table of what is finished, runs nothing

Ends in table.md, table.csv and pictures in the grid's folder.
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.listen('the same command goes on from here', seconds=9.5)

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ser_jax.grid.plan import Grid, Run, read_grid
from ser_jax.runtime.errors import UserError, faults_told
from ser_jax.runtime.files import local_path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f'error: {message}', file=sys.stderr)  # without the usage: one line
        sys.exit(2)


@faults_told()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 where a run failed, 2 for a wrong grid or flag."""
    options = _parse_flags(arguments)
    try:
        grid = read_grid(options.config)
        start, step = _parse_share(options.share)
        from ser_jax.grid import runs as grid_runs  # imports JAX: not for --help and wrong flags

        grid_runs.check_conditions(grid)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    mine = list(enumerate(grid.runs, 1))[start - 1 :: step]
    try:
        workdir = local_path(options.workdir or f'runs/grids/{grid.name}')
        grid_runs.check_grid(workdir, grid, write=False)
        if options.list:
            for number, run in mine:
                print(f'{number:>4}  {grid_runs.state(workdir, run):<8}  {run.folder}')
            return 0
        if options.jobs:
            grid_runs.check_grid(workdir, grid, write=True)
            return _write_jobs(Path(options.jobs), [run for _, run in mine], workdir)
        if options.table:
            return _report(grid, workdir, {})
        to_do = [run for _, run in mine if grid_runs.state(workdir, run) != 'finished']
        grid_runs.check_data(to_do)
        grid_runs.check_grid(workdir, grid, write=True)
        failures = grid_runs.run_all(mine, workdir, len(grid.runs))
        return _report(grid, workdir, failures)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1


def _parse_flags(arguments):
    parser = _Parser(allow_abbrev=False, add_help=False)
    for flag in ('--config', '--workdir', '--jobs'):
        parser.add_argument(flag)
    parser.add_argument('--share', default='1/1')
    for flag in ('--list', '--table'):
        parser.add_argument(flag, action='store_true')
    parser.add_argument('-h', '--help', action='store_true')
    options = parser.parse_args(arguments)
    if options.help:
        print(__doc__.strip())
        sys.exit(0)
    if not options.config:
        parser.error('--config is required, e.g. --config=configs/grids/demo.py')
    return options


def _parse_share(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'(\d+)/(\d+)', text)
    share = tuple(map(int, found.groups())) if found else (0, 0)
    if not 1 <= share[0] <= share[1]:
        raise UserError(f'--share={text}: it must be K/N with K from 1 to N, e.g. 2/4')
    return share


def _write_jobs(path: Path, runs: Sequence[Run], workdir: Path) -> int:
    try:
        lines = [shlex.join(run.command(workdir)) + '\n' for run in runs]
        path.write_text(''.join(lines), encoding='utf-8')
    except OSError as error:
        raise UserError(f'--jobs={path}: cannot be written: {error.strerror}') from error
    order = 'in any order or side by side'
    if any(run.source for run in runs):
        order += ', but for those with --config.attack_source, which need that run finished'
    print(f'{path}: {len(runs)} command lines, one a run, {order}')
    return 0


def _report(grid: Grid, workdir: Path, failures: dict[str, str]) -> int:
    from ser_jax.grid import rows as grid_rows
    from ser_jax.grid import runs as grid_runs
    from ser_jax.grid import tables

    rows = grid_rows.make_rows(grid, workdir)
    finished = sum(grid_runs.state(workdir, run) == 'finished' for run in grid.runs)
    summary = f'{finished} of {len(grid.runs)} runs are finished'
    if rows:
        tables.write_tables(rows, grid, summary, workdir)
        print(f'\n{tables.as_text(rows)}\n\n{workdir}/table.md, table.csv and pictures: {summary}')
    else:
        print(f'no table: {summary}')
    for folder, problem in failures.items():
        print(f'failed: {folder}: {problem}', file=sys.stderr)
    return int(bool(failures))


if __name__ == '__main__':
    sys.exit(main())
