"""Decodes audio files of any format to mono int16 samples at one rate."""

import os
import pathlib
from collections.abc import Iterator

import numpy as np

from ser_jax.audio import screening
from ser_jax.audio.containers import WithSize, find_samples, is_cut_off, other_content, unread_part
from ser_jax.audio.mp3 import WithFrameCount, find_frames
from ser_jax.audio.screening import MIN_SECONDS, RATES, is_silent
from ser_jax.runtime.errors import UserError

_UNKNOWN_FRAMES = 1 << 62
_BLOCK = 1 << 20  # frames decoded at once

# Endings of the formats of libsndfile, preferred ones first.
AUDIO_ENDINGS = (
    *('.wav', '.flac', '.ogg', '.mp3', '.oga', '.opus', '.aif', '.aiff', '.au', '.caf', '.w64'),
    *('.wave', '.bwf', '.rf64', '.amb', '.aifc', '.snd', '.mp1', '.mp2', '.mpga'),
    *('.sph', '.nist', '.voc', '.svx', '.8svx', '.sf', '.ircam', '.paf', '.fap', '.pvf'),
    *('.avr', '.htk', '.sds', '.wve'),
)
_TRUNCATED = 'truncated (shorter than stated in its header)'


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
            channels = screening.used_channels(_blocks(file, path)) if file.channels > 1 else [0]
        with _open(path) as file:
            if not RATES[0] <= file.samplerate <= RATES[1]:
                raise AudioError(path, f'implausible sample rate of {file.samplerate} Hz')
            for block in _resampled(file, path, sample_rate, channels):
                count += len(block)
                yield block
    except soundfile.LibsndfileError as error:
        reason = ' '.join(str(error.error_string).split()).rstrip('.')
        if reason.startswith('File does not exist'):  # for files that might be mp3
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

    Raises AudioError where it is cut off or damaged, or holds more than would be read.
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
        mono = screening.average(block, channels)
        yield screening.as_int16(stream.resample_chunk(mono) if other_rate else mono)
    if other_rate:
        yield screening.as_int16(stream.resample_chunk(np.empty(0, np.float32), last=True))
    # Other encodings have a full scale of their own.
    if file.subtype in ('FLOAT', 'DOUBLE') and (problem := screening.scale_problem(low, high)):
        raise AudioError(path, problem)


def check_floats(waveform: np.ndarray, highest: float = screening.HIGHEST_PEAK) -> None:
    """Refuses floats that are not finite or not in [-1, 1].

    Args:
        waveform: floats, at least one.
        highest: peak up to which they may exceed full scale.

    Raises:
        UserError: it names the range, and the factor to divide by.
    """
    if problem := screening.floats_problem(waveform, highest):
        raise UserError(problem)


def to_mono(waveform: np.ndarray, sample_rate: float, target_rate: int = 16000) -> np.ndarray:
    """Converts samples in memory as `read_audio` does those of a file, see `screening.to_mono`.

    Raises:
        UserError: no samples, another shape, dtype or scale, not finite, or no plausible sample rate.
    """
    waveform = np.asarray(waveform)
    if problem := screening.problem(waveform, sample_rate):
        raise UserError(problem)
    return screening.to_mono(waveform, sample_rate, target_rate)


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
