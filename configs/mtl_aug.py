"""MTL-AUG (after Latif et al. 2022, arXiv 2207.05298): emotion + augmentation type + reconstruction.

python -m ser_jax.main --config=configs/mtl_aug.py                      (synthetic speech, two minutes)
python -m ser_jax.main --config=configs/mtl_aug.py:emodb                (EMO-DB, leave one speaker out)
python -m ser_jax.main --config=configs/mtl_aug.py:ravdess,single_task  (without augmentation and auxiliary tasks)
python -m ser_jax.main --config=configs/mtl_aug.py:emodb,whisper_tiny   (on frames of a frozen pretrained encoder)
"""

import ml_collections

from ser_jax.config import (
    ENCODER_FIELDS,
    FRACTION,
    NO_VALIDATION,
    PRETRAINED_FIELDS,
    SIZE,
    VIEWS,
    WHISPER_TINY,
    Field,
    Option,
    apply_options,
    base_config,
    one_of,
    smoke,
    task_fields,
)

FIELDS = {
    'model.name': Field('mtl_aug', 'module in ser_jax/models/'),
    'model.input': Field(
        'log_mel',
        "input of the network: 'log_mel', or 'frames' of a pretrained encoder",
        one_of('log_mel', 'frames'),
    ),
    **ENCODER_FIELDS,
    'model.embedding_features': Field(64, 'features of the embedding of an utterance', SIZE),
    'model.decoder_channels': Field(16, 'channels of the convolution that reconstructs', SIZE),
    'model.dropout': Field(0.3, 'dropout rate of steps, pooled vector and embedding', FRACTION),
    **PRETRAINED_FIELDS,
    **task_fields('emotion', 1.0),
    **task_fields('augmentation_type', 0.2),
    **task_fields('reconstruction', 0.1, kind='reconstruction', target='log_mel'),
}

OPTIONS = {
    'whisper_tiny': Option(
        'frames of frozen Whisper tiny.en instead of log-mels',
        WHISPER_TINY,
        first=True,
    ),
    'single_task': Option(
        "emotion only: no augmentation, no auxiliary task; with the dropout chosen on EMO-DB's validation speakers "
        '(RAVDESS: 0.3)',
        {
            'augmentations': (),
            'tasks.augmentation_type.weight': 0.0,
            'tasks.reconstruction.weight': 0.0,
            'model.dropout': 0.4,
        },
    ),
    'augment_only': Option(
        'augmented training data, no auxiliary task',
        {'tasks.augmentation_type.weight': 0.0, 'tasks.reconstruction.weight': 0.0},
    ),
    'no_reconstruction': Option(
        'emotion and augmentation type', {'tasks.reconstruction.weight': 0.0}
    ),
    'no_augmentation_type': Option(
        'emotion and reconstruction, with augmentation', {'tasks.augmentation_type.weight': 0.0}
    ),
    'no_validation': NO_VALIDATION,
    'smoke': smoke(
        {
            'crop_frames': 64,
            'model.channels': (4, 4),
            'model.frame_features': 8,
            'model.blstm_features': 4,
            'model.embedding_features': 8,
            'model.decoder_channels': 4,
        }
    ),
}

_EMODB = {
    'steps': 1200,
    'eval_every': 200,
    'optimiser.weight_decay': 1.0,
    'augmentations': (
        'speed(0.87, 1.15)',
        'mixup(0.3)',
        'spec_mask(2, 0.15, 0.15)',
        'noise(10, 30)',
        'gain(-20, 10) + filter_augment(12)',
    ),
    'clean_share': 0.25,
}
# The settings of EMO-DB and RAVDESS were chosen on their validation speakers (results/development.md). nEMO and URDU take
# EMO-DB's without a search; those of demo_speech are for speed.
CORPORA = {
    'demo_speech': {'folds': (1,), 'steps': 400},
    'emodb': _EMODB,
    'nemo': _EMODB,
    'urdu': _EMODB,
    'ravdess': {
        'crop_frames': 256,
        'steps': 3600,
        'eval_every': 300,
        'optimiser.weight_decay': 0.3,
        'model.channels': (32, 48, 64),
        'augmentations': (
            'speed(0.87, 1.15)',
            'mixup(0.3)',
            'spec_mask(2, 0.15, 0.15)',
            'noise(20, 40)',
            'speed(0.87, 1.15) + spec_mask(2, 0.15, 0.15)',
            'gain(-20, 10) + filter_augment(12)',
        ),
        'clean_share': 0.25,
    },
}


# On frames of Whisper tiny.en, chosen on validation speakers of EMO-DB and RAVDESS.
_ON_FRAMES = {
    'augmentations': VIEWS,
    'clean_share': 0.25,
    'batch_size': 32,
    'crop_frames': 64,
    'steps': 400,
    'optimiser.weight_decay': 1.0,
}
CORPORA_ON_FRAMES = {
    'demo_speech': {'folds': (1,)},
    'emodb': {},
    'nemo': {},
    'urdu': {},
    'ravdess': {
        'crop_frames': 128,
        'steps': 600,
        'model.blstm_features': 0,
        'model.dropout': 0.1,
    },
}
_WITHOUT_DROPOUT = {k: v for k, v in OPTIONS['single_task'].sets.items() if k != 'model.dropout'}
OPTIONS_ON_FRAMES = OPTIONS | {
    'single_task': Option('emotion only: no views, no auxiliary task', _WITHOUT_DROPOUT)
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
    """The config for an argument: '', 'CORPUS' or 'CORPUS,OPTION…'."""
    config = base_config('mtl_aug', FIELDS)
    options, corpora = OPTIONS, CORPORA
    config.augmentations = (
        'speed(0.9, 1.1)',
        'mixup(0.2)',
        'spec_mask(2, 0.1, 0.1)',
        'noise(15, 30)',
    )
    if 'whisper_tiny' in [word.strip() for word in argument.split(',')[1:]]:
        config.update_from_flattened_dict(_ON_FRAMES)
        options, corpora = OPTIONS_ON_FRAMES, CORPORA_ON_FRAMES
    return apply_options(config, argument, options, corpora)
