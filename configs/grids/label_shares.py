"""EMO-DB with 5 to 100 % of the training labels, with and without unlabelled speech; one seed.

python -m ser_jax.grid --config=configs/grids/label_shares.py     (needs emodb, ravdess and nemo prepared)

Nothing is selected on validation speakers, who would keep all their labels.
"""


def get_grid() -> dict:
    """The grid."""
    shares = (0.05, 0.1, 0.25, 0.5, 1.0)
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            f'emodb_{100 * share:g}': {
                'argument': 'emodb,no_validation',
                'changes': {'labelled_share': share, 'parallel_runs': 2, 'final': False},
            }
            for share in shares
        },
        'variants': {
            'single_task': {'argument': 'single_task'},
            'full': {},
            'full_unlabelled': {'changes': {'unlabelled': ('ravdess', 'nemo')}},
        },
        'baseline': 'single_task',
    }
