"""Log-mel encoder trained from scratch: convolutional blocks and a BLSTM, one vector every 40 ms."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.models import layers
from ser_jax.models.convolution import space_to_depth
from ser_jax.models.recurrent import BLSTM
from ser_jax.runtime.errors import UserError

# Frames per step of the encoder (40 ms) and bands per row of its first block.
_STEP, _ROW = 4, 2


class LogMelEncoder(nn.Module):
    """Log-mel → convolutional blocks → BLSTM.

    The input of the first block has blocks of 4 frames × 2 bands as channels (a strided convolution over 12 × 6 cells at a
    third of the cost). Every block halves the bands.

    Attributes:
        channels: output channels of each convolutional block; F must be divisible by 2 · 2^blocks.
        frame_features: width of the projection before the BLSTM.
        blstm_features: cells per direction.
        dropout: dropout rate of the projected steps.
        map_dropout: dropout rate of whole feature maps after each convolutional block.
        axis_name: mapped axis the batch is spread over, or None.
    """

    channels: tuple[int, ...]
    frame_features: int
    blstm_features: int
    dropout: float
    map_dropout: float
    axis_name: str | None = None

    @staticmethod
    def validate(settings: Mapping, front_end: FrontEnd) -> None:
        """Checks the attributes of a network, unless its input are frames, against the front end; raises UserError."""
        if settings['input'] == 'frames':
            return
        if not settings['blstm_features']:
            raise UserError(
                'config.model.blstm_features is 0; only networks on frames of a pretrained encoder work without a BLSTM'
            )
        cells = _ROW * 2 ** len(settings['channels'])
        if front_end.n_mels % cells:
            raise UserError(
                f'config.model.channels: {len(settings["channels"])} blocks need a multiple of {cells} bands, but the front '
                f'end has {front_end.n_mels}'
            )

    @nn.compact
    def __call__(self, log_mel: jax.Array, length: jax.Array, *, train: bool) -> tuple:
        """Encodes utterances.

        Args:
            log_mel: [B, T, F], standardised by training statistics.
            length: int32 [B], real frames.
            train: whether to use batch statistics and dropout (rng stream 'dropout').

        Returns:
            (states [B, ceil(T / 4), 2H]; mask bool [B, ceil(T / 4)]).
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
        # One draw for all steps: neighbouring steps must not reveal the dropped features.
        drop_steps = self._dropout(self.dropout, (1,), 'drop_steps')
        return BLSTM(self.blstm_features, name='blstm')(drop_steps(x, train=train), mask), mask

    def _dropout(self, rate: float, shared: tuple[int, ...], name: str) -> layers.Dropout:
        # Named explicitly: Flax's automatic numbers would collide in a shared scope.
        return layers.Dropout(rate, shared=shared, axis_name=self.axis_name, name=name)
