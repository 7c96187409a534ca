"""Stored runs: what is written is read back, and a path inside the folder stands for a run."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from cards import LABELS, card, predictions, store, take, unpack

from ser_jax import report
from ser_jax.evaluation import compare
from ser_jax.runs import finished, stored
from ser_jax.runs.predictions import Predictions
from ser_jax.runtime.errors import UserError


def test_classes_and_probabilities_are_read_back(tmp_path):
    whole = predictions()
    close = np.array(whole.probabilities)
    close[:, 1] = np.nextafter(close[:, 0], np.float32(1))  # one step of float32 apart
    close[0] = (0.5, 0.5, 0, 0)
    made = {
        'clean': whole,
        'gain_-20': dataclasses.replace(whole, probabilities=close / close.sum(1, keepdims=True)),
        'pgd_0.1': take(whole, np.arange(20)[::-1]),
    }
    clean = card()['conditions']['clean']
    store(tmp_path, {'s/full/seed0': (card(conditions=dict.fromkeys(made, clean)), made)})
    with np.load(tmp_path / 'predictions.npz') as file:
        assert {name.partition('/')[0] for name in file.files} == {'0', '1'}  # two sets
        assert file['0/results'].tolist() == ['s/full/seed0/clean', 's/full/seed0/gain_-20']
        assert file['0/probabilities'].dtype == np.uint8
        assert file['0/probabilities'].shape[0] == 2
    for condition, written in made.items():
        found, labels = finished.read_condition(tmp_path / 's/full/seed0', condition)
        expected = take(written, np.argsort(written.id))
        assert labels == LABELS
        for name in ('id', 'fold', 'speaker', 'label', 'prediction'):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=0.5001 / 65535)
        assert not found.rated


def test_writing_what_was_read_changes_nothing(tmp_path):
    runs = {f'full{seed}': (card(seed), {'clean': predictions(seed)}) for seed in range(3)}
    store(tmp_path / 'a', runs)
    kept = stored.read(tmp_path / 'a')
    stored.write(tmp_path / 'b', {name: kept.run(name) for name in kept.names})
    for name in ('cards.jsonl', 'predictions.npz'):
        assert (tmp_path / 'a' / name).read_bytes() == (tmp_path / 'b' / name).read_bytes()


def test_ratings_are_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    level = rng.integers(4, size=30)
    written = Predictions(
        [f'{row:02d}' for row in range(30)],
        ['f'] * 30,
        ['a'] * 30,
        rng.integers(4, size=30),
        np.eye(4)[level],
        rng.uniform(1, 5, 30),
        rng.uniform(1, 5, 30),
    )
    store(tmp_path, {'run': (card(), {'clean': written})})
    found, _ = finished.read_condition(tmp_path / 'run', 'clean')
    assert found.rated
    for name in ('rating', 'predicted_rating', 'probabilities'):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))


@pytest.fixture
def folder(tmp_path):
    """Two systems of two seeds."""
    runs = {
        f'{name}/seed{seed}': (
            card(seed, system=name, config_hash=name),
            {'clean': dataclasses.replace(predictions(), probabilities=drawn.probabilities)},
        )
        for number, name in enumerate(('full', 'base'))
        for seed, drawn in enumerate(predictions(9 * number + k) for k in range(2))
    }
    store(tmp_path / 'kept', runs)
    return tmp_path / 'kept'


def test_stored_runs_are_compared_like_run_directories(tmp_path, folder):
    sides = [[f'{name}/seed{seed}' for seed in range(2)] for name in ('full', 'base')]
    for name in (*sides[0], *sides[1]):
        unpack(folder / name, tmp_path / 'unpacked' / name)
    one, other = (
        compare.compare_runs(*([root / name for name in side] for side in sides), replicates=300)
        for root in (folder, tmp_path / 'unpacked')
    )
    for result in (one, other):
        for side in 'ab':
            del result[side]['workdirs']
    assert one == other


def test_report_shows_a_stored_run(folder, tmp_path, capsys):
    assert (
        report.main(['--workdir', str(folder / 'full/seed0'), '--html', str(tmp_path / 'x.html')])
        == 0
    )
    assert 'full on emodb' in capsys.readouterr().out
    assert '--config.seed=0' in (tmp_path / 'x.html').read_text()
    with pytest.raises(SystemExit, match='seed7 holds no results'):
        report.main(['--workdir', str(folder / 'full/seed7')])


def test_runs_are_listed(tmp_path, folder):
    names = 'base/seed0', 'base/seed1', 'full/seed0', 'full/seed1'
    assert finished.list_runs(folder) == [folder / name for name in names]
    unpack(folder / names[0], tmp_path / 'unpacked/x')
    assert finished.list_runs(tmp_path / 'unpacked') == [tmp_path / 'unpacked/x']


def test_the_card_is_the_callers_own(folder):
    finished.read_card(folder / 'full/seed0')['conditions'].clear()
    assert 'clean' in finished.read_card(folder / 'full/seed0')['conditions']


def test_new_files_are_read(tmp_path, folder):
    before = stored.read(folder).names
    shutil.rmtree(folder)
    store(folder, {'x': (card(), {'clean': predictions()})})
    assert stored.read(folder).names == ['x'] != before


def test_runs_that_were_not_tested_have_no_predictions(tmp_path):
    validation = {
        'uar': 0.5,
        'folds': [{'fold': 'a', 'validation_speakers': [], 'n': 1, 'uar': 0.5}],
    }
    store(tmp_path / 'x', {'run': (card(validation=validation) | {'conditions': {}}, {})})
    assert [path.name for path in (tmp_path / 'x').iterdir()] == ['cards.jsonl']
    assert stored.read(tmp_path / 'x').run('run').predictions == {}


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('{', 'cards.jsonl is not what ser_jax writes'),
        ('[]', 'cards.jsonl is not what ser_jax writes'),
        ('{"run": "x", "command": ""}', 'it lacks card'),
        ('{"run": "full/seed0", "command": "", "card": {}}', 'lists a run twice'),
        ('{"run": "x", "command": "", "card": {}}', 'cards.jsonl, x, is not what ser_jax writes'),
    ],
)
def test_malformed_cards_are_one_line(folder, line, message):
    path = folder / 'cards.jsonl'
    path.write_text(f'{path.read_text()}{line}\n')
    with pytest.raises(UserError, match=message) as error:
        finished.read_card(folder / 'x')
    assert '\n' not in str(error.value)


def test_hostile_names_in_a_stored_card_are_refused(folder):
    path = folder / 'cards.jsonl'
    line = json.loads(path.read_text().splitlines()[0])
    line['card']['conditions'] = {'../x': line['card']['conditions']['clean']}
    path.write_text(json.dumps(line) + '\n')
    with pytest.raises(UserError, match='is not a file name'):
        finished.read_card(folder / line['run'])
