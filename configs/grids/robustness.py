"""MTL-AUG against its single task on EMO-DB: clean, in noise, under attack, on other corpora; one seed.

python -m ser_jax.grid --config=configs/grids/robustness.py     (needs emodb, ravdess, nemo, urdu, esc10, librispeech)
"""

_SNRS = (-5, 0, 5, 10, 20)
_EPSILONS = (0.005, 0.01, 0.03, 0.1, 0.3)  # of the standardised log-mel
_CONDITIONS = (
    # Types of noise unseen in training, which uses coloured noise.
    *(
        f"noise('{kind}', {snr})"
        for kind in ('rain', 'helicopter', 'chainsaw', 'baby_cry', 'dog_bark')
        for snr in _SNRS
    ),
    *(f'babble(3, {snr})' for snr in _SNRS),
    'reverberation(0.3)',
    'reverberation(0.8)',
    'telephone',
    'mu_law',
    'gain(-20)',
    'clipping(0.1)',
    *(f'random_sign({epsilon})' for epsilon in _EPSILONS),
    *(f'fgsm({epsilon})' for epsilon in _EPSILONS),
    *(f'pgd({epsilon}, 20)' for epsilon in _EPSILONS),
    'pgd(0.03, 40)',
    'bim(0.03, 20)',
    'random_sign_waveform(0.001)',
    'pgd_waveform(0.0001, 20)',
    'pgd_waveform(0.001, 20)',
)
_TRANSFERRED = (
    'transfer_fgsm(0.03)',
    'transfer_fgsm(0.1)',
    'transfer_pgd(0.03, 20)',
    'transfer_pgd(0.1, 20)',
)


def get_grid() -> dict:
    """The baseline is the single task; attacks on its models are also transferred to the full system."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {
            'emodb': {
                'argument': 'emodb,no_validation',
                'changes': {
                    'parallel_runs': 2,
                    'conditions': _CONDITIONS,
                    'test_noise_corpus': 'esc10',
                    'babble_corpus': 'librispeech',
                    'test_corpora': ('ravdess', 'nemo', 'urdu'),
                    'target_statistics': True,
                },
            }
        },
        'variants': {
            'single_task': {'argument': 'single_task'},
            'full': {
                'changes': {'conditions': (*_CONDITIONS, *_TRANSFERRED)},
                'attack_source': 'single_task',
            },
        },
        'baseline': 'single_task',
    }
