"""Check of the recipe chosen on EMO-DB on validation speakers of RAVDESS, in two of its six folds.

python -m ser_jax.grid --config=configs/grids/development_ravdess.py     (needs ravdess, esc10)

The test speakers of a fold are not read, but its validation speakers are test speakers of other folds. Networks are compared at their
last step.
"""

_FROZEN = (  # as of commit b801a0d
    'speed(0.87, 1.15)',
    'mixup(0.3)',
    'spec_mask(2, 0.15, 0.15)',
    'noise(20, 40)',
    'speed(0.87, 1.15) + spec_mask(2, 0.15, 0.15)',
)


def get_grid() -> dict:
    """Two tries each for the full system and the single task; four of the 24 speakers are validation speakers."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            'ravdess': {
                'argument': 'ravdess',
                'changes': {
                    'report_test': False,
                    'final': False,
                    'folds': (1, 4),
                    'eval_every': 3600,
                    'parallel_runs': 2,
                    'test_noise_corpus': 'esc10',
                    'conditions': ("noise('sea_waves', 5)", 'gain(-20)', 'telephone'),
                },
            }
        },
        'variants': {
            'full_frozen': {'changes': {'augmentations': _FROZEN}},
            'full_gain_filter': {
                'changes': {'augmentations': (*_FROZEN, 'gain(-20, 10) + filter_augment(12)')}
            },
            'single_frozen': {'argument': 'single_task', 'changes': {'model.dropout': 0.3}},
            'single_dropout': {'argument': 'single_task', 'changes': {'model.dropout': 0.4}},
        },
    }
