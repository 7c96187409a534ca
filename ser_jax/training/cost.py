"""Cost of training: seconds of training, compiling and waiting for data, and memory."""

import contextlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax

from ser_jax.runtime.files import write_atomically

_COMPILING = '/jax/core/compile/backend_compile_duration'
_compiled = [0.0]  # seconds that this process has spent in XLA's compiler


def _listen(event: str, seconds: float, **_) -> None:
    if event == _COMPILING:
        _compiled[0] += seconds


jax.monitoring.register_event_duration_secs_listener(_listen)


class Meter:
    """Measures the training of one fold over all its starts, from its construction on.

    Args:
        batch_size: utterances per step.
        path: file of the cost up to the last checkpoint (`save`), which a later start reads.
    """

    def __init__(self, batch_size: int, path: Path):
        self._batch_size = batch_size
        self._path = path
        self._before = {'seconds': 0.0, 'compiling': 0.0, 'waiting': 0.0, 'steps': 0}
        # Where the file is damaged or missing only earlier times are lost.
        with contextlib.suppress(OSError, ValueError):
            before = json.loads(path.read_text())
            if isinstance(before, dict) and before.keys() == self._before.keys():
                self._before = before
        self._waited = 0.0
        self._steps = 0
        self._seconds = self._compiling = 0.0  # until the last pause
        self.resume(1)

    def resume(self, runs: int) -> None:
        """Resumes measuring; of `runs` folds that train side by side each counts an equal share of the time."""
        self._runs, self._begin, self._compiled = runs, time.monotonic(), _compiled[0]

    def pause(self) -> None:
        """Stops measuring while the fold waits, or others are tested."""
        self._seconds, self._compiling = self._measured()
        self._runs = 0

    def _measured(self) -> tuple[float, float]:
        """Seconds of training and of compiling in this start."""
        if not self._runs:
            return self._seconds, self._compiling
        seconds = (time.monotonic() - self._begin) / self._runs
        compiling = (_compiled[0] - self._compiled) / self._runs
        return self._seconds + seconds, self._compiling + compiling

    def batches(self, batches: Iterable) -> Iterator:
        """Passes the training batches through, and counts them and the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            begin = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.monotonic() - begin
            self._steps += 1
            yield batch

    def _spent(self) -> dict[str, float]:
        seconds, compiling = self._measured()
        now = {
            'seconds': seconds,
            'compiling': compiling,
            'waiting': self._waited,
            'steps': self._steps,
        }
        return {name: self._before[name] + value for name, value in now.items()}

    def save(self) -> None:
        """Saves the cost until now; the cost between the last save and a kill is lost."""
        if jax.process_index() == 0:
            write_atomically(self._path, json.dumps(self._spent()))

    def total(self) -> dict[str, float]:
        """The `cost` of a result card."""
        spent = self._spent()
        seconds, compiling = spent['seconds'], spent['compiling']
        rate = spent['steps'] * self._batch_size / max(seconds - compiling, 1e-9)
        return {
            'train_seconds': seconds,
            'compile_seconds': compiling,
            'utterances_per_second': rate,
            'peak_memory_mb': peak_memory_mb(),
            'data_wait_fraction': spent['waiting'] / max(seconds, 1e-9),
        }


def peak_memory_mb() -> float | None:
    """Peak resident memory of this process, MiB; None on Windows."""
    try:
        # ru_maxrss would include the parent process up to the fork.
        with open('/proc/self/status', encoding='ascii', errors='replace') as file:
            peak = [line for line in file if line.startswith('VmHWM')]
        return int(peak[0].split()[1]) / 2**10
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    unit = 2**20 if sys.platform == 'darwin' else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
