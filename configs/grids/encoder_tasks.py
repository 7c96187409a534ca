"""Does MTL-AUG pay on a pretrained encoder? Its parts one by one, on frames of frozen Whisper tiny.en.

python -m ser_jax.grid --config=configs/grids/encoder_tasks.py     (needs emodb, ravdess, nemo)

The baseline has the augmented views as data, without an auxiliary task. Steps and rates are those of the full system.
"""

_NOISE = {'conditions': ("noise('pink', 5)", 'telephone'), 'final': False, 'parallel_runs': 2}


def _corpus(name: str) -> dict:
    return {'argument': f'{name},whisper_tiny,no_validation', 'changes': _NOISE}


def get_grid() -> dict:
    """Settings are the corpora."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {name: _corpus(name) for name in ('emodb', 'ravdess', 'nemo')},
        'variants': {
            'single_task': {'argument': 'single_task'},
            'views': {'argument': 'augment_only'},
            'views_type': {'argument': 'no_reconstruction'},
            'views_reconstruction': {'argument': 'no_augmentation_type'},
            'full': {},
        },
        'seeds': (0,),
        'baseline': 'views',
        'family': 'condition',
    }
