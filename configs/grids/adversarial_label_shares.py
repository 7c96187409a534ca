"""The adversarial autoencoder and its single task on EMO-DB with 10 to 100 % of the emotion labels; one seed.

python -m ser_jax.grid --config=configs/grids/adversarial_label_shares.py     (needs emodb, nemo, ravdess, librispeech)
"""


def get_grid() -> dict:
    """Without validation speakers, who would keep all their labels."""
    return {
        'config': 'configs/adversarial_autoencoder.py',
        'settings': {
            f'emodb_{100 * share:g}': {
                'argument': 'emodb,no_validation',
                'changes': {'labelled_share': share, 'final': False, 'parallel_runs': 2},
            }
            for share in (0.1, 0.25, 0.5, 1.0)
        },
        'variants': {
            'single_task': {'argument': 'single_task'},
            'full': {'argument': 'auxiliary'},
        },
        'baseline': 'single_task',
    }
