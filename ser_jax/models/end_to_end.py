"""Attention-augmented end-to-end multitask learning (Zhang, Wu & Schuller 2019, arXiv 1903.12424).

Unpublished, therefore our own choice: the initial values, and the grouping of channels in the cross-channel maximum
(neighbours; channels are exchangeable before training, so the grouping makes no difference).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.models import layers
from ser_jax.models.recurrent import gru
from ser_jax.runtime.errors import UserError


def count_frames(length: jax.Array | int, frame: int, hop: int) -> jax.Array | int:
    """Number of whole frames in a waveform, at least 1.

    Args:
        length: samples.
        frame: samples of a frame.
        hop: samples between the starts of two frames.
    """
    maximum = jnp.maximum if isinstance(length, jax.Array) else max  # symbolic sizes are not arrays
    return 1 + (maximum(length, frame) - frame) // hop


def _windows(x: jax.Array, size: int, hop: int, count: int) -> jax.Array:
    """Overlapping windows, [B, N, ...] → [B, count, size, ...], by slices, because the gradient of a gather is slow."""
    hops = -(-size // hop)
    total = (count - 1 + hops) * hop
    x = jnp.pad(x[:, :total], ((0, 0), (0, max(0, total - x.shape[1])), *[(0, 0)] * (x.ndim - 2)))
    x = x.reshape(x.shape[0], -1, hop, *x.shape[2:])
    return jnp.concatenate([x[:, i : i + count] for i in range(hops)], axis=2)[:, :, :size]


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[N, n, C], [w, C, D] → [N, n - w + 1, D]."""
    return lax.conv_general_dilated(
        x, kernel, (1,), 'VALID', dimension_numbers=('NHC', 'HIO', 'NHC')
    )


def _convolve_short(x: jax.Array, kernel: jax.Array, zeros: int, outputs: int) -> jax.Array:
    """`_convolve` over short rows, padded with zeros on both sides.

    Computed as one dot with the kernel's Toeplitz matrix: XLA:CPU's input gradient of many short convolutions takes about
    forty times as long.

    Args:
        x: [N, n, C].
        kernel: [w, C, D].
        zeros: number of zeros before x.
        outputs: m, which determines the number of zeros after x.

    Returns:
        [N, m, D].
    """
    positions = x.shape[1]
    tap = jnp.arange(positions)[:, None] - jnp.arange(outputs) + zeros
    chosen = (tap[..., None] == jnp.arange(kernel.shape[0])).astype(kernel.dtype)
    matrix = jnp.einsum('iow,wcd->icod', chosen, kernel)
    y = x.reshape(x.shape[0], -1) @ matrix.reshape(positions * x.shape[2], -1)
    return y.reshape(x.shape[0], outputs, -1)


class FrameEncoder(nn.Module):
    """Applies to every frame: convolution, maximum of pairs, convolution, maximum across channels.

    The convolutions keep the length: every frame is padded with zeros. Away from the edges the padding has no effect and
    overlapping frames have the same values, so that these are computed once for the utterance and only the edges for every
    frame. The result is exact, at 2.3 times less work than frame by frame.

    Attributes:
        filters: filters of each convolution.
        width: kernel size of both convolutions, in samples and in pairs of samples.
        pool_channels: neighbouring channels reduced to their maximum.
        frame_samples: samples of a frame, even.
        hop_samples: samples between the starts of two frames, even, so that all frames share their pairs.
    """

    filters: int
    width: int
    pool_channels: int
    frame_samples: int
    hop_samples: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Encodes all frames.

        [B, (T - 1) · hop_samples + frame_samples] -> [B, T, frame_samples / 2 · filters / pool_channels]; the maps of a
        position are adjacent.
        """
        # Zeros on either side of a frame (the 'same' padding of XLA, Keras and PyTorch).
        before, after = (self.width - 1) // 2, self.width // 2
        frame, hop = self.frame_samples, self.hop_samples
        # The outputs, of frame / 2, that no zero reaches.
        first, last = before + (before + 1) // 2, (frame - after) // 2 - after
        if frame % 2 or hop % 2 or not 0 < first < last:
            raise ValueError(
                f'frames of {frame} samples every {hop}, filters {self.width} wide: frame and hop must '
                'be even, the width 3 or more and its edges shorter than the frame'
            )
        zeros, lecun = nn.initializers.zeros, nn.initializers.lecun_normal()
        kernel_1 = self.param('kernel_1', lecun, (self.width, 1, self.filters))
        bias_1 = self.param('bias_1', zeros, (self.filters,))
        kernel_2 = self.param('kernel_2', lecun, (self.width, self.filters, self.filters))
        bias_2 = self.param('bias_2', zeros, (self.filters,))

        def pairs(x):  # [N, n] → [N, (n - width + 1) // 2, filters]
            y = _convolve(x[..., None], kernel_1)
            n = y.shape[1] // 2
            y = y[:, : 2 * n].reshape(y.shape[0], n, 2, -1)
            return nn.relu(jnp.maximum(y[:, :, 0], y[:, :, 1]) + bias_1)

        def maps(y):  # [N, n, filters] → [N, n, filters / pool_channels]
            y = (y + bias_2).reshape(*y.shape[:2], -1, self.pool_channels)
            return nn.relu(y.max(axis=-1))

        batch = x.shape[0]
        count = count_frames(x.shape[1], frame, hop)
        # Pairs start at even samples of the frame.
        inner = maps(_convolve(pairs(x[:, before % 2 :]), kernel_2))
        inner = _windows(inner, last - first, hop // 2, count)

        edge = 2 * (first + after) + after
        left = _windows(x, edge, hop, count).reshape(-1, edge)
        left = pairs(jnp.pad(left, ((0, 0), (before, 0))))
        left = maps(_convolve_short(left, kernel_2, before, first))
        start = 2 * (last - before) - before
        right = _windows(x[:, start:], frame - start, hop, count).reshape(-1, frame - start)
        right = pairs(jnp.pad(right, ((0, 0), (0, after))))
        right = maps(_convolve_short(right, kernel_2, 0, frame // 2 - last))
        edges = [y.reshape(batch, count, *y.shape[1:]) for y in (left, right)]
        whole = jnp.concatenate([edges[0], inner, edges[1]], axis=2)
        return whole.reshape(batch, count, -1)


class GRUParameters(nn.Module):
    """Parameters of one GRU layer, for `recurrent.gru`.

    Attributes:
        features: H, cells.
    """

    features: int

    @nn.compact
    def __call__(self, depth: int) -> tuple[jax.Array, ...]:
        """Declares the parameters for an input of width D: kernels [D, 3H] and [H, 3H] of input and state, biases [3H] and [H]."""
        cells, zeros = self.features, nn.initializers.zeros
        orthogonal = nn.initializers.orthogonal()
        return (
            self.param('kernel_in', nn.initializers.lecun_normal(), (depth, 3 * cells)),
            self.param(
                'kernel',
                lambda key, shape: jnp.concatenate(
                    [orthogonal(k, (cells, cells)) for k in jax.random.split(key, 3)], axis=-1
                ),
                (cells, 3 * cells),
            ),
            self.param('bias_in', zeros, (3 * cells,)),
            self.param('bias', zeros, (cells,)),
        )


class Model(nn.Module):
    """Waveform → shared frame encoder → GRUs, attention and dense layer of every task.

    Or frames of a frozen pretrained encoder → the same without the frame encoder.

    A task's parameters are the subtrees `<task>_gru_<layer>`, `<task>_score` and `<task>_head`, so that a network of fewer
    tasks has a subset of the parameters of a larger one.

    Attributes:
        heads: number of outputs of every task: its classes, or 1 for a regression.
        reconstruction: must be False, there is no decoder.
        input: 'waveform' or 'frames'.
        attention: whether states are averaged with learned weights; otherwise the last real state is taken.
        filters, width, pool_channels, frame_samples, hop_samples: see `FrameEncoder`.
        gru_features: cells of a layer.
        gru_layers: layers of every task.
        dropout: dropout rate of the frame vectors.
        axis_name: mapped axis the batch is spread over, or None.
    """

    heads: Mapping[str, int]
    reconstruction: bool = False
    input: str = 'waveform'
    attention: bool = True
    filters: int = 40
    width: int = 40
    pool_channels: int = 10
    frame_samples: int = 640
    hop_samples: int = 160
    gru_features: int = 128
    gru_layers: int = 2
    dropout: float = 0.1
    axis_name: str | None = None

    @staticmethod
    def validate(settings: Mapping, front_end: FrontEnd) -> None:
        """Checks the attributes against the front end; raises UserError."""
        del front_end
        if settings['input'] == 'frames':
            return
        edges, frame = 2 * settings['width'], settings['frame_samples']
        if settings['width'] < 3 or frame <= 2 * edges or frame % 2 or settings['hop_samples'] % 2:
            raise UserError(
                f'config.model: width {settings["width"]}, frame_samples {frame}, hop_samples {settings["hop_samples"]}: frame and hop '
                'must be even, the width at least 3 and at most a quarter of the frame'
            )
        if settings['filters'] % settings['pool_channels']:
            raise UserError(
                f'config.model: {settings["pool_channels"]} pool_channels do not divide {settings["filters"]} filters'
            )

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array, *, train: bool) -> dict:
        """Runs the network.

        Args:
            x: waveform [B, S] or frames [B, T, F], standardised by training statistics.
            length: int32 [B], real samples or frames.
            train: whether to use dropout (rng stream 'dropout').

        Returns:
            Outputs [B, K] for every head; 'attention': head -> weights [B, T] of the frames, each row summing to 1, 0 in
            padding; of waveforms T = 1 + (max(S, frame) - frame) // hop.

        Raises:
            ValueError: reconstruction is True, or the frames do not match the encoder.
        """
        if self.reconstruction:
            raise ValueError('end_to_end has no decoder: reconstruction must be False')
        if self.input == 'frames':
            frames, real = x.shape[1], length
            x = jnp.where(layers.frames_mask(length, frames)[..., None], x, 0.0)
        else:
            samples, frame, hop = x.shape[1], self.frame_samples, self.hop_samples
            frames, real = count_frames(samples, frame, hop), count_frames(length, frame, hop)
            x = jnp.where(layers.frames_mask(length, samples), x, 0.0)
            x = jnp.pad(x, ((0, 0), (0, max(0, frame - samples))))[:, : (frames - 1) * hop + frame]
            widths = self.filters, self.width, self.pool_channels
            x = FrameEncoder(*widths, frame, hop, name='encoder')(x)  # [B, T, D]
        x = layers.Dropout(self.dropout, axis_name=self.axis_name)(x, train=train)

        for layer in range(self.gru_layers):
            parameters = [
                GRUParameters(self.gru_features, name=f'{task}_gru_{layer}')(x.shape[-1])
                for task in self.heads
            ]
            kernel_in, kernel, bias_in, bias = (jnp.stack(each) for each in zip(*parameters))
            # All tasks in one product and one loop, [T, tasks, B, 3H]; they share the input of the first layer.
            equation = 'tebd,edg->tebg' if layer else 'btd,edg->tebg'
            # No mask: padding comes after the real frames and cannot reach them in a forward loop.
            x = gru(jnp.einsum(equation, x, kernel_in) + bias_in[:, None], kernel, bias)

        outputs, attention = {}, {}
        for task, states in zip(self.heads, x.transpose(1, 2, 0, 3)):  # [B, T, H]
            if self.attention:
                scores = nn.Dense(1, use_bias=False, name=f'{task}_score')(states)[..., 0]
                masked = jnp.where(layers.frames_mask(real, frames), scores, -jnp.inf)
                attention[task] = jax.nn.softmax(masked, axis=-1)
            else:
                attention[task] = jax.nn.one_hot(real - 1, frames)
            pooled = jnp.einsum('bt,bth->bh', attention[task], states)
            outputs[task] = nn.Dense(self.heads[task], name=f'{task}_head')(pooled)
        return {**outputs, 'attention': attention}
