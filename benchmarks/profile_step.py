"""Where the time of one training step goes, by operation: python -m benchmarks.profile_step [--config=demo_speech]

Runs some steps under JAX's profiler and adds up the trace's events of XLA's operations. On a CPU they run on
several threads, so that their sum may exceed the step's time.
"""

import argparse
import collections
import glob
import gzip
import json
import tempfile
import time

import jax

from benchmarks import timing
from benchmarks.train_step import JaxTrainer, Setting
from configs.mtl_aug import get_config


def operations(folder: str) -> dict[str, tuple[float, int]]:
    """Microseconds and number of events of every operation in the newest trace below a folder."""
    path = sorted(glob.glob(f'{folder}/**/*.trace.json.gz', recursive=True))[-1]
    with gzip.open(path) as file:
        events = json.load(file)['traceEvents']
    totals = collections.defaultdict(lambda: [0.0, 0])
    for event in events:
        if 'hlo_op' in event.get('args', {}):
            total = totals[event['args']['hlo_op']]
            total[0] += event['dur']
            total[1] += 1
    return {name: tuple(total) for name, total in totals.items()}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--config', default='demo_speech')
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--rows', type=int, default=40)
    parser.add_argument('--augmented', action='store_true')
    options = parser.parse_args()
    trainer = JaxTrainer(Setting(get_config(options.config)), augmented=options.augmented)
    trainer.run(3)
    start = time.perf_counter()
    trainer.run(options.steps)
    seconds = (time.perf_counter() - start) / options.steps
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            trainer.run(options.steps)
        table = operations(folder)
    print(f'{1000 * seconds:.1f} ms a step without the profiler')
    for name, (microseconds, events) in sorted(table.items(), key=lambda row: -row[1][0])[
        : options.rows
    ]:
        print(
            f'{microseconds / 1000 / options.steps:8.2f} ms {events / options.steps:8.0f} x  {name}'
        )

    timing.write(None)


if __name__ == '__main__':
    main()
