"""Attention-augmented end-to-end multitask learning (Zhang et al. 2019, arXiv 1903.12424): arousal, valence, dominance.

python -m ser_jax.main --config=configs/end_to_end.py                        (synthetic speech)
python -m ser_jax.main --config=configs/end_to_end.py:emodb                  (two classes each, made of emotions)
python -m ser_jax.main --config=configs/end_to_end.py:iemocap                (the paper's corpus and split)
python -m ser_jax.main --config=configs/end_to_end.py:demo_speech,arousal,no_attention    (a single task)
"""

import ml_collections

from ser_jax.config import (
    FRACTION,
    NO_VALIDATION,
    PRETRAINED_FIELDS,
    SIZE,
    WHISPER_TINY,
    Field,
    Option,
    apply_options,
    base_config,
    one_of,
    smoke,
    task_fields,
)

_DIMENSIONS = ('arousal', 'valence', 'dominance')
_TASKS = (*_DIMENSIONS, 'emotion')

FIELDS = {
    'model.name': Field('end_to_end', 'module in ser_jax/models/'),
    'model.input': Field(
        'waveform',
        "input of the network: 'waveform', or 'frames' of a pretrained encoder",
        one_of('waveform', 'frames'),
    ),
    'model.attention': Field(True, 'attention over time; False: the last state'),
    'model.filters': Field(40, 'filters of each of the two shared convolutions', SIZE),
    'model.width': Field(
        40, 'width of both convolutions, in samples and in pairs of samples', SIZE
    ),
    'model.pool_channels': Field(10, 'neighbouring channels per maximum (max pooling)', SIZE),
    'model.frame_samples': Field(640, 'samples of a frame, even; 640 are 40 ms', SIZE),
    'model.hop_samples': Field(160, 'samples between the starts of two frames, even', SIZE),
    'model.gru_features': Field(128, 'cells of a recurrent layer', SIZE),
    'model.gru_layers': Field(2, 'recurrent layers of each task', SIZE),
    'model.dropout': Field(0.1, 'dropout rate of the frame vectors', FRACTION),
    **PRETRAINED_FIELDS,
    **task_fields('arousal', 1.0),
    **task_fields('valence', 1.0),
    **task_fields('dominance', 1.0),
    **task_fields('emotion', 0.0),
}

OPTIONS = {
    'whisper_tiny': Option(
        'frames of frozen Whisper tiny.en instead of waveforms',
        WHISPER_TINY | {'crop_frames': 64, 'batch_size': 32, 'steps': 400, 'eval_every': 50},
        first=True,
    ),
    **dict.fromkeys(
        _TASKS,
        Option('this task (several may be given); by default the dimensions of the corpus'),
    ),
    'with_emotion': Option('the emotion as well as the dimensions'),
    'regression': Option(
        'the ratings themselves, by the concordance correlation coefficient, instead of three classes',
        {f'tasks.{name}.kind': 'regression' for name in _DIMENSIONS},
    ),
    'no_attention': Option(
        'the last state instead of attention over time', {'model.attention': False}
    ),
    'no_validation': NO_VALIDATION,
    'smoke': smoke(
        {
            'crop_frames': 32,
            'model.filters': 4,
            'model.pool_channels': 2,
            'model.gru_features': 4,
        }
    ),
}

CORPORA = {
    'demo_speech': {'folds': (1,)},
    # No ratings: two classes of arousal and of valence, derived from the emotions.
    **{
        corpus: {
            'tasks.arousal.target': 'arousal_of_emotion',
            'tasks.valence.target': 'valence_of_emotion',
            'tasks.dominance.weight': 0.0,
            'steps': 200,
        }
        for corpus in ('emodb', 'ravdess')
    },
    # Sessions 1-3 for training, 4 for validation, 5 for test (Zhang et al. 2019), and the published learning rate. Steps, crops and
    # batch are a guess for a GPU, untried.
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
    """The config for an argument: '', 'CORPUS' or 'CORPUS,OPTION…'."""
    config = base_config('end_to_end', FIELDS)
    config.representation = 'waveform'
    config.label_smoothing = 0.0
    # A step takes one second of a CPU core. The published 1e-4 and 600 steps make no clear difference on validation
    # speakers; 1e-3 overfits.
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
