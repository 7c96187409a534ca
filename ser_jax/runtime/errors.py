"""User errors, and how commands report errors of the user and of the machine in one line."""

import contextlib
import errno
import os
import re
import select
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from typing import NoReturn

_SETTING = re.compile(
    r'[Ii]nvalid (?:truth )?value ["\']?(.*?)["\']? for (?:JAX flag|environment) ["\']?(\w+)'
)
_JOINERS = '\u200c\u200d'  # parts of Persian words and of emoji


class UserError(Exception):
    """An error that the user can fix; one line: what is wrong, where, and the remedy.

    Commands print it without a traceback and exit with a non-zero status. All other exceptions are bugs and keep theirs.
    """

    def __str__(self) -> str:
        """The message as one printable line, whatever file names and cells it cites."""
        return printable(super().__str__())


def printable(text: str) -> str:
    """Escapes characters that are not printable: line breaks, and control characters that terminals obey."""
    keep = lambda c: c.isprintable() or unicodedata.category(c) == 'Zs' or c in _JOINERS
    return ''.join(c if keep(c) else ascii(c)[1:-1] for c in text)


def open_closed_streams() -> None:
    """Opens the null device for standard input and error where they are closed (`2>&-`).

    Otherwise the next file would get their number, and what is printed to standard error would go to standard output.

    Raises:
        SystemExit: standard output is closed.
    """
    for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # noqa: SIM115 (for the whole process)
            if name == 'stdout':
                sys.exit('error: standard output is closed: redirect it to a file, or to /dev/null')
            setattr(sys, name, stream)


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """Ends a command with one line and exit status 1 on errors of the machine.

    These are a full disk, a lost process of a multi-host run, a value of a `JAX_…` variable that JAX does not take, and a closed
    standard output (`… | head`, without a line).
    Characters that the terminal's encoding lacks are printed with backslashes. Warnings become one line each.
    """
    open_closed_streams()
    warnings.formatwarning = lambda message, *_: f'warning: {printable(str(message))}\n'
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, 'reconfigure'):
            output.reconfigure(errors='backslashreplace')
    try:
        yield
        sys.stdout.flush()
    except SystemExit as end:
        if end.code and _several_processes():
            _exit_now(end.code)
        raise
    except BrokenPipeError:
        if not silence_closed_outputs():
            raise
        sys.exit(1)
    except Exception as error:
        chain = list(_chain(error))
        full = next(filter(None, map(_full_disk, chain)), None)
        lost = next(filter(None, map(_lost_process, chain)), None)
        setting = next(filter(None, map(_bad_setting, chain)), None)
        if full:
            message = f'error: no room left on the disk: {full}; make room, and give the same command again'
        elif lost:
            message = (
                f'error: another process of this run is gone ({lost}): start all of them again'
            )
        elif setting:
            message = f'error: {setting}: correct the environment variable, or unset it'
        else:
            raise
        if _several_processes():
            _exit_now(message)
        sys.exit(message)


def silence_closed_outputs() -> bool:
    """Redirects standard output and error to the null device where their reader is gone (`… | head`, a closed terminal).

    Returns whether one of them was closed; otherwise a broken pipe was another one.
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


def _exit_now(code: str | int) -> NoReturn:
    """`sys.exit` that does not wait for the other processes of the run, which may never answer."""
    if isinstance(code, str):
        os.write(2, f'{code}\n'.encode())
    os._exit(1 if isinstance(code, str) else code)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _full_disk(error: BaseException) -> str | None:
    """What could not be written for lack of room; C++ libraries report it in the message only."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return str(error.filename or error.strerror)
    if 'No space left on device' in str(error) or 'Disk quota exceeded' in str(error):
        return str(error).partition('\n')[0][:200]
    return None


def _bad_setting(error: BaseException) -> str | None:
    """JAX's message about an environment variable: "JAX_DEBUG_NANS='maybe' is no value that JAX takes"."""
    found = isinstance(error, ValueError) and _SETTING.search(str(error))
    return found and f'{found[2].upper()}={found[1]!r} is no value that JAX takes'


def _lost_process(error: BaseException) -> str | None:
    """JAX's message about an unreachable process of a multi-host run."""
    if not _several_processes():
        return None
    signs = 'closed by peer', 'reset by peer', 'heartbeat timeout', 'UNAVAILABLE'
    message = str(error).partition('\n')[0]
    return message[:200] if any(sign in message for sign in signs) else None
