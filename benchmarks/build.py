"""Speed and peak memory of preparing corpora: python -m benchmarks.build --folder=DIR [--hours=20] [NAME …]

Prepares the named corpora (from `SER_JAX_MANUAL_DIR`) and a synthetic one of flac files in LibriSpeech's layout, each by its own
`python -m tfds_builders.build` into a fresh folder. Memory is the largest sum of the resident sets of that process and its workers,
sampled ten times a second; shared pages count once per process.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import numpy as np
import soundfile

from benchmarks import timing

_SECONDS, _RATE, _PER_FOLDER = 12, 16000, 100


def write_speech(hours: float, folder: pathlib.Path) -> None:
    """Writes synthetic recordings in LibriSpeech's layout, unless they exist."""
    count = round(3600 * hours / _SECONDS)
    rng = np.random.default_rng(0)
    time_axis = np.arange(_SECONDS * _RATE) / _RATE
    for number in range(count):
        speaker, rest = divmod(number, _PER_FOLDER)
        path = folder / f'train-clean-100/{speaker}/1/{speaker}-1-{rest:04d}.flac'
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(2 * np.pi * (120 + number % 200) * time_axis) * rng.uniform(0.05, 0.5)
        soundfile.write(path, tone + 0.01 * rng.standard_normal(len(tone)), _RATE)


def resident_megabytes(pid: int) -> float:
    """Sum of the resident sets of a process and its descendants; Linux only."""
    total, waiting = 0, [pid]
    while waiting:
        pid = waiting.pop()
        try:
            pages = int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1])
            for task in pathlib.Path(f'/proc/{pid}/task').iterdir():
                waiting += map(int, (task / 'children').read_text().split())
        except OSError:  # it has just ended
            continue
        total += pages * os.sysconf('SC_PAGE_SIZE')
    return total / 2**20


def build(name: str, manual_dir: pathlib.Path, data_dir: pathlib.Path) -> dict[str, float]:
    """Prepares a corpus and measures: hours of audio, seconds, hours a minute, megabytes."""
    shutil.rmtree(data_dir, ignore_errors=True)
    command = [sys.executable, '-m', 'tfds_builders.build', name]
    start, most = time.perf_counter(), 0.0
    process = subprocess.Popen(
        [*command, f'--manual_dir={manual_dir}', f'--data_dir={data_dir}'],
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        most = max(most, resident_megabytes(process.pid))
        time.sleep(0.1)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit(f'error: {name} could not be prepared from {manual_dir}')
    (index,) = data_dir.glob(f'{name}/*/*/index.npz')
    with np.load(index) as stored:
        hours = float(stored['duration'].sum(dtype=np.float64)) / 3600
    return {
        'hours': hours,
        'seconds': seconds,
        'hours_per_minute': 60 * hours / seconds,
        'megabytes': most,
    }


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('names', nargs='*', metavar='NAME', help='corpora in SER_JAX_MANUAL_DIR')
    parser.add_argument('--hours', type=float, default=20, help='hours of synthetic audio')
    parser.add_argument('--folder', type=pathlib.Path, required=True, help='for audio and records')
    options = parser.parse_args()
    made_up = options.folder / f'{options.hours:g}_hours'
    write_speech(options.hours, made_up)
    real = pathlib.Path(os.environ.get('SER_JAX_MANUAL_DIR', '.'))
    folders = {name: real / name.rpartition('/')[2] for name in options.names}
    rows = {name: build(name, path, options.folder / 'records') for name, path in folders.items()}
    rows['made up'] = build('librispeech', made_up, options.folder / 'records')
    for name, row in rows.items():
        print(
            f'{name:12} {row["hours"]:7.2f} h in {row["seconds"]:6.1f} s: {row["hours_per_minute"]:6.1f} hours a minute, '
            f'{row["megabytes"]:.0f} MB at most'
        )
    timing.write(options.out, rows=rows)


if __name__ == '__main__':
    main()
