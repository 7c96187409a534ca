"""The error every module raises when the user, not the code, is to mend something, and what commands say of a machine's faults."""

import contextlib
import errno
import os
import select
import sys
import unicodedata
from collections.abc import Iterator
from typing import NoReturn

_JOINERS = '\u200c\u200d'  # parts of Persian words and of emoji


class UserError(Exception):
    """A mistake of the user, said in one line: what was wrong, where, what to do.

    The commands print it without a traceback and exit non-zero; all other exceptions are our own bugs and keep theirs.
    """

    def __str__(self) -> str:
        """The message in one line; names and cells that it cites may hold anything."""
        return printable(super().__str__())


def printable(text: str) -> str:
    """A text in which what is not printable is escaped: line breaks, and characters that terminals obey."""
    keep = lambda c: c.isprintable() or unicodedata.category(c) == 'Zs' or c in _JOINERS
    return ''.join(c if keep(c) else ascii(c)[1:-1] for c in text)


@contextlib.contextmanager
def faults_told() -> Iterator[None]:
    """Around a command: ends it with one line, exit status 1, where the fault lies with the machine.

    That is no room left on the disk, another process of a run on several hosts that is gone, or nobody who reads on. Names of files that
    are no text are written with backslashes.
    """
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, 'reconfigure'):
            output.reconfigure(errors='backslashreplace')
    try:
        yield
        sys.stdout.flush()
    except SystemExit as end:
        if end.code and _several_processes():
            _leave(end.code)
        raise
    except BrokenPipeError:
        if not silence_closed_outputs():
            raise
        sys.exit(1)
    except Exception as error:
        chain = list(_chain(error))
        full = next(filter(None, map(_without_room, chain)), None)
        gone = next(filter(None, map(_lost_process, chain)), None)
        if full:
            told = f'no room left on the disk: {full}; make room, and give the same command again'
        elif gone:
            told = f'another process of this run is gone ({gone}): start all of them again'
        else:
            raise
        if _several_processes():
            _leave(f'error: {told}')
        sys.exit(f'error: {told}')


def silence_closed_outputs() -> bool:
    """Lets standard output and error go nowhere where nobody reads them any more, as after `… | head` or in a terminal that is closed.

    Returns:
        Whether there was one of them; else, where a pipe broke, it was another.
    """
    if not hasattr(select, 'poll'):  # Windows
        return False
    outputs, found = select.poll(), False
    for output in (1, 2):
        outputs.register(output, 0)
    with contextlib.suppress(OSError):
        for output, event in outputs.poll(0):
            if event & (select.POLLERR | select.POLLHUP):
                found = True
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, output)
                os.close(nowhere)
    return found


def _several_processes() -> bool:
    jax = sys.modules.get('jax')
    return jax is not None and jax.distributed.is_initialized()


def _leave(code: str | int) -> NoReturn:
    """`sys.exit` that does not wait for the other processes, who may never come: they see that this one is gone."""
    if isinstance(code, str):
        os.write(2, f'{code}\n'.encode())
    os._exit(1 if isinstance(code, str) else code)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _without_room(error: BaseException) -> str | None:
    """What could not be written, where that is what an exception is about; libraries in C++ say so in words only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(error.filename or error.strerror)
    if 'No space left on device' in str(error) or 'Disk quota exceeded' in str(error):
        return str(error).partition('\n')[0][:200]
    return None


def _lost_process(error: BaseException) -> str | None:
    """How JAX tells of a process that it cannot reach, where there are several."""
    if not _several_processes():
        return None
    words = 'closed by peer', 'reset by peer', 'heartbeat timeout', 'UNAVAILABLE'
    told = str(error).partition('\n')[0]
    return told[:200] if any(word in told for word in words) else None
