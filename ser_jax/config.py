"""The fields every config has, the `CORPUS,OPTION…` argument, and what no config may say."""

import dataclasses
from collections.abc import Mapping

import ml_collections

from ser_jax.errors import UserError
from ser_jax.features import FrontEnd


def base_config() -> ml_collections.ConfigDict:
    """The fields shared by all systems, with their defaults; a config file adds its own."""
    config = ml_collections.ConfigDict()
    config.system = ''  # name of the config file
    config.representation = 'log_mel'  # what the network sees; or 'waveform'
    config.seed = 0  # of initial parameters, data order, augmentation and dropout

    # What is learnt from, and how it is evaluated.
    config.corpus = 'demo_speech'
    config.labels = ()  # emotions to tell apart; () = the corpus's usual ones
    config.reported = ('emotion',)  # classifications and regressions that are validated and tested
    config.protocol = ''  # e.g. 'speaker_folds(4)'; '' = the corpus's usual one
    config.folds = ()  # numbers of the folds to run, from 1; () = all
    config.validation = True  # False: validation speakers train too, the last parameters are tested
    config.conditions = ()  # tested beside clean, e.g. "noise('rain', 5)", 'telephone', 'pgd(0.05, 20)'
    config.test_noise_corpus = (
        ''  # prepared corpus whose types of noise the condition noise(…) takes
    )
    config.babble_corpus = ''  # prepared corpus whose speakers the condition babble(…) takes
    config.attack_source = (
        ''  # workdir of the run on whose models the conditions transfer_… are made
    )
    # Prepared corpora that the final model is tested on, over the emotions they share with config.corpus.
    config.test_corpora = ()
    config.target_statistics = False  # also normalised by their own statistics (transductive)
    config.few_shot = ()  # also adapted to so many of their utterances a class, e.g. (0, 5, 10, 15)
    config.few_shot_speakers = ()  # also adapted to such shares of their speakers, e.g. (0.2,)
    config.few_shot_steps = 100
    config.few_shot_learning_rate = 5e-4  # peak
    config.report_test = True  # False: development; test speakers are never read (no final model)
    config.final = True  # train a last model on all speakers, for predict and export
    config.labelled_share = 1.0  # of each training speaker's utterances; the rest join unlabelled
    config.labelled = ()  # prepared corpora that join training with their emotion labels
    config.unlabelled = ()  # … and without them
    config.unlabelled_share = 0.5  # of each batch, where there are any
    config.noise_corpus = ''  # prepared corpus for the augmentation noise(…); '' = coloured noise
    config.noise_types = ()  # of its noise, e.g. ('sea_waves', 'clock_tick'); () = all

    # Each utterance is left clean or undergoes one of these; which one is the augmentation type.
    config.augmentations = ()
    config.clean_share = 0.4  # probability of clean; the augmentations share the rest
    config.reconstruction_target = 'clean'  # or 'augmented': what the network sees

    # Training.
    config.batch_size = 16  # utterances a step, over all devices
    config.crop_frames = 200  # 10 ms each; longer utterances are cropped at random in training
    config.steps = 1200
    config.eval_every = 100  # steps between validations (and checkpoints)
    config.patience = 6  # validations without a better one before training stops
    config.eval_batch_size = 16
    config.class_weights = True  # every emotion counts the same in the loss
    config.label_smoothing = 0.1
    config.adversarial_epsilon = 0.0  # trains on inputs attacked within it (standardised log-mel)
    config.parallelism = 'jit'  # or 'pmap'
    config.parallel_runs = (
        1  # folds trained side by side in one program, each on one device (or CPU core)
    )
    config.objective = 'multitask'  # or 'adversarial': see configs/adversarial_autoencoder.py
    config.optimiser = ml_collections.ConfigDict(
        {
            'learning_rate': 2e-3,  # peak
            'warmup': 0.1,  # share of the steps
            'beta1': 0.9,  # of Adam: decay of the gradient's average
            'weight_decay': 0.05,
            'clip': 1.0,  # largest global norm of the gradient
            'average': 0.98,  # decay of the parameters' moving average, which is evaluated
        }
    )

    config.data = ml_collections.ConfigDict(
        {
            'data_dir': '~/.cache/ser_jax/records',  # prepared corpora
            'manual_dir': '',  # the corpus as its owner delivers it; '' = $SER_JAX_MANUAL_DIR/<corpus>
            'memory_gb': 4.0,  # corpora up to this size are kept in memory
            'front_end': dataclasses.asdict(FrontEnd()),
        }
    )
    return config


# What the option `smoke` of every system sets, beside a small network of its own.
SMOKE = {
    'folds': (1,),
    'steps': 4,
    'eval_every': 2,
    'batch_size': 8,
    'eval_batch_size': 8,
    'final': False,
}


def apply_options(
    config: ml_collections.ConfigDict,
    argument: str,
    presets: Mapping[str, Mapping],
    corpora: Mapping[str, Mapping],
) -> ml_collections.ConfigDict:
    """Applies what stands after the colon of `--config=FILE.py:CORPUS,OPTION…`.

    Args:
        config: to change.
        argument: `''`, or a corpus, or a corpus and options, separated by commas.
        presets: option -> fields to set ('optimiser.learning_rate' for nested ones).
        corpora: corpus -> fields to set for it.

    Returns:
        `config`, with `config.options` the options given.

    Raises:
        UserError: an unknown option.
    """
    corpus, *options = [word.strip() for word in argument.split(',')]
    if corpus in presets:
        raise UserError(
            f'{corpus!r} is an option, which stands behind a corpus: :{config.corpus},{corpus}'
        )
    config.corpus = corpus or config.corpus
    unknown = [option for option in options if option not in presets]
    if unknown:
        raise UserError(
            f'unknown option {unknown[0]!r} after the corpus; there are: {", ".join(sorted(presets))}'
        )
    config.options = tuple(options)
    config.settings_of = config.corpus  # whose settings are applied below
    for changes in (corpora.get(config.corpus, {}), *(presets[option] for option in options)):
        config.update_from_flattened_dict(dict(changes))
    return config


def _is_size(value: object) -> bool:
    return type(value) is int and value >= 1


def _are_texts(values: tuple) -> bool:
    return all(isinstance(value, str) and value for value in values)


# What each field must be, where its type does not say it: (field, test, in words).
_RULES = (
    *(
        (field, _are_texts, "texts, e.g. ('name',)")
        for field in (
            'conditions',
            'test_corpora',
            'labelled',
            'unlabelled',
            'noise_types',
            'labels',
            'augmentations',
        )
    ),
    ('seed', lambda x: x >= 0, 'a whole number from 0'),
    ('steps', lambda x: x >= 1, 'at least 1'),
    ('eval_every', lambda x: x >= 1, 'at least 1'),
    ('patience', lambda x: x >= 1, 'at least 1'),
    ('parallel_runs', lambda x: x >= 1, 'at least 1'),
    ('batch_size', lambda x: x >= 1, 'at least 1'),
    ('eval_batch_size', lambda x: x >= 1, 'at least 1'),
    ('crop_frames', lambda x: x >= 16, 'at least 16'),
    ('label_smoothing', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('adversarial_epsilon', lambda x: 0 <= x <= 10, 'from 0 to 10'),
    ('clean_share', lambda x: 0 <= x <= 1, 'from 0 to 1'),
    ('few_shot', lambda x: all(type(k) is int and k >= 0 for k in x), 'whole numbers from 0'),
    (
        'few_shot_speakers',
        lambda x: all(type(s) in (int, float) and 0 <= s < 1 for s in x),
        'shares from 0 to below 1',
    ),
    ('few_shot_steps', lambda x: x >= 1, 'at least 1'),
    ('few_shot_learning_rate', lambda x: x > 0, 'above 0'),
    ('labelled_share', lambda x: 0 < x <= 1, 'above 0, at most 1'),
    ('unlabelled_share', lambda x: 0 < x < 1, 'between 0 and 1'),
    ('representation', lambda x: x in ('log_mel', 'waveform'), "'log_mel' or 'waveform'"),
    ('parallelism', lambda x: x in ('jit', 'pmap'), "'jit' or 'pmap'"),
    ('reconstruction_target', lambda x: x in ('clean', 'augmented'), "'clean' or 'augmented'"),
    ('labels', lambda x: len(set(x)) == len(x) != 1, 'at least two different emotions, or ()'),
    ('optimiser.learning_rate', lambda x: x > 0, 'above 0'),
    ('optimiser.warmup', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('objective', lambda x: x in ('multitask', 'adversarial'), "'multitask' or 'adversarial'"),
    ('optimiser.beta1', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('optimiser.weight_decay', lambda x: x >= 0, 'at least 0'),
    ('optimiser.clip', lambda x: x > 0, 'above 0'),
    ('optimiser.average', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    (
        'model.channels',
        lambda x: x and all(_is_size(c) for c in x),
        'one or more whole numbers from 1',
    ),
    *(
        (f'model.{field}', _is_size, 'a whole number from 1')
        for field in (
            'frame_features',
            'blstm_features',
            'embedding_features',
            'decoder_channels',
            'filters',
            'width',
            'pool_channels',
            'frame_samples',
            'hop_samples',
            'gru_features',
            'gru_layers',
        )
    ),
    ('model.dropout', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('model.map_dropout', lambda x: 0 <= x < 1, 'from 0 to below 1'),
)


def check_config(config: ml_collections.ConfigDict) -> None:
    """Refuses values that would only fail later, or never say that they make no sense.

    Raises:
        UserError: such a value, and what it must be.
    """
    for field, test, words in _RULES:
        value = config
        for name in field.split('.'):
            value = value.get(name) if hasattr(value, 'get') else None
        if value is not None and not test(value):  # fields of a network are its own
            raise UserError(f'config.{field} is {value!r}; it must be {words}')
    if config.corpus != config.settings_of:
        raise UserError(
            f'config.corpus is {config.corpus!r}, but the settings are those of {config.settings_of}: '
            f'name the corpus behind the colon, --config=FILE.py:{config.corpus}'
        )
    if not config.validation and not config.report_test:
        raise UserError(
            'with config.validation and config.report_test both False nothing is reported'
        )
    for field in ('labelled', 'unlabelled', 'noise_corpus', 'test_corpora'):
        names = config[field] if isinstance(config[field], tuple) else (config[field],)
        if config.corpus in names:
            raise UserError(f'config.{field}: {config.corpus} is the labelled corpus already')
    twice = set(config.labelled) & set(config.unlabelled)
    if twice:
        raise UserError(f'{min(twice)} is both in config.labelled and in config.unlabelled')
    for field in ('conditions', 'test_corpora'):
        if config[field] and not config.report_test:
            raise UserError(f'config.{field} are tested: they need config.report_test')
    if config.test_corpora and not config.final:
        raise UserError(
            'config.test_corpora are tested with the final model: they need config.final'
        )
    for field, used, user in (
        ('target_statistics', config.test_corpora, 'config.test_corpora'),
        ('few_shot', config.test_corpora, 'config.test_corpora'),
        ('few_shot_speakers', config.test_corpora, 'config.test_corpora'),
        ('noise_corpus', 'noise(' in ' '.join(config.augmentations), 'augmentation noise(…)'),
        ('noise_types', config.noise_corpus, 'config.noise_corpus'),
    ):
        if config[field] and not used:
            raise UserError(f'config.{field} is set, but there is no {user} to use it')
    n_unlabelled = round(config.unlabelled_share * config.batch_size)
    any_unlabelled = config.unlabelled or config.labelled_share < 1
    if any_unlabelled and not 0 < n_unlabelled < config.batch_size:
        raise UserError(
            f'config.unlabelled_share = {config.unlabelled_share} of {config.batch_size} utterances '
            f'makes {n_unlabelled} unlabelled ones a batch: there must be some of either kind'
        )
    of_log_mels = config.augmentations or any(
        task.kind == 'reconstruction' for task in config.tasks.values()
    )
    if config.representation == 'waveform' and of_log_mels:
        raise UserError(
            "augmentations and reconstruction work on log-mels, but config.representation is 'waveform'"
        )
    if not config.reported or len(set(config.reported)) < len(config.reported):
        raise UserError(
            f'config.reported is {config.reported!r}; it must be one or more different tasks'
        )
    for name in config.reported:
        task = config.tasks.get(name)
        if task is None or task.kind == 'reconstruction' or task.weight <= 0:
            raise UserError(
                f'config.reported needs a classification or regression {name!r} with a weight above 0 in config.tasks'
            )
    for name, task in config.tasks.items():
        if (name == 'emotion') != (task.target == 'emotion'):
            raise UserError(
                f"config.tasks.{name}.target is {task.target!r}: the task 'emotion', and no other, has the target 'emotion'"
            )
