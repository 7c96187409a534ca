"""MTL-AUG (after Latif et al. 2022, arXiv 2207.05298): emotion, augmentation type, reconstruction.

The paper's layers and sizes are not publicly known; these are our own
(results/development.md).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.features import FrontEnd
from ser_jax.models import layers
from ser_jax.models.convolution import convolution, depth_to_space, space_to_depth
from ser_jax.models.recurrent import BLSTM

# Frames that become one step of the encoder (40 ms) and bands that become one row of its first block.
_STEP, _ROW = 4, 2


class Model(nn.Module):
    """Log-mel → convolutional blocks → BLSTM → attention pooling → heads; decoder.

    The first block sees blocks of 4 frames × 2 bands as channels (a strided convolution over 12 × 6 cells
    at a third of the cost); every block halves the bands.

    Attributes:
        heads: number of classes of every classification head. 'emotion' reads the utterance embedding;
            any other head pools the BLSTM's states with attention of its own, so that the embedding need
            not hold what emotion should ignore.
        reconstruction: whether the decoder exists at all.
        channels: of the convolutional blocks; F must be divisible by 2 · 2^blocks.
        frame_features: width of the per-step projection under the BLSTM.
        blstm_features: cells per direction.
        embedding_features: width of the utterance embedding.
        decoder_channels: of the decoder's convolution.
        dropout: on step features, pooled vector and embedding.
        map_dropout: of whole feature maps after each convolutional block.
        axis_name: mapped axis the batch is spread over, or None.
    """

    heads: Mapping[str, int]
    reconstruction: bool = True
    channels: tuple[int, ...] = (24, 32, 64)
    frame_features: int = 128
    blstm_features: int = 64
    embedding_features: int = 64
    decoder_channels: int = 16
    dropout: float = 0.3
    map_dropout: float = 0.1
    axis_name: str | None = None

    @staticmethod
    def problem(settings: Mapping, front_end: FrontEnd) -> str:
        """What is wrong with the attributes for inputs of a front end, or ''."""
        cells = _ROW * 2 ** len(settings['channels'])
        if front_end.n_mels % cells:
            return (
                f'{len(settings["channels"])} blocks of channels halve the bands to cells of {cells}, which do not '
                f'divide the {front_end.n_mels} bands'
            )
        return ''

    @nn.compact
    def __call__(self, log_mel: jax.Array, length: jax.Array, *, train: bool) -> dict:
        """Runs the network.

        Args:
            log_mel: [B, T, F], normalised with training statistics.
            length: int32 [B], real frames.
            train: batch statistics and dropout (rng stream 'dropout') or not.

        Returns:
            One [B, classes] of logits for every head; 'reconstruction' [B, T, F] unless switched off;
            'embedding' [B, D]; 'attention' [B, ceil(T / 4)], 0 in padding.
        """
        frames, bands = log_mel.shape[1:]
        mask = layers.frames_mask(length, frames + -frames % _STEP)
        x = jnp.pad(log_mel, ((0, 0), (0, -frames % _STEP), (0, 0)))
        x = jnp.where(mask[..., None], x, 0.0)
        x, mask = space_to_depth(x[..., None], _STEP, _ROW), mask[:, ::_STEP]
        for i, channels in enumerate(self.channels):
            block = layers.ConvolutionBlock(
                channels, pool=(1, 2), axis_name=self.axis_name, name=f'block_{i}'
            )
            x, mask = block(x, mask, train=train)  # [B, T / 4, F / 2^(i + 2), C]
            drop_maps = layers.Dropout(self.map_dropout, shared=(1, 2), axis_name=self.axis_name)
            x = drop_maps(x, train=train)

        norm = layers.MaskedBatchNorm(axis_name=self.axis_name, name='step_norm')
        x = nn.Dense(self.frame_features, use_bias=False, name='step')(x.reshape(*x.shape[:2], -1))
        x = nn.relu(norm(x, mask, train=train)) * mask[..., None]
        # One draw for all steps: what is dropped cannot be read from the neighbours.
        drop_steps = layers.Dropout(self.dropout, shared=(1,), axis_name=self.axis_name)
        encoded = BLSTM(self.blstm_features, name='blstm')(
            drop_steps(x, train=train), mask
        )  # [B, T / 4, 2H]

        pooled, attention = layers.AttentionPooling(name='attention')(encoded, mask)
        embedding = nn.relu(
            nn.Dense(self.embedding_features, name='embedding')(self._drop(pooled, train))
        )
        outputs = {'embedding': embedding, 'attention': attention}
        for name, classes in self.heads.items():
            if name == 'emotion':
                features = self._drop(embedding, train)
            else:
                own, _ = layers.AttentionPooling(name=f'{name}_attention')(encoded, mask)
                features = nn.relu(nn.Dense(self.embedding_features, name=f'{name}_hidden')(own))
            outputs[name] = nn.Dense(classes, name=f'{name}_head')(features)
        if self.reconstruction:
            outputs['reconstruction'] = self._decode(encoded, bands)[:, :frames]
        return outputs

    def _drop(self, x: jax.Array, train: bool) -> jax.Array:
        return layers.Dropout(self.dropout, axis_name=self.axis_name)(x, train=train)

    def _decode(self, encoded: jax.Array, bands: int) -> jax.Array:
        """Sub-pixel decoder, [B, T / 4, 2H] → [B, T, F]: its convolution runs at a sixteenth of the cells."""
        width = self.decoder_channels
        x = nn.relu(nn.Dense(bands // 4 * width, name='decoder_in')(encoded))
        x = x.reshape(*x.shape[:2], bands // 4, width)
        kernel = self.param('decoder_kernel', nn.initializers.lecun_normal(), (3, 3, width, 16))
        return depth_to_space(convolution(x, kernel), 4, 4)[..., 0]
