"""What a run costs: seconds of training, of compiling, of waiting for data, and memory."""

import resource
import time
from collections.abc import Iterable, Iterator

import jax

_COMPILING = '/jax/core/compile/backend_compile_duration'
_compiled = [0.0]  # seconds that this process has spent in XLA's compiler


def _listen(event: str, seconds: float, **_) -> None:
    if event == _COMPILING:
        _compiled[0] += seconds


jax.monitoring.register_event_duration_secs_listener(_listen)


class Meter:
    """Measures the training of one fold, from its making to `total()`.

    Args:
        batch_size: utterances a step.
    """

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self._begin = time.monotonic()
        self._compiled = _compiled[0]
        self._waited = 0.0
        self._steps = 0

    def batches(self, batches: Iterable) -> Iterator:
        """Passes the batches of training through, counting them and the time they keep one waiting."""
        iterator = iter(batches)
        while True:
            asked = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited += time.monotonic() - asked
            self._steps += 1
            yield batch

    def total(self) -> dict[str, float]:
        """The `cost` of a result card."""
        seconds = time.monotonic() - self._begin
        compiling = _compiled[0] - self._compiled
        return {
            'train_seconds': seconds,
            'compile_seconds': compiling,
            'utterances_per_second': self._steps
            * self._batch_size
            / max(seconds - compiling, 1e-9),
            'peak_memory_mb': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            'data_wait_fraction': self._waited / max(seconds, 1e-9),
        }
