"""10 and 100 % of the training labels on frames of frozen Whisper tiny.en, with and without unlabelled speech; one seed.

python -m ser_jax.grid --config=configs/grids/encoder_labels.py     (needs emodb, nemo, ravdess, librispeech)

There are no validation speakers: they would keep all their labels.
"""

_CORPORA = ('nemo', 'ravdess', 'emodb')


def _corpus(name: str, share: float) -> dict:
    unlabelled = (*(other for other in _CORPORA if other != name), 'librispeech')
    changes = {'unlabelled': unlabelled, 'batch_size': 64}
    changes |= {'labelled_share': share, 'final': False, 'parallel_runs': 2}
    return {'argument': f'{name},whisper_tiny,no_validation', 'changes': changes}


def get_grid() -> dict:
    """Every batch has 32 labelled utterances; those of `full_unlabelled` have as many unlabelled ones.

    With 10 % of the labels, the rest of the corpus is unlabelled, too. `views` has augmented data without an auxiliary task.
    """
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            f'{name}_{100 * share:g}': _corpus(name, share)
            for name in ('emodb', 'ravdess', 'nemo')
            for share in (0.1, 1.0)
        },
        'variants': {
            'views': {
                'argument': 'augment_only',
                'changes': {'unlabelled': (), 'batch_size': 32},
            },
            'full_unlabelled': {},
        },
        'baseline': 'views',
        'family': 'condition',
    }
