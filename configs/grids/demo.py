"""The smallest grid: does the full system beat the single task? On synthetic speech, in seconds, so: no answer.

python -m ser_jax.grid --config=configs/grids/demo.py

Runs are settings × variants × seeds. A run's config is that of
`--config=CONFIG:<argument of the setting>,<argument of the variant>`, then the changes of the setting, those
of the variant, and the seed. A variant may have 'seeds' of its own.
"""


def get_grid() -> dict:
    """The grid: `config` and `variants` are required, all else has a default."""
    return {
        'config': 'configs/mtl_aug.py',
        # Corpora or conditions; without them, variants name the corpus: 'emodb,single_task'.
        'settings': {'demo_speech': {'argument': 'demo_speech,smoke'}},
        # What is compared. 'changes' may be any fields: {'changes': {'optimiser.clip': 2.0}}.
        'variants': {'full': {}, 'single_task': {'argument': 'single_task'}},
        'seeds': (0, 1),
        # The others are tested against it, in every setting and condition.
        'baseline': 'single_task',
    }
