"""What stands behind the colon of --config, and call strings."""

import ml_collections
import pytest

from configs import adversarial_autoencoder, end_to_end, mtl_aug
from ser_jax.config import apply_options, base_config
from ser_jax.config_check import check_config
from ser_jax.data.tasks import make_tasks
from ser_jax.runtime.call_strings import parse_call
from ser_jax.runtime.errors import UserError

PRESETS = {'fast': {'steps': 7, 'optimiser.clip': 2.0}, 'slow': {'steps': 9}}
CORPORA = {'demo_speech': {'folds': (1,)}, 'emodb': {'crop_frames': 99}}


def configured(argument) -> ml_collections.ConfigDict:
    return apply_options(base_config(), argument, PRESETS, CORPORA)


def test_corpus_then_options_in_order():
    config = configured('emodb,fast,slow')
    assert (config.corpus, config.crop_frames, config.steps) == ('emodb', 99, 9)
    assert config.optimiser.clip == 2.0
    assert config.options == ('fast', 'slow')


def test_nothing_means_the_default_corpus_with_its_settings():
    config = configured('')
    assert (config.corpus, config.folds, config.options) == ('demo_speech', (1,), ())


def test_options_without_a_corpus():
    assert configured(',fast').corpus == 'demo_speech'
    assert configured(',fast').steps == 7


def test_an_option_is_not_taken_for_a_corpus():
    with pytest.raises(UserError, match=':demo_speech,fast'):
        configured('fast')


def test_unknown_options_are_told_with_those_there_are():
    with pytest.raises(UserError, match=r"'fats'.*fast, slow"):
        configured('emodb,fats')


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
def test_everything_else_is_refused(text):
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


def test_the_published_split_of_iemocap_is_named():
    assert parse_call(end_to_end.get_config('iemocap').protocol) == (
        'session_split',
        ('1 2 3', '4', '5'),
    )


def checked(config):
    check_config(config)
    make_tasks(config.tasks, {})


def numbers(config, prefix=''):
    """(dotted field, value) of every number of a config."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from numbers(value, f'{prefix}{name}.')
        elif type(value) in (int, float):
            yield prefix + name, value


@pytest.mark.parametrize('module', [mtl_aug, end_to_end, adversarial_autoencoder])
def test_no_number_may_be_negative_or_not_finite(module):
    for field, value in numbers(module.get_config('demo_speech,smoke').to_dict()):
        for bad in (-1, -1e9, float('nan'), float('inf')):
            if type(value) is int and not isinstance(bad, int):
                continue  # the config itself refuses another type
            config = module.get_config('demo_speech,smoke')
            config.update_from_flattened_dict({field: type(value)(bad)})
            with pytest.raises(UserError) as refusal:
                checked(config)
            assert field.rpartition('.')[2] in str(refusal.value)
