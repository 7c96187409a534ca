"""Runs a grid, settings × variants × seeds: python -m ser_jax.grid --config=configs/grids/NAME.py

--config    grid file; configs/grids/demo.py documents the format
--workdir   folder of the grid; default runs/grids/NAME. Finished runs in it are skipped, unfinished ones
            resumed, failed ones tried again
--list      prints the runs and their states, runs nothing
--jobs      FILE that receives the command line of every run, for a scheduler; runs nothing
--share     K/N: every Nth run from the Kth only, e.g. 2/4 on the second of four machines that share
            the folder; default 1/1
--table     writes the table of the finished runs, runs nothing
--store     FOLDER of stored runs, e.g. results/NAME: adds the finished runs of the workdir and writes tables
            and figures; runs nothing. With --workdir=FOLDER the same tables again, e.g. after a change of their layout
--check     [FOLDER…]: makes the numbers of stored runs again from their predictions, one line per difference;
            default all in results/
--pages     [PAGE…]: rewrites the marked tables of pages from results/; default README.md, results/, docs/

Writes table.md, rows.csv and figures to the grid's folder. Exit status: 0; 1 if a run failed or a number
differs, 2 for a wrong grid or flag; 130, 143 or 129 after Ctrl-C, SIGTERM or SIGHUP, once the current run has
saved a checkpoint.
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command resumes from here', seconds=9.5)

import argparse
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ser_jax.grid import plan
from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import docstring, library_path, local_path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f'error: {message}', file=sys.stderr)  # one line, without argparse's usage
        sys.exit(2)


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 if a run failed, 2 for a wrong grid or flag."""
    options = _parse_flags(arguments)
    if options.check is not None or options.pages is not None:
        try:
            return _write_pages(options.pages) if options.check is None else _check(options.check)
        except UserError as error:
            print(f'error: {error}', file=sys.stderr)
            return 1
    try:
        grid = plan.read_grid(options.config)
        start, step = _parse_share(options.share)
        from ser_jax.grid import runs  # imports JAX: not for --help and wrong flags

        runs.check_conditions(grid)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    share = list(enumerate(grid.runs, 1))[start - 1 :: step]
    try:
        workdir = library_path(options.workdir or f'runs/grids/{grid.name}')
        if options.store:
            from ser_jax.grid import store

            summary = store.store(grid, workdir, local_path(options.store))
            print(f'{options.store}: cards, predictions, tables and figures: {summary}')
            return 0
        runs.check_grid(workdir, grid, write=False)
        if options.list:
            for number, run in share:
                print(f'{number:>4}  {runs.state(workdir, run):<8}  {run.folder}')
            return 0
        if options.jobs:
            runs.check_grid(workdir, grid, write=True)
            return _write_jobs(local_path(options.jobs), [run for _, run in share], workdir)
        if options.table:
            return _report(grid, workdir, {})
        unfinished = [run for _, run in share if runs.state(workdir, run) != 'finished']
        runs.check_data(unfinished)
        runs.check_grid(workdir, grid, write=True)
        failures = runs.run_all(share, workdir, len(grid.runs))
        return _report(grid, workdir, failures)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1


def _parse_flags(arguments):
    parser = _Parser(allow_abbrev=False, add_help=False)
    for flag in ('--config', '--workdir', '--jobs', '--store'):
        parser.add_argument(flag)
    parser.add_argument('--share', default='1/1')
    for flag in ('--list', '--table'):
        parser.add_argument(flag, action='store_true')
    parser.add_argument('--check', nargs='*', type=Path, metavar='FOLDER')
    parser.add_argument('--pages', nargs='*', type=Path, metavar='PAGE')
    parser.add_argument('-h', '--help', action='store_true')
    options = parser.parse_args(arguments)
    if options.help:
        print(docstring(__file__))
        sys.exit(0)
    if not options.config and options.check is options.pages is None:
        parser.error('--config is required, e.g. --config=configs/grids/demo.py')
    return options


def _parse_share(text: str) -> tuple[int, int]:
    match = re.fullmatch(r'(\d+)/(\d+)', text)
    start, step = map(int, match.groups()) if match else (0, 0)
    if not 1 <= start <= step:
        raise UserError(f'--share={text}: it must be K/N with K from 1 to N, e.g. 2/4')
    return start, step


def _write_jobs(path: Path, jobs: Sequence[plan.Run], workdir: Path) -> int:
    try:
        lines = [shlex.join(run.command(workdir)) + '\n' for run in jobs]
        path.write_text(''.join(lines), encoding='utf-8')
    except OSError as error:
        raise UserError(f'--jobs={path}: cannot be written: {error.strerror}') from error
    order = 'in any order or in parallel'
    if any(run.source for run in jobs):
        order += ', except those with --config.attack_source: that run must be finished first'
    print(f'{path}: {len(jobs)} command lines, one per run, {order}')
    return 0


def _check(folders: Sequence[Path]) -> int:
    from ser_jax.grid import store

    status = 0
    for folder in folders or sorted(path.parent for path in Path('results').glob('*/cards.jsonl')):
        try:
            differences = store.check(folder)
        except UserError as error:
            differences = [str(error)]
        print('\n'.join(differences) if differences else f'{folder}: every number follows')
        status |= bool(differences)
    return status


def _write_pages(files: Sequence[Path]) -> int:
    from ser_jax.grid import pages

    changed = pages.write_pages(files or pages.find_pages(Path()), Path('results'))
    print('\n'.join(map(str, changed)) or 'no table changed')
    return 0


def _report(grid: plan.Grid, workdir: Path, failures: dict[str, str]) -> int:
    from ser_jax.grid import rows, runs, tables

    table = rows.make_rows(grid, workdir)
    finished = sum(runs.state(workdir, run) == 'finished' for run in grid.runs)
    summary = grid.summary(finished)
    if table:
        tables.write_tables(table, grid, summary, workdir)
        print(f'\n{tables.as_text(table)}\n\n{workdir}/table.md, rows.csv and figures: {summary}')
    else:
        print(f'no table: {summary}')
    for folder, problem in failures.items():
        print(f'failed: {folder}: {problem}', file=sys.stderr)
    return int(bool(failures))


if __name__ == '__main__':
    sys.exit(main())
