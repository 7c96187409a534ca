"""What each part of MTL-AUG is worth on EMO-DB: clean, in noise, under attack; three seeds.

python -m ser_jax.grid --config=configs/grids/mtl_aug.py     (needs emodb, esc10, urdu, nemo, ravdess and librispeech prepared)

Three types of noise, on none of which anything was chosen (results/development.md): rain is steady, a crying baby has a pitch, babble is
speech. Of the corruptions, telephone and gain(-20) were chosen on, those of validation speakers. One seed of the recipe frozen at
b801a0d had been tested on rain, the baby and all the corruptions before (results/robustness).
"""

_CONDITIONS = (
    *(f"noise('{kind}', {snr})" for kind in ('rain', 'baby_cry') for snr in (0, 5, 10, 20)),
    *(f'babble(3, {snr})' for snr in (0, 5, 10, 20)),
    'reverberation(0.8)',
    'telephone',
    'mu_law',
    'gain(-20)',
    'clipping(0.1)',
    *(
        attack
        for epsilon in (0.01, 0.03, 0.1)  # of the standardised log-mel
        for attack in (f'random_sign({epsilon})', f'fgsm({epsilon})', f'pgd({epsilon}, 20)')
    ),
)


def get_grid() -> dict:
    """The grid."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            'emodb': {
                'argument': 'emodb,no_validation',
                'changes': {
                    'parallel_runs': 2,
                    'final': False,
                    'conditions': _CONDITIONS,
                    'test_noise_corpus': 'esc10',
                    'babble_corpus': 'urdu',
                },
            }
        },
        'variants': {
            'single_task': {'argument': 'single_task'},
            'augmentation_as_data': {'argument': 'augment_only'},
            'augmentation_type': {'argument': 'no_reconstruction'},
            'reconstruction': {'argument': 'no_augmentation_type'},
            'full': {},
            # As many labelled utterances a step as the others have, and as many unlabelled ones.
            'full_unlabelled': {
                'changes': {'unlabelled': ('nemo', 'ravdess', 'librispeech'), 'batch_size': 32}
            },
        },
        'seeds': (0, 1, 2),
        'baseline': 'single_task',
    }
