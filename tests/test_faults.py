"""Faults that happen to runs, made for real: kills, full disks, flipped bytes, a second run, lost processes."""

import functools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from conftest import metrics, run, simulated
from test_resume import parameters
from test_signals import assert_same, end, rest, start, start_two, wait_for

pytestmark = pytest.mark.slow

EVERY = 20  # steps between validations


def command(data, workdir, *more):
    return (
        'ser_jax.main',
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={data}',
        f'--workdir={workdir}',
        f'--config.eval_every={EVERY}',
        '--config.steps=60',
        '--config.patience=20',
        '--config.optimiser.learning_rate=0.02',
        *more,
    )


@pytest.fixture(scope='module')
def undisturbed(beeps, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
    result = run(*command(beeps['data_dir'], workdir))
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.fixture(scope='module')
def interrupted(beeps, tmp_path_factory):
    """A run that was killed after its checkpoint of step 40; not to be changed."""
    workdir = tmp_path_factory.mktemp('interrupted') / 'run'
    process, _ = start(*command(beeps['data_dir'], workdir))
    kill_when(process, lambda: list(workdir.glob('checkpoints/fold_01/latest/40/sha256.json')))
    return workdir


def kill_when(process, is_time, spread=0.0, what=''):
    """Kills a command and all it has started while it is at work, some moment after something has come to pass."""
    while not is_time():
        assert process.poll() is None, f'ended before it could be killed: {what}'
        time.sleep(0.002)
    time.sleep(random.uniform(0, spread))
    assert process.poll() is None, f'ended before it could be killed: {what}'
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


# Twenty moments in the order in which they come: what appears then below the root, how often it is waited for, and how
# many seconds later the run is killed at most. A start goes through the earlier ones again as far as they are not done.
MOMENTS = (
    ('', 3, 1.0),  # imports; later the corpus would be built
    ('records/.building/*beeps*/**/*incomplete*', 2, 0.1),  # the corpus being built
    ('run/corpora.json', 1, 0.3),
    ('run/checkpoints/fold_01/best/*', 1, 0.02),  # a checkpoint is being written, or just was
    ('run/checkpoints/fold_01/latest/*', 3, 0.02),
    ('run/checkpoints/fold_01/cost.json', 2, 0.3),  # training, after a validation
    ('run/checkpoints/fold_01/summary.json', 1, 0.1),
    ('run/checkpoints/fold_02/latest/*', 2, 0.1),
    ('run/checkpoints/fold_02/gain*.json', 1, 0.1),  # evaluation
    ('run/checkpoints/fold_02/pgd*.json', 1, 0.02),
    ('run/checkpoints/final/latest/*', 1, 0.1),
    ('run/predictions/*.csv', 1, 0.02),
    ('run/report/*.png', 1, 0.1),
)


def test_killed_at_twenty_moments(beeps, tmp_path):
    more = (
        '--config.folds=(1,2)',
        '--config.final=True',
        "--config.conditions=('gain(-6)', 'pgd(0.03, 2)')",
    )
    environment = {'SER_JAX_MANUAL_DIR': beeps['manual_dir']}
    whole = tmp_path / 'whole'
    result = run(*command(whole / 'records', whole / 'run', *more), **environment)
    assert result.returncode == 0, result.stderr

    root, kills = tmp_path / 'killed', 0
    asked = command(root / 'records', root / 'run', *more)
    for pattern, times, spread in MOMENTS:
        for _ in range(times):
            if pattern.startswith('records') and (root / 'records' / 'csv_corpus').exists():
                shutil.rmtree(root / 'records')  # the last kill came too late for the build
            # On a busy machine the run may have come to its end before the kill that its predictions set off.
            (root / 'run' / 'results.json').unlink(missing_ok=True)
            process, _ = start(*asked, **environment)
            is_time = functools.partial(newer, root, pattern, time.time())
            kill_when(process, is_time, spread, f'{kills} kills, now for {pattern}')
            kills += 1
    assert kills == 20
    result = run(*asked, **environment)
    assert result.returncode == 0, result.stderr
    assert_same(root / 'run', whole / 'run')
    for fold in ('fold_02', 'final'):
        for name, value in parameters(whole / 'run', fold).items():
            np.testing.assert_array_equal(parameters(root / 'run', fold)[name], value)
    predictions = sorted((whole / 'run' / 'predictions').iterdir())
    assert len(predictions) == 3
    for file in predictions:
        assert (root / 'run' / 'predictions' / file.name).read_text() == file.read_text()
    assert not list((root / 'records').rglob('*incomplete*'))


def newer(root, pattern, begin):
    """Whether something of a pattern was made since some time; of no pattern always."""
    if not pattern:
        return True
    try:
        return any(path.stat().st_mtime > begin for path in root.glob(pattern))
    except FileNotFoundError:  # temporary files come and go
        return False


@pytest.mark.parametrize(
    ('kind', 'damage'),
    [
        ('latest', 'flipped'),
        ('latest', 'truncated'),
        ('latest', 'missing'),
        ('latest', 'no list'),
        ('best', 'flipped'),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    beeps, tmp_path, interrupted, undisturbed, kind, damage
):
    workdir = tmp_path / 'run'
    shutil.copytree(interrupted, workdir)
    folder = max(
        (workdir / 'checkpoints' / 'fold_01' / kind).glob('[0-9]*'), key=lambda path: int(path.name)
    )
    spoil(folder, damage)
    result = run(*command(beeps['data_dir'], workdir))
    assert result.returncode == 0, result.stderr
    assert f'warning: checkpoint {folder} is damaged (' in result.stderr
    step = int(re.search(r'goes on from step (\d+)|$', result.stderr)[1] or 0)
    assert step < 40
    assert_same(workdir, undisturbed)


def spoil(folder, damage):
    """Damages the largest file of a checkpoint, or its list of checksums."""
    files = [path for path in folder.rglob('*') if path.is_file() and path.name != 'sha256.json']
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    if damage == 'flipped':
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    elif damage == 'truncated':
        largest.write_bytes(content[: len(content) // 2])
    elif damage == 'missing':
        largest.unlink()
    else:
        (folder / 'sha256.json').write_text('[')


def test_metrics_that_are_lost_are_made_again(beeps, tmp_path, interrupted, undisturbed):
    workdir = tmp_path / 'run'
    shutil.copytree(interrupted, workdir)
    lines = (workdir / 'metrics.jsonl').read_text().splitlines(keepends=True)
    (workdir / 'metrics.jsonl').write_text(lines[0] + lines[1][:30])
    result = run(*command(beeps['data_dir'], workdir))
    assert result.returncode == 0, result.stderr
    assert 'goes on from step 20\n' in result.stderr
    assert_same(workdir, undisturbed)


def test_a_second_run_in_one_workdir_is_refused(beeps, tmp_path):
    workdir = tmp_path / 'run'
    asked = command(beeps['data_dir'], workdir, '--config.steps=20000')
    first, lines = start(*asked)
    wait_for(lines, f'step {EVERY}/')
    second = run(*asked)
    where = f'(process {first.pid} on {socket.gethostname()})'
    assert second.returncode == 1
    assert second.stderr == (
        f'error: another run is at work in {workdir} {where}: wait for it, or choose another --workdir\n'
    )
    assert first.poll() is None
    assert 'goes on from' in end(first, lines, signal.SIGTERM)


def test_the_lock_of_a_dead_run_is_taken_over(beeps, tmp_path, interrupted, undisturbed):
    workdir = tmp_path / 'run'
    shutil.copytree(interrupted, workdir)
    assert re.match(r'process \d+ on ', (workdir / '.lock').read_text())
    result = run(*command(beeps['data_dir'], workdir))
    assert result.returncode == 0, result.stderr
    assert_same(workdir, undisturbed)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of so many KiB; returns where."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = []

    def mount(size):
        asked = ['mount', '-t', 'tmpfs', '-o', f'size={size}k', 'tmpfs', str(folder)]
        if shutil.which('mount') is None or subprocess.run(asked, capture_output=True).returncode:
            pytest.skip('a small file system takes the right to mount one')
        mounted.append(folder)
        return folder

    yield mount
    for place in mounted:
        subprocess.run(['umount', '-l', str(place)], check=True)


def fill(folder):
    """Leaves no room on the disk that a folder is on."""
    with (folder / 'filler').open('wb', buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


FULL = r'error: no room left on the disk: [^\n]+; make room, and give the same command again\n$'


@pytest.mark.parametrize('size', [100, 900])
def test_full_while_checkpoints_are_written(beeps, tmp_path, small_disk, undisturbed, size):
    workdir = small_disk(size) / 'run'
    result = run(*command(beeps['data_dir'], workdir))
    assert result.returncode == 1
    assert re.search(FULL, result.stderr), result.stderr
    assert 'Traceback' not in result.stderr
    subprocess.run(['mount', '-o', 'remount,size=64m', str(workdir.parent)], check=True)
    result = run(*command(beeps['data_dir'], workdir))
    assert result.returncode == 0, result.stderr
    assert_same(workdir, undisturbed)


@pytest.mark.parametrize('when', ['training', 'testing'])
def test_full_while_metrics_or_predictions_are_written(
    beeps, small_disk, interrupted, undisturbed, when
):
    disk = small_disk(2**14)
    workdir = disk / 'run'
    shutil.copytree(interrupted if when == 'training' else undisturbed, workdir)
    more = () if when == 'training' else ("--config.conditions=('fgsm(0.03)',)",)
    kept = {path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()}
    fill(disk)
    result = run(*command(beeps['data_dir'], workdir, *more))
    assert result.returncode == 1
    assert re.search(FULL, result.stderr), result.stderr
    assert 'Traceback' not in result.stderr
    for path, content in kept.items():
        if path.suffix != '.jsonl' and path.name != '.lock' and 'latest' not in path.parts:
            assert path.read_bytes() == content, path
    (disk / 'filler').unlink()
    result = run(*command(beeps['data_dir'], workdir, *more))
    assert result.returncode == 0, result.stderr
    if when == 'training':
        assert_same(workdir, undisturbed)
    else:
        assert json.loads((workdir / 'results.json').read_text())['conditions']['fgsm_0.03']['n']
    assert not list(workdir.rglob('*.tmp'))


def test_full_while_records_are_written(beeps, small_disk):
    disk = small_disk(700)
    asked = ('tfds_builders.build', 'csv_corpus/beeps', f'--data_dir={disk}')
    result = run(*asked, SER_JAX_MANUAL_DIR=beeps['manual_dir'])
    assert result.returncode == 1
    assert re.search(FULL, result.stderr), result.stderr
    assert 'Traceback' not in result.stderr
    assert not [path for path in disk.rglob('*') if path.is_file() and path.suffix != '.lock']
    subprocess.run(['mount', '-o', 'remount,size=64m', str(disk)], check=True)
    result = run(*asked, SER_JAX_MANUAL_DIR=beeps['manual_dir'])
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize('damage', ['truncated', 'head', 'middle', 'metadata'])
def test_damaged_records_are_noticed(beeps, tmp_path, damage):
    shutil.copytree(beeps['data_dir'], tmp_path / 'records')
    folder = tmp_path / 'records' / 'csv_corpus' / 'beeps' / 'log_mel' / '1.0.0'
    doctor = (
        'tfds_builders.doctor',
        'csv_corpus/beeps',
        '--records',
        f'--data_dir={tmp_path / "records"}',
    )
    assert run(*doctor).returncode == 0
    shard = (
        folder / 'metadata.json' if damage == 'metadata' else next(folder.glob('*array_record*'))
    )
    content = bytearray(shard.read_bytes())
    if damage == 'truncated':
        del content[-1000:]
    elif damage == 'head':
        content[100] ^= 1
    else:  # the middle of the records: those of a small corpus begin at 64 KiB
        content[len(content) // 2 if damage == 'metadata' else 100_000] ^= 1
    shard.write_bytes(content)
    result = run(*command(tmp_path / 'records', tmp_path / 'run'))
    assert result.returncode == 1
    told = result.stderr.splitlines()[-1]
    assert told.startswith('error: ')
    assert str(folder) in told
    assert 'Traceback' not in result.stderr
    result = run(*doctor)
    assert result.returncode == 1
    assert f'{shard.name} does not match its checksum' in result.stdout


def test_skipped_steps_are_counted(beeps, tmp_path, monkeypatch):
    from configs.mtl_aug import get_config
    from ser_jax import train
    from ser_jax.data import batches as data

    config = get_config('csv_corpus/beeps,smoke')
    config.data.data_dir = beeps['data_dir']
    config.update(steps=4, eval_every=2)
    whole = data.TrainBatches.__getitem__

    def poisoned(batches, step):
        batch = whole(batches, step)
        if step == 1:
            batch['log_mel'] = np.full_like(batch['log_mel'], np.inf)
        return batch

    monkeypatch.setattr(data.TrainBatches, '__getitem__', poisoned)
    train.train_and_evaluate(config, tmp_path / 'run')
    assert [row['skipped_steps'] for row in metrics(tmp_path / 'run')] == [1, 1]


def test_too_many_steps_without_a_finite_gradient(beeps, tmp_path):
    workdir = tmp_path / 'run'
    more = ('--config.optimiser.learning_rate=1e30', '--config.skipped_steps=15')
    result = run(*command(beeps['data_dir'], workdir, *more))
    assert result.returncode == 1
    told = result.stderr.splitlines()[-1]
    assert (
        'error: training diverged: no finite gradient of the phase multitask in the last ' in told
    )
    ids = told.rpartition('saw: ')[2].split(', ')
    assert len(ids) > 4
    assert all(re.fullmatch(r's\d_[a-z]+_\d', name) for name in ids)
    assert not (workdir / 'results.json').exists()


@pytest.mark.parametrize('victim', [0, 1])
def test_a_lost_process_ends_the_others(beeps, tmp_path, victim):
    workdir = tmp_path / 'run'
    asked = command(beeps['data_dir'], workdir, '--config.steps=2000')
    started = start_two(*asked)
    wait_for(started[0][1], f'step {2 * EVERY}/')
    started[victim][0].kill()
    other, lines = started[1 - victim]
    begin = time.monotonic()
    assert other.wait(timeout=120) not in (0, None)
    assert time.monotonic() - begin < 60
    said = ''.join(rest(lines))
    assert 'another process of this run is gone' in said or 'distributed service' in said, said

    found = []
    for devices in (1, 2, 4):  # what was saved by two processes goes on anywhere
        copy = tmp_path / str(devices)
        shutil.copytree(workdir, copy)
        more = (f'--workdir={copy}', '--config.steps=2000')
        process, lines = start(
            *command(beeps['data_dir'], copy, *more),
            **simulated(devices),
        )
        wait_for(lines, r'goes on from step \d+\n')
        before = len(metrics(copy))
        while len(metrics(copy)) <= before:
            assert process.poll() is None, rest(lines)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found.append(metrics(copy)[before]['loss'])
    np.testing.assert_allclose(found, found[0], atol=1e-4)
