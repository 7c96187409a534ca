"""Losses: elementwise functions, the masked mean that reduces them, and the concordance loss of a batch."""

import jax
import jax.numpy as jnp
from jax import lax


def cross_entropy(
    logits: jax.Array, soft_targets: jax.Array, label_smoothing: float = 0.0
) -> jax.Array:
    """Cross-entropy of soft targets under softmax(logits), per example.

    Args:
        logits: [..., K].
        soft_targets: [..., K], non-negative, each row summing to 1; a row of zeros (missing label) gives a finite value, to
            be weighted by 0.
        label_smoothing: share of every target spread evenly over the K classes (Szegedy et al. 2016, arXiv 1512.00567,
            section 7).

    Returns:
        [...] in nats.
    """
    if logits.shape != soft_targets.shape:
        raise ValueError(f'logits {logits.shape} and soft_targets {soft_targets.shape} differ')
    targets = soft_targets * (1.0 - label_smoothing) + label_smoothing / logits.shape[-1]
    return -jnp.sum(targets * jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Squared error, elementwise, of arrays of the same shape."""
    if predictions.shape != targets.shape:
        raise ValueError(f'predictions {predictions.shape} and targets {targets.shape} differ')
    return jnp.square(predictions.astype(jnp.float32) - targets.astype(jnp.float32))


def masked_mean(values: jax.Array, weights: jax.Array, axis_name: str | None = None) -> jax.Array:
    """This device's share of the global weighted mean: sum(values · weights) / global sum(weights).

    The denominator is global, so that the *sum* of the shares over the devices is the mean over the whole batch, however the
    examples are spread over devices (a mean of per-device means is not).

    Args:
        values: [...], finite wherever the weight is not 0.
        weights: bool or float, broadcastable to values with the same rank; 0 = missing or padding.
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
    # where, not only a product: 0 · inf and 0 · nan are not 0.
    weighted_sum = jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)
    return weighted_sum / jnp.where(total > 0, total, 1.0)


def concordance_loss(
    predictions: jax.Array, targets: jax.Array, weights: jax.Array, axis_name: str | None = None
) -> jax.Array:
    """This device's share of 1 - CCC over the whole batch (Lin 1989; as a loss Trigeorgis et al. 2016).

    CCC is not a mean over examples: its moments are those of the global batch, and all devices have equal shares.

    Args:
        predictions: [B].
        targets: [B], arbitrary where the weight is 0.
        weights: [B], bool or 0 and 1; 0 = missing.
        axis_name: mapped axis the batch is spread over; None outside shard_map and pmap.

    Returns:
        Scalar; the sum of the shares lies in 0 … 2 and is 1 if the targets do not vary, 0 if there are none.
    """
    if not predictions.shape == targets.shape == weights.shape:
        raise ValueError(
            f'predictions {predictions.shape}, targets {targets.shape}, weights {weights.shape} differ'
        )
    total = lambda x: jnp.sum(x) if axis_name is None else lax.psum(jnp.sum(x), axis_name)
    weights = weights.astype(jnp.float32)
    pair = jnp.where(weights > 0, jnp.stack([predictions, targets]).astype(jnp.float32), 0.0)
    count = total(weights)
    mean = lambda x: total(x * weights) / jnp.maximum(count, 1.0)
    mean_p, mean_t = mean(pair[0]), mean(pair[1])
    p, t = pair[0] - mean_p, pair[1] - mean_t
    spread = mean(p**2) + mean(t**2) + (mean_p - mean_t) ** 2
    loss = jnp.where(count > 0, 1.0 - 2.0 * mean(p * t) / (spread + 1e-8), 0.0)
    return loss / (1 if axis_name is None else lax.psum(1, axis_name))
