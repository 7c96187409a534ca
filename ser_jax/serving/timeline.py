"""Emotion over time: windows of the speech in a recording, predicted and merged into segments."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ser_jax.audio import screening
from ser_jax.audio.activity import Activity, find_speech
from ser_jax.data.tasks import Task
from ser_jax.runtime.errors import UserError
from ser_jax.serving.predictor import Predictor
from ser_jax.serving.results import (
    HOP_SECONDS,
    HYSTERESIS,
    WINDOW_SECONDS,
    Prediction,
    Segment,
    Timeline,
    shared_flags,
)


def make_timelines(
    predictor: Predictor,
    recordings: Sequence[Callable[[], Iterable[np.ndarray]]],
    task: str | None = None,
) -> list[Timeline]:
    """Makes the timelines of recordings, which are read twice, block by block.

    Args:
        predictor: a loaded model.
        recordings: N functions that yield the samples at `predictor.front_end.sample_rate`, int16 [S] each.
        task: name of a classification; the first one by default.

    Returns:
        N timelines.

    Raises:
        UserError: no such classification, or an unusable file.
    """
    task = classification(predictor, task)
    rate = predictor.front_end.sample_rate
    found = [find_speech(blocks(), rate) for blocks in recordings]
    placed = [
        [place_windows(first, end, rate) for first, end in activity.regions] for activity in found
    ]
    cut = (
        _cut(blocks(), itertools.chain.from_iterable(regions))
        for blocks, regions in zip(recordings, placed)
        if regions
    )
    predicted = predictor.predict_windows(itertools.chain.from_iterable(cut))
    timelines = []
    for activity, regions in zip(found, placed):
        windows, segments = [], []
        for (first, end), spans in zip(activity.regions, regions):
            own = list(itertools.islice(predicted, len(spans)))
            windows += own
            segments += merge(own, task, first / rate, end / rate)
        timelines.append(
            Timeline(
                activity.samples / rate,
                task,
                activity.detector,
                tuple(segments),
                tuple(windows),
                _reason(activity, rate),
            )
        )
    return timelines


def _reason(activity: Activity, sample_rate: int) -> str:
    """The flag of a recording in which no speech was found."""
    if activity.samples < screening.SHORTEST_SECONDS * sample_rate:
        return 'too_short'
    return 'silent' if activity.span < 2 * screening.SILENCE_PEAK else 'non_speech'


def classification(predictor: Predictor, name: str | None = None) -> Task:
    """The classification of a name, or the first one.

    Raises:
        UserError: the model has none of this name, or none at all.
    """
    tasks = [task for task in predictor.tasks if task.kind == 'classification']
    for task in tasks:
        if name in (None, task.name):
            return task
    if not tasks:
        raise UserError('segments need a classification; this model only rates')
    raise UserError(f'{name!r} is none of the classifications {", ".join(x.name for x in tasks)}')


def place_windows(first: int, end: int, sample_rate: int) -> list[tuple[int, int]]:
    """Covers a region of speech with equally spaced windows; a short region is one window.

    Args:
        first, end: region, samples.
        sample_rate: Hz.

    Returns:
        (first sample, end) of each window.
    """
    window, hop = int(WINDOW_SECONDS * sample_rate), int(HOP_SECONDS * sample_rate)
    if end - first <= window:
        return [(first, end)]
    count = 1 + -(-(end - first - window) // hop)
    starts = np.linspace(first, end - window, count).astype(int).tolist()
    return [(start, start + window) for start in starts]


def merge(windows: Sequence[Prediction], task: Task, start: float, end: float) -> list[Segment]:
    """Merges the windows of a region of speech into segments.

    The first window has its most probable class; each later one keeps the label before it until another class is more
    probable by `HYSTERESIS`. A window stands for the time that is closer to its centre than to others. A window without
    a label ends a segment.

    Args:
        windows: windows of the region, in order.
        task: a classification.
        start, end: of the region, seconds.
    """
    centres = np.array([(window.start + window.end) / 2 for window in windows])
    edges = [start, *((centres[1:] + centres[:-1]) / 2).tolist(), end]
    labels, label = [], None
    for window in windows:
        if window.labelled:
            values = window.outputs[task.name]
            if label is None or values.max() >= values[label] + HYSTERESIS:
                label = int(values.argmax())
        else:
            label = None
        labels.append(label)
    segments = []
    for label, numbers in itertools.groupby(range(len(windows)), lambda number: labels[number]):
        if label is not None:
            own = list(numbers)
            probabilities = [windows[number].outputs[task.name][label] for number in own]
            segments.append(
                Segment(
                    edges[own[0]],
                    edges[own[-1] + 1],
                    task.classes[label],
                    float(np.mean(probabilities)),
                    shared_flags(windows[own[0] : own[-1] + 1]),
                )
            )
    return segments


def _cut(
    blocks: Iterable[np.ndarray], spans: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first sample, samples) of spans, whose starts and ends rise; a span and a block are held at most."""
    blocks, held, first = iter(blocks), np.empty(0, np.int16), 0
    for start, end in spans:
        while first + len(held) < end:
            block = next(blocks, None)
            if block is None:
                raise UserError('a recording became shorter while it was read')
            over = min(max(0, start - first), len(held))
            held, first = np.concatenate([held[over:], block]), first + over
        yield start, held[start - first : end - first]
