"""Exact resume: a killed run that is started again ends with the parameters of the uninterrupted one."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import runs_on_disk
from conftest import ROOT, metrics, run, simulated
from runs_on_disk import parameters


def command(beeps, workdir):
    return runs_on_disk.command(beeps, workdir, '--config.eval_every=3')


@pytest.fixture(scope='module')
def uninterrupted(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('whole') / 'run'
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    return workdir


def worse_rows(rows):
    """Numbers of the validations that were worse than an earlier one."""
    uars = [row['validation_uar'] for row in rows]
    return [number for number in range(1, len(uars) - 1) if uars[number] < max(uars[:number])]


@pytest.mark.parametrize(
    'when', ['at random', pytest.param('while validation gets worse', marks=pytest.mark.slow)]
)
def test_killed_and_resumed_is_bit_identical(beeps, tmp_path, uninterrupted, when):
    rows = metrics(uninterrupted)
    if when == 'at random':
        kill_after = random.randrange(1, len(rows) - 1)
    else:
        kill_after = random.choice(worse_rows(rows)) + 1
    workdir = tmp_path / 'run'
    process = subprocess.Popen(
        [sys.executable, '-m', *command(beeps, workdir)],
        cwd=ROOT,
        env={**os.environ, **simulated(1)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    written = workdir / 'metrics.jsonl'
    while not written.exists() or written.read_text().count('\n') < kill_after:
        assert process.poll() is None, 'ended before it could be killed'
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.2))  # in the middle of a save, or of a step
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (workdir / 'results.json').exists()

    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    expected, found = parameters(uninterrupted), parameters(workdir)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=f'{name}, {kill_after=}')
    assert written.read_text() == (uninterrupted / 'metrics.jsonl').read_text()
    predictions = 'predictions/clean.csv'
    assert (workdir / predictions).read_text() == (uninterrupted / predictions).read_text()


def test_a_complete_run_prints_its_results_again(beeps, uninterrupted):
    before = (uninterrupted / 'results.json').read_bytes()
    result = run(*command(beeps, uninterrupted))
    assert result.returncode == 0
    assert 'UAR' in result.stdout
    assert 'step' not in result.stderr, 'it trained again'
    assert (uninterrupted / 'results.json').read_bytes() == before


def test_evaluating_again_gives_the_same_predictions(beeps, uninterrupted):
    path = uninterrupted / 'predictions' / 'clean.csv'
    before = path.read_text()
    path.unlink()
    result = run(*command(beeps, uninterrupted), '--mode=evaluate')
    assert result.returncode == 0, result.stderr
    assert path.read_text() == before


def test_a_flipped_byte_in_a_checkpoint_is_noticed(beeps, uninterrupted, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(uninterrupted, workdir)
    data = max((workdir / 'checkpoints').rglob('*'), key=lambda p: p.stat().st_size * p.is_file())
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    result = run(*command(beeps, workdir), '--mode=evaluate')
    assert result.returncode == 1
    assert result.stderr.count('\n') == 1
    assert 'is damaged' in result.stderr


def test_a_fold_that_is_trained_again_is_predicted_again(beeps, uninterrupted, tmp_path):
    workdir = tmp_path / 'run'
    shutil.copytree(uninterrupted, workdir)
    (workdir / 'results.json').unlink()
    shutil.rmtree(workdir / 'checkpoints' / 'fold_01')  # as messages advise where it is damaged
    files = [
        workdir / 'predictions' / 'fold_01' / f'{name}.csv' for name in ('clean', 'validation')
    ]
    before = [path.read_text() for path in files]
    for path, text in zip(files, before):  # those of another model
        head, *rows = text.splitlines(keepends=True)
        path.write_text(head + ''.join(rows[:-1]))
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert [path.read_text() for path in files] == before
