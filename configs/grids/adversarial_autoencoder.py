"""Ablation of the adversarial autoencoder on EMO-DB: one part removed at a time; three seeds for the full system and the single task.

python -m ser_jax.grid --config=configs/grids/adversarial_autoencoder.py     (needs emodb, nemo, ravdess, librispeech, esc10)
"""

_TESTED = {
    'conditions': (
        "noise('rain', 5)",
        "noise('rain', 20)",
        'reverberation(0.8)',
        'random_sign(0.03)',
        'fgsm(0.03)',
        'pgd(0.03, 20)',
    ),
    'test_noise_corpus': 'esc10',
}


def get_grid() -> dict:
    """The baseline is the full system. All speakers but the tested one train, for a fixed number of steps.

    A batch has 16 utterances of EMO-DB, and 16 of other corpora except in `no_auxiliary` and `single_task`.
    """
    return {
        'config': 'configs/adversarial_autoencoder.py',
        'settings': {
            'emodb': {
                'argument': 'emodb,no_validation',
                'changes': {'final': False, 'parallel_runs': 2},
            }
        },
        'variants': {
            'full': {'argument': 'auxiliary', 'seeds': (0, 1, 2), 'changes': _TESTED},
            'single_task': {'argument': 'single_task', 'seeds': (0, 1, 2), 'changes': _TESTED},
            'no_autoencoder': {'argument': 'auxiliary,no_autoencoder'},
            'no_adversary': {'argument': 'auxiliary,no_adversary'},
            'no_gender': {'argument': 'auxiliary,no_gender'},
            'no_speaker': {'argument': 'auxiliary,no_speaker'},
            'no_auxiliary': {},
        },
        'baseline': 'full',
    }
