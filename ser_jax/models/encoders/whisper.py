"""Whisper's encoder at the natural length of an utterance (Radford et al. 2022, arXiv 2212.04356).

The published model pads every utterance to 30 s. Here an utterance of S samples has ceil(S / 320) frames, independent of its
padding: the samples are followed by zeros, the log-mel has T = ceil(S / 160) frames and the floor "maximum - 8" of these frames,
and the input of the second convolution is 0 beyond them.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.audio.log_mel_jax import mel_power
from ser_jax.models.encoders.transformer import LayerNorm, PretrainedModule, gelu
from ser_jax.models.layers import frames_mask

HOP = 160  # samples between frames of the log-mel
_FLOOR = 1e-10  # of the mel power


def log_mel(waveform: jax.Array, samples: jax.Array, n_mels: int) -> jax.Array:
    """Whisper's log-mel of a padded batch.

    Args:
        waveform: float32 [B, S], amplitudes in [-1, 1) at 16 kHz, 0 in padding.
        samples: int [B], lengths of the utterances, at least 201.
        n_mels: F, 80 or 128.

    Returns:
        float32 [B, T, F], T = ceil(S / 160); 0 in padding.
    """
    front_end = FrontEnd(n_fft=400, win_length=400, hop_length=HOP, n_mels=n_mels, fmin=0.0)
    length = waveform.shape[1]
    frames = -(-length // HOP)
    half = front_end.win_length // 2
    # The start is mirrored, the end is followed by zeros.
    signal = jnp.concatenate(
        [
            jnp.flip(waveform[:, 1 : half + 1], axis=1),
            jnp.pad(waveform, ((0, 0), (0, frames * HOP - length + half))),
        ],
        axis=1,
    )[:, : (frames - 1) * HOP + front_end.win_length]
    log = jnp.log10(jnp.maximum(mel_power(signal, front_end), _FLOOR))
    mask = frames_mask(-(-samples // HOP), frames)[:, :, None]
    peak = jnp.max(jnp.where(mask, log, -jnp.inf), axis=(1, 2), keepdims=True)
    return jnp.where(mask, (jnp.maximum(log, peak - 8.0) + 4.0) / 4.0, 0.0)


class Convolution(nn.Module):
    """Convolution over time of width 3 with one frame of zeros on either side, then GELU.

    Attributes:
        features: output channels.
        stride: frames between outputs.
        dtype: data type of the products.
    """

    features: int
    stride: int = 1
    dtype: str = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, T, C] to [B, ceil(T / stride), features]."""
        kernel = self.param(
            'kernel', nn.initializers.lecun_normal(), (3, x.shape[-1], self.features)
        )
        bias = self.param('bias', nn.initializers.zeros, (self.features,))
        batch, frames, channels = x.shape
        outputs = -(-frames // self.stride)
        x = jnp.pad(x.astype(self.dtype), ((0, 0), (1, 1), (0, 0)))
        # One product of patches: XLA:CPU's own convolution over time uses one core.
        taps = [x[:, i : i + (outputs - 1) * self.stride + 1 : self.stride] for i in range(3)]
        patches = jnp.concatenate(taps, axis=-1).reshape(batch * outputs, 3 * channels)
        y = patches @ kernel.reshape(3 * channels, self.features).astype(self.dtype)
        return gelu((y + bias.astype(self.dtype)).reshape(batch, outputs, self.features))


class Whisper(PretrainedModule):
    """Encoder of Whisper.

    Attributes:
        n_mels: mel bands, 80 or 128.
        positions: longest input, in frames of 20 ms.
    """

    n_mels: int = 80
    positions: int = 1500

    stride = 320
    overlap = 0
    min_samples = 400
    prefixes = ('model.encoder.', 'encoder.')
    SIZES = ('d_model', 'encoder_layers', 'encoder_attention_heads', 'encoder_ffn_dim')

    @property
    def outputs(self) -> int:
        """Number of arrays of frames: 0 the input of the layers, 1 … N after a layer, N + 1 after the final norm."""
        return self.layers + 2

    def frames(self, samples):
        """Number of frames of an utterance: ceil(samples / 320)."""
        return -(-samples // self.stride)

    @nn.compact
    def __call__(
        self, waveform: jax.Array, samples: jax.Array
    ) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Encodes a padded batch.

        Args:
            waveform: float32 [B, S], amplitudes in [-1, 1) at 16 kHz; the content of padding is ignored.
            samples: int [B], lengths of the utterances, 400 to 480,000 (30 s).

        Returns:
            (`outputs` arrays float32 [B, T, D], T = `frames(S)`, 0 in padding; mask bool [B, T]).
        """
        length = waveform.shape[1]
        waveform = jnp.where(frames_mask(samples, length), waveform, 0.0)
        x = log_mel(waveform, samples, self.n_mels)
        x = Convolution(self.width, dtype=self.dtype, name='conv1')(x)
        real = frames_mask(-(-samples // HOP), x.shape[1])
        x = jnp.where(real[:, :, None], x, 0)
        x = Convolution(self.width, stride=2, dtype=self.dtype, name='conv2')(x)
        positions = self.param(
            'positions', nn.initializers.normal(0.02), (self.positions, self.width)
        )
        # Sinusoids, which the published model does not train.
        positions = jax.lax.stop_gradient(positions).astype(self.dtype)
        # Only padding lies beyond the last position.
        x = x + jnp.take(positions, jnp.arange(x.shape[1]), axis=0, mode='clip')
        mask = frames_mask(self.frames(samples), x.shape[1])
        states = self.run_layers(x, mask, key_bias=False)
        states.append(LayerNorm('float32', name='norm')(states[-1]))
        return self.masked(states, mask), mask

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], preprocessor: Mapping[str, Any] | None, **options
    ) -> 'Whisper':
        """Builds the module that a Hugging Face `config.json` describes.

        Args:
            config: content of `config.json`.
            preprocessor: content of `preprocessor_config.json`, or None; not needed.
            options: `dtype`, `remat`, `lora_rank`.

        Raises:
            UserError: a switch that is not supported.
        """
        cls.refuse_unsupported(config, {'activation_function': 'gelu', 'scale_embedding': False})
        return cls(
            *(config[name] for name in cls.SIZES),
            n_mels=config.get('num_mel_bins', 80),
            positions=config.get('max_source_positions', 1500),
            **options,
        )

    @staticmethod
    def tensor_name(path: tuple[str, ...]) -> str:
        """The name of a parameter in a Hugging Face checkpoint, without prefix.

        E.g. 'layers.0.self_attn.q_proj.weight' for ('layer_0', 'attention', 'query', 'kernel').
        """
        if path == ('positions',):
            return 'embed_positions.weight'
        *modules, leaf = path
        if modules[0].startswith('layer_'):
            inside = '/'.join(modules[1:])
            module = f'layers.{modules[0].removeprefix("layer_")}.{_MODULES[inside]}'
        else:
            module = {'norm': 'layer_norm'}.get(modules[0], modules[0])
        return f'{module}.{"bias" if leaf == "bias" else "weight"}'


_MODULES = {
    'attention_norm': 'self_attn_layer_norm',
    'attention/query': 'self_attn.q_proj',
    'attention/key': 'self_attn.k_proj',
    'attention/value': 'self_attn.v_proj',
    'attention/out': 'self_attn.out_proj',
    'feed_forward_norm': 'final_layer_norm',
    'feed_forward/in': 'fc1',
    'feed_forward/out': 'fc2',
}
