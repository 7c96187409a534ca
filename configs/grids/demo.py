"""The smallest grid: the full system against the single task on synthetic speech, in seconds; its numbers mean nothing.

python -m ser_jax.grid --config=configs/grids/demo.py

All keys of a grid file: configs/README.md.
"""


def get_grid() -> dict:
    """Two variants × two seeds; only `config` and `variants` are required."""
    return {
        'config': 'configs/mtl_aug.py',
        'settings': {'demo_speech': {'argument': 'demo_speech,smoke'}},
        'variants': {'full': {}, 'single_task': {'argument': 'single_task'}},
        'seeds': (0, 1),
        'baseline': 'single_task',
        'family': 'table',
    }
