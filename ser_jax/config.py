"""Configs: the declaration of every field, the `CORPUS,OPTION…` argument, and validation.

A field is declared once, as a `Field`: the config, its validation and configs/README.md derive from the declaration. Fields of
all systems are declared here, those of one system in its config file, which passes them to `base_config`.
"""

import ast
import collections
import contextlib
import dataclasses
import difflib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.runtime.call_strings import parse_chain
from ser_jax.runtime.errors import UserError

_LARGEST = 2**31 - 1  # the largest int32, JAX's default integer
_LARGEST_SIZE = 65_536  # of a layer, batch or transform
_SETTINGS, _NETWORK = 'settings=', 'network='  # options of all systems
_NO_SETTINGS = 'none'  # in place of a corpus: the defaults
_MODELS = Path(__file__).parent / 'models'
_NOT_SETTINGS = (
    'heads',
    'reconstruction',
    'axis_name',
    'bands',
    'conditions',
)  # attributes that `make_model` sets


@dataclasses.dataclass(frozen=True)
class Bounds:
    """The values that a field may have.

    Attributes:
        test: whether a value, of the type of the field's default, is allowed.
        words: description of the allowed values, to follow "must be".
    """

    test: Callable[[Any], bool]
    words: str


@dataclasses.dataclass(frozen=True)
class Field:
    """The declaration of one field of a config.

    Attributes:
        default: default value; its type is the type of the field.
        meaning: description, a phrase without a full stop.
        bounds: allowed values; None: all of the type.
        identity: whether the field is part of what identifies a run. A run directory may be resumed with other values of the
            fields that are not. Only shared fields may set this to False.
    """

    default: Any
    meaning: str
    bounds: Bounds | None = None
    identity: bool = True


@dataclasses.dataclass(frozen=True)
class Option:
    """A named set of changes, applied by `--config=FILE.py:CORPUS,OPTION`.

    Attributes:
        meaning: description, a phrase without a full stop.
        sets: changes, dotted field -> value.
        first: whether it is applied before the others, wherever it stands.
    """

    meaning: str
    sets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    first: bool = False


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_SIZE


SIZE = Bounds(_is_size, f'a whole number from 1 to {_LARGEST_SIZE}')
SIZES = Bounds(
    lambda x: x and all(map(_is_size, x)), f'one or more whole numbers from 1 to {_LARGEST_SIZE}'
)
COUNT = Bounds(lambda x: x >= 1, 'at least 1')
POSITIVE = Bounds(lambda x: x > 0, 'above 0')
NOT_NEGATIVE = Bounds(lambda x: x >= 0, 'at least 0')
FRACTION = Bounds(lambda x: 0 <= x < 1, 'from 0 to below 1')
_TEXTS = Bounds(lambda x: all(isinstance(v, str) and v for v in x), "texts, e.g. ('name',)")


def one_of(*values: str) -> Bounds:
    """Bounds of a field that has one of some values."""
    return Bounds(lambda x: x in values, ' or '.join(map(repr, values)))


def optimiser_fields(name: str, **defaults: float) -> dict[str, Field]:
    """Declares an AdamW optimiser.

    Args:
        name: dotted name of the group, e.g. 'optimisers.generator'.
        **defaults: defaults that differ from those of `config.optimiser`.
    """
    return {
        f'{name}.{key}': dataclasses.replace(field, default=defaults.get(key, field.default))
        for key, field in _OPTIMISER.items()
    }


def task_fields(
    name: str, weight: float, kind: str = 'classification', target: str = ''
) -> dict[str, Field]:
    """Declares a task.

    Args:
        name: name of the task, of its head and of its loss.
        weight, kind: defaults of these fields.
        target: default of this field; '' = `name`.
    """
    fields = {
        'kind': Field(kind, "'classification', 'regression' or 'reconstruction'"),
        'target': Field(
            target or name,
            "what is predicted: a label of the records ('emotion', 'gender', 'speaker', …) or 'augmentation_type', a rated "
            "dimension for regression, 'log_mel' for reconstruction",
        ),
        'weight': Field(
            weight, 'weight of the loss in the sum, from 0; 0 removes the task and its head'
        ),
    }
    return {f'tasks.{name}.{key}': field for key, field in fields.items()}


# fmt: off
_OPTIMISER = {
    'learning_rate': Field(2e-3, 'peak learning rate, between a linear warm-up and a cosine decay', POSITIVE),
    'warmup': Field(0.1, 'fraction of the steps during which the learning rate rises', FRACTION),
    'beta1': Field(0.9, 'decay of the average of gradients (Adam)', FRACTION),
    'weight_decay': Field(0.05, 'weight decay (AdamW), multiplied by the learning rate in each step', NOT_NEGATIVE),
    'clip': Field(1.0, 'largest global norm of the gradient', POSITIVE),
    'average': Field(0.98, 'decay of the moving average of the parameters, which is evaluated', FRACTION),
}

# Fields of the CNN-BLSTM encoder, for systems that contain it.
ENCODER_FIELDS = {
    'model.channels': Field(
        (24, 32, 64), 'channels of the convolutional blocks; each block halves the mel bands', SIZES),
    'model.frame_features': Field(128, 'features of a 40 ms step, the input of the BLSTM', SIZE),
    'model.blstm_features': Field(
        64, 'cells of the BLSTM, per direction; 0 = none, only on frames of a pretrained encoder',
        Bounds(lambda x: x == 0 or _is_size(x), f'a whole number from 0 to {_LARGEST_SIZE}')),
    'model.map_dropout': Field(0.1, 'dropout rate of whole feature maps', FRACTION),
}

# Fields of systems that may see the outputs of a frozen pretrained encoder (config.representation 'encoded').
PRETRAINED_FIELDS = {
    'encoder.weights': Field(
        'openai/whisper-tiny.en', 'Hugging Face name or folder of the pretrained encoder, see docs/encoders.md',
        Bounds(bool, "a name, e.g. 'openai/whisper-tiny.en'")),
    'encoder.output': Field(
        'statistics', "input of the network: 'statistics', mean and standard deviation over time of every layer; or 'frames', the "
        'mean of the layers, 25 frames a second', one_of('statistics', 'frames')),
    'encoder.layers': Field(
        (), 'numbers of the layers to use; () = all',
        Bounds(
            lambda x: all(type(k) is int and k >= 0 for k in x) and len(set(x)) == len(x),
            'different whole numbers from 0')),
}

# Fields of systems that may fine-tune the encoder (config.representation 'waveform').
FINE_TUNE_FIELDS = {
    'fine_tune.trains': Field(
        '', "what of the encoder trains with the network: 'all'; 'top(N)', the highest N of the layers in use; 'lora(RANK)', low-rank "
        "updates of queries and values; '' = nothing, its outputs are computed once",
        Bounds(
            lambda x: re.fullmatch(r'|all|top\([1-9]\d?\)|lora\([1-9]\d?\)', x) is not None,
            "'', 'all', 'top(N)' or 'lora(RANK)', numbers from 1 to 99")),
    'fine_tune.rate': Field(
        0.1, "learning rate of the encoder's highest layer, as a factor of config.optimiser.learning_rate", POSITIVE),
    'fine_tune.layer_decay': Field(
        0.8, 'factor from the learning rate of a layer of the encoder to that of the layer below',
        Bounds(lambda x: 0 < x <= 1, 'above 0, at most 1')),
    'fine_tune.warmup_steps': Field(
        0, "steps during which the encoder's learning rates rise, in addition to config.optimiser.warmup", NOT_NEGATIVE),
    'fine_tune.front_end': Field(
        False, "whether 'all' includes convolutions and positions below the first layer (Whisper's positions never train)"),
    'fine_tune.remat': Field(
        False, 'whether the layers are computed again in the backward pass: less memory, more time', identity=False),
    'fine_tune.head_steps': Field(
        300, 'steps of training on the outputs of the frozen encoder before; fine-tuning begins with that network', NOT_NEGATIVE),
    'fine_tune.head_batch_size': Field(64, 'utterances per step of that training', SIZE),
    **optimiser_fields('optimisers.head', learning_rate=1e-3, weight_decay=10.0),
}

# Changes for networks that read frames of Whisper tiny.en; the layers were chosen on validation speakers.
WHISPER_TINY = {
    'representation': 'encoded',
    'encoder.output': 'frames',
    'encoder.layers': (1, 2, 3, 4),
    'model.input': 'frames',
}

# Changes of the waveform, by which a frozen encoder's outputs become robust (`config.augmentations`).
VIEWS = (
    'speed(0.8, 0.95)',
    'speed(1.05, 1.25)',
    'noise(0, 25)',
    'gain(-25, 10) + filter_augment(12)',
    'band_limit(500, 3000)',
    'room(0.2, 0.8)',
    'speed(0.8, 1.25) + filter_augment(12) + gain(-25, 10) + noise(5, 25)',
)

_FRONT_END = {
    'sample_rate': Field(
        FrontEnd.sample_rate, 'samples per second of the input',
        Bounds(lambda x: 1000 <= x <= 768_000, 'from 1000 to 768000')),
    'n_fft': Field(FrontEnd.n_fft, 'length of the Fourier transform, samples', SIZE),
    'win_length': Field(FrontEnd.win_length, 'length of the Hann window (centred in n_fft), samples', SIZE),
    'hop_length': Field(FrontEnd.hop_length, 'samples between frames', SIZE),
    'n_mels': Field(FrontEnd.n_mels, 'number of mel bands (Slaney scale and normalisation)', SIZE),
    'fmin': Field(FrontEnd.fmin, 'lower edge of the lowest band, Hz', NOT_NEGATIVE),
    'fmax': Field(FrontEnd.fmax, 'upper edge of the highest band, Hz', POSITIVE),
    'floor': Field(
        FrontEnd.floor, 'added to the mel power before the logarithm: digital zeros (16 % of RAVDESS) stay finite',
        POSITIVE),
}

# Heading -> dotted name -> declaration, for the fields of all systems.
GROUPS = {
    'system, representation, seed': {
        'system': Field('', 'name of the config file; part of the default workdir and of the result card'),
        'representation': Field(
            'log_mel', "input of the network; 'encoded': outputs of config.encoder", one_of('log_mel', 'waveform', 'encoded')),
        'options': Field((), 'options named after the colon of --config; not to be set as a flag'),
        'settings_of': Field('', 'corpus whose settings these are: the one named after the colon of --config, or after settings= there; not to be set as a flag'),
        'seed': Field(
            0, 'seed of initial parameters, data order, augmentation and dropout',
            Bounds(lambda x: x >= 0, 'a whole number from 0')),
    },
    'training data and evaluation protocol': {
        'corpus': Field(
            'demo_speech', 'labelled corpus; not to be set as a flag, but after the colon of --config, with its settings'),
        'labels': Field(
            (), "emotions to classify; () = the corpus's default set",
            Bounds(
                lambda x: _TEXTS.test(x) and len(set(x)) == len(x) != 1,
                "at least two different emotions, e.g. ('angry', 'sad'), or ()")),
        'reported': Field(
            ('emotion',), 'tasks (classification or regression) that are validated and tested',
            Bounds(lambda x: 0 < len(set(x)) == len(x), 'one or more different tasks')),
        'protocol': Field('', "call string of the protocol, e.g. 'speaker_folds(4)'; '' = the corpus's default"),
        'folds': Field(
            (), 'numbers of the folds to run, from 1; () = all',
            Bounds(lambda x: all(type(k) is int and k >= 1 for k in x), 'whole numbers from 1')),
        'validation': Field(
            True, 'whether there are validation speakers; False: they train too, and the last parameters are tested'),
        'report_test': Field(
            True, 'False: development mode; test speakers are never read, and conditions are tested on validation speakers'),
        'final': Field(True, 'whether to train a final model on all speakers (of config.labelled only with leave_corpus_out()), for predict and export'),
        'labelled_share': Field(
            1.0, "fraction of each training speaker's utterances that keep their label; the rest are used unlabelled",
            Bounds(lambda x: 0 < x <= 1, 'above 0, at most 1')),
        'labelled': Field((), 'other prepared corpora, used for training with their emotion labels', _TEXTS),
        'unlabelled': Field((), 'other prepared corpora, used for training without their emotion labels', _TEXTS),
        'unlabelled_share': Field(
            0.5, 'fraction of a batch that is unlabelled, if there is unlabelled speech',
            Bounds(lambda x: 0 < x < 1, 'between 0 and 1')),
    },
    'test conditions and further test corpora': {
        'conditions': Field(
            (), "call strings of test conditions, e.g. \"noise('rain', 5)\", 'telephone', 'pgd(0.05, 20)'", _TEXTS,
            identity=False),
        'test_noise_corpus': Field(
            '', "prepared corpus of noise for the condition noise(…), e.g. 'esc10'", identity=False),
        'babble_corpus': Field('', 'prepared corpus of speech for the condition babble(…)', identity=False),
        'attack_source': Field('', 'workdir of the run whose models generate transfer_… attacks', identity=False),
        'test_corpora': Field(
            (), 'prepared corpora on which the final model is tested, over the classes shared with config.corpus',
            _TEXTS, identity=False),
        'target_statistics': Field(
            False, "also test with normalisation by the test corpus's own statistics (transductive)", identity=False),
        'few_shot': Field(
            (), 'also test after adaptation to this many utterances per class of the test corpus, e.g. (0, 5, 10, 15)',
            Bounds(lambda x: all(type(k) is int and k >= 0 for k in x), 'whole numbers from 0'), identity=False),
        'few_shot_speakers': Field(
            (), 'also test after adaptation to this fraction of the speakers of the test corpus, e.g. (0.2,)',
            Bounds(lambda x: all(type(s) in (int, float) and 0 <= s < 1 for s in x), 'fractions from 0 to below 1'),
            identity=False),
        'few_shot_steps': Field(100, 'training steps of each adaptation', COUNT, identity=False),
        'few_shot_learning_rate': Field(5e-4, 'peak learning rate of each adaptation', POSITIVE, identity=False),
    },
    'augmentation': {
        'augmentations': Field(
            (), "call strings, e.g. 'speed(0.9, 1.1)', 'mixup(0.2)'; each utterance stays clean or undergoes one of them, its "
            'augmentation type. With config.encoder, changes of the waveform: computed once, or in each fine-tuning step', _TEXTS),
        'clean_share': Field(
            0.4, 'probability that an utterance stays clean; the augmentations share the rest',
            Bounds(lambda x: 0 <= x <= 1, 'from 0 to 1')),
        'noise_corpus': Field('', "prepared corpus of noise for the augmentation noise(…); '' = coloured noise"),
        'noise_types': Field((), "types of noise to use, e.g. ('sea_waves', 'clock_tick'); () = all", _TEXTS),
        'reconstruction_target': Field(
            'clean', 'target of reconstruction: the clean utterance, or the augmented input itself',
            one_of('clean', 'augmented')),
    },
    'training': {
        'batch_size': Field(16, 'utterances per training step, a multiple of the number of devices', SIZE),
        'crop_frames': Field(
            200, 'frames of a training input, of 10 ms or, of an encoder, 40 ms; longer utterances are cropped at random',
            SIZE),
        'steps': Field(1200, "largest number of steps per fold; the final model takes the folds' median", COUNT),
        'eval_every': Field(100, 'steps between validations (and checkpoints)', COUNT),
        'patience': Field(6, 'validations without improvement before training stops', COUNT),
        'skipped_steps': Field(
            50, 'consecutive steps without a finite gradient, which are skipped, before training stops', COUNT,
            identity=False),
        'eval_batch_size': Field(16, 'utterances per evaluation step, a multiple of the number of devices', SIZE),
        'class_weights': Field(True, 'whether all classes of a reported task have the same weight in its loss'),
        'balanced_draws': Field(
            False, 'whether every emotion of every labelled corpus is drawn equally often, in place of config.class_weights',
        ),
        'label_smoothing': Field(0.1, 'probability spread over all classes, in the reported tasks', FRACTION),
        'adversarial_epsilon': Field(
            0.0, 'size of the adversarial perturbation of training inputs (standardised log-mel); 0 = none',
            Bounds(lambda x: 0 <= x <= 10, 'from 0 to 10')),
        'parallelism': Field(
            'jit', 'how a step is distributed over devices; both compute the same', one_of('jit', 'pmap')),
        'parallel_runs': Field(
            1, 'folds trained together in one program, each on one device (or CPU core)', COUNT, identity=False),
        'objective': Field('multitask', 'objective, set by the config file', one_of('multitask', 'adversarial')),
    },
    'optimiser (AdamW), of the phase `supervised` if there are several': optimiser_fields('optimiser'),
    'data folders and front end': {
        'data.data_dir': Field('~/.cache/ser_jax/records', 'folder of the prepared corpora', identity=False),
        'data.manual_dir': Field('', "folder of the original corpus; '' = $SER_JAX_MANUAL_DIR/CORPUS", identity=False),
        'data.memory_gb': Field(
            4.0, 'size in GiB up to which a corpus is kept in memory', NOT_NEGATIVE, identity=False),
        **{f'data.front_end.{name}': field for name, field in _FRONT_END.items()},
    },
}
# fmt: on

_SHARED = {name: field for group in GROUPS.values() for name, field in group.items()}
# System -> its own fields, as passed to `base_config`: a ConfigDict has no room for declarations.
_OWN: dict[str, Mapping[str, Field]] = {}
# System -> corpus -> its settings, as passed to `apply_options`.
_CORPORA: dict[str, dict[str, Mapping[str, Any]]] = {}
# Corpora whose settings others take, and the labelled utterances on which those were chosen.
RECIPE_SIZES = {'emodb': 339, 'ravdess': 1440}


def base_config(
    system: str = '', fields: Mapping[str, Field] | None = None
) -> ml_collections.ConfigDict:
    """Builds the config of a system, at the defaults of its fields.

    Args:
        system: name of the system.
        fields: dotted name -> declaration, for the system's own fields. `check_config` checks them too.

    Returns:
        The shared fields and the system's own.
    """
    if fields:
        _OWN[system] = fields
    nested = {}
    for name, field in {**_SHARED, **(fields or {})}.items():
        *groups, last = name.split('.')
        group = nested
        for part in groups:
            group = group.setdefault(part, {})
        group[last] = field.default
    return ml_collections.ConfigDict(nested | {'system': system})


# Options that systems share.
NO_VALIDATION = Option(
    'no validation speakers: all speakers but the test speakers train, and the last parameters are tested',
    {'validation': False},
)


def smoke(sets: Mapping[str, Any]) -> Option:
    """The option `smoke` of a system, with the changes that make its network small."""
    few = {
        'folds': (1,),
        'steps': 4,
        'eval_every': 2,
        'batch_size': 8,
        'eval_batch_size': 32,  # few shapes to compile
        'final': False,
    }
    return Option('a run of seconds, as a check that everything works', {**few, **sets})


def apply_options(
    config: ml_collections.ConfigDict,
    argument: str,
    options: Mapping[str, Option],
    corpora: Mapping[str, Mapping],
) -> ml_collections.ConfigDict:
    """Applies the argument after the colon of `--config=FILE.py:CORPUS,OPTION…`.

    Args:
        config: config, changed in place.
        argument: `''`, or a corpus, or a corpus and options, separated by commas; `settings=CORPUS` is the option to take
            the settings of another corpus, `settings=none` the defaults, `network=NAME` another network.
        options: name -> option.
        corpora: corpus -> its settings, dotted field -> value.

    Returns:
        `config`, with `config.options` the options given.

    Raises:
        UserError: an unknown option or network, or settings of a corpus that has none.
    """
    corpus, *chosen = [word.strip() for word in argument.split(',')]
    if corpus in options or '=' in corpus:
        raise UserError(
            f'{corpus!r} is an option and must follow a corpus: :{config.corpus},{corpus}'
        )
    named = [name for name in chosen if name.startswith(_SETTINGS)]
    networks = [name.removeprefix(_NETWORK) for name in chosen if name.startswith(_NETWORK)]
    chosen = [name for name in chosen if not name.startswith(_NETWORK)]
    plain = [name for name in chosen if name not in named]
    unknown = [name for name in plain if name not in options]
    if unknown:
        known = ', '.join([*sorted(options), f'{_SETTINGS}CORPUS', f'{_NETWORK}NAME'])
        raise UserError(f'unknown option {unknown[0]!r} after the corpus; there are: {known}')
    if len(named) > 1:
        raise UserError(f'{" and ".join(named)} exclude each other: give one of them')
    order = [*(name for name in options if options[name].first), '']
    plain.sort(key=lambda name: order.index(name if options[name].first else ''))
    config.corpus = corpus or config.corpus
    config.settings_of = named[0].removeprefix(_SETTINGS) if named else config.corpus
    if named and config.settings_of not in (*corpora, _NO_SETTINGS):
        raise UserError(
            f'{named[0]}: there are settings of {", ".join(corpora)}, and {_NO_SETTINGS}'
        )
    config.options = tuple(chosen)
    other = networks and networks[-1] != config.model.name
    if other:
        config.model = {'name': networks[-1], **_attributes(networks[-1])}
    for changes in (corpora.get(config.settings_of, {}), *(options[name].sets for name in plain)):
        # Settings of `model.*` belong to the network they were chosen for.
        fitting = {
            name: v for name, v in changes.items() if not (other and name.startswith('model.'))
        }
        config.update_from_flattened_dict(fitting)
    _CORPORA[config.system] = dict(corpora)
    return config


def _attributes(network: str) -> dict[str, Any]:
    """Attributes of the `Model` in ser_jax/models/NETWORK.py and their defaults: those that are plain values.

    The file is read, not imported: configs are read before JAX is imported.
    """
    path = _MODELS / f'{network}.py'
    own = network.isidentifier() and path.is_file()
    tree = ast.parse(path.read_text(encoding='utf-8') if own else '')
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    if 'Model' not in classes:
        raise UserError(
            f'config.model.name is {network!r}: no ser_jax/models/{network}.py with a Model'
        )
    found = {}
    for node in classes['Model'].body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            with contextlib.suppress(ValueError):  # no plain value
                value = ast.literal_eval(node.value)
                number = isinstance(value, int) and ast.unparse(node.annotation) == 'float'
                found[ast.unparse(node.target)] = float(value) if number else value
    kept = lambda name, value: (
        name not in _NOT_SETTINGS and isinstance(value, bool | int | float | str | tuple)
    )
    return {name: value for name, value in found.items() if kept(name, value)}


def name_network(arguments: Sequence[str]) -> list[str]:
    """Moves `--config.model.name=NAME` behind the colon of `--config`, as the option `network=NAME`.

    The fields of `config.model` then are those of that network when the flags of other fields are read.
    """
    kept, network = [], ''
    words = iter(arguments)
    for word in words:
        flag, _, value = word.partition('=')
        if flag.lstrip('-') == 'config.model.name' and flag.startswith('-'):
            network = value if '=' in word else next(words, '')
        else:
            kept.append(word)
    flags = {word.partition('=')[0] for word in kept}
    if not network or flags.isdisjoint(('--config', '-config')):
        return list(arguments)
    return _add_option(kept, f'{_NETWORK}{network}')


def _add_option(arguments: Sequence[str], option: str) -> list[str]:
    """Adds an option behind the colon of `--config`, which must be there."""
    kept = list(arguments)
    flags = [word.partition('=')[0] for word in kept]
    place = next(k for k, flag in enumerate(flags) if flag in ('--config', '-config'))
    place += '=' not in kept[place]
    if place < len(kept):
        kept[place] += ('' if ':' in kept[place] else ':') + f',{option}'
    return kept


def parse_config(arguments: Sequence[str]) -> ml_collections.ConfigDict:
    """The config of a command line, as `ser_jax.main` reads it.

    Raises:
        UserError: an unknown option, field or network, or a value of another type.
    """
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    argv = ['config', *name_network(arguments)]
    holder = config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
    try:
        values(argv)
    except flags.Error as error:
        raise UserError(' '.join(str(error).split())) from error
    return holder.value


def unknown_field(config: ml_collections.ConfigDict, field: str) -> str:
    """What is wrong with the dotted name of a field, and names like it; '' if the config has it."""
    known = list(flatten(config))
    groups = {name[:k] for name in known for k, letter in enumerate(name) if letter == '.'}
    if field in known or field in groups:
        return ''
    group, _, last = field.rpartition('.')
    lasts = {name: name.rpartition('.')[2] for name in known}
    close = difflib.get_close_matches(last, list(lasts.values()), 1, 0.75)
    likely = (
        [name for name in known if lasts[name] == last]
        or [name for name in known if set(last.split('_')) <= set(lasts[name].split('_'))]
        or difflib.get_close_matches(field, [*known, *groups], 1, 0.75)
        or [name for name in known if lasts[name] in close]
    )
    likely.sort(key=lambda name: name.rpartition('.')[0] != group)
    hint = 'see configs/README.md'
    if likely:
        hint = f'did you mean {" or ".join(map(repr, likely[:3]))}?'
    elif group in groups:
        hint = f'{group} has {", ".join(lasts[name] for name in known if name.startswith(group + "."))}'
    return f'the config has no field {field!r}; {hint}'


def recipe(config: ml_collections.ConfigDict, utterances: int) -> str:
    """Corpus whose settings suit another one of so many labelled utterances: the nearest of EMO-DB and RAVDESS.

    Returns:
        'emodb' or 'ravdess'; '' if the corpus has settings of its own, others are named, the two have none, or theirs change tasks or
        choose layers of an encoder that is not the config's.
    """
    settings = _CORPORA.get(config.system, {})
    named = config.settings_of != config.corpus or config.corpus in settings
    choices = [settings.get(name, {}) for name in RECIPE_SIZES]
    about_tasks = any(field.startswith('tasks.') for choice in choices for field in choice)
    default = PRETRAINED_FIELDS['encoder.weights'].default
    about_layers = any('encoder.layers' in choice for choice in choices)
    other_encoder = about_layers and config.encoder.weights != default
    if named or about_tasks or other_encoder or not any(choices):
        return ''
    return min(
        RECIPE_SIZES, key=lambda name: abs(math.log(max(utterances, 1) / RECIPE_SIZES[name]))
    )


def add_recipe(arguments: Sequence[str], name: str) -> list[str]:
    """The command line with `settings=NAME` behind the colon of `--config`."""
    return _add_option(arguments, f'{_SETTINGS}{name}')


def without_recipe(arguments: Sequence[str]) -> list[str]:
    """The command line with `settings=none` where a recipe would apply."""
    needed = recipe(parse_config(arguments), 1)
    return add_recipe(arguments, _NO_SETTINGS) if needed else list(arguments)


def settings_note(config: ml_collections.ConfigDict) -> str:
    """One line on settings that were not chosen for the corpus of a run; '' if they were."""
    known = _CORPORA.get(config.system, ())
    own = config.settings_of in (config.corpus, _NO_SETTINGS)
    if not known or (config.settings_of == config.corpus and config.corpus in known):
        return ''
    size = lambda name: f' ({RECIPE_SIZES[name]} utterances)' if name in RECIPE_SIZES else ''
    taken = (
        'the defaults' if own else f'the settings of {config.settings_of}{size(config.settings_of)}'
    )
    # Those of the synthetic corpus are chosen for speed.
    others = [
        f'{_SETTINGS}{name}{size(name)}'
        for name in known
        if name not in (config.settings_of, 'demo_speech')
    ]
    hint = f'; others, as an option after the colon of --config: {", ".join(others)}'
    return f'{config.corpus} has {taken}, which were not chosen for it{hint if others else ""}'


# Fields that change the results of conditions and of further corpora.
TESTED_WITH = (
    'test_noise_corpus',
    'babble_corpus',
    'attack_source',
    'few_shot',
    'few_shot_speakers',
    'few_shot_steps',
    'few_shot_learning_rate',
)


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as read back from a JSON file: lists for tuples."""
    return json.loads(json.dumps(config.to_dict()))


def flatten(config: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Dotted field -> value of a nested config."""
    flat = {}
    for name, value in config.items():
        nested = isinstance(value, Mapping | ml_collections.ConfigDict)
        flat |= flatten(value, f'{prefix}{name}.') if nested else {prefix + name: value}
    return flat


def compared(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted field -> value of the fields that identify a run, from a config in JSON form."""
    return {
        name: value
        for name, value in flatten(config).items()
        if name not in _SHARED or _SHARED[name].identity
    }


def check_front_end(front_end: FrontEnd, where: str = '') -> None:
    """Refuses an impossible front end.

    Args:
        front_end: front end of a config.
        where: prefix of the message.

    Raises:
        UserError: a value out of bounds, or values that exclude each other.
    """
    prefix = f'{where}config.data.front_end'
    for name, field in _FRONT_END.items():
        _check_bounds(f'{prefix}.{name}', getattr(front_end, name), field)
    if not (
        front_end.fmin < front_end.fmax <= front_end.sample_rate / 2
        and front_end.win_length <= front_end.n_fft
    ):
        raise UserError(f'{prefix} needs fmin < fmax <= sample_rate / 2 and win_length <= n_fft')


def check_config(config: ml_collections.ConfigDict) -> None:
    """Refuses values that would fail late in a run, or have no effect.

    Raises:
        UserError: a value out of bounds, or fields that exclude each other.
    """
    # --config.system renames a run: its own fields are then sought among those of all systems.
    own = _OWN.get(config.system, collections.ChainMap(*_OWN.values()))
    values = flatten(config)
    # The bounds of config.model are those of the network that it names, where a system declares it.
    networks = {fields['model.name'].default: fields for fields in _OWN.values()}
    network = networks.get(values.get('model.name'), {})
    own = {name: field for name, field in own.items() if not name.startswith('model.')} | {
        name: field for name, field in network.items() if name.startswith('model.')
    }
    for name, field in {**_SHARED, **own}.items():
        if values.get(name) is not None:  # else of another system
            _check_bounds(f'config.{name}', values[name], field)
    for name, value in values.items():
        if type(value) is int and abs(value) > _LARGEST:
            raise UserError(f'config.{name} is {value}; it must be at most {_LARGEST}')
        # 1e-300 would become 0 on a device, and 1e300 infinite.
        if isinstance(value, float) and value != 0 and not 1e-30 <= abs(value) <= 1e30:
            raise UserError(
                f'config.{name} is {value}; it must be a finite number, 0 or from 1e-30 to 1e30'
            )
    check_front_end(FrontEnd(**config.data.front_end))
    for conflict in _conflicts(config):
        raise UserError(conflict)


def _check_bounds(name: str, value: Any, field: Field) -> None:
    if field.bounds and not field.bounds.test(value):
        raise UserError(f'{name} is {value!r}; it must be {field.bounds.words}')


def _conflicts(config: ml_collections.ConfigDict) -> Iterator[str]:
    """Messages on fields that exclude each other."""
    if config.corpus != config.settings_of and _SETTINGS + config.settings_of not in config.options:
        yield (
            f'config.corpus is {config.corpus!r}, but the settings are those of {config.settings_of}: '
            f'name the corpus after the colon, --config=FILE.py:{config.corpus}'
        )
    if not config.validation and not config.report_test:
        yield 'config.validation and config.report_test are both False: nothing would be reported'
    for field in ('labelled', 'unlabelled', 'noise_corpus', 'test_corpora'):
        names = config[field] if isinstance(config[field], tuple) else (config[field],)
        if config.corpus in names:
            yield f'config.{field}: {config.corpus} is the labelled corpus already'
    both = set(config.labelled) & set(config.unlabelled)
    if both:
        yield f'{min(both)} is both in config.labelled and in config.unlabelled'
    trained = (config.corpus, *config.labelled, *config.unlabelled, config.noise_corpus)
    if config.babble_corpus and config.babble_corpus in trained:
        yield (
            f'config.babble_corpus: {config.babble_corpus} is in use already: name a corpus that is '
            'neither trained on nor tested'
        )
    if config.test_corpora and not config.report_test:
        yield 'config.test_corpora need config.report_test: they are tested'
    if config.test_corpora and not config.final:
        yield 'config.test_corpora need config.final: they are tested with the final model'
    chains = [parse_chain(text, 'augmentation') for text in config.augmentations]
    augmentations = {name for chain in chains for name, _ in chain}
    for field, used, user in (
        ('target_statistics', config.test_corpora, 'config.test_corpora'),
        ('few_shot', config.test_corpora, 'config.test_corpora'),
        ('few_shot_speakers', config.test_corpora, 'config.test_corpora'),
        ('noise_corpus', 'noise' in augmentations, 'augmentation noise(…)'),
        ('noise_types', config.noise_corpus, 'config.noise_corpus'),
    ):
        if config[field] and not used:
            yield f'config.{field} is set, but there is no {user} to use it'
    n_unlabelled = round(config.unlabelled_share * config.batch_size)
    any_unlabelled = config.unlabelled or config.labelled_share < 1
    if any_unlabelled and not 0 < n_unlabelled < config.batch_size:
        yield (
            f'config.unlabelled_share is {config.unlabelled_share}: {n_unlabelled} of {config.batch_size} '
            'utterances of a batch would be unlabelled; there must be some with and some without labels'
        )
    emotion = config.tasks.get('emotion')
    if config.adversarial_epsilon and (
        config.representation != 'log_mel' or emotion is None or not emotion.weight
    ):
        yield (
            "config.adversarial_epsilon needs config.representation 'log_mel' and the task emotion: it attacks that task"
        )
    reconstructs = any(task.kind == 'reconstruction' for task in config.tasks.values())
    waveform = config.representation == 'waveform'
    encoded = config.representation == 'encoded'
    tuned = bool(config.get('fine_tune', {}).get('trains', ''))
    if waveform and ((config.augmentations and not tuned) or reconstructs):
        yield "augmentations and reconstruction need log-mels or an encoder, but config.representation is 'waveform'"
    if 'fine_tune' in config and tuned != waveform:
        yield (
            f'config.fine_tune.trains is {config.fine_tune.trains!r}; what trains must be named where config.representation is '
            "'waveform', and only there: see the option fine_tune"
        )
    if tuned:
        yield from _fine_tuning_conflicts(config)
    if encoded and 'encoder' not in config:
        yield "config.representation 'encoded' belongs to systems with a config.encoder"
    statistics = encoded and config.encoder.output == 'statistics'
    if statistics and reconstructs:
        yield "reconstruction needs config.encoder.output 'frames': statistics have no time axis"
    if statistics and 'spec_mask' in augmentations:
        yield "config.augmentations: spec_mask needs config.encoder.output 'frames'"
    if encoded and reconstructs and config.reconstruction_target != 'clean':
        yield "config.reconstruction_target must be 'clean' where config.representation is 'encoded'"
    frames = encoded and not statistics
    if 'input' in config.model and (config.model.input == 'frames') != frames:
        yield (
            f"config.model.input is {config.model.input!r}; it must be 'frames' where config.representation is 'encoded', and "
            'only there: see the option whisper_tiny'
        )
    if frames and 640 % config.data.front_end.hop_length:
        yield (
            f'config.data.front_end.hop_length is {config.data.front_end.hop_length}; frames of an encoder need a divisor of 640'
        )
    if (encoded or tuned) and config.data.front_end.sample_rate != 16000:
        yield (
            f'config.data.front_end.sample_rate is {config.data.front_end.sample_rate}; encoders need 16000'
        )
    if statistics and config.crop_frames != 1:
        yield f"config.crop_frames is {config.crop_frames}; with config.encoder.output 'statistics' it must be 1"
    if not statistics and config.crop_frames < 16:
        yield (
            f'config.crop_frames is {config.crop_frames}; with config.representation {config.representation!r} it must be at '
            'least 16'
        )
    if (encoded or tuned) and config.noise_corpus:
        yield f'config.noise_corpus needs log-mels, but config.representation is {config.representation!r}'
    for name in config.reported:
        task = config.tasks.get(name)
        made_up = ('augmentation_type', 'log_mel')  # targets that no corpus has labels of
        if task is None or task.target in made_up or task.weight <= 0:
            yield (
                f'config.reported needs a classification or regression {name!r} of labels with a weight above 0 in config.tasks'
            )
    for name, task in config.tasks.items():
        if (name == 'emotion') != (task.target == 'emotion'):
            yield (
                f"config.tasks.{name}.target is {task.target!r}: the task 'emotion', and no other, has the target 'emotion'"
            )
        facts = (name == 'reconstruction', task.kind == 'reconstruction', task.target == 'log_mel')
        if any(facts) and not all(facts):
            yield (
                f"config.tasks.{name} has the kind {task.kind!r} and the target {task.target!r}: the task 'reconstruction', and no "
                "other, has the kind 'reconstruction' and the target 'log_mel'"
            )


def _fine_tuning_conflicts(config: ml_collections.ConfigDict) -> Iterator[str]:
    """Messages on fields that exclude fine-tuning of the encoder."""
    if config.encoder.output != 'statistics':
        yield f"config.encoder.output is {config.encoder.output!r}; fine-tuning needs 'statistics'"
    if config.target_statistics:
        yield (
            'config.target_statistics and config.fine_tune.trains exclude each other: a fine-tuned encoder has no stored outputs'
        )
