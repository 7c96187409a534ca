"""The adversarial autoencoder against its encoder alone on RAVDESS: eight emotions, the published folds; one seed.

python -m ser_jax.grid --config=configs/grids/adversarial_ravdess.py     (needs ravdess, emodb, nemo and librispeech prepared)

Nothing was tried on RAVDESS's validation speakers: EMO-DB's recipe, for as many times through the speech.
"""


def get_grid() -> dict:
    """The grid; `full` hears 16 utterances of the other corpora a step beside 16 of RAVDESS."""
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
