"""The log-mel front end against plain librosa."""

import librosa
import numpy as np
import pytest

from ser_jax.audio import log_mel as features
from ser_jax.audio.log_mel import FrontEnd, log_mel, mel_matrix


def oracle(samples, front_end):
    """The same front end with librosa alone."""
    power = librosa.feature.melspectrogram(
        y=samples.astype(np.float32) / 32768,
        sr=front_end.sample_rate,
        n_fft=front_end.n_fft,
        win_length=front_end.win_length,
        hop_length=front_end.hop_length,
        n_mels=front_end.n_mels,
        fmin=front_end.fmin,
        fmax=front_end.fmax,
        window='hann',
        center=True,
        pad_mode='constant',
        power=2.0,
    )
    return np.log(power + front_end.floor).T


def voice(seconds, rng, rate=16000):
    """A buzz with digital silence in its middle: int16."""
    time = np.arange(int(seconds * rate)) / rate
    wave = 0.3 * np.sign(np.sin(2 * np.pi * 140 * time)) * np.sin(2 * np.pi * 3 * time) ** 2
    wave += 0.01 * rng.standard_normal(len(time))
    wave[len(wave) // 3 : len(wave) // 2] = 0
    return np.round(wave * 32767).astype(np.int16)


@pytest.mark.parametrize(
    'front_end',
    [
        FrontEnd(),
        FrontEnd(n_mels=64, fmin=0.0, fmax=7600.0, hop_length=128),
        FrontEnd(
            sample_rate=8000, n_fft=256, win_length=201, hop_length=80, n_mels=24, fmax=4000.0
        ),
    ],
)
def test_equals_librosa(front_end):
    rng = np.random.default_rng(0)
    samples = voice(2.3, rng, front_end.sample_rate)
    ours, theirs = log_mel(samples, front_end), oracle(samples, front_end)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, atol=5e-5)


@pytest.mark.parametrize('length', [1, 159, 160, 161, 255, 511, 512, 16000])
def test_number_of_frames(length):
    samples = np.random.default_rng(1).integers(-9000, 9000, length).astype(np.int16)
    result = log_mel(samples)
    assert result.shape == (1 + length // 160, 80) == (FrontEnd().frames(length), 80)
    np.testing.assert_allclose(result, oracle(samples, FrontEnd()), atol=5e-5)


def test_long_recordings_in_blocks(monkeypatch):
    samples = voice(1.5, np.random.default_rng(2))
    whole = log_mel(samples)
    monkeypatch.setattr(features, '_BLOCK', 7)
    np.testing.assert_allclose(log_mel(samples), whole, atol=1e-5)


def test_silence_is_the_floor():
    result = log_mel(np.zeros(1600, np.int16))
    np.testing.assert_allclose(result, np.log(1e-6), rtol=1e-6)
    assert log_mel(np.zeros(0, np.int16)).shape == (1, 80)


def test_given_mel_matrix():
    samples = np.random.default_rng(3).integers(-9000, 9000, 4800).astype(np.int16)
    matrix = mel_matrix(FrontEnd())
    assert matrix.shape == (257, 80)
    assert np.array_equal(log_mel(samples, FrontEnd(), matrix), log_mel(samples))
    faint = FrontEnd(floor=1e-30)
    difference = log_mel(samples, faint, matrix * 2) - log_mel(samples, faint)
    np.testing.assert_allclose(difference, np.log(2), atol=1e-4)


@pytest.mark.parametrize('samples', [np.zeros(800, np.float32), np.zeros((800, 1), np.int16)])
def test_anything_but_int16_is_refused(samples):
    with pytest.raises(TypeError, match='int16'):
        log_mel(samples)
