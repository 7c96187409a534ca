"""What the pretrained encoders share: Transformer layers with masked self-attention and LoRA, and the interface of a family.

Vaswani et al. 2017 (arXiv 1706.03762); pre-norm or post-norm. Everything here keeps parameters and statistics in float32 and
computes products in `dtype`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.runtime.errors import UserError

NORM_EPSILON = 1e-5


class Dense(nn.Module):
    """Linear map of the last axis, computed on two dimensions, with an optional low-rank update.

    With `lora_rank` r the kernel is W + A B, A [D, r] and B [r, features] (Hu et al. 2021, arXiv 2106.09685, with α = r). B
    starts at 0: the module then computes what it computes without LoRA.

    Attributes:
        features: width of the output.
        use_bias: whether a bias is added.
        dtype: data type of the products and the output.
        lora_rank: r, or 0 for no low-rank update.
    """

    features: int
    use_bias: bool = True
    dtype: str = 'float32'
    lora_rank: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        # Two dimensions: XLA:CPU multiplies [B, T, D] more slowly.
        flat = x.astype(self.dtype).reshape(math.prod(x.shape[:-1]), width)
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (width, self.features))
        y = flat @ kernel.astype(self.dtype)
        if self.lora_rank:
            down = self.param('lora_a', nn.initializers.lecun_normal(), (width, self.lora_rank))
            up = self.param('lora_b', nn.initializers.zeros, (self.lora_rank, self.features))
            y = y + flat @ down.astype(self.dtype) @ up.astype(self.dtype)
        if self.use_bias:
            y = y + self.param('bias', nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


class LayerNorm(nn.Module):
    """Layer normalisation, statistics in float32 (Ba et al. 2016).

    Attributes:
        dtype: data type of the output.
    """

    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
        bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
        x = x.astype(jnp.float32)
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
        y = centred * jax.lax.rsqrt(variance + NORM_EPSILON) * scale + bias
        return y.astype(self.dtype)


class SelfAttention(nn.Module):
    """Multi-head self-attention over real frames.

    Attributes:
        heads: H, divides the width D.
        key_bias: whether keys have a bias (it changes no output).
        dtype: data type of the products.
        lora_rank: see `Dense`, for query and value.
    """

    heads: int
    key_bias: bool = True
    dtype: str = 'float32'
    lora_rank: int = 0

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, position_bias: jax.Array | None = None
    ) -> jax.Array:
        """Applies attention.

        Args:
            x: [B, T, D].
            mask: bool [B, T].
            position_bias: added to the scores, [B, H, T, T], or None.

        Returns:
            [B, T, D].
        """
        batch, frames, width = x.shape
        size = width // self.heads
        # Heads before frames: XLA:CPU multiplies the other order at a fraction of the speed.
        split = lambda y: y.reshape(batch, frames, self.heads, size).transpose(0, 2, 1, 3)
        lora = {'dtype': self.dtype, 'lora_rank': self.lora_rank}
        query = split(Dense(width, name='query', **lora)(x) * size**-0.5)
        key = split(Dense(width, self.key_bias, self.dtype, name='key')(x))
        value = split(Dense(width, name='value', **lora)(x))
        scores = jnp.einsum('bhqd,bhkd->bhqk', query, key).astype(jnp.float32)
        if position_bias is not None:
            scores = scores + position_bias
        scores = jnp.where(mask[:, None, None, :], scores, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        y = jnp.einsum('bhqk,bhkd->bhqd', weights, value).transpose(0, 2, 1, 3)
        return Dense(width, dtype=self.dtype, name='out')(y.reshape(batch, frames, width))


class FeedForward(nn.Module):
    """Two linear maps with the exact GELU between them.

    Attributes:
        hidden: width between the two.
        dtype: data type of the products.
    """

    hidden: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Dense(self.hidden, dtype=self.dtype, name='in')(x)
        return Dense(x.shape[-1], dtype=self.dtype, name='out')(gelu(y))


class PositionGate(nn.Module):
    """Gate of WavLM's position bias, one factor for every frame and head from the head's part of the frame.

    Attributes:
        heads: H, divides the width D.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D] to float32 [B, H, T, 1]."""
        batch, frames, width = x.shape
        size = width // self.heads
        kernel = self.param('kernel', nn.initializers.lecun_normal(), (size, 8))
        bias = self.param('bias', nn.initializers.zeros, (8,))
        scale = self.param('scale', nn.initializers.ones, (1, self.heads, 1, 1))
        # Two gates, each the sum of four outputs of the published map.
        kernel, bias = kernel.reshape(size, 2, 4).sum(-1), bias.reshape(2, 4).sum(-1)
        flat = x.astype(jnp.float32).reshape(batch * frames * self.heads, size)
        gates = jax.nn.sigmoid(flat @ kernel + bias).reshape(batch, frames, self.heads, 2)
        first, second = (gates[..., i].transpose(0, 2, 1)[..., None] for i in range(2))
        return first * (second * scale - 1.0) + 2.0


class Layer(nn.Module):
    """Transformer layer.

    Attributes:
        heads, hidden, key_bias, dtype, lora_rank: see `SelfAttention` and `FeedForward`.
        pre_norm: whether layer norms stand before the residual branches, or after the sums.
    """

    heads: int
    hidden: int
    pre_norm: bool = True
    key_bias: bool = True
    dtype: str = 'float32'
    lora_rank: int = 0

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, position_bias: jax.Array | None = None
    ) -> jax.Array:
        """Applies the layer.

        Args:
            x: [B, T, D].
            mask: bool [B, T].
            position_bias: [H, T, T], which is gated and added to the scores, or None.

        Returns:
            [B, T, D].
        """
        attention = SelfAttention(
            self.heads, self.key_bias, self.dtype, self.lora_rank, name='attention'
        )
        feed_forward = FeedForward(self.hidden, self.dtype, name='feed_forward')
        attention_norm = LayerNorm(self.dtype, name='attention_norm')
        feed_forward_norm = LayerNorm(self.dtype, name='feed_forward_norm')

        def attend(y):
            if position_bias is None:
                return attention(y, mask)
            return attention(y, mask, PositionGate(self.heads, name='gate')(y) * position_bias)

        if self.pre_norm:
            x = x + attend(attention_norm(x))
            return x + feed_forward(feed_forward_norm(x))
        x = attention_norm(x + attend(x))
        return feed_forward_norm(x + feed_forward(x))


class PretrainedModule(nn.Module):
    """What the encoders share: from the waveform to the frames of every layer, float32, 0 in padding.

    A family also has `outputs`, the number of arrays of frames; `stride`, samples between frames; `overlap`, samples by which a frame
    reaches into the next; `min_samples`, of the shortest waveform; `frames(samples)`; `prefixes` and `tensor_name(path)` of its
    checkpoints; `SIZES`, the sizes in `config.json` that it needs (width, layers, heads, others), and `SIZE_LISTS`, lists with one size
    a convolution.

    Attributes:
        width: D.
        layers: number of Transformer layers N.
        heads: attention heads.
        hidden: width of the feed-forward networks.
        dtype: data type of the products; 'bfloat16' for accelerators.
        remat: recompute the layers in the backward pass, to save memory.
        lora_rank: rank of trainable updates of query and value, or 0.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    dtype: str = 'float32'
    remat: bool = False
    lora_rank: int = 0

    on_host = False  # whether it runs on the CPU and has statistics only, without a gradient
    SIZE_LISTS = ()

    @property
    def statistics(self) -> int:
        """Width of the statistics of a layer."""
        return 2 * self.width

    def run_layers(self, x: jax.Array, mask: jax.Array, *bias, **settings) -> list[jax.Array]:
        """Applies the layers to [B, T, D]: their input and N outputs.

        Args:
            x, mask, bias: see `Layer`.
            settings: further attributes of `Layer`.
        """
        states = [x]
        layer = nn.remat(Layer) if self.remat else Layer
        settings |= {'dtype': self.dtype, 'lora_rank': self.lora_rank}
        for i in range(self.layers):
            apply = layer(self.heads, self.hidden, **settings, name=f'layer_{i}')
            states.append(apply(states[-1], mask, *bias))
        return states

    @staticmethod
    def masked(states: Sequence[jax.Array], mask: jax.Array) -> tuple[jax.Array, ...]:
        """The states as float32, 0 in padding."""
        return tuple(jnp.where(mask[:, :, None], x.astype(jnp.float32), 0.0) for x in states)

    @staticmethod
    def refuse_unsupported(config: Mapping[str, Any], supported: Mapping[str, Any]) -> None:
        """Refuses switches of a `config.json` whose value is not the supported one; raises UserError."""
        for name, value in supported.items():
            if config.get(name, value) != value:
                raise UserError(f'{name} is {config[name]!r}; only {value!r} is supported')


@jax.custom_vjp
def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU, x Φ(x), computed in float32; the backward pass needs x only."""
    return _gelu_forward(x)[0]


def _gelu_forward(x):
    y = x.astype(jnp.float32)
    return (y * _normal_cdf(y)).astype(x.dtype), x


def _gelu_backward(x, gradient):
    y = x.astype(jnp.float32)
    slope = _normal_cdf(y) + y * jnp.exp(-0.5 * jnp.square(y)) / math.sqrt(2 * math.pi)
    return ((gradient * slope).astype(x.dtype),)


def _normal_cdf(x):
    return 0.5 + 0.5 * jax.lax.erf(x * math.sqrt(0.5))


gelu.defvjp(_gelu_forward, _gelu_backward)
