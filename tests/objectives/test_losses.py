"""Losses against NumPy and scikit-learn."""

import jax
import numpy as np
import pytest
from sklearn.metrics import log_loss

from ser_jax.objectives import losses


def test_cross_entropy_equals_sklearn_for_hard_labels():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 4)), rng.integers(0, 4, 20)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    values = jax.jit(losses.cross_entropy)(logits, np.eye(4)[labels])
    assert values.shape == (20,)
    np.testing.assert_allclose(
        values.mean(), log_loss(labels, probabilities, labels=range(4)), rtol=1e-5
    )


def test_label_smoothing_mixes_in_the_uniform_distribution():
    logits, target = np.array([[2.0, 0.0, -1.0]]), np.array([[0.25, 0.75, 0.0]])
    log_probabilities = logits - np.log(np.exp(logits).sum())
    expected = -((0.9 * target + 0.1 / 3) * log_probabilities).sum(1)
    np.testing.assert_allclose(losses.cross_entropy(logits, target, 0.1), expected, rtol=1e-6)


def test_squared_error():
    np.testing.assert_allclose(
        losses.squared_error(np.array([1.0, 2.0]), np.array([3.0, 2.5])), [4.0, 0.25]
    )


def test_shapes_that_would_broadcast_raise():
    with pytest.raises(ValueError, match='differ'):
        losses.squared_error(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(ValueError, match='differ'):
        losses.cross_entropy(np.zeros((3, 2)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match='rank'):
        losses.masked_mean(np.zeros((3, 2)), np.zeros(3))


def test_masked_mean_is_a_weighted_average_of_unmasked_values():
    values = np.array([1.0, np.nan, 3.0, np.inf])
    weights = np.array([1.0, 0.0, 3.0, 0.0])
    np.testing.assert_allclose(losses.masked_mean(values, weights), 2.5)
    assert losses.masked_mean(values, np.zeros(4)) == 0.0
    gradient = jax.grad(lambda v: losses.masked_mean(v, weights))(values)
    np.testing.assert_allclose(gradient, [0.25, 0.0, 0.75, 0.0])


def test_masked_mean_broadcasts_frame_weights_over_bands():
    values = np.arange(12.0).reshape(1, 3, 4)
    weights = np.array([True, False, True])[None, :, None]
    np.testing.assert_allclose(losses.masked_mean(values, weights), values[:, [0, 2]].mean())


def test_shares_of_devices_sum_to_the_global_mean():
    rng = np.random.default_rng(0)
    values, weights = rng.normal(size=(4, 5)), (rng.random((4, 5)) > 0.7).astype(np.float32)
    shares = jax.vmap(lambda v, w: losses.masked_mean(v, w, 'data'), axis_name='data')(
        values, weights
    )
    np.testing.assert_allclose(
        shares.sum(), (values * weights).sum() / weights.sum(), rtol=1e-4, atol=1e-6
    )
