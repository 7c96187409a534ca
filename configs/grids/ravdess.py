"""MTL-AUG against its single task on RAVDESS: eight emotions, published folds; clean, in noise, under attack; three seeds.

python -m ser_jax.grid --config=configs/grids/ravdess.py     (needs ravdess, esc10, urdu)

The conditions are a part of those of configs/grids/mtl_aug.py, as a check of its findings on EMO-DB. The recipe was chosen with
gain(-20) and telephone, on validation speakers (configs/grids/development_ravdess.py); nothing was chosen with the others.
"""

_CONDITIONS = (
    *(f"noise('{kind}', {snr})" for kind in ('rain', 'baby_cry') for snr in (5, 20)),
    *(f'babble(3, {snr})' for snr in (5, 20)),
    'telephone',
    'gain(-20)',
    'fgsm(0.03)',  # of the standardised log-mel
    'pgd(0.03, 20)',
)


def get_grid() -> dict:
    """The baseline is the single task."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            'ravdess': {
                'argument': 'ravdess,no_validation',
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
            'full': {},
            # The dropout chosen on RAVDESS's validation speakers (configs/grids/development_ravdess.py).
            'single_task': {'argument': 'single_task', 'changes': {'model.dropout': 0.3}},
        },
        'seeds': (0, 1, 2),
        'baseline': 'single_task',
    }
