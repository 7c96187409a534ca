"""Corruptions: their ratios, bands, levels and decays, measured independently."""

import numpy as np
import pytest
from scipy import signal

from ser_jax.runtime.errors import UserError
from ser_jax.transforms.corruptions import active_power, corrupt, parse_corruption

RATE = 16000
NOISE = np.random.default_rng(100).normal(0, 0.1, 5 * RATE).astype(np.float32)
VOICES = {f'v{i}': np.roll(NOISE, 1000 * i) * 0.5**i for i in range(4)}
EVERY = (
    "noise('rain', 5)", "noise('pink', 5)", 'babble(3, 0)', 'reverberation(0.5)', 'telephone',
    'mu_law', 'gain(-20)', 'clipping(0.1)',
)  # fmt: skip


def rng(seed=0):
    """A generator."""
    return np.random.default_rng(seed)


def speech(seconds=2.0):
    """Bursts of a gliding tone between pauses that hold a faint hum, float32 [S]."""
    t = np.arange(int(RATE * seconds)) / RATE
    bursts = 0.1 * np.sin(2 * np.pi * (200 + 30 * t) * t) * (np.sin(2 * np.pi * 1.7 * t + 1) > 0)
    return (bursts + 1e-4 * np.sin(2 * np.pi * 50 * t)).astype(np.float32)


def run(text, samples, seed=0, clips=VOICES):
    """Parses and applies a corruption."""
    return corrupt(parse_corruption(text), samples, rng(seed), clips)


def measured_power(samples):
    """Active power computed independently: a loop over 20 ms frames, with levels in dB."""
    frames = [samples[i : i + 320].astype(float) for i in range(0, len(samples), 320)]
    levels = [10 * np.log10(np.sum(frame**2) / 320 + 1e-20) for frame in frames]
    active = [frame for frame, level in zip(frames, levels) if level >= max(levels) - 30]
    return np.var(np.concatenate(active)) + np.mean(np.concatenate(active)) ** 2


def snr(clean, mixed, power):
    """SNR of the active parts, dB."""
    return 10 * np.log10(power(clean) / power(mixed.astype(float) - clean))


# Noise.


@pytest.mark.parametrize('power', [active_power, measured_power])
@pytest.mark.parametrize('decibels', [-5, 0, 10, 20, 40])
@pytest.mark.parametrize('length', [1000, 32000, 32001, 80000])
def test_noise_has_the_requested_ratio(power, decibels, length):
    noise = NOISE[:length].copy()
    noise[: length // 3] *= 1e-3  # pauses in the noise do not count
    mixed = run(f"noise('rain', {decibels})", speech(), clips={'a': noise})
    assert snr(speech(), mixed, power) == pytest.approx(decibels, abs=0.1)


def test_the_ratio_is_that_of_the_active_parts():
    bursts = np.tile(np.repeat([1, 0], 3200), 5)  # 0.2 s each
    x = (0.2 * np.sqrt(2) * bursts * np.sin(np.arange(32000) * 0.3)).astype(np.float32)
    noise = np.where(np.arange(80000) % 16000 < 9600, NOISE, 0)
    assert active_power(x) == pytest.approx(0.2**2, rel=0.01)
    added = run("noise('rain', 10)", x, clips={'a': noise}) - x
    audible = added[np.convolve(np.abs(added), np.ones(9), 'same') > 0]
    assert 10 * np.log10(0.04 / np.mean(audible.astype(float) ** 2)) == pytest.approx(10, abs=0.25)
    assert len(audible) < 0.75 * len(added)


def test_active_power_of_short_signals():
    assert active_power(np.zeros(0)) == active_power(np.zeros(1000)) == 0
    assert active_power(np.full(7, 0.5)) == pytest.approx(0.25)
    assert active_power(np.r_[np.zeros(640), np.full(330, 0.5)]) == pytest.approx(0.25)
    for faint, counts in ((10**-1.45, True), (10**-1.55, False)):  # -29 and -31 dB
        expected = (1 + faint**2) / 2 if counts else 1
        frames = np.repeat([1, faint], 320)
        assert active_power(frames) == pytest.approx(expected)


def test_an_excerpt_is_an_audible_piece_of_the_clip():
    clip = 1e-5 * NOISE
    clip[40000:43200] += NOISE[:3200]  # one event of 0.2 s in 5 s
    starts = set()
    for seed in range(40):
        added = run("noise('dog_bark', 0)", speech(1.0), seed, {'a': clip}) - speech(1.0)
        piece = signal.correlate(clip, added, 'valid', method='fft')
        start = int(np.argmax(piece))
        starts.add(start)
        part = clip[start : start + 16000]
        assert np.abs(part).max() > 0.1  # the event, not the pause amplified
        assert np.corrcoef(part, added)[0, 1] > 0.9999
    assert len(starts) > 30
    assert max(starts) - min(starts) > 8000


def test_short_noise_is_looped_from_a_random_start():
    clip = NOISE[:5000]
    firsts = set()
    for seed in range(5):
        added = run("noise('rain', 0)", speech(), seed, {'a': clip}) - speech()
        np.testing.assert_allclose(added[:-5000], added[5000:], atol=1e-6)
        firsts.add(float(added[0]))
    assert len(firsts) == 5


def test_one_of_several_recordings_is_drawn_whatever_their_order():
    clips = {'b': NOISE[:500], 'a': np.sign(NOISE[:500])}
    turned = dict(reversed(clips.items()))
    mixed = [run("noise('rain', 0)", speech(), seed, clips) for seed in range(12)]
    assert np.array_equal(mixed, [run("noise('rain', 0)", speech(), s, turned) for s in range(12)])
    kinds = {bool(np.ptp(np.abs(one - speech())) < 1e-6) for one in mixed}
    assert kinds == {True, False}


@pytest.mark.parametrize(('name', 'slope'), [('white', 0), ('pink', -1), ('brown', -2)])
def test_coloured_noise_needs_no_recordings(name, slope):
    x = np.tile(speech(), 8)
    mixed = run(f"noise('{name}', 0)", x, clips=None)
    assert snr(x, mixed, measured_power) == pytest.approx(0, abs=0.1)
    frequency, power = signal.welch(mixed - x, RATE, nperseg=4096)
    band = (frequency > 100) & (frequency < 7000)
    fitted = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
    assert fitted == pytest.approx(slope, abs=0.05)


def test_babble_mixes_distinct_voices_of_equal_level():
    t = np.arange(3 * RATE) / RATE
    tones = (300, 700, 1500, 3100, 5000)
    voices = {str(f): (0.5 ** (f // 300) * np.sin(2 * np.pi * f * t)) for f in tones}
    voices = {name: voice.astype(np.float32) for name, voice in voices.items() if voice.any()}
    voices['300'][RATE:] = 0  # a pause lowers no level
    clean = speech(1.0)
    mixed = run('babble(4, 5)', clean, seed=1, clips={k: 1e3 * v for k, v in voices.items()})
    assert snr(clean, mixed, measured_power) == pytest.approx(5, abs=0.1)
    frequency, power = signal.periodogram(mixed - clean, RATE, 'hann')
    found = [power[abs(frequency - tone) < 20].sum() for tone in tones]
    loud = [value for value in found if value > 0.01 * max(found)]
    assert len(loud) == 4


def test_silence():
    silent = np.zeros(1000, np.float32)
    for text in EVERY:
        assert not run(text, silent).any()
        assert len(run(text, silent[:0])) == 0
    for clip in (silent, silent[:0], silent + 1e-4):
        with pytest.raises(UserError, match='noise recording a is silent'):
            run("noise('rain', 0)", speech(), clips={'a': clip})
    for text, clips, needed in (
        (EVERY[0], {}, 1),
        (EVERY[0], None, 1),
        ('babble(5, 0)', VOICES, 5),
    ):
        with pytest.raises(UserError, match=f'needs {needed} recordings'):
            run(text, speech(), clips=clips)


# Rooms and channels.


@pytest.mark.parametrize('seconds', [0.05, 0.2, 0.7, 3.0])
@pytest.mark.parametrize('seed', [0, 1])
def test_reverberation_decays_in_the_requested_time(seconds, seed):
    click = np.zeros(5 * RATE, np.float32)
    click[100] = 0.5
    wet = run(f'reverberation({seconds})', click, seed).astype(np.float64)
    assert (wet**2).sum() == pytest.approx((click**2).sum(), rel=1e-3)
    assert np.abs(wet[:100]).max() < 1e-6
    # Schroeder 1965: energy still to come, dB; T60 from its fall between -5 and -35 dB.
    left = 10 * np.log10(np.cumsum(wet[:99:-1] ** 2)[::-1] + 1e-12)
    left -= left[0]
    fall = np.flatnonzero((left < -5) & (left > -35))
    slope = np.polyfit(fall / RATE, left[fall], 1)[0]
    assert -60 / slope == pytest.approx(seconds, rel=0.1)
    assert left[1] == pytest.approx(-3, abs=0.1)  # tail and direct sound are alike
    assert not np.array_equal(wet, run(f'reverberation({seconds})', click, seed + 2))


def test_telephone_passes_300_to_3400_hz_only():
    change = []
    for frequency in (50, 150, 200, 300, 500, 1000, 3000, 3400, 4000, 5000, 7500):
        tone = 0.1 * np.sin(2 * np.pi * frequency * np.arange(2 * RATE) / RATE)
        filtered = run('telephone', tone.astype(np.float32))[RATE:]
        change.append(20 * np.log10(np.std(filtered) / np.std(tone[RATE:])))
    assert max(change[:3] + change[8:]) < -39
    assert min(change[3:8]) > -1.5
    assert max(change[3:8]) < 0.1


def test_mu_law_is_the_nearest_of_255_levels():
    x = np.r_[np.linspace(-1.2, 1.2, 4001), 0, 1e-5, -1e-5].astype(np.float32)
    # The levels where sign(x) ln(1 + 255 |x|) / ln 256 is a multiple of 1 / 127 (ITU-T G.711).
    steps = np.arange(-127, 128) / 127
    levels = np.sign(steps) * (256.0 ** np.abs(steps) - 1) / 255
    clipped = np.clip(x.astype(float), -1, 1)
    pressed = np.sign(clipped) * np.log(1 + 255 * np.abs(clipped)) / np.log(256)
    nearest = levels[np.abs(pressed[:, None] - steps).argmin(1)]
    np.testing.assert_allclose(run('mu_law', x), nearest, atol=1e-6)
    # The curve's point: the same ratio to the noise at every level, and zero stays zero.
    for level in (1.0, 0.1, 0.03):
        tone = (level * np.sin(np.arange(8000) * 0.37)).astype(np.float32)
        assert 32 < 10 * np.log10(np.var(tone) / np.var(run('mu_law', tone) - tone)) < 40


def test_gain_does_not_clip():
    np.testing.assert_allclose(run('gain(-20)', speech()), speech() / 10, rtol=1e-6)
    loud = run('gain(40)', speech())
    np.testing.assert_allclose(loud, speech() * 100, rtol=1e-6)
    assert np.abs(loud).max() > 9


def test_clipping_clips_the_requested_share_of_nonzero_samples():
    x = NOISE.copy()
    x[RATE : 4 * RATE] = 0
    clipped = run('clipping(0.25)', x)
    limit = np.abs(clipped).max()
    assert (np.abs(x) > limit).sum() == pytest.approx(0.25 * 2 * RATE, rel=0.01)
    assert np.array_equal(clipped, np.clip(x, -limit, limit))
    assert np.array_equal(run('clipping(0)', x), x)


# All of them.


@pytest.mark.parametrize('text', EVERY)
def test_laws_of_every_corruption(text):
    x = speech()
    before, clips = x.copy(), {name: clip.copy() for name, clip in VOICES.items()}
    result = run(text, x, 3, clips)
    assert result.dtype == np.float32
    assert result.shape == x.shape
    assert np.isfinite(result).all()
    assert not np.array_equal(result, x)
    assert np.array_equal(x, before)  # nothing in place
    assert all(np.array_equal(clips[name], clip) for name, clip in VOICES.items())
    assert np.array_equal(result, run(text, x, 3))
    drawn = text.startswith(('noise', 'babble', 'reverberation'))
    assert np.array_equal(result, run(text, x, 4)) != drawn
    for short in (1, 2, 100):
        assert np.isfinite(run(text, x[500 : 500 + short])).all()
    with pytest.raises(TypeError, match='float32'):
        run(text, (x * 32768).astype(np.int16))


@pytest.mark.parametrize(
    ('text', 'parsed', 'condition'),
    [
        ("noise('dog_bark', 5)", ('noise', ('dog_bark', 5)), 'noise_dog_bark_5db'),
        ("noise('rain', -5.0)", ('noise', ('rain', -5)), 'noise_rain_-5db'),
        ('babble(6, 0)', ('babble', (6, 0)), 'noise_babble6_0db'),
        ('reverberation(0.5)', ('reverberation', (0.5,)), 'reverberation_0.5'),
        ('telephone()', ('telephone', ()), 'telephone'),
        ('mu_law', ('mu_law', ()), 'mu_law'),
        ('gain(-20)', ('gain', (-20,)), 'gain_-20'),
    ],
)
def test_call_strings(text, parsed, condition):
    assert parse_corruption(text) == parsed
    assert parse_corruption(text).condition == condition


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('echo(1)', "'echo' does not exist; there are noise, babble, reverberation, telephone"),
        ("noise('rain')", r'takes 2 arguments: noise\(type, snr\)'),
        ('telephone(3)', r'takes 0 arguments: telephone\(\)'),
        ("noise('../rain', 5)", "type must be a word in quotes, e.g. 'rain'"),
        ('noise(1, 5)', 'type must be a word'),
        ("noise('rain', 1e999)", 'snr must be a number from -60 to 60'),
        ("noise('rain', '5')", 'snr must be a number'),
        ('babble(2.5, 0)', 'voices must be a whole number from 1 to 100'),
        ('babble(0, 0)', 'voices must be'),
        ('reverberation(-1)', 'seconds must be a number from 0.05 to 10'),
        ('reverberation(0)', 'seconds must be'),
        ('gain(True)', 'db must be a number from -60 to 60'),
        ('clipping(1)', 'share must be a number from 0 to 0.9'),
        ('gain(db=3)', 'not of the form'),
    ],
)
def test_wrong_call_strings(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse_corruption(text)
    assert '\n' not in str(error.value)
