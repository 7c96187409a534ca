"""The variants of configs/grids/end_to_end.py on real speech: two classes of arousal and valence, made of emotions.

python -m ser_jax.grid --config=configs/grids/end_to_end_emodb.py
"""

_SINGLE = {
    f'{task}{suffix}': {'argument': f'{task}{option}'}
    for suffix, option in (('+attention', ''), ('', ',no_attention'))
    for task in ('arousal', 'valence')
}


def get_grid() -> dict:
    """One seed, all ten speakers (a fold takes four minutes of one core, with two networks); the baseline is the whole system."""
    return {
        'config': 'configs/end_to_end.py',
        'settings': {
            'emodb': {'argument': 'emodb', 'changes': {'final': False}},
        },
        'variants': {
            'multitask+attention': {},
            'multitask': {'argument': 'no_attention'},
            **_SINGLE,
        },
        'seeds': (0,),
        'baseline': 'multitask+attention',
    }
