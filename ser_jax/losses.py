"""Losses: elementwise, unreduced functions, and the one masked mean that reduces them all."""

import jax
import jax.numpy as jnp
from jax import lax


def cross_entropy(
    logits: jax.Array, soft_targets: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of soft targets under softmax(logits), per example.

    Args:
        logits: [..., K].
        soft_targets: [..., K], non-negative, each row summing to 1 (a row of zeros, a missing label,
            gives a finite value that the caller weighs with 0).
        label_smoothing: share of every target spread evenly over the K classes (Szegedy et al. 2016,
            arXiv 1512.00567, section 7).

    Returns:
        [...] in nats.
    """
    if logits.shape != soft_targets.shape:
        raise ValueError(f'logits {logits.shape} and soft_targets {soft_targets.shape} differ')
    targets = soft_targets * (1.0 - label_smoothing) + label_smoothing / logits.shape[-1]
    return -jnp.sum(targets * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error, elementwise.

    Args:
        predictions: [...].
        targets: [...], the same shape.

    Returns:
        [...].
    """
    if predictions.shape != targets.shape:
        raise ValueError(f'predictions {predictions.shape} and targets {targets.shape} differ')
    return jnp.square(predictions.astype(jnp.float32) - targets.astype(jnp.float32))


def masked_mean(values: jax.Array, weights: jax.Array, axis_name: str | None = None) -> jax.Array:
    """This device's share of the global weighted mean: sum(values · weights) / global sum(weights).

    The denominator is global, so that the *sum* of the shares over the devices is the mean over the
    whole batch whichever device an example fell on (a mean of per-device means is not).

    Args:
        values: [...], finite wherever the weight is not 0.
        weights: [...] or broadcastable to it with the same rank (bool or float); 0 = missing or padding.
        axis_name: mapped axis over which the weights are summed; None outside shard_map and pmap.

    Returns:
        Scalar; 0 where all weights are 0.
    """
    if weights.ndim != values.ndim:
        raise ValueError(f'weights {weights.shape} and values {values.shape} differ in rank')
    weights = jnp.broadcast_to(weights.astype(jnp.float32), values.shape)
    total = jnp.sum(weights)
    if axis_name is not None:
        total = lax.psum(total, axis_name)
    # where, not a product: 0 · inf and 0 · nan would not be 0.
    weighted = jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)
    return weighted / jnp.where(total > 0, total, 1.0)
