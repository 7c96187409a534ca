"""The runs of a grid: whether they may be in its folder, how far they are, and one after the other."""

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
from ser_jax.reporting.text import duration
from ser_jax.runs.result_card import read_card
from ser_jax.runtime import signals
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_atomically
from ser_jax.transforms.conditions import parse_conditions

_GRACE = 9.0  # seconds that a run which was told to stop gets to end by itself: it takes 8 at most


def check_conditions(grid: Grid) -> None:
    """Refuses conditions that a run would refuse, before the first run begins.

    Raises:
        UserError: an unknown condition or wrong arguments.
    """
    for run in grid.runs:
        try:
            parse_conditions(run.config.conditions)
        except UserError as error:
            raise UserError(f'{run.folder}: {error}') from error


def check_data(runs: Sequence[Run]) -> None:
    """Prepares and opens everything that runs read: a wrong name must not show after hours.

    Args:
        runs: those that are not finished.

    Raises:
        UserError: something that cannot be prepared or opened; names the run.
    """
    seen = set()
    for run in runs:
        config = run.config.copy_and_resolve_references()
        config.seed = 0  # seeds read the same
        if config.to_json() not in seen:
            try:
                train.check_data(config)
            except UserError as error:
                raise UserError(f'{run.folder}: {error}') from error
            seen.add(config.to_json())


def check_grid(workdir: Path, grid: Grid, *, write: bool) -> None:
    """Refuses a folder that holds another grid; one that has grown by runs goes on.

    Args:
        workdir: of the grid, which need not exist.
        grid: the grid.
        write: whether to claim the folder (`grid.json`).

    Raises:
        UserError: a run there is of another config or is no longer in the grid, the folder holds
            something else, or cannot be written to.
    """
    path = workdir / 'grid.json'
    mine = {run.folder: compared(as_json(run.config)) for run in grid.runs}
    try:
        if path.exists():
            _refuse_other(workdir, json.loads(path.read_text(encoding='utf-8')), mine)
        elif workdir.exists() and any(other.suffix != '.tmp' for other in workdir.iterdir()):
            raise UserError(f'{workdir} holds files but no grid.json: choose another --workdir')
        if write:
            write_atomically(path, json.dumps(mine, indent=1))
    except OSError as error:
        raise UserError(f'cannot write to the workdir {workdir}: {error.strerror}') from error
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error}): choose another --workdir') from error


def _refuse_other(workdir, stored, mine):
    problem = ''
    for folder, config in stored.items():
        if folder not in mine:
            problem = problem or f'{folder} is not in this one'
            continue
        changed = [
            name for name in config | mine[folder] if config.get(name) != mine[folder].get(name)
        ]
        if changed:
            there, now = (c.get(changed[0], 'absent') for c in (config, mine[folder]))
            problem = problem or f'{folder}: {changed[0]}: {there} there, {now} now'
    if problem:
        raise UserError(
            f'workdir {workdir} holds another grid ({problem}): choose another --workdir'
        )


def state(workdir: Path, run: Run) -> str:
    """How far a run is: 'finished', 'begun' or 'to do'.

    Args:
        workdir: of the grid.
        run: in it; conditions that were added to it later make a finished run begun.
    """
    folder = workdir / run.folder
    card = read_card(folder)
    if card and not train.needs_testing(run.config_in(workdir), card):
        return 'finished'
    return 'begun' if folder.exists() else 'to do'


def run_all(runs: Sequence[tuple[int, Run]], workdir: Path, total: int) -> dict[str, str]:
    """Runs those that are not finished, one after the other, each in a process of its own.

    Args:
        runs: each with its number in the grid.
        workdir: of the grid.
        total: number of runs in the grid.

    Returns:
        Folder -> what went wrong, for every run that failed; the others ran nevertheless.
    """
    left = [(number, run) for number, run in runs if state(workdir, run) != 'finished']
    if len(left) < len(runs):
        print(f'{len(runs) - len(left)} of {len(runs)} runs are finished already', flush=True)
    seconds, failures = [], {}
    for position, (number, run) in enumerate(left):
        words = run.command(workdir)
        print(f'[{number}/{total}] {shlex.join(words)}', flush=True)
        begin = time.monotonic()
        show = functools.partial(_show, f'{number}/{total}', seconds, len(left) - position, begin)
        folder = workdir / run.folder
        problem = run_one(words, folder.with_name(f'{folder.name}.log'), show)
        if not problem and state(workdir, run) != 'finished':
            problem = 'it ended without results.json'
        if problem:
            failures[run.folder] = problem
            print(f'[{number}/{total}] failed: {problem}', file=sys.stderr, flush=True)
        else:
            seconds.append(time.monotonic() - begin)
    return failures


def _show(number: str, seconds: list[float], runs: int, begin: float, line: str) -> None:
    """Shows a line of a run, with the grid's ETA as soon as this start has finished a run."""
    eta = ''
    if seconds:
        mean = statistics.mean(seconds)
        left = max(runs * mean - (time.monotonic() - begin), (runs - 1) * mean)
        if left > 0:  # else the last run takes longer than the others did
            eta = f', {duration(left)} left'
    print(f'[{number}{eta}]  {line}', file=sys.stderr, flush=True)


def run_one(words: Sequence[str], log: Path, show: Callable[[str], None]) -> str:
    """Runs one command; everything it prints goes to the end of its log.

    Args:
        words: of the command line, from 'python' on, which stands for this one.
        log: file; its folder is made.
        show: is given every line of stderr, which is where a run tells how far it is.

    Returns:
        What went wrong, with the last line that the run said; '' = nothing.

    Raises:
        KeyboardInterrupt: after the run, which is interrupted as well, has ended.
        UserError: the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = log.open('a', encoding='utf-8')
    except OSError as error:
        raise UserError(f'cannot write {log}: {error.strerror}') from error
    with file:
        print(f'$ {shlex.join(words)}', file=file, flush=True)
        # In a session of its own: Ctrl-C reaches it once, from here, and in order.
        process = subprocess.Popen(
            [sys.executable, *words[1:]],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.PIPE,
            encoding='utf-8',
            errors='replace',
            start_new_session=True,
        )
        last, end = '', functools.partial(_end, process, log)
        try:
            with signals.before_leaving(end):
                for line in process.stderr:
                    file.write(line)
                    file.flush()
                    if line.strip():
                        last = line.strip()
                        show(last)
                code = process.wait()
        except KeyboardInterrupt:  # where nobody listens to signals, as in a notebook
            end()
            raise
        finally:
            process.kill()  # nothing, where it has ended
            process.wait()
    if not code:
        return ''
    how = f'exit status {code}' if code > 0 else f'killed by {signal.Signals(-code).name}'
    return f'{how}: {last} (see {log})'


def _end(process: subprocess.Popen, log: Path) -> None:
    """Passes the signal on to a run, and lets it end by itself."""
    interrupted = signals.requested() in (None, signal.SIGINT)
    # Never a hangup: given again it would tell the run of no impatience.
    process.send_signal(signal.SIGINT if interrupted else signal.SIGTERM)
    try:
        process.wait(_GRACE)
        # Its last words, past a reader and a writer that the signal may have interrupted.
        with (
            open(os.dup(process.stderr.fileno()), encoding='utf-8', errors='replace') as words,
            log.open('a', encoding='utf-8') as file,
        ):
            file.write(words.read())
    except subprocess.TimeoutExpired:
        process.kill()
