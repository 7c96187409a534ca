"""The adversarial autoencoder against its single task on RAVDESS: eight emotions, published folds; one seed.

python -m ser_jax.grid --config=configs/grids/adversarial_ravdess.py     (needs ravdess, emodb, nemo, librispeech)

The recipe is that of EMO-DB, for as many epochs; nothing was chosen on validation speakers of RAVDESS.
"""


def get_grid() -> dict:
    """A batch of `full` has 16 utterances of RAVDESS and 16 of the other corpora."""
    return {
        'config': 'configs/adversarial_autoencoder.py',
        'settings': {
            'ravdess': {
                'argument': 'ravdess,no_validation',
                'changes': {'final': False, 'parallel_runs': 2},
            }
        },
        'variants': {
            'full': {'changes': {'unlabelled': ('nemo', 'emodb', 'librispeech'), 'batch_size': 32}},
            'single_task': {'argument': 'single_task'},
        },
        'baseline': 'single_task',
    }
