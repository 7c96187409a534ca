"""Bootstrap, permutation test and Holm correction, against SciPy, plain loops and hand calculation."""

import itertools
import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from ser_jax.metrics import rates, significance


def confusions(labels, predictions, speakers, n_classes):
    """Counts [R, S, K, K] of predictions [R, N]."""
    return np.stack(
        [rates.confusion_by_speaker(labels, one, speakers, n_classes) for one in predictions]
    )


def systems(seed, n=240, n_speakers=8, n_classes=3, n_seeds=1, gain=0.15):
    """Labels, speakers, and the predictions of two systems with mostly shared errors; B has fewer."""
    rng = np.random.default_rng(seed)
    labels, speakers = np.arange(n) % n_classes, np.arange(n) // n_classes % n_speakers
    hard = rng.random(n) < 0.4
    wrong = (labels + rng.integers(1, n_classes, n)) % n_classes
    err = lambda share: hard & (rng.random((n_seeds, n)) < share)
    a, b = (np.where(err(share), wrong, labels) for share in (0.9, 0.9 - gain))
    return labels, speakers.astype(str), a, b


def uar(labels, predictions):
    """UAR of predictions [N]."""
    return rates.uar(rates.confusion_matrix(labels, predictions, 3))


def two_speakers(a, b):
    """Counts of two systems on two classes, from hits per speaker out of (2, 1)."""
    matrix = lambda hits: [[hits[0], 2 - hits[0]], [1 - hits[1], hits[1]]]
    return np.array([[matrix(hits) for hits in side] for side in (a, b)])[:, None]


def test_uar_and_difference_equal_scikit_learn():
    labels, speakers, a, b = systems(0, n_seeds=2)
    found = significance.compare(*(confusions(labels, x, speakers, 3) for x in (a, b)), 200)
    expected = [[balanced_accuracy_score(labels, one) for one in side] for side in (a, b)]
    assert found.uar_a == pytest.approx(np.mean(expected[0]))
    assert found.uar_b == pytest.approx(np.mean(expected[1]))
    assert found.difference == pytest.approx(np.mean(expected[0]) - np.mean(expected[1]))
    assert found.difference < 0


@pytest.mark.parametrize('seed', range(3))
def test_bootstrap_equals_scipy_with_one_utterance_per_speaker(seed):
    labels, _, a, b = systems(seed, n=60)
    alone = np.arange(60).astype(str)

    def difference(y, one, two, axis=-1):
        hits = [np.equal(side, y) for side in (one, two)]
        masks = [y == label for label in range(3)]
        uar = [np.mean([np.sum(hit & m, axis) / np.sum(m, axis) for m in masks], 0) for hit in hits]
        return uar[0] - uar[1]

    expected = stats.bootstrap(
        (labels, a[0], b[0]),
        difference,
        paired=True,
        n_resamples=20_000,
        method='percentile',
        rng=np.random.default_rng(seed),
    )
    sides = [confusions(labels, side, alone, 3) for side in (a, b)]
    found = significance.compare(*sides, 20_000)
    assert found.redrawn == 0
    np.testing.assert_allclose(found.interval, expected.confidence_interval, atol=0.004)
    drawn, _ = significance.bootstrap_uar(np.concatenate(sides), 20_000)
    paired = (drawn[:, 0] - drawn[:, 1]).std()
    assert paired == pytest.approx(expected.standard_error, rel=0.03)
    # Errors are shared: independent draws for A and B would scatter far more.
    assert np.hypot(*drawn.std(0)) > 1.3 * paired


def test_bootstrap_equals_a_loop_over_whole_speakers_and_seeds():
    labels, speakers, a, b = systems(1, n_speakers=6, n_seeds=3)
    b = b[:2]
    found = significance.compare(*(confusions(labels, x, speakers, 3) for x in (a, b)), 20_000)
    rng, names, values = np.random.default_rng(7), np.unique(speakers), []
    for _ in range(1500):
        rows = np.concatenate([np.flatnonzero(speakers == name) for name in rng.choice(names, 6)])
        side = [np.mean([uar(labels[rows], one[rows]) for one in x]) for x in (a, b)]
        values.append(side[0] - side[1])
    width = np.ptp(found.interval)
    np.testing.assert_allclose(
        found.interval, np.quantile(values, [0.025, 0.975]), atol=0.12 * width
    )
    narrower = significance.compare(
        *(confusions(labels, x, speakers, 3) for x in (a, b)), 20_000, level=0.5
    )
    np.testing.assert_allclose(
        narrower.interval, np.quantile(values, [0.25, 0.75]), atol=0.12 * width
    )


@pytest.mark.parametrize('seed', range(3))
def test_exact_permutation_equals_scipy_with_one_utterance_per_speaker(seed):
    labels, _, a, b = systems(seed, n=9, gain=0.6)
    difference = lambda x, y: uar(labels, x) - uar(labels, y)
    expected = stats.permutation_test(
        (a[0], b[0]),
        difference,
        permutation_type='samples',
        alternative='two-sided',
        n_resamples=np.inf,
    )
    sides = [confusions(labels, side, np.arange(9).astype(str), 3) for side in (a, b)]
    p, exact = significance.permutation_p(*sides)
    assert exact
    assert p == pytest.approx(expected.pvalue)


def test_permutation_of_speakers_equals_a_loop_that_swaps_their_predictions():
    labels, speakers, a, b = systems(2, n=120, n_speakers=7, n_seeds=2)
    names = np.unique(speakers)
    difference = lambda x, y: (
        np.mean([uar(labels, one) for one in x]) - (np.mean([uar(labels, one) for one in y]))
    )
    observed, values = abs(difference(a, b)), []
    for swap in itertools.product([False, True], repeat=7):
        rows = np.isin(speakers, names[list(swap)])
        values.append(abs(difference(np.where(rows, b, a), np.where(rows, a, b))))
    expected = np.mean(np.array(values) >= observed - 1e-12)
    sides = [confusions(labels, side, speakers, 3) for side in (a, b)]
    assert significance.permutation_p(*sides, 128) == (pytest.approx(expected), True)
    # One replicate fewer than there are swaps: random ones, of which the observed is one.
    assert significance.permutation_p(*sides, 127)[1] is False
    assert 0.01 < expected < 0.9
    often = []
    for start in range(40):
        p, exact = significance.permutation_p(*sides, 100, seed=start)
        assert not exact
        assert round(p * 101) == pytest.approx(p * 101)
        often.append(p)
    assert np.mean(often) == pytest.approx((100 * expected + 1) / 101, abs=0.03)
    assert len(set(often)) > 1


def test_by_hand():
    """Two speakers with 2 utterances of class 0 and 1 of class 1 each.

    A hits (2, 1) and (1, 1): recalls 3/4 and 1, UAR 7/8. B hits (1, 0) and (1, 1): recalls 2/4 and
    1/2, UAR 1/2. Speaker 1 gives 1/8 + 1/4 = 3/8 of the difference, speaker 2 nothing: swaps
    give 3/8, -3/8, 3/8, -3/8, of which all are as large. Speaker 1 is drawn 0, 1 or 2 times with
    chances 1/4, 1/2, 1/4: differences 0, 3/8, 3/4.
    """
    sides = two_speakers([(2, 1), (1, 1)], [(1, 0), (1, 1)])
    found = significance.compare(*sides)
    assert (found.uar_a, found.uar_b, found.difference) == (7 / 8, 1 / 2, 3 / 8)
    assert found.interval == pytest.approx((0, 3 / 4))
    assert (found.p, found.exact, found.redrawn) == (1, True, 0)
    drawn, _ = significance.bootstrap_uar(np.concatenate(sides), 4000)
    values, times = np.unique((drawn[:, 0] - drawn[:, 1]).round(9), return_counts=True)
    np.testing.assert_allclose(values, [0, 3 / 8, 3 / 4])
    np.testing.assert_allclose(times / 4000, [1 / 4, 1 / 2, 1 / 4], atol=0.03)
    # With both speakers 3/8 better, two swaps of four are as large: p = 1/2 = 2^-(2 - 1).
    better = two_speakers([(2, 1), (2, 1)], [(1, 0), (1, 0)])
    assert significance.permutation_p(*better) == (1 / 2, True)
    # Speakers 3/8 and 1/8 better: 1/2, -1/4, 1/4, -1/2.
    unequal = two_speakers([(2, 1), (2, 1)], [(1, 0), (1, 1)])
    assert significance.permutation_p(*unequal) == (1 / 2, True)
    # One better, one as much worse: no difference, and every swap is at least as large.
    even = two_speakers([(2, 1), (1, 0)], [(1, 0), (2, 1)])
    assert significance.compare(*even).difference == 0
    assert significance.permutation_p(*even) == (1, True)


@pytest.mark.parametrize('n_speakers', [5, 20])
def test_identical_systems(n_speakers):
    labels, speakers, a, _ = systems(3, n_speakers=n_speakers, n_seeds=2)
    side = confusions(labels, a, speakers, 3)
    found = significance.compare(side, side, 500)
    assert found.exact == (n_speakers == 5)
    assert (found.difference, found.interval, found.p) == (0, (0, 0), 1)


def test_absent_classes_are_ignored():
    labels, speakers, a, b = systems(4)
    three = [confusions(labels, side, speakers, 3) for side in (a, b)]
    five = [confusions(labels, side, speakers, 5) for side in (a, b)]
    assert significance.compare(*three, 300) == significance.compare(*five, 300)


def test_draws_without_a_class_are_repeated_and_counted():
    """Only speaker a has class 0 and only b class 1: half of all draws are {a, a} or {b, b}."""
    hits = np.zeros((2, 2, 2, 2), int)
    hits[0, 0, 0] = hits[0, 1, 1] = (3, 1)
    hits[1, 0, 0] = hits[1, 1, 1] = (2, 2)
    drawn, redrawn = significance.bootstrap_uar(hits, 10_000)
    assert drawn.shape == (10_000, 2)
    np.testing.assert_allclose(drawn, np.tile([(3 / 4 + 1 / 4) / 2, 1 / 2], (10_000, 1)))
    # Failures before the 10 000th success of a coin: 10 000 ± √20 000.
    assert abs(redrawn - 10_000) < 600
    assert significance.compare(hits[:1], hits[1:]).redrawn == redrawn


def test_bootstrap_is_undefined_if_hardly_a_draw_has_every_class():
    """Each of 9 speakers has one class only: 9! / 9^9 = 0.1 % of the draws have all nine."""
    counts = np.zeros((2, 9, 9, 9), int)
    counts[:, np.arange(9), np.arange(9), np.arange(9)] = 2
    start = time.process_time()
    found = significance.compare(counts[:1], counts[1:])
    assert time.process_time() - start < 5
    assert np.isnan(found.interval).all()
    assert found.redrawn > 100 * 10_000
    assert (found.difference, found.p) == (0, 1)


def test_bootstrap_follows_speakers_and_not_utterances():
    """Four speakers always right, four never: the UAR of a resample is a binomial share of 8.

    P(0 or 1 of 8) = 0.035, between 0.025 and 0.05: so the 2.5 % quantile is 1/8, the 5 % one 2/8.
    """
    speakers = np.repeat([f's{number}' for number in range(8)], 150)
    right = np.isin(speakers, ['s0', 's1', 's2', 's3'])
    labels = np.tile([0, 1], 600)
    predictions = np.where(right, labels, 1 - labels)
    interval = lambda speakers, level=0.95: significance.interval(
        significance.bootstrap_uar(confusions(labels, [predictions], speakers, 2))[0][:, 0], level
    )
    assert interval(speakers) == pytest.approx((1 / 8, 7 / 8))
    assert interval(speakers, 0.9) == pytest.approx((2 / 8, 6 / 8))
    unknown = interval(np.full(1200, ''))
    assert unknown[1] - unknown[0] < 0.1


def test_a_single_speaker_has_no_interval():
    labels, _, a, b = systems(5)
    sides = [confusions(labels, side, np.full(240, 'x'), 3) for side in (a, b)]
    found = significance.compare(*sides)
    assert np.isnan(found.interval).all()
    assert (found.p, found.exact) == (1, True)


def test_result_depends_on_the_seed_and_not_on_blocks(monkeypatch):
    labels, speakers, a, b = systems(6, n_speakers=20)
    sides = [confusions(labels, side, speakers, 3) for side in (a, b)]
    whole = significance.compare(*sides, 3000)
    assert whole != significance.compare(*sides, 3000, seed=1)
    monkeypatch.setattr(significance, '_BLOCK', 20 * 64)
    assert significance.compare(*sides, 3000) == whole


def test_other_utterances_and_shapes_are_refused():
    labels, speakers, a, b = systems(7)
    side = confusions(labels, a, speakers, 3)
    other = confusions(np.roll(labels, 1), b, speakers, 3)
    other[0, 0, 0, 0] += 1
    for function in (significance.compare, significance.permutation_p):
        with pytest.raises(ValueError, match='same utterances'):
            function(side, other)
    with pytest.raises(ValueError, match=r'R, S, K, K'):
        significance.bootstrap_uar(side[0])


def test_ten_thousand_replicates_are_fast():
    labels, speakers, a, b = systems(8, n=8000, n_speakers=100, n_classes=8, n_seeds=5)
    sides = [confusions(labels, side, speakers, 8) for side in (a, b)]
    start = time.process_time()
    significance.compare(*sides, 10_000)
    assert time.process_time() - start < 2


def test_holm_by_hand():
    # Sorted .01 .02 .03 .04, times 4 3 2 1: .04 .06 .06 .04, and never below the one before.
    np.testing.assert_allclose(
        significance.holm([0.04, 0.01, 0.03, 0.02]), [0.06, 0.04, 0.06, 0.06]
    )
    # .005 .011 .02 .04 .13 (Holm's own procedure stops at the fourth with alpha = .05).
    adjusted = significance.holm([0.13, 0.005, 0.02, 0.011, 0.04])
    np.testing.assert_allclose(adjusted, [0.13, 0.025, 0.06, 0.044, 0.08])
    np.testing.assert_allclose(significance.holm([0.6, 0.7]), [1, 1])
    np.testing.assert_allclose(significance.holm([0.2]), [0.2])
    assert significance.holm([]).shape == (0,)
    for wrong in ([0.1, np.nan], [1.1], [-0.1], [[0.1]]):
        with pytest.raises(ValueError, match='p-values'):
            significance.holm(wrong)


def test_the_detectable_difference_is_found_with_80_percent_power():
    error = 0.02
    shift = significance.detectable_difference((0.1 - 1.96 * error, 0.1 + 1.96 * error)) / error
    power = stats.norm.cdf(shift - 1.96) + stats.norm.cdf(-shift - 1.96)
    assert power == pytest.approx(0.8, abs=1e-3)
