"""Multitask semi-supervised adversarial autoencoder (after Latif et al. 2022, arXiv 1907.06078).

Adversarial autoencoders: Makhzani et al. 2016, arXiv 1511.05644. Written without the paper's full text: features, sizes and
prior are our own (configs/adversarial_autoencoder.py).
"""

from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.models import layers
from ser_jax.models.encoders.frames import FramesEncoder
from ser_jax.models.encoders.log_mel import LogMelEncoder

_PERIODS = (4, 8, 16, 32, 64, 128, 256, 512)  # of the decoder's time encoding, in frames


def functionals(log_mel: jax.Array, length: jax.Array) -> jax.Array:
    """Mean and standard deviation over time of every band and of its difference between frames.

    Args:
        log_mel: [B, T, F].
        length: int32 [B], real frames.

    Returns:
        [B, 4F].
    """
    change = jnp.diff(log_mel, axis=1)
    parts = []
    for x, count in ((log_mel, length), (change, length - 1)):
        mask = layers.frames_mask(count, x.shape[1])[..., None]
        total = jnp.maximum(mask.sum(1), 1)
        mean = jnp.where(mask, x, 0.0).sum(1) / total
        spread = jnp.where(mask, (x - mean[:, None]) ** 2, 0.0).sum(1) / total
        parts += [mean, jnp.sqrt(spread + 1e-4)]
    return jnp.concatenate(parts, axis=-1)


class Encoder(nn.Module):
    """Utterance → code. Attributes: see `Model`."""

    input: str
    code_features: int
    embedding_features: int
    channels: tuple[int, ...]
    frame_features: int
    blstm_features: int
    dropout: float
    map_dropout: float
    axis_name: str | None

    @nn.compact
    def __call__(self, x: jax.Array, length: jax.Array, *, train: bool) -> jax.Array:
        drop = lambda x: layers.Dropout(self.dropout, axis_name=self.axis_name)(x, train=train)
        if self.input == 'functionals':
            x = functionals(x, length)
            for layer in range(2):
                x = drop(nn.relu(nn.Dense(self.embedding_features, name=f'hidden_{layer}')(x)))
        else:
            widths = self.frame_features, self.blstm_features
            if self.input == 'frames':
                encoder = FramesEncoder(*widths, self.dropout, self.axis_name, name='frames')
            else:
                drops = self.dropout, self.map_dropout, self.axis_name
                encoder = LogMelEncoder(self.channels, *widths, *drops, name='log_mel')
            states, mask = encoder(x, length, train=train)
            pooled, _ = layers.AttentionPooling(name='attention')(states, mask)
            x = drop(nn.relu(nn.Dense(self.embedding_features, name='embedding')(drop(pooled))))
        return nn.Dense(self.code_features, name='code')(x)


class Decoder(nn.Module):
    """Code → log-mel, each frame from the code and its time; or code → functionals.

    Attributes:
        bands: outputs of a frame.
        features: width of both hidden layers.
    """

    bands: int
    features: int

    @nn.compact
    def __call__(self, code: jax.Array, frames: int | None) -> jax.Array:
        """Decodes codes [B, D] to T frames [B, T, bands], or without a time axis (None) to [B, bands]."""
        x = nn.Dense(self.features, name='code')(code)
        if frames is not None:
            phase = 2 * jnp.pi * jnp.arange(frames)[:, None] / jnp.array(_PERIODS)
            time = jnp.concatenate([jnp.sin(phase), jnp.cos(phase)], axis=-1)
            # Frames depend on products of code and time, not only on their sum.
            gate = nn.Dense(self.features, name='time_gate')(time)
            x = x[:, None] * (1.0 + gate) + nn.Dense(self.features, name='time')(time)
        x = nn.relu(nn.Dense(self.features, name='hidden')(nn.relu(x)))
        return nn.Dense(self.bands, name='out')(x)


class Discriminator(nn.Module):
    """Code and condition (the expected component of the prior) → logit of "drawn from the prior".

    Attributes:
        features: width of both hidden layers.
    """

    features: int

    @nn.compact
    def __call__(self, code: jax.Array, condition: jax.Array) -> jax.Array:
        """Codes [B, D] and conditions [B, K], one-hot or zeros where unknown -> logits [B]; 0 before training (chance)."""
        x = jnp.concatenate([code, condition], axis=-1)
        for layer in range(2):
            x = nn.leaky_relu(nn.Dense(self.features, name=f'hidden_{layer}')(x), 0.2)
        return nn.Dense(1, kernel_init=nn.initializers.zeros, name='out')(x)[:, 0]


class Head(nn.Module):
    """Code → outputs of a task.

    Attributes:
        features: width of the hidden layer.
        outputs: K.
    """

    features: int
    outputs: int

    @nn.compact
    def __call__(self, code: jax.Array) -> jax.Array:
        return nn.Dense(self.outputs, name='out')(
            nn.relu(nn.Dense(self.features, name='hidden')(code))
        )


class Model(nn.Module):
    """Log-mel → code → one head per task, a decoder, and a discriminator between codes and draws from the prior.

    Or frames of a frozen pretrained encoder → code → the same.

    The subtrees of the parameters are `encoder`, `decoder`, `discriminator` and `<task>_head`.

    Attributes:
        heads: number of outputs of every task.
        reconstruction: whether there is a decoder.
        adversary: whether there is a discriminator.
        conditions: width of the discriminator's condition: the emotions with a mixture prior, else 0.
        input: 'log_mel', 'functionals' of it, which are cheaper to learn from, or 'frames' of a pretrained encoder.
        code_features: D.
        embedding_features: width of the hidden layers before the code and in the heads.
        decoder_features, discriminator_features: widths of their hidden layers.
        channels, frame_features, blstm_features, map_dropout: see `LogMelEncoder`; frames use the two in the middle.
        dropout: dropout rate in the encoder.
        axis_name: mapped axis the batch is spread over, or None.
        bands: F of the decoded log-mel.
    """

    objective: ClassVar[str] = 'adversarial'

    heads: Mapping[str, int]
    reconstruction: bool = True
    adversary: bool = True
    conditions: int = 0
    input: str = 'log_mel'
    code_features: int = 64
    embedding_features: int = 64
    decoder_features: int = 256
    discriminator_features: int = 128
    channels: tuple[int, ...] = (24, 32, 64)
    frame_features: int = 128
    blstm_features: int = 64
    dropout: float = 0.3
    map_dropout: float = 0.1
    axis_name: str | None = None
    bands: int = 80

    validate = staticmethod(LogMelEncoder.validate)

    def setup(self):
        widths = self.channels, self.frame_features, self.blstm_features
        drops = self.dropout, self.map_dropout, self.axis_name
        sizes = self.code_features, self.embedding_features
        self.encoder = Encoder(self.input, *sizes, *widths, *drops)
        outputs = self.bands * (4 if self.input == 'functionals' else 1)
        self.decoder = Decoder(outputs, self.decoder_features)
        self.discriminator = Discriminator(self.discriminator_features)
        self.task_heads = [
            Head(self.embedding_features, count, name=f'{task}_head')
            for task, count in self.heads.items()
        ]

    def __call__(self, x: jax.Array, length: jax.Array, *, train: bool) -> dict:
        """Runs the whole network.

        Args:
            x: log-mel or frames [B, T, F], standardised by training statistics.
            length: int32 [B], real frames.
            train: whether to use batch statistics and dropout (rng stream 'dropout').

        Returns:
            Outputs [B, K] for every head; 'code' [B, D].
        """
        code = self.encode(x, length, train=train)
        if self.is_initializing():  # declare the parameters that the heads do not use
            if self.reconstruction:
                self.decode(code, x.shape[1])
            if self.adversary:
                self.discriminate(code, jnp.zeros((len(code), self.conditions)))
        heads = {task: head(code) for task, head in zip(self.heads, self.task_heads)}
        return {**heads, 'code': code}

    def encode(self, x: jax.Array, length: jax.Array, *, train: bool) -> jax.Array:
        """Utterances → codes [B, D]."""
        return self.encoder(x, length, train=train)

    def decode(self, code: jax.Array, frames: int) -> jax.Array:
        """Codes → standardised log-mel [B, T, F], or functionals [B, 4F]."""
        return self.decoder(code, None if self.input == 'functionals' else frames)

    def discriminate(self, code: jax.Array, condition: jax.Array) -> jax.Array:
        """Codes [B, D] and conditions [B, K] → logits [B] of "drawn from the prior"."""
        return self.discriminator(code, condition)
