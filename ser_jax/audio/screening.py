"""Checks waveforms: what is no audio is refused, the rest becomes mono int16, is cut into windows and flagged.

Needs NumPy only (and soxr to resample): every export contains a copy of this file.
"""

import numbers
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

# Shorter recordings are not utterances of a corpus; those with a lower peak hold no speech that could be labelled.
MIN_SECONDS = 0.1
SILENCE_PEAK = 16  # around the mean; -66 dBFS: above the dither of a muted 16-bit recorder, far below any speech
# Share of clipped samples from which a recording gets a note.
CLIPPED_SHARE = 1e-3
# Peak of floats up to which they are clipped, 1 = full scale: decoded lossy formats exceed 1 by up to 6 dB in clipped speech.
HIGHEST_PEAK = 2.0
# Plausible sample rates, Hz; a damaged header may hold any number.
RATES = 1000, 768_000
# Integer types of waveforms -> zero and full scale; 24-bit samples come as the upper bytes of int32.
INTEGERS = {'uint8': (128, 128), 'int8': (0, 128), 'int16': (0, 1 << 15), 'int32': (0, 1 << 31)}

# Shorter than most words; no training corpus has utterances this short.
SHORTEST_SECONDS = 0.5
# Minimum share of voiced frames among the active ones, and minimum spread of their tonality: speech alternates between
# voiced and noise-like sounds, most noise and machines do not. Animals, babies and music pass as speech.
# `python -m benchmarks.screening` counts the flags of a corpus.
VOICED_SHARE, TONALITY_SPREAD = 0.3, 0.25
FLAGS = {
    'too_short': 'too short to be labelled',
    'silent': 'silent: no label',
    'clipped': 'clipped: overdriven speech is easily taken for anger',
    'non_speech': 'does not sound like speech: no label',
}
# Flags that suppress the label.
NO_LABEL = ('too_short', 'silent', 'non_speech')

# A channel that is weaker than the loudest by this factor (power) is empty: an unplugged microphone. Channels whose mean
# is weaker by that one cancel each other; the mean of 16 independent channels is weaker by 1/16.
_EMPTY_CHANNEL, _CANCELLED = 1e-4, 1e-2
_BLOCK = 1 << 20  # samples that are converted to float64 at once
_ACTIVE_DB = 30  # below the loudest frame
_FEWEST = 10  # active frames: 0.2 s; less is a click
_VOICED = 0.6  # peak of the normalised autocorrelation


def problem(waveform: np.ndarray, sample_rate: float) -> str | None:
    """Why samples in memory are no recording: another type, shape or scale, or no plausible rate; None if they are one.

    Args:
        waveform: [S] or [S, channels], floats in [-1, 1], or integers (uint8, int8, int16, int32) of their type's full scale.
        sample_rate: sample rate of the waveform, Hz.
    """
    if waveform.dtype.name not in INTEGERS and waveform.dtype.kind != 'f':
        return f'a waveform holds floats in [-1, 1] or {", ".join(INTEGERS)}, not {waveform.dtype}'
    number = isinstance(sample_rate, numbers.Real) and not isinstance(sample_rate, bool)
    if not number or not RATES[0] <= sample_rate <= RATES[1]:
        return f'the sample rate is {sample_rate!r}; it must be a number from {RATES[0]} to {RATES[1]} (Hz)'
    if waveform.ndim not in (1, 2) or not waveform.size:
        return f'a waveform is [samples] or [samples, channels], not {waveform.shape}'
    if waveform.ndim == 2 and waveform.shape[1] > waveform.shape[0]:
        return f'a waveform of several channels is [samples, channels], not {waveform.shape}'
    return floats_problem(waveform) if waveform.dtype.kind == 'f' else None


def floats_problem(waveform: np.ndarray, highest: float = HIGHEST_PEAK) -> str | None:
    """Why floats are no waveform: not finite, or not in [-1, 1], exceeded up to `highest`; None if they are one."""
    low, high = float(waveform.min()), float(waveform.max())
    if not np.isfinite([low, high]).all():
        return 'the waveform has samples that are not finite'
    found = scale_problem(low, high, highest)
    return found and f'the waveform holds {found}'


def scale_problem(low: float, high: float, highest: float = HIGHEST_PEAK) -> str | None:
    """What is wrong with floats from `low` to `high`; None where they have the scale [-1, 1], exceeded up to `highest`."""
    peak = max(-low, high)
    if peak <= highest:
        return None
    bits = next((bits for bits in (16, 24, 32) if 128 < peak <= 2 ** (bits - 1)), None)
    factor = f'{2 ** (bits - 1)} ({bits}-bit samples)' if bits else f'one number from {peak:.6g} up'
    return f'floats from {low:.6g} to {high:.6g}, not in [-1, 1]: divide all of them by {factor}'


def to_mono(waveform: np.ndarray, sample_rate: float, target_rate: int) -> np.ndarray:
    """Converts samples in memory as `reading.read_audio` does those of a file.

    Args:
        waveform, sample_rate: without a `problem`.
        target_rate: sample rate of the result, Hz.

    Returns:
        int16 [S'].
    """
    zero, full = INTEGERS.get(waveform.dtype.name, (0, 1))
    samples = waveform.reshape(len(waveform), -1).astype(np.float32) - zero
    blocks = (samples[start : start + _BLOCK] for start in range(0, len(samples), _BLOCK))
    mono = average(samples, used_channels(blocks) if samples.shape[1] > 1 else [0]) / full
    if sample_rate != target_rate:
        import soxr

        mono = soxr.resample(mono, sample_rate, target_rate, quality='HQ')
    return as_int16(mono)


def used_channels(blocks: Iterable[np.ndarray]) -> list[int]:
    """The channels to average: all, or the loudest alone where the others are empty or the channels cancel each other.

    Args:
        blocks: samples [S, channels].
    """
    count, total, products = 0, 0.0, 0.0
    for block in blocks:
        wide = block.astype(np.float64)
        count += len(wide)
        total += wide.sum(axis=0)
        products += wide.T @ wide
    if not count:
        return [0]
    covariance = products / count - np.outer(total, total) / count**2
    power = np.diag(covariance)
    used = power >= _EMPTY_CHANNEL * power.max()
    if used.sum() == 1 or covariance[np.ix_(used, used)].mean() < _CANCELLED * power.max():
        return [int(power.argmax())]
    return list(range(len(power)))


def average(samples: np.ndarray, channels: list[int]) -> np.ndarray:
    """[S, channels] -> [S]."""
    return samples[:, channels].mean(axis=1) if len(channels) > 1 else samples[:, channels[0]]


def as_int16(samples: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1], clipped -> int16."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def windows(
    blocks: Iterable[np.ndarray], longest: int, window: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Cuts a recording into consecutive windows; the last one ends with the recording and may overlap with the one before.

    Args:
        blocks: the samples, int16 [S] each; `longest` or two windows, and a block, are held at most.
        longest: samples up to which a recording is a single window.
        window: length of the windows of longer ones, samples, not above `longest`.

    Yields:
        (first sample, samples) of each window.
    """
    start, held, before = 0, np.empty(0, np.int16), np.empty(0, np.int16)
    for block in blocks:
        held = np.concatenate([held, block])
        while len(held) > (window if start else longest):
            yield start, held[:window]
            start, before, held = start + window, held[:window], held[window:]
    if not start:
        yield 0, held
        return
    held = np.concatenate([before, held])
    last = held[-window:]
    yield start - len(before) + len(held) - len(last), last


def clipped_share(samples: np.ndarray) -> float:
    """Share of int16 samples at the 16-bit limit; clipping below full scale is not detected."""
    return float(np.mean(np.abs(samples.astype(np.int32)) >= 32767))


def is_silent(samples: np.ndarray, sample_rate: int = 16000) -> bool:
    """Whether int16 samples [S] are silent or constant: none is `SILENCE_PEAK` away from their middle.

    10 ms at both ends do not count: a constant that was resampled oscillates there.
    """
    margin = sample_rate // 100
    inner = samples[margin:-margin] if len(samples) > 4 * margin else samples
    return int(inner.max()) - int(inner.min()) < 2 * SILENCE_PEAK


def screen(samples: np.ndarray, sample_rate: int = 16000) -> tuple[str, ...]:
    """Finds the flags of a recording.

    Args:
        samples: int16 [S].
        sample_rate: Hz.

    Returns:
        The keys of FLAGS that apply.
    """
    if len(samples) < SHORTEST_SECONDS * sample_rate:
        return ('too_short',)
    if is_silent(samples, sample_rate):
        return ('silent',)
    voiced, tonality = _voicing(samples, sample_rate)
    if len(voiced) < _FEWEST:
        return ('silent',)
    flags = ('clipped',) if clipped_share(samples) > CLIPPED_SHARE else ()
    if voiced.mean() < VOICED_SHARE or tonality.std() < TONALITY_SPREAD:
        flags += ('non_speech',)
    return flags


def has_label(flags: Iterable[str]) -> bool:
    """Whether none of the flags suppresses the label."""
    return not set(flags) & set(NO_LABEL)


def merge(flags: Sequence[Iterable[str]]) -> tuple[list[int], tuple[str, ...]]:
    """Merges the flags of the windows of a recording.

    Args:
        flags: W results of `screen`.

    Returns:
        Numbers of the windows that count: those with a label, or all where none has; and the flags of the recording, all
        that occur in them: a silent pause between sentences is no flaw of a recording, clipping anywhere is.
    """
    used = [i for i, found in enumerate(flags) if has_label(found)]
    used = used or list(range(len(flags)))
    return used, union(flags[i] for i in used)


def union(flags: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """The flags that occur in any of several results of `screen`."""
    found = {flag for one in flags for flag in one}
    return tuple(flag for flag in FLAGS if flag in found)


def _voicing(samples: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """For the active frames: whether they are voiced, bool [T], and log10 of their spectral flatness, [T]."""
    size, hop = 4 * sample_rate // 100, 2 * sample_rate // 100  # 40 and 20 ms
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop].astype(np.float32)
    frames -= frames.mean(axis=1, keepdims=True)
    energy = (frames**2).mean(axis=1)
    frames = frames[energy > energy.max() * 10 ** (-_ACTIVE_DB / 10)]
    window = np.hanning(size).astype(np.float32)
    power = np.abs(np.fft.rfft(frames * window, 2 * size)) ** 2
    shortest, longest = sample_rate // 400, sample_rate // 70  # periods of 400 and 70 Hz
    autocorrelation = np.fft.irfft(power)[:, :longest]
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, 2 * size)) ** 2)[:longest]
    periodicity = autocorrelation / (autocorrelation[:, :1] + 1e-9) * (of_window[0] / of_window)
    band = np.maximum(power[:, 2 * size * 100 // sample_rate : 2 * size * 5000 // sample_rate], 1.0)
    flatness = np.log10(band).mean(axis=1) - np.log10(band.mean(axis=1))
    return periodicity[:, shortest:].max(axis=1) > _VOICED, flatness
