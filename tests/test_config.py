"""Field declarations, the argument after the colon of --config, validation, and call strings."""

import dataclasses
import subprocess
import sys

import ml_collections
import pytest
from conftest import ROOT

from configs import adversarial_autoencoder, end_to_end, mtl_aug
from ser_jax.audio.log_mel import FrontEnd
from ser_jax.config import (
    GROUPS,
    TESTED_WITH,
    Option,
    apply_options,
    as_json,
    base_config,
    check_config,
    compared,
    flatten,
    settings_note,
)
from ser_jax.data.tasks import make_tasks
from ser_jax.runtime.call_strings import parse_call
from ser_jax.runtime.errors import UserError

OPTIONS = {
    'fast': Option('few steps', {'steps': 7, 'optimiser.clip': 2.0}),
    'slow': Option('more steps', {'steps': 9}),
}
CORPORA = {'demo_speech': {'folds': (1,)}, 'emodb': {'crop_frames': 99}}


def configured(argument) -> ml_collections.ConfigDict:
    return apply_options(base_config(), argument, OPTIONS, CORPORA)


def test_corpus_then_options_in_order():
    config = configured('emodb,fast,slow')
    assert (config.corpus, config.crop_frames, config.steps) == ('emodb', 99, 9)
    assert config.optimiser.clip == 2.0
    assert config.options == ('fast', 'slow')


def test_no_argument_means_the_default_corpus_with_its_settings():
    config = configured('')
    assert (config.corpus, config.folds, config.options) == ('demo_speech', (1,), ())


def test_options_after_an_empty_corpus():
    assert configured(',fast').corpus == 'demo_speech'
    assert configured(',fast').steps == 7


def test_an_option_without_a_corpus_is_refused():
    with pytest.raises(UserError, match=':demo_speech,fast'):
        configured('fast')


def test_unknown_options_are_refused_with_a_list():
    with pytest.raises(UserError, match=r"'fats'.*fast, slow"):
        configured('emodb,fats')


def test_settings_of_another_corpus():
    config = configured('csv_corpus/mine,settings=emodb,fast')
    assert (config.corpus, config.settings_of) == ('csv_corpus/mine', 'emodb')
    assert (config.crop_frames, config.steps) == (99, 7)
    assert config.options == ('settings=emodb', 'fast')
    assert configured('emodb,settings=demo_speech').folds == (1,)
    config = mtl_aug.get_config('csv_corpus/mine,settings=emodb')
    check_config(config)
    expected = as_json(mtl_aug.get_config('emodb'))
    differing = {name for name, value in as_json(config).items() if value != expected[name]}
    assert differing == {'corpus', 'options'}
    config = mtl_aug.get_config('emodb')
    config.corpus = 'nemo'
    with pytest.raises(UserError, match='but the settings are those of emodb: name the corpus'):
        check_config(config)


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ('settings=emodb', ':demo_speech,settings=emodb'),
        ('emodb,settings=', 'settings=: there are settings of demo_speech, emodb'),
        ('emodb,settings=nowhere', 'settings=nowhere: there are settings of demo_speech, emodb'),
        ('emodb,settings=emodb,settings=demo_speech', 'exclude each other'),
        ('emodb,setting=emodb', "unknown option 'setting=emodb'.*slow, settings=CORPUS"),
    ],
)
def test_impossible_settings(argument, message):
    with pytest.raises(UserError, match=message):
        configured(argument)


@pytest.mark.parametrize(
    ('argument', 'note'),
    [
        ('', ''),
        ('emodb,single_task', ''),
        ('csv_corpus/mine', 'csv_corpus/mine has the defaults, which were not chosen for it; others, as an option after the '
         'colon of --config: settings=emodb, settings=nemo, settings=urdu, settings=ravdess'),
        ('csv_corpus/mine,settings=emodb', 'csv_corpus/mine has the settings of emodb, which were not chosen for it; others, '
         'as an option after the colon of --config: settings=nemo, settings=urdu, settings=ravdess'),
        ('ravdess,settings=demo_speech', 'ravdess has the settings of demo_speech, which were not chosen for it; others, as '
         'an option after the colon of --config: settings=emodb, settings=nemo, settings=urdu, settings=ravdess'),
    ],
)  # fmt: skip
def test_settings_that_were_not_chosen_for_the_corpus_are_noted(argument, note):
    assert settings_note(mtl_aug.get_config(argument)) == note


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('speed(0.9, 1.1)', ('speed', (0.9, 1.1))),
        ('clean', ('clean', ())),
        (' f() ', ('f', ())),
        ('f("a", -1, (2, 3))', ('f', ('a', -1, (2, 3)))),
    ],
)
def test_calls(text, expected):
    assert parse_call(text) == expected


@pytest.mark.parametrize(
    'text', ['', '1', 'f(', 'f(x)', 'f(a=1)', 'f().g()', '__import__("os").getcwd()', 'f(1)(2)']
)
def test_other_call_strings_are_refused(text):
    with pytest.raises(UserError, match='is not of the form'):
        parse_call(text)


@pytest.mark.parametrize(
    ('argument', 'reported'),
    [
        ('', ('arousal', 'valence', 'dominance')),
        ('emodb', ('arousal', 'valence')),
        ('demo_speech,dominance,arousal', ('arousal', 'dominance')),
        ('emodb,with_emotion', ('arousal', 'valence', 'emotion')),
        ('emodb,emotion', ('emotion',)),
    ],
)
def test_tasks_of_the_end_to_end_network(argument, reported):
    config = end_to_end.get_config(argument)
    assert config.reported == reported
    assert {name for name, task in config.tasks.items() if task.weight} == set(reported)
    check_config(config)


def test_regression_of_some_dimensions():
    config = end_to_end.get_config('demo_speech,valence,emotion,regression')
    assert config.tasks.valence.kind == 'regression'
    assert config.tasks.emotion.kind == 'classification'


def test_the_published_split_of_iemocap():
    assert parse_call(end_to_end.get_config('iemocap').protocol) == (
        'session_split',
        ('1 2 3', '4', '5'),
    )


def test_own_fields_are_validated_after_renaming():
    config = mtl_aug.get_config()
    config.system = 'renamed'
    check_config(config)
    config.model.dropout = 1.0
    with pytest.raises(UserError, match=r'model\.dropout is 1.0; it must be from 0'):
        check_config(config)


@pytest.mark.parametrize('module', [mtl_aug, end_to_end, adversarial_autoencoder])
def test_declarations(module):
    own = module.FIELDS
    assert all(field.identity for field in own.values())
    fields = {name: field for group in [own, *GROUPS.values()] for name, field in group.items()}
    assert len(fields) == sum(map(len, [own, *GROUPS.values()])), 'a field declared twice'
    for name, field in fields.items():
        assert field.bounds is None or field.bounds.test(field.default), name
    assert flatten(module.get_config()).keys() == fields.keys()


def test_every_field_of_the_front_end_is_declared():
    assert base_config().data.front_end.to_dict() == dataclasses.asdict(FrontEnd())


def test_fields_that_do_not_identify_a_run():
    config = as_json(mtl_aug.get_config())
    assert {*TESTED_WITH, 'conditions', 'data.data_dir'}.isdisjoint(compared(config))
    assert {'seed', 'data.front_end.fmin', 'model.channels'} <= compared(config).keys()


def test_configs_need_no_jax():
    code = 'import sys, configs.mtl_aug; sys.exit("jax" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], cwd=ROOT, check=False).returncode == 0


def checked(config):
    check_config(config)
    make_tasks(config.tasks, {})


@pytest.mark.parametrize('module', [mtl_aug, end_to_end, adversarial_autoencoder])
def test_numbers_must_be_finite_and_not_negative(module):
    fields = flatten(module.get_config('demo_speech,smoke'))
    for field, value in fields.items():
        if type(value) not in (int, float):
            continue
        for bad in (-1, -1e9, float('nan'), float('inf')):
            if type(value) is int and not isinstance(bad, int):
                continue  # the config itself refuses another type
            config = module.get_config('demo_speech,smoke')
            config.update_from_flattened_dict({field: type(value)(bad)})
            with pytest.raises(UserError) as refusal:
                checked(config)
            assert field.rpartition('.')[2] in str(refusal.value)
