"""Checkpoints are restored bit for bit, or refused."""

import re
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError


@pytest.fixture
def tree():
    rng = np.random.default_rng(0)
    values = {'step': np.int32(7), 'params': {'kernel': rng.standard_normal((5, 3), np.float32)}}
    return devices.replicate(values, devices.make_mesh())


def test_round_trip_into_a_new_manager(tmp_path, tree):
    Checkpoints(tmp_path / 'latest').save(7, tree)
    again = Checkpoints(tmp_path / 'latest')
    assert again.step == 7
    jax.tree.map(np.testing.assert_array_equal, again.restore(tree), tree)


def test_two_newest_are_kept(tmp_path, tree):
    checkpoints = Checkpoints(tmp_path / 'latest')
    for step in (1, 2, 3):
        checkpoints.save(step, tree)
    assert checkpoints.step == 3
    assert sorted(p.name for p in (tmp_path / 'latest').iterdir()) == ['2', '3']


def test_interrupted_save_is_ignored(tmp_path, tree):
    checkpoints = Checkpoints(tmp_path / 'latest')
    checkpoints.save(1, tree)
    checkpoints.save(2, tree)
    (tmp_path / 'latest' / '2' / 'sha256.json').unlink()
    again = Checkpoints(tmp_path / 'latest')
    assert again.step == 1
    again.save(2, tree)
    assert again.step == 2
    again.keep_newest()
    assert [p.name for p in (tmp_path / 'latest').iterdir()] == ['2']


def test_saving_a_step_twice(tmp_path, tree):
    checkpoints = Checkpoints(tmp_path / 'latest')
    checkpoints.save(1, tree)
    Checkpoints(tmp_path / 'latest').save(1, tree)
    jax.tree.map(
        np.testing.assert_array_equal, Checkpoints(tmp_path / 'latest').restore(tree), tree
    )


def test_flipped_byte_and_missing_checkpoint_are_refused(tmp_path, tree):
    checkpoints = Checkpoints(tmp_path / 'latest')
    with pytest.raises(UserError, match='no checkpoint'):
        checkpoints.restore(tree)
    checkpoints.save(1, tree)
    files = [
        p for p in (tmp_path / 'latest' / '1').rglob('*') if p.is_file() and 'sha256' not in p.name
    ]
    largest = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[0] ^= 1
    largest.write_bytes(content)
    with pytest.raises(UserError, match='damaged'):
        checkpoints.restore(tree)


def test_damaged_and_later_checkpoints_are_set_aside(tmp_path, tree, capsys):
    folder = tmp_path / 'latest'
    checkpoints = Checkpoints(folder)
    checkpoints.save(1, tree)
    checkpoints.save(2, tree)
    (folder / '2' / 'sha256.json').write_text('[')
    again = Checkpoints(folder)
    assert again.intact_steps() == [1]
    assert (
        capsys.readouterr().err == f'warning: checkpoint {folder / "2"} is damaged (sha256.json)\n'
    )
    again.go_back_to(1)
    assert sorted(path.name for path in folder.iterdir()) == ['1', 'left_2']
    assert again.step == 1
    again.save(2, tree)
    assert again.intact_steps() == [2, 1]


def test_extra_arrays_round_trip(tmp_path, tree):
    checkpoints = Checkpoints(tmp_path / 'latest')
    checkpoints.save(1, tree)
    checkpoints.save(2, tree, {'loss': np.arange(3.0)})
    assert checkpoints.read_extra(1) == {}
    np.testing.assert_array_equal(checkpoints.read_extra(2)['loss'], np.arange(3.0))


def test_full_disk_is_detected_before_writing(tmp_path, tree, monkeypatch):
    checkpoints = Checkpoints(tmp_path / 'latest')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: SimpleNamespace(total=2**30, free=2**18))
    with pytest.raises(OSError, match='No space left'):
        checkpoints.save(1, tree)
    assert not list((tmp_path / 'latest').iterdir())


@pytest.mark.parametrize('name', ['a [1]', 'a\\b'])
def test_folders_that_orbax_does_not_find_are_named(tmp_path, name):
    with pytest.raises(UserError, match=re.escape(f'below {name!r}: rename it')):
        Checkpoints(tmp_path / name / 'latest')


def test_folders_with_other_characters(tmp_path, tree):
    folder = tmp_path / "ü #%20 *?'[;:@{a}$HOME" / 'latest'
    Checkpoints(folder).save(7, tree)
    jax.tree.map(np.testing.assert_array_equal, Checkpoints(folder).restore(tree), tree)
