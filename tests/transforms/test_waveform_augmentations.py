"""Augmentations of waveforms against SciPy and the corruptions, and their laws."""

import jax
import numpy as np
import pytest
import scipy

from ser_jax.transforms import corruptions
from ser_jax.transforms.waveform_augmentations import OPERATIONS, apply_calls, longest_samples

RATE = 16000
SIZE = 1 << 15
EXAMPLES = {
    'speed': (0.8, 1.25),
    'noise': (0.0, 20.0),
    'gain': (-20.0, 10.0),
    'filter_augment': (12.0,),
    'band_limit': (500.0, 3000.0),
    'room': (0.2, 0.6),
}


def speech(samples, seed=0):
    """Syllables of harmonics between pauses, float32 [samples]."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / RATE
    pitch = rng.uniform(100, 200)
    voice = sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 30))
    voice *= np.clip(np.sin(2 * np.pi * 3 * t), 0, 1)
    return (0.05 * voice + 1e-3 * rng.standard_normal(samples)).astype(np.float32)


def applied(calls, waveforms, size=SIZE, seed=0):
    """A batch of `apply_calls`, as (waveform, clean) pairs without padding."""
    x = np.zeros((len(waveforms), size), np.float32)
    for row, waveform in zip(x, waveforms):
        row[: len(waveform)] = waveform
    samples = np.array([len(waveform) for waveform in waveforms], np.int32)
    keys = jax.random.split(jax.random.key(seed), len(x))
    found = jax.device_get(apply_calls(calls, keys, x, samples))
    for k, length in enumerate(found.samples):
        assert not found.waveform[k, length:].any()
        assert not found.clean[k, length:].any()
    return [
        (waveform[:length], clean[:length])
        for waveform, clean, length in zip(found.waveform, found.clean, found.samples)
    ]


def test_every_operation_has_an_example():
    assert EXAMPLES.keys() == OPERATIONS.keys()
    for name, arguments in EXAMPLES.items():
        assert OPERATIONS[name][0](*arguments)


@pytest.mark.parametrize('factor', [0.8, 1.25])
def test_speed_is_resampling(factor):
    t = np.arange(24000) / RATE
    x = (0.1 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 2500 * t)).astype(np.float32)
    ((found, clean),) = applied([('speed', (factor, factor))], [x])
    expected = scipy.signal.resample_poly(x, *((5, 4) if factor < 1 else (4, 5)))
    assert len(found) == pytest.approx(len(x) / factor, abs=1)
    inner = slice(200, len(found) - 200)
    assert np.abs(found[inner] - expected[: len(found)][inner]).max() < 0.01
    np.testing.assert_array_equal(found, clean)
    assert len(found) <= longest_samples([('speed', (factor, 2.0))], len(x))


def test_speed_leaves_no_alias():
    """A tone that becomes higher than half the sampling rate disappears."""
    x = np.sin(2 * np.pi * 7600 * np.arange(24000) / RATE).astype(np.float32)
    ((found, _),) = applied([('speed', (1.25, 1.25))], [x])
    assert np.sqrt(np.mean(found[200:-200] ** 2)) < 0.01


def test_noise_has_the_drawn_ratio_and_spares_the_clean_signal():
    waveforms = [speech(20000, seed) for seed in range(24)]
    ratios, slopes = [], []
    for x, (noisy, clean) in zip(waveforms, applied([('noise', (0.0, 20.0))], waveforms)):
        np.testing.assert_array_equal(clean, x)
        noise = noisy - x
        power = np.mean(noise.astype(float) ** 2)
        ratios.append(10 * np.log10(corruptions.active_power(x) / power))
        hertz, density = scipy.signal.welch(noise, RATE, nperseg=512)
        used = (hertz > 100) & (hertz < 7500)
        slopes.append(-np.polyfit(np.log(hertz[used]), np.log(density[used]), 1)[0])
    # Frames of 32 ms instead of 20 measure the active level a little differently.
    assert -1 < min(ratios) < 5
    assert 15 < max(ratios) < 21
    assert -0.2 < min(slopes) < 0.6
    assert 1.4 < max(slopes) < 2.2


def test_gain_changes_the_level_of_both():
    waveforms = [speech(20000, seed) for seed in range(24)]
    levels = []
    for x, (loud, clean) in zip(waveforms, applied([('gain', (-20.0, 10.0))], waveforms)):
        np.testing.assert_array_equal(loud, clean)
        levels.append(20 * np.log10(np.linalg.norm(loud) / np.linalg.norm(x)))
        np.testing.assert_allclose(loud, x * 10 ** (levels[-1] / 20), rtol=1e-4, atol=1e-7)
    assert -20 <= min(levels) < -12
    assert 3 < max(levels) <= 10


def transfer(calls, seed):
    """Gain of an operation in dB by frequency, from an impulse."""
    impulse = np.zeros(SIZE, np.float32)
    impulse[SIZE // 2] = 1
    ((found, clean),) = applied(calls, [impulse], seed=seed)
    np.testing.assert_array_equal(clean, impulse)
    return 20 * np.log10(np.abs(np.fft.rfft(found)) + 1e-9), found


def test_filter_stays_within_its_bound_and_varies():
    curves = [transfer([('filter_augment', (12.0,))], seed)[0] for seed in range(8)]
    assert max(np.abs(curve).max() for curve in curves) <= 12.01
    assert np.std(curves, axis=0).mean() > 3
    assert max(np.abs(np.diff(curve)).max() for curve in curves) < 1  # continuous
    _, response = transfer([('filter_augment', (12.0,))], 0)
    assert np.abs(response).argmax() == SIZE // 2  # no delay


def test_band_limit_passes_one_band():
    hertz = np.fft.rfftfreq(SIZE, 1 / RATE)
    for seed in range(8):
        curve, _ = transfer([('band_limit', (500.0, 3000.0))], seed)
        assert np.abs(curve[(hertz > 520) & (hertz < 2900)]).max() < 0.5
        stopped = curve[curve < -3]
        assert stopped.min() > -60.5
        passing = np.flatnonzero(curve > -0.5)
        assert (np.diff(passing) == 1).all()
        assert hertz[passing[0]] < 520
        assert hertz[passing[-1]] > 2900


@pytest.mark.parametrize('seconds', [0.2, 0.6])
def test_room_decays_by_60_db_in_its_time(seconds):
    _, response = transfer([('room', (seconds, seconds))], 3)
    tail = response[SIZE // 2 + 1 :].astype(float)
    decay = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))
    at = lambda level: np.argmax(decay < level) / RATE
    assert (at(-25) - at(-5)) * 3 == pytest.approx(seconds, rel=0.15)
    assert np.linalg.norm(response) == pytest.approx(1, rel=1e-3)
    ratio = 20 * np.log10(response[SIZE // 2] / np.linalg.norm(tail))
    assert -3.1 < ratio < 9.1


@pytest.mark.parametrize('samples', [9000, 16000, 30000])
def test_a_room_keeps_the_energy_of_noisy_speech(samples):
    calls = [('noise', (0.0, 0.0)), ('room', (0.2, 0.2))]
    ((noisy, _),) = applied(calls[:1], [speech(samples)])
    ((found, _),) = applied(calls, [speech(samples)])
    assert np.linalg.norm(found) == pytest.approx(np.linalg.norm(noisy), rel=1e-4)


@pytest.mark.parametrize('name', EXAMPLES)
def test_silence_stays_silent(name):
    ((found, clean),) = applied([(name, EXAMPLES[name])], [np.zeros(9000, np.float32)])
    assert np.isfinite(found).all()
    assert not found.any()
    assert not clean.any()


@pytest.mark.parametrize('name', EXAMPLES)
def test_utterances_draw_alone(name):
    """Parameters follow the key of the utterance, not its neighbours."""
    waveforms = [speech(9000 + 500 * k, k) for k in range(3)]
    together = applied([(name, EXAMPLES[name])], waveforms)
    again = applied([(name, EXAMPLES[name])], [waveforms[0], waveforms[2], waveforms[1]])
    np.testing.assert_array_equal(together[0][0], again[0][0])
    assert len(together[1][0]) != len(again[1][0]) or (together[1][0] != again[1][0]).any()


def test_operations_are_chained():
    calls = [('speed', (0.8, 0.8)), ('gain', (-6.0, -6.0)), ('noise', (10.0, 10.0))]
    x = speech(16000)
    ((noisy, clean),) = applied(calls, [x])
    ((slow, _),) = applied(calls[:1], [x])
    np.testing.assert_allclose(clean, slow * 10 ** (-6 / 20), rtol=1e-4, atol=1e-6)
    assert np.mean((noisy - clean) ** 2) > 0
