"""Attention-augmented end-to-end multitask learning (Zhang et al. 2019, arXiv 1903.12424): arousal, valence, dominance.

python -m ser_jax.main --config=configs/end_to_end.py                        (synthetic speech)
python -m ser_jax.main --config=configs/end_to_end.py:emodb                  (two classes each, made of emotions)
python -m ser_jax.main --config=configs/end_to_end.py:demo_speech,arousal,no_attention
"""

import ml_collections

from ser_jax.config import SMOKE, apply_options, base_config

_TASKS = ('arousal', 'valence', 'dominance')


def _only(task: str) -> dict:
    weights = {f'tasks.{name}.weight': float(name == task) for name in _TASKS}
    return {'reported': (task,), **weights}


OPTIONS = {
    'no_attention': {'model.attention': False},  # the last state instead
    **{task: _only(task) for task in _TASKS},  # a single task
    'no_validation': {'validation': False},
    'smoke': {
        **SMOKE,
        'crop_frames': 32,
        'model.filters': 4,
        'model.pool_channels': 2,
        'model.gru_features': 4,
    },
}

CORPORA = {
    'demo_speech': {'folds': (1,)},
    # No ratings: two classes of arousal and of valence, made of the seven emotions.
    'emodb': {
        'tasks.arousal.target': 'arousal_of_emotion',
        'tasks.valence.target': 'valence_of_emotion',
        'tasks.dominance.weight': 0.0,
        'reported': ('arousal', 'valence'),
    },
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
    """The config of `argument`: '', 'CORPUS' or 'CORPUS,OPTION…'."""
    config = base_config()
    config.system = 'end_to_end'
    config.representation = 'waveform'
    config.reported = _TASKS
    config.model = ml_collections.ConfigDict(
        {
            'name': 'end_to_end',
            'attention': True,
            'filters': 40,
            'width': 40,  # samples
            'pool_channels': 10,
            'frame_samples': 640,  # 40 ms
            'hop_samples': 160,
            'gru_features': 128,
            'gru_layers': 2,
            'dropout': 0.1,
        }
    )
    config.tasks = ml_collections.ConfigDict(
        {task: {'kind': 'classification', 'target': task, 'weight': 1.0} for task in _TASKS}
    )
    config.optimiser.learning_rate = 1e-4
    config.label_smoothing = 0.0
    # Two CPU cores take some seconds a step: short crops, few steps. Not searched yet.
    config.batch_size = 8
    config.crop_frames = 150
    config.steps = 600
    config.eval_every = 100
    return apply_options(config, argument, OPTIONS, CORPORA)
