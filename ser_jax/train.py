"""`train_and_evaluate(config, workdir)`: trains every fold, pools their predictions, writes the result card."""

import sys
import time
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from ser_jax.config import check_config
from ser_jax.data.folds import Fold
from ser_jax.data.labels import level_of
from ser_jax.data.records import prepared_hash
from ser_jax.evaluation.cross_corpus import CrossCorpus
from ser_jax.evaluation.results import report, tested_with
from ser_jax.evaluation.robustness import Tester
from ser_jax.prepare import prepare_corpora
from ser_jax.runs import workdir as workdirs
from ser_jax.runs.predictions import Predictions, write_predictions
from ser_jax.runs.result_card import read_card
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import local_path, write_json
from ser_jax.training import inference, loop
from ser_jax.training.experiment import Experiment, build_experiment
from ser_jax.training.metric_log import MetricLog
from ser_jax.transforms.conditions import parse_conditions


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains and evaluates the folds of a config; finished ones are kept.

    Args:
        config: of the run (`configs/*.py`).
        workdir: the run's folder; a run that was cut short goes on from its last checkpoint.

    Returns:
        The result card (`results.json`). With `config.report_test = False` it has the validation UARs only, also
        under the conditions, and no test speaker's utterance has been read.

    Raises:
        UserError: a config that cannot be run, or a workdir of another one.
    """
    check_config(config)
    workdir = local_path(workdir).absolute()
    workdirs.check_workdir(workdir, config)
    card = read_card(workdir)
    if card and not needs_testing(config, card):
        names = [config.corpus, *config.labelled, *config.unlabelled]
        names += [config.noise_corpus] if config.noise_corpus else []
        hashes = {
            name: prepared_hash(
                name, data_dir=config.data.data_dir, representation=config.representation
            )
            for name in names
        }
        workdirs.refuse_changed(workdir, hashes)
        return card
    if config.attack_source and Path(config.attack_source).expanduser().absolute() == workdir:
        raise UserError(f'config.attack_source is the workdir itself: {workdir}; name another run')
    prepare_corpora(config)
    experiment = build_experiment(config)
    tester, cross = Tester(experiment), CrossCorpus(experiment)
    with workdirs.claimed(workdir, config, experiment.corpus_hashes()):
        _train_all(experiment, tester, workdir)
        _predict_corpora(experiment, cross, workdir)
        return report(experiment, tester, cross, workdir)


def _train_all(experiment: Experiment, tester: Tester, workdir: Path) -> None:
    """Trains the folds and the final model, and predicts what is tested of the folds."""
    config, log = experiment.config, MetricLog(workdir)
    count = len(experiment.folds)
    titled = [(fold, f'{fold.name} ({k}/{count})') for k, fold in enumerate(experiment.folds, 1)]
    _train(experiment, tester, titled, config.steps, workdir, log)
    for fold in experiment.folds:  # cut off before, or with new conditions
        _predict_fold(experiment, tester, fold, workdir)
    if config.final and config.report_test:  # development leaves the test speakers alone
        nobody = np.empty(0, np.int64)
        everybody = Fold('final', experiment.rows, nobody, nobody, ())
        steps = [workdirs.read_summary(workdir, fold.name)['steps'] for fold in experiment.folds]
        steps = int(np.median(steps or [config.steps]))
        _train(experiment, tester, [(everybody, 'final model')], steps, workdir, log)
    log.close()


def needs_testing(config: ml_collections.ConfigDict, card: dict[str, Any]) -> bool:
    """Whether a finished run is asked for conditions that its card lacks."""
    found = card['conditions']
    if not config.report_test:
        found = card.get('validation', {}).get('conditions', {})
    names = {'cross_' + name.replace('/', '_') for name in config.test_corpora}
    if config.target_statistics:
        names |= {f'{name}_target_statistics' for name in names}
    names |= parse_conditions(config.conditions).keys()
    if config.report_test:  # a result a task
        names = {workdirs.result_name(name, task) for name in names for task in config.reported}
    changed = bool(names) and card.get('tested_with') != tested_with(config)
    return changed or not names <= set(found)


def evaluate(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Evaluates the kept parameters of a finished run again, and writes predictions and card anew.

    Args:
        config: of the run.
        workdir: its folder.

    Returns:
        The result card.

    Raises:
        UserError: the run is not there, not finished, or another config's.
    """
    workdir = local_path(workdir).absolute()
    workdirs.check_workdir(workdir, config)
    if not (workdir / 'config.json').exists():
        raise UserError(f'there is no run in {workdir}: run it with --mode=train first')
    prepare_corpora(config)
    experiment = build_experiment(config)
    tester, cross = Tester(experiment), CrossCorpus(experiment)
    with workdirs.claimed(workdir, config, experiment.corpus_hashes()):
        names = [fold.name for fold in experiment.folds] + ['final'] * bool(config.test_corpora)
        missing = [name for name in names if not workdirs.summary_file(workdir, name).exists()]
        if missing:
            raise UserError(
                f'{workdir} has no finished {missing[0]}: run it with --mode=train first'
            )
        for fold in experiment.folds:
            _predict_fold(experiment, tester, fold, workdir, anew=True)
        _predict_corpora(experiment, cross, workdir, anew=True)
        return report(experiment, tester, cross, workdir)


def _train(
    experiment: Experiment,
    tester: Tester,
    folds: list[tuple[Fold, str]],
    stop: int,
    workdir: Path,
    log: MetricLog,
) -> None:
    """Trains those of some (fold, title) that no earlier start has finished, and predicts what is tested of them."""
    jobs = [
        loop.Job(fold, workdir / 'checkpoints' / fold.name, title, stop)
        for fold, title in folds
        if not workdirs.summary_file(workdir, fold.name).exists()
    ]
    for job, summary in loop.train_folds(experiment, jobs, log):
        if jax.process_index() == 0:
            write_json(workdirs.summary_file(workdir, job.fold.name), summary)
            loop.discard_latest(job.folder)
        multihost_utils.sync_global_devices(f'summary {job.fold.name}')
        if len(tester.rows(job.fold)):
            _predict_fold(experiment, tester, job.fold, workdir)


def _predict_fold(
    experiment: Experiment,
    tester: Tester,
    fold: Fold,
    workdir: Path,
    anew: bool = False,
) -> None:
    """Predicts with a fold's kept parameters what is not yet there (or `anew`).

    That is its test utterances, under every condition, and its validation utterances, which calibrate; where no
    test speaker may be read, the latter under every condition but clean, and nothing else.
    """
    tested = experiment.config.report_test
    side = '' if tested else 'validation_'

    def files(name):
        results = [workdirs.result_name(name, task.name) for task in experiment.reported]
        paths = [workdirs.predictions_file(workdir, fold.name, result) for result in results]
        return paths, paths[0].with_name(f'{name}.json')

    names = [
        name
        for name in ('clean', *tester.conditions)
        if (tested or name != 'clean')
        and (anew or not workdirs.is_made(*files(side + name), tester.made_with(name)))
    ]
    to_validate = files('validation')[0] if len(fold.validation) else []
    if not tested or (not anew and all(path.exists() for path in to_validate)):
        to_validate = []
    if not names and not to_validate:
        return
    variables = inference.restore_best(experiment, workdir / 'checkpoints' / fold.name)
    if to_validate:
        answers = inference.predict(experiment, variables, experiment.utterances(fold.validation))
        _write_answers(experiment, fold.name, fold.validation, answers, to_validate)
    said = time.monotonic()
    for number, name in enumerate(names, 1):
        if jax.process_index() == 0 and time.monotonic() - said > 5:
            said = time.monotonic()
            print(
                f'{fold.name}  condition {number}/{len(names)}  {name}', file=sys.stderr, flush=True
            )
        answers, facts = tester.predict(name, variables, fold)
        if jax.process_index() > 0:
            continue
        paths, told = files(side + name)
        for path in paths:
            # What was made with something else must not be taken for this, should we be killed here.
            path.unlink(missing_ok=True)
        write_json(
            told, {'made_with': tester.made_with(name), 'n': len(tester.rows(fold)), **facts}
        )
        _write_answers(experiment, fold.name, tester.rows(fold), answers, paths)
    multihost_utils.sync_global_devices(f'predictions {fold.name}')


def _write_answers(
    experiment: Experiment,
    fold: str,
    rows: np.ndarray,
    answers: dict[str, np.ndarray],
    paths: list[Path],
) -> None:
    """Writes what was said of some rows of the corpus, for every reported task of those that have a label of it."""
    if jax.process_index() > 0:
        return
    index = experiment.corpus.index
    for task, path in zip(experiment.reported, paths):
        labels, ratings = experiment.labels_of(task, rows), {}
        labelled = labels >= 0
        known, said = rows[labelled], answers[task.name][labelled]
        if task.kind == 'regression':
            ratings = {'rating': index[task.target][known], 'predicted_rating': said[:, 0]}
            said = np.eye(len(task.classes))[level_of(said[:, 0])]
        predictions = Predictions(
            id=index['id'][known],
            fold=[fold] * len(known),
            speaker=index['speaker'][known],
            label=labels[labelled],
            probabilities=said,
            **ratings,
        )
        write_predictions(path, predictions, task.classes)


def _predict_corpora(
    experiment: Experiment, cross: CrossCorpus, workdir: Path, anew: bool = False
) -> None:
    """Predicts other corpora with the final model, under every condition not yet there (or `anew`)."""
    final = workdir / 'checkpoints' / 'final'
    files = {
        name: ([workdir / 'predictions' / f'{name}.csv'], final / f'{name}.json')
        for name in cross.conditions
    }
    files = {
        name: pair
        for name, pair in files.items()
        if anew or not workdirs.is_made(*pair, cross.made_with(name))
    }
    if not files:
        return
    variables = inference.restore_best(experiment, final)
    for name, ((file,), told) in files.items():
        predictions, labels = cross.predict(name, variables)
        if jax.process_index() == 0:
            file.unlink(missing_ok=True)
            write_json(told, {'made_with': cross.made_with(name)})
            write_predictions(file, predictions, labels)
    multihost_utils.sync_global_devices('predictions of corpora')
