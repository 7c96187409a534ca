"""The fields every config has, and the `CORPUS,OPTION…` argument."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import ml_collections

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.runtime.errors import UserError


def base_config() -> ml_collections.ConfigDict:
    """The fields shared by all systems, with their defaults; a config file adds its own."""
    config = ml_collections.ConfigDict()

    # The run.
    config.system = ''  # name of the config file; names the default workdir and the card
    config.representation = 'log_mel'  # what the network sees; waveforms are prepared separately
    config.options = ()  # what stands after the colon and the corpus; not to be set otherwise
    config.settings_of = ''  # corpus whose settings these are; not to be set otherwise
    config.seed = 0  # of initial parameters, data order, augmentation and dropout

    # What is learnt from, and how it is evaluated.
    config.corpus = 'demo_speech'  # named after the colon, not here: it brings settings of its own
    config.labels = ()  # emotions to tell apart; () = the corpus's usual ones
    config.reported = ('emotion',)  # classifications and regressions that are validated and tested
    config.protocol = ''  # call string, e.g. 'speaker_folds(4)'; '' = the corpus's usual one
    config.folds = ()  # numbers of the folds to run, from 1; () = all
    config.validation = True  # False: validation speakers train too, the last parameters are tested
    config.report_test = True  # False: development; test speakers are never read, conditions take validation speakers
    config.final = True  # train a last model on all speakers, for predict and export
    config.labelled_share = 1.0  # of each training speaker's utterances; the rest join unlabelled
    config.labelled = ()  # other prepared corpora that join training with their emotion labels
    config.unlabelled = ()  # other prepared corpora that join training without their emotion labels
    config.unlabelled_share = 0.5  # share of each batch without labels, where there are any

    # What is tested beside clean speech.
    config.conditions = ()  # call strings, e.g. "noise('rain', 5)", 'telephone', 'pgd(0.05, 20)'
    # Prepared corpus whose types of noise the condition noise(…) takes, e.g. 'esc10'.
    config.test_noise_corpus = ''
    config.babble_corpus = ''  # prepared corpus whose speakers the condition babble(…) takes
    config.attack_source = ''  # workdir of the run on whose models transfer_… attacks are made
    # Prepared corpora that the final model is tested on, over the classes they share with config.corpus.
    config.test_corpora = ()
    config.target_statistics = False  # also normalised by their own statistics (transductive)
    config.few_shot = ()  # also adapted to so many of their utterances a class, e.g. (0, 5, 10, 15)
    config.few_shot_speakers = ()  # also adapted to such shares of their speakers, e.g. (0.2,)
    config.few_shot_steps = 100  # training steps of every adaptation
    config.few_shot_learning_rate = 5e-4  # peak of every adaptation

    # Augmentation: each utterance is left clean or undergoes one; which one is the augmentation type.
    config.augmentations = ()  # call strings, e.g. 'speed(0.9, 1.1)', 'mixup(0.2)'; log-mels only
    config.clean_share = 0.4  # probability of clean; the augmentations share the rest
    config.noise_corpus = ''  # prepared corpus for the augmentation noise(…); '' = coloured noise
    config.noise_types = ()  # of its noise, e.g. ('sea_waves', 'clock_tick'); () = all
    config.reconstruction_target = 'clean'  # what is reconstructed; 'augmented': the input itself

    # Training.
    config.batch_size = 16  # utterances a step, a multiple of the number of devices
    config.crop_frames = 200  # 10 ms each; longer utterances are cut to it at random in training
    config.steps = 1200  # of a fold, at most; the final model takes the median of the folds'
    config.eval_every = 100  # steps between validations (and checkpoints)
    config.patience = 6  # validations without a better one before training stops
    # Steps in a row without a finite gradient (they are skipped) after which training stops.
    config.skipped_steps = 50
    config.eval_batch_size = 16  # utterances a step of validation and test, likewise
    config.class_weights = True  # every class of a reported task counts the same in its loss
    config.label_smoothing = 0.1  # of the reported tasks: share spread over all classes
    config.adversarial_epsilon = 0.0  # trains on inputs attacked within it (standardised log-mel)
    config.parallelism = 'jit'  # how a step is spread over devices; pmap computes the same
    # Folds trained side by side in one program, each on one device (or CPU core).
    config.parallel_runs = 1
    config.objective = 'multitask'  # of the network: set by the config file

    # The optimiser, AdamW; of the phase `supervised` where there are several.
    config.optimiser = ml_collections.ConfigDict(
        {
            'learning_rate': 2e-3,  # peak: it rises linearly, then falls along a cosine
            'warmup': 0.1,  # share of the steps in which the rate rises
            'beta1': 0.9,  # of Adam: decay of the gradient's average
            'weight_decay': 0.05,  # of AdamW, times the learning rate a step
            'clip': 1.0,  # largest global norm of the gradient
            'average': 0.98,  # decay of the parameters' moving average, which is evaluated
        }
    )

    # Where data lie, and the front end.
    config.data = ml_collections.ConfigDict(
        {
            'data_dir': '~/.cache/ser_jax/records',  # prepared corpora
            # The corpus as its owner delivers it; '' = $SER_JAX_MANUAL_DIR/CORPUS.
            'manual_dir': '',
            'memory_gb': 4.0,  # corpora up to so many GiB are kept in memory
            'front_end': dataclasses.asdict(FrontEnd()),
        }
    )
    return config


# What the option `smoke` of every system sets, beside a small network of its own.
SMOKE = {
    'folds': (1,),
    'steps': 4,
    'eval_every': 2,
    'batch_size': 8,
    'eval_batch_size': 32,  # few shapes to compile
    'final': False,
}


def apply_options(
    config: ml_collections.ConfigDict,
    argument: str,
    presets: Mapping[str, Mapping],
    corpora: Mapping[str, Mapping],
) -> ml_collections.ConfigDict:
    """Applies what stands after the colon of `--config=FILE.py:CORPUS,OPTION…`.

    Args:
        config: to change.
        argument: `''`, or a corpus, or a corpus and options, separated by commas.
        presets: option -> fields to set ('optimiser.learning_rate' for nested ones).
        corpora: corpus -> fields to set for it.

    Returns:
        `config`, with `config.options` the options given.

    Raises:
        UserError: an unknown option.
    """
    corpus, *options = [word.strip() for word in argument.split(',')]
    if corpus in presets:
        raise UserError(
            f'{corpus!r} is an option, which stands behind a corpus: :{config.corpus},{corpus}'
        )
    config.corpus = corpus or config.corpus
    unknown = [option for option in options if option not in presets]
    if unknown:
        raise UserError(
            f'unknown option {unknown[0]!r} after the corpus; there are: {", ".join(sorted(presets))}'
        )
    config.options = tuple(options)
    config.settings_of = config.corpus
    for changes in (corpora.get(config.corpus, {}), *(presets[option] for option in options)):
        config.update_from_flattened_dict(dict(changes))
    return config


# What the conditions of a run are made with.
TESTED_WITH = (
    'test_noise_corpus',
    'babble_corpus',
    'attack_source',
    'few_shot',
    'few_shot_speakers',
    'few_shot_steps',
    'few_shot_learning_rate',
)


# What is no part of what a run is: where its data lie, how many of its folds train at once, when it
# is given up, and what its models are
# tested on beside clean speech, which may be added later.
_NOT_COMPARED = (
    'data.data_dir',
    'data.manual_dir',
    'data.memory_gb',
    'parallel_runs',
    'skipped_steps',
    'conditions',
    'test_corpora',
    'target_statistics',
    *TESTED_WITH,
)


def as_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The config as it comes back from a JSON file: lists for tuples."""
    return json.loads(json.dumps(config.to_dict()))


def compared(config: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    """Dotted field -> value of a config in JSON form, without what is no part of what a run is."""
    flat = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= compared(value, f'{prefix}{name}.')
        else:
            flat[prefix + name] = value
    return {name: value for name, value in flat.items() if name not in _NOT_COMPARED}
