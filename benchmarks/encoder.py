"""Forward pass and training step of pretrained encoders, compared with PyTorch: python -m benchmarks.encoder [--out=FILE]

Whisper tiny and a wav2vec 2.0 of base size with random weights, 16 utterances of 3.7 s, from the waveform; transformers in PyTorch
eager and torch.compile, with its default attention and without dropout. A training step is the gradient of all parameters and an update
by AdamW. Both libraries have the same parameters and must compute the same frames before anything is timed, in alternating rounds.
Needs the extra [parity].
"""

import functools
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from ser_jax.models.encoders.weights import encoder_class

RATE = 1e-5  # learning rate
CONFIGS = {
    'whisper_tiny': {
        'model_type': 'whisper',
        'd_model': 384,
        'encoder_layers': 4,
        'encoder_attention_heads': 6,
        'encoder_ffn_dim': 1536,
        'num_mel_bins': 80,
    },
    'wav2vec2_base': {
        'model_type': 'wav2vec2',
        'hidden_size': 768,
        'num_hidden_layers': 12,
        'num_attention_heads': 12,
        'intermediate_size': 3072,
        'feat_extract_norm': 'group',
        'conv_dim': [512] * 7,
        'conv_kernel': [10, 3, 3, 3, 3, 2, 2],
        'conv_stride': [5, 2, 2, 2, 2, 2, 2],
        'num_conv_pos_embeddings': 128,
        'num_conv_pos_embedding_groups': 16,
        'layerdrop': 0.0,
        'apply_spec_augment': False,
    },
}


def make_module(config: Mapping[str, Any], **options) -> nn.Module:
    """Builds our module of a `config.json`; `options` as in `load_encoder`."""
    family = encoder_class(config['model_type'])
    return family.from_config(config, {'do_normalize': True}, **options)


def make_batch(utterances: int, seconds: float) -> np.ndarray:
    """Noise, float32 [B, S]."""
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, (utterances, round(seconds * 16000))).astype(np.float32)


def make_factors(shape: tuple[int, ...]) -> np.ndarray:
    """Factors of the frames in the loss, their weighted mean: a norm at the end makes the mean of squares constant."""
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def our_ways(
    module: nn.Module, params: Mapping[str, Any], batch: np.ndarray
) -> dict[str, Callable[[], object]]:
    """Our forward pass and training step, 'forward' and 'step' -> compiled function, on utterances of one length [B, S]."""
    waveform = jnp.asarray(batch)
    samples = jnp.full(len(batch), batch.shape[1], jnp.int32)
    apply = lambda params: module.apply({'params': params}, waveform, samples)[0][-1]
    forward = jax.jit(apply)
    factors = make_factors(jax.eval_shape(forward, params).shape)
    optimiser = optax.adamw(RATE)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state):
        gradient = jax.grad(lambda p: jnp.mean(apply(p) * factors))(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state = [jax.tree.map(jnp.array, params), optimiser.init(params)]

    def train():
        state[:] = jax.block_until_ready(step(*state))

    params = jax.device_put(params)
    return {'forward': lambda: jax.block_until_ready(forward(params)), 'step': train}


def compared_ways(module: nn.Module, config: Mapping[str, Any], batch: np.ndarray, compiled: bool):
    """Library -> `our_ways` and the same in PyTorch, from the same random weights.

    Raises:
        AssertionError: the libraries compute different frames.
    """
    from benchmarks import torch_encoders
    from benchmarks.encoder_parity import our_params

    theirs = torch_encoders.make_encoder(config, batch.shape[1])
    ways = {'ser_jax': our_ways(module, our_params(module, theirs.encoder), batch)}
    ways['PyTorch eager'] = torch_encoders.make_ways(theirs, batch, RATE, False)
    ours = np.asarray(ways['ser_jax']['forward']())
    expected = ways['PyTorch eager']['forward']().numpy()
    difference = np.abs(ours - expected).max() / np.abs(expected).max()
    assert difference < 1e-4, f'the frames differ by {difference:.1e}'
    if compiled:
        ways['PyTorch torch.compile'] = torch_encoders.make_ways(theirs, batch, RATE, True)
    return ways


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--encoders', default='whisper_tiny,wav2vec2_base')
    parser.add_argument('--utterances', type=int, default=16)
    parser.add_argument('--seconds', type=float, default=3.7)
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--without', default='', help='comma-separated: torch, compile, step')
    options = parser.parse_args()
    without = options.without.split(',')
    batch = make_batch(options.utterances, options.seconds)
    rows = []
    for name in options.encoders.split(','):
        # transformers takes one length only, that of its positions.
        config = CONFIGS[name] | {'max_source_positions': -(-batch.shape[1] // 320)}
        module = make_module(config)
        if 'torch' in without:
            params = jax.jit(module.init)(jax.random.key(0), batch[:1], np.array([batch.shape[1]]))[
                'params'
            ]
            ways = {'ser_jax': our_ways(module, params, batch)}
        else:
            ways = compared_ways(module, config, batch, 'compile' not in without)
        for what in ('forward', 'step'):
            if what in without:
                continue
            runs = {library: way[what] for library, way in ways.items()}
            timing.alternate(runs, 2)  # compiles
            seconds = timing.alternate(runs, options.rounds)
            for library, values in seconds.items():
                pairs = zip(values, seconds['ser_jax'], strict=True)
                row = {
                    'encoder': name,
                    'what': what,
                    'library': library,
                    'seconds': statistics.median(values),
                    'times_ser_jax': statistics.median(v / ours for v, ours in pairs),
                }
                rows.append(row)
                print(
                    f'{name:14} {what:8} {library:22} {1000 * row["seconds"]:9.1f} ms   x {row["times_ser_jax"]:.2f}',
                    flush=True,
                )
    timing.write(options.out, rows=rows)


if __name__ == '__main__':
    main()
