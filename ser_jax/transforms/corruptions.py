"""Corruptions of the waveform before the features: noise, babble, rooms, telephones, levels.

A corruption works on float32 [S] in [-1, 1] at 16 kHz, not silent, and returns float32 [S], which may leave that range:
only `clipping` and `mu_law` clip. All randomness comes from `rng`; seeded by (utterance, name), it corrupts an utterance
in the same way in every run. A new corruption is one function and its line in `CORRUPTIONS`.

`corrupt` returns a silent utterance unchanged, since no level is defined relative to silence. A silent noise recording is
an error: skipping it would report clean speech as noisy.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy

from ser_jax.audio.screening import SILENCE_PEAK
from ser_jax.runtime.call_strings import check_arguments, number_rule, parse_call
from ser_jax.runtime.errors import UserError

SAMPLE_RATE = 16000
VERSION = 1  # to be raised where equal call strings come to compute other waveforms: older caches are not read
_FRAME = 320  # 20 ms
_ACTIVE = 1e-3  # 30 dB below the loudest frame
_MU = 255.0

# Noise types that need no recordings -> slope: power falls as frequency to the power of -slope.
COLOURS = {'white': 0.0, 'pink': 1.0, 'brown': 2.0}


def _frame_energies(samples: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Energy and first sample of each frame of `size` samples; the last frame may be shorter."""
    starts = np.arange(0, len(samples), size)
    return np.add.reduceat(samples.astype(np.float64) ** 2, starts), starts


def active_power(samples: np.ndarray) -> float:
    """Mean power of the active part of a signal [S]: its 20 ms frames within 30 dB of the loudest; 0 for digital silence."""
    if not len(samples):
        return 0.0
    energy, starts = _frame_energies(samples, _FRAME)
    sizes = np.diff(starts, append=len(samples))
    active = energy >= energy.max() * _ACTIVE
    return float(energy[active].sum() / sizes[active].sum())


def _excerpt(name: str, clip: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """`length` samples of a clip from a random start; clips that are not longer are looped.

    Many clips hold events between pauses. The excerpt contains at least one whole active frame; otherwise a pause might be
    amplified to the requested level.
    """
    if not (np.abs(clip) >= SILENCE_PEAK / 32768).any():
        raise UserError(f'noise recording {name} is silent: it has no level to set; leave it out')
    spare = len(clip) - length
    if spare <= 0:
        return np.take(clip, rng.integers(len(clip)) + np.arange(length), mode='wrap')
    size = min(_FRAME, length)
    energy, starts = _frame_energies(clip, size)
    frame = rng.choice(starts[energy >= energy.max() * _ACTIVE])
    latest = min(frame, spare)
    start = rng.integers(min(max(frame + size - length, 0), latest), latest + 1)
    return clip[start : start + length]


def mix_at_snr(samples: np.ndarray, noise: np.ndarray, snr: float) -> np.ndarray:
    """Adds noise at a signal-to-noise ratio in dB between the active powers; [S], [S] -> float32 [S]."""
    scale = np.sqrt(active_power(samples) / active_power(noise) * 10 ** (-snr / 10))
    return (samples + scale * noise).astype(np.float32)


def babble(
    samples: np.ndarray,
    rng: np.random.Generator,
    clips: Mapping[str, np.ndarray],
    voices: int,
    snr: float,
) -> np.ndarray:
    """Adds several simultaneous voices, all at the same active level.

    Args:
        samples: speech, float32 [S].
        rng: source of the voices drawn and of the start in each.
        clips: name -> float32 [N], one for each speaker (other than the utterance's); looped where shorter than the speech.
        voices: number of voices.
        snr: ratio of speech to the sum of the voices, dB, see `mix_at_snr`.

    Returns:
        float32 [S].

    Raises:
        UserError: too few clips, or a silent one drawn (peak below -66 dBFS).
    """
    if len(clips) < voices:
        raise UserError(f'noise needs {voices} recordings to draw from, there are {len(clips)}')
    mixture = np.zeros(len(samples))
    for number in rng.choice(len(clips), voices, replace=False):
        name = sorted(clips)[number]
        voice = _excerpt(name, clips[name], len(samples), rng)
        mixture += voice / np.sqrt(active_power(voice))
    return mix_at_snr(samples, mixture, snr)


def noise(
    samples: np.ndarray, rng: np.random.Generator, clips: Mapping[str, np.ndarray], snr: float
) -> np.ndarray:
    """Adds an excerpt of one noise recording, drawn from `clips`, as `babble` adds one voice."""
    return babble(samples, rng, clips, 1, snr)


def coloured_noise(rng: np.random.Generator, samples: int, slope: float) -> np.ndarray:
    """Gaussian noise float32 [S], RMS 0.1, whose power falls as frequency to the power of -`slope` above 20 Hz."""
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20.0)
    spectrum = np.fft.rfft(rng.standard_normal(samples)) * frequency ** (-slope / 2)
    coloured = np.fft.irfft(spectrum, samples)
    return (0.1 * coloured / np.sqrt((coloured**2).mean())).astype(np.float32)


def reverberation(samples: np.ndarray, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """Simulates a room: the direct sound, then noise that decays by 60 dB in `seconds`; the energy stays, the tail is cut.

    The model of Polack (1988) with random signs as noise, so that every draw has exactly the same decay. The tail has the
    energy of the direct sound, as at the critical distance of a room.
    """
    length = int(seconds * SAMPLE_RATE)
    tail = 10 ** (-3 * np.arange(1, length + 1) / length) * rng.choice([-1.0, 1.0], length)
    response = np.concatenate([[1.0], tail / np.linalg.norm(tail)])
    dry = samples.astype(np.float64)
    wet = scipy.signal.fftconvolve(dry, response)[: len(dry)]
    return (wet * (np.linalg.norm(dry) / np.linalg.norm(wet))).astype(np.float32)


@functools.cache
def _telephone_filter() -> np.ndarray:
    """300 to 3400 Hz within 1.3 dB; 40 dB down below 200 and above 4000 Hz."""
    return scipy.signal.cheby2(8, 40, (200, 4000), 'bandpass', fs=SAMPLE_RATE, output='sos')


def telephone(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Limits speech to the telephone band, 300 to 3400 Hz; float32 [S] -> float32 [S]."""
    return scipy.signal.sosfilt(_telephone_filter(), samples).astype(np.float32)


def mu_law(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Encodes with 8 bits (sign and 7) on the mu-law curve and decodes; float32 [S] -> float32 [S].

    The smooth curve with mu = 255, which ITU-T G.711 approximates by line segments. Zero stays zero, as in G.711; values
    beyond [-1, 1] are clipped.
    """
    level = np.log1p(_MU * np.minimum(np.abs(samples), 1.0)) / np.log1p(_MU)
    size = np.expm1(np.round(127 * level) / 127 * np.log1p(_MU)) / _MU
    return (np.sign(samples) * size).astype(np.float32)


def gain(samples: np.ndarray, rng: np.random.Generator, db: float) -> np.ndarray:
    """Makes float32 [S] louder or quieter by `db`, without clipping."""
    return (samples * 10 ** (db / 20)).astype(np.float32)


def clipping(samples: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Clips the loudest `share` of float32 [S], digital zeros not counted."""
    limit = np.quantile(np.abs(samples[samples != 0]), 1 - share)
    return np.clip(samples, -limit, limit).astype(np.float32)


def _is_type(x) -> bool:
    return isinstance(x, str) and re.fullmatch('[a-z0-9_]+', x) is not None


# name -> (function, rules of its arguments: argument -> (test, the requirement as text)).
CORRUPTIONS: dict[str, tuple[Callable, dict[str, tuple[Callable, str]]]] = {
    'noise': (
        noise,
        {
            'type': (_is_type, "a word in quotes, e.g. 'rain' or 'dog_bark'"),
            'snr': number_rule(-60, 60),
        },
    ),
    'babble': (babble, {'voices': number_rule(1, 100, whole=True), 'snr': number_rule(-60, 60)}),
    'reverberation': (reverberation, {'seconds': number_rule(0.05, 10)}),
    'telephone': (telephone, {}),
    'mu_law': (mu_law, {}),
    'gain': (gain, {'db': number_rule(-60, 60)}),
    'clipping': (clipping, {'share': number_rule(0, 0.9)}),
}


class Corruption(NamedTuple):
    """A parsed call string.

    Attributes:
        name: key of `CORRUPTIONS`.
        arguments: values in the order of the call string.
    """

    name: str
    arguments: tuple

    @property
    def recordings(self) -> str:
        """Config field that names the corpus of the recordings to mix in; '' if none are needed."""
        if self.name == 'noise' and self.arguments[0] not in COLOURS:
            return 'test_noise_corpus'
        return 'babble_corpus' if self.name == 'babble' else ''

    @property
    def condition(self) -> str:
        """Name in results: `noise_rain_5db`, `noise_babble6_0db`, `gain_-20`, `mu_law`."""
        texts = [value if isinstance(value, str) else f'{value:g}' for value in self.arguments]
        if self.name == 'noise':
            return f'noise_{texts[0]}_{texts[1]}db'
        if self.name == 'babble':
            return f'noise_babble{texts[0]}_{texts[1]}db'
        return '_'.join([self.name, *texts])


def parse_corruption(text: str) -> Corruption:
    """Parses a call string, e.g. `noise('rain', 5)`, `babble(6, 0)`, `reverberation(0.5)`, `telephone`.

    Raises:
        UserError: unknown corruption or wrong arguments.
    """
    name, arguments = parse_call(text, 'condition')
    if name not in CORRUPTIONS:
        raise UserError(f'corruption {name!r} does not exist; there are {", ".join(CORRUPTIONS)}')
    rules = CORRUPTIONS[name][1]
    check_arguments('corruption', text, name, arguments, rules)
    return Corruption(name, arguments)


def corrupt(
    corruption: Corruption,
    samples: np.ndarray,
    rng: np.random.Generator,
    clips: Mapping[str, np.ndarray] | None = None,
) -> np.ndarray:
    """Applies a parsed corruption to an utterance.

    Args:
        corruption: parsed corruption.
        samples: float32 [S] in [-1, 1] at 16 kHz.
        rng: random generator.
        clips: name -> float32 [N]: for noise the recordings of its type (none needed for the `COLOURS`), for babble the
            voices.

    Returns:
        float32 [S], not clipped; digital silence is returned unchanged.

    Raises:
        TypeError: samples that are not float32 [S]; int16 would otherwise be taken as far too loud without notice.
        UserError: too few clips, or a silent one.
    """
    if samples.dtype != np.float32 or samples.ndim != 1:
        raise TypeError(f'corrupt takes float32 [S], not {samples.dtype} {list(samples.shape)}')
    if not samples.any():
        return samples
    name, arguments = corruption
    if name == 'noise' and arguments[0] in COLOURS:
        length = max(len(samples), _FRAME)
        clips = {arguments[0]: coloured_noise(rng, length, COLOURS[arguments[0]])}
    if name in ('noise', 'babble'):
        arguments = (clips or {}, *(arguments if name == 'babble' else arguments[1:]))
    return CORRUPTIONS[name][0](samples, rng, *arguments)
