"""Temperature scaling."""

import numpy as np
import pytest

from ser_jax.evaluation.calibration import calibrate, fit_temperature, tempered
from ser_jax.runs.predictions import Predictions


def sample(n, sharpness=1.0, seed=0, n_classes=4):
    """Labels drawn from a softmax, and the probabilities of its logits scaled by `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, n_classes))
    softmax = lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)
    labels = np.array([rng.choice(n_classes, p=row) for row in softmax(logits)])
    return softmax(logits * sharpness), labels


def predictions(fold, probabilities, labels):
    ids = [f'{fold}{row}' for row in range(len(labels))]
    return Predictions(ids, [fold] * len(ids), [fold] * len(ids), labels, probabilities)


@pytest.mark.parametrize('sharpness', [0.5, 1.0, 3.0])
def test_temperature_recovers_the_sharpness(sharpness):
    probabilities, labels = sample(20_000, sharpness)
    assert fit_temperature(probabilities, labels) == pytest.approx(sharpness, rel=0.05)
    np.testing.assert_allclose(tempered(probabilities, sharpness), sample(20_000)[0], atol=1e-6)


def test_few_correct_predictions_do_not_yield_certainty():
    probabilities = np.tile([0.7, 0.1, 0.1, 0.1], (40, 1))
    temperature = fit_temperature(probabilities, np.zeros(40, int))
    # Smoothed: 41 correct of 44.
    assert tempered(probabilities, temperature)[0, 0] == pytest.approx(41 / 44, abs=1e-3)


def test_certain_and_wrong():
    probabilities = np.eye(3, dtype=np.float32)
    assert fit_temperature(probabilities, np.array([1, 2, 0])) == pytest.approx(20, rel=0.01)


def test_each_fold_has_its_own_temperature():
    tested, validated = {}, {}
    for seed, (fold, sharpness) in enumerate({'a': 3.0, 'b': 0.4}.items()):
        tested[fold] = predictions(fold, *sample(4000, sharpness, seed))
        validated[fold] = predictions(fold, *sample(4000, sharpness, seed + 10))
    result = calibrate(tested, validated)
    assert result['ece'] > 0.1
    assert result['ece_calibrated'] < 0.03
    assert 0.4 < result['temperature'] < 3
    assert result['n_validation'] == 8000
    assert calibrate(tested, {}) == {'ece': result['ece']}
