"""Ends a command on SIGTERM, SIGINT (Ctrl-C) and SIGHUP (a terminal that closes) within seconds.

It says in one line how to go on; its exit status is 143, 130 or 129.

    if __name__ == '__main__':
        stopping.listen('the same command goes on from the last checkpoint')  # before slow imports

Nothing is raised: an exception out of nowhere crashes libraries that C++ has called from (JAX while it is imported or
traces). The process ends where it is, as if it had been killed, which every file that is written here survives; work that
wants to save something first is `deferred`, and what has to be tidied up is said `before_leaving`.

The main thread may be in XLA for longer than anybody waits, where Python runs no handlers: a thread then ends the process.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from ser_jax.runtime.errors import silence_closed_outputs

_DEADLINE = 8.0  # seconds from the signal to the end of the process, come what may
_IDLE = 2.0  # … where nothing is to be saved, and the main thread does not react
_AGAIN = 0.5  # … from a second signal, by which somebody is impatient
_TOGETHER = 0.5  # what comes so soon after the first is no second one: shells and systems send several at once
_HEARD = 0  # among the numbers of signals: the main thread has been told
_HANGUP = getattr(signal, 'SIGHUP', None)  # Windows has none
_SIGNALS = [number for number in (signal.SIGTERM, signal.SIGINT, _HANGUP) if number]


class _Listener:
    """What is known of the signals of this process.

    Attributes:
        number: of the signal that came, or None.
        how: to go on, for the line at the end.
        deferring: whether the main thread goes on for the time being.
        saving: … because it has something to save.
        tidying: what is called before the end.
    """

    def __init__(self):
        self.number: int | None = None
        self.how = ''
        self.deferring = self.saving = False
        self.tidying: list[Callable[[], None]] = []
        self._handled = self._impatient = False
        self._caught_up = threading.Event()
        self._seconds = _DEADLINE
        self._said = threading.Lock()

    def start(self, how: str, seconds: float) -> None:
        self.how, self._seconds = how, seconds
        self._inbox, self._outbox = socket.socketpair()
        self._outbox.setblocking(False)
        # Python itself writes the number of a signal there, whatever the main thread is doing.
        signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name='stopping', daemon=True).start()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._handle)

    def _handle(self, number, _) -> None:
        """Called in the main thread, as soon as it runs Python, which may be long after the signal came."""
        again, self._handled = self._handled, True
        self.number = self.number or number
        silence_closed_outputs()  # an error of writing, where a checkpoint is due
        self._caught_up.clear()
        self.heard()
        self._caught_up.wait(1.0)  # the thread knows when the signal came
        if self._impatient or not (again or self.deferring):
            self.leave()

    def heard(self) -> None:
        """Tells the thread that the main one reacts."""
        with contextlib.suppress(OSError):
            self._outbox.send(bytes([_HEARD]))

    def _watch(self) -> None:
        """Runs in a thread: ends the process at the deadline."""
        first = end = told = None  # `told`: when the first signal came, `first`: when anything did
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([self._inbox], [], [], left)[0]:
                self._end()
            byte, now = self._inbox.recv(1)[0], time.monotonic()
            if byte not in (_HEARD, *_SIGNALS):
                continue
            if byte == _HEARD:
                self._caught_up.set()
            elif told is None:
                told = now
            elif byte == _HANGUP or now - told <= _TOGETHER:
                continue
            else:
                self._impatient = True
            first = first or now
            reacts = self.saving or (byte == _HEARD and not self.deferring)
            if byte != _HEARD:
                self.number = self.number or byte
            if self._impatient:
                end = min(end, now + _AGAIN)
            else:
                end = first + (self._seconds if reacts else _IDLE)

    def leave(self) -> NoReturn:
        """Tidies up and ends the process; in the main thread."""
        for tidy in reversed(self.tidying):
            with contextlib.suppress(Exception):  # the deadline counts, not the dust
                tidy()
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # busy writing, or closed
            sys.stdout.flush()
        self._end()

    def _end(self) -> NoReturn:
        pools = sys.modules.get('multiprocessing')
        for child in pools.active_children() if pools else ():
            child.kill()
        if self._said.acquire(blocking=False):
            line = f'stopped by {signal.Signals(self.number).name}: {self.how}\n'
            with contextlib.suppress(OSError):  # nobody reads
                os.write(2, line.encode())
        os._exit(128 + self.number)


_listener = _Listener()


def listen(how: str, seconds: float = _DEADLINE) -> None:
    """Takes SIGTERM, SIGINT and SIGHUP over; in the main thread only, before whatever takes long.

    Args:
        how: to go on after them, for the line at the end.
        seconds: from the signal to the end of the process, at most.
    """
    _listener.start(how, seconds)


def requested() -> int | None:
    """The number of the signal that came, or None."""
    return _listener.number


def stop(how: str) -> NoReturn:
    """Ends the process, on a signal here or in another process of a run on several.

    Args:
        how: to go on, for the line at the end.
    """
    _listener.number, _listener.how = _listener.number or signal.SIGTERM, how
    _listener.leave()


@contextlib.contextmanager
def before_leaving(tidy: Callable[[], None]) -> Iterator[None]:
    """What is to be done where a signal ends the process inside the block; where somebody is impatient it is done again."""
    _listener.tidying.append(tidy)
    try:
        yield
    finally:
        _listener.tidying.remove(tidy)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Around work that wants to save something first.

    Yields:
        A function that tells whether to end. A signal waits for its next call, or for the end of the block; a second
        one that is no hangup and comes half a second later does not, and none waits long for the first call, before which
        there is nothing to save.
    """

    def asked() -> bool:
        _listener.saving = True
        if _listener.number:
            _listener.heard()
        return _listener.number is not None

    before = _listener.deferring, _listener.saving
    _listener.deferring = True
    try:
        yield asked
    finally:
        _listener.deferring, _listener.saving = before
    if _listener.number and not _listener.deferring:
        _listener.leave()


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Around what must not be torn apart: a signal waits for the end of the block."""
    with deferred() as asked:
        asked()
        yield
