"""Full disks, damaged records and gradients that are not finite, in real runs."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import metrics, run
from runs_on_disk import assert_same, command
from trees import call

from ser_jax import train
from ser_jax.runtime.errors import UserError
from tfds_builders import doctor

FULL = r'error: no room left on the disk: [^\n]+; make room, and give the same command again\n$'


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a file system of a size in KiB; returns its folder."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = []

    def mount(size):
        asked = ['mount', '-t', 'tmpfs', '-o', f'size={size}k', 'tmpfs', str(folder)]
        if shutil.which('mount') is None or subprocess.run(asked, capture_output=True).returncode:
            pytest.skip('mounting a small file system is not permitted')
        mounted.append(folder)
        return folder

    yield mount
    for place in mounted:
        subprocess.run(['umount', '-l', str(place)], check=True)


def enlarge(disk):
    subprocess.run(['mount', '-o', 'remount,size=64m', str(disk)], check=True)


def fill(folder):
    """Leaves no room on the disk of a folder; returns the file that takes it."""
    path = folder / 'filler'
    with path.open('wb', buffering=0) as file:
        for size in (2**16, 2**12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


def content_of(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def finds_no_room(*arguments, **environment):
    """Runs a command that ends with one line on the full disk."""
    result = run(*arguments, **environment)
    assert result.returncode == 1
    assert re.search(FULL, result.stderr), result.stderr
    assert 'Traceback' not in result.stderr


def unchanged(path):
    """Whether a run on a full disk may not touch a file: metrics and the latest checkpoint are rewritten."""
    return path.suffix != '.jsonl' and path.name != '.lock' and 'latest' not in path.parts


@pytest.mark.slow
def test_a_full_disk_in_training(beeps, small_disk, undisturbed):
    """First at a checkpoint, then at the metrics of the resumed run."""
    disk = small_disk(900)
    workdir = disk / 'run'
    finds_no_room(*command(beeps, workdir))
    assert list(workdir.glob('checkpoints/fold_01/latest/*'))
    enlarge(disk)
    before, filler = content_of(workdir), fill(disk)
    finds_no_room(*command(beeps, workdir))
    for path, content in before.items():
        assert not unchanged(path) or path.read_bytes() == content, path
    filler.unlink()
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert_same(workdir, undisturbed)
    assert not list(workdir.rglob('*.tmp'))


@pytest.mark.slow
def test_a_full_disk_in_testing(beeps, small_disk, undisturbed):
    disk = small_disk(2**14)
    workdir = disk / 'run'
    shutil.copytree(undisturbed, workdir)
    before, filler = content_of(workdir), fill(disk)
    asked = command(beeps, workdir, "--config.conditions=('fgsm(0.03)',)")
    finds_no_room(*asked)
    for path, content in before.items():
        assert not unchanged(path) or path.read_bytes() == content, path
    filler.unlink()
    result = run(*asked)
    assert result.returncode == 0, result.stderr
    assert json.loads((workdir / 'results.json').read_text())['conditions']['fgsm_0.03']['n']
    assert not list(workdir.rglob('*.tmp'))


@pytest.mark.slow
def test_a_full_disk_in_a_build(beeps, small_disk):
    disk = small_disk(700)
    asked = ('tfds_builders.build', 'csv_corpus/beeps', f'--data_dir={disk}')
    environment = {'SER_JAX_MANUAL_DIR': beeps['manual_dir']}
    finds_no_room(*asked, **environment)
    assert not [path for path in disk.rglob('*') if path.is_file() and path.suffix != '.lock']
    enlarge(disk)
    result = run(*asked, **environment)
    assert result.returncode == 0, result.stderr


@pytest.fixture
def config(beeps):
    from configs.mtl_aug import get_config

    config = get_config('csv_corpus/beeps,smoke')
    config.data.data_dir = beeps['data_dir']
    return config


@pytest.mark.parametrize(
    'damage',
    ['truncated', 'head', pytest.param('middle', marks=pytest.mark.slow), 'metadata'],
)
def test_damaged_records_are_detected(config, tmp_path, damage):
    data_dir = tmp_path / 'records'
    shutil.copytree(config.data.data_dir, data_dir)
    config.data.data_dir = str(data_dir)
    examine = lambda: call(
        tmp_path, doctor, 'csv_corpus/beeps', '--records', f'--data_dir={data_dir}'
    )
    assert examine()[0] == 0
    folder = data_dir / 'csv_corpus' / 'beeps' / 'log_mel' / '1.0.0'
    metadata = damage == 'metadata'
    shard = folder / 'metadata.json' if metadata else next(folder.glob('*array_record*'))
    content = bytearray(shard.read_bytes())
    if damage == 'truncated':
        del content[-1000:]
    elif damage == 'head':
        content[100] ^= 1
    else:  # the middle of the records: those of a small corpus begin at 64 KiB
        content[len(content) // 2 if metadata else 100_000] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(folder))) as error:
        train.train_and_evaluate(config, tmp_path / 'run')
    assert '\n' not in str(error.value)
    status, out, _ = examine()
    assert status == 1
    assert f'{shard.name} does not match its checksum' in out


@pytest.mark.slow
def test_skipped_steps_are_counted(config, tmp_path, monkeypatch):
    from ser_jax.data.batches import TrainBatches

    config.update(steps=4, eval_every=2)
    whole = TrainBatches.__getitem__

    def poisoned(batches, step):
        batch = whole(batches, step)
        if step == 1:
            batch['log_mel'] = np.full_like(batch['log_mel'], np.inf)
        return batch

    monkeypatch.setattr(TrainBatches, '__getitem__', poisoned)
    train.train_and_evaluate(config, tmp_path / 'run')
    assert [row['skipped_steps'] for row in metrics(tmp_path / 'run')] == [1, 1]


@pytest.mark.slow
def test_too_many_steps_without_a_finite_gradient(beeps, tmp_path):
    workdir = tmp_path / 'run'
    more = ('--config.optimiser.learning_rate=1e30', '--config.skipped_steps=15')
    result = run(*command(beeps, workdir, *more))
    assert result.returncode == 1
    message, _, ids = result.stderr.splitlines()[-1].rpartition('saw: ')
    cause = 'error: training diverged: no finite gradient of the phase multitask in the last '
    assert cause in message
    assert len(ids.split(', ')) > 4
    assert all(re.fullmatch(r's\d_[a-z]+_\d', name) for name in ids.split(', '))
    assert not (workdir / 'results.json').exists()
