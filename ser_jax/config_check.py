"""What no config may say."""

import ml_collections

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.runtime.errors import UserError

_LARGEST = 2**31 - 1  # whole number that JAX holds
_LARGEST_SIZE = 65_536  # of a layer, a batch, a transform; above it, it is the memory that refuses

_SIZE = f'a whole number from 1 to {_LARGEST_SIZE}'


def _is_size(value: object) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST_SIZE


def _is_float32(value: float) -> bool:
    """Whether a number stays what it is on a device, where 1e-300 would become 0 and 1e300 infinite."""
    return value == 0 or 1e-30 <= abs(value) <= 1e30


def _are_texts(values: tuple) -> bool:
    return all(isinstance(value, str) and value for value in values)


_OPTIMISER_RULES = (
    ('learning_rate', lambda x: x > 0, 'above 0'),
    ('warmup', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('beta1', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('weight_decay', lambda x: x >= 0, 'at least 0'),
    ('clip', lambda x: x > 0, 'above 0'),
    ('average', lambda x: 0 <= x < 1, 'from 0 to below 1'),
)
_FRONT_END_RULES = (
    ('sample_rate', lambda x: 1000 <= x <= 768_000, 'from 1000 to 768000'),
    *((field, _is_size, _SIZE) for field in ('n_fft', 'win_length', 'hop_length', 'n_mels')),
    ('fmin', lambda x: x >= 0, 'at least 0'),
    ('fmax', lambda x: x > 0, 'above 0'),
    ('floor', lambda x: x > 0, 'above 0'),
)
# What each field must be, where its type does not say it: (field, test, in words).
RULES = (
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
    ('skipped_steps', lambda x: x >= 1, 'at least 1'),
    ('batch_size', _is_size, _SIZE),
    ('eval_batch_size', _is_size, _SIZE),
    ('crop_frames', lambda x: 16 <= x <= _LARGEST_SIZE, f'from 16 to {_LARGEST_SIZE}'),
    ('label_smoothing', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('adversarial_epsilon', lambda x: 0 <= x <= 10, 'from 0 to 10'),
    ('clean_share', lambda x: 0 <= x <= 1, 'from 0 to 1'),
    ('folds', lambda x: all(type(k) is int and k >= 1 for k in x), 'whole numbers from 1'),
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
    ('objective', lambda x: x in ('multitask', 'adversarial'), "'multitask' or 'adversarial'"),
    (
        'model.channels',
        lambda x: x and all(_is_size(c) for c in x),
        f'one or more whole numbers from 1 to {_LARGEST_SIZE}',
    ),
    *(
        (f'model.{field}', _is_size, _SIZE)
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
            'code_features',
            'decoder_features',
            'discriminator_features',
        )
    ),
    ('adversary.separation', lambda x: x >= 0, 'at least 0'),
    ('adversary.gradient_penalty', lambda x: x >= 0, 'at least 0'),
    *(
        (f'{optimiser}.{field}', test, words)
        for optimiser in (
            'optimiser',
            *(f'optimisers.{name}' for name in ('reconstruction', 'discriminator', 'generator')),
        )
        for field, test, words in _OPTIMISER_RULES
    ),
    ('model.dropout', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('model.map_dropout', lambda x: 0 <= x < 1, 'from 0 to below 1'),
    ('data.memory_gb', lambda x: x >= 0, 'at least 0'),
    *((f'data.front_end.{field}', test, words) for field, test, words in _FRONT_END_RULES),
)


def _refuse_unheld(config: ml_collections.ConfigDict, prefix: str = 'config') -> None:
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            _refuse_unheld(value, f'{prefix}.{name}')
        elif type(value) is int and abs(value) > _LARGEST:
            raise UserError(f'{prefix}.{name} is {value}; it must be at most {_LARGEST}')
        elif isinstance(value, float) and not _is_float32(value):
            raise UserError(
                f'{prefix}.{name} is {value}; it must be a finite number, 0 or from 1e-30 to 1e30'
            )


def check_front_end(front_end: FrontEnd, where: str = '') -> None:
    """Refuses a front end that cannot be.

    Args:
        front_end: of a config.
        where: what stands before the message.

    Raises:
        UserError: such a front end, and what it must be.
    """
    for field, test, words in _FRONT_END_RULES:
        value = getattr(front_end, field)
        if not test(value):
            raise UserError(
                f'{where}config.data.front_end.{field} is {value!r}; it must be {words}'
            )
    if not (
        front_end.fmin < front_end.fmax <= front_end.sample_rate / 2
        and front_end.win_length <= front_end.n_fft
    ):
        raise UserError(
            f'{where}config.data.front_end needs fmin < fmax <= sample_rate / 2 and win_length <= n_fft'
        )


def check_config(config: ml_collections.ConfigDict) -> None:
    """Refuses values that would only fail later, or never say that they make no sense.

    Raises:
        UserError: such a value, and what it must be.
    """
    for field, test, words in RULES:
        value = config
        for name in field.split('.'):
            value = value.get(name) if hasattr(value, 'get') else None
        if value is not None and not test(value):  # fields of a network are its own
            raise UserError(f'config.{field} is {value!r}; it must be {words}')
    _refuse_unheld(config)
    check_front_end(FrontEnd(**config.data.front_end))
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
    trained = (config.corpus, *config.labelled, *config.unlabelled, config.noise_corpus)
    if config.babble_corpus and config.babble_corpus in trained:
        raise UserError(
            f'config.babble_corpus: {config.babble_corpus} is in use already: name a corpus that neither trains nor is tested'
        )
    if config.test_corpora and not config.report_test:
        raise UserError('config.test_corpora are tested: they need config.report_test')
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
    emotion = config.tasks.get('emotion')
    if config.adversarial_epsilon and (
        config.representation != 'log_mel' or emotion is None or not emotion.weight
    ):
        raise UserError(
            'config.adversarial_epsilon attacks the emotion on log-mels: it needs that task and that representation'
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
