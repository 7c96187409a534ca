"""`train_and_evaluate(config, workdir)`: trains every fold, pools their predictions, writes the result card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from ser_jax import evaluation, figures, loop
from ser_jax import workdir as workdirs
from ser_jax.corpora import prepared_hash
from ser_jax.environment import joined
from ser_jax.errors import UserError
from ser_jax.experiment import Experiment, build_experiment
from ser_jax.protocols import Fold
from ser_jax.writer import MetricLog


def train_and_evaluate(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains and evaluates the folds of a config, one after the other; finished ones are kept.

    Args:
        config: of the run (`configs/*.py`).
        workdir: the run's folder; a run that was cut short goes on from its last checkpoint.

    Returns:
        The result card (`results.json`). With `config.report_test = False` it has no conditions, but
        the validation UARs only, and no test speaker's utterance has been read.

    Raises:
        UserError: a config that cannot be run, or a workdir of another one.
    """
    workdir = Path(workdir).expanduser().absolute()
    workdirs.check_workdir(workdir, config)
    if (workdir / 'results.json').exists():
        names = [config.corpus, *config.unlabelled, *filter(None, [config.noise_corpus])]
        hashes = {name: prepared_hash(name, data_dir=config.data.data_dir) for name in names}
        workdirs.refuse_changed(workdir, hashes)
        return json.loads((workdir / 'results.json').read_text())
    experiment = build_experiment(config)
    workdirs.claim_workdir(workdir, config, experiment.corpus_hashes())
    log = MetricLog(workdir)
    count = len(experiment.folds)
    titled = [(fold, f'{fold.name} ({k}/{count})') for k, fold in enumerate(experiment.folds, 1)]
    _train(experiment, titled, config.steps, workdir, log)
    for fold in experiment.folds:  # one whose start was cut off between training and predicting
        if config.report_test and not _predictions_file(workdir, fold).exists():
            _predict_fold(experiment, fold, workdir)
    if config.final and config.report_test:  # development leaves the test speakers alone
        nobody = np.empty(0, np.int64)
        everybody = Fold('final', experiment.rows, nobody, nobody, ())
        steps = int(np.median([summary['steps'] for summary in _summaries(experiment, workdir)]))
        _train(experiment, [(everybody, 'final model')], steps, workdir, log)
    log.close()
    return _report(experiment, workdir)


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
    workdir = Path(workdir).expanduser().absolute()
    workdirs.check_workdir(workdir, config)
    if not (workdir / 'config.json').exists():
        raise UserError(f'there is no run in {workdir}: run it with --mode=train first')
    experiment = build_experiment(config)
    workdirs.claim_workdir(workdir, config, experiment.corpus_hashes())
    missing = [f.name for f in experiment.folds if not _summary_file(workdir, f).exists()]
    if missing:
        raise UserError(f'{workdir} has no finished {missing[0]}: run it with --mode=train first')
    if config.report_test:
        for fold in experiment.folds:
            _predict_fold(experiment, fold, workdir)
    return _report(experiment, workdir)


def _summary_file(workdir: Path, fold: Fold) -> Path:
    return workdir / 'checkpoints' / fold.name / 'summary.json'


def _predictions_file(workdir: Path, fold: Fold) -> Path:
    return workdir / 'checkpoints' / fold.name / 'clean.csv'


def _summaries(experiment: Experiment, workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(_summary_file(workdir, fold).read_text()) for fold in experiment.folds]


def _train(
    experiment: Experiment, folds: list[tuple[Fold, str]], stop: int, workdir: Path, log: MetricLog
) -> None:
    """Trains those of some (fold, title) that no earlier start has finished, and predicts their test utterances."""
    jobs = [
        loop.Job(fold, workdir / 'checkpoints' / fold.name, title, stop)
        for fold, title in folds
        if not _summary_file(workdir, fold).exists()
    ]
    for job, summary in loop.train_folds(experiment, jobs, log):
        if jax.process_index() == 0:
            evaluation.write_json(_summary_file(workdir, job.fold), summary)
            loop.discard_latest(job.folder)
        if experiment.config.report_test and len(job.fold.test):
            _predict_fold(experiment, job.fold, workdir)


def _predict_fold(experiment: Experiment, fold: Fold, workdir: Path) -> None:
    """Predicts a fold's test utterances with its kept parameters."""
    variables = loop.restore_best(experiment, workdir / 'checkpoints' / fold.name)
    utterances = experiment.utterances(fold.test)
    predictions = evaluation.Predictions(
        id=experiment.corpus.index['id'][fold.test],
        fold=[fold.name] * len(fold.test),
        speaker=experiment.corpus.index['speaker'][fold.test],
        label=utterances.labels['emotion'],
        probabilities=loop.predict(experiment, variables, utterances),
    )
    if jax.process_index() == 0:
        path = _predictions_file(workdir, fold)
        evaluation.write_predictions(path, predictions, experiment.labels)
    multihost_utils.sync_global_devices(f'predictions {fold.name}')


def _report(experiment: Experiment, workdir: Path) -> dict[str, Any]:
    """Pools the folds, and writes predictions, picture and result card."""
    config, corpus = experiment.config, experiment.corpus
    summaries = _summaries(experiment, workdir)
    conditions, validation = {}, None
    if config.report_test:
        parts = [
            evaluation.read_predictions(_predictions_file(workdir, fold))[0]
            for fold in experiment.folds
        ]
        pooled = evaluation.pool(parts)
        conditions['clean'] = evaluation.summarise(pooled, experiment.labels)
    if config.validation:
        validation = evaluation.summarise_validation(
            [
                {
                    'fold': fold.name,
                    'validation_speakers': sorted(set(corpus.index['speaker'][fold.validation])),
                    'n': len(fold.validation),
                    'uar': summary['validation_uar'],
                }
                for fold, summary in zip(experiment.folds, summaries)
            ]
        )
    content = workdirs.compared(workdirs.as_json(config))
    del content['seed']  # runs that differ in nothing else make one row of a table
    content = json.dumps(content, sort_keys=True)
    card = evaluation.result_card(
        system=','.join([config.system, *config.options]),
        config_hash=hashlib.sha256(content.encode()).hexdigest()[:16],
        corpus=corpus.name,
        corpus_hash=corpus.metadata['corpus_hash'],
        synthetic=corpus.metadata['synthetic'],
        labels=experiment.labels,
        protocol=experiment.protocol,
        n_folds=(len(experiment.folds), experiment.n_folds),
        environment=joined([summary['environment'] for summary in summaries]),
        seed=config.seed,
        n_params=summaries[0]['n_params'],
        conditions=conditions,
        leak_check=experiment.leak_check,
        cost=_total_cost([summary['cost'] for summary in summaries]),
        validation=validation,
    )
    if jax.process_index() == 0:
        if config.report_test:
            evaluation.write_predictions(
                workdir / 'predictions' / 'clean.csv', pooled, experiment.labels
            )
            figures.confusion_matrix_figure(
                conditions['clean']['confusion'],
                experiment.labels,
                _figure_title(card),
                workdir / 'report' / 'confusion_matrix.png',
            )
        evaluation.write_json(workdir / 'results.json', card)
    return card


def _figure_title(card: dict[str, Any]) -> str:
    clean = card['conditions']['clean']
    kind = 'synthetic' if card['synthetic'] else 'real'
    return (
        f'{card["system"]} on {card["corpus"]} ({kind} speech)\n'
        f'{card["protocol"]}, {card["n_folds"][0]} of {card["n_folds"][1]} folds, seed {card["seed"]}: '
        f'UAR {100 * clean["uar"]:.1f} %, n = {clean["n"]}'
    )


def _total_cost(costs: list[dict[str, float]]) -> dict[str, float]:
    """Sums of seconds, means of rates (each weighted by its fold's seconds), the peak of memory."""
    seconds = np.array([cost['train_seconds'] for cost in costs])
    mean = lambda name: float(np.average([cost[name] for cost in costs], weights=seconds))
    return {
        'train_seconds': float(seconds.sum()),
        'compile_seconds': sum(cost['compile_seconds'] for cost in costs),
        'utterances_per_second': mean('utterances_per_second'),
        'peak_memory_mb': max((cost['peak_memory_mb'] or 0 for cost in costs), default=None),
        'data_wait_fraction': mean('data_wait_fraction'),
    }
