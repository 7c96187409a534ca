"""Corruptions of the waveform before the features: what noise, rooms and telephones do to speech.

A corruption works on float32 [S] in [-1, 1] at 16 kHz, not silent, and returns float32 [S], which
may leave that range: only `clipping` and `mu_law` clip. All that is random comes from `rng`: made
from (utterance, name), it corrupts an utterance in the same way in every run. Adding a
corruption = a function and its line in `CORRUPTIONS`.

Two decisions. `corrupt` returns a silent utterance unchanged: nothing has a level relative to
silence. A silent noise recording is an error that names it: left out, clean speech would be called
noisy.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import scipy

from ser_jax.audio.reading import SILENCE_PEAK
from ser_jax.runtime.call_strings import check_arguments, number_rule, parse_call
from ser_jax.runtime.errors import UserError

SAMPLE_RATE = 16000
_FRAME = 320  # 20 ms
_ACTIVE = 1e-3  # 30 dB below the loudest frame
_MU = 255.0

# Noise that needs no recordings: type -> power falls as frequency to the power of minus this.
COLOURS = {'white': 0.0, 'pink': 1.0, 'brown': 2.0}


def _frame_energies(samples: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Energy and first sample of each frame of `size` samples; the last one may be shorter."""
    starts = np.arange(0, len(samples), size)
    return np.add.reduceat(samples.astype(np.float64) ** 2, starts), starts


def active_power(samples: np.ndarray) -> float:
    """Mean power of the active part of a signal: of its 20 ms frames within 30 dB of the loudest.

    Args:
        samples: [S].

    Returns:
        Power; 0 for digital silence and for no samples.
    """
    if not len(samples):
        return 0.0
    energy, starts = _frame_energies(samples, _FRAME)
    sizes = np.diff(starts, append=len(samples))
    active = energy >= energy.max() * _ACTIVE
    return float(energy[active].sum() / sizes[active].sum())


def _excerpt(name: str, clip: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """`length` samples of a clip from a random start, looped where it is not longer.

    Many clips hold events between pauses. The excerpt holds a whole active frame at least, or a
    pause might be amplified to the level asked for.
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


def babble(
    samples: np.ndarray,
    rng: np.random.Generator,
    clips: Mapping[str, np.ndarray],
    voices: int,
    snr: float,
) -> np.ndarray:
    """Adds several voices that speak at once, all at the same active level.

    Args:
        samples: speech, float32 [S].
        rng: draws the voices and where in each to begin.
        clips: name -> float32 [N], one a speaker (other than the utterance's); looped where shorter
            than the speech.
        voices: how many.
        snr: signal-to-noise ratio in dB, of the active parts of the speech and of what is added.

    Returns:
        float32 [S].

    Raises:
        UserError: too few clips, or one drawn is silent (its peak is below -66 dBFS).
    """
    if len(clips) < voices:
        raise UserError(f'noise needs {voices} recordings to draw from, there are {len(clips)}')
    added = np.zeros(len(samples))
    for number in rng.choice(len(clips), voices, replace=False):
        name = sorted(clips)[number]
        voice = _excerpt(name, clips[name], len(samples), rng)
        added += voice / np.sqrt(active_power(voice))
    scale = np.sqrt(active_power(samples) / active_power(added) * 10 ** (-snr / 10))
    return (samples + scale * added).astype(np.float32)


def noise(
    samples: np.ndarray, rng: np.random.Generator, clips: Mapping[str, np.ndarray], snr: float
) -> np.ndarray:
    """Adds an excerpt of one of several recordings of noise: `babble` of one voice."""
    return babble(samples, rng, clips, 1, snr)


def coloured_noise(rng: np.random.Generator, samples: int, slope: float) -> np.ndarray:
    """Gaussian noise whose power falls as frequency to the power of -`slope` above 20 Hz.

    Args:
        rng: draws it.
        samples: S, at least 2.
        slope: see `COLOURS`.

    Returns:
        float32 [S], root mean square 0.1.
    """
    frequency = np.maximum(np.fft.rfftfreq(samples, 1 / SAMPLE_RATE), 20.0)
    spectrum = np.fft.rfft(rng.standard_normal(samples)) * frequency ** (-slope / 2)
    coloured = np.fft.irfft(spectrum, samples)
    return (0.1 * coloured / np.sqrt((coloured**2).mean())).astype(np.float32)


def reverberation(samples: np.ndarray, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """A made-up room: the direct sound, then noise that decays by 60 dB in `seconds`.

    The model of Polack (1988), with noise of random signs, so that every draw decays exactly alike.
    The tail has the energy of the direct sound, as at the critical distance of a room.

    Args:
        samples: float32 [S].
        rng: draws the room.
        seconds: reverberation time T60.

    Returns:
        float32 [S] of the same energy; what rings on behind the end is cut.
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
    """Passes the band of a telephone only, 300 to 3400 Hz; float32 [S] -> float32 [S]."""
    return scipy.signal.sosfilt(_telephone_filter(), samples).astype(np.float32)


def mu_law(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Codes with 8 bits (sign and 7) on the mu-law curve, and decodes; float32 [S] -> float32 [S].

    The smooth curve, mu = 255, that ITU-T G.711 follows in straight pieces. Zero stays zero, as
    there; what is beyond [-1, 1] is clipped.
    """
    level = np.log1p(_MU * np.minimum(np.abs(samples), 1.0)) / np.log1p(_MU)
    size = np.expm1(np.round(127 * level) / 127 * np.log1p(_MU)) / _MU
    return (np.sign(samples) * size).astype(np.float32)


def gain(samples: np.ndarray, rng: np.random.Generator, db: float) -> np.ndarray:
    """Makes float32 [S] louder or quieter by `db`, without clipping."""
    return (samples * 10 ** (db / 20)).astype(np.float32)


def clipping(samples: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Clips the loudest `share` of float32 [S]; digital zeros are not counted."""
    limit = np.quantile(np.abs(samples[samples != 0]), 1 - share)
    return np.clip(samples, -limit, limit).astype(np.float32)


def _is_type(x) -> bool:
    return isinstance(x, str) and re.fullmatch('[a-z0-9_]+', x) is not None


# name -> (function, arguments of its call string: name -> (test, in words)).
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
        name: in `CORRUPTIONS`.
        arguments: as written.
    """

    name: str
    arguments: tuple

    @property
    def recordings(self) -> str:
        """Field of the config that names the corpus whose recordings it mixes in; '' where it needs none."""
        if self.name == 'noise' and self.arguments[0] not in COLOURS:
            return 'test_noise_corpus'
        return 'babble_corpus' if self.name == 'babble' else ''

    @property
    def condition(self) -> str:
        """Its name among results: `noise_rain_5db`, `noise_babble6_0db`, `gain_-20`, `mu_law`."""
        words = [word if isinstance(word, str) else f'{word:g}' for word in self.arguments]
        if self.name == 'noise':
            return f'noise_{words[0]}_{words[1]}db'
        if self.name == 'babble':
            return f'noise_babble{words[0]}_{words[1]}db'
        return '_'.join([self.name, *words])


def parse_corruption(text: str) -> Corruption:
    """Parses a call string.

    Args:
        text: e.g. `noise('rain', 5)`, `babble(6, 0)`, `reverberation(0.5)`, `telephone`.

    Returns:
        `Corruption`.

    Raises:
        UserError: no such corruption, or wrong arguments.
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
        corruption: of `parse_corruption`.
        samples: float32 [S] in [-1, 1] at 16 kHz.
        rng: draws all that is random.
        clips: name -> float32 [N]: for noise the recordings of its type (none needed for the
            `COLOURS`), for babble the voices.

    Returns:
        float32 [S], not clipped; the samples themselves where they are digital silence.

    Raises:
        TypeError: samples of another kind; int16 would be taken as far too loud, in silence.
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
