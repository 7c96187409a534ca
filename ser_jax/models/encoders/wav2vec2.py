"""wav2vec 2.0, HuBERT and WavLM: convolutions over the waveform, then a Transformer.

Baevski et al. 2020 (arXiv 2006.11477), Hsu et al. 2021 (arXiv 2106.07447), Chen et al. 2021 (arXiv 2110.13900); XLS-R is a wav2vec
2.0 (Babu et al. 2021, arXiv 2111.09296). The three differ in names of tensors and in WavLM's position bias only. Two variants of
each: base models normalise the first convolution over time and are post-norm, large ones normalise every convolution over
channels and are pre-norm.

A padded utterance has the frames that it has alone: the statistics over time are those of its real frames. (The base models of
other implementations include the padding in them.)
"""

import functools
import math
import warnings
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ser_jax.models.encoders.transformer import (
    NORM_EPSILON,
    Dense,
    LayerNorm,
    PretrainedModule,
    gelu,
)
from ser_jax.models.layers import frames_mask
from ser_jax.runtime.errors import UserError

_NHC = ('NHC', 'HIO', 'NHC')


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Strided convolution over time without padding, with a custom input gradient.

    XLA:CPU's input gradient of a strided convolution takes 1.3 times as long.

    Args:
        x: [B, T, C].
        kernel: [k, C, D].
        stride: frames between outputs.

    Returns:
        [B, (T - k) // stride + 1, D].
    """
    return _convolve(x, kernel, stride)


def _convolve(x, kernel, stride):
    return lax.conv_general_dilated(x, kernel, (stride,), 'VALID', dimension_numbers=_NHC)


def _convolve_forward(x, kernel, stride):
    return _convolve(x, kernel, stride), (x, kernel)


def _convolve_backward(stride, saved, gradient):
    x, kernel = saved
    _, pull = jax.vjp(lambda kernel: _convolve(x, kernel, stride), kernel)
    # The gradients of `stride` neighbouring frames are the channels of a convolution without stride.
    taps, channels, features = kernel.shape
    blocks = -(-taps // stride)
    folded = jnp.pad(kernel, ((0, blocks * stride - taps), (0, 0), (0, 0)))
    folded = jnp.flip(folded.reshape(blocks, stride, channels, features), axis=0)
    folded = folded.transpose(0, 3, 1, 2).reshape(blocks, features, stride * channels)
    padded = jnp.pad(gradient, ((0, 0), (blocks - 1, blocks - 1), (0, 0)))
    y = _convolve(padded, folded, 1)
    y = y.reshape(y.shape[0], y.shape[1] * stride, channels)
    return _resize(y, x.shape[1]), pull(gradient)[0]


convolve.defvjp(_convolve_forward, _convolve_backward)


def _resize(x: jax.Array, length: int) -> jax.Array:
    """Cuts the second axis, or extends it by zeros; the lengths may be symbolic."""
    padding = [(0, 0, 0)] * x.ndim
    padding[1] = (0, length - x.shape[1], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def _triangle(x: jax.Array) -> jax.Array:
    """The triangular factor of [B, K, T], rows as the vectors, by modified Gram-Schmidt: [B, K, K] with xᵀ = Q · triangle."""
    rows = []
    for i in range(x.shape[1]):
        norm = jnp.sqrt(jnp.sum(jnp.square(x[:, 0]), axis=-1, keepdims=True))
        unit = x[:, :1] / jnp.maximum(norm, 1e-30)[:, :, None]
        x = x[:, 1:]
        products = jnp.sum(unit * x, axis=-1)
        x = x - products[:, :, None] * unit
        rows.append(jnp.pad(jnp.concatenate([norm, products], axis=1), ((0, 0), (i, 0))))
    return jnp.stack(rows, axis=1)


@jax.custom_vjp
def filter_energy(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Energy over time of filtered patches, Σ (x · kernel)² over T, without the filtered signal.

    By the triangular factor of the patches. Their covariance would be simpler, but loses the energy of filters that cancel most of
    the signal, as high-pass filters of speech do.

    Args:
        x: float32 [B, T, K], patches of K samples.
        kernel: float32 [K, C].

    Returns:
        float32 [B, C].
    """
    return _filter_energy_forward(x, kernel)[0]


def _filter_energy_forward(x, kernel):
    triangle = _triangle(x.transpose(0, 2, 1))
    projected = jnp.matmul(triangle, kernel, precision='highest')
    return jnp.sum(jnp.square(projected), axis=1), (x, kernel, triangle, projected)


def _filter_energy_backward(saved, gradient):
    x, kernel, triangle, projected = saved
    weighted = gradient[:, None]
    by_kernel = jnp.einsum('bjk,bjc->kc', triangle, projected * weighted, precision='highest')
    outer = jnp.matmul(kernel * weighted, kernel.T, precision='highest')
    return 2.0 * jnp.matmul(x, outer, precision='highest'), 2.0 * by_kernel


filter_energy.defvjp(_filter_energy_forward, _filter_energy_backward)


def patches(waveform: jax.Array, size: int, stride: int, frames: int) -> jax.Array:
    """Overlapping windows of a waveform, followed by zeros or cut as needed.

    Args:
        waveform: [B, S].
        size: K, samples of a window.
        stride: samples between windows.
        frames: T.

    Returns:
        [B, T, K].
    """
    blocks = -(-size // stride)
    rows = frames - 1 + blocks
    x = _resize(waveform, rows * stride).reshape(waveform.shape[0], rows, stride)
    # Slices of reshaped blocks: XLA:CPU's gradients of a gather and of strided slices are slow.
    parts = [x[:, i : i + frames] for i in range(blocks)]
    return jnp.concatenate(parts, axis=-1)[:, :, :size]


class FirstConvolution(nn.Module):
    """First convolution of base models: convolution, normalisation of every channel over real frames, GELU.

    Always computed in float32, because the filters cancel most of the signal. Normalisation is linear: it is applied to the kernel,
    with the variance from `filter_energy`. A channel's full-size output exists once, after the GELU.

    Attributes:
        features: C, output channels.
        size: K, samples of the kernel.
        stride: samples between frames.
        use_bias: whether a checkpoint has a bias; normalisation cancels it.
        dtype: data type of the output.
    """

    features: int
    size: int
    stride: int
    use_bias: bool = False
    dtype: str = 'float32'

    @nn.compact
    def __call__(
        self, waveform: jax.Array, samples: jax.Array, frames: int, outputs: int
    ) -> jax.Array:
        """Applies the convolution.

        Args:
            waveform: float32 [B, S], 0 in padding.
            samples: int [B].
            frames: number of frames that include all real ones.
            outputs: T, number of frames to return.

        Returns:
            [B, T, C].
        """
        shape = (self.size, 1, self.features)
        kernel = self.param('kernel', nn.initializers.he_normal(), shape)[:, 0]
        if self.use_bias:
            self.param('bias', nn.initializers.zeros, (self.features,))
        scale = self.param('norm_scale', nn.initializers.ones, (self.features,))
        bias = self.param('norm_bias', nn.initializers.zeros, (self.features,))
        x = patches(waveform, self.size, self.stride, frames)
        count = (samples - self.size) // self.stride + 1
        mask = frames_mask(count, frames)[:, :, None]
        count = jnp.maximum(count, 1).astype(jnp.float32)[:, None]
        x = x - (jnp.sum(jnp.where(mask, x, 0.0), axis=1) / count)[:, None]
        variance = filter_energy(jnp.where(mask, x, 0.0), kernel) / count
        kernels = kernel * (scale * lax.rsqrt(variance + NORM_EPSILON))[:, None]

        def apply(x, kernels, bias):
            y = gelu(jnp.matmul(x, kernels, precision='highest') + bias)
            return y.astype(self.dtype)

        # Recomputing is faster than storing the input of the GELU.
        return jax.checkpoint(apply)(x[:, :outputs], kernels, bias)


class Convolution(nn.Module):
    """Strided convolution, layer norm in large models, GELU.

    Attributes:
        features: D, output channels.
        size: k, frames of the kernel.
        stride: frames between outputs.
        use_bias: whether the convolution has a bias.
        norm: whether channels are normalised.
        dtype: data type of the products and the output.
    """

    features: int
    size: int
    stride: int
    use_bias: bool = False
    norm: bool = False
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, C] to [B, (T - k) // stride + 1, D]."""
        kernel = self.param(
            'kernel', nn.initializers.he_normal(), (self.size, x.shape[-1], self.features)
        )
        x = convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            bias = self.param('bias', nn.initializers.zeros, (self.features,))
            x = x + bias.astype(self.dtype)
        if self.norm:
            x = LayerNorm(self.dtype, name='norm')(x)
        return gelu(x)


@functools.cache
def _fourier(taps: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of the real Fourier transform of 2 · taps frames, and of the inverse for the frames from taps - 1 on.

    Returns:
        (float32 [2F, 2 · taps]; float32 [taps + 1, 2F]), F = taps + 1: real parts, then imaginary parts.
    """
    size = 2 * taps
    angle = 2 * np.pi / size * (np.outer(np.arange(taps + 1), np.arange(size)) % size)
    forward = np.concatenate([np.cos(angle), -np.sin(angle)])
    weight = np.full(taps + 1, 2 / size)
    weight[[0, -1]] = 1 / size
    inverse = (forward * np.tile(weight, 2)[:, None]).T[taps - 1 :]
    return forward.astype(np.float32), inverse.astype(np.float32)


def _grouped_fourier(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`grouped_convolution` by overlapping Fourier transforms, which are products with constant matrices.

    A third of the products of the definition; XLA:CPU's grouped convolution takes far longer than either.
    """
    batch, frames, width = x.shape
    taps, inputs, _ = kernel.shape
    groups, outputs = width // inputs, inputs
    forward, inverse = _fourier(taps)
    # Blocks of 2 · taps frames, which overlap by taps - 1; time and groups first, as the products need them.
    hop = taps + 1
    blocks = -(-frames // hop)
    padding = ((0, 0), (taps // 2, (blocks + 1) * hop - frames - taps // 2), (0, 0))
    x = jnp.pad(x, padding).reshape(batch, blocks + 1, hop, groups, inputs)
    x = jnp.concatenate([x[:, :-1], x[:, 1:, : taps - 1]], axis=2).transpose(2, 3, 0, 1, 4)
    kernel = jnp.flip(kernel, axis=0).reshape(taps, inputs, groups, outputs).transpose(0, 2, 1, 3)

    def transform(matrix, y):
        return (matrix @ y.reshape(y.shape[0], math.prod(y.shape[1:]))).reshape(-1, *y.shape[1:])

    rows = batch * blocks
    real, imaginary = transform(forward, x).reshape(2, hop, groups, rows, inputs)
    by_real, by_imaginary = transform(forward[:, :taps], kernel).reshape(
        2, hop, groups, inputs, outputs
    )
    y = jnp.concatenate(
        [
            real @ by_real - imaginary @ by_imaginary,
            real @ by_imaginary + imaginary @ by_real,
        ]
    )
    y = transform(inverse, y).reshape(hop, groups, batch, blocks, outputs)
    return y.transpose(2, 3, 0, 1, 4).reshape(batch, blocks * hop, width)[:, :frames]


def _grouped_native(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`grouped_convolution` by XLA's."""
    taps = kernel.shape[0]
    return lax.conv_general_dilated(
        x,
        kernel,
        (1,),
        [(taps // 2, taps - 1 - taps // 2)],
        dimension_numbers=_NHC,
        feature_group_count=x.shape[-1] // kernel.shape[1],
    )


@jax.custom_vjp
def grouped_convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution over time within groups of channels, stride 1, with zeros on both sides.

    Args:
        x: float32 [B, T, D].
        kernel: float32 [k, D / groups, D]; output t is the sum over i of x[t + i - k // 2] · kernel[i].

    Returns:
        float32 [B, T, D].
    """
    return lax.platform_dependent(x, kernel, cpu=_grouped_fourier, default=_grouped_native)


def _grouped_forward(x, kernel):
    return grouped_convolution(x, kernel), (x, kernel)


def _grouped_backward(saved, gradient):
    pull = lambda function: lambda x, kernel, gradient: jax.vjp(function, x, kernel)[1](gradient)
    return lax.platform_dependent(
        *saved, gradient, cpu=pull(_grouped_fourier), default=pull(_grouped_native)
    )


grouped_convolution.defvjp(_grouped_forward, _grouped_backward)


class PositionalConvolution(nn.Module):
    """Relative positions as a grouped convolution over time, then GELU; weight norm over all but time.

    Weight norm: Salimans & Kingma 2016 (arXiv 1602.07868).

    Attributes:
        size: k, frames of the kernel.
        groups: groups of channels, divides D.
        dtype: data type of the output.
    """

    size: int
    groups: int
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, D], 0 in padding, to the same shape."""
        width = x.shape[-1]
        shape = (self.size, width // self.groups, width)
        direction = self.param('weight_v', nn.initializers.he_normal(), shape)
        length = self.param('weight_g', nn.initializers.ones, (self.size, 1, 1))
        bias = self.param('bias', nn.initializers.zeros, (width,))
        squares = jnp.sum(jnp.square(direction), axis=(1, 2), keepdims=True)
        kernel = direction * (length * lax.rsqrt(squares))
        y = grouped_convolution(x.astype(jnp.float32), kernel)
        return gelu(y + bias).astype(self.dtype)


class PositionBias(nn.Module):
    """WavLM's bias of the scores by relative position, in logarithmic buckets (as T5's, arXiv 1910.10683).

    Attributes:
        heads: H.
        buckets: half of them for later frames; half of each half for single distances.
        max_distance: distance from which on all share a bucket.
    """

    heads: int
    buckets: int
    max_distance: int

    @nn.compact
    def __call__(self, frames: int) -> jax.Array:
        """The bias of every pair of frames: float32 [H, T, T]."""
        embedding = self.param(
            'embedding', nn.initializers.normal(0.02), (self.buckets, self.heads)
        )
        # The offsets 0 … T - 1, then -T … -1: rolled by one for every query, they are the rows of the matrix.
        offset = jnp.arange(2 * frames)
        later = (offset > 0) & (offset < frames)
        distance = jnp.where(offset < frames, offset, 2 * frames - offset)
        table = jnp.asarray(distance_buckets(self.buckets, self.max_distance))
        bucket = table[jnp.minimum(distance, self.max_distance)] + later * (self.buckets // 2)
        row = jnp.take(embedding, bucket, axis=0).T
        rows = jnp.broadcast_to(row[:, None], (self.heads, frames, 2 * frames))
        rolled = rows.reshape(self.heads, frames * (2 * frames))[:, : frames * (2 * frames - 1)]
        return rolled.reshape(self.heads, frames, 2 * frames - 1)[:, :, :frames]


def distance_buckets(buckets: int, max_distance: int) -> np.ndarray:
    """The bucket of every distance among earlier frames, int32 [max_distance + 1]; see `PositionBias`."""
    half = buckets // 2
    exact = half // 2
    distance = np.arange(max_distance + 1, dtype=np.float32)
    # In float32, as the published model computes it: buckets are cut at these values.
    ratio = np.log(np.maximum(distance, 1) / np.float32(exact)) / np.float32(
        math.log(max_distance / exact)
    )
    logarithmic = exact + (ratio * np.float32(half - exact)).astype(np.int32)
    return np.where(distance < exact, distance, np.minimum(logarithmic, half - 1)).astype(np.int32)


class Wav2Vec2(PretrainedModule):
    """Encoder of wav2vec 2.0, HuBERT or WavLM.

    Attributes:
        conv_dim, conv_kernel, conv_stride: channels, kernel and stride of every convolution over the waveform.
        conv_bias: whether these have biases.
        group_norm: the first convolution is normalised over time (base models), or every one over channels (large models).
        projection_norm: whether the channels are normalised before they are mapped to D.
        position_kernel: frames of the convolution that encodes positions.
        position_groups: groups of channels of that convolution.
        pre_norm: see `Layer`; with a norm after the last layer.
        buckets: number of buckets of WavLM's position bias, see `PositionBias`, or 0 for none.
        max_distance: see `PositionBias`.
        normalise: whether every utterance is scaled to mean 0 and variance 1.
    """

    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    group_norm: bool = True
    projection_norm: bool = True
    position_kernel: int = 128
    position_groups: int = 16
    pre_norm: bool = False
    buckets: int = 0
    max_distance: int = 800
    normalise: bool = True

    prefixes = ('wav2vec2.', 'hubert.', 'wavlm.')
    SIZES = (
        'hidden_size',
        'num_hidden_layers',
        'num_attention_heads',
        'intermediate_size',
        'num_conv_pos_embeddings',
        'num_conv_pos_embedding_groups',
    )
    SIZE_LISTS = ('conv_dim', 'conv_kernel', 'conv_stride')

    @property
    def stride(self) -> int:
        """Samples between frames."""
        return math.prod(self.conv_stride)

    @property
    def min_samples(self) -> int:
        """Samples that a frame covers, and an utterance needs."""
        return self._covered(0)

    @property
    def overlap(self) -> int:
        """Samples by which a frame reaches into the next."""
        return self.min_samples - self.stride

    @property
    def outputs(self) -> int:
        """Number of arrays of frames: 0 the input of the layers, 1 … N after a layer, pre-norm N + 1 after the final norm."""
        return self.layers + 1 + self.pre_norm

    def frames(self, samples):
        """Number of frames of an utterance: (samples - 400) // 320 + 1 with the usual convolutions."""
        return (samples - self.min_samples) // self.stride + 1

    def _covered(self, first: int) -> int:
        """Inputs of the convolution `first` that a frame covers."""
        covered = 1
        for kernel, stride in zip(self.conv_kernel[:first:-1], self.conv_stride[:first:-1]):
            covered = (covered - 1) * stride + kernel
        return (covered - 1) * self.conv_stride[first] + self.conv_kernel[first]

    @nn.compact
    def __call__(
        self, waveform: jax.Array, samples: jax.Array
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Encodes a padded batch.

        Args:
            waveform: float32 [B, S], amplitudes in [-1, 1) at 16 kHz, S at least `min_samples`; the content of padding is ignored.
            samples: int [B], lengths of the utterances, at least `min_samples`.

        Returns:
            (`outputs` arrays float32 [B, T, D], T = `frames(S)`, 0 in padding; mask bool [B, T]).
        """
        real = frames_mask(samples, waveform.shape[1])
        waveform = jnp.where(real, waveform, 0.0)
        if self.normalise:
            count = jnp.maximum(samples, 1).astype(jnp.float32)[:, None]
            mean = jnp.sum(waveform, axis=1, keepdims=True) / count
            waveform = jnp.where(real, waveform - mean, 0.0)
            variance = jnp.sum(jnp.square(waveform), axis=1, keepdims=True) / count
            waveform = waveform * lax.rsqrt(variance + 1e-7)
        x = self._features(waveform, samples)
        if self.projection_norm:
            x = LayerNorm(self.dtype, name='projection_norm')(x)
        x = Dense(self.width, dtype=self.dtype, name='projection')(x)
        mask = frames_mask(self.frames(samples), x.shape[1])
        x = jnp.where(mask[:, :, None], x, 0)
        x = x + PositionalConvolution(
            self.position_kernel, self.position_groups, self.dtype, name='positions'
        )(x)
        norm = LayerNorm('float32' if self.pre_norm else self.dtype, name='norm')
        x = x if self.pre_norm else norm(x)
        position_bias = None
        if self.buckets:
            bias = PositionBias(self.heads, self.buckets, self.max_distance, name='position_bias')
            position_bias = bias(x.shape[1])
        states = self.run_layers(x, mask, position_bias, pre_norm=self.pre_norm)
        if self.pre_norm:
            states.append(norm(states[-1]))
        return self.masked(states, mask), mask

    def _features(self, waveform: jax.Array, samples: jax.Array) -> jax.Array:
        """Applies the convolutions to [B, S]: [B, frames(S), conv_dim[-1]]."""
        frames = self.frames(waveform.shape[1])
        sizes = list(zip(self.conv_dim, self.conv_kernel, self.conv_stride))
        (features, size, stride), *rest = sizes
        # Just what the frames cover; statistics of the first convolution include what is left of an utterance.
        rate = self.stride // stride
        needed = (frames - 1) * rate + (self._covered(1) if rest else 1)
        if self.group_norm:
            longest = frames * rate + (self.min_samples - 1 - size) // stride + 1
            first = FirstConvolution(
                features, size, stride, self.conv_bias, self.dtype, name='conv_0'
            )
            x = first(waveform, samples, longest, needed)
        else:
            covered = _resize(waveform, (needed - 1) * stride + size)[:, :, None]
            # The filters of a waveform cancel most of it: float32.
            first = Convolution(features, size, stride, self.conv_bias, True, name='conv_0')
            x = first(covered)
        for i, (features, size, stride) in enumerate(rest, 1):
            x = Convolution(
                features,
                size,
                stride,
                self.conv_bias,
                not self.group_norm,
                self.dtype,
                name=f'conv_{i}',
            )(x)
        return x

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, **options
    ) -> 'Wav2Vec2':
        """Builds the module that a Hugging Face `config.json` describes.

        Args:
            config: content of `config.json`.
            preprocessor: content of `preprocessor_config.json`, or None: a warning names what is assumed.
            options: `dtype`, `remat`, `lora_rank`.

        Raises:
            UserError: a switch that is not supported.
        """
        cls.refuse_unsupported(config, _SUPPORTED)
        norm = config.get('feat_extract_norm', 'group')
        if norm not in ('group', 'layer'):
            raise UserError(f"feat_extract_norm is {norm!r}; supported are 'group' and 'layer'")
        width, heads = config['hidden_size'], config['num_attention_heads']
        groups = config['num_conv_pos_embedding_groups']
        for name, parts in {
            'num_attention_heads': heads,
            'num_conv_pos_embedding_groups': groups,
        }.items():
            if width % parts:
                raise UserError(f'{name} is {parts}, which does not divide hidden_size {width}')
        convolutions = {
            name: tuple(config.get(name, getattr(cls, name))) for name in cls.SIZE_LISTS
        }
        if len({len(sizes) for sizes in convolutions.values()}) > 1:
            lengths = ', '.join(f'{len(sizes)} {name}' for name, sizes in convolutions.items())
            raise UserError(f'the convolutions have {lengths}; the numbers must be the same')
        buckets, max_distance = 0, cls.max_distance
        if config['model_type'] == 'wavlm':
            buckets = config.get('num_buckets', 320)
            max_distance = config.get('max_bucket_distance', cls.max_distance)
            if buckets < 4 or max_distance <= buckets // 4:
                raise UserError(
                    f'num_buckets is {buckets} and max_bucket_distance {max_distance}; at least 4 buckets, and a distance '
                    'above a quarter of them are needed'
                )
        return cls(
            *(config[name] for name in cls.SIZES[:4]),
            **convolutions,
            conv_bias=config.get('conv_bias', False),
            group_norm=norm == 'group',
            projection_norm=config.get('feat_proj_layer_norm', True),
            position_kernel=config['num_conv_pos_embeddings'],
            position_groups=groups,
            pre_norm=config.get('do_stable_layer_norm', False),
            buckets=buckets,
            max_distance=max_distance,
            normalise=_normalises(config, preprocessor),
            **options,
        )

    @staticmethod
    def tensor_name(path: tuple[str, ...]) -> str:
        """The name of a parameter in a Hugging Face checkpoint, without prefix.

        E.g. 'encoder.layers.0.attention.q_proj.weight' for ('layer_0', 'attention', 'query', 'kernel').
        """
        first, *inside, leaf = path
        tensor = _LEAVES.get(leaf, leaf)
        if first.startswith('layer_'):
            layer = f'encoder.layers.{first.removeprefix("layer_")}'
            if path[1:] == ('gate', 'scale'):
                return f'{layer}.attention.gru_rel_pos_const'
            return f'{layer}.{_LAYER_MODULES["/".join(inside)]}.{tensor}'
        if first.startswith('conv_'):
            part = 'layer_norm' if inside or leaf.startswith('norm_') else 'conv'
            return f'feature_extractor.conv_layers.{first.removeprefix("conv_")}.{part}.{tensor}'
        return f'{_MODULES[first]}.{tensor}'


def _normalises(config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None) -> bool:
    """Whether utterances are normalised; see `Wav2Vec2.from_config`."""
    if preprocessor is None:
        # Published models that have no normalisation: WavLM base and base-plus.
        wavlm_base = (
            config['model_type'] == 'wavlm' and config.get('feat_extract_norm', 'group') == 'group'
        )
        warnings.warn(
            f'no preprocessor_config.json: do_normalize is taken to be {not wavlm_base}, as in the published '
            f'{config["model_type"]} models of this kind',
            stacklevel=3,
        )
        return not wavlm_base
    rate = preprocessor.get('sampling_rate', 16000)
    if rate != 16000:
        raise UserError(f'sampling_rate is {rate!r}; only 16000 is supported')
    return preprocessor.get('do_normalize', True)


# Switches of a config and the only value of each that is supported.
_SUPPORTED = {
    'hidden_act': 'gelu',
    'feat_extract_activation': 'gelu',
    'layer_norm_eps': NORM_EPSILON,
    'add_adapter': False,
    'adapter_attn_dim': None,
    'conv_pos_batch_norm': False,
    'position_embeddings_type': None,
}
_LEAVES = {
    'kernel': 'weight',
    'scale': 'weight',
    'norm_scale': 'weight',
    'norm_bias': 'bias',
    'embedding': 'weight',
}
_MODULES = {
    'projection_norm': 'feature_projection.layer_norm',
    'projection': 'feature_projection.projection',
    'positions': 'encoder.pos_conv_embed.conv',
    'norm': 'encoder.layer_norm',
    'position_bias': 'encoder.layers.0.attention.rel_attn_embed',
}
_LAYER_MODULES = {
    'attention_norm': 'layer_norm',
    'attention/query': 'attention.q_proj',
    'attention/key': 'attention.k_proj',
    'attention/value': 'attention.v_proj',
    'attention/out': 'attention.out_proj',
    'gate': 'attention.gru_rel_pos_linear',
    'feed_forward_norm': 'final_layer_norm',
    'feed_forward/in': 'feed_forward.intermediate_dense',
    'feed_forward/out': 'feed_forward.output_dense',
}
