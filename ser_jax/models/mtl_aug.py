"""MTL-AUG (after Latif et al. 2022, arXiv 2207.05298): emotion, augmentation type, reconstruction.

The paper's layers and sizes are not publicly known; these are our own (results/development.md).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.models import layers
from ser_jax.models.convolution import convolution, depth_to_space
from ser_jax.models.encoders.log_mel import LogMelEncoder


class Model(nn.Module):
    """Log-mel → convolutional blocks → BLSTM (`LogMelEncoder`) → attention pooling → heads; decoder.

    Attributes:
        heads: number of outputs of every head. 'emotion' reads the utterance embedding; every other head pools the BLSTM's
            states with its own attention, so that the embedding need not hold information that emotion should ignore.
        reconstruction: whether there is a decoder.
        channels, frame_features, blstm_features, map_dropout: see `LogMelEncoder`.
        embedding_features: width of the utterance embedding.
        decoder_channels: channels of the decoder's convolution.
        dropout: dropout rate of step features, pooled vector and embedding.
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
    def validate(settings: Mapping, front_end: FrontEnd) -> None:
        """Checks the attributes against the front end; raises UserError."""
        LogMelEncoder.validate(settings, front_end)

    @nn.compact
    def __call__(self, log_mel: jax.Array, length: jax.Array, *, train: bool) -> dict:
        """Runs the network.

        Args:
            log_mel: [B, T, F], standardised by training statistics.
            length: int32 [B], real frames.
            train: whether to use batch statistics and dropout (rng stream 'dropout').

        Returns:
            Logits [B, K] for every head; 'reconstruction' [B, T, F] if there is a decoder; 'embedding' [B, D];
            'attention' [B, ceil(T / 4)], 0 in padding.
        """
        frames, bands = log_mel.shape[1:]
        widths = self.channels, self.frame_features, self.blstm_features
        encoder = LogMelEncoder(*widths, self.dropout, self.map_dropout, self.axis_name)
        nn.share_scope(self, encoder)  # its parameters are top-level subtrees of this model
        encoded, mask = encoder(log_mel, length, train=train)  # [B, T / 4, 2H]

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
        """Sub-pixel decoder, [B, T / 4, 2H] → [B, T, F]; its convolution runs at a sixteenth of the resolution."""
        width = self.decoder_channels
        x = nn.relu(nn.Dense(bands // 4 * width, name='decoder_in')(encoded))
        x = x.reshape(*x.shape[:2], bands // 4, width)
        kernel = self.param('decoder_kernel', nn.initializers.lecun_normal(), (3, 3, width, 16))
        return depth_to_space(convolution(x, kernel), 4, 4)[..., 0]
