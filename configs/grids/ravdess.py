"""The full system against the single task on RAVDESS: eight emotions, the published folds; three seeds.

python -m ser_jax.grid --config=configs/grids/ravdess.py     (needs ravdess prepared)
"""


def get_grid() -> dict:
    """The grid."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            'ravdess': {
                'argument': 'ravdess,no_validation',
                'changes': {'parallel_runs': 2, 'final': False},
            }
        },
        'variants': {'full': {}, 'single_task': {'argument': 'single_task'}},
        'seeds': (0, 1, 2),
        'baseline': 'single_task',
    }
