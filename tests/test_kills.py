"""Runs that are killed, damaged or started twice: the same command ends with the results of the undisturbed run."""

import functools
import random
import re
import shutil
import signal
import socket
import time

import pytest
from conftest import run
from processes import end, kill, start, wait_for, wait_until
from runs_on_disk import EVERY, assert_same, command

from ser_jax.runs.checkpoints import Checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def interrupted(beeps, tmp_path_factory):
    """A run that was killed after its checkpoint of step 40; not to be changed."""
    workdir = tmp_path_factory.mktemp('interrupted') / 'run'
    process, _ = start(*command(beeps, workdir))
    wait_until(process, (workdir / 'checkpoints/fold_01/latest/40/sha256.json').exists)
    kill(process)
    assert re.match(r'process \d+ on ', (workdir / '.lock').read_text())
    return workdir


# Ten moments in their order: the files awaited below the root, how often, and the longest delay to the kill in seconds.
# Every start repeats the earlier moments that are not done.
MOMENTS = (
    ('', 1, 1.0),  # imports
    ('records/.building/*beeps*/**/*incomplete*', 1, 0.1),  # the corpus is built
    ('run/corpora.json', 1, 0.3),
    ('run/checkpoints/fold_01/best/*', 1, 0.02),  # a checkpoint is written, or just was
    ('run/checkpoints/fold_01/latest/*', 2, 0.02),
    ('run/checkpoints/fold_02/latest/*', 1, 0.1),
    ('run/*/fold_02/gain*.json', 1, 0.1),  # evaluation
    ('run/checkpoints/final/latest/*', 1, 0.1),
    ('run/predictions/*.csv', 1, 0.02),
)


def test_killed_at_ten_moments(beeps, tmp_path):
    more = (
        '--config.folds=(1,2)',
        '--config.final=True',
        "--config.conditions=('gain(-6)', 'pgd(0.03, 2)')",
    )
    environment = {
        'SER_JAX_MANUAL_DIR': beeps['manual_dir'],
        # Not that of other tests: a kill may leave an entry half-written.
        'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled'),
    }
    whole, root = tmp_path / 'whole', tmp_path / 'killed'
    result = run(*command(beeps, whole, *more), **environment)
    assert result.returncode == 0, result.stderr

    killed = command({'data_dir': root / 'records'}, root / 'run', *more)
    for pattern, times, delay in MOMENTS:
        for _ in range(times):
            if pattern.startswith('records') and (root / 'records' / 'csv_corpus').exists():
                shutil.rmtree(root / 'records')  # the last kill came after the build
            # On a busy machine the last kill may have come after the end of the run.
            (root / 'run' / 'results.json').unlink(missing_ok=True)
            process, _ = start(*killed, **environment)
            wait_until(process, functools.partial(written_since, root, pattern, time.time()))
            time.sleep(random.uniform(0, delay))
            kill(process)
    result = run(*killed, **environment)
    assert result.returncode == 0, result.stderr
    assert_same(root / 'run', whole, folds=('fold_01', 'fold_02', 'final'))
    assert len(list((whole / 'predictions').glob('*.csv'))) == 3
    assert not list((root / 'records').rglob('*incomplete*'))


def written_since(root, pattern, begin):
    """Whether a file that matches was written after a time; always true of no pattern."""
    if not pattern:
        return True
    try:
        return any(path.stat().st_mtime > begin for path in root.glob(pattern))
    except FileNotFoundError:  # temporary files come and go
        return False


@pytest.mark.parametrize('damage', ['flipped', 'truncated', 'missing', 'no list'])
def test_every_kind_of_damage_is_detected(tmp_path, interrupted, capsys, damage):
    latest = tmp_path / 'latest'
    shutil.copytree(interrupted / 'checkpoints/fold_01/latest', latest)
    spoil(latest / '40', damage)
    assert Checkpoints(latest).intact_steps() == [20]
    assert f'warning: checkpoint {latest / "40"} is damaged (' in capsys.readouterr().err


@pytest.mark.parametrize(('kind', 'damage'), [('latest', 'truncated'), ('best', 'flipped')])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    beeps, tmp_path, interrupted, undisturbed, kind, damage
):
    """Also takes over the lock of the killed run."""
    workdir = tmp_path / 'run'
    shutil.copytree(interrupted, workdir)
    checkpoints = (workdir / 'checkpoints' / 'fold_01' / kind).glob('[0-9]*')
    folder = max(checkpoints, key=lambda path: int(path.name))
    spoil(folder, damage)
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert f'warning: checkpoint {folder} is damaged (' in result.stderr
    step = int(re.search(r'resumes from step (\d+)|$', result.stderr)[1] or 0)
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


def test_lost_metrics_are_computed_again(beeps, tmp_path, interrupted, undisturbed):
    workdir = tmp_path / 'run'
    shutil.copytree(interrupted, workdir)
    lines = (workdir / 'metrics.jsonl').read_text().splitlines(keepends=True)
    (workdir / 'metrics.jsonl').write_text(lines[0] + lines[1][:30])
    result = run(*command(beeps, workdir))
    assert result.returncode == 0, result.stderr
    assert f'resumes from step {EVERY}\n' in result.stderr
    assert_same(workdir, undisturbed)


def test_a_second_run_in_one_workdir_is_refused(beeps, tmp_path):
    workdir = tmp_path / 'run'
    first, lines = start(*command(beeps, workdir))
    wait_for(lines, f'step {EVERY}/')
    first.send_signal(signal.SIGSTOP)  # or it would end first
    second = run(*command(beeps, workdir))
    where = f'(process {first.pid} on {socket.gethostname()})'
    assert second.returncode == 1
    assert second.stderr == (
        f'error: another run is at work in {workdir} {where}: wait for it, or choose another --workdir\n'
    )
    first.send_signal(signal.SIGCONT)
    assert 'resumes from' in end(first, lines, signal.SIGTERM)
