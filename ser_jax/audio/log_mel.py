"""Log-mel front end of the records: 16 kHz int16 samples -> natural log of mel power.

NumPy with librosa's filters: builders run it in many small processes, into which `librosa.feature` would bring its
imports.
"""

import dataclasses
import functools

import numpy as np

# Frames transformed at once, to limit the memory (4096 frames are 41 s, 8 MB).
_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class FrontEnd:
    """Parameters of the log-mel front end, stored with every prepared corpus and checked when it is opened.

    Attributes:
        sample_rate: samples per second of the input.
        n_fft: length of the Fourier transform, samples.
        win_length: length of the Hann window (centred in `n_fft`), samples.
        hop_length: samples between frames.
        n_mels: number of mel bands (Slaney scale and normalisation).
        fmin: lower edge of the lowest band, Hz.
        fmax: upper edge of the highest band, Hz.
        floor: added to the mel power before the logarithm, so that digital zeros (16 % of RAVDESS) stay finite.
    """

    sample_rate: int = 16000
    n_fft: int = 512
    win_length: int = 400
    hop_length: int = 160
    n_mels: int = 80
    fmin: float = 20.0
    fmax: float = 8000.0
    floor: float = 1e-6

    def frames(self, samples: int) -> int:
        """Number of frames T of `samples` samples: 1 + S // hop_length."""
        return 1 + samples // self.hop_length


DEFAULT_FRONT_END = FrontEnd()


@functools.lru_cache(maxsize=8)
def mel_matrix(front_end: FrontEnd) -> np.ndarray:
    """Slaney mel filters from `librosa.filters.mel`.

    Returns:
        float32 [1 + n_fft // 2, n_mels], a right factor. The first call of a process takes about a second (librosa's
        lazy imports): cached, and passed to workers.
    """
    import librosa

    filters = librosa.filters.mel(
        sr=front_end.sample_rate,
        n_fft=front_end.n_fft,
        n_mels=front_end.n_mels,
        fmin=front_end.fmin,
        fmax=front_end.fmax,
    )
    return np.ascontiguousarray(filters.T.astype(np.float32))


@functools.lru_cache(maxsize=8)
def _window(front_end: FrontEnd) -> np.ndarray:
    """Periodic Hann window of `win_length`, centred in `n_fft` as librosa does it; float32 [n_fft]."""
    n = np.arange(front_end.win_length)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / front_end.win_length)
    left = (front_end.n_fft - front_end.win_length) // 2
    window = np.zeros(front_end.n_fft, np.float32)
    window[left : left + front_end.win_length] = hann
    return window


def log_mel(
    samples: np.ndarray, front_end: FrontEnd = DEFAULT_FRONT_END, mel: np.ndarray | None = None
) -> np.ndarray:
    """Natural log of (mel power + floor), equal to `log(librosa.feature.melspectrogram(...) + floor)`.

    Args:
        samples: int16 [S] at `front_end.sample_rate`; scaled by 1 / 32768. S may be 0.
        front_end: parameters.
        mel: `mel_matrix(front_end)`, if available (workers of a pool).

    Returns:
        float32 [T, n_mels], T = 1 + S // hop_length; frames are centred, the signal padded with zeros.

    Raises:
        TypeError: samples are not int16 [S] (floats would silently be scaled twice).
    """
    samples = np.asarray(samples)
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise TypeError(f'log_mel takes int16 [S], not {samples.dtype} {list(samples.shape)}')
    return log_mel_of_signal(samples.astype(np.float32) / np.float32(32768), front_end, mel)


def log_mel_of_signal(
    signal: np.ndarray, front_end: FrontEnd = DEFAULT_FRONT_END, mel: np.ndarray | None = None
) -> np.ndarray:
    """`log_mel` [T, n_mels] of a scaled signal, float32 [S], which may exceed [-1, 1] (corrupted speech)."""
    if mel is None:
        mel = mel_matrix(front_end)
    frames = front_end.frames(len(signal))
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(signal, front_end.n_fft // 2), front_end.n_fft
    )
    windows = windows[:: front_end.hop_length][:frames]
    window = _window(front_end)
    result = np.empty((frames, front_end.n_mels), np.float32)
    for start in range(0, frames, _BLOCK):
        spectrum = np.fft.rfft(windows[start : start + _BLOCK] * window)
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
        result[start : start + _BLOCK] = np.log(power @ mel + np.float32(front_end.floor))
    return result
