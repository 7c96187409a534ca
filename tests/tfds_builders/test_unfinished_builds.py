"""Killed, damaged and concurrent builds, and the process pool."""

import functools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT
from trees import EMODB, call, failed, loaded_modules, write_csv, write_emodb

from ser_jax.data.corpora import open_corpus
from ser_jax.data.records import corpus_folder, is_prepared
from ser_jax.prepare import open_prepared
from ser_jax.runtime.errors import UserError
from tfds_builders import build
from tfds_builders.core import base, pool, prepare


def test_killed_build_is_no_corpus(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    data_dir, started = tmp_path / 'records', tmp_path / 'started'
    code = (
        'from trees import slow_load\n'
        'from tfds_builders.core.prepare import prepare\n'
        'from tfds_builders.emodb.emodb_dataset_builder import Builder\n'
        'Builder.LOAD = staticmethod(slow_load)\n'
        f'prepare("emodb", manual_dir={str(folder)!r}, data_dir={str(data_dir)!r})\n'
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
    environment = {**os.environ, 'PYTHONPATH': paths, 'STARTED': str(started)}
    process = subprocess.Popen([sys.executable, '-c', code], env=environment)
    deadline = time.monotonic() + 60
    while not started.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (data_dir / '.building/emodb-log_mel').exists(), 'the kill came too late'
    target = corpus_folder('emodb', data_dir=data_dir, representation='log_mel')
    assert not target.exists()
    corpus = open_prepared('emodb', data_dir=data_dir, manual_dir=folder)
    assert len(corpus) == len(EMODB)
    assert not (data_dir / '.building/emodb-log_mel').exists()


@pytest.mark.parametrize('end', ['kill', 'error'])
def test_a_build_that_ends_between_its_renames_leaves_the_previous_records(
    tmp_path, end, monkeypatch
):
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    folder = write_emodb(tmp_path / 'emodb')
    data_dir = tmp_path / 'records'
    before = open_prepared('emodb', data_dir=data_dir, manual_dir=folder)
    (folder / 'wav/16b10Wb.wav').unlink()
    action = 'os.kill(os.getpid(), 9)' if end == 'kill' else 'raise OSError(28, "full", to)'
    code = (
        'import os\n'
        'from tfds_builders.core.prepare import prepare\n'
        'rename = os.rename\n'
        'def unlucky(source, to):\n'
        f'    if str(to) == {str(before.path)!r} and "replaced" not in str(source):\n'
        f'        {action}\n'
        '    rename(source, to)\n'
        'os.rename = unlucky\n'
        f'prepare("emodb", manual_dir={str(folder)!r}, data_dir={str(data_dir)!r}, rebuild=True)\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True)
    assert done.returncode == (-signal.SIGKILL if end == 'kill' else 1), done.stderr
    assert before.path.exists() == (end == 'error')
    # Neither an opening run, which finds no folder, nor a build deletes them.
    shutil.rmtree(folder)
    lines = []
    prepare.prepare('emodb', data_dir=data_dir, log=lines.append)
    assert lines == []
    assert open_corpus('emodb', data_dir=data_dir).metadata == before.metadata


@pytest.mark.parametrize('lost', ['index.npz', 'metadata.json', 'dataset_info.json', '*00001-of*'])
def test_folder_with_a_part_missing_is_not_prepared(tmp_path, monkeypatch, lost):
    monkeypatch.setattr(base, 'UTTERANCES_PER_SHARD', 3)
    folder = write_emodb(tmp_path / 'emodb')
    corpus = open_prepared('emodb', data_dir=tmp_path / 'records', manual_dir=folder)
    assert is_prepared(corpus.path)
    for path in corpus.path.glob(lost):
        path.unlink()
    assert not is_prepared(corpus.path)
    assert len(open_prepared('emodb', data_dir=tmp_path / 'records', manual_dir=folder)) == 8


def test_concurrent_builds_do_the_work_once(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    lines = []
    work = functools.partial(
        prepare.prepare,
        'emodb',
        manual_dir=folder,
        data_dir=tmp_path / 'records',
        log=lines.append,
    )
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(line.startswith('preparing') for line in lines) == 1


def test_pool_keeps_order_and_carries_no_jax():
    assert list(pool.pool_map(pow, range(100), (2,), workers=2)) == [n * n for n in range(100)]
    import jax  # the parent has it; the workers must not

    assert jax.__name__ in loaded_modules(0)
    loaded = next(pool.pool_map(loaded_modules, [0], workers=2))
    assert 'trees' in loaded
    assert not {'jax', 'tensorflow', 'librosa'} & set(loaded)


def test_scripts_without_a_main_guard_run_once(tmp_path):
    script = tmp_path / 'script.py'
    script.write_text(
        'from tfds_builders.core.pool import pool_map\n'
        'print("started")\n'
        'print(sum(pool_map(abs, range(-40, 0), workers=2)))\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    result = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == 'started\n820\n', result.stderr


def test_worker_that_dies_is_one_line():
    with pytest.raises(UserError, match='worker process was killed'):
        list(pool.pool_map(os._exit, [3] * 20, workers=2))


def test_a_data_dir_that_is_a_dangling_link(tmp_path):
    folder = write_csv(tmp_path / 'x', 'file,emotion,speaker\na.wav,sad,x\n', ['a.wav'])
    (tmp_path / 'records').symlink_to(tmp_path / 'gone')
    result = call(tmp_path, build, 'csv_corpus/x', f'--manual_dir={folder}')
    failed(result, 'records (a link that leads nowhere): name another data_dir')
