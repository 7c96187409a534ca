"""Flags recordings that are too short, silent, clipped or do not sound like speech."""

import numpy as np
import scipy.fft

from ser_jax.audio.reading import CLIPPED_SHARE, clipped_share, is_silent

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

_ACTIVE_DB = 30  # below the loudest frame
_FEWEST = 10  # active frames: 0.2 s; less is a click
_VOICED = 0.6  # peak of the normalised autocorrelation


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


def _voicing(samples: np.ndarray, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """For the active frames: whether they are voiced, bool [T], and log10 of their spectral flatness, [T]."""
    size, hop = 4 * sample_rate // 100, 2 * sample_rate // 100  # 40 and 20 ms
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::hop].astype(np.float32)
    frames -= frames.mean(axis=1, keepdims=True)
    energy = (frames**2).mean(axis=1)
    frames = frames[energy > energy.max() * 10 ** (-_ACTIVE_DB / 10)]
    window = np.hanning(size).astype(np.float32)
    power = np.abs(scipy.fft.rfft(frames * window, 2 * size)) ** 2
    shortest, longest = sample_rate // 400, sample_rate // 70  # periods of 400 and 70 Hz
    autocorrelation = scipy.fft.irfft(power)[:, :longest]
    of_window = scipy.fft.irfft(np.abs(scipy.fft.rfft(window, 2 * size)) ** 2)[:longest]
    periodicity = autocorrelation / (autocorrelation[:, :1] + 1e-9) * (of_window[0] / of_window)
    band = np.maximum(power[:, 2 * size * 100 // sample_rate : 2 * size * 5000 // sample_rate], 1.0)
    flatness = np.log10(band).mean(axis=1) - np.log10(band.mean(axis=1))
    return periodicity[:, shortest:].max(axis=1) > _VOICED, flatness
