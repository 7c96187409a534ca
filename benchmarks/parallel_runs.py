"""Several training runs in one program: python -m benchmarks.parallel_runs [--runs=2] [--check] [--out=FILE]

`config.parallel_runs`: runs of different seeds in parallel, one device each, compared with one after the other, on one CPU device (which
then has all cores) or on all accelerators. `--check` compares the losses of 20 steps instead of timing. A CPU has as many devices as
runs, unless XLA_FLAGS or JAX_NUM_CPU_DEVICES sets another number.
"""

import os

import jax
import numpy as np

from benchmarks import timing
from benchmarks.setting import Setting
from benchmarks.trainers import JaxTrainer, seconds_per_step
from configs.mtl_aug import get_config
from ser_jax.runtime import devices


def _side_by_side(setting: Setting, runs: int) -> JaxTrainer:
    return JaxTrainer(setting, placement=devices.ParallelRuns(runs))


def _one(setting: Setting) -> JaxTrainer:
    cpu = jax.default_backend() == 'cpu'
    mesh = devices.ParallelRuns(jax.device_count()).mesh if cpu else devices.make_mesh()
    return JaxTrainer(setting, placement=devices.DataParallel(mesh))


def compare(setting: Setting, runs: int, steps: int = 20) -> float:
    """The largest relative difference of any run's loss in any of `steps` steps."""
    parallel, one = _side_by_side(setting, runs), _one(setting)
    together = np.array([parallel.run(1) for _ in range(steps)])  # [steps, runs]
    separate = []
    for seed in range(runs):
        one.reset(seed)
        separate.append([one.run(1) for _ in range(steps)])
    separate = np.array(separate).T
    return float(np.max(np.abs(together - separate) / np.abs(separate)))


def main() -> None:
    """Prints the table, or the difference, and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--config', default='demo_speech')
    parser.add_argument('--runs', type=int, default=2)
    parser.add_argument('--check', action='store_true')
    parser.add_argument('--blocks', type=int, default=6)
    options = parser.parse_args()
    decided = 'device_count' in os.environ.get('XLA_FLAGS', '')
    if not decided and jax.config.jax_num_cpu_devices < 1:
        jax.config.update('jax_num_cpu_devices', options.runs)
    setting = Setting.of(get_config(options.config))
    devices = jax.device_count()
    if options.check:
        worst = compare(setting, options.runs)
        print(f'{options.runs} runs on {devices} devices: losses differ by {worst:.1e} at most')
        result = {'difference': worst}
    else:
        ways = {
            'side by side': _side_by_side(setting, options.runs).run,
            'one after the other': _one(setting).run,
        }
        times = seconds_per_step(ways, 5, options.blocks)
        seconds = {name: float(np.median(values)) for name, values in times.items()}
        seconds['side by side'] /= options.runs
        result = {'seconds_per_step_and_run': seconds}
        for name, value in seconds.items():
            print(f'{name:20} {1000 * value:8.1f} ms a step and run ({devices} devices)')
    timing.write(options.out, runs=options.runs, **result)


if __name__ == '__main__':
    main()
