"""Trained layers on the frames of a frozen pretrained encoder."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.models import layers
from ser_jax.models.recurrent import BLSTM


class FramesEncoder(nn.Module):
    """Frames of a pretrained encoder → projection → BLSTM, if there is one.

    Attributes:
        frame_features: width of the projection.
        blstm_features: H, cells per direction; 0 = no BLSTM.
        dropout: dropout rate of whole features of the input and of the projected frames.
        axis_name: mapped axis the batch is spread over, or None.
    """

    frame_features: int
    blstm_features: int
    dropout: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, frames: jax.Array, length: jax.Array, *, train: bool) -> tuple:
        """Encodes utterances.

        Args:
            frames: [B, T, F], standardised by training statistics.
            length: int32 [B], real frames.
            train: whether to use batch statistics and dropout (rng stream 'dropout').

        Returns:
            (states [B, T, frame_features + 2H]: projected frames and states of the BLSTM; mask bool [B, T]).
        """
        mask = layers.frames_mask(length, frames.shape[1])
        x = jnp.where(mask[..., None], frames, 0.0)
        x = self._drop(x, 'drop_frames', train)
        x = nn.Dense(self.frame_features, use_bias=False, name='step')(x)
        norm = layers.MaskedBatchNorm(axis_name=self.axis_name, name='step_norm')
        x = nn.relu(norm(x, mask, train=train)) * mask[..., None]
        if not self.blstm_features:
            return x, mask
        states = BLSTM(self.blstm_features, name='blstm')(self._drop(x, 'drop_steps', train), mask)
        return jnp.concatenate([x, states], axis=-1), mask

    def _drop(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        # One draw for all frames: neighbouring frames must not reveal the dropped features. Named explicitly: Flax's automatic
        # numbers would collide in a shared scope.
        drop = layers.Dropout(self.dropout, shared=(1,), axis_name=self.axis_name, name=name)
        return drop(x, train=train)
