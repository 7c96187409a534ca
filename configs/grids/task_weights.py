"""Random search over the task weights on validation speakers, as in Zhang et al. 2019.

python -m ser_jax.grid --config=configs/grids/task_weights.py
"""

import numpy as np

_TASKS = ('arousal', 'valence', 'dominance')
_DRAWS = 8


def get_grid() -> dict:
    """Equal weights, and log-uniform draws from 0.1 to 1; test speakers are not read."""
    rng = np.random.default_rng(0)
    variants = {'equal': {}}
    for number in range(1, _DRAWS + 1):
        weights = 10 ** rng.uniform(-1, 0, len(_TASKS))
        changes = {f'tasks.{task}.weight': round(w, 2) for task, w in zip(_TASKS, weights.tolist())}
        variants[f'draw{number}'] = {'changes': changes}
    return {
        'config': 'configs/end_to_end.py',
        'settings': {
            'demo_speech': {
                'argument': 'demo_speech',
                'changes': {'report_test': False, 'final': False},
            },
        },
        'variants': variants,
        'seeds': (0,),
    }
