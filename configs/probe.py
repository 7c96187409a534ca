"""Linear probe: logistic regression on mean and standard deviation over time of the frames of a frozen pretrained encoder.

python -m ser_jax.main --config=configs/probe.py                       (synthetic speech)
python -m ser_jax.main --config=configs/probe.py:ravdess               (RAVDESS, six folds)
python -m ser_jax.main --config=configs/probe.py:ravdess,views         (and on augmented views)
python -m ser_jax.main --config=configs/probe.py:ravdess,opensmile     (openSMILE functionals instead of an encoder)
python -m ser_jax.main --config=configs/probe.py:ravdess,fine_tune     (then with the encoder in the training step)
python -m ser_jax.main --config=configs/probe.py:emodb --config.encoder.weights=FOLDER --config.encoder.layers="()"

The encoder is Whisper tiny.en, 8 M parameters, unless another is named; see docs/encoders.md.
"""

import ml_collections

from ser_jax.config import (
    FINE_TUNE_FIELDS,
    FRACTION,
    NO_VALIDATION,
    PRETRAINED_FIELDS,
    VIEWS,
    Field,
    Option,
    apply_options,
    base_config,
    smoke,
    task_fields,
)

FIELDS = {
    'model.name': Field('probe', 'module in ser_jax/models/'),
    'model.dropout': Field(0.0, 'dropout rate of the input', FRACTION),
    **PRETRAINED_FIELDS,
    **FINE_TUNE_FIELDS,
    **task_fields('emotion', 1.0),
}

OPTIONS = {
    'views': Option(
        'trains on augmented views of the recordings, too: robust to noise, telephones, rooms, speed and level',
        {'augmentations': VIEWS, 'clean_share': 0.125, 'steps': 400, 'eval_every': 100},
        first=True,
    ),
    'fine_tune': Option(
        'then fine-tunes the encoder on waveforms, from the probe on',
        {
            'representation': 'waveform',
            'fine_tune.trains': 'top(2)',
            'fine_tune.rate': 1.0,
            'crop_frames': 400,
            'batch_size': 16,
            'eval_batch_size': 16,
            'steps': 300,
            'eval_every': 50,
            'optimiser.learning_rate': 2e-5,
        },
        first=True,
    ),
    'opensmile': Option(
        "openSMILE's ComParE functionals in place of the encoder; extra [opensmile], not for commercial use",
        {'encoder.weights': 'opensmile', 'encoder.layers': ()},
    ),
    'no_validation': NO_VALIDATION,
    'smoke': smoke({'fine_tune.head_steps': 4}),
}

# The layers of Whisper tiny.en and the optimiser were chosen on validation speakers of EMO-DB and RAVDESS; nEMO and URDU take them.
_WHISPER_TINY = {'encoder.layers': (1, 2, 3, 4)}
CORPORA = {
    'demo_speech': {'folds': (1,)},
    'emodb': _WHISPER_TINY,
    'nemo': _WHISPER_TINY,
    'ravdess': _WHISPER_TINY,
    'urdu': _WHISPER_TINY,
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
    """The config for an argument: '', 'CORPUS' or 'CORPUS,OPTION…'."""
    config = base_config('probe', FIELDS)
    config.representation = 'encoded'
    config.crop_frames = 1
    config.batch_size = config.eval_batch_size = 64
    config.label_smoothing = 0.0
    config.steps, config.eval_every = 300, 50
    config.optimiser.learning_rate, config.optimiser.weight_decay = 1e-3, 10.0
    return apply_options(config, argument, OPTIONS, CORPORA)
