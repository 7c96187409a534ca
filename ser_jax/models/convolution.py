"""Convolution, pooling and changes of resolution, formulated to be fast on every platform.

The standard formulations (`nn.ConvTranspose`, `nn.max_pool`, XLA's kernel gradient) cost 2 to 20 times as much on a CPU; see
each function.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

_NHWC = ('NHWC', 'HWIO', 'NHWC')


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=_NHWC)


def _kernel_gradient(x: jax.Array, gradient: jax.Array, *, size: tuple[int, int]) -> jax.Array:
    """XLA's gradient of `_convolve` with respect to the kernel."""
    shape = (*size, x.shape[-1], gradient.shape[-1])
    _, pull = jax.vjp(lambda k: _convolve(x, k), jnp.zeros(shape, x.dtype))
    return pull(gradient)[0]


def _kernel_gradient_cpu(x: jax.Array, gradient: jax.Array, *, size: tuple[int, int]) -> jax.Array:
    """Computes the same gradient as one dot per example, gradientᵀ · patches, accumulated over the batch.

    XLA:CPU's formulation takes 1.1 to 3 times as long, most for large feature maps. Also slower: one dot over the whole
    batch, one per offset, and patchesᵀ · gradient (benchmarks/README.md).
    """
    frames, bands, channels = x.shape[1:]
    above, left = (size[0] - 1) // 2, (size[1] - 1) // 2
    padding = ((0, 0), (above, size[0] - 1 - above), (left, size[1] - 1 - left), (0, 0))

    def accumulate(total, example):
        padded, gradient = example
        patches = jnp.concatenate(
            [padded[i : i + frames, j : j + bands] for i in range(size[0]) for j in range(size[1])],
            axis=-1,
        ).reshape(frames * bands, -1)
        flat = gradient.reshape(frames * bands, -1)
        return total + lax.dot_general(flat, patches, (((0,), (0,)), ((), ()))), None

    shape = (gradient.shape[-1], size[0] * size[1] * channels)
    total, _ = lax.scan(accumulate, jnp.zeros(shape, x.dtype), (jnp.pad(x, padding), gradient))
    return total.T.reshape(*size, channels, -1)


@jax.custom_vjp
def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """2-D convolution, stride 1, zero padding to the same size, with a custom kernel gradient on CPUs.

    [B, T, F, C] with kernel [kt, kf, C, D] -> [B, T, F, D].
    """
    return _convolve(x, kernel)


def _convolution_forward(x, kernel):
    return _convolve(x, kernel), (x, kernel)


def _convolution_backward(saved, gradient):
    x, kernel = saved
    _, pull = jax.vjp(lambda x: _convolve(x, kernel), x)
    size = kernel.shape[:2]
    kernel_gradient = lax.platform_dependent(
        x,
        gradient,
        cpu=functools.partial(_kernel_gradient_cpu, size=size),
        default=functools.partial(_kernel_gradient, size=size),
    )
    return pull(gradient)[0], kernel_gradient


convolution.defvjp(_convolution_forward, _convolution_backward)


def space_to_depth(x: jax.Array, time: int, bands: int) -> jax.Array:
    """Folds blocks of time × bands neighbours into channels, to replace a strided first layer.

    Args:
        x: [B, T, F, C], T divisible by `time`, F by `bands`.
        time: frames of a block.
        bands: bands of a block.

    Returns:
        [B, T / time, F / bands, time · bands · C].
    """
    batch, frames, width, channels = x.shape
    x = x.reshape(batch, frames // time, time, width // bands, bands, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(
        batch, frames // time, width // bands, time * bands * channels
    )


def depth_to_space(x: jax.Array, time: int, bands: int) -> jax.Array:
    """Inverse of `space_to_depth`, the sub-pixel step of a decoder (Shi et al. 2016).

    The alternative, a transposed convolution, has a gradient that is at least 20 times slower on a CPU.

    Args:
        x: [B, T, F, time · bands · C].
        time: frames of a block.
        bands: bands of a block.

    Returns:
        [B, T · time, F · bands, C].
    """
    batch, frames, width, depth = x.shape
    channels = depth // (time * bands)
    x = x.reshape(batch, frames, width, time, bands, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, frames * time, width * bands, channels)


def max_pool(x: jax.Array, time: int, bands: int) -> jax.Array:
    """Maximum over blocks of time × bands, by reshaping (the gradient of `nn.max_pool` is slow on a CPU).

    Args:
        x: [B, T, F, C], T divisible by `time`, F by `bands`; x ≥ 0, and 0 in padding, so that a block partly in the padding
            keeps its real maximum.
        time: frames of a block.
        bands: bands of a block.

    Returns:
        [B, T / time, F / bands, C].
    """
    batch, frames, width, channels = x.shape
    x = x.reshape(batch, frames // time, time, width // bands, bands, channels)
    parts = [x[:, :, i, :, j] for i in range(time) for j in range(bands)]
    return functools.reduce(jnp.maximum, parts)
