"""The smallest grid: does the full system beat the single task? On synthetic speech, in seconds, so: no answer.

python -m ser_jax.grid --config=configs/grids/demo.py

Runs are settings × variants × seeds. A run's config is that of
`--config=CONFIG:<argument of the setting>,<argument of the variant>`, then the changes of the setting, those
of the variant, and the seed. A variant may have 'seeds' of its own.
"""


def get_grid() -> dict:
    """The grid: `config` and `variants` are required, all else has a default."""
    return {
        'config': 'configs/mtl_aug.py',  # config file of all runs
        # Corpora or conditions, name -> 'argument' (after the colon) and 'changes' (any fields); without them, variants
        # name the corpus: 'emodb,single_task'.
        'settings': {'demo_speech': {'argument': 'demo_speech,smoke'}},
        # What is compared, name -> 'argument' and 'changes' as above, {'changes': {'optimiser.clip': 2.0}}; 'seeds' of its own;
        # 'attack_source', the variant on whose models its transfer_… attacks are made.
        'variants': {'full': {}, 'single_task': {'argument': 'single_task'}},
        'seeds': (0, 1),  # of every variant; (0,) without
        # The variant that the others are tested against, in every setting and condition; without, there are no differences.
        'baseline': 'single_task',
        # Whose p-values are corrected together (Holm): 'table', all; 'condition', those of a setting under one condition.
        'family': 'table',
    }
