"""One utterance of a corpus, and the pure functions that read its audio.

Imported by the processes of the pool, hence without TFDS.
"""

import collections
import dataclasses
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ser_jax.audio.log_mel import FrontEnd, log_mel
from ser_jax.audio.reading import AudioError, file_rate, read_audio, unusable_reason
from ser_jax.audio.screening import clipped_share


@dataclasses.dataclass(frozen=True)
class Utterance:
    """The labels of an utterance, before its audio is read. Missing: '' and NaN.

    Attributes:
        id: unique and stable: path without ending, relative to the corpus.
        path: the audio file; '' where the corpus synthesises its audio.
        emotion: name in the corpus' vocabulary.
        arousal: 1-5; likewise valence, dominance.
        speaker: unique across corpora, such as 'emodb/03'.
        session: recording session.
        script: code of the spoken text, the same for all speakers of it.
        language: ISO 639-1 code.
        gender: 'female' or 'male'.
    """

    id: str
    path: str = ''
    emotion: str = ''
    arousal: float = math.nan
    valence: float = math.nan
    dominance: float = math.nan
    speaker: str = ''
    session: str = ''
    script: str = ''
    language: str = ''
    gender: str = ''


@dataclasses.dataclass(frozen=True)
class Problem:
    """An utterance that cannot become a record, and the reason."""

    id: str
    reason: str


def grouped(problems: Sequence[tuple[str, str]], most: int | None) -> Iterator[str]:
    """One line 'NAME: REASON' a problem (name, reason).

    Of many of one kind the first `most` (None = all), and '… and N more: KIND' at the end.
    """
    kind = lambda reason: re.sub(r': there is .*(?=\))|[\d.]+(?= s\)| Hz)', '', reason)
    counts = collections.Counter()
    for name, reason in problems:
        counts[kind(reason)] += 1
        if most is None or counts[kind(reason)] <= most:
            yield f'{name}: {reason}'
    for reason, count in counts.items():
        if most is not None and count > most:
            yield f'… and {count - most} more: {reason}'


@dataclasses.dataclass(frozen=True)
class Recording:
    """The audio of an utterance: all that a record holds besides the labels.

    Attributes:
        waveform: int16 [S].
        log_mel: float32 [T, n_mels].
        audio_sha256: SHA-256 of the little-endian samples.
    """

    id: str
    waveform: np.ndarray
    log_mel: np.ndarray
    audio_sha256: str


def load_file(utterance: Utterance, sample_rate: int) -> np.ndarray:
    """Samples of an utterance that lies in a file: int16 [S]; raises AudioError."""
    return read_audio(utterance.path, sample_rate)


def record(
    utterance: Utterance,
    load: Callable[[Utterance, int], np.ndarray],
    front_end: FrontEnd,
    mel: np.ndarray,
) -> Recording | Problem:
    """The unit of work of every build: utterance -> its audio as stored in the record.

    Args:
        utterance: the utterance.
        load: (utterance, sample rate) -> int16 [S]; `load_file` or a synthesiser.
        front_end: log-mel parameters.
        mel: `ser_jax.audio.log_mel.mel_matrix(front_end)`.

    Returns:
        The recording, or the problem where the audio is missing, corrupt, silent or too short.
    """
    samples = _samples(utterance, load, front_end.sample_rate)
    if isinstance(samples, Problem):
        return samples
    return Recording(utterance.id, samples, log_mel(samples, front_end, mel), _digest(samples))


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Properties of an utterance's audio, for the doctor.

    Attributes:
        id: id of the utterance.
        sha256: the record's `audio_sha256`.
        seconds: duration.
        sample_rate: sample rate of the file, Hz; 0 without a file.
        clipped: share of the samples at the 16-bit limit.
        offset: absolute mean of the samples, 1 = full scale.
    """

    id: str
    sha256: str
    seconds: float
    sample_rate: int
    clipped: float
    offset: float


def measure(
    utterance: Utterance, load: Callable[[Utterance, int], np.ndarray], sample_rate: int
) -> Measurement | Problem:
    """The doctor's unit of work: the properties of an utterance's audio, or the problem with it."""
    samples = _samples(utterance, load, sample_rate)
    if isinstance(samples, Problem):
        return samples
    return Measurement(
        utterance.id,
        _digest(samples),
        len(samples) / sample_rate,
        file_rate(utterance.path) if utterance.path else 0,
        clipped_share(samples),
        float(abs(samples.mean()) / 32768),
    )


def _samples(utterance: Utterance, load: Callable, sample_rate: int) -> np.ndarray | Problem:
    try:
        samples = load(utterance, sample_rate)
    except AudioError as error:
        return Problem(utterance.id, error.reason)
    reason = unusable_reason(samples, sample_rate)
    return Problem(utterance.id, reason) if reason else samples


def _digest(samples: np.ndarray) -> str:
    return hashlib.sha256(samples.astype('<i2').tobytes()).hexdigest()
