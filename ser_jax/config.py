"""The fields every config has, and the `CORPUS,OPTION…` argument."""

import dataclasses
from collections.abc import Mapping

import ml_collections

from ser_jax.errors import UserError
from ser_jax.features import FrontEnd


def base_config() -> ml_collections.ConfigDict:
    """The fields shared by all systems, with their defaults; a config file adds its own."""
    config = ml_collections.ConfigDict()
    config.system = ''  # name of the config file
    config.representation = 'log_mel'  # what the network sees; or 'waveform'
    config.seed = 0  # of initial parameters, data order, augmentation and dropout

    # What is learnt from, and how it is evaluated.
    config.corpus = 'demo_speech'
    config.labels = ()  # emotions to tell apart; () = the corpus's usual ones
    config.reported = ('emotion',)  # classifications and regressions that are validated and tested
    config.protocol = ''  # e.g. 'speaker_folds(4)'; '' = the corpus's usual one
    config.folds = ()  # numbers of the folds to run, from 1; () = all
    config.validation = True  # False: validation speakers train too, the last parameters are tested
    config.conditions = ()  # tested beside clean, e.g. "noise('rain', 5)", 'telephone', 'pgd(0.05, 20)'
    config.test_noise_corpus = (
        ''  # prepared corpus whose types of noise the condition noise(…) takes
    )
    config.babble_corpus = ''  # prepared corpus whose speakers the condition babble(…) takes
    config.attack_source = (
        ''  # workdir of the run on whose models the conditions transfer_… are made
    )
    # Prepared corpora that the final model is tested on, over the classes they share with config.corpus.
    config.test_corpora = ()
    config.target_statistics = False  # also normalised by their own statistics (transductive)
    config.few_shot = ()  # also adapted to so many of their utterances a class, e.g. (0, 5, 10, 15)
    config.few_shot_speakers = ()  # also adapted to such shares of their speakers, e.g. (0.2,)
    config.few_shot_steps = 100
    config.few_shot_learning_rate = 5e-4  # peak
    config.report_test = True  # False: development; test speakers are never read (no final model)
    config.final = True  # train a last model on all speakers, for predict and export
    config.labelled_share = 1.0  # of each training speaker's utterances; the rest join unlabelled
    config.labelled = ()  # prepared corpora that join training with their emotion labels
    config.unlabelled = ()  # … and without them
    config.unlabelled_share = 0.5  # of each batch, where there are any
    config.noise_corpus = ''  # prepared corpus for the augmentation noise(…); '' = coloured noise
    config.noise_types = ()  # of its noise, e.g. ('sea_waves', 'clock_tick'); () = all

    # Each utterance is left clean or undergoes one of these; which one is the augmentation type.
    config.augmentations = ()
    config.clean_share = 0.4  # probability of clean; the augmentations share the rest
    config.reconstruction_target = 'clean'  # or 'augmented': what the network sees

    # Training.
    config.batch_size = 16  # utterances a step, over all devices
    config.crop_frames = 200  # 10 ms each; longer utterances are cropped at random in training
    config.steps = 1200
    config.eval_every = 100  # steps between validations (and checkpoints)
    config.patience = 6  # validations without a better one before training stops
    config.eval_batch_size = 16
    config.class_weights = True  # every emotion counts the same in the loss
    config.label_smoothing = 0.1
    config.adversarial_epsilon = 0.0  # trains on inputs attacked within it (standardised log-mel)
    config.parallelism = 'jit'  # or 'pmap'
    config.parallel_runs = (
        1  # folds trained side by side in one program, each on one device (or CPU core)
    )
    config.objective = 'multitask'  # or 'adversarial': see configs/adversarial_autoencoder.py
    config.optimiser = ml_collections.ConfigDict(
        {
            'learning_rate': 2e-3,  # peak
            'warmup': 0.1,  # share of the steps
            'beta1': 0.9,  # of Adam: decay of the gradient's average
            'weight_decay': 0.05,
            'clip': 1.0,  # largest global norm of the gradient
            'average': 0.98,  # decay of the parameters' moving average, which is evaluated
        }
    )

    config.data = ml_collections.ConfigDict(
        {
            'data_dir': '~/.cache/ser_jax/records',  # prepared corpora
            'manual_dir': '',  # the corpus as its owner delivers it; '' = $SER_JAX_MANUAL_DIR/<corpus>
            'memory_gb': 4.0,  # corpora up to this size are kept in memory
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
    'eval_batch_size': 8,
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
    config.settings_of = config.corpus  # whose settings are applied below
    for changes in (corpora.get(config.corpus, {}), *(presets[option] for option in options)):
        config.update_from_flattened_dict(dict(changes))
    return config
