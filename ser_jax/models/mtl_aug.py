"""MTL-AUG (after Latif et al. 2022, arXiv 2207.05298): emotion, augmentation type, reconstruction.

The paper's layers and sizes are not publicly known; these are our own, chosen on validation speakers.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.models import layers
from ser_jax.models.convolution import convolution, depth_to_space, space_to_depth


def deltas(x: jax.Array, mask: jax.Array, width: int = 2) -> jax.Array:
    """Regression slope over 2 · width + 1 frames, the edges held (as in HTK and librosa's 'nearest').

    Args:
        x: [B, T, F], 0 in padding frames.
        mask: bool [B, T].
        width: frames on each side.

    Returns:
        [B, T, F], per frame, 0 in padding frames.
    """
    frames = x.shape[1]
    last = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0)[:, None, None]
    final = jnp.take_along_axis(x, last, axis=1)  # [B, 1, F]
    held = jnp.where(mask[..., None], x, final)
    padded = jnp.pad(held, ((0, 0), (width, width), (0, 0)), mode='edge')
    slope = sum(
        n * (padded[:, width + n : width + n + frames] - padded[:, width - n : width - n + frames])
        for n in range(1, width + 1)
    )
    return slope * mask[..., None] / (2 * sum(n * n for n in range(1, width + 1)))


class Model(nn.Module):
    """Log-mel → convolutional blocks → BLSTM → attention pooling → heads; decoder.

    Attributes:
        heads: number of classes of every classification head. 'emotion' reads the utterance embedding;
            any other head pools `auxiliary_features` with attention of its own.
        reconstruction: whether the decoder exists at all.
        channels: of the convolutional blocks; the first sees 2 × 2 blocks of frames × bands.
        frame_features: width of the per-frame projection under the BLSTM.
        blstm_features: cells per direction.
        embedding_features: width of the utterance embedding.
        dropout: on frame features, pooled vector and embedding.
        map_dropout: of whole feature maps after each convolutional block.
        axis_name: mapped axis the batch is spread over, or None.
    """

    heads: Mapping[str, int]
    reconstruction: bool = True
    channels: tuple[int, ...] = (24, 48, 64)
    frame_features: int = 128
    blstm_features: int = 64
    embedding_features: int = 64
    dropout: float = 0.3
    map_dropout: float = 0.1
    inputs: tuple[str, ...] = ('static', 'delta', 'delta2')
    deviation: bool = True
    type_from: str = 'blstm'
    stem: tuple[int, int] = (4, 2)
    decoder_channels: int = 16
    axis_name: str | None = None

    @nn.compact
    def __call__(self, log_mel: jax.Array, length: jax.Array, *, train: bool) -> dict:
        """Runs the network.

        Args:
            log_mel: [B, T, F], normalised with training statistics; F divisible by 16.
            length: int32 [B], real frames.
            train: batch statistics and dropout (rng stream 'dropout') or not.

        Returns:
            One [B, classes] of logits for every head; 'reconstruction' [B, T, F] unless switched off;
            'embedding' [B, D]; 'attention' [B, ceil(T / 4)], 0 in padding.
        """
        frames, bands = log_mel.shape[1:]
        x = jnp.pad(log_mel, ((0, 0), (0, -frames % 4), (0, 0)))
        mask = layers.frames_mask(length, x.shape[1])
        x = jnp.where(mask[..., None], x, 0.0)
        x = self._stack_inputs(x, mask)

        drop_maps = lambda x: layers.Dropout(
            self.map_dropout, shared=(1, 2), axis_name=self.axis_name
        )(x, train=train)
        x, mask = space_to_depth(x, *self.stem), mask[:, :: self.stem[0]]
        taps = {}
        for i, channels in enumerate(self.channels):
            x, mask = layers.ConvolutionBlock(
                channels,
                pool=(4 // self.stem[0], 2) if i == 0 else (1, 2),
                axis_name=self.axis_name,
                name=f'block_{i}',
            )(x, mask, train=train)
            x = drop_maps(x)
            taps[f'block_{i}'] = x.reshape(*x.shape[:2], -1)
        x = x.reshape(*x.shape[:2], -1)  # [B, T / 4, F / 16 · C]
        x = nn.Dense(self.frame_features, use_bias=False, name='frame')(x)
        x = layers.MaskedBatchNorm(axis_name=self.axis_name, name='frame_norm')(
            x, mask, train=train
        )
        x = nn.relu(x) * mask[..., None]
        x = self._dropout(x, train)
        taps['frame'] = x
        encoded = layers.BLSTM(self.blstm_features, name='blstm')(x, mask)  # [B, T / 4, 2H]
        taps['blstm'] = encoded
        pooled, attention = layers.AttentionPooling(deviation=self.deviation, name='attention')(
            encoded, mask
        )
        embedding = nn.relu(
            nn.Dense(self.embedding_features, name='embedding')(self._dropout(pooled, train))
        )
        outputs = {'embedding': embedding, 'attention': attention}
        dropped = self._dropout(embedding, train)
        for name, classes in self.heads.items():
            features = dropped
            if name != 'emotion' and self.type_from != 'embedding':
                features, _ = layers.AttentionPooling(
                    deviation=self.deviation, name=f'{name}_attention'
                )(taps[self.type_from], mask)
                features = nn.relu(
                    nn.Dense(self.embedding_features, name=f'{name}_hidden')(features)
                )
            outputs[name] = nn.Dense(classes, name=f'{name}_head')(features)
        if self.reconstruction:
            outputs['reconstruction'] = self._decode(encoded, bands)[:, :frames]
        return outputs

    def _dropout(self, x, train):
        shared = (1,) if x.ndim == 3 else ()
        return layers.Dropout(self.dropout, shared=shared, axis_name=self.axis_name)(x, train=train)

    def _stack_inputs(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        slope = deltas(x, mask)
        channels = {'static': x, 'delta': 2.0 * slope}
        if 'delta2' in self.inputs:
            channels['delta2'] = 4.0 * deltas(slope, mask)
        if 'centred' in self.inputs or 'shape' in self.inputs:
            count = jnp.maximum(jnp.sum(mask, 1), 1)[:, None, None]
            centred = (x - jnp.sum(x, 1, keepdims=True) / count) * mask[..., None]
            channels['centred'] = centred
            var = jnp.sum(centred**2, 1, keepdims=True) / count
            channels['shape'] = centred / jnp.sqrt(var + 0.01)
        if 'level' in self.inputs:
            count = jnp.maximum(jnp.sum(mask, 1), 1)[:, None, None]
            mean = jnp.sum(x, (1, 2), keepdims=True) / (count * x.shape[2])
            channels['level'] = (x - mean) * mask[..., None]
        return jnp.stack([channels[name] for name in self.inputs], axis=-1)

    def _decode(self, encoded: jax.Array, bands: int) -> jax.Array:
        """Sub-pixel decoder: [B, T / 4, 2H] → [B, T, F], convolving at quarter resolution only."""
        width = self.decoder_channels
        x = nn.relu(nn.Dense(bands // 4 * width, name='decoder_in')(encoded))
        x = x.reshape(*x.shape[:2], bands // 4, width)
        kernel = self.param('decoder_kernel', nn.initializers.lecun_normal(), (3, 3, width, 16))
        return depth_to_space(convolution(x, kernel), 4, 4)[..., 0]
