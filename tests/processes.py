"""Starts commands as processes, reads their stderr as it comes, and sends them signals."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time

from conftest import ROOT, simulated

SECONDS = 10  # longest time from a signal to the end of the process


def start(*arguments, **environment):
    """Starts `python -m …` in its own process group, as a terminal does; returns it and a queue of its stderr lines."""
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


def start_two(*arguments, **environment):
    """Starts a command as two processes of one run; returns what `start` does for each."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    environment |= {'JAX_COORDINATOR_ADDRESS': f'localhost:{port}', 'JAX_NUM_PROCESSES': '2'}
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
    return list(iter(lambda: lines.get(timeout=300), None))


def wait_until(process, condition):
    """Polls a condition while the process runs."""
    while not condition():
        assert process.poll() is None, 'the process ended too early'
        time.sleep(0.005)


def kill(process):
    """Kills a process that is still running, with all that it has started."""
    assert process.poll() is None, 'the process ended before it could be killed'
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def wait_for_handlers(process):
    """Waits until the command handles signals: SIGTERM shows it, as Python itself handles SIGINT."""

    def handled():
        with open(f'/proc/{process.pid}/status') as file:
            (mask,) = [line.split()[1] for line in file if line.startswith('SigCgt:')]
        return int(mask, 16) >> (signal.SIGTERM - 1) & 1

    wait_until(process, handled)


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


def step_of(line):
    """The step that a stopped run resumes from, from its last line."""
    found = re.search(r'resumes from step (\d+) of fold_01$', line)
    assert found, line
    return int(found[1])
