"""Linear probe: one linear map of a frozen encoder's statistics for every task; multinomial logistic regression.

The input is the standardised mean and standard deviation over time of the encoder's layers (`data.encoded`), one frame an
utterance.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.models import layers


class Model(nn.Module):
    """A linear map for every task.

    Attributes:
        heads: number of outputs of every head.
        reconstruction: not supported.
        dropout: dropout rate of the input.
        axis_name: mapped axis the batch is spread over, or None.
    """

    heads: Mapping[str, int]
    reconstruction: bool = False
    dropout: float = 0.0
    axis_name: str | None = None

    @staticmethod
    def validate(settings: Mapping, front_end: FrontEnd) -> None:
        """Any attributes fit any front end."""

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array, *, train: bool) -> dict:
        """Runs the network on standardised inputs [B, T, F].

        Returns:
            Logits [B, K] for every head; 'embedding' [B, F], the mean input of an utterance.
        """
        weight = layers.frames_mask(length, x.shape[1])[:, :, None] / length[:, None, None]
        embedding = jnp.sum(x * weight, axis=1)
        features = layers.Dropout(self.dropout, axis_name=self.axis_name)(embedding, train=train)
        outputs = {'embedding': embedding}
        for name, classes in self.heads.items():
            outputs[name] = nn.Dense(
                classes, kernel_init=nn.initializers.zeros, name=f'{name}_head'
            )(features)
        return outputs
