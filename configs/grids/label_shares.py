"""EMO-DB with 10 to 50 % of the training labels, with and without unlabelled speech of other corpora; one seed.

python -m ser_jax.grid --config=configs/grids/label_shares.py     (needs emodb, nemo, ravdess and librispeech prepared)

All labels: seed 0 of configs/grids/mtl_aug.py. Nothing is selected on validation speakers, who would keep all their labels.
"""


def get_grid() -> dict:
    """As many labelled utterances a step in every run; the full systems hear as many without labels beside them."""
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
            'full': {'changes': {'batch_size': 32}},  # EMO-DB itself without the labels
            'full_unlabelled': {
                'changes': {'unlabelled': ('nemo', 'ravdess', 'librispeech'), 'batch_size': 32}
            },
        },
        'baseline': 'single_task',
    }
