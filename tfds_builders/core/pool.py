"""A process pool over utterances with a progress bar."""

import collections
import concurrent.futures
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence

import tqdm

from ser_jax.runtime import signals
from ser_jax.runtime.errors import UserError

# Environment of the workers and of the resource tracker, which would warn of the semaphores that it removes after a signal.
_ENVIRONMENT = {
    'OPENBLAS_NUM_THREADS': '1',
    'OMP_NUM_THREADS': '1',
    'PYTHONWARNINGS': 'ignore:resource_tracker',
}
# Fewer items take less time than starting a second process (spawn: about 0.5 s).
_MIN_ITEMS = 200
_CHUNK = 8


def default_workers() -> int:
    """Number of cores that this process may run on."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _bare_start() -> Iterator[None]:
    """Starts spawned processes without the parent's main module, and with one BLAS thread each.

    Spawning imports the parent's main module again: JAX for a training script (0.8 s a process), a second run of
    itself for a notebook or a script without a `__main__` guard. The workers need neither.
    """
    main = sys.modules['__main__']
    # Ctrl-C goes to the whole process group, and only the parent handles it. The workers inherit the mask.
    mask = _block_interrupts()
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    sys.modules['__main__'] = types.ModuleType('__main__')
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        sys.modules['__main__'] = main
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if mask is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _block_interrupts() -> set | None:
    """Blocks the signals of a terminal in this thread; returns the previous mask, or None on Windows."""
    if not hasattr(signal, 'pthread_sigmask'):
        return None
    return signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})


def _start_worker() -> None:
    """In a worker: ignores the signals of a terminal, and ends when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'SIGHUP'):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _apply(function: Callable, items: Sequence, arguments: tuple) -> list:
    return [function(item, *arguments) for item in items]


def pool_map(
    function: Callable,
    items: Sequence,
    arguments: tuple = (),
    *,
    workers: int | None = None,
    description: str = '',
) -> Iterator:
    """`function(item, *arguments)` for every item, in order, in spawned processes.

    Spawned, because forking after JAX has started its threads can deadlock. Only a few chunks are in flight, so
    that results do not pile up. The progress bar goes to stderr, and only to a terminal.

    Args:
        function: function that is importable by name and has no side effects.
        items: first arguments of the function.
        arguments: further arguments, the same for all items.
        workers: processes; 1 = this process only; None = one per core, this process only for few items.
        description: label of the progress bar.

    Yields:
        The results.

    Raises:
        UserError: a worker was killed, usually for lack of memory.
    """
    if workers is None:
        workers = default_workers() if len(items) >= _MIN_ITEMS else 1
    with tqdm.tqdm(total=len(items), desc=description, unit='utt', disable=None) as bar:
        if workers <= 1:
            for item in items:
                yield function(item, *arguments)
                bar.update()
            return
        chunks = [items[i : i + _CHUNK] for i in range(0, len(items), _CHUNK)]
        context = multiprocessing.get_context('spawn')
        with signals.postponed(), _bare_start():
            executor = concurrent.futures.ProcessPoolExecutor(
                workers, mp_context=context, initializer=_start_worker
            )
        with executor:
            pending = collections.deque()
            try:
                for chunk in chunks:
                    with signals.postponed(), _bare_start():  # processes start inside submit
                        pending.append(executor.submit(_apply, function, chunk, arguments))
                    if len(pending) >= 4 * workers:
                        yield from _finish(pending.popleft(), bar)
                while pending:
                    yield from _finish(pending.popleft(), bar)
            finally:
                # Reached early when the consumer stops (--strict, Ctrl-C): drop the rest.
                for future in pending:
                    future.cancel()


def _finish(future: concurrent.futures.Future, bar: tqdm.tqdm) -> Iterator:
    try:
        results = future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise UserError('a worker process was killed (out of memory?): try --workers=1') from error
    for result in results:
        yield result
        bar.update()
