"""MTL-AUG (after Latif et al. 2022, arXiv 2207.05298): emotion, augmentation type, reconstruction.

The paper's layers and sizes are not publicly known; these are our own (results/development.md).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.models import layers
from ser_jax.models.convolution import convolution, depth_to_space
from ser_jax.models.encoders.frames import FramesEncoder
from ser_jax.models.encoders.log_mel import LogMelEncoder


class Model(nn.Module):
    """Log-mel → convolutional blocks → BLSTM (`LogMelEncoder`) → attention pooling → heads; decoder.

    Or frames of a frozen pretrained encoder → `FramesEncoder` → the same.

    Attributes:
        heads: number of outputs of every head. 'emotion' reads the utterance embedding; with frames, the logits of a linear
            probe are added. Every other head pools the encoder's states with its own attention, so that the embedding need
            not hold information that emotion should ignore.
        reconstruction: whether there is a decoder.
        input: 'log_mel' or 'frames'.
        channels, frame_features, blstm_features, map_dropout: see `LogMelEncoder`; frames use the two in the middle.
        embedding_features: width of the utterance embedding.
        decoder_channels: channels of the decoder's convolution.
        dropout: dropout rate of step features, pooled vector and embedding.
        axis_name: mapped axis the batch is spread over, or None.
        bands: F of the decoded log-mel.
    """

    heads: Mapping[str, int]
    reconstruction: bool = True
    input: str = 'log_mel'
    channels: tuple[int, ...] = (24, 32, 64)
    frame_features: int = 128
    blstm_features: int = 64
    embedding_features: int = 64
    decoder_channels: int = 16
    dropout: float = 0.3
    map_dropout: float = 0.1
    axis_name: str | None = None
    bands: int = 80

    validate = staticmethod(LogMelEncoder.validate)

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array, *, train: bool) -> dict:
        """Runs the network.

        Args:
            x: log-mel or frames [B, T, F], standardised by training statistics.
            length: int32 [B], real frames.
            train: whether to use batch statistics and dropout (rng stream 'dropout').

        Returns:
            Logits [B, K] for every head; 'reconstruction' [B, T, bands] if there is a decoder; 'embedding' [B, D];
            'attention' [B, ceil(T / 4)], of frames [B, T], 0 in padding.
        """
        widths = self.frame_features, self.blstm_features
        if self.input == 'frames':
            encoder = FramesEncoder(*widths, self.dropout, self.axis_name)
        else:
            drops = self.dropout, self.map_dropout
            encoder = LogMelEncoder(self.channels, *widths, *drops, self.axis_name)
        nn.share_scope(self, encoder)  # its parameters are top-level subtrees of this model
        encoded, mask = encoder(x, length, train=train)  # [B, T / 4, 2H]

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
            if name == 'emotion' and self.input == 'frames':
                outputs[name] += self._linear_probe(x, mask, classes, train)
        if self.reconstruction:
            decode = self._decode_frames if self.input == 'frames' else self._decode
            outputs['reconstruction'] = decode(encoded)[:, : x.shape[1]]
        return outputs

    def _linear_probe(self, x: jax.Array, mask: jax.Array, classes: int, train: bool) -> jax.Array:
        """Logits of a linear map of the mean and standard deviation of the frames over time."""
        # Not standardised, they are learnt slowly (results/development.md).
        statistics = layers.mean_and_deviation(x[:, None], mask)
        norm = layers.MaskedBatchNorm(axis_name=self.axis_name, name='statistics_norm')
        statistics = norm(statistics, jnp.ones_like(mask[:, :1]), train=train)[:, 0]
        dense = nn.Dense(classes, kernel_init=nn.initializers.zeros, name='emotion_probe')
        return dense(self._drop(statistics, train))

    def _drop(self, x: jax.Array, train: bool) -> jax.Array:
        return layers.Dropout(self.dropout, axis_name=self.axis_name)(x, train=train)

    def _decode_frames(self, encoded: jax.Array) -> jax.Array:
        """One log-mel frame for every state, [B, T, D] → [B, T, bands]."""
        x = nn.relu(nn.Dense(self.bands * self.decoder_channels // 4, name='decoder_in')(encoded))
        return nn.Dense(self.bands, name='decoder_out')(x)

    def _decode(self, encoded: jax.Array) -> jax.Array:
        """Sub-pixel decoder, [B, T / 4, 2H] → [B, T, bands]; its convolution runs at a sixteenth of the resolution."""
        width = self.decoder_channels
        x = nn.relu(nn.Dense(self.bands // 4 * width, name='decoder_in')(encoded))
        x = x.reshape(*x.shape[:2], self.bands // 4, width)
        kernel = self.param('decoder_kernel', nn.initializers.lecun_normal(), (3, 3, width, 16))
        return depth_to_space(convolution(x, kernel), 4, 4)[..., 0]
