"""Training step of the end-to-end network, compared with PyTorch: python -m benchmarks.end_to_end_step [--out=FILE]

Three tasks of three classes, summed cross-entropies, Adam, noise as input. Both start from the same parameters and must compute the same
losses before anything is timed, in alternating blocks. PyTorch computes frame by frame; ser_jax computes what overlapping frames share
once (`FrameEncoder`). Needs the extra [bench].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import timing
from benchmarks.trainers import seconds_per_step
from ser_jax.models.end_to_end import Model

_HEADS = {'arousal': 3, 'valence': 3, 'dominance': 3}
_SAMPLE_RATE, _LEARNING_RATE, _DROPOUT = 16_000, 1e-4, 0.1


def make_batch(size: int, seconds: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Noise [B, S] as 'waveform' and a label [B] for every task."""
    rng = np.random.default_rng(seed)
    labels = {name: rng.integers(n, size=size) for name, n in _HEADS.items()}
    shape = (size, round(seconds * _SAMPLE_RATE))
    return {'waveform': rng.normal(size=shape).astype(np.float32), **labels}


class JaxTrainer:
    """The training step of ser_jax on one device."""

    def __init__(self, batch: dict[str, np.ndarray], *, dropout: float = _DROPOUT):
        self.batch, self.key = jax.device_put(batch), jax.random.key(0)
        size, samples = batch['waveform'].shape
        length = jnp.full((size,), samples)
        model, tx = Model(_HEADS, dropout=dropout), optax.adam(_LEARNING_RATE)

        def loss(params, batch, key):
            rngs, x = {'dropout': key}, batch['waveform']
            outputs = model.apply({'params': params}, x, length, train=True, rngs=rngs)
            entropy = optax.softmax_cross_entropy_with_integer_labels
            return sum(entropy(outputs[name], batch[name]).mean() for name in _HEADS)

        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, opt_state, batch, key):
            value, gradients = jax.value_and_grad(loss)(params, batch, key)
            updates, opt_state = tx.update(gradients, opt_state)
            return optax.apply_updates(params, updates), opt_state, value

        self._step = step
        init = jax.jit(functools.partial(model.init, train=False))
        self.params = init(self.key, self.batch['waveform'][:1], length[:1])['params']
        self.opt_state = tx.init(self.params)

    def run(self, n: int) -> float:
        """Trains n steps and returns the last loss."""
        for _ in range(n):
            self.key, key = jax.random.split(self.key)
            self.params, self.opt_state, value = self._step(
                self.params, self.opt_state, self.batch, key
            )
        return float(value)


class TorchTrainer:
    """The same training step in PyTorch (eager) from the same parameters."""

    def __init__(self, batch: dict[str, np.ndarray], params, *, dropout: float = _DROPOUT):
        import torch

        from benchmarks.torch_end_to_end import TorchEndToEnd, load_flax

        self.torch = torch
        device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
        self.model = TorchEndToEnd(_HEADS, dropout)
        load_flax(self.model, jax.device_get(params))
        self.model.to(device)
        self.batch = {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=_LEARNING_RATE, foreach=True)

    def run(self, n: int) -> float:
        """Trains n steps and returns the last loss."""
        entropy = self.torch.nn.functional.cross_entropy
        for _ in range(n):
            outputs = self.model(self.batch['waveform'])
            loss = sum(entropy(outputs[name], self.batch[name]) for name in _HEADS)
            self.optimiser.zero_grad()
            loss.backward()
            self.optimiser.step()
        return loss.item()


def same_losses(batch: dict[str, np.ndarray], n: int = 3) -> list[tuple[float, float]]:
    """Compares the losses (ours, PyTorch's) of n steps without dropout, from the same parameters; AssertionError: they differ."""
    from benchmarks.torch_end_to_end import keep_second_biases

    ours = JaxTrainer(batch, dropout=0.0)
    theirs = TorchTrainer(batch, ours.params, dropout=0.0)
    keep_second_biases(theirs.model)
    losses = [(ours.run(1), theirs.run(1)) for _ in range(n)]
    for a, b in losses:
        assert abs(a - b) < 1e-4 * abs(b), f'the two do not train alike: {losses}'
    return losses


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--batch', type=int, default=8, help='utterances')
    parser.add_argument('--seconds', type=float, default=3.0, help='length of an utterance')
    parser.add_argument('--block', type=int, default=1, help='steps of a block')
    parser.add_argument('--blocks', type=int, default=6)
    parser.add_argument('--without', default='', choices=('', 'torch'))
    options = parser.parse_args()

    batch = make_batch(options.batch, options.seconds)
    ours = JaxTrainer(batch)
    runs = {'ser_jax': ours.run}
    if options.without != 'torch':
        print('losses of the first steps (ser_jax, PyTorch):', same_losses(batch))
        runs['PyTorch eager'] = TorchTrainer(batch, ours.params).run
    seconds = seconds_per_step(runs, options.block, options.blocks)
    rows = timing.print_steps(seconds, options.batch)
    timing.write(options.out, batch=options.batch, seconds=options.seconds, rows=rows)


if __name__ == '__main__':
    main()
