"""Ends a command on SIGTERM and SIGINT (Ctrl-C) within seconds: one line that says how to go on, exit status 143 or 130.

    if __name__ == '__main__':
        stopping.listen('the same command goes on from the last checkpoint')  # before slow imports
    ...
    if __name__ == '__main__':
        with stopping.in_order():
            main()

A signal raises `Stopped` in the main thread, or, inside `deferred`, waits until it is asked for. The main thread may be
in XLA for longer than anybody waits, where Python runs no handlers: a thread then ends the process.
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

_DEADLINE = 8.0  # seconds from the signal to the end of the process, come what may
_IDLE = 2.0  # … where nothing is to be saved, and the main thread does not react
_AGAIN = 0.5  # … from a second signal
_HEARD = 0  # among the numbers of signals: the main thread has been told


class Stopped(KeyboardInterrupt):
    """The command was told to end. A KeyboardInterrupt, so that nothing takes it for an error of its own."""


class _Listener:
    """What is known of the signals of this process.

    Attributes:
        number: of the signal that came, or None.
        how: to go on, for the line at the end.
    """

    def __init__(self):
        self.number: int | None = None
        self.how = ''
        self.in_order = self.deferring = self.saving = self.leaving = False
        self._signals = 0
        self._seconds = _DEADLINE
        self._said = threading.Lock()

    def start(self, how: str, seconds: float) -> None:
        self.how, self._seconds = how, seconds
        self._inbox, self._outbox = socket.socketpair()
        self._outbox.setblocking(False)
        # Python itself writes the number of a signal there, whatever the main thread is doing.
        signal.set_wakeup_fd(self._outbox.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name='stopping', daemon=True).start()
        self.handle_signals()

    def handle_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
                signal.signal(number, self._handle)

    def _handle(self, number, _) -> None:
        """Called in the main thread, as soon as it runs Python."""
        self.number = self.number or number
        self._signals += 1
        if not self.in_order:
            self.leave()
        self.heard()
        # From here on what goes wrong elsewhere, because of the end, is of no interest.
        sys.unraisablehook = threading.excepthook = lambda _: None
        if not self.leaving and (self._signals > 1 or not self.deferring):
            raise Stopped

    def heard(self) -> None:
        """Tells the thread that the main one reacts."""
        with contextlib.suppress(OSError):
            self._outbox.send(bytes([_HEARD]))

    def _watch(self) -> None:
        """Runs in a thread: ends the process at the deadline."""
        first = end = None
        signals = 0
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            if not select.select([self._inbox], [], [], left)[0]:
                self.leave()
            byte, now = self._inbox.recv(1)[0], time.monotonic()
            if byte not in (_HEARD, signal.SIGTERM, signal.SIGINT):
                continue
            first = first or now
            reacts = self.saving or (byte == _HEARD and not self.deferring)
            if byte != _HEARD:
                signals, self.number = signals + 1, self.number or byte
            if signals > 1:
                end = min(end, now + _AGAIN)
            else:
                end = first + (self._seconds if reacts else _IDLE)

    def say(self) -> None:
        """Prints the line, once."""
        if self._said.acquire(blocking=False):
            line = f'stopped by {signal.Signals(self.number).name}: {self.how}\n'
            os.write(2, line.encode())

    def leave(self) -> None:
        """Ends the process here and now; everything on disk is whole, or not taken for it."""
        self.say()
        os._exit(128 + self.number)


_listener = _Listener()


def listen(how: str, seconds: float = _DEADLINE) -> None:
    """Takes SIGTERM and SIGINT over; in the main thread only, before whatever takes long.

    Args:
        how: to go on after them, for the line at the end.
        seconds: from the signal to the end of the process, at most.
    """
    _listener.start(how, seconds)


def listen_again() -> None:
    """Takes the signals back from a library that took them over."""
    if _listener.how:
        _listener.handle_signals()


def requested() -> int | None:
    """The number of the signal that came, or None."""
    return _listener.number


def stop(how: str) -> None:
    """Ends the command, on a signal here or in another process of a run on several.

    Args:
        how: to go on, for the line at the end.

    Raises:
        Stopped: always.
    """
    _listener.number, _listener.how = _listener.number or signal.SIGTERM, how
    raise Stopped


@contextlib.contextmanager
def in_order() -> Iterator[None]:
    """Around a whole command: from here on a signal unwinds it, and it ends with the line instead of a traceback."""
    _listener.in_order = True
    try:
        yield
        return
    except BaseException:
        if not requested():
            raise
        _listener.leaving = True
    # Not the interpreter's own end, which waits for threads, and in which XLA has crashed.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    _listener.leave()


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Around work that wants to save something first.

    Yields:
        A function that tells whether to end. A signal waits for its next call, or for the end of the block; a second
        signal does not, and none waits long for the first call, before which there is nothing to save.

    Raises:
        Stopped: at the end of the block, where a signal has come.
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
        raise Stopped


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Around what must not be torn apart: a signal waits for the end of the block."""
    with deferred() as asked:
        asked()
        yield
