"""Decodes audio files of any format to mono int16 samples at one rate."""

import numbers
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from ser_jax.runtime.errors import UserError

# A shorter recording, or one with a lower peak, holds no speech that could be labelled.
MIN_SECONDS = 0.1
SILENCE_PEAK = 16  # -66 dBFS: above the dither of a muted 16-bit recorder, far below any speech
# Share of clipped samples from which a recording gets a note.
CLIPPED_SHARE = 1e-3
# Peak of floats up to which they are clipped, 1 = full scale: decoded lossy formats exceed 1 by up to 6 dB in clipped speech.
_HIGHEST_PEAK = 2.0
# Integer types of waveforms -> zero and full scale; 24-bit samples come as the upper bytes of int32.
_INTEGERS = {'uint8': (128, 128), 'int8': (0, 128), 'int16': (0, 1 << 15), 'int32': (0, 1 << 31)}

_BLOCK = 1 << 20  # frames decoded at once

# Formats of libsndfile; of several files with the same name, the first ending counts.
AUDIO_ENDINGS = (
    '.wav',
    '.flac',
    '.ogg',
    '.mp3',
    '.oga',
    '.opus',
    '.aif',
    '.aiff',
    '.au',
    '.caf',
    '.w64',
)
# Plausible sample rates, Hz; a damaged header may hold any number.
_RATES = 1000, 768_000


class AudioError(UserError):
    """A file that cannot be used as audio.

    Attributes:
        path: path of the file.
        reason: the reason in a few words ('empty file', 'truncated', ...).
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f'{path}: {reason}')
        self.path = path
        self.reason = reason

    def __reduce__(self):
        # Exceptions pickle by their message only; this one is sent between processes.
        return AudioError, (str(self.path), self.reason)


def _truncated(path: pathlib.Path) -> bool:
    """Whether a RIFF header gives more bytes than the file has, as after an interrupted copy.

    libsndfile reads such files without an error. Programs that stream write sizes of 0 or near 2^31 or 2^32.
    """
    with path.open('rb') as file:
        head = file.read(12)
    if len(head) < 12 or head[:4] != b'RIFF' or head[8:12] != b'WAVE':
        return False
    size = int.from_bytes(head[4:8], 'little')
    if size == 0 or size >= 0x7FFFF000:
        return False
    # A byte of padding is often counted but not written.
    return size + 8 > path.stat().st_size + 1


def read_audio(path: str | os.PathLike, sample_rate: int = 16000) -> np.ndarray:
    """Reads wav, flac, ogg or mp3 of any rate, width and number of channels.

    Channels are averaged, then resampled (soxr, 'HQ'), then rounded to 16 bits; 16-bit mono files at
    `sample_rate` are returned bit for bit.

    Args:
        path: path of the file.
        sample_rate: sample rate of the result, Hz.

    Returns:
        int16 [S].

    Raises:
        AudioError: missing, empty, truncated, undecodable, without samples, not finite, or floats of another scale than
            [-1, 1].
    """
    import soundfile

    path = pathlib.Path(path)
    try:
        if not path.is_file():
            raise AudioError(path, 'no such file')
        if path.stat().st_size == 0:
            raise AudioError(path, 'empty file')
        if _truncated(path):
            raise AudioError(path, 'truncated (shorter than its header says)')
        with soundfile.SoundFile(_system_name(path)) as file:
            if not _RATES[0] <= file.samplerate <= _RATES[1]:
                raise AudioError(path, f'implausible sample rate of {file.samplerate} Hz')
            pieces = [np.empty(0, np.int16), *_resampled(file, path, sample_rate)]
    except soundfile.LibsndfileError as error:
        reason = ' '.join(str(error.error_string).split()).rstrip('.')
        raise AudioError(path, f'cannot be decoded ({reason})') from error
    except OSError as error:
        raise AudioError(path, f'cannot be read ({error.strerror})') from error
    except TypeError as error:  # raised by soundfile for files without a header
        raise AudioError(path, 'cannot be decoded (no header)') from error
    samples = np.concatenate(pieces)
    if not len(samples):
        raise AudioError(path, 'no samples')
    return samples


def _system_name(path: str | os.PathLike) -> str | bytes:
    """A path for libsndfile: file names need not be valid text, except on Windows."""
    return str(path) if os.name == 'nt' else os.fsencode(path)


def _resampled(file, path: pathlib.Path, sample_rate: int) -> Iterator[np.ndarray]:
    """Yields the int16 samples of an open file in blocks: an hour of 48 kHz stereo would take 1.4 GB.

    Concatenated they equal the resampled whole bit for bit.
    """
    import soxr

    other_rate = file.samplerate != sample_rate
    low = high = 0.0
    if other_rate:
        stream = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype='float32', quality='HQ')
    while True:
        block = file.read(_BLOCK, dtype='float32', always_2d=True)
        if not np.isfinite(block).all():
            raise AudioError(path, 'samples that are not finite')
        low, high = min(low, block.min(initial=0)), max(high, block.max(initial=0))
        mono = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        if other_rate:
            mono = stream.resample_chunk(mono, last=not len(block))
        yield _as_int16(mono)
        if not len(block):
            break
    # Other encodings have a full scale of their own.
    if file.subtype in ('FLOAT', 'DOUBLE') and (problem := _scale_problem(low, high)):
        raise AudioError(path, problem)


def _scale_problem(low: float, high: float, highest: float = _HIGHEST_PEAK) -> str | None:
    """What is wrong with floats from `low` to `high`; None where they have the scale [-1, 1], exceeded up to `highest`."""
    peak = max(-low, high)
    if peak <= highest:
        return None
    bits = next((bits for bits in (16, 24, 32) if 128 < peak <= 2 ** (bits - 1)), None)
    factor = f'{2 ** (bits - 1)} ({bits}-bit samples)' if bits else f'one number from {peak:.6g} up'
    return f'floats from {low:.6g} to {high:.6g}, not in [-1, 1]: divide all of them by {factor}'


def check_floats(waveform: np.ndarray, highest: float = _HIGHEST_PEAK) -> None:
    """Refuses floats that are not finite or not in [-1, 1].

    Args:
        waveform: floats, at least one.
        highest: peak up to which they may exceed full scale.

    Raises:
        UserError: it names the range, and the factor to divide by.
    """
    low, high = float(waveform.min()), float(waveform.max())
    if not np.isfinite([low, high]).all():
        raise UserError('the waveform has samples that are not finite')
    problem = _scale_problem(low, high, highest)
    if problem:
        raise UserError(f'the waveform holds {problem}')


def to_mono(waveform: np.ndarray, sample_rate: float, target_rate: int = 16000) -> np.ndarray:
    """Converts samples in memory as `read_audio` does those of a file.

    Args:
        waveform: [S] or [S, channels], floats in [-1, 1], or integers (uint8, int8, int16, int32) of their type's full scale.
        sample_rate: sample rate of the waveform, Hz.
        target_rate: sample rate of the result, Hz.

    Returns:
        int16 [S'].

    Raises:
        UserError: no samples, another shape, dtype or scale, not finite, or no plausible sample rate.
    """
    waveform = np.asarray(waveform)
    number = isinstance(sample_rate, numbers.Real) and not isinstance(sample_rate, bool)
    if not number or not _RATES[0] <= sample_rate <= _RATES[1]:
        raise UserError(
            f'the sample rate is {sample_rate!r}; it must be a number from {_RATES[0]} to {_RATES[1]} (Hz)'
        )
    if waveform.dtype.name not in _INTEGERS and waveform.dtype.kind != 'f':
        raise UserError(
            f'a waveform holds floats in [-1, 1] or {", ".join(_INTEGERS)}, not {waveform.dtype}'
        )
    if waveform.ndim not in (1, 2) or not waveform.size:
        raise UserError(f'a waveform is [samples] or [samples, channels], not {waveform.shape}')
    if waveform.ndim == 2 and waveform.shape[1] > waveform.shape[0]:
        raise UserError(
            f'a waveform of several channels is [samples, channels], not {waveform.shape}'
        )
    zero, full = _INTEGERS.get(waveform.dtype.name, (0, 1))
    if waveform.dtype.kind == 'f':
        check_floats(waveform)
    mono = (waveform.reshape(len(waveform), -1).astype(np.float32) - zero).mean(axis=1) / full
    if sample_rate != target_rate:
        import soxr

        mono = soxr.resample(mono, sample_rate, target_rate, quality='HQ')
    return _as_int16(mono)


def _as_int16(samples: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def clipped_share(samples: np.ndarray) -> float:
    """Share of int16 samples at the 16-bit limit; clipping below full scale is not detected."""
    return float(np.mean(np.abs(samples.astype(np.int32)) >= 32767))


def file_rate(path: str | os.PathLike) -> int:
    """Sample rate of a file that `read_audio` reads, Hz."""
    import soundfile

    return soundfile.info(_system_name(path)).samplerate


def file_seconds(path: str | os.PathLike) -> float:
    """Duration of a file by its header, seconds; 0 where it is unknown."""
    import soundfile

    try:
        return soundfile.info(_system_name(path)).duration
    except (OSError, TypeError, ZeroDivisionError, soundfile.LibsndfileError):
        return 0.0


def unusable_reason(samples: np.ndarray, sample_rate: int = 16000) -> str | None:
    """Why int16 samples [S] cannot be an utterance: 'too short (0.02 s)', 'silent'; None where they are usable."""
    if len(samples) < MIN_SECONDS * sample_rate:
        return f'too short ({len(samples) / sample_rate:.2f} s)'
    if int(np.abs(samples.astype(np.int32)).max()) < SILENCE_PEAK:
        return 'silent'
    return None
