"""The full system against the single task on RAVDESS: eight emotions, the published folds; clean, in noise, under attack; three seeds.

python -m ser_jax.grid --config=configs/grids/ravdess.py     (needs ravdess, esc10 and urdu prepared)

The conditions ask whether what configs/grids/mtl_aug.py found on EMO-DB holds here: some of its own. Of them gain(-20) and the telephone took
part in the choice of the recipe, on validation speakers (configs/grids/development_ravdess.py); nothing was chosen on the others.
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
    """The grid."""
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
            # The dropout that RAVDESS's validation speakers chose (configs/grids/development_ravdess.py).
            'single_task': {'argument': 'single_task', 'changes': {'model.dropout': 0.3}},
        },
        'seeds': (0, 1, 2),
        'baseline': 'single_task',
    }
