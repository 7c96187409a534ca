"""Decodes audio files of any format to mono int16 samples at one rate."""

import numbers
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from ser_jax.audio.containers import WithSize, find_samples, is_cut_off, other_content, unread_part
from ser_jax.audio.mp3 import WithFrameCount, find_frames
from ser_jax.runtime.errors import UserError

# A shorter recording, or one with a lower peak, holds no speech that could be labelled.
MIN_SECONDS = 0.1
SILENCE_PEAK = 16  # around the mean; -66 dBFS: above the dither of a muted 16-bit recorder, far below any speech
# Share of clipped samples from which a recording gets a note.
CLIPPED_SHARE = 1e-3
# Peak of floats up to which they are clipped, 1 = full scale: decoded lossy formats exceed 1 by up to 6 dB in clipped speech.
_HIGHEST_PEAK = 2.0
# Integer types of waveforms -> zero and full scale; 24-bit samples come as the upper bytes of int32.
_INTEGERS = {'uint8': (128, 128), 'int8': (0, 128), 'int16': (0, 1 << 15), 'int32': (0, 1 << 31)}

# A channel that is weaker than the loudest by this factor (power) is empty: an unplugged microphone. Channels whose mean
# is weaker by that one cancel each other; the mean of 16 independent channels is weaker by 1/16.
_EMPTY_CHANNEL, _CANCELLED = 1e-4, 1e-2
_UNKNOWN_FRAMES = 1 << 62
_BLOCK = 1 << 20  # frames decoded at once

# Endings of the formats of libsndfile, preferred ones first.
AUDIO_ENDINGS = (
    *('.wav', '.flac', '.ogg', '.mp3', '.oga', '.opus', '.aif', '.aiff', '.au', '.caf', '.w64'),
    *('.wave', '.bwf', '.rf64', '.amb', '.aifc', '.snd', '.mp1', '.mp2', '.mpga'),
    *('.sph', '.nist', '.voc', '.svx', '.8svx', '.sf', '.ircam', '.paf', '.fap', '.pvf'),
    *('.avr', '.htk', '.sds', '.wve'),
)
# Plausible sample rates, Hz; a damaged header may hold any number.
_RATES = 1000, 768_000

_TRUNCATED = 'truncated (shorter than its header says)'


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


def read_audio(path: str | os.PathLike, sample_rate: int = 16000) -> np.ndarray:
    """Reads wav, flac, ogg or mp3 of any rate, width and number of channels.

    Channels are averaged, then resampled (soxr, 'HQ'), then rounded to 16 bits; 16-bit mono files at
    `sample_rate` are returned bit for bit. The loudest channel is taken alone where the others are empty, or where the
    channels cancel each other (opposite polarity).

    Args:
        path: path of the file.
        sample_rate: sample rate of the result, Hz.

    Returns:
        int16 [S].

    Raises:
        AudioError: missing, empty, truncated, undecodable, without samples, not finite, or floats of another scale than
            [-1, 1].
    """
    return np.concatenate(list(read_blocks(path, sample_rate)))


def read_blocks(path: str | os.PathLike, sample_rate: int = 16000) -> Iterator[np.ndarray]:
    """Yields what `read_audio` returns in blocks, at bounded memory; arguments and errors as there."""
    import soundfile

    path = pathlib.Path(path)
    count = 0
    try:
        if not path.is_file():
            raise AudioError(path, _absence(path))
        if path.stat().st_size == 0:
            raise AudioError(path, 'empty file')
        with _open(path) as file:
            channels = _channels(_blocks(file, path)) if file.channels > 1 else [0]
        with _open(path) as file:
            if not _RATES[0] <= file.samplerate <= _RATES[1]:
                raise AudioError(path, f'implausible sample rate of {file.samplerate} Hz')
            for block in _resampled(file, path, sample_rate, channels):
                count += len(block)
                yield block
    except soundfile.LibsndfileError as error:
        reason = ' '.join(str(error.error_string).split()).rstrip('.')
        if reason.startswith('File does not exist'):  # said of files that might be mp3
            reason = 'no known format'
        reason = other_content(path) or f'cannot be decoded ({reason})'
        raise AudioError(path, reason) from error
    except OSError as error:
        raise AudioError(path, f'cannot be read ({error.strerror})') from error
    except TypeError as error:  # raised by soundfile for files without a header
        reason = other_content(path) or 'cannot be decoded (no header)'
        raise AudioError(path, reason) from error
    if not count:
        raise AudioError(path, 'no samples')


def _absence(path: pathlib.Path) -> str:
    """Why there is no file at a path."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return 'the locale has no characters for this name: set PYTHONUTF8=1'
    if path.is_dir():
        return 'a folder, not a file'
    if path.exists():
        return 'a pipe or device, which is not read: write it to a file first'
    return 'a link that leads nowhere' if path.is_symlink() else 'no such file'


def _system_name(path: str | os.PathLike) -> str | bytes:
    """A path for libsndfile: file names need not be valid text, except on Windows."""
    return str(path) if os.name == 'nt' else os.fsencode(path)


def _open(path: pathlib.Path):
    """Opens a file with libsndfile, up to its end where its header leaves that open.

    Raises:
        AudioError: the file is cut off or damaged, or holds more than would be read.
    """
    import soundfile

    length = path.stat().st_size
    with path.open('rb') as file:
        samples = find_samples(file, length)
        file.seek(0)
        unread = unread_part(file, length, samples)
    frames = find_frames(path)
    if is_cut_off(samples, length) or (frames and frames.is_cut_off):
        raise AudioError(path, _TRUNCATED)
    if unread:
        raise AudioError(path, unread)
    if frames and frames.is_misread:
        return soundfile.SoundFile(WithFrameCount(path, frames))
    if samples and samples.size is None and samples.field:
        return soundfile.SoundFile(WithSize(path, samples))
    file = soundfile.SoundFile(_system_name(path))
    if file.frames < _UNKNOWN_FRAMES:
        return file
    file.close()
    # FLAC from a pipe. soundfile would move to the end, which libsndfile cannot without the number of frames.
    stream = type('Stream', (soundfile.SoundFile,), {'seekable': lambda _: False})
    return stream(_system_name(path))


def _blocks(file, path: pathlib.Path) -> Iterator[np.ndarray]:
    """Yields the samples of an open file, float32 [S, channels]: an hour of 48 kHz stereo would take 1.4 GB."""
    count = 0
    while len(block := file.read(_BLOCK, dtype='float32', always_2d=True)):
        if not np.isfinite(block).all():
            raise AudioError(path, 'samples that are not finite')
        count += len(block)
        yield block
    if file.format == 'FLAC' and count < file.frames < _UNKNOWN_FRAMES:
        raise AudioError(path, _TRUNCATED)


def _channels(blocks: Iterable[np.ndarray]) -> list[int]:
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


def _resampled(
    file, path: pathlib.Path, sample_rate: int, channels: list[int]
) -> Iterator[np.ndarray]:
    """Yields the int16 samples of an open file in blocks.

    Concatenated they equal the resampled whole bit for bit.
    """
    import soxr

    other_rate = file.samplerate != sample_rate
    low = high = 0.0
    if other_rate:
        stream = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype='float32', quality='HQ')
    for block in _blocks(file, path):
        low, high = min(low, block.min()), max(high, block.max())
        mono = _average(block, channels)
        yield _as_int16(stream.resample_chunk(mono) if other_rate else mono)
    if other_rate:
        yield _as_int16(stream.resample_chunk(np.empty(0, np.float32), last=True))
    # Other encodings have a full scale of their own.
    if file.subtype in ('FLOAT', 'DOUBLE') and (problem := _scale_problem(low, high)):
        raise AudioError(path, problem)


def _average(samples: np.ndarray, channels: list[int]) -> np.ndarray:
    """[S, channels] -> [S]."""
    return samples[:, channels].mean(axis=1) if len(channels) > 1 else samples[:, channels[0]]


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
    samples = waveform.reshape(len(waveform), -1).astype(np.float32) - zero
    mono = _average(samples, _channels([samples]) if samples.shape[1] > 1 else [0]) / full
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
    return 'silent' if is_silent(samples, sample_rate) else None


def is_silent(samples: np.ndarray, sample_rate: int = 16000) -> bool:
    """Whether int16 samples [S] are silent or constant: none is `SILENCE_PEAK` away from their middle.

    10 ms at both ends do not count: a constant that was resampled oscillates there.
    """
    margin = sample_rate // 100
    inner = samples[margin:-margin] if len(samples) > 4 * margin else samples
    return int(inner.max()) - int(inner.min()) < 2 * SILENCE_PEAK
