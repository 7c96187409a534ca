"""MTL-AUG (after Latif et al. 2022, arXiv 2207.05298): emotion + augmentation type + reconstruction.

python -m ser_jax.main --config=configs/mtl_aug.py                      (synthetic speech, a minute)
python -m ser_jax.main --config=configs/mtl_aug.py:emodb                (EMO-DB, leave one speaker out)
python -m ser_jax.main --config=configs/mtl_aug.py:ravdess,single_task  (without augmentation and auxiliary tasks)
"""

import ml_collections

from ser_jax.config import apply_options, base_config

OPTIONS = {
    'single_task': {
        'augmentations': (),
        'tasks.augmentation_type.weight': 0.0,
        'tasks.reconstruction.weight': 0.0,
    },
    'augment_only': {
        'tasks.augmentation_type.weight': 0.0,
        'tasks.reconstruction.weight': 0.0,
    },
    'no_reconstruction': {'tasks.reconstruction.weight': 0.0},
    'no_augmentation_type': {'tasks.augmentation_type.weight': 0.0},
    'smoke': {
        'folds': (1,),
        'steps': 4,
        'eval_every': 2,
        'batch_size': 8,
        'crop_frames': 64,
        'eval_batch_size': 8,
        'final': False,
        'model.channels': (4, 4, 4),
    },
}

CORPORA = {
    'demo_speech': {'folds': (1,)},
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
    """The config of `argument`: '', 'CORPUS' or 'CORPUS,OPTION…'."""
    config = base_config()
    config.system = 'mtl_aug'
    config.model = ml_collections.ConfigDict({'name': 'mtl_aug', 'channels': (24, 48, 64)})
    config.tasks = ml_collections.ConfigDict(
        {
            'emotion': {'kind': 'classification', 'target': 'emotion', 'weight': 1.0},
            'augmentation_type': {
                'kind': 'classification',
                'target': 'augmentation_type',
                'weight': 0.1,
            },
            'reconstruction': {'kind': 'reconstruction', 'target': 'log_mel', 'weight': 0.1},
        }
    )
    config.augmentations = (
        'speed(0.85, 1.18)',
        'mixup(0.4)',
        'spec_mask(2, 0.15, 0.15)',
        'noise(0, 20)',
    )
    config.reconstruction_target = 'clean'  # or 'augmented': what the network sees
    return apply_options(config, argument, OPTIONS, CORPORA)
