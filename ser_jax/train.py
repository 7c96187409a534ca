"""`train_and_evaluate(config, workdir)`: trains every fold, pools their predictions, writes the result card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from ser_jax import conditions, evaluation, figures, loop
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
    wanted = {'clean', *conditions.parse_conditions(config.conditions)}
    card = workdirs.read_card(workdir)
    if card and (not config.report_test or wanted <= set(card['conditions'])):
        names = [config.corpus, *config.unlabelled, *filter(None, [config.noise_corpus])]
        hashes = {name: prepared_hash(name, data_dir=config.data.data_dir) for name in names}
        workdirs.refuse_changed(workdir, hashes)
        return card
    experiment = build_experiment(config)
    tester = conditions.Tester(experiment)
    workdirs.claim_workdir(workdir, config, experiment.corpus_hashes())
    log = MetricLog(workdir)
    count = len(experiment.folds)
    titled = [(fold, f'{fold.name} ({k}/{count})') for k, fold in enumerate(experiment.folds, 1)]
    _train(experiment, tester, titled, config.steps, workdir, log)
    for (
        fold
    ) in experiment.folds:  # where an earlier start was cut off, or conditions have been added
        if config.report_test:
            _predict_fold(experiment, tester, fold, workdir)
    if config.final and config.report_test:  # development leaves the test speakers alone
        nobody = np.empty(0, np.int64)
        everybody = Fold('final', experiment.rows, nobody, nobody, ())
        steps = int(np.median([summary['steps'] for summary in _summaries(experiment, workdir)]))
        _train(experiment, tester, [(everybody, 'final model')], steps, workdir, log)
    log.close()
    return _report(experiment, tester, workdir)


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
    tester = conditions.Tester(experiment)
    workdirs.claim_workdir(workdir, config, experiment.corpus_hashes())
    missing = [f.name for f in experiment.folds if not _summary_file(workdir, f).exists()]
    if missing:
        raise UserError(f'{workdir} has no finished {missing[0]}: run it with --mode=train first')
    if config.report_test:
        for fold in experiment.folds:
            _predict_fold(experiment, tester, fold, workdir, anew=True)
    return _report(experiment, tester, workdir)


def _summary_file(workdir: Path, fold: Fold) -> Path:
    return workdir / 'checkpoints' / fold.name / 'summary.json'


def _predictions_file(workdir: Path, fold: Fold, condition: str) -> Path:
    return workdir / 'checkpoints' / fold.name / f'{condition}.csv'


def _summaries(experiment: Experiment, workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(_summary_file(workdir, fold).read_text()) for fold in experiment.folds]


def _train(
    experiment: Experiment,
    tester: conditions.Tester,
    folds: list[tuple[Fold, str]],
    stop: int,
    workdir: Path,
    log: MetricLog,
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
            _predict_fold(experiment, tester, job.fold, workdir)


def _predict_fold(
    experiment: Experiment,
    tester: conditions.Tester,
    fold: Fold,
    workdir: Path,
    anew: bool = False,
) -> None:
    """Predicts a fold's test utterances with its kept parameters, under every condition not yet there (or `anew`)."""
    names = [
        name
        for name in ('clean', *tester.conditions)
        if anew or not _predictions_file(workdir, fold, name).exists()
    ]
    if not names:
        return
    variables = loop.restore_best(experiment, workdir / 'checkpoints' / fold.name)
    for name in names:
        probabilities, facts = tester.predict(name, variables, fold)
        predictions = evaluation.Predictions(
            id=experiment.corpus.index['id'][fold.test],
            fold=[fold.name] * len(fold.test),
            speaker=experiment.corpus.index['speaker'][fold.test],
            label=experiment.emotions(fold.test),
            probabilities=probabilities,
        )
        if jax.process_index() == 0:
            path = _predictions_file(workdir, fold, name)
            if facts:
                evaluation.write_json(path.with_suffix('.json'), facts)
            evaluation.write_predictions(path, predictions, experiment.labels)
    multihost_utils.sync_global_devices(f'predictions {fold.name}')


def _pooled(experiment: Experiment, workdir: Path, condition: str) -> tuple[Any, dict[str, float]]:
    """Predictions of all folds under a condition, and the means of what else was said of them."""
    files = [_predictions_file(workdir, fold, condition) for fold in experiment.folds]
    parts = [evaluation.read_predictions(file)[0] for file in files]
    facts = [file.with_suffix('.json') for file in files]
    facts = [json.loads(file.read_text()) for file in facts if file.exists()]
    means = {name: float(np.mean([fact[name] for fact in facts])) for name in (facts or [{}])[0]}
    return evaluation.pool(parts), means


def _report(experiment: Experiment, tester: conditions.Tester, workdir: Path) -> dict[str, Any]:
    """Pools the folds, and writes predictions, picture and result card."""
    config, corpus = experiment.config, experiment.corpus
    summaries = _summaries(experiment, workdir)
    results, pooled, validation = {}, {}, None
    if config.report_test:
        for name in ('clean', *tester.conditions):
            pooled[name], facts = _pooled(experiment, workdir, name)
            results[name] = evaluation.summarise(pooled[name], experiment.labels) | facts
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
        conditions=results,
        leak_check=experiment.leak_check,
        cost=_total_cost([summary['cost'] for summary in summaries]),
        validation=validation,
        attack_checks=conditions.checks(
            tester.conditions, {name: result['uar'] for name, result in results.items()}
        ),
    )
    if jax.process_index() == 0:
        if config.report_test:
            for name, predictions in pooled.items():
                path = workdir / 'predictions' / f'{name}.csv'
                evaluation.write_predictions(path, predictions, experiment.labels)
            figures.confusion_matrix_figure(
                results['clean']['confusion'],
                experiment.labels,
                _figure_title(card),
                workdir / 'report' / 'confusion_matrix.png',
            )
            if tester.conditions:
                figures.robustness_figure(
                    conditions.panels(tester.conditions, results),
                    (results['clean']['uar'], results['clean']['uar_ci95']),
                    _figure_title(card),
                    workdir / 'report' / 'robustness.png',
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
