"""The waveform and spectrogram of a recording of any length, reduced to the columns of a picture."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from ser_jax.audio.activity import split_frames
from ser_jax.audio.log_mel import DEFAULT_FRONT_END, log_mel, mel_matrix

_COLUMNS = 1200


@dataclasses.dataclass(frozen=True)
class Overview:
    """A recording in C columns of equal duration.

    Attributes:
        low, high: extremes of the samples, 1 = full scale, float32 [C].
        log_mel: mean over the frames of each column, float32 [C, F].
        band_hz: centre of each band, Hz, [F].
    """

    low: np.ndarray
    high: np.ndarray
    log_mel: np.ndarray
    band_hz: np.ndarray


def make_overview(blocks: Iterable[np.ndarray], samples: int) -> Overview:
    """Reduces a recording, block by block.

    Args:
        blocks: samples at 16 kHz, int16 [S] each.
        samples: length of the recording.
    """
    front_end = DEFAULT_FRONT_END
    frames = max(1, -(-samples // (_COLUMNS * front_end.hop_length)))  # a column
    extremes, spectra = [], []
    for columns, _ in split_frames(blocks, frames * front_end.hop_length):
        if len(columns):
            extremes.append(np.stack([columns.min(1), columns.max(1)]))
            mel = log_mel(columns.reshape(-1), front_end)[
                :-1
            ]  # the last frame is the next column's
            spectra.append(mel.reshape(len(columns), frames, -1).mean(1))
    low, high = np.concatenate(extremes, axis=1) / np.float32(32768)
    peaks = mel_matrix(front_end).argmax(0) * front_end.sample_rate / front_end.n_fft
    return Overview(low, high, np.concatenate(spectra), peaks)
