"""Many trainings in one program: python -m benchmarks.parallel_runs [--runs=2] [--check] [--out=FILE]

The training step, vmapped over runs (other seeds here; folds differ in data only) and spread over the devices, against one run after the
other on all devices. `--check` compares the losses of 20 steps instead of timing; simulated devices come from
XLA_FLAGS=--xla_force_host_platform_device_count=8.
"""

import argparse
import pathlib

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import timing
from benchmarks.train_step import JaxTrainer, Setting, make_batch, seconds_per_step
from configs.mtl_aug import get_config
from ser_jax import sharding

_RUNS = 'runs'


class ParallelTrainer:
    """`runs` trainings side by side, as many on each device as it takes.

    Args:
        setting: of all of them.
        runs: how many, divisible by the devices.
    """

    def __init__(self, setting: Setting, runs: int, **options):
        self._one = JaxTrainer(setting, **options)
        # Within a run there is one device: its own collectives run over an axis of size 1.
        devices = np.array(jax.devices()).reshape(-1, 1)
        mesh = Mesh(devices, (_RUNS, sharding.AXIS))
        spread = PartitionSpec(_RUNS)
        self._sharding = NamedSharding(mesh, spread)
        mapped = jax.shard_map(
            jax.vmap(self._one.device_step),
            mesh=mesh,
            in_specs=(spread, spread),
            out_specs=spread,
            check_vma=False,
        )
        self.step = jax.jit(mapped, donate_argnums=0)
        states = [jax.device_get(self._one.fresh(seed)) for seed in range(runs)]
        batches = [make_batch(setting, seed) for seed in range(runs)]
        self.state, self.batch = map(self._stack, (states, batches))

    def _stack(self, trees):
        stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        return jax.device_put(stacked, self._sharding)

    def run(self, n: int) -> np.ndarray:
        """Trains n steps; the last loss of each run."""
        for _ in range(n):
            self.state, metrics = self.step(self.state, self.batch)
        return np.asarray(metrics['loss'])


class SequentialTrainer:
    """The same trainings one after the other, each on all devices."""

    def __init__(self, setting: Setting, runs: int, **options):
        self._one = JaxTrainer(setting, **options)
        self._states = [
            sharding.replicate(jax.device_get(self._one.fresh(seed)), self._one.mesh)
            for seed in range(runs)
        ]
        self._batches = [
            sharding.to_devices(make_batch(setting, seed), self._one.mesh) for seed in range(runs)
        ]

    def run(self, n: int) -> np.ndarray:
        """Trains n steps; the last loss of each run."""
        losses = []
        for i, batch in enumerate(self._batches):
            for _ in range(n):
                self._states[i], metrics = self._one.step(self._states[i], batch)
            losses.append(float(metrics['loss']))
        return np.array(losses)


def compare(setting: Setting, runs: int, steps: int = 20) -> float:
    """The largest relative difference of any run's loss in any of `steps` steps."""
    parallel, sequential = ParallelTrainer(setting, runs), SequentialTrainer(setting, runs)
    pairs = [(parallel.run(1), sequential.run(1)) for _ in range(steps)]
    return max(float(np.max(np.abs(a - b) / np.abs(b))) for a, b in pairs)


def main() -> None:
    """Prints the table, or the difference, and writes `--out`."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--config', default='demo_speech')
    parser.add_argument('--runs', type=int, default=2)
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--blocks', type=int, default=6)
    parser.add_argument('--out', type=pathlib.Path)
    options = parser.parse_args()
    setting = Setting(get_config(options.config))
    devices = jax.device_count()
    if options.check:
        worst = compare(setting, options.runs)
        print(f'{options.runs} runs on {devices} devices: losses differ by {worst:.1e} at most')
        result = {'difference': worst}
    else:
        ways = {
            'side by side': ParallelTrainer(setting, options.runs).run,
            'one after the other': SequentialTrainer(setting, options.runs).run,
        }
        seconds = {
            name: float(np.median(values)) / options.runs
            for name, values in seconds_per_step(ways, 5, options.blocks).items()
        }
        result = {'seconds_per_step_and_run': seconds}
        for name, value in seconds.items():
            print(f'{name:20} {1000 * value:8.1f} ms a step and run ({devices} devices)')
    timing.write(options.out, runs=options.runs, **result)


if __name__ == '__main__':
    main()
