"""The general model: what its choices look at, its temperature, and the folder that is shipped."""

import numpy as np
import pytest
from runs_on_disk import make_predictions, write_run

from ser_jax import general
from ser_jax.evaluation.calibration import fit_temperature
from ser_jax.grid import plan
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import write_json
from ser_jax.runtime.schema import read_json

EMOTIONS = ['angry', 'happy', 'neutral', 'sad']


@pytest.fixture(scope='module')
def grid():
    return plan.read_grid(general.GRID)


@pytest.fixture(scope='module')
def tested(grid, tmp_path_factory):
    """The folder of the finished grid: only the runs without EMO-DB prefer probe_views, the others probe."""
    folder = tmp_path_factory.mktemp('general')
    for number, run in enumerate(grid.runs):
        alone = 'emodb' not in (run.config.corpus, *run.config.labelled)
        best = run.variant == ('probe_views' if alone else 'probe')
        found = make_predictions(number, skill=0.6 if best else 0.1, labels=EMOTIONS)
        changes = {'corpus': run.config.corpus, 'trained_on': list(run.config.labelled)}
        write_run(folder / run.folder, found, labels=EMOTIONS, **changes)
    return folder


@pytest.mark.parametrize('left_out', ['emodb', 'ravdess', 'nemo'])
def test_a_choice_never_looks_at_the_corpus_that_is_left_out(grid, left_out):
    runs = general.inner(grid.runs, left_out)
    assert runs
    for run in runs:
        assert left_out not in (run.config.corpus, *run.config.labelled)
    assert {run.variant for run in runs} == {run.variant for run in grid.runs}


def test_choices_are_nested(grid, tested):
    assert general.choose(grid.runs, tested, 'emodb') == 'probe_views'
    assert general.choose(grid.runs, tested, 'nemo') == 'probe'
    assert general.choose(grid.runs, tested) == 'probe'


def test_the_temperature_is_fitted_on_the_same_runs(grid, tested):
    runs = [run for run in general.inner(grid.runs, 'nemo') if run.variant == 'probe']
    assert {run.setting for run in runs} == {'emodb_from_ravdess', 'ravdess_from_emodb'}
    found = [general.read_condition(tested / run.folder, 'clean')[0] for run in runs]
    expected = fit_temperature(
        np.concatenate([one.probabilities for one in found]),
        np.concatenate([one.label for one in found]),
    )
    assert general.fit(grid.runs, tested, 'probe', 'nemo') == (
        expected,
        sum(len(one.id) for one in found),
    )


def test_the_last_run_trains_on_all_corpora_and_tests_another(grid):
    run = general.last_run(grid.runs, 'probe')
    assert run.config.corpus == 'urdu'
    assert run.config.labelled == ('emodb', 'ravdess', 'nemo')
    assert run.config.final
    assert run.config.conditions
    assert run.folder == 'urdu_from_emodb_ravdess_nemo/probe/seed0'


def test_code_that_is_not_committed_ships_nothing(grid, tested, tmp_path):
    run = general.last_run(grid.runs, 'probe_views')
    found = make_predictions(99, labels=EMOTIONS)
    write_run(tested / run.folder, found, labels=EMOTIONS, commit='abc+changes')
    with pytest.raises(UserError, match='not committed'):
        general.pack(grid.runs, tested, run, tmp_path / 'general')
    assert not (tmp_path / 'general').exists()


def test_what_is_shipped(grid, tested, tmp_path, monkeypatch):
    run = general.last_run(grid.runs, 'probe_views')
    source = tested / run.folder
    changes = {'corpus': 'urdu', 'trained_on': ['emodb', 'ravdess', 'nemo']}
    write_run(source, make_predictions(99, labels=EMOTIONS), labels=EMOTIONS, **changes)
    write_json(source / 'config.json', {'model': {'name': 'probe'}})
    write_json(source / 'checkpoints' / 'final' / 'summary.json', {})
    Checkpoints(source / 'checkpoints' / 'final' / 'best').save(1, {'w': np.ones(3, np.float32)})
    out = tmp_path / 'general'
    out.mkdir()
    (out / 'LICENCE.md').write_text('written by hand')
    general.pack(grid.runs, tested, run, out)
    assert (out / 'LICENCE.md').read_text() == 'written by hand'
    calibration = read_json(out / 'results.json', dict)['calibration']['clean']
    expected = general.fit(grid.runs, tested, 'probe_views')
    assert (calibration['temperature'], calibration['n_validation']) == expected
    np.testing.assert_array_equal(
        Checkpoints(out / 'checkpoints' / 'final' / 'best', read_only=True).restore()['w'], 1
    )
    lines = (out / 'table.md').read_text().splitlines()
    assert [line.split(' | ')[0] for line in lines[4:]] == [
        '| emodb (German)',
        '| ravdess (English)',
        '| nemo (Polish)',
        '| urdu (Urdu)',
    ]
    assert 'probe_views' in lines[4]
    assert '| probe |' in lines[5]
    monkeypatch.setattr(general, 'MOST_BYTES', 10)
    with pytest.raises(UserError, match='bytes, more than 10'):
        general.pack(grid.runs, tested, run, out)
    assert (out / 'table.md').exists()
    assert [path.name for path in tmp_path.iterdir()] == ['general']
