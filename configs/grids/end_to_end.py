"""The four variants of Zhang et al. 2019: single tasks or multitask, last state or attention; three seeds.

python -m ser_jax.grid --config=configs/grids/end_to_end.py
"""

_SINGLE = {
    f'{task}{suffix}': {'argument': f'{task}{option}'}
    for suffix, option in (('', ',no_attention'), ('+attention', ''))
    for task in ('arousal', 'valence', 'dominance')
}


def get_grid() -> dict:
    """On synthetic speech; the baseline is the full system."""
    return {
        'config': 'configs/end_to_end.py',
        'settings': {
            'demo_speech': {'argument': 'demo_speech', 'changes': {'final': False}},
        },
        'variants': {
            'multitask+attention': {},
            'multitask': {'argument': 'no_attention'},
            **_SINGLE,
        },
        'seeds': (0, 1, 2),
        'baseline': 'multitask+attention',
    }
