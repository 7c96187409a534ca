"""One run, start to finish: `train_and_evaluate(config, workdir)` prepares, trains the folds, tests and reports."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from flax import linen as nn
from jax.experimental import multihost_utils

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.config import TESTED_WITH, as_json, check_config, compared, settings_note
from ser_jax.data.dataset import Dataset, Records, Sampling, open_dataset
from ser_jax.data.folds import Fold
from ser_jax.data.records import prepared_hash
from ser_jax.data.tasks import Task
from ser_jax.encoding.cache import make_encoding
from ser_jax.encoding.extraction import WINDOW_SECONDS
from ser_jax.encoding.views import views_of
from ser_jax.evaluation import diagnostics, results, testing
from ser_jax.evaluation.adaptation import Adapter
from ser_jax.evaluation.cross_corpus import CrossCorpusTester
from ser_jax.evaluation.robustness import RobustnessTester, open_recordings
from ser_jax.models.build import make_model
from ser_jax.models.encoders.pretrained import EncoderInput, load_input
from ser_jax.objectives.build import make_phases
from ser_jax.objectives.multitask import Phase
from ser_jax.objectives.optimiser import make_optimiser
from ser_jax.prepare import prepare_corpora
from ser_jax.reporting import figures
from ser_jax.runs import workdir as workdirs
from ser_jax.runs.predictions import write_predictions
from ser_jax.runs.result_card import read_card
from ser_jax.runtime import devices
from ser_jax.runtime.call_strings import parse_call
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import file_sha256, library_path, write_json
from ser_jax.training import loop
from ser_jax.training.experiment import Experiment, build_program
from ser_jax.training.metric_log import MetricLog
from ser_jax.training.progress import Progress
from ser_jax.transforms import augment
from ser_jax.transforms.conditions import parse_conditions

# Fields that `check_data` reads, where a config has them.
DATA_FIELDS = (
    'corpus',
    'representation',
    'encoder',
    'data',
    'tasks',
    'reported',
    'labels',
    'protocol',
    'folds',
    'validation',
    'labelled',
    'unlabelled',
    'noise_corpus',
    'noise_types',
    'augmentations',
    'conditions',
    'test_noise_corpus',
    'babble_corpus',
    'test_corpora',
)


class OpenRun(NamedTuple):
    """A config made ready. No module below this one sees the whole config but `prepare`."""

    experiment: Experiment
    robustness: RobustnessTester
    cross_corpus: CrossCorpusTester


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains and evaluates the folds of a config; finished ones are kept.

    Args:
        config: a config of `configs/*.py`.
        workdir: run directory; an interrupted run resumes from its last checkpoint.

    Returns:
        The result card (`results.json`). With `config.report_test = False` it has the validation UARs only, also
        under the conditions, and no test speaker's utterance has been read.

    Raises:
        UserError: a config that cannot be run, or a workdir of another one.
    """
    check_config(config)
    workdir = library_path(workdir).absolute()
    workdirs.check_workdir(workdir, as_json(config))
    card = read_card(workdir)
    if card and not needs_testing(config, card):
        names = [config.corpus, *config.labelled, *config.unlabelled]
        names += [config.noise_corpus] if config.noise_corpus else []
        hashes = _hashes(config, dict.fromkeys(names)) | _list_hashes(config)
        workdirs.refuse_changed(workdir, hashes)
        return card
    if config.attack_source and Path(config.attack_source).expanduser().absolute() == workdir:
        raise UserError(f'config.attack_source is the workdir itself: {workdir}; name another run')
    run = open_run(config)
    hashes = _run_hashes(config, run)
    with workdirs.claimed(workdir, as_json(config), hashes):
        with _progress(config, run, workdir) as progress:
            _train_all(config, run, workdir, progress)
            _predict_corpora(run, workdir, progress)
        return _report(config, run, workdir)


def evaluate(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Evaluates the kept parameters of a finished run again; predictions and card are written again.

    Raises:
        UserError: the run is missing, not finished, or of another config.
    """
    check_config(config)
    workdir = library_path(workdir).absolute()
    workdirs.check_workdir(workdir, as_json(config))
    if not (workdir / 'config.json').exists():
        raise UserError(f'there is no run in {workdir}: run it with --mode=train first')
    run = open_run(config)
    dataset, hashes = run.experiment.dataset, _run_hashes(config, run)
    with workdirs.claimed(workdir, as_json(config), hashes):
        names = [fold.name for fold in dataset.folds] + ['final'] * bool(config.test_corpora)
        missing = [name for name in names if not workdirs.summary_file(workdir, name).exists()]
        if missing:
            raise UserError(
                f'{workdir} has no finished {missing[0]}: run it with --mode=train first'
            )
        with _progress(config, run, workdir) as progress:
            for fold in dataset.folds:
                _predict(config, run, fold, workdir, progress, again=True)
            _predict_corpora(run, workdir, progress, again=True)
        return _report(config, run, workdir)


def open_data(config: ml_collections.ConfigDict, encoder: EncoderInput | None = None) -> Dataset:
    """Checks a config, and prepares and opens its corpora; touches no device unless there is something to encode.

    Raises:
        UserError: an invalid config, a corpus that cannot be prepared or opened, a protocol that does not fit it, a leak.
    """
    check_config(config)
    return _open_data(config, encoder)


def _open_data(config: ml_collections.ConfigDict, encoder: EncoderInput | None) -> Dataset:
    prepare_corpora(config, encoder)
    front_end = FrontEnd(**config.data.front_end)
    operations = augment.parse_operations(config.augmentations, config.representation)
    encoding, types = None, (0,)
    if config.representation == 'log_mel':
        length = augment.input_frames(operations, config.crop_frames)
    elif config.representation == 'waveform':
        length = config.crop_frames * front_end.hop_length
        types = tuple(range(1 + len(operations)))
    else:
        length = config.crop_frames
        views, types = views_of(operations)
        encoding = make_encoding(encoder.encoder, encoder.layers, encoder.output, views)
    manual_dirs = {config.corpus: config.data.manual_dir} if config.data.manual_dir else {}
    dataset = open_dataset(
        Records(config.data.data_dir, front_end, manual_dirs, encoding),
        config.corpus,
        representation=config.representation,
        tasks=config.tasks,
        reported=config.reported,
        sampling=Sampling(
            batch_size=config.batch_size,
            length=length,
            seed=config.seed,
            labelled_share=config.labelled_share,
            unlabelled_share=config.unlabelled_share,
            class_weights=config.class_weights,
            balanced_draws=config.balanced_draws,
            label_free='generator' in config.get('phases', ()),
            memory_gb=config.data.memory_gb,
            views=types,
            clean_share=config.clean_share,
        ),
        labels=config.labels,
        protocol=config.protocol,
        folds=config.folds,
        validation=config.validation,
        labelled=config.labelled,
        unlabelled=config.unlabelled,
        noise_corpus=config.noise_corpus,
        noise_types=config.noise_types,
        augmentations=config.augmentations,
    )
    if not dataset.folds and (config.conditions or not config.test_corpora):
        raise UserError(
            f'{dataset.protocol} has no test speakers: set config.test_corpora, and no config.conditions'
        )
    return dataset


def open_encoder(config: ml_collections.ConfigDict) -> EncoderInput | None:
    """Loads the pretrained encoder of a config; None without one. Raises UserError where it cannot be loaded or lacks a layer."""
    fine_tune = config.get('fine_tune', {})
    if config.representation != 'encoded' and not fine_tune.get('trains'):
        return None
    try:
        return load_input(config.encoder, fine_tune)
    except UserError as error:
        named = str(error).startswith('config.')
        raise UserError(f'config.encoder.weights: {error}' if not named else str(error)) from error


def build_experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Prepares and opens the corpora of a config, and builds its network and steps; nothing is compiled yet.

    Raises:
        UserError: anything in the config that cannot be run.
    """
    devices.start_processes()
    devices.check_devices()
    check_config(config)
    if config.representation == 'encoded':  # what cannot be run is refused before hours of encoding
        check_data(config)
    return _build_experiment(config, open_encoder(config))


def _build_experiment(
    config: ml_collections.ConfigDict, encoder: EncoderInput | None
) -> Experiment:
    dataset, head = _open_data(config, encoder), None
    front_end = dataset.records.front_end
    model = make_model(
        config.model.to_dict(),
        dataset.tasks,
        front_end,
        objective=config.objective,
        prior=config.adversary.prior if 'adversary' in config else '',
    )
    sizes = {name: config[name] for name in ('batch_size', 'eval_batch_size')}
    program = build_program(
        model=model,
        phases=build_phases(config, model, dataset.tasks, encoder),
        reported=dataset.reported,
        representation=config.representation,
        front_end=front_end,
        operations=augment.parse_operations(config.augmentations, config.representation),
        clean_share=config.clean_share,
        crop_frames=config.crop_frames,
        encoder=encoder,
        eval_batch_size=config.eval_batch_size,
        parallelism=config.parallelism,
        placement=devices.make_placement(config.parallelism, config.parallel_runs, sizes),
    )
    if program.trains_encoder:
        _refuse_long_utterances(config, dataset)
        head = _build_experiment(_head_config(config), encoder.frozen())
    return Experiment(dataset, program, head, config.steps)


def _head_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The config of the network with which fine-tuning begins: the same on the outputs of the frozen encoder."""
    head = ml_collections.ConfigDict(config.to_dict())
    head.update(
        representation='encoded',
        crop_frames=1,
        batch_size=config.fine_tune.head_batch_size,
        steps=config.fine_tune.head_steps,
        augmentations=(),
        conditions=(),
        test_corpora=(),
        parallel_runs=1,
    )
    head.optimiser = config.optimisers.head
    return head


def _refuse_long_utterances(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Refuses utterances that an encoder cannot take at once."""
    others = [
        dataset.records.open(name, 'waveform', 'test_corpora') for name in config.test_corpora
    ]
    for corpus in (*dataset.corpora(), *others):
        longest = corpus.index['duration'].max(initial=0)
        if longest > WINDOW_SECONDS:
            raise UserError(
                f'config.fine_tune.trains: an utterance of {corpus.name} lasts {longest:.0f} s; an encoder takes at most '
                f'{WINDOW_SECONDS} s at once'
            )


def build_phases(
    config: ml_collections.ConfigDict,
    model: nn.Module,
    tasks: tuple[Task, ...],
    encoder: EncoderInput | None = None,
) -> tuple[Phase, ...]:
    """Builds the phases of a step for a network, its tasks and an encoder that trains; UserError: phases that do not fit."""
    return make_phases(
        model,
        tasks,
        objective=config.objective,
        steps=config.steps,
        optimiser=config.optimiser,
        label_smoothing=config.label_smoothing,
        clean_target=config.reconstruction_target == 'clean',
        representation=config.representation,
        batch_size=config.batch_size,
        adversarial_epsilon=config.adversarial_epsilon,
        phases=config.get('phases', ()),
        optimisers=config.get('optimisers', {}),
        adversary=config.adversary.to_dict() if 'adversary' in config else {},
        encoder=encoder if encoder and encoder.rates else None,
        encoder_warmup=config.get('fine_tune', {}).get('warmup_steps', 0),
    )


def open_run(config: ml_collections.ConfigDict) -> OpenRun:
    """Makes a config ready: dataset, program and testers, so that a run fails before it trains.

    Raises:
        UserError: anything in the config that cannot be run.
    """
    experiment = build_experiment(config)
    robustness = RobustnessTester(
        experiment,
        **_conditions(config),
        attack_source=config.attack_source,
        test=config.report_test,
    )
    settings = config.optimiser.to_dict() | {'learning_rate': config.few_shot_learning_rate}
    adapter = Adapter(
        experiment,
        make_optimiser(settings, config.few_shot_steps),
        config.few_shot_steps,
        label_smoothing=config.label_smoothing,
        label_free=config.objective == 'multitask',
    )
    fields = [name for name in TESTED_WITH if name.startswith('few_shot')]
    cross_corpus = CrossCorpusTester(
        experiment,
        config.test_corpora,
        adapter,
        target_statistics=config.target_statistics,
        few_shot=config.few_shot,
        few_shot_speakers=config.few_shot_speakers,
        adaptation=' '.join(f'{name}={config[name]}' for name in fields),
    )
    return OpenRun(experiment, robustness, cross_corpus)


def _conditions(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return {
        'conditions': parse_conditions(config.conditions),
        'corpora': {name: config[name] for name in ('test_noise_corpus', 'babble_corpus')},
        'trained_noise': config.noise_types,
    }


def check_data(config: ml_collections.ConfigDict) -> None:
    """Prepares and opens everything that a run reads, without touching a device.

    Raises:
        UserError: something that cannot be prepared or opened.
    """
    check_config(config)
    if config.representation == 'encoded':  # encoding needs a device: the waveforms are checked
        config = ml_collections.ConfigDict(config.to_dict())
        config.update(representation='waveform', crop_frames=16, augmentations=())
    dataset = _open_data(config, None)
    open_recordings(dataset, **_conditions(config))
    for name in config.test_corpora:
        dataset.records.open(name, config.representation, 'test_corpora')


def _progress(config: ml_collections.ConfigDict, run: OpenRun, workdir: Path) -> Progress:
    """The progress of a run: what it consists of, and what is left."""
    folds = [fold.name for fold in run.experiment.dataset.folds]
    parts = folds + ['final'] * _has_final(config)
    is_trained = lambda part: workdirs.summary_file(workdir, part).exists()
    return Progress(
        parts,
        {part: config.steps for part in parts if not is_trained(part)},
        folds + ['final'] * bool(config.test_corpora),
        batch_size=config.batch_size,
        conditions=bool(config.conditions or config.test_corpora),
    )


def _has_final(config: ml_collections.ConfigDict) -> bool:
    return config.final and config.report_test  # development leaves the test speakers alone


def _train_all(
    config: ml_collections.ConfigDict, run: OpenRun, workdir: Path, progress: Progress
) -> None:
    """Trains the folds and the final model, and predicts the tested utterances of each fold."""
    dataset, log = run.experiment.dataset, MetricLog(workdir)
    trained = [fold for fold in dataset.folds if workdirs.summary_file(workdir, fold.name).exists()]
    for fold in trained:  # interrupted before, or with new conditions
        _predict(config, run, fold, workdir, progress)
    note = settings_note(config)
    if note and not trained and jax.process_index() == 0:
        print(note, file=sys.stderr, flush=True)
    _train(config, run, dataset.folds, config.steps, workdir, log, progress)
    if _has_final(config):
        no_rows = np.empty(0, np.int64)
        rows = no_rows if dataset.leaves_corpus_out else dataset.rows
        all_speakers = Fold('final', rows, no_rows, no_rows, ())
        steps = [workdirs.read_summary(workdir, fold.name)['steps'] for fold in dataset.folds]
        steps = int(np.median(steps or [config.steps]))
        _train(config, run, [all_speakers], steps, workdir, log, progress)
    log.close()


def _train(
    config: ml_collections.ConfigDict,
    run: OpenRun,
    folds: Sequence[Fold],
    stop: int,
    workdir: Path,
    log: MetricLog,
    progress: Progress,
) -> None:
    """Trains the folds that are not finished, and predicts the tested utterances of each."""
    jobs = [
        loop.Job(fold, workdir / 'checkpoints' / fold.name, stop)
        for fold in folds
        if not workdirs.summary_file(workdir, fold.name).exists()
    ]
    schedule = loop.Schedule(config.eval_every, config.patience, config.skipped_steps)
    for job, summary in loop.train_folds(run.experiment, schedule, jobs, log, progress):
        if jax.process_index() == 0:
            stale = workdir / 'predictions' / job.fold.name
            if stale.exists():  # of an earlier model of the fold, whose checkpoint was deleted
                shutil.rmtree(stale)
            write_json(workdirs.summary_file(workdir, job.fold.name), summary)
            loop.discard_latest(job.folder)
        multihost_utils.sync_global_devices(f'summary {job.fold.name}')
        if len(run.robustness.rows(job.fold)):
            _predict(config, run, job.fold, workdir, progress)


def _predict(
    config: ml_collections.ConfigDict,
    run: OpenRun,
    fold: Fold,
    workdir: Path,
    progress: Progress,
    again: bool = False,
) -> None:
    with progress.testing(fold.name):
        testing.predict_fold(
            run.experiment,
            run.robustness,
            fold,
            workdir,
            progress,
            test=config.report_test,
            again=again,
        )


def _predict_corpora(run: OpenRun, workdir: Path, progress: Progress, again: bool = False) -> None:
    with progress.testing('final'):
        testing.predict_corpora(run.experiment, run.cross_corpus, workdir, progress, again=again)


def _report(config: ml_collections.ConfigDict, run: OpenRun, workdir: Path) -> dict[str, Any]:
    """Pools the folds, and writes predictions, figures and result card."""
    experiment, dataset = run.experiment, run.experiment.dataset
    conditions = run.robustness.conditions
    pooled = {}
    if config.report_test and dataset.folds:
        names = ('clean', *conditions)
        pooled = results.pooled_predictions(dataset, names, workdir)
    card = results.make_card(
        dataset,
        pooled,
        run.cross_corpus,
        workdir,
        system=','.join([config.system, *config.options]),
        config=compared(as_json(config)),
        conditions=conditions,
        report_test=config.report_test,
        tested_with=tested_with(config),
        encoder=experiment.program.encoder,
    )
    folder, shown = workdir / 'report', {}
    if pooled:
        fold = dataset.folds[0]
        variables = jax.device_get(experiment.restore_best(workdir / 'checkpoints' / fold.name))
        if jax.process_index() == 0:
            shown = {
                'attention': diagnostics.attention(experiment, fold, variables),
                'codes': diagnostics.codes(experiment, fold, variables),
            }
            embedding = diagnostics.embedding(experiment, fold, variables)
            diagnostics.write_embedding(embedding, folder / 'embedding.csv')
    if jax.process_index() == 0:
        for name, predictions in pooled.items():
            labels = list(card['conditions'][name]['recall'])
            write_predictions(workdirs.pooled_file(workdir, name), predictions, labels)
        figures.draw_run(card, folder, **shown)
        write_json(workdir / 'results.json', card)
    return card


def needs_testing(config: ml_collections.ConfigDict, card: dict[str, Any]) -> bool:
    """Whether a config asks for conditions that the card of its finished run lacks."""
    found = card['conditions']
    if not config.report_test:
        found = card.get('validation', {}).get('conditions', {})
    names = {'cross_' + name.replace('/', '_') for name in config.test_corpora}
    if config.target_statistics:
        names |= {f'{name}_target_statistics' for name in names}
    names |= parse_conditions(config.conditions).keys()
    if config.report_test:  # one result per task
        names = {workdirs.result_name(name, task) for name in names for task in config.reported}
    changed = bool(names) and card.get('tested_with') != tested_with(config)
    return changed or not names <= set(found)


def tested_with(config: ml_collections.ConfigDict) -> dict[str, Any] | None:
    """What the conditions of a run depend on: fields of the config, and hashes of the corpora and models they name.

    None where the run has no condition but clean.
    """
    if not (config.conditions or config.test_corpora):
        return None
    stored = as_json(config)
    representations = dict.fromkeys(config.test_corpora)
    for name in filter(None, (config.test_noise_corpus, config.babble_corpus)):
        representations[name] = 'waveform'
    found = {name: stored[name] for name in TESTED_WITH}
    found['corpus_hashes'] = _hashes(config, representations)
    if config.attack_source:
        found['attack_models'] = workdirs.run_fingerprint(config.attack_source)
    return found


def _run_hashes(config: ml_collections.ConfigDict, run: OpenRun) -> dict[str, str]:
    """Hashes of all that a run must find unchanged when it resumes."""
    experiment = run.experiment
    found = experiment.dataset.corpus_hashes() | _list_hashes(config)
    if experiment.program.encoder:
        found[workdirs.ENCODER] = experiment.program.encoder.encoder.identity
    return found


def _list_hashes(config: ml_collections.ConfigDict) -> dict[str, str]:
    """'lists: ' and the path -> SHA-256 of the file that the protocol `fixed_lists` reads; {} for other protocols."""
    name, paths = parse_call(config.protocol, 'protocol') if config.protocol else ('', ())
    if name != 'fixed_lists':
        return {}
    return {
        workdirs.LISTS + path: file_sha256(Path(path))
        for path in paths
        if isinstance(path, str) and Path(path).is_file()
    }


def _hashes(
    config: ml_collections.ConfigDict, representations: dict[str, str | None]
) -> dict[str, str | None]:
    """Corpus -> hash as it is prepared now; a representation of None is the config's."""
    own = 'waveform' if config.representation == 'encoded' else config.representation
    return {
        name: prepared_hash(name, data_dir=config.data.data_dir, representation=kind or own)
        for name, kind in representations.items()
    }
