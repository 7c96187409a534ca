"""EMO-DB with 10 to 50 % of the training labels, with and without unlabelled speech of other corpora; one seed.

python -m ser_jax.grid --config=configs/grids/label_shares.py     (needs emodb, nemo, ravdess, librispeech)

All labels: seed 0 of configs/grids/mtl_aug.py. There are no validation speakers: they would keep all their labels.
"""


def get_grid() -> dict:
    """Every batch has the same number of labelled utterances; those of the full systems have as many unlabelled ones."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            f'emodb_{100 * share:g}': {
                'argument': 'emodb,no_validation',
                'changes': {'labelled_share': share, 'parallel_runs': 2, 'final': False},
            }
            for share in (0.1, 0.25, 0.5)
        },
        'variants': {
            'single_task': {'argument': 'single_task'},
            'full': {'changes': {'batch_size': 32}},  # unlabelled: the rest of EMO-DB
            'full_unlabelled': {
                'changes': {'unlabelled': ('nemo', 'ravdess', 'librispeech'), 'batch_size': 32}
            },
        },
        'baseline': 'single_task',
    }
