"""Loads pretrained encoders: family, parameters, fingerprint."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ser_jax.models.encoders import fine_tuning, functionals, hub, weights
from ser_jax.models.layers import mean_and_deviation
from ser_jax.runtime.errors import UserError

SAMPLE_RATE = 16000  # of every encoder's input, Hz


@dataclasses.dataclass(frozen=True)
class Encoder:
    """A pretrained encoder.

    Attributes:
        name: Hugging Face name or folder it was loaded by.
        revision: commit of the Hugging Face repository; '' for a folder.
        folder: folder of its files.
        family: 'whisper', 'wav2vec2', 'hubert' or 'wavlm'; 'opensmile' for functionals, which have statistics only.
        fingerprint: SHA-256 of its parameters, see `weights.fingerprint`.
        module: network from waveforms to the frames of every layer.
        params: parameters, float32.
    """

    name: str
    revision: str
    folder: Path
    family: str
    fingerprint: str
    module: nn.Module
    params: dict[str, Any]

    @property
    def size(self) -> int:
        """Number of parameters, without LoRA's."""
        flat = jax.tree_util.tree_leaves_with_path(self.params)
        return sum(leaf.size for path, leaf in flat if not path[-1].key.startswith('lora_'))

    @property
    def identity(self) -> str:
        """SHA-256 of the parameters and of all settings that change the frames, such as `do_normalize`."""
        fields = {field.name for field in dataclasses.fields(self.module)}
        fields -= {'parent', 'name', 'dtype', 'remat', 'lora_rank'}
        settings = [(name, getattr(self.module, name)) for name in sorted(fields)]
        return hashlib.sha256(f'{self.fingerprint} {settings}'.encode()).hexdigest()

    def summary(self) -> str:
        """One line: name, family, size, layers, fingerprint."""
        module = self.module
        what = f'{module.statistics} functionals'
        if not module.on_host:
            what = (
                f'{self.family}, {self.size / 1e6:.1f} M parameters, layers 0 to {module.outputs - 1} of {module.width}, '
                f'{SAMPLE_RATE / module.stride:g} frames a second'
            )
        revision = f', revision {self.revision}' if self.revision else ''
        return f'{self.name}: {what}, fingerprint {self.fingerprint[:16]}{revision}'


@dataclasses.dataclass(frozen=True)
class EncoderInput:
    """The input of a network that sees the outputs of an encoder, computed from waveforms.

    Attributes:
        encoder: the encoder.
        layers: numbers of the layers: statistics are concatenated in this order, frames averaged.
        output: 'statistics', mean and standard deviation over time, or 'frames', at half the encoder's rate.
        rates: learning rates of an encoder that trains with the network, path -> relative learning rate of every parameter that trains
            (`fine_tuning.learning_rates`); {} = frozen.
    """

    encoder: Encoder
    layers: tuple[int, ...]
    output: str = 'statistics'
    rates: Mapping[tuple[str, ...], float] = dataclasses.field(default_factory=dict)

    @property
    def features(self) -> int:
        """Width F of the input."""
        if self.output == 'frames':
            return self.encoder.module.width
        return len(self.layers) * self.encoder.module.statistics

    def frozen(self) -> 'EncoderInput':
        """The same encoder as it was pretrained."""
        encoder = self.encoder
        if getattr(encoder.module, 'lora_rank', 0):
            encoder = dataclasses.replace(encoder, module=encoder.module.clone(lora_rank=0))
        return dataclasses.replace(self, encoder=encoder, rates={})

    def facts(self) -> dict[str, Any]:
        """The entry of the encoder in a result card."""
        encoder = self.encoder
        facts = {'name': encoder.name, 'fingerprint': encoder.fingerprint}
        facts |= {'identity': encoder.identity, 'layers': self.layers}
        return facts | ({'revision': encoder.revision} if encoder.revision else {})

    def __call__(
        self, waveform: jax.Array, samples: jax.Array, params: dict
    ) -> tuple[jax.Array, jax.Array]:
        """Computes the input as `data.encoded` stores it.

        Args:
            waveform: float32 [B, S], up to 30 s.
            samples: int [B], lengths.
            params: parameters of the encoder.

        Returns:
            (input [B, T, F], T = 1 for statistics; lengths int32 [B] in frames).
        """
        if self.encoder.module.on_host:
            return self.encoder.module.apply(waveform, samples), jnp.ones_like(samples)
        # Full float32 products, as for the stored outputs: by default GPUs and TPUs round the factors.
        with jax.default_matmul_precision('highest'):
            states, mask = self.encoder.module.apply({'params': params}, waveform, samples)
        x = jnp.stack([states[layer] for layer in self.layers], axis=1)
        if self.output == 'frames':
            pair = lambda x: _sum_pairs(x * mask[..., None].astype(x.dtype))
            count = pair(jnp.ones((*mask.shape, 1), x.dtype))
            length = (jnp.sum(mask, axis=1, dtype=jnp.int32) + 1) // 2
            return pair(jnp.mean(x, axis=1)) / jnp.maximum(count, 1.0), length
        x = mean_and_deviation(x, mask).reshape(x.shape[0], 1, self.features)
        return x, jnp.ones(x.shape[0], jnp.int32)


def _sum_pairs(x: jax.Array) -> jax.Array:
    """Sums every two frames, [B, T, D] -> [B, ceil(T / 2), D]."""
    pair = (1, 2, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, pair, pair, ((0, 0), (0, 1), (0, 0)))


def load_encoder(
    name: str | Path, *, dtype: str = 'float32', remat: bool = False, lora_rank: int = 0
) -> Encoder:
    """Loads an encoder, downloading it if needed.

    Args:
        name: a folder, or a Hugging Face name (`hub.resolve`); 'opensmile' for functionals.
        dtype: data type of the products, 'float32' or 'bfloat16'.
        remat: recompute layers in the backward pass, to save memory.
        lora_rank: rank of trainable updates of query and value, or 0.

    Returns:
        The encoder.

    Raises:
        UserError: not found, not readable, or not supported; the message names the file.
    """
    if name == functionals.NAME:
        module, digest = functionals.Functionals(), functionals.fingerprint()
        return Encoder(name, '', Path(), name, digest, module, {})
    found = hub.resolve(name)
    checkpoint = weights.read_checkpoint(found.folder)
    family = checkpoint.config['model_type']
    try:
        module = weights.encoder_class(family).from_config(
            checkpoint.config,
            checkpoint.preprocessor,
            dtype=dtype,
            remat=remat,
            lora_rank=lora_rank,
        )
    except UserError as error:
        raise UserError(f'{found.folder / "config.json"}: {error}') from error
    params = weights.parameters(module, checkpoint)
    return Encoder(
        found.name,
        found.revision,
        found.folder,
        family,
        weights.fingerprint(params),
        module,
        params,
    )


def load_input(
    settings: Mapping[str, Any], fine_tune: Mapping[str, Any] | None = None
) -> EncoderInput:
    """Loads the encoder of a config.

    Args:
        settings: `config.encoder`.
        fine_tune: `config.fine_tune` of an encoder that trains.

    Raises:
        UserError: see `load_encoder`; or it lacks a layer, or none of its parameters would train.
    """
    tuned = dict(fine_tune or {'trains': ''})
    rank = fine_tuning.lora_rank(tuned['trains'])
    encoder = load_encoder(settings['weights'], remat=tuned.get('remat', False), lora_rank=rank)
    layers = tuple(settings['layers'] or range(encoder.module.outputs))
    if max(layers) >= encoder.module.outputs:
        raise UserError(
            f'config.encoder.layers is {layers}; {encoder.name} has layers 0 to {encoder.module.outputs - 1}'
        )
    rates = {}
    if tuned['trains']:
        own = ('trains', 'rate', 'layer_decay', 'front_end')
        rates = fine_tuning.learning_rates(
            encoder.module, encoder.params, layers, **{name: tuned[name] for name in own}
        )
        if not rates:
            raise UserError(
                f'config.fine_tune.trains is {tuned["trains"]!r}, which trains nothing of {encoder.name} with '
                f'config.encoder.layers {layers}'
            )
    return EncoderInput(encoder, layers, settings['output'], rates)
