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
def _windowed_fourier(front_end: FrontEnd) -> tuple[np.ndarray, np.ndarray]:
    """Hann window times the Fourier transform of a frame that is folded about its centre.

    Returns:
        (cosines for the sums [ceil(win_length / 2), 1 + n_fft // 2]; sines for the differences, one row fewer where
        win_length is even: its middle sample has no counterpart).
    """
    window = front_end.win_length
    n = np.arange(1, window // 2 + 1)  # sample 0 has weight 0
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / window)
    # Only the power is used, so that the window's position in the transform does not matter.
    angle = (
        2 * np.pi * np.outer(n - window / 2, np.arange(1 + front_end.n_fft // 2)) / front_end.n_fft
    )
    cosines, sines = hann[:, None] * np.cos(angle), hann[:, None] * np.sin(angle)
    return cosines.astype(np.float32), sines[: (window - 1) // 2].astype(np.float32)


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
    window, hop = front_end.win_length, front_end.hop_length
    samples = waveform.shape[1]
    total = (front_end.frames(samples) - 1) * hop + window
    before = front_end.n_fft // 2 - (front_end.n_fft - window) // 2  # as in the NumPy front end
    padded = jnp.pad(waveform, ((0, 0), (before, max(total - before - samples, 0))))[:, :total]
    return jnp.log(mel_power(padded, front_end) + front_end.floor)


def mel_power(signal: jax.Array, front_end: FrontEnd) -> jax.Array:
    """Mel power of the frames of a batch of signals.

    Args:
        signal: float32 [B, (T - 1) hop_length + win_length]; frame t begins at sample t · hop_length.
        front_end: parameters.

    Returns:
        float32 [B, T, n_mels].
    """
    window, hop = front_end.win_length, front_end.hop_length
    size, total = signal.shape
    frames = (total - window) // hop + 1
    # Blocks of the greatest common divisor build frames without a gather: frame t starts at block t · hop / block.
    block = math.gcd(window, hop)
    blocks = signal.reshape(size, total // block, block)
    step = hop // block
    pieces = [
        lax.slice_in_dim(blocks, i, i + (frames - 1) * step + 1, step, axis=1)
        for i in range(window // block)
    ]
    product = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
    # Sums and differences of the two halves: half the products of the plain transform, and half its rounding error.
    samples = jnp.concatenate(pieces, axis=-1)
    pairs = (window - 1) // 2
    first, middle, second = jnp.split(samples[..., 1:], [pairs, window - 1 - pairs], axis=-1)
    second = jnp.flip(second, axis=-1)
    cosines, sines = _windowed_fourier(front_end)
    real = product(jnp.concatenate([first + second, middle], axis=-1), cosines)
    imaginary = product(first - second, sines)
    return product(real**2 + imaginary**2, mel_matrix(front_end))
