"""Noise in log-mel spectrograms: band positions, speech level, mixing at an SNR, noise texture, background.

Everything works on raw natural-log mel power [B, T, F], on the device.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import librosa
import numpy as np

from ser_jax.models.layers import frames_mask

DB = np.log(10.0) / 10.0  # nepers of power per dB
# Range of the background's level, dB below the active speech. The front end's floor bounds it from below.
_BACKGROUND_DB = (30.0, 60.0)


class Bands(NamedTuple):
    """Positions of the mel bands, with a table that extends beyond both ends.

    Attributes:
        centres: Hz, [F].
        widths: Hz, edge to edge, [F].
        extended: centres continued beyond both ends, Hz, increasing, [3F].
        extended_index: band index of each value of `extended`, negative below the lowest band, [3F].
    """

    centres: np.ndarray
    widths: np.ndarray
    extended: np.ndarray
    extended_index: np.ndarray


@functools.lru_cache(maxsize=8)
def mel_bands(n_mels: int, fmin: float, fmax: float) -> Bands:
    """Bands of the front end (Slaney's mel scale, as in librosa), from `fmin` to `fmax` Hz."""
    edges = librosa.mel_frequencies(n_mels + 2, fmin=fmin, fmax=fmax)
    step = np.diff(librosa.hz_to_mel(edges))[0]
    mels = librosa.hz_to_mel(edges[1]) + step * np.arange(-n_mels, 2 * n_mels)
    hertz = librosa.mel_to_hz(mels)
    # The mel scale is linear below 1 kHz: the table continues into negative Hz.
    return Bands(
        edges[1:-1].astype(np.float32),
        (edges[2:] - edges[:-2]).astype(np.float32),
        hertz.astype(np.float32),
        np.arange(-n_mels, 2 * n_mels).astype(np.float32),
    )


def noise_texture(keys: jax.Array, shape: tuple[int, ...], bands: Bands) -> jax.Array:
    """Log fluctuation of noise in a mel spectrogram [B, T, F]: mean 0, narrower in wider bands.

    White noise of our front end (25 ms windows, 10 ms hop) has a standard deviation of 1.0 in bands up to
    75 Hz wide falling to 0.42 in 590 Hz, correlation 0.15 between frames and 0.6 to 0.25 between bands
    (measured; a test compares).

    Args:
        keys: [B], one an example.
        shape: (B, T, F).
        bands: positions of the bands.

    Returns:
        [B, T, F], to add to a log-mel level.
    """
    uniform = jax.vmap(lambda key: jax.random.uniform(key, shape[1:], minval=1e-6))(keys)
    # Log of an exponential variable, standardised: it has the long lower tail of real noise.
    x = (jnp.log(-jnp.log(uniform)) + 0.5772) / 1.2825
    x = x + 0.4 * jnp.roll(x, 1, axis=2)
    x = x + 0.15 * jnp.roll(x, 1, axis=1)
    spread = np.minimum(1.0, (75.0 / bands.widths) ** 0.42) / np.sqrt((1 + 0.4**2) * (1 + 0.15**2))
    return x * spread.astype(np.float32)


def active_level(x: jax.Array, length: jax.Array, bands: Bands) -> jax.Array:
    """Log power [B] of the active frames of log-mels [B, T, F], those within 30 dB of the loudest, in nepers.

    Power is summed over bands times their width.
    """
    frame = jnp.sum(jnp.exp(x) * bands.widths, axis=-1) * frames_mask(length, x.shape[1])
    active = frame > jnp.max(frame, axis=1, keepdims=True) * 1e-3
    return jnp.log(jnp.sum(frame * active, 1) / jnp.maximum(jnp.sum(active, 1), 1) + 1e-12)


def add_mel_noise(
    x: jax.Array,
    noise: jax.Array,
    snr: jax.Array,
    speech: jax.Array,
    length: jax.Array,
    bands: Bands,
) -> jax.Array:
    """Adds noise at a signal-to-noise ratio between the active levels of speech and noise.

    Args:
        x: log-mel to add the noise to, [B, T, F].
        noise: log-mel of any level, [B, T, F].
        snr: [B], dB.
        speech: log-mel whose level is the reference, [B, T, F].
        length: int [B], real frames.
        bands: positions of the bands.

    Returns:
        [B, T, F].
    """
    noise_level = active_level(noise, length, bands)
    gain = active_level(speech, length, bands) - noise_level - snr * DB
    return jnp.logaddexp(x, noise + gain[:, None, None])


def add_background(keys: jax.Array, batch: dict) -> tuple[jax.Array, jax.Array]:
    """Adds a coloured background at a random level to the cropped log-mel of every utterance.

    Args:
        keys: [B].
        batch: 'log_mel' [B, T, F], 'length' [B], 'texture' [B, T, F], 'bands' and 'floor', see `augmentations`.

    Returns:
        (log-mel, background), [B, T, F] each.
    """
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
    bands = batch['bands']
    below = _BACKGROUND_DB[0] + (_BACKGROUND_DB[1] - _BACKGROUND_DB[0]) * uniform[:, 0]
    sound = -uniform[:, 1, None, None] * jnp.log(bands.centres / 1000.0)
    level = active_level(batch['log_mel'], batch['length'], bands)
    gain = level - active_level(
        jnp.broadcast_to(sound, batch['log_mel'].shape), batch['length'], bands
    )
    sound = jnp.maximum(sound + (gain - below * DB)[:, None, None], batch['floor'])
    sound = sound + batch['texture']
    return jnp.logaddexp(batch['log_mel'], sound), sound
