"""Multitask semi-supervised adversarial autoencoder (after Latif et al. 2022, arXiv 1907.06078): emotion, speaker, gender.

python -m ser_jax.main --config=configs/adversarial_autoencoder.py                      (synthetic speech)
python -m ser_jax.main --config=configs/adversarial_autoencoder.py:emodb,auxiliary      (with speech of three other corpora)
python -m ser_jax.main --config=configs/adversarial_autoencoder.py:emodb,single_task    (the same encoder, the emotion only)
python -m ser_jax.main --config=configs/adversarial_autoencoder.py:demo_speech,dimensions       (ratings as well as the emotion)

Published: an adversarial autoencoder whose latent code feeds classifiers of emotion, speaker and gender, trained together on
speech with and without emotion labels. Everything else (features, sizes, prior, order, rates) is ours: the full text of the
paper was not available.
"""

import ml_collections

from ser_jax.config import (
    ENCODER_FIELDS,
    FRACTION,
    NO_VALIDATION,
    NOT_NEGATIVE,
    PRETRAINED_FIELDS,
    SIZE,
    WHISPER_TINY,
    Field,
    Option,
    apply_options,
    base_config,
    one_of,
    optimiser_fields,
    smoke,
    task_fields,
)

_DIMENSIONS = ('arousal', 'valence', 'dominance')
_PHASES = ('reconstruction', 'discriminator', 'generator', 'supervised')

# The weight of a phase is its learning rate: Adam is invariant to the scale of a loss. Rates three to ten times as large and
# weights of speaker and gender five times as large cost the emotion 3 to 22 points on validation speakers (results/development.md).
_RATES = {'learning_rate': 1e-4, 'weight_decay': 0.0}

FIELDS = {
    'model.name': Field('adversarial_autoencoder', 'module in ser_jax/models/'),
    'model.input': Field(
        'log_mel',
        "input of the encoder; 'functionals': mean and standard deviation of the log-mel; 'frames' of a pretrained encoder",
        one_of('log_mel', 'functionals', 'frames'),
    ),
    'model.adversary': Field(
        True, 'whether there is a discriminator; must agree with config.phases'
    ),
    **ENCODER_FIELDS,
    'model.dropout': Field(0.3, 'dropout rate of the encoder', FRACTION),
    'model.embedding_features': Field(
        64, 'features of the hidden layer before the code, and of the heads', SIZE
    ),
    'model.code_features': Field(64, 'features of the code of an utterance', SIZE),
    'model.decoder_features': Field(256, "features of the decoder's hidden layers", SIZE),
    'model.discriminator_features': Field(
        128, "features of the discriminator's hidden layers", SIZE
    ),
    **PRETRAINED_FIELDS,
    **task_fields('emotion', 1.0),
    **task_fields('speaker', 0.02),
    **task_fields('gender', 0.02),
    **task_fields('reconstruction', 1.0, kind='reconstruction', target='log_mel'),
    **task_fields('arousal', 0.0, kind='regression'),
    **task_fields('valence', 0.0, kind='regression'),
    **task_fields('dominance', 0.0, kind='regression'),
    'adversary.prior': Field(
        'mixture',
        "prior of the codes: a Gaussian per emotion; or 'gaussian', one for all",
        one_of('gaussian', 'mixture'),
    ),
    'adversary.separation': Field(
        3.0,
        "distance of the mixture's means from the origin, in standard deviations",
        NOT_NEGATIVE,
    ),
    'adversary.gradient_penalty': Field(
        1.0, 'weight of the gradient penalty R1 on the discriminator', NOT_NEGATIVE
    ),
    'phases': Field(
        _PHASES, 'updates of a step, in order; the phase supervised uses config.optimiser'
    ),
    **optimiser_fields('optimisers.reconstruction', **_RATES),
    **optimiser_fields('optimisers.discriminator', **_RATES, beta1=0.5),
    **optimiser_fields('optimisers.generator', **_RATES, beta1=0.5),
}

OPTIONS = {
    'whisper_tiny': Option(
        'frames of frozen Whisper tiny.en instead of log-mels',
        WHISPER_TINY | {'crop_frames': 64},
        first=True,
    ),
    'no_autoencoder': Option(
        'without decoder and reconstruction', {'tasks.reconstruction.weight': 0.0}
    ),
    'no_adversary': Option('without discriminator and prior', {'model.adversary': False}),
    'no_speaker': Option('without the speaker task', {'tasks.speaker.weight': 0.0}),
    'no_gender': Option('without the gender task', {'tasks.gender.weight': 0.0}),
    'single_task': Option(
        'the same encoder, the emotion only',
        {
            'tasks.reconstruction.weight': 0.0,
            'tasks.speaker.weight': 0.0,
            'tasks.gender.weight': 0.0,
            'model.adversary': False,
        },
    ),
    'dimensions': Option(
        'also ratings of arousal, valence and dominance, for a corpus that has them',
        {
            **{f'tasks.{name}.weight': 1.0 for name in _DIMENSIONS},
            'reported': ('emotion', *_DIMENSIONS),
        },
    ),
    'auxiliary': Option(
        'nEMO, RAVDESS and LibriSpeech without emotion labels, as half of a batch twice as large',
        {'unlabelled': ('nemo', 'ravdess', 'librispeech'), 'batch_size': 32},
    ),
    'functionals': Option(
        'mean and standard deviation of the log-mel instead of its frames: fast to train',
        {'model.input': 'functionals'},
    ),
    'gaussian': Option(
        'a prior of one component instead of one per emotion', {'adversary.prior': 'gaussian'}
    ),
    'no_validation': NO_VALIDATION,
    'smoke': smoke(
        {
            'crop_frames': 64,
            'model.channels': (4, 4),
            'model.frame_features': 8,
            'model.blstm_features': 4,
            'model.embedding_features': 8,
            'model.code_features': 8,
            'model.decoder_features': 16,
            'model.discriminator_features': 8,
        }
    ),
}

# EMO-DB's settings were chosen on its validation speakers (results/development.md). The others take them without a search,
# RAVDESS with the steps of as many epochs (21).
_EMODB = {'steps': 400, 'optimiser.weight_decay': 1.0}
CORPORA = {
    'demo_speech': {'folds': (1,), 'steps': 400},
    **dict.fromkeys(('emodb', 'nemo', 'urdu'), _EMODB),
    'ravdess': _EMODB | {'steps': 1600},
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
    """The config for an argument: '', 'CORPUS' or 'CORPUS,OPTION…'."""
    config = base_config('adversarial_autoencoder', FIELDS)
    config.objective = 'adversarial'
    config = apply_options(config, argument, OPTIONS, CORPORA)
    off = ['reconstruction'] * (not config.tasks.reconstruction.weight)
    off += ['discriminator', 'generator'] * (not config.model.get('adversary', True))
    config.phases = tuple(name for name in _PHASES if name not in off)
    return config
