"""The front end in JAX against the NumPy one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.audio.log_mel import FrontEnd, log_mel
from ser_jax.audio.log_mel_jax import batch_log_mel


def _signal(samples, seed=0):
    """Voiced-like sound with a silent half second and a quiet end, int16 [S]."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    tone = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 40))
    x = 8000 * tone / 3 * (0.2 + np.sin(2 * np.pi * 1.3 * t) ** 2) + rng.normal(0, 30, samples)
    x[samples // 2 : samples // 2 + 8000] = 0
    return np.clip(x, -32768, 32767).astype(np.int16)


@pytest.mark.parametrize('samples', [1, 159, 160, 16000, 31999])
def test_equals_the_records(samples):
    waveform = _signal(samples)
    ours = batch_log_mel(jnp.asarray(waveform[None] / 32768, jnp.float32))[0]
    np.testing.assert_allclose(ours, log_mel(waveform), atol=1e-3)


@pytest.mark.parametrize('window', [640, 645])
def test_other_parameters(window):
    front_end = FrontEnd(n_fft=1024, win_length=window, hop_length=256, n_mels=40)
    waveform = _signal(20000)
    ours = batch_log_mel(jnp.asarray(waveform[None] / 32768, jnp.float32), front_end)[0]
    np.testing.assert_allclose(ours, log_mel(waveform, front_end), atol=1e-3)


def test_padding_does_not_change_an_utterance():
    short, long = _signal(9000, 1), _signal(20000, 2)
    batch = np.zeros((2, 20000), np.float32)
    batch[0, :9000], batch[1] = short / 32768, long / 32768
    ours = batch_log_mel(jnp.asarray(batch))
    expected = log_mel(short)
    np.testing.assert_allclose(ours[0, : len(expected)], expected, atol=1e-3)


def test_gradient_is_finite_in_digital_silence():
    gradient = jax.grad(lambda x: batch_log_mel(x).sum())(jnp.zeros((1, 1600)))
    assert np.isfinite(gradient).all()
