"""Masked layers shared by the models, without leaks from padding or batch-mates.

For every layer here: `mask` is bool [B, T], True = real frame; the output at a real frame depends on real frames only; in
evaluation an example's output depends on that example only; with `axis_name` the output does not depend on how the batch is
spread over devices.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ser_jax.models.convolution import convolution, max_pool


def frames_mask(length: jax.Array, frames: int) -> jax.Array:
    """Mask of the real frames, bool [B, T], of lengths int [B]."""
    return jnp.arange(frames)[None, :] < length[:, None]


def mean_and_squares(x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean over the real frames of [B, L, T, D], and sum of squared deviations from it.

    Args:
        x: [B, L, T, D].
        mask: bool [B, T], at least one True in every row.

    Returns:
        (mean [B, L, D]; sum of squares [B, L, D]; number of real frames [B, 1, 1]).
    """
    weight = mask[:, None, :, None].astype(x.dtype)
    count = jnp.sum(weight, axis=2)
    mean = jnp.sum(x * weight, axis=2) / count
    return mean, jnp.sum(jnp.square(x - mean[:, :, None]) * weight, axis=2), count


def mean_and_deviation(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean and standard deviation over real frames, [B, L, T, D] -> [B, L, 2 D]; see `mean_and_squares`."""
    mean, squares, count = mean_and_squares(x, mask)
    # The gradient of the root is infinite at 0, which a single frame has.
    deviation = jnp.sqrt(jnp.maximum(squares / count, 1e-12))
    return jnp.concatenate([mean, deviation], axis=-1)


def example_keys(rng: jax.Array, batch: int, axis_name: str | None) -> jax.Array:
    """One key for each example, a function of its row in the *global* batch: the same on any number of devices.

    Args:
        rng: key, the same on every device.
        batch: rows on this device.
        axis_name: mapped axis the batch is spread over, or None.

    Returns:
        Keys [batch].
    """
    first = 0 if axis_name is None else lax.axis_index(axis_name) * batch
    return jax.vmap(lambda row: jax.random.fold_in(rng, row))(first + jnp.arange(batch))


class Dropout(nn.Module):
    """Dropout of single values or whole channels, with one key for each example.

    Attributes:
        rate: share dropped, 0 ≤ rate < 1.
        shared: axes that share one draw; (1, 2) on [B, T, F, C] drops whole feature maps (SpatialDropout, Tompson et al.
            2015) and needs few random numbers.
        axis_name: mapped axis the batch is spread over, or None.
    """

    rate: float
    shared: tuple[int, ...] = ()
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if not train or self.rate == 0.0:
            return x
        shape = tuple(1 if i in self.shared else n for i, n in enumerate(x.shape))[1:]
        keys = example_keys(self.make_rng('dropout'), x.shape[0], self.axis_name)
        keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1.0 - self.rate, shape))(keys)
        return x * keep.astype(x.dtype) / (1.0 - self.rate)


class MaskedBatchNorm(nn.Module):
    """Batch normalisation with statistics over the real frames of all devices (Ioffe & Szegedy 2015).

    Attributes:
        axis_name: mapped axis the batch is spread over, or None.
        momentum: momentum of the running statistics, which evaluation uses.
        epsilon: constant added to the variance.
    """

    axis_name: str | None = None
    momentum: float = 0.95
    epsilon: float = 1e-3

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
        """Normalises every channel.

        Args:
            x: [B, T, ..., C].
            mask: bool [B, T].
            train: whether to use batch statistics and update the running ones.

        Returns:
            [B, T, ..., C]; padding is not 0: mask afterwards.
        """
        channels = x.shape[-1]
        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        scale = self.param('scale', ones, (channels,))
        bias = self.param('bias', zeros, (channels,))
        mean = self.variable('batch_stats', 'mean', zeros, None, (channels,))
        var = self.variable('batch_stats', 'var', ones, None, (channels,))
        if not train:
            return _normalise(x, mean.value, var.value, scale, bias, self.epsilon)

        weight = mask.reshape(mask.shape + (1,) * (x.ndim - 2)).astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        masked = x * weight
        # One pass over x: x comes from a convolution of zero-mean inputs, so that E[x²] − E[x]² loses no significant digits.
        total = jnp.sum(masked, axes)
        squares = jnp.sum(masked * x, axes)
        count = jnp.sum(weight) * math.prod(x.shape[2:-1])
        if self.axis_name is not None:
            total, squares, count = lax.psum((total, squares, count), self.axis_name)
        count = jnp.maximum(count, 1.0)
        batch_mean = total / count
        batch_var = jnp.maximum(squares / count - batch_mean**2, 0.0)
        if not self.is_initializing():
            keep = self.momentum
            mean.value = keep * mean.value + (1.0 - keep) * batch_mean
            var.value = keep * var.value + (1.0 - keep) * batch_var
        return _normalise(x, batch_mean, batch_var, scale, bias, self.epsilon)


def _normalise(x, mean, var, scale, bias, epsilon):
    gain = scale * lax.rsqrt(var + epsilon)
    return x * gain + (bias - mean * gain)


class ConvolutionBlock(nn.Module):
    """Convolution, batch norm, ReLU, mask, max pooling.

    Attributes:
        channels: D, output channels.
        kernel: kernel size (kt, kf).
        pool: pooling block (time, bands); its sizes divide the input's.
        axis_name: mapped axis the batch is spread over, or None.
    """

    channels: int
    kernel: tuple[int, int] = (3, 3)
    pool: tuple[int, int] = (1, 1)
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> tuple:
        """Applies the block.

        Args:
            x: [B, T, F, C], 0 in padding frames.
            mask: bool [B, T].
            train: see `MaskedBatchNorm`.

        Returns:
            ([B, T / time, F / bands, D], 0 in padding frames; bool [B, T / time]).
        """
        shape = (*self.kernel, x.shape[-1], self.channels)
        x = convolution(x, self.param('kernel', nn.initializers.he_normal(), shape))
        x = MaskedBatchNorm(axis_name=self.axis_name, name='norm')(x, mask, train=train)
        x = nn.relu(x) * mask[:, :, None, None]
        return max_pool(x, *self.pool), mask[:, :: self.pool[0]]


class AttentionPooling(nn.Module):
    """Softmax attention over time: weighted mean and standard deviation.

    Attentive statistics pooling, Okabe et al. 2018 (arXiv 1803.10963, equations 5 and 6).

    Attributes:
        features: width of the scoring network's hidden layer.
    """

    features: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Pools the real frames of [B, T, D]; every row of the mask [B, T] has one.

        Returns:
            (pooled [B, 2D]; weights [B, T], each row summing to 1, 0 in padding).
        """
        scores = nn.Dense(1, use_bias=False, name='score')(
            jnp.tanh(nn.Dense(self.features, name='hidden')(x))
        )[..., 0]
        weights = jax.nn.softmax(jnp.where(mask, scores, -1e9), axis=-1) * mask
        mean = jnp.einsum('bt,btd->bd', weights, x)
        squares = jnp.einsum('bt,btd->bd', weights, jnp.square(x))
        return jnp.concatenate([mean, jnp.sqrt(jax.nn.relu(squares - mean**2) + 1e-4)], -1), weights
