"""Whisper part (temporary)."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from ser_jax.models.encoders.whisper import Whisper


def random_waveforms(lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
    """Noise whose level changes every 50 ms, float32 [S] each."""
    rng = np.random.default_rng(seed)
    waves = []
    for length in lengths:
        level = np.repeat(rng.uniform(0.01, 0.3, length // 800 + 1), 800)[:length]
        waves.append((level * rng.standard_normal(length)).astype(np.float32))
    return waves


def padded(waveforms: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A batch with garbage in the padding, and the lengths."""
    samples = np.array([len(waveform) for waveform in waveforms], np.int32)
    rng = np.random.default_rng(1)
    batch = rng.normal(0, 10, (len(samples), samples.max() + 777)).astype(np.float32)
    for row, waveform in enumerate(waveforms):
        batch[row, : len(waveform)] = waveform
    return batch, samples


def randomise(model) -> None:
    """Random values for norms and biases, which transformers initialises to 1 and 0: both would hide errors."""
    import torch

    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.2 * noise)


def ours_of(module, model) -> dict:
    """Our parameter tree from the state of a transformers model."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 800)), jnp.array([800]))
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    flat = {
        path: state[module.tensor_name(path)]
        for path in traverse_util.flatten_dict(shapes['params'])
    }
    return traverse_util.unflatten_dict(
        {path: a.T if path[-1] == 'kernel' else a for path, a in flat.items()}
    )


def whisper_features(extractor, waveform: np.ndarray) -> np.ndarray:
    """Log-mel [F, T] of an utterance followed by zeros, cut to its own frames, with the floor of these frames."""
    features = extractor(waveform, sampling_rate=16000, return_tensors='np').input_features[0]
    features = features[:, : -(-len(waveform) // 160)]
    return np.maximum(features, features.max() - 2.0)  # (maximum − 8 + 4) / 4


def whisper_states(model, features: np.ndarray) -> list:
    """Hidden states of transformers' encoder at natural length: layers 0 … N + 1, each [T', D]."""
    import torch

    # The encoder refuses other lengths than twice this, and the setter refuses fractions.
    vars(model.config)['max_source_positions'] = features.shape[1] / 2
    whole = model.embed_positions
    frames = -(-features.shape[1] // 2)
    model.embed_positions = torch.nn.Embedding(
        frames, whole.embedding_dim, _weight=whole.weight[:frames]
    )
    states = []
    hooks = [model.layers[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))]
    for layer in model.layers:
        hooks.append(
            layer.register_forward_hook(
                lambda *call: states.append(call[2][0] if isinstance(call[2], tuple) else call[2])
            )
        )
    dtype = model.conv1.weight.dtype
    last = model(torch.tensor(features[None], dtype=dtype)).last_hidden_state
    for hook in hooks:
        hook.remove()
    model.embed_positions = whole
    return [state[0] for state in [*states, last]]
