"""Runs of a grid: ownership of its folder, state of each run, sequential execution."""

import functools
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ser_jax import train
from ser_jax.config import as_json, compared
from ser_jax.grid.plan import Grid, Run
from ser_jax.runs.result_card import read_card
from ser_jax.runtime import signals
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically
from ser_jax.runtime.text import duration
from ser_jax.transforms.conditions import parse_conditions

_GRACE = 9.0  # seconds that an interrupted run gets to end by itself; it takes 8 at most (`runtime.signals`)


def check_conditions(grid: Grid) -> None:
    """Checks the conditions of all runs before the first one starts; raises UserError."""
    for run in grid.runs:
        try:
            parse_conditions(run.config.conditions)
        except UserError as error:
            raise UserError(f'{run.folder}: {error}') from error


def check_data(runs: Sequence[Run]) -> None:
    """Prepares and opens everything that unfinished runs read, so that a wrong name is reported at the start.

    Runs that read the same are checked once.

    Raises:
        UserError: something that cannot be prepared or opened; names the run.
    """
    seen = set()
    for run in runs:
        stored = as_json(run.config)
        key = json.dumps([stored.get(field) for field in train.DATA_FIELDS])
        if key not in seen:
            try:
                train.check_data(run.config)
            except UserError as error:
                raise UserError(f'{run.folder}: {error}') from error
            seen.add(key)


def check_grid(workdir: Path, grid: Grid, *, write: bool) -> None:
    """Refuses a folder that holds another grid; runs may have been added since.

    Args:
        workdir: folder of the grid, which need not exist.
        grid: grid to run.
        write: whether to claim the folder by writing `grid.json`.

    Raises:
        UserError: a run in the folder has another config or is no longer in the grid, or the folder holds
            other files or cannot be written to.
    """
    path = workdir / 'grid.json'
    configs = {run.folder: compared(as_json(run.config)) for run in grid.runs}
    try:
        if path.exists():
            _refuse_other(workdir, json.loads(path.read_text(encoding='utf-8')), configs)
        elif workdir.exists() and any(other.suffix != '.tmp' for other in workdir.iterdir()):
            raise UserError(f'{workdir} holds files but no grid.json: choose another --workdir')
        if write:
            write_atomically(path, json.dumps(configs, indent=1))
    except OSError as error:
        raise UserError(f'cannot write to the workdir {workdir}: {error.strerror}') from error
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error}): choose another --workdir') from error


def _refuse_other(workdir, stored, configs):
    problem = ''
    for folder, before in stored.items():
        now = configs.get(folder)
        if now is None:
            problem = f'{folder} is not in this one'
        elif changed := [name for name in before | now if before.get(name) != now.get(name)]:
            values = (config.get(changed[0], 'absent') for config in (before, now))
            problem = '{}: {}: {} there, {} now'.format(folder, changed[0], *values)
        if problem:
            raise UserError(
                f'workdir {workdir} holds another grid ({problem}): choose another --workdir'
            )


def state(workdir: Path, run: Run) -> str:
    """The state of a run: 'finished', 'begun' or 'to do'; a finished one to which conditions were added counts as begun."""
    folder = workdir / run.folder
    card = read_card(folder)
    if card and not train.needs_testing(run.config_in(workdir), card):
        return 'finished'
    return 'begun' if folder.exists() else 'to do'


def run_all(runs: Sequence[tuple[int, Run]], workdir: Path, total: int) -> dict[str, str]:
    """Executes the unfinished runs one after the other, each in its own process.

    Args:
        runs: (number in the grid, run) pairs.
        workdir: folder of the grid.
        total: number of runs in the grid.

    Returns:
        Folder -> error, for every run that failed; a failure does not stop the others.
    """
    left = [(number, run) for number, run in runs if state(workdir, run) != 'finished']
    if len(left) < len(runs):
        print(f'{len(runs) - len(left)} of {len(runs)} runs are finished already', flush=True)
    seconds, failures = [], {}
    for position, (number, run) in enumerate(left):
        command = run.command(workdir)
        print(f'[{number}/{total}] {shlex.join(command)}', flush=True)
        begin = time.monotonic()
        show = functools.partial(_show, f'{number}/{total}', seconds, len(left) - position, begin)
        folder = workdir / run.folder
        problem = run_one(command, folder.with_name(f'{folder.name}.log'), show)
        if not problem and state(workdir, run) != 'finished':
            problem = 'it ended without results.json'
        if problem:
            failures[run.folder] = problem
            print(f'[{number}/{total}] failed: {problem}', file=sys.stderr, flush=True)
        else:
            seconds.append(time.monotonic() - begin)
    return failures


def _show(number: str, seconds: list[float], runs: int, begin: float, line: str) -> None:
    """Prints a line of a run, with the grid's remaining time once one run has finished."""
    eta = ''
    if seconds:
        mean, elapsed = statistics.mean(seconds), time.monotonic() - begin
        if elapsed < mean:
            eta = f', {duration(runs * mean - elapsed)} left'
        elif runs > 1:  # it takes longer than the runs before
            eta = f', over {duration((runs - 1) * mean)} left'
    print(f'[{number}{eta}]  {line}', file=sys.stderr, flush=True)


def run_one(command: Sequence[str], log: Path, show: Callable[[str], None]) -> str:
    """Executes one command and appends its output to a log.

    Args:
        command: arguments of the command line; the first, 'python', is replaced by this interpreter.
        log: log file; its folder is created.
        show: function called with every line of stderr, where a run prints its progress.

    Returns:
        The error, with the last line on stderr; '' = success.

    Raises:
        KeyboardInterrupt: after the run, which is interrupted too, has ended.
        UserError: the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open('a', encoding='utf-8')
    except OSError as error:
        raise UserError(f'cannot write {log}: {error.strerror}') from error
    with file:
        print(f'$ {shlex.join(command)}', file=file, flush=True)
        # In its own session: Ctrl-C in a terminal reaches it once, through this process.
        process = subprocess.Popen(
            [sys.executable, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            encoding='utf-8',
            errors='replace',
            start_new_session=True,
        )
        last, end = '', functools.partial(_end, process, log)
        try:
            with signals.on_stop(end):
                for line in process.stderr:
                    file.write(line)
                    file.flush()
                    if line.strip():
                        last = line.strip()
                        show(last)
                code = process.wait()
        except KeyboardInterrupt:  # where `signals.handle` was not called, as in a notebook
            end()
            raise
        finally:
            process.kill()  # without effect if it has ended
            process.wait()
    if not code:
        return ''
    how = f'exit status {code}' if code > 0 else f'killed by {signal.Signals(-code).name}'
    return f'{how}: {last} (see {log})'


def _end(process: subprocess.Popen, log: Path) -> None:
    """Passes the signal on to a run and lets it end by itself."""
    interrupted = signals.received() in (None, signal.SIGINT)
    process.send_signal(signal.SIGINT if interrupted else signal.SIGTERM)
    try:
        process.wait(_GRACE)
        # Its last output, past a reader and a writer that the signal may have interrupted.
        with (
            open(os.dup(process.stderr.fileno()), encoding='utf-8', errors='replace') as rest,
            log.open('a', encoding='utf-8') as file,
        ):
            file.write(rest.read())
    except subprocess.TimeoutExpired:
        process.kill()
