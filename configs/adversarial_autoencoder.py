"""Multitask semi-supervised adversarial autoencoder (after Latif et al. 2022, arXiv 1907.06078): emotion, speaker, gender.

python -m ser_jax.main --config=configs/adversarial_autoencoder.py                      (synthetic speech)
python -m ser_jax.main --config=configs/adversarial_autoencoder.py:emodb,auxiliary      (with speech of three other corpora)
python -m ser_jax.main --config=configs/adversarial_autoencoder.py:emodb,single_task    (the same encoder, the emotion only)
python -m ser_jax.main --config=configs/adversarial_autoencoder.py:demo_speech,dimensions       (ratings beside the emotion)

Published: an adversarial autoencoder whose latent code feeds classifiers of emotion, speaker and gender, trained together on
speech with and without emotion labels. Ours, as we did not have the paper's full text: everything else (features, sizes,
prior, order, rates).
"""

import ml_collections

from ser_jax.config import SMOKE, apply_options, base_config

_DIMENSIONS = ('arousal', 'valence', 'dominance')
_PHASES = ('reconstruction', 'discriminator', 'generator', 'supervised')

OPTIONS = {
    'no_autoencoder': {'tasks.reconstruction.weight': 0.0},  # without decoder and reconstruction
    'no_adversary': {'model.adversary': False},  # without discriminator and prior
    'no_speaker': {'tasks.speaker.weight': 0.0},  # without the speaker task
    'no_gender': {'tasks.gender.weight': 0.0},  # without the gender task
    # The same encoder, the emotion only.
    'single_task': {
        'tasks.reconstruction.weight': 0.0,
        'tasks.speaker.weight': 0.0,
        'tasks.gender.weight': 0.0,
        'model.adversary': False,
    },
    # Ratings of arousal, valence and dominance, too, of a corpus that has them.
    'dimensions': {
        **{f'tasks.{name}.weight': 1.0 for name in _DIMENSIONS},
        'reported': ('emotion', *_DIMENSIONS),
    },
    # nEMO, RAVDESS and LibriSpeech join without their emotions, as half of a batch twice as large.
    'auxiliary': {'unlabelled': ('nemo', 'ravdess', 'librispeech'), 'batch_size': 32},
    # Sees mean and spread of the log-mel instead of its frames: quick to learn from.
    'functionals': {'model.input': 'functionals'},
    'gaussian': {'adversary.prior': 'gaussian'},  # a prior of one component, not one an emotion
    # Every speaker that is not tested trains; nothing is selected, the last parameters are tested.
    'no_validation': {'validation': False},
    # Everything shrunk to seconds, to see whether it runs.
    'smoke': {
        **SMOKE,
        'crop_frames': 64,
        'model.channels': (4, 4),
        'model.frame_features': 8,
        'model.blstm_features': 4,
        'model.embedding_features': 8,
        'model.code_features': 8,
        'model.decoder_features': 16,
        'model.discriminator_features': 8,
    },
}

# EMO-DB's were chosen on its validation speakers (results/development.md); the others take them, unsearched, RAVDESS with
# steps for as many times through its speech (21).
_EMODB = {'steps': 400, 'optimiser.weight_decay': 1.0}
CORPORA = {
    'demo_speech': {'folds': (1,), 'steps': 400},
    **dict.fromkeys(('emodb', 'nemo', 'urdu'), _EMODB),
    'ravdess': _EMODB | {'steps': 1600},
}


def get_config(argument: str = '') -> ml_collections.ConfigDict:
    """The config of `argument`: '', 'CORPUS' or 'CORPUS,OPTION…'."""
    config = base_config()
    config.system = 'adversarial_autoencoder'
    config.objective = 'adversarial'
    config.model = ml_collections.ConfigDict(
        {
            'name': 'adversarial_autoencoder',  # file in ser_jax/models/
            'input': 'log_mel',  # what it sees; 'functionals': mean and spread of the log-mel
            'adversary': True,  # whether there is a discriminator; config.phases must agree
            'code_features': 64,  # width of an utterance's code
            'embedding_features': 64,  # width of the hidden layer before the code, and of the heads
            'decoder_features': 256,  # width of the decoder's hidden layers
            'discriminator_features': 128,  # width of the discriminator's hidden layers
            'channels': (24, 32, 64),  # of the convolutional blocks; each halves the mel bands
            'frame_features': 128,  # width of a step of 40 ms, into the BLSTM
            'blstm_features': 64,  # cells of the BLSTM, per direction
            'dropout': 0.3,  # share dropped in the encoder
            'map_dropout': 0.1,  # share dropped of whole feature maps
        }
    )
    config.tasks = ml_collections.ConfigDict(
        {
            'emotion': {'kind': 'classification', 'target': 'emotion', 'weight': 1.0},
            'speaker': {'kind': 'classification', 'target': 'speaker', 'weight': 0.02},
            'gender': {'kind': 'classification', 'target': 'gender', 'weight': 0.02},
            'reconstruction': {'kind': 'reconstruction', 'target': 'log_mel', 'weight': 1.0},
            **{name: {'kind': 'regression', 'target': name, 'weight': 0.0} for name in _DIMENSIONS},
        }
    )
    config.adversary = ml_collections.ConfigDict(
        {
            'prior': 'mixture',  # what codes are held to: a Gaussian an emotion; or 'gaussian', one for all
            'separation': 3.0,  # of the mixture's means from the origin, in standard deviations
            'gradient_penalty': 1.0,  # weight of the penalty R1 on the discriminator
        }
    )
    # A phase's weight is its learning rate: Adam does not feel the scale of a loss. With three to ten times these, and five
    # times the weights of speaker and gender, the emotion lost 3 to 22 points on validation speakers (results/development.md).
    phase = {
        'learning_rate': 1e-4,
        'warmup': 0.1,
        'beta1': 0.5,
        'weight_decay': 0.0,
        'clip': 1.0,
        'average': 0.98,
    }
    config.optimisers = ml_collections.ConfigDict(
        {
            'reconstruction': {**phase, 'beta1': 0.9},
            'discriminator': {**phase},
            'generator': {**phase},
        }
    )
    config = apply_options(config, argument, OPTIONS, CORPORA)
    off = ['reconstruction'] * (not config.tasks.reconstruction.weight)
    off += ['discriminator', 'generator'] * (not config.model.adversary)
    config.phases = tuple(
        name for name in _PHASES if name not in off
    )  # updates of a step, in order; supervised takes config.optimiser
    return config
