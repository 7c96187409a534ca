"""A small source-filter synthesiser: glottal pulses and noise through moving formants, in a room.

After Klatt, 'Software for a cascade/parallel formant synthesizer', JASA 67 (1980): voiced sounds pass a cascade of
five resonators, friction a band-pass filter; pulses after Rosenberg, JASA 49 (1971), type B.
"""

import dataclasses

import numpy as np
import scipy.signal

from tfds_builders.core.utterance import Utterance
from tfds_builders.demo_speech import voices
from tfds_builders.demo_speech.voices import CONSONANTS, VOWELS, Prosody, Speaker, Syllable

RATE = 16000
# Samples per value of the control tracks: 5 ms.
_HOP = 80
_BANDWIDTHS = np.array([70.0, 100.0, 150.0, 220.0, 300.0])


@dataclasses.dataclass
class _Tracks:
    """Controls over time, one value every 5 ms [n]: formants [n, 5] Hz, voicing and its stress in dB, pitch in semitones."""

    formants: np.ndarray
    voicing: np.ndarray
    pitch: np.ndarray
    bursts: list[tuple[int, int, float, tuple[int, int]]]  # first and last frame, level, band


def _smooth(track: np.ndarray, width: int) -> np.ndarray:
    """Moving Hann average over `width` frames along the first axis: the inertia of the articulators."""
    kernel = np.hanning(width + 2)[1:-1]
    padded = np.pad(track, [(width // 2, width // 2)] + [(0, 0)] * (track.ndim - 1), 'edge')
    smooth = scipy.signal.convolve(
        padded, (kernel / kernel.sum()).reshape(-1, *[1] * (track.ndim - 1)), 'valid'
    )
    return smooth[: len(track)]


def _phones(
    text: list[Syllable], speaker: Speaker, prosody: Prosody, reduction: float, rng
) -> list[tuple[str, float, int]]:
    """(sound, seconds, syllable) in order; the last syllable is lengthened."""
    speed = speaker.rate * 2**prosody.rate
    phones = []
    for number, syllable in enumerate(text):
        scale = (1.0 if syllable.stressed else reduction) / speed
        if number == len(text) - 1:
            scale *= 1.4
        for sound, length in (
            (syllable.onset, 0.075),
            (syllable.vowel, 0.125),
            (syllable.coda, 0.07),
        ):
            if sound:
                phones.append((sound, length * scale * 2 ** rng.normal(0, 0.12), number))
    return phones


def _tracks(text: list[Syllable], phones: list, speaker: Speaker, prosody: Prosody, rng) -> _Tracks:
    """Arranges sounds and pitch in time."""
    lead, tail = rng.integers(8, 30, 2)
    frames = [max(4, round(seconds * RATE / _HOP)) for _, seconds, _ in phones]
    total = int(lead + sum(frames) + tail)
    formants = np.zeros((total, 3))
    voicing = np.zeros(total)
    decibels = np.zeros(total)
    centres, bursts = {}, []
    start = int(lead)
    for (sound, _, number), length in zip(phones, frames):
        end = start + length
        stress = prosody.contrast * (0.5 if text[number].stressed else -0.5)
        decibels[start:end] = stress
        if sound in VOWELS:
            formants[start:end] = VOWELS[sound]
            voicing[start:end] = 1.0
            centres[number] = (start, end)
        else:
            consonant = CONSONANTS[sound]
            formants[start:end] = consonant.formants
            voicing[start:end] = consonant.voicing
            if consonant.noise:
                onset = end - 4 if consonant.stop else start
                bursts.append((onset, end, consonant.noise * 10 ** (stress / 20), consonant.band))
        start = end
    formants[:lead], formants[start:] = formants[lead], formants[start - 1]
    scale = speaker.tract * (1 + prosody.smile)
    upper = np.broadcast_to([3500.0, 4500.0], (total, 2))
    formants = np.concatenate([_smooth(formants, 11), upper], axis=1) * scale
    voicing = _smooth(voicing * 10 ** (decibels / 20), 5)
    pitch = _pitch(text, centres, int(lead), start, total, speaker, prosody, rng)
    return _Tracks(np.clip(formants, 150, 7200), voicing, pitch, bursts)


def _pitch(
    text, centres, begin: int, end: int, total: int, speaker: Speaker, prosody: Prosody, rng
) -> np.ndarray:
    """Pitch in semitones above 1 Hz, [total]: declination, an accent a stressed syllable, a final movement."""
    span = speaker.pitch_range * 2**prosody.pitch_range
    time = np.arange(total)
    progress = np.clip((time - begin) / max(1, end - begin), 0, 1)
    track = -2.0 * span * (progress - 0.5)
    for number, (first, last) in centres.items():
        if not text[number].stressed:
            continue
        length = last - first
        # Accents peak before the vowel and fall through it, or rise towards its end.
        peak = (first + last) / 2 + prosody.accent * 0.7 * length
        width = max(4.0, 0.9 * length)
        height = 3.0 * span * 2 ** rng.normal(0, 0.25)
        track += height * np.exp(-0.5 * ((time - peak) / width) ** 2)
    track += prosody.final * np.clip((progress - 0.75) / 0.25, 0, 1) ** 1.5
    wander = _smooth(rng.normal(0, 1, total), 61)
    track += 0.5 * wander / (wander.std() + 1e-9)
    voiced = track[begin:end]
    # The contour moves around the mean pitch, which is a separate cue.
    return track - voiced.mean() + 12 * np.log2(speaker.pitch) + prosody.pitch


def _source(tracks: _Tracks, speaker: Speaker, prosody: Prosody, rng) -> np.ndarray:
    """Glottal pulses with jitter and shimmer, tilted, plus breath: [samples]."""
    total = len(tracks.voicing) * _HOP
    time = np.arange(total)
    grid = np.arange(len(tracks.voicing)) * _HOP
    hertz = np.interp(time, grid, 2 ** (tracks.pitch / 12))
    cycles = np.cumsum(hertz / RATE)
    count = int(cycles[-1])
    marks = np.interp(np.arange(1, count + 1), cycles, time)
    jitter = min(0.04, speaker.jitter * 2**prosody.jitter)
    marks = marks + jitter * np.gradient(marks) * rng.normal(0, 1, count)
    marks = np.maximum.accumulate(marks)
    position = np.interp(time, marks, np.arange(count))
    period, phase = np.divmod(position, 1.0)
    shimmer = 1 + 3 * jitter * rng.normal(0, 1, count + 1)
    opening = float(np.clip(speaker.open_quotient + prosody.open_quotient, 0.4, 0.85))
    rise, fall = 0.67 * opening, 0.33 * opening
    flow = np.where(
        phase < rise,
        0.5 * (1 - np.cos(np.pi * phase / rise)),
        np.where(phase < opening, np.cos(0.5 * np.pi * (phase - rise) / fall), 0.0),
    )
    # The lips radiate the derivative; per sample it grows with pitch, hence the scaling.
    pulses = np.diff(flow, prepend=0.0) * shimmer[period.astype(int)] * RATE / hertz
    corner = float(np.clip(speaker.tilt * 2**prosody.tilt, 300, 6000))
    pole = np.exp(-2 * np.pi * corner / RATE)
    pulses = scipy.signal.lfilter([1 - pole], [1, -pole], pulses)
    breath = float(np.clip(speaker.breath + prosody.breath, 0.0, 0.2))
    noise = breath * rng.normal(0, 1, total) * (0.3 + flow)
    return (pulses + noise) * np.interp(time, grid, tracks.voicing)


def _formant_sections(formants: np.ndarray) -> np.ndarray:
    """Klatt resonators as second-order sections: [n, 5] Hz -> [n, 5, 6]."""
    radius = np.exp(-np.pi * _BANDWIDTHS / RATE)
    b = 2 * radius * np.cos(2 * np.pi * formants / RATE)
    c = np.broadcast_to(-(radius**2), b.shape)
    zeros, ones = np.zeros_like(b), np.ones_like(b)
    return np.stack([1 - b - c, zeros, zeros, ones, -b, -c], axis=-1)


def _vocal_tract(source: np.ndarray, formants: np.ndarray) -> np.ndarray:
    """Filters in blocks of 5 ms with continuous filter state."""
    sections = _formant_sections(formants)
    state = np.zeros((sections.shape[1], 2))
    result = np.empty_like(source)
    for n in range(len(sections)):
        piece = slice(n * _HOP, (n + 1) * _HOP)
        result[piece], state = scipy.signal.sosfilt(sections[n], source[piece], zi=state)
    return result


def _friction(tracks: _Tracks, speaker: Speaker, rng) -> np.ndarray:
    """Bands of noise for fricatives and bursts: [samples]."""
    result = np.zeros(len(tracks.voicing) * _HOP)
    for first, last, level, (centre, width) in tracks.bursts:
        length = (last - first) * _HOP
        low = np.clip((centre - width / 2) * speaker.tract, 200, 6500)
        high = np.clip((centre + width / 2) * speaker.tract, low + 300, 7600)
        band = scipy.signal.butter(2, [low, high], 'bandpass', fs=RATE, output='sos')
        noise = scipy.signal.sosfilt(band, rng.normal(0, 1, length))
        edge = min(160, length // 3)
        fade = np.interp(np.arange(length), [0, edge, length - edge, length], [0, 1, 1, 0])
        result[first * _HOP : last * _HOP] += level * fade * noise / (noise.std() + 1e-9)
    return result


def _room(signal: np.ndarray, speaker: Speaker, name: str) -> np.ndarray:
    """The speaker's room and microphone: decaying echoes, a tilted and rippled frequency response."""
    rng = voices.rng('room', name)
    length = int(0.25 * RATE)
    time = np.arange(length) / RATE
    echoes = rng.normal(0, 1, length) * np.exp(-6.9 * time / max(speaker.room, 0.01))
    echoes[: int(0.004 * RATE)] = 0
    impulse = np.zeros(length)
    impulse[0] = 1.0
    impulse += 0.35 * echoes / (np.sqrt((echoes**2).sum()) + 1e-9)
    spectrum = np.fft.rfft(signal, len(signal) + length)
    spectrum *= np.fft.rfft(impulse, len(signal) + length)
    position = np.linspace(0, 1, len(spectrum))
    ripple = sum(
        rng.normal(0, 1.0) * np.cos(np.pi * k * position + rng.uniform(0, 2 * np.pi))
        for k in range(2, 7)
    )
    spectrum *= 10 ** ((speaker.channel * (position - 0.3) * 2 + ripple) / 20)
    return np.fft.irfft(spectrum, len(signal) + length)[: len(signal)]


def synthesise(name: str, emotion: str, script: str) -> np.ndarray:
    """Speaks a text of `voices.scripts` with an emotion: int16 [S] at 16 kHz, the same on every call."""
    speaker = voices.speaker(name)
    prosody, _ = voices.prosody(name, emotion, script)
    rng = voices.rng('sound', name, emotion, script)
    text = voices.syllables(script)
    phones = _phones(text, speaker, prosody, voices.reduction(script), rng)
    tracks = _tracks(text, phones, speaker, prosody, rng)
    voiced = _vocal_tract(_source(tracks, speaker, prosody, rng), tracks.formants)
    loud = voiced[np.abs(voiced) > 1e-6]
    voiced /= np.sqrt((loud**2).mean()) + 1e-9
    signal = voiced + 0.35 * _friction(tracks, speaker, rng)
    signal = _room(signal, speaker, name)
    # Loudness must not reveal the emotion: equal levels, then a gain that varies more than between emotions.
    signal /= np.sqrt((signal**2).mean()) + 1e-9
    signal += 10 ** (-speaker.noise_level / 20) * rng.normal(0, 1, len(signal))
    gain = -27.0 + speaker.level + prosody.level + rng.uniform(-5, 5)
    return np.clip(np.rint(signal * 10 ** (gain / 20) * 32768), -32768, 32767).astype(np.int16)


def load(utterance: Utterance, sample_rate: int) -> np.ndarray:
    """The samples of an utterance, from its speaker, emotion and script: int16 [S]."""
    samples = synthesise(utterance.speaker.split('/')[1], utterance.emotion, utterance.script)
    if sample_rate != RATE:
        import soxr

        samples = soxr.resample(samples, RATE, sample_rate, quality='HQ')
    return samples
