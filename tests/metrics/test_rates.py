"""Metrics against scikit-learn and hand calculation."""

import numpy as np
import pytest
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from ser_jax.metrics import rates


def sample(seed, n=300, n_classes=5, present=None):
    """Labels, and predictions better than chance."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(present or n_classes, n)
    predictions = np.where(rng.random(n) < 0.5, labels, rng.integers(n_classes, size=n))
    return labels, predictions


@pytest.mark.parametrize('seed', range(5))
def test_rates_equal_scikit_learn(seed):
    labels, predictions = sample(seed)
    confusion = rates.confusion_matrix(labels, predictions, 5)
    np.testing.assert_array_equal(confusion, oracle.confusion_matrix(labels, predictions))
    assert rates.uar(confusion) == pytest.approx(
        oracle.balanced_accuracy_score(labels, predictions)
    )
    assert rates.wa(confusion) == pytest.approx(oracle.accuracy_score(labels, predictions))
    assert rates.macro_f1(confusion) == pytest.approx(
        oracle.f1_score(labels, predictions, average='macro')
    )
    np.testing.assert_allclose(
        rates.recall(confusion), oracle.recall_score(labels, predictions, average=None)
    )


@pytest.mark.filterwarnings('ignore:y_pred contains classes not in y_true')
def test_absent_classes_are_not_averaged():
    labels, predictions = sample(1, present=[0, 2, 3])
    confusion = rates.confusion_matrix(labels, predictions, 6)
    assert set(predictions) - set(labels)
    assert rates.uar(confusion) == pytest.approx(
        oracle.balanced_accuracy_score(labels, predictions)
    )
    assert rates.macro_f1(confusion) == pytest.approx(
        oracle.f1_score(labels, predictions, average='macro')
    )
    np.testing.assert_array_equal(np.isnan(rates.recall(confusion)), [0, 1, 0, 0, 1, 1])


def test_rates_are_vectorised():
    parts = [rates.confusion_matrix(*sample(seed), 5) for seed in range(6)]
    stacked = np.reshape(parts, (2, 3, 5, 5))
    for rate in (rates.uar, rates.wa, rates.macro_f1, rates.recall):
        flat = np.array([rate(part) for part in parts])
        np.testing.assert_allclose(rate(stacked).reshape(flat.shape), flat)


def test_rates_without_labels_are_undefined():
    empty = rates.confusion_matrix([], [], 3)
    assert np.isnan(rates.uar(empty))
    assert np.isnan(rates.wa(empty))
    assert np.isnan(rates.macro_f1(empty))


@pytest.mark.parametrize(
    ('labels', 'predictions'),
    [([0, -1], [0, 0]), ([0, 3], [0, 0]), ([0, 1], [0, 3]), ([0, 1], [0]), ([0.0, 1.0], [0, 1])],
)
def test_impossible_classes_are_refused(labels, predictions):
    with pytest.raises(ValueError, match=r'classes|labels'):
        rates.confusion_matrix(labels, predictions, 3)


def test_ccc():
    rng = np.random.default_rng(0)
    targets = rng.normal(3, 1, 200)
    predictions = 0.5 * targets + rng.normal(0, 0.3, 200) + 1
    # Lin (1989), by way of the correlation coefficient.
    rho = np.corrcoef(targets, predictions)[0, 1]
    spread = targets.var() + predictions.var() + (targets.mean() - predictions.mean()) ** 2
    expected = 2 * rho * targets.std() * predictions.std() / spread
    assert rates.ccc(targets, predictions) == pytest.approx(expected)
    assert rates.ccc(targets, targets) == pytest.approx(1)
    assert rates.ccc(targets, -targets) < 0
    missing = np.append(targets, np.nan), np.append(predictions, 100.0)
    assert rates.ccc(*missing) == pytest.approx(expected)
    assert np.isnan(rates.ccc([np.nan], [1.0]))
    assert np.isnan(rates.ccc([1.0, 1.0], [1.0, 1.0]))


def test_confusions_by_speaker_sum_to_the_pooled_one():
    labels, predictions = sample(6, n=50)
    speakers = np.array(['', 'b', 'a', 'b', ''] * 10)
    parts = rates.confusion_by_speaker(labels, predictions, speakers, 5)
    assert parts.shape == (22, 5, 5)
    np.testing.assert_array_equal(parts.sum(0), rates.confusion_matrix(labels, predictions, 5))
    assert (parts[2:].sum((1, 2)) == 1).all()


def test_confidence_bins_equal_scikit_learn():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.2, 1, 500)
    correct = rng.uniform(size=500) < confidence**2
    bins = rates.confidence_bins(confidence, correct, 10)
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10)
    np.testing.assert_allclose(bins.accuracy, accuracy)
    np.testing.assert_allclose(bins.confidence, mean)
    np.testing.assert_allclose(bins.lower, np.arange(2, 10) / 10)
    shares = [((confidence >= low) & (confidence < low + 0.1)).mean() for low in bins.lower]
    np.testing.assert_allclose(bins.share, shares)
    assert rates.confidence_bins([1.0, 0.95], [True, False]).share.tolist() == [1.0]


def test_calibration_error_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.5, 0.5]])
    labels = np.array([0, 1, 1, 0])
    # Bins of width 1/5: [0.8, 1) has 0.9 twice, one of them correct; [0.6, 0.8) 0.65; [0.4, 0.6) 0.5.
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.65) + abs(1 - 0.5)) / 4
    assert rates.expected_calibration_error(probabilities, labels, 5) == pytest.approx(expected)
