"""A frozen Whisper tiny.en: linear probe and MTL-AUG on its frames, clean, under corruptions and across languages; three seeds.

python -m ser_jax.grid --config=configs/grids/encoders.py     (needs emodb, ravdess, nemo, esc10, urdu)

Layers, views, steps and rates were chosen on validation speakers of EMO-DB and RAVDESS; nEMO takes them. The views have noise,
limited bands, rooms, speed and level, with parameters of their own; rain and babble are not among them. openSMILE functionals
(extra [opensmile]) take the place of the encoder with one seed: their only draw is the order of the utterances.
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


def _train_on(corpus: str, *tested: str) -> dict:
    """Trains on all speakers of a corpus and tests on others, over the emotions that they share."""
    changes = {
        'labels': ('angry', 'happy', 'neutral', 'sad'),
        'protocol': 'whole_corpus()',
        'test_corpora': tested,
    }
    return {'argument': f'{corpus},no_validation', 'changes': changes}


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
            'from_emodb': _train_on('emodb', 'urdu', 'nemo'),
            'from_nemo': _train_on('nemo', 'emodb'),
        },
        'variants': {
            'opensmile': {'argument': 'opensmile', 'seeds': (0,)},
            'probe': {},
            'probe_views': {'argument': 'views'},
            'mtl_aug': {'config': 'configs/mtl_aug.py', 'argument': 'whisper_tiny'},
        },
        'seeds': (0, 1, 2),
        'baseline': 'probe',
        'family': 'condition',
    }
