"""The adversarial autoencoder and its single task, trained on EMO-DB, tested on Urdu, an unseen language; three seeds.

python -m ser_jax.grid --config=configs/grids/adversarial_cross_corpus.py     (needs emodb, nemo, ravdess, librispeech, urdu)
"""


def get_grid() -> dict:
    """One model per run. nEMO and RAVDESS are unlabelled training data of the full system, and hence not tested."""
    return {
        'config': 'configs/adversarial_autoencoder.py',
        'settings': {
            'emodb': {
                'argument': 'emodb,no_validation',
                'changes': {
                    'protocol': 'whole_corpus()',
                    'test_corpora': ('urdu',),
                    'target_statistics': True,
                },
            }
        },
        'variants': {
            'full': {'argument': 'auxiliary'},
            'single_task': {'argument': 'single_task'},
        },
        'seeds': (0, 1, 2),
        'baseline': 'single_task',
    }
