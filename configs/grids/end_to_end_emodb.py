"""The variants of configs/grids/end_to_end.py on EMO-DB: two classes of arousal and valence, derived from the emotions; one seed.

python -m ser_jax.grid --config=configs/grids/end_to_end_emodb.py
"""

_SINGLE = {
    f'{task}{suffix}': {'argument': f'{task}{option}'}
    for suffix, option in (('+attention', ''), ('', ',no_attention'))
    for task in ('arousal', 'valence')
}


def get_grid() -> dict:
    """All ten folds, of four minutes each on one core (two networks); the baseline is the full system."""
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
