"""Start-up time of the main command: python -m benchmarks.start [--out=FILE]

`--help`, and from the command to the first training step (demo_speech prepared and programs compiled by an earlier run).
Medians of several starts.
"""

import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks import timing

_MAIN = [sys.executable, '-m', 'ser_jax.main']


def help_seconds() -> float:
    """Seconds until `--help` has ended."""
    start = time.perf_counter()
    subprocess.run([*_MAIN, '--help'], check=True, capture_output=True)
    return time.perf_counter() - start


def first_step_seconds() -> float:
    """Seconds until the first training step is reported."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ['--config=configs/mtl_aug.py', '--config.report_test=False', '--config.steps=2']
        start = time.perf_counter()
        with subprocess.Popen(
            [*_MAIN, *flags, f'--workdir={folder}/run'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            seconds = None
            for line in process.stderr:
                if 'step 1/' in line and seconds is None:
                    seconds = time.perf_counter() - start
        if process.returncode or seconds is None:
            raise RuntimeError(f'the run ended with {process.returncode} and no first step')
        return seconds


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--starts', type=int, default=5)
    options = parser.parse_args()
    first_step_seconds()  # prepares and compiles
    rows = {}
    for name, measure in (('--help', help_seconds), ('first step, warm', first_step_seconds)):
        rows[name] = statistics.median(measure() for _ in range(options.starts))
        print(f'{name:20} {rows[name]:6.2f} s')
    timing.write(options.out, seconds=rows)


if __name__ == '__main__':
    main()
