"""Signals outside of training: cleanups, and time to the end of the process."""

import random
import signal
import subprocess
import sys
import time

import pytest
from processes import end, start, wait_for_handlers


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
    wait_for_handlers(process)
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
