"""Batches are a pure function of (seed, step); statistics from the index equal those of the frames."""

from types import SimpleNamespace

import numpy as np
import pytest

from ser_jax.data import batches as data
from ser_jax.data.labels import class_names, class_weights, labelled_share, labels_of
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError

LABELS = ('angry', 'happy', 'neutral', 'sad')


@pytest.fixture(scope='module')
def corpus(beeps):
    return open_prepared('csv_corpus/beeps', data_dir=beeps['data_dir'])


@pytest.fixture(scope='module')
def other(beeps):
    return open_prepared('csv_corpus/hums', data_dir=beeps['data_dir'])


def batches(corpus, other, rows=slice(None), seed=0, noise=False):
    everything = np.arange(len(corpus))
    targets = {'emotion': LABELS, 'gender': ('female', 'male')}
    unlabelled = data.Utterances([(other, np.arange(len(other)))], targets, hide=('emotion',))
    return data.TrainBatches(
        labelled=data.Utterances([(corpus, everything)], targets),
        unlabelled=unlabelled,
        noise=unlabelled if noise else None,
        batch_size=8,
        n_unlabelled=3,
        length=70,
        seed=seed,
        rows=rows,
    )


def test_batches_depend_on_seed_and_step_only(corpus, other):
    first, again = batches(corpus, other), batches(corpus, other)
    again[3], again[0]  # the order of asking does not matter
    for name, array in first[7].items():
        np.testing.assert_array_equal(array, again[7][name])
    assert not np.array_equal(first[7]['log_mel'], first[8]['log_mel'])
    changed = batches(corpus, other, seed=1)[7]['log_mel']
    assert not np.array_equal(first[7]['log_mel'], changed)


def test_processes_load_the_parts_of_one_global_batch(corpus, other):
    whole = batches(corpus, other, noise=True)[2]
    parts = [batches(corpus, other, slice(s, s + 4), noise=True)[2] for s in (0, 4)]
    for name, array in whole.items():
        np.testing.assert_array_equal(array, np.concatenate([part[name] for part in parts]))


def test_unlabelled_rows_come_last_and_keep_their_other_labels(corpus, other):
    batch = batches(corpus, other)[0]
    np.testing.assert_array_equal(batch['emotion_mask'], [True] * 5 + [False] * 3)
    assert batch['emotion'].dtype == np.float32
    assert (batch['emotion'][:5].sum(1) == 1).all()
    assert not batch['emotion'][5:].any()
    assert (batch['gender'] >= 0).all()


def test_an_epoch_holds_every_utterance_once(corpus, other):
    size = len(corpus)
    first, second = (
        [data.shuffled(size, 5, epoch * size + i) for i in range(size)] for epoch in range(2)
    )
    assert sorted(first) == sorted(second) == list(range(size))
    assert first != second
    assert [data.shuffled(size, 6, i) for i in range(size)] != first


def test_prefetch_starts_anywhere(corpus, other):
    source = batches(corpus, other)
    loaded = list(data.prefetch(source, 4, 7))
    assert len(loaded) == 3
    np.testing.assert_array_equal(loaded[1]['log_mel'], source[5]['log_mel'])
    assert list(data.prefetch(source, 4, 4)) == []


def test_crops_are_uniform_and_short_ones_padded():
    rng = np.random.default_rng(0)
    ramp = np.arange(10.0)[:, None]
    starts = [data.crop_or_pad(ramp, 4, rng)[0][0, 0] for _ in range(2000)]
    counts = np.bincount(np.array(starts, int))
    assert len(counts) == 7
    assert counts.min() > 200
    padded, length = data.crop_or_pad(ramp, 12, rng)
    assert length == 10
    np.testing.assert_array_equal(padded[:, 0], [*range(10), 0, 0])


def test_every_utterance_is_evaluated_whole_and_once(corpus):
    utterances = data.Utterances([(corpus, np.arange(len(corpus)))], {'emotion': LABELS})
    seen = {}
    shapes = set()
    for positions, own, batch in data.padded_batches(utterances, utterances.lengths, 5):
        assert len(positions) == len(batch) == 5
        shapes.add(batch.shape)
        for position, log_mel in zip(own, batch):
            length = utterances.lengths[position]
            np.testing.assert_array_equal(log_mel[:length], utterances[position])
            assert not log_mel[length:].any()
            seen[position] = True
    assert sorted(seen) == list(range(len(corpus)))
    assert len(shapes) <= 3


def test_arrays_of_another_unit_are_padded_to_the_bucket():
    frames = np.array([120, 300, 40])
    signals = [np.ones(160 * n - 80, np.float32) for n in frames]
    padded = lambda longest: 160 * longest - 1
    ((positions, own, x),) = data.padded_batches(
        signals, frames, 4, padded=padded, rows=slice(1, 3)
    )
    np.testing.assert_array_equal(positions, [1, 0, 2, 2])
    np.testing.assert_array_equal(own, [0, 2])
    assert x.shape == (2, padded(data.bucket_length(300)))
    np.testing.assert_array_equal(x.sum(1), [len(signals[0]), len(signals[2])])


@pytest.mark.parametrize('frames', [1, 99, 100, 101, 300, 3001])
def test_bucket_lengths(frames):
    length = data.bucket_length(frames)
    assert frames <= length <= max(104, 1.2 * frames + 8)
    assert length % 8 == 0 or frames == 1
    assert data.bucket_length(frames + 1) >= length


def test_buckets_hold_everything_once_and_little_padding():
    lengths = np.random.default_rng(0).integers(120, 900, 203)
    seen, cells = [], 0
    for padded, positions in data.buckets(lengths, 16):
        assert len(positions) == 16
        assert lengths[positions].max() <= padded
        seen += list(dict.fromkeys(positions.tolist()))
        cells += padded * len(set(positions.tolist()))
    assert sorted(seen) == list(range(len(lengths)))
    assert 1 - lengths.sum() / cells < 0.15


def test_normalisation_is_that_of_all_frames(corpus):
    rows = np.array([1, 4, 9, 17])
    source = corpus.source()
    frames = np.concatenate([source[row] for row in rows]).astype(np.float64)
    statistics = data.normalisation([(corpus, rows)])
    np.testing.assert_allclose(statistics['mean'], frames.mean(0), rtol=1e-5)
    np.testing.assert_allclose(statistics['std'], frames.std(0), rtol=1e-4)


def test_class_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0, 0, 0, 1, 2, 2, -1])
    expected = compute_class_weight('balanced', classes=np.arange(3), y=labels[labels >= 0])
    np.testing.assert_allclose(class_weights(labels, 3), expected, rtol=1e-6)


def test_labels_outside_the_task_are_missing(corpus):
    rows = np.arange(len(corpus))
    all_labels = labels_of(corpus, rows, 'emotion', LABELS)
    some = labels_of(corpus, rows, 'emotion', ('sad', 'angry'))
    assert ((some == 0) == (all_labels == 3)).all()
    assert ((some == 1) == (all_labels == 0)).all()
    assert ((some == -1) == np.isin(all_labels, (1, 2))).all()


def test_text_fields_become_classes(corpus):
    assert class_names('language', [corpus], LABELS) == ('de', 'en')
    languages = labels_of(corpus, np.arange(len(corpus)), 'language', ('de', 'en'))
    assert set(languages) == {0, 1}
    with pytest.raises(UserError, match='duration'):
        class_names('duration', [corpus], LABELS)


def test_nan_in_features_is_told_by_name(corpus):
    broken = dict(corpus.index)
    broken['log_mel_squares'] = broken['log_mel_squares'].copy()
    broken['log_mel_squares'][3, 5] = np.nan
    import dataclasses

    sick = dataclasses.replace(corpus, index=broken)
    with pytest.raises(UserError, match=str(corpus.index['id'][3])):
        data.refuse_not_finite(sick)


def test_every_speaker_keeps_the_same_share_of_labels_and_rare_emotions_are_not_lost_first():
    speakers = np.repeat(['a', 'b'], [40, 20])
    emotions = np.concatenate([np.repeat([0, 1, 2], [30, 8, 2]), np.repeat([0, 1], 10)])
    chosen = labelled_share(speakers, emotions, 0.25, seed=3)
    assert [chosen[speakers == name].sum() for name in 'ab'] == [10, 5]
    assert np.bincount(emotions[chosen & (speakers == 'a')]).tolist() == [4, 4, 2]
    more = labelled_share(speakers, emotions, 0.5, seed=3)
    assert more[chosen].all()
    assert labelled_share(speakers, emotions, 1.0, seed=3).all()
    assert labelled_share(speakers, emotions, 0.001, seed=3).sum() == 2
    assert (labelled_share(speakers, emotions, 0.25, seed=4) != chosen).any()


def test_what_is_kept_is_read_once_for_all_folds(corpus):
    rows = np.arange(3)
    first, second = (data.Utterances([(corpus, rows)], {}) for _ in range(2))
    assert first[1] is second[1]
    assert data.Utterances([(corpus, rows)], {}, memory_gb=0)[1] is not first[1]


def test_the_normalisation_of_waveforms_is_that_of_all_samples_and_keeps_none():
    rng = np.random.default_rng(0)
    stored = {row: rng.integers(-999, 999, 50 + row).astype(np.int16) for row in range(5)}
    waveforms = SimpleNamespace(
        representation='waveform', kept={3: stored[3]}, source=lambda: stored
    )
    statistics = data.normalisation([(waveforms, np.array([0, 3, 4]))])
    samples = np.concatenate([stored[row] for row in (0, 3, 4)]) / 32768
    np.testing.assert_allclose(statistics['mean'], samples.mean(), rtol=1e-5)
    np.testing.assert_allclose(statistics['std'], samples.std(), rtol=1e-5)
    assert waveforms.kept.keys() == {3}
