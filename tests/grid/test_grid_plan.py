"""Grid files: the runs they describe, and one clear line for every error before anything runs."""

from pathlib import Path

import pytest
from conftest import ROOT
from grids import make_grid, write_grid

from ser_jax.grid import __main__ as command
from ser_jax.grid import plan
from ser_jax.grid.runs import check_conditions
from ser_jax.runtime.errors import UserError

DEMO = 'configs/grids/demo.py'


@pytest.fixture(autouse=True)
def _in_the_clone(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_variant_may_have_seeds_of_its_own(tmp_path):
    path = write_grid(
        tmp_path / 'own.py',
        seeds=(0, 1),
        variants={'full': {}, 'part': {'argument': ',single_task', 'seeds': (0,)}},
    )
    runs = [(run.variant, run.seed) for run in plan.read_grid(str(path)).runs]
    assert runs == [('full', 0), ('part', 0), ('full', 1)]


def test_runs_are_settings_by_variants_by_seeds():
    grid = plan.read_grid(DEMO)
    assert [run.folder for run in grid.runs] == [
        'demo_speech/full/seed0',
        'demo_speech/single_task/seed0',
        'demo_speech/full/seed1',
        'demo_speech/single_task/seed1',
    ]
    full, single, *_ = grid.runs
    assert full.config.options == ('smoke',)
    assert single.config.options == ('smoke', 'single_task')
    assert [run.config.seed for run in grid.runs] == [0, 0, 1, 1]
    assert grid.baseline == 'single_task'


def test_changes_of_the_variant_come_after_those_of_the_setting(tmp_path):
    grid = make_grid(
        tmp_path,
        settings={'s': {'argument': 'emodb', 'changes': {'steps': 5, 'batch_size': 4}}},
        variants={'v': {'argument': 'single_task', 'changes': {'steps': 7, 'folds': (1, 2)}}},
    )
    (only,) = grid.runs
    assert only.config.corpus == 'emodb'
    assert (only.config.steps, only.config.batch_size, only.config.folds) == (7, 4, (1, 2))
    assert '--config.folds=(1, 2)' in only.flags


def test_without_settings_the_corpora_are_the_settings(tmp_path):
    grid = make_grid(
        tmp_path, variants={'a': {'argument': 'emodb'}, 'b': {'argument': 'csv_corpus/x'}}
    )
    assert [run.folder for run in grid.runs] == ['emodb/a/seed0', 'csv_corpus_x/b/seed0']


CHANGE = lambda field, value: {'variants': {'v': {'changes': {field: value}}}}


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'varients': {}}, "unknown key 'varients'"),
        ({'variants': {}}, "'variants' is {}"),
        ({'variants': {'v': {'options': ()}}}, "variant 'v' has an unknown key 'options'"),
        ({'variants': {'a/b': {}}}, "variant 'a/b': names become folders"),
        ({'variants': {'v': {'argument': ('emodb',)}}}, 'must be a string'),
        ({'variants': {'v': {'changes': ('steps', 1)}}}, "'changes' is ('steps', 1)"),
        ({'settings': {}}, "'settings' is {}"),
        ({'config': 'configs/nowhere.py'}, 'no such config file'),
        ({'variants': {'v': {'config': 'nowhere.py'}}}, "variant 'v': 'config' is 'nowhere.py'"),
        ({'seeds': 3}, "'seeds' is 3"),
        ({'seeds': (0, 0.5)}, 'whole numbers'),
        ({'seeds': (-1,)}, 'config.seed is -1'),
        ({'seeds': (0, 1, 0)}, 'distinct whole numbers'),
        ({'variants': {'full': {'seeds': ()}}}, "variant 'full': 'seeds' is ()"),
        (
            {
                'variants': {
                    'a': {},
                    'b': {'seeds': (0, 1), 'attack_source': 'a', 'argument': 'emodb'},
                }
            },
            "variant 'b': 'attack_source' 'a' has no seed 1",
        ),
        ({'variants': {'Full': {}, 'full': {'argument': 'emodb'}}, 'settings': {'s': {}}}, 'share'),
        ({'family': 'row'}, "'family' is 'row'; it must be one of: table, condition"),
        ({'variants': {'a': {}, 'b': {}}}, 'a/seed0 and demo_speech/b/seed0 are the same run'),
        (
            {'settings': {'a': {}, 'b': {'changes': {'conditions': ('telephone',)}}}},
            'one run can test many conditions',
        ),
        (CHANGE('conditions', ('tellyphone',)), 'tellyphone'),
        ({'baseline': 'half'}, "'baseline' is 'half'; the variants are: full"),
        ({'variants': {'v': {'argument': 'emodb,nonsense'}}}, "unknown option 'nonsense'"),
        (CHANGE('seed', 1), "set by 'seeds'"),
        (CHANGE('sed', 1), "no field 'sed'; did you mean 'seed'?"),
        (CHANGE('optimiser.rate', 1), "no field 'optimiser.rate'"),
        (CHANGE('steps.x', 1), "no field 'steps.x'"),
        (CHANGE('optimiser', 1), "'optimiser' is a group of fields"),
        (CHANGE('steps', 2.5), '2.5'),
        (CHANGE('final', 'maybe'), 'maybe'),
        (CHANGE('patience', 0), "variant 'v': config.patience is 0"),
        (CHANGE('corpus', 'emodb'), 'after the colon'),
    ],
    ids=lambda value: '' if isinstance(value, dict) else value[-30:],
)
def test_errors_in_a_grid_file_are_one_line(tmp_path, capsys, content, message):
    path = write_grid(tmp_path / 'wrong.py', **content)
    # With --list a grid that is wrongly accepted does not run.
    assert command.main([f'--config={path}', f'--workdir={tmp_path / "work"}', '--list']) == 2
    printed = capsys.readouterr().err
    assert printed.startswith('error: ')
    assert message in printed
    assert printed.count('\n') == 1
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('def get_grid(:', 'line 1: invalid syntax'),
        ('def get_grid():\n    return {nothing}', "line 2: NameError: name 'nothing'"),
        ('', 'has no get_grid(), see configs/grids/demo.py'),
        ('def get_grid():\n    return 3', 'the grid is 3'),
    ],
)
def test_a_grid_file_that_is_not_valid_python(tmp_path, text, message):
    (tmp_path / 'wrong.py').write_text(text)
    with pytest.raises(UserError) as error:
        plan.read_grid(str(tmp_path / 'wrong.py'))
    assert message in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'path', sorted((ROOT / 'configs' / 'grids').glob('*.py')), ids=lambda path: path.stem
)
def test_grids_can_be_planned(path):
    takes_corpus = 'def get_grid(corpus' in path.read_text()
    grid = plan.read_grid(f'{path}:demo_speech' if takes_corpus else str(path))
    assert grid.runs
    check_conditions(grid)


def test_a_grid_file_may_take_an_argument():
    path = 'configs/grids/own_corpus.py'
    grid = plan.read_grid(f'{path}:csv_corpus/mine')
    assert grid.name == 'own_corpus-csv_corpus-mine'
    assert {run.config.corpus for run in grid.runs} == {'csv_corpus/mine'}
    assert {run.config.settings_of for run in grid.runs} == {'emodb'}
    grid = plan.read_grid(f'{path}:csv_corpus/mine,settings=ravdess')
    assert {run.config.settings_of for run in grid.runs} == {'ravdess'}
    with pytest.raises(UserError, match=r'missing a required argument.*after a colon'):
        plan.read_grid(path)
    with pytest.raises(UserError, match=r'too many positional arguments.*after a colon'):
        plan.read_grid(f'{DEMO}:emodb')


def test_a_variant_is_attacked_by_the_models_of_another(tmp_path):
    variants = {
        'base': {'argument': 'single_task', 'attack_source': ''},
        'full': {'attack_source': 'base'},
    }
    first, second = make_grid(
        tmp_path, settings={'s': {'argument': 'demo_speech'}}, variants=variants
    ).runs
    source = '--config.attack_source=work/s/base/seed0'
    assert source not in first.command(Path('work'))
    assert source in second.command(Path('work'))
    assert second.config_in(Path('work')).attack_source == 'work/s/base/seed0'
    assert second.config.attack_source == ''
    with pytest.raises(UserError, match='must be an earlier variant'):
        make_grid(tmp_path, variants=dict(reversed(variants.items())))
