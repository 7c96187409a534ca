"""Storing the runs of a grid, and checking that tables and cards follow from stored predictions."""

import json
import re
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from conftest import ROOT
from grids import fake_result, write_grid

from ser_jax.grid import __main__ as command
from ser_jax.grid import plan, store
from ser_jax.runs import finished, stored
from ser_jax.runtime.errors import UserError

GRID = {
    'settings': {'s': {'argument': 'demo_speech'}},
    'variants': {'base': {'argument': 'single_task'}, 'full': {}},
    'seeds': (0, 1),
    'baseline': 'base',
}
CONDITIONS = 'clean', 'noise_rain_5db'
# Their check takes more than a few seconds.
LARGE = 'mtl_aug', 'cross_corpus', 'ravdess'
STORED = sorted(path.parent for path in (ROOT / 'results').glob('*/cards.jsonl'))


@pytest.fixture
def grid(tmp_path, monkeypatch):
    """A grid in a clone of its own, so that its file is found by name."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'made').mkdir()
    monkeypatch.chdir(tmp_path)
    path = write_grid(tmp_path / 'made/g.py', **GRID)
    monkeypatch.setattr(store, 'read_grid', lambda folder: plan.read_grid(str(path)))
    return plan.read_grid(str(path))


def finish(grid, workdir, runs=slice(None), **fields):
    for run in grid.runs[runs]:
        hits = 4 + run.seed + 2 * (run.variant == 'full')
        fake_result(workdir, run, hits, **{'conditions': CONDITIONS, **fields})


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_stored_grid_has_the_tables_of_its_folder(tmp_path, grid, capsys):
    work, kept = tmp_path / 'work', tmp_path / 'g'
    finish(grid, work)
    flags = '--config=made/g.py', f'--workdir={work}'
    assert command.main([*flags, '--store=g']) == 0
    assert capsys.readouterr().out.endswith('figures: 4 of 4 runs are finished\n')
    assert sorted(content(kept)) == [
        'cards.jsonl',
        'predictions.npz',
        'rows.csv',
        'table.md',
        'table.png',
    ]
    (work / 'grid.json').write_text('{}')
    assert command.main([*flags, '--table']) == 0
    for name in ('table.md', 'rows.csv'):
        assert (kept / name).read_bytes() == (work / name).read_bytes()
    assert command.main(['--check', 'g']) == 0
    run = grid.runs[-1]
    line = finished.read_command(kept / run.folder)
    assert line.startswith('python -m ser_jax.main --config=')
    assert '--config.seed=1' in line
    assert '--workdir' not in line


def test_runs_are_added_without_the_others(tmp_path, grid):
    finish(grid, tmp_path / 'all')
    store.store(grid, tmp_path / 'all', tmp_path / 'whole')
    finish(grid, tmp_path / 'first', slice(3))
    finish(grid, tmp_path / 'second', slice(3, 4))
    assert store.store(grid, tmp_path / 'first', tmp_path / 'g').startswith('3 of 4')
    assert store.store(grid, tmp_path / 'second', tmp_path / 'g').startswith('4 of 4')
    assert content(tmp_path / 'g') == content(tmp_path / 'whole')
    (tmp_path / 'g/table.md').unlink()
    store.store(grid, tmp_path / 'g', tmp_path / 'g')  # the tables again
    assert content(tmp_path / 'g') == content(tmp_path / 'whole')
    finish(grid, tmp_path / 'third', slice(0, 4, 2), n=21)  # replaces both seeds of a variant
    store.store(grid, tmp_path / 'third', tmp_path / 'g')
    numbers = [
        finished.read_card(tmp_path / 'g' / run.folder)['conditions']['clean']['n']
        for run in grid.runs
    ]
    assert numbers == [21, 24, 21, 24]


def without_a_line(path):
    path.write_text(''.join(path.read_text().splitlines(keepends=True)[:-1]))


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ('name', 'damage', 'message'),
    [
        ('results.json', cut, 'results.json is not what ser_jax writes'),
        ('predictions/clean.csv', Path.unlink, 'cannot read predictions from'),
        ('predictions/clean.csv', cut, 'cannot read predictions from'),
        ('predictions/clean.csv', without_a_line, 'clean has 23 predictions, results.json 24'),
    ],
)
def test_a_damaged_run_is_not_stored(tmp_path, grid, name, damage, message):
    work, kept = tmp_path / 'work', tmp_path / 'g'
    finish(grid, work)
    store.store(grid, work, kept)
    before = content(kept)
    damage(work / grid.runs[-1].folder / name)
    with pytest.raises(UserError, match=re.escape(message)):
        store.store(grid, work, kept)
    assert content(kept) == before


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'config': {'steps': 399}}, 'steps is 399 there, 400 in this one'),
        ({'seed': 7}, 'seed is 7 there, 0 in this one'),
    ],
)
def test_runs_of_another_grid_are_not_stored(tmp_path, grid, fields, message):
    finish(grid, tmp_path / 'work', slice(1), config={'steps': 400, 'gone_since': 1})
    store.store(grid, tmp_path / 'work', tmp_path / 'g')
    finish(grid, tmp_path / 'other', slice(1), **fields)
    with pytest.raises(UserError, match=f'is of another grid: {message}'):
        store.store(grid, tmp_path / 'other', tmp_path / 'g')
    smaller = write_grid(tmp_path / 'made/h.py', **GRID | {'seeds': (1,)})
    finish(grid, tmp_path / 'one', slice(2, 4))
    with pytest.raises(UserError, match='g holds s/base/seed0, which is not in the grid h'):
        store.store(plan.read_grid(str(smaller)), tmp_path / 'one', tmp_path / 'g')


def test_missing_runs_are_one_line(tmp_path, grid, capsys):
    for flags, message in (
        (['--config=made/g.py', '--workdir=none', '--store=g'], 'none holds no finished run of'),
        (['--check', 'none'], 'none holds no cards.jsonl: no stored runs'),
        (['--pages', 'none.md'], 'cannot read none.md'),
    ):
        assert command.main(flags) == 1
        shown = capsys.readouterr()
        assert message in shown.out + shown.err
    assert not (tmp_path / 'g').exists()


@pytest.fixture
def kept(tmp_path, grid):
    """A stored grid."""
    finish(grid, tmp_path / 'work')
    store.store(grid, tmp_path / 'work', tmp_path / 'g')
    return tmp_path / 'g'


def changed(folder, change):
    """Rewrites the predictions after `change(arrays)`."""
    path = folder / 'predictions.npz'
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    high, low = arrays['0/probabilities'].astype(np.uint16)
    arrays['0/probabilities'] = 256 * high + low
    change(arrays)  # saved without dividing it into bytes again, as older files are
    np.savez_compressed(path, **arrays)


def another_class(arrays):
    own = arrays['0/predicted'][0, 0]
    arrays['0/predicted'][0, 0] = (own + 1) % 3
    arrays['0/probabilities'][0, 0] = np.roll(arrays['0/probabilities'][0, 0], 1)


def another_probability(arrays):
    arrays['0/probabilities'][2, 5, 0] += 300


def less_certain(arrays):
    """The same classes."""
    arrays['0/probabilities'][:, :, :] = 19661  # 0.3
    np.put_along_axis(arrays['0/probabilities'], arrays['0/predicted'][..., None], 26213, 2)


def another_label(arrays):
    arrays['0/label'][0] = (arrays['0/label'][0] + 1) % 3


def a_class_too_many(arrays):
    arrays['0/predicted'][0, 0] = 3


def no_labels(arrays):
    del arrays['0/label']


def objects(arrays):
    arrays['0/id'] = arrays['0/id'].astype(object)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (another_class, 's/base/seed0, clean: uar is '),
        (another_class, 's/base/seed0, clean: confusion is '),
        (another_class, ': s, clean, full: p is '),
        (another_class, 'table.md:8 is '),
        (less_certain, 's/full/seed1, clean: ece is 7.5 in cards.jsonl, 47.5 from predictions.npz'),
        (another_label, 's/full/seed1, noise_rain_5db: recall is '),
        (another_probability, 's/full/seed0/clean, u05: its probabilities do not sum to 1'),
        (a_class_too_many, 'set 0: class index out of range'),
        (no_labels, "is not what ser_jax writes: 'label'"),
        (objects, 'is not what ser_jax writes: Object arrays cannot be loaded'),
    ],
)
def test_changed_predictions_fail_the_check(kept, capsys, change, message):
    changed(kept, change)
    assert command.main(['--check', 'g']) == 1
    shown = capsys.readouterr()
    assert message in shown.out + shown.err


def test_a_damaged_file_fails_the_check(kept, capsys):
    cut(kept / 'predictions.npz')
    assert command.main(['--check', 'g']) == 1
    assert 'predictions.npz is not what ser_jax writes' in capsys.readouterr().out
    (kept / 'predictions.npz').unlink()
    assert command.main(['--check', 'g']) == 1
    assert 'predictions.npz has no s/base/seed0/clean' in capsys.readouterr().out


def test_changed_tables_and_cards_fail_the_check(kept, capsys):
    before = content(kept)
    for name, old, new, message in (
        ('table.md', 'full', 'fall', 'table.md:8 is '),
        ('rows.csv', 's,clean,full,', 's,clean,fuller,', 'variant is fuller, not full'),
        ('cards.jsonl', '"n":24', '"n":25', 's/base/seed0, clean: n is 25 in cards.jsonl, 24'),
    ):
        (kept / name).write_text(before[name].decode().replace(old, new, 1))
        assert command.main(['--check', 'g']) == 1, name
        out = capsys.readouterr().out
        assert message in out
        assert ('s/base: its seeds differ in n under clean' in out) == (name == 'cards.jsonl')
        (kept / name).write_bytes(before[name])
    assert command.main(['--check', 'g']) == 0


def test_the_last_digit_of_a_p_value_is_checked(kept):
    (kept / 'rows.csv').write_text(
        re.sub(r',(0\.\d{5})\d*,', r',\1,', (kept / 'rows.csv').read_text(), count=1)
    )
    assert any('rows.csv' in line for line in store.check(kept))


@pytest.mark.parametrize(
    'folder',
    [
        pytest.param(path, marks=[pytest.mark.slow] * (path.name in LARGE), id=path.name)
        for path in STORED
    ],
)
def test_every_number_of_results_follows_from_the_predictions(folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert store.check(folder) == []


def test_results_are_small():
    files = [path for path in (ROOT / 'results').rglob('*') if path.is_file()]
    assert len(files) <= 200
    assert sum(path.stat().st_size for path in files) < 12e6
    for path in files:
        if path.suffix == '.png':
            assert path.stat().st_size <= 150_000, path


def test_figures_are_reduced_to_few_colours(tmp_path):
    path, stripes = tmp_path / 'x.png', np.zeros((64, 64, 3), np.uint8)
    stripes[::2], stripes[1::4] = (0, 114, 178), (213, 94, 0)
    matplotlib.image.imsave(path, stripes)
    store.shrink(path)
    again = (255 * matplotlib.image.imread(path)[..., :3]).round().astype(int)
    np.testing.assert_array_equal(again, stripes)
    noise = np.random.default_rng(0).integers(0, 255, (480, 480, 3), np.uint8)
    matplotlib.image.imsave(path, noise)
    store.shrink(path)
    assert path.stat().st_size < 150_000


def test_a_copied_grid_still_stores(tmp_path, kept):
    """The stored folder is all that later additions need."""
    shutil.copytree(kept, tmp_path / 'copy')
    lines = (tmp_path / 'copy/cards.jsonl').read_text().splitlines()
    assert [json.loads(line)['run'] for line in lines] == stored.read(tmp_path / 'copy').names
