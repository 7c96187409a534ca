"""White-box attacks through frozen Whisper tiny.en: MTL-AUG on its frames against its single task; one seed.

python -m ser_jax.grid --config=configs/grids/encoder_attacks.py     (needs emodb, ravdess, nemo)

Epsilon is an amplitude of the waveform in [-1, 1]. On the validation speakers of a fold of EMO-DB, 0.0003 already leaves 9 % to
PGD-7.
"""

_CONDITIONS = (
    'random_sign_waveform(0.0001)',
    'fgsm_waveform(0.0001)',
    'pgd_waveform(0.0001, 7)',
)


def _corpus(name: str, **changes) -> dict:
    changes = {'conditions': _CONDITIONS, 'final': False} | changes
    return {'argument': f'{name},whisper_tiny,no_validation', 'changes': changes}


def get_grid() -> dict:
    """The baseline is the single task."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            'emodb': _corpus('emodb'),
            'ravdess': _corpus('ravdess', parallel_runs=2),
            'nemo': _corpus('nemo', parallel_runs=2),
        },
        'variants': {'single_task': {'argument': 'single_task'}, 'full': {}},
        'baseline': 'single_task',
        'family': 'condition',
    }
