"""Peak memory of training with many hours of unlabelled speech: python -m benchmarks.memory [--hours=100]

Prepares a corpus of noise once (some 115 MB per hour in --folder), trains the default system on demo_speech with it as
`config.unlabelled` in a separate process, and prints that process' largest resident set, including start and compilation.
"""

import pathlib
import resource
import subprocess
import sys
import time

from benchmarks import timing
from benchmarks.made_up import NAME, MadeUp, make_listing
from ser_jax.data.records import corpus_folder, is_prepared


def prepare(hours: float, folder: pathlib.Path) -> None:
    """Prepares the corpus unless it exists."""
    if is_prepared(corpus_folder(NAME, data_dir=folder, representation='log_mel')):
        return
    MadeUp(listing=make_listing(hours), data_dir=folder, config='log_mel').download_and_prepare()


def main() -> None:
    """Prints the result and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--hours', type=float, default=100)
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--folder', type=pathlib.Path, required=True, help='for records and run')
    options = parser.parse_args()
    folder = options.folder / f'{options.hours:g}_hours'
    prepare(options.hours, folder)
    command = [
        *(sys.executable, '-m', 'ser_jax.main', '--config=configs/mtl_aug.py'),
        f"--config.unlabelled=('{NAME}',)",
        f'--config.steps={options.steps}',
        '--config.final=False',
        f'--config.data.data_dir={folder}',
        f'--workdir={folder / f"run_{time.time_ns()}"}',
    ]
    subprocess.run(command, check=True)
    megabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(
        f'{options.hours:.0f} h of unlabelled speech (made up): {megabytes:.0f} MB resident at most'
    )
    timing.write(options.out, hours=options.hours, megabytes=megabytes)


if __name__ == '__main__':
    main()
