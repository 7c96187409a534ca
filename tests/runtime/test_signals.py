"""SIGTERM, Ctrl-C and SIGHUP at any moment: one line, exit status 143, 130 or 129, and the same command resumes exactly."""

import json
import os
import queue
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT, metrics, run, simulated
from test_resume import command as resume_command
from test_resume import parameters

from ser_jax.runs.checkpoints import Checkpoints

SECONDS = 10  # longest time to the end of the process
EVERY = 20  # steps between validations; signals are sent between two of them


def start(*arguments, **environment):
    """Starts a command in its own process group, as a terminal does; returns it and a queue of its stderr lines."""
    process = subprocess.Popen(
        [sys.executable, '-m', *arguments],
        cwd=ROOT,
        env={**os.environ, **simulated(1), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    lines = queue.Queue()

    def read():
        for line in process.stderr:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    return process, lines


def start_two(*arguments):
    """Starts a command as two processes of one run; returns what `start` does for each."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    environment = {'JAX_COORDINATOR_ADDRESS': f'localhost:{port}', 'JAX_NUM_PROCESSES': '2'}
    return [start(*arguments, JAX_PROCESS_ID=str(number), **environment) for number in range(2)]


def wait_for(lines, pattern):
    """Reads stderr up to a matching line."""
    seen = []
    while (line := lines.get(timeout=300)) is not None:
        seen.append(line)
        if re.search(pattern, line):
            return
    raise AssertionError(f'{pattern} never came: {seen}')


def rest(lines):
    """Reads the remaining lines of stderr."""
    return list(iter(lambda: lines.get(timeout=60), None))


def end(process, lines, number):
    """Sends a signal to the process group, checks how it ends, and returns its last line."""
    begin = time.monotonic()
    os.killpg(process.pid, number)
    code = process.wait(timeout=60)
    seconds = time.monotonic() - begin
    printed = rest(lines)
    assert code == 128 + number, printed
    assert seconds <= SECONDS
    (last,) = [line for line in printed if not line.startswith('fold_')]  # no progress
    assert last.startswith(f'stopped by {number.name}: '), printed
    time.sleep(0.2)  # until the system has reaped the children
    assert not alive(process.pid)
    return last


def alive(group):
    """The processes of a group, without zombies."""
    found = []
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                with open(f'/proc/{entry}/stat') as file:
                    state, _, number = file.read().rpartition(')')[2].split()[:3]
            except OSError:
                continue
            if int(number) == group and state != 'Z':
                found.append(entry)
    return found


def command(beeps, workdir):
    return (*resume_command(beeps, workdir), f'--config.eval_every={EVERY}', '--config.steps=80')


@pytest.fixture(scope='module')
def undisturbed(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    return workdir


def assert_same(found, expected):
    """Compares everything that is reproducible in two runs."""
    cards = [json.loads((folder / 'results.json').read_text()) for folder in (found, expected)]
    for card in cards:
        card.pop('cost')
    assert cards[0] == cards[1]
    for name in ('metrics.jsonl', 'predictions/clean.csv'):
        assert (found / name).read_text() == (expected / name).read_text(), name
    one, two = parameters(found), parameters(expected)
    assert one.keys() == two.keys()
    for name, value in two.items():
        np.testing.assert_array_equal(one[name], value, err_msg=name)


def step_of(line):
    found = re.search(r'goes on from step (\d+) of fold_01$', line)
    assert found, line
    return int(found[1])


@pytest.mark.slow
def test_a_signal_between_two_validations_saves_that_step(beeps, tmp_path, undisturbed):
    workdir = tmp_path / 'run'
    process, lines = start(*command(beeps, workdir))
    wait_for(lines, f'step {EVERY}/')
    time.sleep(random.uniform(0.1, 0.3))
    step = step_of(end(process, lines, signal.SIGTERM))
    assert step >= EVERY
    assert Checkpoints(workdir / 'checkpoints' / 'fold_01' / 'latest').step == step
    assert [row['step'] for row in metrics(workdir)] == list(range(EVERY, step + 1, EVERY))

    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert f'goes on from step {step}\n' in result.stderr
    assert_same(workdir, undisturbed)


@pytest.mark.slow
def test_stopped_twice_between_the_same_two_validations(beeps, tmp_path, undisturbed):
    workdir, steps = tmp_path / 'run', []
    for _ in range(2):
        process, lines = start(*command(beeps, workdir))
        wait_for(lines, 'compiling')
        wait_for(lines, 'step')  # its first line of progress, after its first step
        steps.append(step_of(end(process, lines, signal.SIGINT)))
    assert 0 < steps[0] < steps[1] < EVERY
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert_same(workdir, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('moment', 'number'),
    [
        ('start', signal.SIGTERM),
        ('imports', signal.SIGINT),
        ('compiling', signal.SIGHUP),
        ('step 1/', signal.SIGINT),
        ('last step', signal.SIGTERM),
    ],
)
def test_a_signal_at_any_moment_ends_in_time_and_the_run_resumes(
    beeps, tmp_path, undisturbed, moment, number
):
    workdir = tmp_path / 'run'
    compiled = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled')}  # not by another test
    process, lines = start(*command(beeps, workdir), **compiled)
    if moment in ('start', 'imports'):
        time.sleep({'start': 0.3, 'imports': 1.0}[moment])
    else:
        wait_for(lines, 'step 80/' if moment == 'last step' else moment)
    time.sleep(random.uniform(0, 0.5))
    assert 'goes on from' in end(process, lines, number)
    assert not (workdir / 'results.json').exists()
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert_same(workdir, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize('early', [False, True])
def test_a_terminal_that_closes(beeps, tmp_path, early):
    """As when a connection breaks; shell and system may both send the signal."""
    workdir, log, number = tmp_path / 'run', tmp_path / 'log', tmp_path / 'number'
    arguments = (*command(beeps, workdir), '--config.eval_every=80')  # no checkpoint before the end
    line = shlex.join([sys.executable, '-m', *arguments])
    terminal = 'import pty; pty.spawn(["bash", "--norc", "-i"])'
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
    while not re.search(r'step \d+/80', log.read_text()):
        assert process.poll() is None, log.read_text()
        time.sleep(0.02)
    begin = time.monotonic()
    if early:  # the shell signals its jobs while the terminal is still open
        os.kill(int(number.read_text()), signal.SIGHUP)
        time.sleep(0.05)
    process.kill()
    process.wait()
    while alive(int(number.read_text())):
        assert time.monotonic() - begin < SECONDS
        time.sleep(0.1)
    step = Checkpoints(workdir / 'checkpoints' / 'fold_01' / 'latest', read_only=True).step
    assert 0 < step < 80
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    assert f'goes on from step {step}\n' in result.stderr


@pytest.mark.slow
def test_a_signal_during_the_evaluation_keeps_complete_conditions(beeps, tmp_path):
    asked = (*command(beeps, tmp_path / 'run'), '--config.steps=20')
    conditions = (
        '--config.conditions=(' + ', '.join(f"'pgd(0.0{k}, 40)'" for k in range(1, 10)) + ')'
    )
    result = run(*asked)
    assert result.returncode == 0, result.stderr
    process, lines = start(*asked, conditions)
    first = tmp_path / 'run' / 'checkpoints' / 'fold_01' / 'pgd_0.01_40_1.csv'
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.01)
    end(process, lines, signal.SIGTERM)
    made = first.stat().st_mtime_ns
    result = run(*asked, conditions)
    assert result.returncode == 0, result.stderr
    assert first.stat().st_mtime_ns == made
    assert len(list((tmp_path / 'run' / 'predictions').iterdir())) == 10


@pytest.mark.slow
def test_two_runs_side_by_side_are_both_saved(beeps, tmp_path):
    asked = [
        (*command(beeps, tmp_path / name), '--config.folds=(1,2)', '--config.parallel_runs=2')
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
    assert_same(tmp_path / 'stopped', tmp_path / 'whole')


@pytest.mark.slow
@pytest.mark.parametrize('signalled', [(0, 1), (1,)], ids=['both', 'one'])
def test_two_processes_stop_at_one_step(beeps, tmp_path, signalled):
    asked = (*command(beeps, tmp_path / 'run'), '--config.steps=400')
    started = start_two(*asked)
    wait_for(started[0][1], f'step {EVERY}/')
    for number in signalled:
        started[number][0].send_signal(signal.SIGTERM)
    ends = []
    for process, lines in started:
        assert process.wait(timeout=120) == 143
        ends.append(step_of(rest(lines)[-1]))
    assert ends[0] == ends[1]
    assert Checkpoints(tmp_path / 'run' / 'checkpoints' / 'fold_01' / 'latest').step == ends[0]


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGHUP, signal.SIGINT], ids=lambda number: number.name)
def test_a_grid_ends_with_its_run_and_begins_no_other(beeps, tmp_path, number):
    config = tmp_path / 'two.py'
    config.write_text(
        'def get_grid():\n'
        "    return {'config': 'configs/mtl_aug.py', 'seeds': (0, 1),\n"
        "            'variants': {'full': {}},\n"
        "            'settings': {'beeps': {'argument': 'csv_corpus/beeps,smoke', 'changes':\n"
        f"                {{'data.data_dir': {beeps['data_dir']!r}, 'steps': 4000}}}}}}}}\n"
    )
    workdir = tmp_path / 'grid'
    process, lines = start('ser_jax.grid', f'--config={config}', f'--workdir={workdir}')
    wait_for(lines, 'step 1/')
    begin = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=60) == 128 + number
    assert time.monotonic() - begin <= SECONDS
    assert rest(lines)[-1] == f'stopped by {number.name}: the same command goes on from here\n'
    logs = list(workdir.rglob('*.log'))
    assert len(logs) == 1
    passed_on = 'SIGINT' if number == signal.SIGINT else 'SIGTERM'
    assert f'stopped by {passed_on}: ' in logs[0].read_text().splitlines()[-1]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_build_leaves_no_files_and_no_processes(tmp_path, number):
    process, lines = start(
        'tfds_builders.build', 'demo_speech', '--workers=2', f'--data_dir={tmp_path}'
    )
    scratch = tmp_path / '.building' / 'demo_speech-log_mel'
    while not list(scratch.rglob('*incomplete*')):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.8))
    end(process, lines, number)
    assert not scratch.exists()
    assert [path.name for path in tmp_path.iterdir()] == ['.building']


@pytest.mark.slow
@pytest.mark.parametrize(
    'arguments',
    [
        ('ser_jax.predict', '--workdir=nowhere', 'nothing.wav'),
        ('ser_jax.report', '--workdir=results/emodb/mtl_aug-seed0', '--replicates=10000000'),
        ('tfds_builders.doctor', 'emodb', '--manual_dir=nowhere'),
        ('tfds_builders.build', 'emodb', '--manual_dir=nowhere'),
        ('ser_jax.grid', '--config=configs/grids/demo.py', '--list'),
    ],
    ids=lambda arguments: arguments[0],
)
def test_other_commands_end_without_a_traceback(arguments):
    process, lines = start(*arguments)
    time.sleep(0.25)
    end(process, lines, signal.SIGINT)


def ready(script):
    """Starts a script; returns its process as soon as it has printed `ready`."""
    process = subprocess.Popen([sys.executable, '-c', script], stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == 'ready\n'
    return process


def test_a_blocked_main_thread_is_ended_at_the_deadline():
    """As in XLA's compiler, where Python runs no handlers."""
    script = (
        'from ser_jax.runtime import signals\n'
        'import hashlib, sys\n'
        'signals.handle("hopeless", seconds=1)\n'
        'print("ready", file=sys.stderr, flush=True)\n'
        'hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)\n'
    )
    process = ready(script)
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert time.monotonic() - begin <= 5
    assert process.stderr.read() == 'stopped by SIGTERM: hopeless\n'


def test_a_second_signal_does_not_wait(tmp_path):
    script = (
        'from ser_jax.runtime import signals\n'
        'import sys, time\n'
        'signals.handle("later")\n'
        'with signals.postponed():\n'
        '    print("ready", file=sys.stderr, flush=True)\n'
        '    time.sleep(60)\n'
    )
    process = ready(script)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - begin < 5
    assert process.stderr.read() == 'stopped by SIGINT: later\n'


@pytest.mark.parametrize('signals', ['HUP TERM', 'TERM HUP', 'INT INT', 'HUP HUP HUP'])
@pytest.mark.parametrize('busy', [False, True])
def test_signals_sent_together_count_as_one(signals, busy):
    """As systemd sends them at the end of a session; also where Python runs no handlers for a second."""
    no_handlers = 'hashlib.pbkdf2_hmac("sha256", b"", b"", 4_000_000)'
    doing = f'while not signals.received(): pass\n    {no_handlers}' if busy else 'time.sleep(1.5)'
    process = ready(
        'from ser_jax.runtime import signals\n'
        'import hashlib, sys, time\n'
        'signals.handle("saved")\n'
        'with signals.postponed():\n'
        '    print("ready", file=sys.stderr, flush=True)\n'
        f'    {doing}\n'
        '    print("did it", file=sys.stderr, flush=True)\n'
    )
    numbers = [getattr(signal, f'SIG{name}') for name in signals.split()]
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.02)
    assert process.wait(timeout=60) == 128 + numbers[0]
    assert process.stderr.read() == f'did it\nstopped by {numbers[0].name}: saved\n'
