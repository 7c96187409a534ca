"""The encoder of log-mels that the networks share: convolutional blocks and a BLSTM, one vector every 40 ms."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.models import layers
from ser_jax.models.convolution import space_to_depth
from ser_jax.models.recurrent import BLSTM

# Frames that become one step of the encoder (40 ms) and bands that become one row of its first block.
_STEP, _ROW = 4, 2


class LogMelEncoder(nn.Module):
    """Log-mel → convolutional blocks → BLSTM.

    The first block sees blocks of 4 frames × 2 bands as channels (a strided convolution over 12 × 6 cells
    at a third of the cost); every block halves the bands.

    Attributes:
        channels: of the convolutional blocks; F must be divisible by 2 · 2^blocks.
        frame_features: width of the per-step projection under the BLSTM.
        blstm_features: cells per direction.
        dropout: on step features.
        map_dropout: of whole feature maps after each convolutional block.
        axis_name: mapped axis the batch is spread over, or None.
    """

    channels: tuple[int, ...]
    frame_features: int
    blstm_features: int
    dropout: float
    map_dropout: float
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
    def __call__(self, log_mel: jax.Array, length: jax.Array, *, train: bool) -> tuple:
        """Encodes utterances.

        Args:
            log_mel: [B, T, F], normalised with training statistics.
            length: int32 [B], real frames.
            train: batch statistics and dropout (rng stream 'dropout') or not.

        Returns:
            (states [B, ceil(T / 4), 2H]; bool [B, ceil(T / 4)], which of them are real).
        """
        frames = log_mel.shape[1]
        mask = layers.frames_mask(length, frames + -frames % _STEP)
        x = jnp.pad(log_mel, ((0, 0), (0, -frames % _STEP), (0, 0)))
        x = jnp.where(mask[..., None], x, 0.0)
        x, mask = space_to_depth(x[..., None], _STEP, _ROW), mask[:, ::_STEP]
        for i, channels in enumerate(self.channels):
            block = layers.ConvolutionBlock(
                channels, pool=(1, 2), axis_name=self.axis_name, name=f'block_{i}'
            )
            x, mask = block(x, mask, train=train)  # [B, T / 4, F / 2^(i + 2), C]
            drop_maps = self._dropout(self.map_dropout, (1, 2), f'drop_maps_{i}')
            x = drop_maps(x, train=train)

        norm = layers.MaskedBatchNorm(axis_name=self.axis_name, name='step_norm')
        x = nn.Dense(self.frame_features, use_bias=False, name='step')(x.reshape(*x.shape[:2], -1))
        x = nn.relu(norm(x, mask, train=train)) * mask[..., None]
        # One draw for all steps: what is dropped cannot be read from the neighbours.
        drop_steps = self._dropout(self.dropout, (1,), 'drop_steps')
        return BLSTM(self.blstm_features, name='blstm')(drop_steps(x, train=train), mask), mask

    def _dropout(self, rate: float, shared: tuple[int, ...], name: str) -> layers.Dropout:
        # Named: in a shared scope numbers given by Flax would collide.
        return layers.Dropout(rate, shared=shared, axis_name=self.axis_name, name=name)
