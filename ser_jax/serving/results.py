"""What a model says of a recording: a prediction, or a timeline of segments."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from ser_jax.audio import screening
from ser_jax.data.tasks import Task
from ser_jax.runtime.errors import UserError

# Windows of a timeline are about as long as the utterances that models are trained on (medians: nEMO 2.4 s, EMO-DB 2.6 s,
# RAVDESS 3.7 s). The hop is the resolution in time: each second of speech lies in three windows.
WINDOW_SECONDS, HOP_SECONDS = 3.0, 1.0
# Probability by which another class must exceed the current one before the label changes. How windows and hysteresis were
# checked: docs/predicting.md.
HYSTERESIS = 0.1


@dataclasses.dataclass(frozen=True)
class Prediction:
    """Outputs of a model for a recording, or for a window of one.

    Attributes:
        start, end: seconds.
        flags: doubts about the recording, see `screening.screen`.
        outputs: task -> probabilities float32 [K], or the rating [1] of a regression. For several windows the mean over
            those that have a label. None where no window has one.
        tasks: tasks of the model.
        windows: predictions of the windows of a long recording.
    """

    start: float
    end: float
    flags: tuple[str, ...]
    outputs: dict[str, np.ndarray] | None
    tasks: tuple[Task, ...] = dataclasses.field(repr=False)
    windows: tuple['Prediction', ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether there are outputs."""
        return self.outputs is not None

    def best(self, task: Task | str) -> str | float | None:
        """The most probable class of a task, or the rating of a regression; None if not `labelled`.

        Args:
            task: one of `tasks`, or its name.

        Raises:
            UserError: the model has no such task.
        """
        task = self._task(task)
        if not self.labelled:
            return None
        if task.kind == 'regression':
            return round(float(self.outputs[task.name][0]), 3)
        return task.classes[self.outputs[task.name].argmax()]

    def probabilities(self, task: Task | str) -> dict[str, float] | None:
        """Class -> probability; None for a regression and if not `labelled`. Arguments and errors as of `best`."""
        task = self._task(task)
        if not self.labelled or task.kind == 'regression':
            return None
        return dict(zip(task.classes, map(float, self.outputs[task.name])))

    def _task(self, wanted: Task | str) -> Task:
        name = wanted.name if isinstance(wanted, Task) else wanted
        for task in self.tasks:
            if task.name == name:
                return task
        raise UserError(
            f'there is no task {name!r}; the model has {", ".join(task.name for task in self.tasks)}'
        )


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of speech with one label.

    Attributes:
        start, end: seconds.
        label: class.
        confidence: mean probability of the class in its windows.
        flags: doubts about its windows, see `screening.FLAGS`; none of them suppresses the label.
    """

    start: float
    end: float
    label: str
    confidence: float
    flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Timeline:
    """Emotion over time in a recording.

    Attributes:
        duration: of the recording, seconds.
        task: the classification that labels the segments.
        detector: what found the speech, see `activity.Activity`.
        segments: in order; between them lies no speech, or speech without a label.
        windows: the predictions of all windows, in order.
        reason: flag of a recording without windows.
    """

    duration: float
    task: Task
    detector: str
    segments: tuple[Segment, ...]
    windows: tuple[Prediction, ...]
    reason: str = 'non_speech'

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags of the segments; where there are none, those of the windows, or 'non_speech'."""
        return shared_flags(self.segments or self.windows) if self.windows else (self.reason,)


def shared_flags(parts: Iterable[Prediction | Segment]) -> tuple[str, ...]:
    """The flags of any part of a recording."""
    return screening.union(part.flags for part in parts)
