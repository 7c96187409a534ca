"""Temperatures and calibration errors."""

import numpy as np
import pytest

from ser_jax.evaluation.calibration import calibrate, fit_temperature, tempered
from ser_jax.metrics import rates
from ser_jax.runs.predictions import Predictions


def _drawn(n, sharpness=1.0, seed=0, n_classes=4):
    """Probabilities, and labels drawn from those that the logits over `sharpness` have."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, n_classes))
    softmax = lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)
    labels = np.array([rng.choice(n_classes, p=row) for row in softmax(logits)])
    return softmax(logits * sharpness), labels


def _predictions(fold, said, labels):
    ids = [f'{fold}{row}' for row in range(len(labels))]
    return Predictions(ids, [fold] * len(ids), [fold] * len(ids), labels, said)


@pytest.mark.parametrize('sharpness', [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_sharpness(sharpness):
    said, labels = _drawn(20_000, sharpness)
    assert fit_temperature(said, labels) == pytest.approx(sharpness, rel=0.05)
    np.testing.assert_allclose(tempered(said, sharpness), _drawn(20_000)[0], atol=1e-6)


def test_few_that_are_all_right_make_nobody_certain():
    said = np.tile([0.7, 0.1, 0.1, 0.1], (40, 1))
    temperature = fit_temperature(said, np.zeros(40, int))
    # As sure as 41 right of 44 allow.
    assert tempered(said, temperature)[0, 0] == pytest.approx(41 / 44, abs=1e-3)


def test_certain_and_wrong():
    said = np.eye(3, dtype=np.float32)
    assert fit_temperature(said, np.array([1, 2, 0])) == pytest.approx(20, rel=0.01)


def test_calibration_error_by_hand():
    said = np.array([[0.9, 0.1], [0.9, 0.1], [0.35, 0.65], [0.5, 0.5]])
    labels = np.array([0, 1, 1, 0])
    # Bins of width 1/5: [0.8, 1) holds 0.9 twice, half of them right; [0.6, 0.8) 0.65; [0.4, 0.6) 0.5.
    expected = (2 * abs(0.5 - 0.9) + abs(1 - 0.65) + abs(1 - 0.5)) / 4
    assert rates.expected_calibration_error(said, labels, 5) == pytest.approx(expected)


def test_calibration_error_equals_the_definition():
    said, labels = _drawn(3000, 2.0, seed=1)
    confidence, right = said.max(1), said.argmax(1) == labels
    expected = 0.0
    for k in range(10):
        inside = (confidence >= k / 10) & (confidence < (k + 1) / 10)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert rates.expected_calibration_error(said, labels) == pytest.approx(expected)


def test_folds_have_temperatures_of_their_own():
    tested, validated = {}, {}
    for seed, (fold, sharpness) in enumerate({'a': 3.0, 'b': 0.4}.items()):
        tested[fold] = _predictions(fold, *_drawn(4000, sharpness, seed))
        validated[fold] = _predictions(fold, *_drawn(4000, sharpness, seed + 10))
    result = calibrate(tested, validated)
    assert result['ece'] > 0.1
    assert result['ece_calibrated'] < 0.03
    assert 0.4 < result['temperature'] < 3
    assert result['n_validation'] == 8000
    assert calibrate(tested, {}) == {'ece': result['ece']}
