"""Augmentations: laws, oracles in the waveform domain, and clues that must not reveal the type."""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

from ser_jax.runtime.errors import UserError
from ser_jax.transforms import augment, augmentations, corruptions, mel_noise

ALL = ('speed(0.8, 1.25)', 'mixup(0.4)', 'spec_mask(2, 0.2, 0.2)', 'noise(5, 20)')
MORE = ('gain(-10, 10)', 'filter_augment(12)')
DB = np.log(10) / 10
FRAMES = 100


def log_mel(samples):
    mel = librosa.feature.melspectrogram(
        y=samples, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=80, fmin=20, fmax=8000,
        pad_mode='constant',
    )  # fmt: skip
    return np.log(mel + 1e-6).T.astype(np.float32)


def speech(seed, seconds=1.6, pitch=120.0):
    """Harmonics with formants, syllables and digital silence at both ends."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(16000 * seconds)) / 16000
    f0 = pitch * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(1, 3) * t))
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    harmonics = np.arange(1, 40)[:, None]
    gain = np.exp(-(((harmonics * pitch - 600) / 400) ** 2)) + 0.05 / harmonics
    voice = (gain * np.sin(harmonics * phase)).sum(0)
    syllables = np.clip(np.sin(2 * np.pi * 3 * t + rng.uniform(0, 6)), 0, 1)
    out = 0.1 * voice * syllables + 1e-3 * rng.standard_normal(len(t))
    out[:1600] = out[-1600:] = 0.0
    return out.astype(np.float32)


def emotions(labels, n_classes):
    """The fields 'emotion' and 'emotion_mask' of labels, −1 where missing."""
    one_hot = (labels[:, None] == np.arange(n_classes)).astype(np.float32)
    return {'emotion': one_hot, 'emotion_mask': labels >= 0}


def make_batch(operations, size=32, seed=0):
    rng = np.random.default_rng(seed)
    frames = augment.input_frames(operations, FRAMES)
    batch = {
        'log_mel': np.full((size, frames, 80), np.nan, np.float32),
        'length': np.zeros(size, np.int32),
        **emotions(rng.integers(-1, 4, size), 4),
    }
    for i in range(size):
        x = log_mel(speech(i, rng.uniform(0.6, 2.0), rng.uniform(90, 250)))[:frames]
        batch['log_mel'][i, : len(x)], batch['length'][i] = x, len(x)
    batch['log_mel'] = np.nan_to_num(batch['log_mel'], nan=7.0)  # arbitrary padding
    return batch


@functools.cache
def compiled(texts, frames, **kwargs):
    operations = augment.parse_operations(texts)
    return jax.jit(
        functools.partial(augment.augment, operations=operations, frames=frames, **kwargs)
    )


def run(texts, batch, seed=0, frames=FRAMES, **kwargs):
    function = compiled(texts, frames, **kwargs)
    return jax.tree.map(np.asarray, function(jax.random.key(seed), batch))


@pytest.fixture(scope='module')
def batch():
    return make_batch(augment.parse_operations(ALL))


def test_shapes_types_and_padding(batch):
    out = run(ALL, batch)
    assert out['log_mel'].shape == out['clean_log_mel'].shape == (32, FRAMES, 80)
    assert out['emotion'].shape == (32, 4)
    assert set(out['augmentation_type']) == {0, 1, 2, 3, 4}
    for i, n in enumerate(out['length']):
        assert 1 <= n <= FRAMES
        assert not out['log_mel'][i, n:].any()
        assert np.isfinite(out['log_mel'][i]).all()
    # The padding (7 nepers, far above the speech) reaches no real frame.
    assert out['log_mel'].max() < 6.5


def test_without_operations_the_utterance_is_only_cropped(batch):
    out = run((), batch)
    for i, n in enumerate(out['length']):
        assert n == min(FRAMES, batch['length'][i])
        x = out['log_mel'][i, :n]
        starts = range(batch['length'][i] - n + 1)
        assert any(np.array_equal(x, batch['log_mel'][i, s : s + n]) for s in starts)
    assert not out['augmentation_type'].any()


def test_clean_share(batch):
    assert not run(ALL, batch, clean_share=1.0)['augmentation_type'].any()
    assert run(ALL, batch, clean_share=0.0)['augmentation_type'].min() == 1


def test_what_each_operation_does_to_the_clean_target(batch):
    out = run(ALL, batch)
    differs = np.abs(out['log_mel'] - out['clean_log_mel']).max((1, 2)) > 1e-3
    np.testing.assert_array_equal(differs, out['augmentation_type'] >= 3)


def test_missing_emotion_is_masked_and_mixup_passes_it_on(batch):
    out = run(('mixup(5.0)',), batch, clean_share=0.0)
    assert not out['emotion_mask'][~batch['emotion_mask']].any()
    unmixed = run((), batch)
    for field in ('emotion', 'emotion_mask'):
        np.testing.assert_array_equal(unmixed[field], batch[field])
    assert out['emotion_mask'].sum() < unmixed['emotion_mask'].sum()
    labelled = out['emotion'][out['emotion_mask']]
    np.testing.assert_allclose(labelled.sum(1), 1.0, atol=1e-6)
    own = (out['emotion'] * batch['emotion']).sum(1)
    assert (own[out['emotion_mask']] >= 0.5).all()
    assert ((own < 0.99) & out['emotion_mask']).any()


def test_mixup_share_follows_the_beta_distribution():
    size, alpha = 4000, 0.4
    batch = {
        'log_mel': jnp.zeros((size, 2, 4)),
        'length': jnp.full(size, 2),
        # An odd shift mixes different emotions, so that the own share can be read off.
        **emotions(np.arange(size) % 2, 2),
    }
    shares = []
    for seed in range(4):
        out = run((f'mixup({alpha})',), batch, seed, frames=2, clean_share=0.0)
        own = out['emotion'][np.arange(size), np.arange(size) % 2]
        if (own < 1).any():
            shares.append(own)
    expected = np.random.default_rng(0).beta(alpha, alpha, 100_000)
    expected = np.maximum(expected, 1 - expected)
    for quantile in (0.1, 0.25, 0.5, 0.75):
        got = np.quantile(np.concatenate(shares), quantile)
        assert abs(got - np.quantile(expected, quantile)) < 0.02


@pytest.mark.parametrize('factor', [0.85, 1.18])
def test_speed_equals_resampling_the_waveform(factor, monkeypatch):
    monkeypatch.setattr(mel_noise, '_BACKGROUND_DB', (90.0, 90.0))
    samples = speech(1, 2.0)
    samples += 1e-3 * np.random.default_rng(0).standard_normal(len(samples)).astype('f4')
    resampled = librosa.resample(samples, orig_sr=16000, target_sr=16000 / factor)
    source, target = log_mel(samples), log_mel(resampled)
    n = int(len(source) / max(1.0, factor))
    batch = {'log_mel': source[None], 'length': np.array([len(source)])}
    batch |= emotions(np.array([0]), 1)
    got = run((f'speed({factor}, {factor})',), batch, frames=n, clean_share=0.0)['log_mel'][0]

    def error(x, of):  # over all places where the crop can begin; the lowest 70 bands
        starts = range(max(len(of) - len(x), 0) + 1)
        return min(np.abs(x - of[s : s + len(x)])[:, :70].mean() for s in starts)

    slowed = source[np.minimum(np.arange(n) * factor, len(source) - 1).astype(int)]
    time_only = error(slowed[: min(n, len(target))], target)
    assert error(got[: min(n, len(target))], target) < 0.6 * time_only


def test_noise_has_the_requested_snr_and_the_texture_of_noise(batch):
    snr = 10.0
    out = run((f'noise({snr}, {snr})',), batch, clean_share=0.0)
    width = np.diff(librosa.mel_frequencies(82, fmin=20, fmax=8000))
    width = width[1:] + width[:-1]
    for i, n in enumerate(out['length']):
        noisy, clean = (np.exp(out[k][i, :n]) @ width for k in ('log_mel', 'clean_log_mel'))
        active = clean > clean.max() * 1e-3
        measured = 10 * np.log10(clean[active].mean() / (noisy - clean).mean())
        assert abs(measured - snr) < 2.5
    white = log_mel(np.random.default_rng(0).standard_normal(16000 * 4).astype('f4') * 0.1)
    bands = mel_noise.mel_bands(80, 20.0, 8000.0)
    keys = jax.random.split(jax.random.key(0), 4)
    texture = np.asarray(mel_noise.noise_texture(keys, (4, 400, 80), bands)).reshape(-1, 80)
    np.testing.assert_allclose(texture.std(0), white.std(0), rtol=0.2)
    step = lambda x: np.corrcoef(x[1:, 50], x[:-1, 50])[0, 1]
    assert abs(step(texture) - step(white)) < 0.1


def test_noise_corpus_replaces_coloured_noise(batch):
    tone = np.full_like(batch['log_mel'], -9.0)
    tone[..., 10] = 3.0
    out = run(('noise(0, 0)',), {**batch, 'noise': tone}, clean_share=0.0)
    assert 'noise' not in out
    added = np.exp(out['log_mel']) - np.exp(out['clean_log_mel'])
    real = np.arange(FRAMES)[None] < out['length'][:, None]
    assert added[real].mean(0).argmax() == 10


def test_spec_mask_hides_no_more_than_its_shares_and_leaves_no_constants(batch):
    out = run(('spec_mask(1, 0.3, 0.2)',), batch, clean_share=0.0)
    hidden = out['log_mel'] != out['clean_log_mel']
    for i, n in enumerate(out['length']):
        whole_frames = hidden[i, :n].all(1).sum()
        whole_bands = hidden[i, :n].all(0).sum()
        assert whole_frames <= 0.3 * n + 1
        assert whole_bands <= 0.2 * 80 + 1
        inside = out['log_mel'][i, :n][hidden[i, :n]]
        assert len(np.unique(inside)) > 0.95 * len(inside)
    assert hidden.any((1, 2)).mean() > 0.9


def accuracy(features, types):
    forest = RandomForestClassifier(60, max_depth=4, random_state=0)
    return cross_val_score(forest, features, types, cv=4).mean()


@pytest.mark.parametrize('operations', [ALL, MORE], ids=['four', 'gain and filter'])
def test_type_is_not_readable_from_length_zeros_or_floor(operations):
    batch = make_batch(augment.parse_operations(operations), 64)
    traces, quietest, types = [], [], []
    for seed in range(8):
        out = run(operations, batch, seed)
        for x, n, kind in zip(out['log_mel'], out['length'], out['augmentation_type']):
            x = x[:n]
            zeros, floored = (x == 0).sum(), (x < np.log(1e-6) + 1e-3).sum()
            least, repeated = (x == x.min()).sum(), (np.diff(x, axis=0) == 0).sum()
            traces.append([n, zeros, floored, least, repeated])
            quietest.append(x.min())
            types.append(kind)
    traces, quietest, types = np.array(traces), np.array(quietest)[:, None], np.array(types)
    # 5 types, 512 utterances: chance 0.20 with a standard error of 0.02 (3 types: 0.33).
    assert accuracy(traces, types) < 1 / (1 + len(operations)) + 0.07
    if operations is ALL:
        # The quietest cell is the level of the noise, but reveals no other type (chance 0.25).
        others = types < 4
        assert accuracy(quietest[others], types[others]) < 0.36


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('reverb(1)', 'does not exist'),
        ('speed(0.9)', 'takes 2 numbers'),
        ('speed(1.1, 0.9)', 'lowest'),
        ('noise(0, 10) + speed(0.9, 1.1)', 'speed first'),
        ('noise(0, 10) + mixup(0.2)', 'then mixup'),
        ('mixup(0)', 'above 0'),
        ('spec_mask(2.5, 0.1, 0.1)', 'whole number'),
        ('noise("a", 2)', 'SNR'),
        ('gain(10, -10)', 'lowest'),
        ('filter_augment(0)', 'above 0'),
        ('band_limit(3000, 400)', 'low < high'),
        ('band_limit(0.4, 3)', 'in Hz'),
        ('band_limit(400)', 'takes 2 numbers: band_limit'),
        ('gain(1, 2, 3)', 'takes 2 numbers'),
        ('speed(lowest, 2)', 'not of the form'),
    ],
)
def test_bad_operations_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        augment.parse_operations((text,))


def test_types_must_differ():
    with pytest.raises(UserError, match='twice'):
        augment.parse_operations(('gain(-10, 10)', 'mixup(0.2)', 'gain(-10,10.0)'))


def test_gain_is_that_of_the_waveform():
    x = np.stack([speech(k, 1.2) for k in range(3)])
    features = np.stack([log_mel(samples) for samples in x])
    batch = dict.fromkeys(('log_mel', 'clean_log_mel', 'background'), features)
    for db in (-20.0, 0.0, 6.0):
        keys = jax.random.split(jax.random.key(0), 3)
        out = augmentations.gain(keys, batch | {'floor': np.log(1e-6)}, db, db)
        expected = np.stack([log_mel(samples * 10 ** (db / 20)) for samples in x])
        for name in batch:
            np.testing.assert_allclose(out[name], expected, atol=0.02)


FLAT = {name: np.zeros((400, 3, 80), np.float32) for name in ('log_mel', 'clean_log_mel')}


def drawn(operation, *arguments):
    """Change of 400 all-zero log-mels, far above the floor, by an operation; dB [400, 3, 80]."""
    keys = jax.random.split(jax.random.key(0), 400)
    bands = mel_noise.mel_bands(80, 20.0, 8000.0)
    batch = FLAT | {'background': FLAT['log_mel'], 'floor': -80.0, 'bands': bands}
    out = operation(keys, batch, *arguments)
    np.testing.assert_array_equal(out['log_mel'], out['background'])
    return np.asarray(out['log_mel']) / DB


def test_gains_are_spread_over_their_range():
    added = drawn(augmentations.gain, -20, 10)
    assert np.ptp(added, axis=(1, 2)).max() == 0
    assert -20 <= added.min() < -19
    assert 9 < added.max() <= 10
    assert abs(added.mean() + 5) < 2


def test_filter_augment_is_piecewise_linear_over_the_bands():
    curves = drawn(augmentations.filter_augment, 12.0)
    np.testing.assert_array_equal(curves[:, 0], curves[:, 2])  # the same in all frames
    curves = curves[:, 0]
    assert -12.01 <= curves.min() < -11.5
    assert 11.5 < curves.max() <= 12.01
    assert np.abs(np.diff(curves)).max() <= 24 / 6 + 1e-3  # from end to end within a band of six
    assert np.ptp(curves, axis=0).min() > 15  # no band stays as it is
    bends = np.abs(np.diff(curves, 2)) > 1e-2
    # An edge between two bands bends the line at the band on either side; where two edges' gains agree, not at all.
    edges = np.array([np.sum(np.diff(np.flatnonzero(row)) > 1) + 1 for row in bends])
    assert {2, 3, 4} <= set(edges)
    assert (edges <= 4).all()


def test_band_limit_keeps_one_band_and_attenuates_the_rest():
    curves = drawn(augmentations.band_limit, 400, 3000)
    np.testing.assert_array_equal(curves[:, 0], curves[:, 2])
    curves = curves[:, 0]
    hertz = mel_noise.mel_bands(80, 20.0, 8000.0).centres
    assert np.abs(curves[:, (hertz > 400) & (hertz < 3000)]).max() < 1e-4
    kept = np.abs(curves) < 1e-4
    assert (np.diff(kept, axis=1).sum(1) <= 2).all()  # one band, without gaps
    lowest, highest = (hertz[row] for row in (kept.argmax(1), 79 - kept[:, ::-1].argmax(1)))
    assert lowest.min() < 120
    assert 350 < lowest.max() < 430
    assert 2900 < highest.min() < 3100
    assert highest.max() > 7000
    deepest = curves[kept.sum(1) < 60].min(1)
    assert -60.01 < deepest.min() < -58
    assert -22 < deepest.max() < -20


def test_a_telephone_is_among_the_limited_bands():
    clean = log_mel(speech(0, 1.2))
    expected = log_mel(corruptions.telephone(speech(0, 1.2), None))
    batch = dict.fromkeys(('log_mel', 'background'), np.stack([clean] * 200))
    batch |= {'floor': np.log(1e-6), 'bands': mel_noise.mel_bands(80, 20.0, 8000.0)}
    out = augmentations.band_limit(jax.random.split(jax.random.key(0), 200), batch, 400, 3000)
    distance = np.abs(out['log_mel'] - expected).mean((1, 2))
    assert distance.min() < np.abs(clean - expected).mean() / 4


def test_combined_operations_are_one_type(batch):
    out = run(
        ('speed(0.8, 1.25) + spec_mask(2, 0.2, 0.2) + noise(10, 10)',), batch, clean_share=0.0
    )
    assert set(out['augmentation_type']) == {1}
    assert np.abs(out['log_mel'] - out['clean_log_mel']).max() > 0.1
