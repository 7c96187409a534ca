"""Progress of a whole run on stderr: one line that rewrites itself on a terminal, sparse lines in a log."""

import contextlib
import shutil
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax

from ser_jax.runtime import signals
from ser_jax.runtime.text import percent

_EVERY = 2.0  # seconds between two updates
_EVERY_IN_LOGS = 30.0


class Progress:
    """Reports the part of a run that is at work, the time since the start, and an estimate of the time left for all parts.

    What is left are training steps, at the rate so far, and tests, as long as those so far. Folds that wait and the final
    model are expected to stop as early as the folds that are done.

    Args:
        parts: names of all parts of the run, in order: folds, and 'final' for the final model.
        steps: part -> largest number of steps, for those that are not trained yet.
        tested: the parts that are tested.
        batch_size: utterances per step.
        conditions: whether conditions other than clean speech are tested, which takes noticeable time.
    """

    def __init__(
        self,
        parts: Sequence[str],
        steps: Mapping[str, int],
        tested: Iterable[str],
        *,
        batch_size: int,
        conditions: bool = False,
    ):
        folds = [part for part in parts if part != 'final']
        self._titles = {fold: f'{fold} ({k}/{len(folds)})' for k, fold in enumerate(folds, 1)}
        self._titles['final'] = 'final model'
        self._left, self._untested = dict(steps), set(tested)  # steps, parts
        self._batch_size, self._conditions = batch_size, conditions
        self._terminal = sys.stderr.isatty()
        self._open = False  # whether a line on the terminal is to be rewritten
        self._begin = time.monotonic()
        self._updated = -_EVERY  # when a line was last due, and shown
        self._shown = -_EVERY_IN_LOGS
        self._at: dict[str, int] = {}  # part -> last step that was reported
        # Time of the last report, if training goes on since; seconds and steps of training, without compiling.
        self._clock, self._seconds, self._steps = None, 0.0, 0
        # Share of their steps that finished folds took; seconds of a test.
        self._shares, self._tests = [], []

    def __enter__(self) -> 'Progress':
        self._ending = contextlib.ExitStack()
        self._ending.enter_context(signals.on_stop(self.end_line))
        return self

    def __exit__(self, *_) -> None:
        self.end_line()
        self._ending.close()

    def end_line(self) -> None:
        """Leaves the line on the terminal as it is: something else is printed next."""
        if self._open:
            self._open = False
            print(file=sys.stderr, flush=True)

    def say(self, part: str, text: str) -> None:
        """Reports something else than training steps."""
        self._clock = None
        self._show(f'{self._titles[part]}  {text}')

    def due(self) -> bool:
        """Whether it is time for another report."""
        return jax.process_index() == 0 and time.monotonic() - self._updated > _EVERY

    def step(self, part: str, step: int, stop: int, values: Mapping[str, float]) -> None:
        """Reports a training step of a part with its loss, and validation metrics after a validation."""
        now, made = time.monotonic(), step - self._at.get(part, step)
        if made and self._clock:
            self._seconds += now - self._clock
            self._steps += made
        first, validated = part not in self._at, step == stop or 'validation_uar' in values
        self._at[part], self._left[part], self._clock, self._updated = step, stop - step, now, now
        texts = [f'{self._titles[part]}  step {step}/{stop}', self._times()]
        if 'validation_uar' in values:
            texts.append(f'validation UAR {percent(values["validation_uar"])} %')
        if 'validation_ccc' in values:
            texts.append(f'CCC {values["validation_ccc"]:.3f}')
        texts.append(f'loss {values["loss"]:.3f}')
        if self._steps:
            texts.append(f'{self._steps / self._seconds * self._batch_size:.0f} utterances/s')
        if self._terminal or first or validated or now - self._shown > _EVERY_IN_LOGS:
            self._show('  '.join(texts))

    def finish(self, part: str) -> None:
        """Takes a part as trained."""
        left, at = self._left.pop(part, 0), self._at.get(part)
        if at:
            self._shares.append(at / (at + left))

    @contextlib.contextmanager
    def testing(self, part: str) -> Iterator[None]:
        """Measures the tests of a part."""
        self._clock, begin = None, time.monotonic()
        yield
        if part in self._untested:
            self._untested.remove(part)
            self._tests.append(time.monotonic() - begin)

    def test(self, part: str, number: int, total: int, name: str) -> None:
        """Reports the condition that is tested, as number of a total."""
        if self.due() and (self._terminal or time.monotonic() - self._shown > _EVERY_IN_LOGS):
            self._updated = time.monotonic()
            self._show(f'{self._titles[part]}  testing {number}/{total}  {self._times()}  {name}')

    def _times(self) -> str:
        """Time since the start and, once it can be estimated, time left."""
        text = f'{_clock(time.monotonic() - self._begin)} elapsed'
        share = statistics.mean(self._shares or [1.0])
        steps = sum(left * (1 if part in self._at else share) for part, left in self._left.items())
        if steps and not self._steps:
            return text
        left = steps * self._seconds / max(self._steps, 1)
        left += len(self._untested) * statistics.mean(self._tests or [0.0])
        unknown = ' + tests' if self._conditions and self._untested and not self._tests else ''
        return f'{text}, ETA {_clock(left)}{unknown}'

    def _show(self, text: str) -> None:
        if jax.process_index():
            return
        self._shown = time.monotonic()
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f'\r\x1b[K{text[:width]}', end='', file=sys.stderr, flush=True)
            self._open = True
        else:
            print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    """`4:31`, or `1:04:31`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02d}:{seconds:02d}' if hours else f'{minutes}:{seconds:02d}'
