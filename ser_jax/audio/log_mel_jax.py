"""The log-mel front end in JAX: batches of waveforms on the device, differentiable.

The same numbers as `features.log_mel`, which makes the records; here for attacks on the waveform, for exports that
take raw samples, and for prediction.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd, mel_matrix


@functools.lru_cache(maxsize=8)
def _windowed_fourier(front_end: FrontEnd) -> np.ndarray:
    """Hann window times the real and imaginary part of the Fourier transform: [win_length, 2 (1 + n_fft // 2)]."""
    n = np.arange(front_end.win_length)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / front_end.win_length)
    # Only the power is used: where in the transform the window lies does not matter.
    angle = 2 * np.pi * np.outer(n, np.arange(1 + front_end.n_fft // 2)) / front_end.n_fft
    matrix = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return (hann[:, None] * matrix).astype(np.float32)


def batch_log_mel(waveform: jax.Array, front_end: FrontEnd = DEFAULT_FRONT_END) -> jax.Array:
    """Natural log of (mel power + floor) of a batch of waveforms.

    The Fourier transform is a matrix product, which uses all cores (or a matrix unit).

    Args:
        waveform: float32 [B, S], samples in [-1, 1) (int16 / 32768), zeros behind the end of an utterance.
        front_end: the parameters; `n_fft - win_length` even.

    Returns:
        float32 [B, T, n_mels], T = 1 + S // hop_length. Frames from 1 + length // hop_length of an utterance on
        are not its own: mask them.
    """
    size, samples = waveform.shape
    window, hop = front_end.win_length, front_end.hop_length
    frames = front_end.frames(samples)
    # Blocks of the greatest common divisor make frames without a gather: frame t is the blocks from
    # t · hop / block on.
    block = math.gcd(window, hop)
    total = (frames - 1) * hop + window
    before = window // 2
    padded = jnp.pad(waveform, ((0, 0), (before, max(total - before - samples, 0))))[:, :total]
    blocks = padded.reshape(size, total // block, block)
    step = hop // block
    pieces = [
        lax.slice_in_dim(blocks, i, i + (frames - 1) * step + 1, step, axis=1)
        for i in range(window // block)
    ]
    product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    spectrum = product(jnp.concatenate(pieces, axis=-1), _windowed_fourier(front_end))
    real, imaginary = jnp.split(spectrum, 2, axis=-1)
    power = product(real**2 + imaginary**2, mel_matrix(front_end))
    return jnp.log(power + front_end.floor)
