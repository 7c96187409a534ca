"""Augmentation operations on waveforms, for the views that a frozen encoder sees (`encoding.views`).

An operation is a function `name(key, signal, *arguments) -> Signal` of one utterance. Each draws its parameters from the key. A
new operation is one function here and its line in `OPERATIONS`. Names and arguments are those of the operations on log-mels
(`augmentations`), where there is such an operation.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ser_jax.transforms import augmentations

SAMPLE_RATE = 16000
_TAPS = 16  # samples on either side from which resampling interpolates
_FRAME = 512  # samples of a frame of `_active_power`
_ACTIVE = 1e-3  # 30 dB below the loudest frame
_LOWEST_HZ = 20.0
# Room: direct sound over tail, dB.
_DIRECT_DB = (-3.0, 9.0)

# Operation -> (test of its arguments, the requirement as text).
OPERATIONS = {
    **{
        name: augmentations.OPERATIONS[name]
        for name in ('speed', 'noise', 'gain', 'filter_augment', 'band_limit')
    },
    'room': (
        lambda shortest, longest: 0.05 <= shortest <= longest <= 3,
        '0.05 ≤ shortest ≤ longest ≤ 3 reverberation time, in seconds',
    ),
}


class Signal(NamedTuple):
    """An utterance.

    Attributes:
        waveform: float32 [S], 0 in padding; may leave [-1, 1].
        clean: float32 [S], at the same speed and level, without noise, room and filters.
        samples: int32 [], real samples.
    """

    waveform: jax.Array
    clean: jax.Array
    samples: jax.Array


def apply_calls(
    calls: Sequence[tuple[str, tuple]], keys: jax.Array, waveform: jax.Array, samples: jax.Array
) -> Signal:
    """Applies operations one after the other.

    Args:
        calls: ((name, arguments), …), 'speed' first.
        keys: [B].
        waveform: float32 [B, S], 0 in padding. S is at least `longest_samples` of the real samples. The noise drawn depends
            on S.
        samples: int32 [B].

    Returns:
        The batch of signals.
    """

    def one(key, waveform, samples):
        signal = Signal(waveform, waveform, samples)
        for number, (name, arguments) in enumerate(calls):
            signal = globals()[name](jax.random.fold_in(key, number), signal, *arguments)
        real = jnp.arange(waveform.shape[0]) < signal.samples
        return Signal(
            jnp.where(real, signal.waveform, 0.0),
            jnp.where(real, signal.clean, 0.0),
            signal.samples,
        )

    return jax.vmap(one)(keys, waveform, samples)


def longest_samples(calls: Sequence[tuple[str, tuple]], samples: int) -> int:
    """The largest number of samples that `samples` samples may become."""
    lowest = min([1.0, *(arguments[0] for name, arguments in calls if name == 'speed')])
    return int(samples / lowest) + 1


def speed(key: jax.Array, signal: Signal, lowest: float, highest: float) -> Signal:
    """Plays the utterance faster or slower by resampling, pitch included (Ko et al. 2015).

    Interpolation by a windowed sinc of 32 samples.

    Args:
        lowest: smallest factor, 1 = unchanged.
        highest: largest factor; factors are log-uniform.
    """
    factor = lowest * (highest / lowest) ** jax.random.uniform(key)
    samples = jnp.maximum((signal.samples / factor).astype(jnp.int32), 1)
    size = signal.waveform.shape[0]
    # In two parts: a float32 position would be off by up to 0.03 samples in long utterances.
    index = jnp.arange(size)
    whole = jnp.floor(factor)
    position = (index // 256) * 256
    coarse = position * (factor - whole)
    coarse_floor = jnp.floor(coarse)
    fine = (coarse - coarse_floor) + (index - position) * (factor - whole)
    fine_floor = jnp.floor(fine)
    before = (coarse_floor + fine_floor).astype(jnp.int32) + index * whole.astype(jnp.int32)
    fraction = fine - fine_floor
    cutoff = jnp.minimum(1.0, 1.0 / factor)
    # Sine and cosine of differences, from one of each a sample: they would take most of the time.
    sinc_rate, window_rate = jnp.pi * cutoff, jnp.pi / (_TAPS + 1)
    sinc_sin, sinc_cos = jnp.sin(sinc_rate * fraction), jnp.cos(sinc_rate * fraction)
    window_sin, window_cos = jnp.sin(window_rate * fraction), jnp.cos(window_rate * fraction)

    def add(total, tap):
        distance = fraction - tap
        sine = sinc_sin * jnp.cos(sinc_rate * tap) - sinc_cos * jnp.sin(sinc_rate * tap)
        cosine = window_cos * jnp.cos(window_rate * tap) + window_sin * jnp.sin(window_rate * tap)
        near = jnp.abs(distance) < 0.01
        limit = cutoff * (1.0 - jnp.square(sinc_rate * distance) / 6)
        kernel = jnp.where(near, limit, sine / (jnp.pi * jnp.where(near, 1.0, distance)))
        taken = before + tap
        real = (taken >= 0) & (taken < signal.samples)
        value = jnp.where(real, signal.waveform[jnp.clip(taken, 0, size - 1)], 0.0)
        return total + kernel * (0.5 + 0.5 * cosine) * value, None

    x = lax.scan(add, jnp.zeros(size), jnp.arange(1 - _TAPS, _TAPS + 1))[0]
    return Signal(x, x, samples)


def noise(key: jax.Array, signal: Signal, lowest_snr: float, highest_snr: float) -> Signal:
    """Adds coloured noise, from white to brown (power spectrum 1 / f^0…2), at a random SNR over the active parts.

    Args:
        lowest_snr: dB.
        highest_snr: dB.
    """
    noise_key, slope_key, snr_key = jax.random.split(key, 3)
    size = signal.waveform.shape[0]
    slope = jax.random.uniform(slope_key, maxval=2.0)
    colour = jnp.maximum(_frequencies(size), _LOWEST_HZ) ** (-slope / 2)
    sound = jnp.fft.irfft(jnp.fft.rfft(jax.random.normal(noise_key, (size,))) * colour, size)
    real = jnp.arange(size) < signal.samples
    power = jnp.sum(jnp.square(sound) * real) / signal.samples
    snr = jax.random.uniform(snr_key, minval=lowest_snr, maxval=highest_snr)
    scale = jnp.sqrt(_active_power(signal) / power * 10 ** (-snr / 10))
    return signal._replace(waveform=signal.waveform + scale * sound)


def gain(key: jax.Array, signal: Signal, lowest: float, highest: float) -> Signal:
    """Makes the utterance louder or softer, without clipping.

    Args:
        lowest: dB.
        highest: dB.
    """
    factor = 10 ** (jax.random.uniform(key, minval=lowest, maxval=highest) / 20)
    return signal._replace(waveform=signal.waveform * factor, clean=signal.clean * factor)


def filter_augment(key: jax.Array, signal: Signal, largest: float) -> Signal:
    """Filters the utterance as another room, microphone or channel might (Nam et al. 2022, arXiv 2110.03282).

    The curve of `augmentations.filter_augment`, over the mel scale, without a change of phase.

    Args:
        largest: bound of the uniform gains, ± dB.
    """
    mel = _mels(signal.waveform.shape[0])
    return _filtered(signal, augmentations.random_curve(key, mel, 6 / 79 * mel[-1], largest))


def band_limit(key: jax.Array, signal: Signal, low: float, high: float) -> Signal:
    """Limits the utterance to a frequency band, as telephones, codecs and cheap microphones do.

    The edges are uniform over the mel scale; the rest is attenuated by 20 to 60 dB.

    Args:
        low: highest lower edge, Hz; the lowest is 20 Hz.
        high: lowest upper edge, Hz; the highest is 8000 Hz.
    """
    mel = _mels(signal.waveform.shape[0])
    band = jnp.diff(_to_mel(jnp.array([_LOWEST_HZ, SAMPLE_RATE / 2])))[0] / 80
    lower, upper, depth = jax.random.uniform(key, (3,))
    floor, low, high, ceiling = _to_mel(jnp.array([_LOWEST_HZ, low, high, SAMPLE_RATE / 2]))
    outside = jnp.maximum(
        floor + lower * (low - floor) - mel, mel - high - upper * (ceiling - high)
    )
    least, most = augmentations.STOPPED_DB
    return _filtered(signal, -(least + depth * (most - least)) * jnp.clip(outside / band, 0, 1))


def room(key: jax.Array, signal: Signal, shortest: float, longest: float) -> Signal:
    """Simulates a room: the direct sound, then noise that decays by 60 dB in a random time (Polack 1988).

    The direct sound has -3 to 9 dB of the energy of the tail. The utterance keeps its energy; the tail beyond its end is cut.

    Args:
        shortest: reverberation time T60, seconds.
        longest: the longest, seconds; times are log-uniform.
    """
    tail_key, time_key, direct_key = jax.random.split(key, 3)
    seconds = shortest * (longest / shortest) ** jax.random.uniform(time_key)
    length = int(longest * SAMPLE_RATE)
    tail = 10 ** (-3 * jnp.arange(1, length + 1) / (seconds * SAMPLE_RATE))
    tail *= jax.random.normal(tail_key, (length,))
    direct = jax.random.uniform(direct_key, minval=_DIRECT_DB[0], maxval=_DIRECT_DB[1])
    tail *= 10 ** (-direct / 20) / jnp.linalg.norm(tail)
    response = jnp.concatenate([jnp.ones(1), tail])
    size = signal.waveform.shape[0]
    real = jnp.arange(size) < signal.samples
    dry = signal.waveform * real  # noise before this operation fills the padding, too
    points = 1 << (size + length).bit_length()
    spectrum = jnp.fft.rfft(dry, points) * jnp.fft.rfft(response, points)
    wet = jnp.fft.irfft(spectrum, points)[:size] * real
    norm = jnp.linalg.norm(dry) / jnp.maximum(jnp.linalg.norm(wet), 1e-20)
    return signal._replace(waveform=wet * norm)


def _active_power(signal: Signal) -> jax.Array:
    """Mean power of the frames of 32 ms within 30 dB of the loudest; 0 for silence. `corruptions.active_power` has 20 ms."""
    x = jnp.pad(signal.waveform, (0, -signal.waveform.shape[0] % _FRAME)).reshape(-1, _FRAME)
    energy = jnp.sum(jnp.square(x), axis=1)
    active = energy >= energy.max() * _ACTIVE
    sizes = jnp.clip(signal.samples - jnp.arange(len(x)) * _FRAME, 0, _FRAME)
    return jnp.sum(energy * active) / jnp.maximum(jnp.sum(sizes * active), 1)


def _filtered(signal: Signal, decibels: jax.Array) -> Signal:
    """Applies a gain [S // 2 + 1] to the spectrum."""
    size = signal.waveform.shape[0]
    spectrum = jnp.fft.rfft(signal.waveform) * 10 ** (decibels / 20)
    return signal._replace(waveform=jnp.fft.irfft(spectrum, size))


def _frequencies(size: int) -> jax.Array:
    """Hz of the bins of a transform."""
    return jnp.arange(size // 2 + 1) * (SAMPLE_RATE / size)


def _to_mel(hertz: jax.Array) -> jax.Array:
    """The mel scale of O'Shaughnessy (1987)."""
    return 2595.0 * jnp.log10(1.0 + hertz / 700.0)


def _mels(size: int) -> jax.Array:
    """Mels of the bins of a transform."""
    return _to_mel(_frequencies(size))
