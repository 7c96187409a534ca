"""Attention-augmented end-to-end multitask learning (Zhang et al. 2019, arXiv 1903.12424): arousal, valence, dominance.

python -m ser_jax.main --config=configs/end_to_end.py                        (synthetic speech)
python -m ser_jax.main --config=configs/end_to_end.py:emodb                  (two classes each, made of emotions)
python -m ser_jax.main --config=configs/end_to_end.py:iemocap                (the paper's corpus and split)
python -m ser_jax.main --config=configs/end_to_end.py:demo_speech,arousal,no_attention    (a single task)
"""

import ml_collections

from ser_jax.config import SMOKE, apply_options, base_config

_DIMENSIONS = ('arousal', 'valence', 'dominance')
_TASKS = (*_DIMENSIONS, 'emotion')

OPTIONS = {
    # Learns this task (several may be named); without any, the dimensions that the corpus has.
    **{task: {} for task in _TASKS},
    'with_emotion': {},  # learns the emotion beside the dimensions
    # Learns the ratings themselves, by the concordance correlation coefficient, not three classes of them.
    'regression': {f'tasks.{name}.kind': 'regression' for name in _DIMENSIONS},
    'no_attention': {'model.attention': False},  # the last state instead of attention over time
    # Every speaker that is not tested trains; nothing is selected, the last parameters are tested.
    'no_validation': {'validation': False},
    # Everything shrunk to seconds, to see whether it runs.
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
    # No ratings: two classes of arousal and of valence, made of the emotions.
    **{
        corpus: {
            'tasks.arousal.target': 'arousal_of_emotion',
            'tasks.valence.target': 'valence_of_emotion',
            'tasks.dominance.weight': 0.0,
            'steps': 200,
        }
        for corpus in ('emodb', 'ravdess')
    },
    # Sessions 1-3 train, 4 is for every choice, 5 is tested (Zhang et al. 2019).
    # The published rate; length and crops are a guess for a GPU, untried.
    'iemocap': {
        'protocol': 'session_split("1 2 3", "4", "5")',
        'optimiser.learning_rate': 1e-4,
        'crop_frames': 400,
        'batch_size': 32,
        'steps': 4000,
        'eval_every': 200,
    },
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
    """The config of `argument`: '', 'CORPUS' or 'CORPUS,OPTION…'."""
    config = base_config()
    config.system = 'end_to_end'
    config.representation = 'waveform'
    config.model = ml_collections.ConfigDict(
        {
            'name': 'end_to_end',  # file in ser_jax/models/
            'attention': True,  # states averaged with learned weights; False: the last state
            'filters': 40,  # of each of the two shared convolutions
            'width': 40,  # of both convolutions, in samples and in pairs of samples
            'pool_channels': 10,  # neighbouring channels of which the largest value remains
            'frame_samples': 640,  # samples of a frame, even; 640 are 40 ms
            'hop_samples': 160,  # samples between the beginnings of two frames, even
            'gru_features': 128,  # cells of a recurrent layer
            'gru_layers': 2,  # recurrent layers of every task
            'dropout': 0.1,  # share dropped of the frame vectors
        }
    )
    config.tasks = ml_collections.ConfigDict(
        {task: {'kind': 'classification', 'target': task, 'weight': 1.0} for task in _TASKS}
    )
    config.tasks.emotion.weight = 0.0
    config.label_smoothing = 0.0
    # A second a step and CPU core. 1e-4, as published, and 600 steps make no clear difference on validation speakers; 1e-3 overfits.
    config.optimiser.learning_rate = 3e-4
    config.batch_size = 8
    config.crop_frames = 150
    config.steps = 300
    config.eval_every = 50
    config = apply_options(config, argument, OPTIONS, CORPORA)
    chosen = [task for task in _TASKS if task in config.options]
    for task in _TASKS if chosen else ():
        config.tasks[task].weight = float(task in chosen)
    if 'with_emotion' in config.options:
        config.tasks.emotion.weight = 1.0
    config.reported = tuple(task for task in _TASKS if config.tasks[task].weight)
    return config
