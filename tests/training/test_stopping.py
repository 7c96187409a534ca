"""SIGTERM, Ctrl-C and SIGHUP during a run: one line, exit status 143, 130 or 129, and the same command resumes exactly."""

import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT, metrics, run, simulated
from processes import (
    SECONDS,
    alive,
    end,
    rest,
    start,
    step_of,
    wait_for,
    wait_for_handlers,
    wait_until,
)
from runs_on_disk import EVERY, STEPS, assert_same, command

from ser_jax.runs.checkpoints import Checkpoints

pytestmark = pytest.mark.slow


def latest_step(workdir):
    return Checkpoints(workdir / 'checkpoints' / 'fold_01' / 'latest', read_only=True).step


def test_a_signal_between_two_validations_saves_that_step(beeps, tmp_path, undisturbed):
    """Twice: before the first validation and after it."""
    workdir = tmp_path / 'run'
    process, lines = start(*command(beeps, workdir))
    wait_for(lines, 'compiling')
    wait_for(lines, 'step')  # the first line of progress, after the first step
    first = step_of(end(process, lines, signal.SIGINT))
    assert 0 < first < EVERY
    assert latest_step(workdir) == first

    process, lines = start(*command(beeps, workdir))
    wait_for(lines, f'step {EVERY}/')
    time.sleep(random.uniform(0, 0.2))
    second = step_of(end(process, lines, signal.SIGTERM))
    assert second >= EVERY
    assert latest_step(workdir) == second
    assert [row['step'] for row in metrics(workdir)] == list(range(EVERY, second + 1, EVERY))

    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert f'resumes from step {second}\n' in result.stderr
    assert_same(workdir, undisturbed)


def test_a_signal_at_any_moment_ends_in_time_and_the_run_resumes(beeps, tmp_path, undisturbed):
    workdir = tmp_path / 'run'
    compiled = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled')}  # not by another test
    for moment, number in (
        ('start', signal.SIGTERM),
        ('imports', signal.SIGINT),
        ('compiling', signal.SIGHUP),
        (f'step {STEPS}/', signal.SIGTERM),
    ):
        process, lines = start(*command(beeps, workdir), **compiled)
        if moment in ('start', 'imports'):
            wait_for_handlers(process)
        else:
            wait_for(lines, moment)
        if moment != 'start':
            time.sleep(random.uniform(0, 0.5))
        assert 'resumes from' in end(process, lines, number)
        assert not (workdir / 'results.json').exists()
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert_same(workdir, undisturbed)


def test_a_terminal_that_closes(beeps, tmp_path):
    """As when a connection breaks; shell and system may both send the signal."""
    workdir, log, number = tmp_path / 'run', tmp_path / 'log', tmp_path / 'number'
    arguments = command(beeps, workdir, f'--config.eval_every={STEPS}')  # the end's is the only one
    line = shlex.join([sys.executable, '-m', *arguments])
    terminal = 'import pty; pty.spawn(["bash", "--norc", "-i"])'
    steps = [0]
    for early in (False, True):
        with log.open('w') as file:
            process = subprocess.Popen(
                [sys.executable, '-c', terminal],
                cwd=ROOT,
                env={**os.environ, **simulated(1), 'PS1': ''},
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                text=True,
            )
        process.stdin.write(f'bash -c \'echo $$ > {number}; exec "$@"\' - {line}\n')
        process.stdin.flush()
        wait_until(process, lambda: re.search(rf'step \d+/{STEPS}', log.read_text()))
        begin = time.monotonic()
        if early:  # the shell signals its jobs while the terminal is still open
            os.kill(int(number.read_text()), signal.SIGHUP)
            time.sleep(0.05)
        process.kill()
        process.wait()
        while alive(int(number.read_text())):
            assert time.monotonic() - begin < SECONDS
            time.sleep(0.1)
        steps.append(latest_step(workdir))
    assert steps[0] < steps[1] < steps[2] < STEPS


def test_a_signal_during_the_evaluation_keeps_complete_conditions(beeps, tmp_path, undisturbed):
    workdir = tmp_path / 'run'
    shutil.copytree(undisturbed, workdir)
    texts = tuple(f'pgd(0.0{k}, 40)' for k in range(1, 5))
    asked = command(beeps, workdir, f'--config.conditions={texts!r}')
    process, lines = start(*asked)
    complete = lambda: [*workdir.glob('*/fold_01/pgd_0.01_40_1.csv')]
    wait_until(process, complete)
    end(process, lines, signal.SIGTERM)
    (first,) = complete()
    written = first.stat().st_mtime_ns
    result = run(*asked)
    assert result.returncode == 0, result.stderr
    assert first.stat().st_mtime_ns == written
    assert len(list((workdir / 'predictions').glob('*.csv'))) == 5


def test_two_runs_side_by_side_are_both_saved(beeps, tmp_path):
    asked = [
        command(beeps, tmp_path / name, '--config.folds=(1,2)', '--config.parallel_runs=2')
        for name in ('whole', 'stopped')
    ]
    result = run(*asked[0])
    assert result.returncode == 0, result.stderr
    process, lines = start(*asked[1])
    wait_for(lines, f'fold_02 .*step {EVERY}/')
    time.sleep(0.2)
    assert re.search(
        r'step (\d+) of fold_01, step \1 of fold_02$', end(process, lines, signal.SIGTERM)
    )
    result = run(*asked[1])
    assert result.returncode == 0, result.stderr
    assert_same(tmp_path / 'stopped', tmp_path / 'whole', folds=('fold_01', 'fold_02'))


@pytest.mark.parametrize('number', [signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_grid_ends_with_its_run_and_begins_no_other(beeps, tmp_path, number):
    config = tmp_path / 'two.py'
    changes = {
        'data.data_dir': beeps['data_dir'],
        'steps': STEPS,
        'optimiser.learning_rate': 0.02,
        'eval_every': EVERY,
    }
    config.write_text(
        'def get_grid():\n'
        "    return {'config': 'configs/mtl_aug.py', 'seeds': (0, 1), 'variants': {'full': {}},\n"
        "            'settings': {'beeps': {'argument': 'csv_corpus/beeps,smoke',\n"
        f"                                   'changes': {changes!r}}}}}}}\n"
    )
    workdir = tmp_path / 'grid'
    process, lines = start('ser_jax.grid', f'--config={config}', f'--workdir={workdir}')
    wait_for(lines, 'step 1/')
    begin = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert time.monotonic() - begin <= SECONDS
    assert rest(lines)[-1] == f'stopped by {number.name}: the same command resumes from here\n'
    (log,) = workdir.rglob('*.log')
    passed_on = 'SIGINT' if number == signal.SIGINT else 'SIGTERM'
    assert f'stopped by {passed_on}: ' in log.read_text().splitlines()[-1]
