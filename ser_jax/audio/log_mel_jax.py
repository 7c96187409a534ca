"""Log-mel front end in JAX: differentiable, for batches of waveforms on the device.

Equal to the NumPy front end `audio.log_mel`, which makes the records. Used for attacks on the waveform, exports that take raw
samples, and prediction.
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
    """Hann window times the real and imaginary parts of the Fourier transform: [win_length, 2 (1 + n_fft // 2)]."""
    n = np.arange(front_end.win_length)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / front_end.win_length)
    # Only the power is used, so that the window's position in the transform does not matter.
    angle = 2 * np.pi * np.outer(n, np.arange(1 + front_end.n_fft // 2)) / front_end.n_fft
    matrix = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    return (hann[:, None] * matrix).astype(np.float32)


def batch_log_mel(waveform: jax.Array, front_end: FrontEnd = DEFAULT_FRONT_END) -> jax.Array:
    """Natural log of (mel power + floor) of a batch of waveforms.

    Computes the Fourier transform as a matrix product, which uses all cores (or a matrix unit).

    Args:
        waveform: float32 [B, S], samples in [-1, 1) (int16 / 32768), zeros after the end of an utterance.
        front_end: parameters; `n_fft - win_length` even.

    Returns:
        float32 [B, T, n_mels], T = 1 + S // hop_length. An utterance has 1 + length // hop_length real frames; mask the
        others.
    """
    size, samples = waveform.shape
    window, hop = front_end.win_length, front_end.hop_length
    frames = front_end.frames(samples)
    # Blocks of the greatest common divisor build frames without a gather: frame t starts at block t · hop / block.
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
