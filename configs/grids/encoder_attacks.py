"""White-box attacks through frozen Whisper tiny.en: MTL-AUG on its frames against its single task on EMO-DB; one seed.

python -m ser_jax.grid --config=configs/grids/encoder_attacks.py     (needs emodb)

Epsilon is an amplitude of the waveform in [-1, 1]. On the validation speakers of a fold, 0.0003 already leaves 9 % to PGD-7.
"""


def get_grid() -> dict:
    """The baseline is the single task."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            'emodb': {
                'argument': 'emodb,whisper_tiny,no_validation',
                'changes': {
                    'conditions': (
                        'random_sign_waveform(0.0001)',
                        'fgsm_waveform(0.0001)',
                        'pgd_waveform(0.0001, 7)',
                    ),
                    'final': False,
                },
            }
        },
        'variants': {'single_task': {'argument': 'single_task'}, 'full': {}},
        'baseline': 'single_task',
        'family': 'condition',
    }
