"""EMO-DB with 10 and 100 % of the training labels on frames of frozen Whisper tiny.en, with and without unlabelled speech; one seed.

python -m ser_jax.grid --config=configs/grids/encoder_labels.py     (needs emodb, nemo, ravdess, librispeech)

There are no validation speakers: they would keep all their labels.
"""


def get_grid() -> dict:
    """Every batch has 32 labelled utterances; those of `full_unlabelled` have as many unlabelled ones.

    With 10 % of the labels, the rest of EMO-DB is unlabelled, too. `views` has augmented data without an auxiliary task.
    """
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            f'emodb_{100 * share:g}': {
                'argument': 'emodb,whisper_tiny,no_validation',
                'changes': {'labelled_share': share, 'final': False, 'parallel_runs': 2},
            }
            for share in (0.1, 1.0)
        },
        'variants': {
            'views': {'argument': 'augment_only'},
            'full_unlabelled': {
                'changes': {'unlabelled': ('nemo', 'ravdess', 'librispeech'), 'batch_size': 64}
            },
        },
        'baseline': 'views',
        'family': 'condition',
    }
