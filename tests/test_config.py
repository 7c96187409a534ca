"""Field declarations, the argument after the colon of --config, validation, and call strings."""

import dataclasses
import subprocess
import sys

import ml_collections
import pytest
from conftest import ROOT

from configs import adversarial_autoencoder, end_to_end, mtl_aug, probe
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
    name_network,
    parse_config,
    recipe,
    settings_note,
    unknown_field,
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


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'reported': ('emotion', 'augmentation_type')}, "'augmentation_type' of labels with"),
        ({'tasks.augmentation_type.kind': 'reconstruction'}, 'config.tasks.augmentation_type has the kind'),
        ({'tasks.reconstruction.target': 'speaker'}, "config.tasks.reconstruction has the kind 'reconstruction' and"),
        ({'tasks.reconstruction.kind': 'classification'}, "and the target 'log_mel': the task 'reconstruction', and no other"),
    ],
)  # fmt: skip
def test_tasks_that_cannot_be_are_refused(changes, message):
    config = mtl_aug.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as error:
        check_config(config)
    assert message in str(error.value)


def test_a_blank_in_an_augmentation_is_no_other_augmentation():
    config = mtl_aug.get_config('emodb')
    config.noise_corpus = 'esc10'
    config.augmentations = ('gain (-6, 6) + noise (5, 20)',)
    check_config(config)
    config.augmentations = ('gain(-6, 6)',)
    with pytest.raises(UserError, match='noise_corpus is set, but there is no augmentation noise'):
        check_config(config)


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
        ('emodb,settings=', 'settings=: there are settings of demo_speech, emodb, and none'),
        (
            'emodb,settings=nowhere',
            'settings=nowhere: there are settings of demo_speech, emodb, and none',
        ),
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
         'colon of --config: settings=emodb (339 utterances), settings=nemo, settings=urdu, settings=ravdess (1440 utterances)'),
        ('csv_corpus/mine,settings=emodb', 'csv_corpus/mine has the settings of emodb (339 utterances), which were not chosen for it; others, '
         'as an option after the colon of --config: settings=nemo, settings=urdu, settings=ravdess (1440 utterances)'),
        ('emodb,settings=none', 'emodb has the defaults, which were not chosen for it; others, as an option after the colon of '
         '--config: settings=emodb (339 utterances), settings=nemo, settings=urdu, settings=ravdess (1440 utterances)'),
        ('ravdess,settings=demo_speech', 'ravdess has the settings of demo_speech, which were not chosen for it; others, as '
         'an option after the colon of --config: settings=emodb (339 utterances), settings=nemo, settings=urdu, settings=ravdess (1440 utterances)'),
    ],
)  # fmt: skip
def test_settings_that_were_not_chosen_for_the_corpus_are_noted(argument, note):
    assert settings_note(mtl_aug.get_config(argument)) == note


@pytest.mark.parametrize(
    ('get_config', 'argument', 'utterances', 'expected'),
    [
        (mtl_aug.get_config, 'csv_corpus/mine', 100, 'emodb'),
        (mtl_aug.get_config, 'csv_corpus/mine', 690, 'emodb'),
        (mtl_aug.get_config, 'csv_corpus/mine,augment_only', 710, 'ravdess'),
        (mtl_aug.get_config, 'iemocap,whisper_tiny', 5531, 'ravdess'),
        (mtl_aug.get_config, 'nemo', 4481, ''),
        (mtl_aug.get_config, 'csv_corpus/mine,settings=emodb', 5000, ''),
        (mtl_aug.get_config, 'csv_corpus/mine,settings=none', 5000, ''),
        (adversarial_autoencoder.get_config, 'csv_corpus/mine', 5000, 'ravdess'),
        (probe.get_config, 'csv_corpus/mine,views', 100, 'emodb'),
        (probe.get_config, 'csv_corpus/mine,opensmile', 100, ''),
        # Their settings are the targets of the tasks.
        (end_to_end.get_config, 'csv_corpus/mine', 100, ''),
    ],
)
def test_a_corpus_without_settings_takes_those_of_the_nearest_size(
    get_config, argument, utterances, expected
):
    assert recipe(get_config(argument), utterances) == expected


@pytest.fixture
def own_network(tmp_path, monkeypatch):
    """ser_jax/models/own.py, somewhere else."""
    monkeypatch.setattr('ser_jax.config._MODELS', tmp_path)
    (tmp_path / 'own.py').write_text(
        'import flax.linen as nn\n'
        'class Other(nn.Module):\n'
        '    left_out: int = 1\n'
        'class Model(nn.Module):\n'
        '    heads: dict\n'
        '    reconstruction: bool = True\n'
        '    width: int = 16\n'
        '    dropout: float = 0\n'
        '    channels: int = 7\n'
        '    computed: int = 4 * width\n'
        '    axis_name: str | None = None\n'
    )


def test_fields_of_the_model_are_those_of_the_named_network(own_network):
    flags = '--config.model.name=own', '--config.model.width=32', '--config.steps=7'
    config = parse_config(['--config=configs/mtl_aug.py:ravdess,smoke,single_task', *flags])
    found = config.model.to_dict()
    assert found == {'name': 'own', 'width': 32, 'dropout': 0.0, 'channels': 7}
    assert type(found['dropout']) is float
    assert (config.steps, config.batch_size) == (7, 8)
    assert config.options == ('smoke', 'single_task')
    check_config(config)  # the bounds of channels are those of another network
    with pytest.raises(AttributeError):
        parse_config(['--config=configs/mtl_aug.py', *flags, '--config.model.blstm_features=2'])


@pytest.mark.parametrize('name', ['nowhere', '../build', 'layers', '__init__'])
def test_a_network_that_is_none(name):
    with pytest.raises(UserError, match=r'no ser_jax/models/.*with a Model'):
        parse_config(['--config=configs/mtl_aug.py', f'--config.model.name={name}'])


def test_the_own_network_keeps_settings_and_options():
    config = parse_config(['--config=configs/mtl_aug.py:ravdess', '--config.model.name=mtl_aug'])
    assert as_json(config) == as_json(mtl_aug.get_config('ravdess'))
    config = parse_config(
        ['--config=configs/adversarial_autoencoder.py', '--config.model.name=mtl_aug']
    )
    assert 'adversary' not in config.model


@pytest.mark.parametrize(
    ('given', 'expected'),
    [
        (('--config=f.py', '--config.model.name=x'), ('--config=f.py:,network=x',)),
        (('--config', 'f.py:emodb', '-config.model.name', 'x', '-a'), ('--config', 'f.py:emodb,network=x', '-a')),
        (('--config.model.name=x',), ('--config.model.name=x',)),
        (('--config=f.py', '--config.model.name='), ('--config=f.py', '--config.model.name=')),
        (('--config=f.py', '--config.seed=1'), ('--config=f.py', '--config.seed=1')),
        (('--config.model.name=x', '--config'), ('--config',)),
    ],
)  # fmt: skip
def test_the_name_of_a_network_moves_behind_the_colon(given, expected):
    assert name_network(given) == list(expected)


@pytest.mark.parametrize(
    ('field', 'hint'),
    [
        ('steps', None),
        ('optimiser', None),
        ('learning_rate', "did you mean 'optimiser.learning_rate'?"),
        ('optimiser.rate', "did you mean 'optimiser.learning_rate' or "),
        ('optimizer.learning_rate', "did you mean 'optimiser.learning_rate'?"),
        ('batchsize', "did you mean 'batch_size'?"),
        ('model.chanels', "did you mean 'model.channels'?"),
        ('optimizer', "did you mean 'optimiser'?"),
        ('model.width', 'model has blstm_features, channels, '),
        ('nonsense', 'see configs/README.md'),
    ],
)
def test_unknown_fields(field, hint):
    found = unknown_field(mtl_aug.get_config(), field)
    assert found.startswith(f'the config has no field {field!r}; {hint}') if hint else found == ''


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
