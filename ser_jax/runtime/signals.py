"""Ends a command within seconds of SIGINT (Ctrl-C), SIGTERM or SIGHUP (a closed terminal).

The exit status is 128 + the signal's number: 130, 143 or 129. The last line on stderr names the signal and what the next start does.

    if __name__ == '__main__':
        signals.handle('the same command resumes from the last checkpoint')  # before slow imports

Handlers raise nothing: an unexpected exception crashes C++ libraries that call into Python (JAX while it is imported or traces).
The process ends where it is, as if it had been killed, which is safe because all writes are atomic. Work that saves something
first is `postponed`; scratch files are removed by `on_stop`. A second signal, half a second after the first, ends the process at once.

While the main thread is in XLA, Python runs no handlers: a thread then ends the process.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from ser_jax.runtime.errors import open_closed_streams, silence_closed_outputs

_DEADLINE = 8.0  # seconds from the first signal to the end of the process
_AGAIN = 0.5  # … from a second signal
_TOGETHER = (
    0.5  # seconds in which several signals count as one: shells and systems send them together
)
_HANGUP = getattr(signal, 'SIGHUP', None)  # Windows has none
_SIGNALS = [number for number in (signal.SIGTERM, signal.SIGINT, _HANGUP) if number]


class _Handler:
    """The signals of this process.

    Attributes:
        number: number of the first signal, or None.
        hint: effect of the next start, for the last line.
        postponed: whether the main thread ends the process itself, later.
        cleanups: functions called before the end.
    """

    def __init__(self):
        self.number: int | None = None
        self.hint = ''
        self.postponed = False
        self.cleanups: list[Callable[[], None]] = []
        self._stopping = False
        self._reported = threading.Lock()

    def start(self, hint: str, seconds: float) -> None:
        self.hint = hint
        inbox, self._outbox = socket.socketpair()
        self._outbox.setblocking(False)
        # Python itself writes a signal's number there, whatever the main thread is doing.
        signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        threading.Thread(
            target=self._watch, args=(inbox, seconds), name='signals', daemon=True
        ).start()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._handle)

    def _handle(self, number, _) -> None:
        """Called in the main thread as soon as it runs Python, possibly long after the signal."""
        self.number = self.number or number
        silence_closed_outputs()  # a failing print must not prevent the checkpoint
        if not (self.postponed or self._stopping):
            self.stop()

    def _watch(self, inbox: socket.socket, seconds: float) -> NoReturn:
        """Ends the process at the deadline; runs in a thread."""
        first = end = None
        while True:
            inbox.settimeout(None if end is None else max(1e-3, end - time.monotonic()))
            try:
                number, now = inbox.recv(1)[0], time.monotonic()
            except TimeoutError:
                self._end()
            if number not in _SIGNALS:
                continue
            self.number = self.number or number
            if first is None:
                first, end = now, now + seconds
            elif number != _HANGUP and now - first > _TOGETHER:
                end = min(end, now + _AGAIN)

    def stop(self) -> NoReturn:
        """Cleans up and ends the process; in the main thread."""
        self._stopping = True
        for cleanup in reversed(self.cleanups):
            with contextlib.suppress(Exception):  # the process ends in any case
                cleanup()
        with contextlib.suppress(OSError, RuntimeError, ValueError):  # busy writing, or closed
            sys.stdout.flush()
        self._end()

    def _end(self) -> NoReturn:
        multiprocessing = sys.modules.get('multiprocessing')
        for child in multiprocessing.active_children() if multiprocessing else ():
            child.kill()
        if self._reported.acquire(blocking=False):
            line = f'stopped by {signal.Signals(self.number).name}: {self.hint}\n'
            with contextlib.suppress(OSError):  # stderr is closed
                os.write(2, line.encode())
        os._exit(128 + self.number)


_handler = _Handler()


def handle(hint: str, seconds: float = _DEADLINE) -> None:
    """Handles SIGTERM, SIGINT and SIGHUP from now on; in the main thread only, before whatever takes long.

    Args:
        hint: effect of the next start, for the last line.
        seconds: longest time from the first signal to the end of the process.
    """
    open_closed_streams()  # before sockets get their numbers
    _handler.start(hint, seconds)


def received() -> int | None:
    """The number of the first signal, or None."""
    return _handler.number


def stop(hint: str) -> NoReturn:
    """Ends the process because of a signal, here or in another process of a multi-host run; `hint` as in `handle`."""
    _handler.number, _handler.hint = _handler.number or signal.SIGTERM, hint
    _handler.stop()


@contextlib.contextmanager
def on_stop(cleanup: Callable[[], None]) -> Iterator[None]:
    """Calls a function if a signal ends the process inside the block."""
    _handler.cleanups.append(cleanup)
    try:
        yield
    finally:
        _handler.cleanups.remove(cleanup)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Lets a signal wait for the end of the block, or for `stop` in it, up to the deadline or a second signal."""
    before, _handler.postponed = _handler.postponed, True
    try:
        yield
    finally:
        _handler.postponed = before
    if _handler.number and not before:
        _handler.stop()
