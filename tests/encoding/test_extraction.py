"""Frames and statistics of recordings of any length."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.encoding import extraction
from ser_jax.encoding.extraction import Extractor, windows
from ser_jax.models.encoders.pretrained import Encoder
from ser_jax.models.encoders.wav2vec2 import Wav2Vec2
from ser_jax.models.encoders.whisper import Whisper
from ser_jax.runtime.errors import UserError

WHISPER = Whisper(width=16, layers=1, heads=2, hidden=16)


@pytest.fixture(scope='module')
def encoder():
    variables = jax.jit(WHISPER.init)(jax.random.key(0), jnp.zeros((1, 800)), jnp.array([800]))
    return Encoder('tiny', None, Path('tiny'), 'whisper', '', WHISPER, variables['params'])


def _noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(-3000, 3000, round(seconds * 16000)).astype(np.int16)


@pytest.mark.parametrize('family', [Whisper, Wav2Vec2])
@pytest.mark.parametrize(
    'samples',
    # A rest of no, one, a few more and a few fewer frames than a second.
    [400, 480_000, 480_080, 480_400, 496_500, 495_900, 960_400, 1_500_123],
)
def test_windows_cover_every_frame_once(family, samples):
    module = family(width=16, layers=1, heads=2, hidden=16)
    cut = windows(samples, module)
    covered = []
    for window in cut:
        length = window.stop - window.start
        assert length <= 480_000 + module.overlap
        assert window.start % 320 == 0
        first = window.start // 320
        covered += range(first + window.skip, first + module.frames(length))
        assert len(cut) == 1 or module.frames(length) >= 50
    assert covered == list(range(module.frames(samples)))
    assert len(cut) == -(-module.frames(samples) // 1500)


def test_frames_are_those_of_each_recording_alone(encoder):
    waveforms = [_noise(seconds, seed) for seed, seconds in enumerate([0.5, 3.21, 0.03, 1.7])]
    found = Extractor(encoder)(waveforms)
    for waveform, frames in zip(waveforms, found):
        x = jnp.asarray(waveform[None] / np.float32(32768))
        states, _ = WHISPER.apply({'params': encoder.params}, x, jnp.array([len(waveform)]))
        np.testing.assert_allclose(frames, jnp.stack(states)[:, 0], rtol=1e-4, atol=1e-4)


def test_long_recordings_are_encoded_in_windows(encoder):
    waveform = _noise(60.5)
    (frames,) = Extractor(encoder, layers=[2])([waveform])
    (first, last) = Extractor(encoder, layers=[2])([waveform[:480_000], waveform[-480_000:]])
    assert frames.shape == (1, 3025, 16)
    np.testing.assert_allclose(frames[:, :1500], first, atol=1e-5)
    np.testing.assert_allclose(frames[:, -25:], last[:, -25:], atol=1e-5)


def test_statistics_are_those_of_the_frames(encoder):
    waveforms = [_noise(seconds, seed) for seed, seconds in enumerate([1.3, 61.4])]
    frames = Extractor(encoder, layers=[0, 2])(waveforms)
    for array, statistics in zip(
        frames, Extractor(encoder, layers=[0, 2], output='statistics')(waveforms)
    ):
        expected = np.concatenate([array.mean(axis=1), array.std(axis=1)], axis=-1)
        np.testing.assert_allclose(statistics, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_has_the_shape_that_many_lengths_share():
    lengths = {extraction._padded_length(n) for n in range(16_000, 160_000)}
    assert len(lengths) < 30
    waste = [extraction._padded_length(n) / n - 1 for n in range(16_000, 160_000)]
    assert min(waste) >= 0
    assert np.mean(waste) < 0.05


def test_bad_input_is_refused(encoder):
    with pytest.raises(UserError, match='layers 0 to 2, not layer 3'):
        Extractor(encoder, layers=[1, 3])
    with pytest.raises(UserError, match='a recording of 399 samples is too short'):
        Extractor(encoder)([_noise(1), _noise(1)[:399]])


@pytest.mark.parametrize(
    ('waveform', 'message'),
    [
        (np.full(800, 20000.0), r'not in \[-1, 1\]: divide all of them by 32768'),
        (np.full(800, np.nan), 'not finite'),
        (np.ones(800, np.int32), 'holds int16 or floats'),
    ],
)
def test_waveforms_of_another_scale_are_refused(encoder, waveform, message):
    with pytest.raises(UserError, match=message):
        Extractor(encoder)([_noise(0.1), waveform])
