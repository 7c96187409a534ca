"""A frozen Whisper tiny.en: linear probe and MTL-AUG on its frames, clean and, on EMO-DB, under corruptions; three seeds.

python -m ser_jax.grid --config=configs/grids/encoders.py     (needs emodb, ravdess, nemo, esc10, urdu)

Layers, views, steps and rates were chosen on validation speakers of EMO-DB and RAVDESS; nEMO takes them. The views have noise,
limited bands, rooms, speed and level, with parameters of their own; rain and babble are not among them.
"""

_CONDITIONS = {
    'conditions': (
        'telephone',
        "noise('pink', 5)",
        'gain(-20)',
        "noise('rain', 5)",
        'babble(3, 5)',
    ),
    'test_noise_corpus': 'esc10',
    'babble_corpus': 'urdu',
}


def get_grid() -> dict:
    """The baseline is the probe on clean recordings."""
    return {
        'config': 'configs/probe.py',
        'settings': {
            'emodb': {
                'argument': 'emodb,no_validation',
                'changes': {'final': False, **_CONDITIONS},
            },
            'ravdess': {'argument': 'ravdess,no_validation', 'changes': {'final': False}},
            'nemo': {'argument': 'nemo,no_validation', 'changes': {'final': False}},
        },
        'variants': {
            'probe': {},
            'probe_views': {'argument': 'views'},
            'mtl_aug': {'config': 'configs/mtl_aug.py', 'argument': 'whisper_tiny'},
        },
        'seeds': (0, 1, 2),
        'baseline': 'probe',
        'family': 'condition',
    }
