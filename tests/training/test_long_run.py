"""A run of 4,000 steps takes no more memory, open files or disk space at its end than at its beginning."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, metrics

STEPS, EVERY = 4000, 100
AUGMENTATIONS = "('speed(0.9, 1.1)', 'noise(0, 20)', 'spec_mask(2, 0.2, 0.2)', 'mixup(0.2)')"


def resident(process: int) -> float:
    """MiB that a process holds."""
    with open(f'/proc/{process}/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGESIZE') / 2**20


@pytest.mark.slow
def test_memory_files_and_logs_stay_as_they_are(beeps, tmp_path):
    workdir = tmp_path / 'run'
    command = [
        *(sys.executable, '-m', 'ser_jax.main'),
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={beeps["data_dir"]}',
        f'--workdir={workdir}',
        f'--config.steps={STEPS}',
        f'--config.eval_every={EVERY}',
        f'--config.patience={STEPS}',
        f'--config.augmentations={AUGMENTATIONS}',
        "--config.unlabelled=('csv_corpus/hums',)",
        '--config.labelled_share=0.5',
        '--config.adversarial_epsilon=0.01',
        '--config.batch_size=4',
        '--config.crop_frames=16',
    ]
    environment = {n: v for n, v in os.environ.items() if n != 'XLA_FLAGS'}
    log = (tmp_path / 'log').open('w')
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    seen, at_rest = [], []  # after every validation: (MiB, open files), checkpoints
    while process.poll() is None:
        lines = metrics(workdir) if (workdir / 'metrics.jsonl').exists() else []
        if len([line for line in lines if 'validation_uar' in line]) > len(seen):
            held = len(os.listdir(f'/proc/{process.pid}/fd'))
            seen.append((resident(process.pid), held))
            at_rest.append(np.inf)
        if (
            at_rest
        ):  # while one is written, the oldest is still there: the fewest until the next validation
            kinds = [path for path in workdir.glob('checkpoints/*/*') if path.is_dir()]
            kept = sum(name.isdigit() for kind in kinds for name in os.listdir(kind))
            at_rest[-1] = min(at_rest[-1], kept)
        time.sleep(0.05)
    assert process.returncode == 0, (tmp_path / 'log').read_text()[-2000:]
    memory, files = map(np.array, zip(*seen))
    validations = STEPS // EVERY
    assert len(seen) > 0.8 * validations
    quarter = len(seen) // 4
    assert np.median(memory[-quarter:]) < 1.03 * np.median(memory[quarter : 2 * quarter]), memory
    # More are open for a moment while checkpoints are written: what rests open counts, and one kept a validation would add twenty.
    assert min(files[-quarter:]) < min(files[quarter : 2 * quarter]) + 5, files
    assert 2 <= max(at_rest) <= 4, at_rest  # two of the latest and two of the best
    room = lambda name: sum(path.stat().st_size for path in Path(workdir).rglob(name))
    # A line or a point for each interval, not for each step.
    assert room('metrics.jsonl') < 1000 * validations
    assert room('events.out.*') < 2000 * validations
    assert (tmp_path / 'log').stat().st_size < 400 * validations + 20_000
