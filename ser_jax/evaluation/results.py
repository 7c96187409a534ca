"""What a finished run leaves: pooled predictions, pictures and the result card."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from ser_jax import config as config_module
from ser_jax.data.records import prepared_hash
from ser_jax.evaluation import summary
from ser_jax.evaluation.attention import draw_attention
from ser_jax.evaluation.calibration import calibrate
from ser_jax.evaluation.codes import draw_codes
from ser_jax.evaluation.cross_corpus import CrossCorpus
from ser_jax.evaluation.embedding import write_embedding
from ser_jax.evaluation.robustness import Tester
from ser_jax.metrics import rates as metrics
from ser_jax.reporting import figures
from ser_jax.runs import result_card
from ser_jax.runs import workdir as workdirs
from ser_jax.runs.environment import merge_environments
from ser_jax.runs.predictions import Predictions, pool, read_predictions, write_predictions
from ser_jax.runtime import files
from ser_jax.training.experiment import Experiment
from ser_jax.transforms import conditions


def report(
    experiment: Experiment, tester: Tester, cross: CrossCorpus, workdir: Path
) -> dict[str, Any]:
    """Pools the folds, and writes predictions, pictures and result card.

    Args:
        experiment: of the run.
        tester: of its conditions.
        cross: of the corpora tested with its final model.
        workdir: with the summaries and predictions of all folds.

    Returns:
        The card.
    """
    config, corpus = experiment.config, experiment.corpus
    folds = [fold.name for fold in experiment.folds]
    # Without folds there is only the final model, whose time and size then count.
    summaries = [workdirs.read_summary(workdir, name) for name in folds or ['final']]
    results, pooled, rates, validation = {}, {}, {}, None
    if config.report_test and folds:
        for condition in ('clean', *tester.conditions):
            facts = _facts(folds, workdir, condition)
            for task in experiment.reported:
                name = workdirs.result_name(condition, task.name)
                pooled[name] = _pooled(folds, workdir, name)
                own = {} if task.name == 'emotion' else {'task': task.name, 'labels': task.classes}
                results[name] = summary.summarise(pooled[name], task.classes) | facts | own
            of_tasks = [
                results[workdirs.result_name(condition, t.name)]['uar'] for t in experiment.reported
            ]
            rates[condition] = float(np.mean(of_tasks))
    for name in cross.conditions:
        predictions, labels = read_predictions(workdir / 'predictions' / f'{name}.csv')
        results[name] = summary.summarise(predictions, labels) | cross.about(name)
    if config.validation and folds:
        tried = {} if config.report_test else _validated(experiment, tester, workdir)
        validation = summary.summarise_validation(
            [
                {
                    'fold': fold.name,
                    'validation_speakers': sorted(set(corpus.index['speaker'][fold.validation])),
                    'n': len(fold.validation),
                    **_validation(summary),
                }
                for fold, summary in zip(experiment.folds, summaries)
            ],
            tried,
        )
        rates = rates or {'clean': validation['uar'], **tried}
    content = config_module.compared(config_module.as_json(config))
    del content['seed']  # runs that differ in nothing else make one row of a table
    card = result_card.make_card(
        system=','.join([config.system, *config.options]),
        config_hash=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16],
        config=content,
        corpus=corpus.name,
        trained_on=[corpus.name, *config.labelled],
        corpus_hash=corpus.metadata['corpus_hash'],
        synthetic=corpus.metadata['synthetic'],
        labels=experiment.labels,
        tasks={task.name: task.classes for task in experiment.reported},
        protocol=experiment.protocol,
        n_folds=(len(folds), experiment.n_folds),
        **merge_environments([summary['environment'] for summary in summaries]),
        seed=config.seed,
        n_params=summaries[0]['n_params'],
        conditions=results,
        leak_check=experiment.leak_check,
        cost=_total_cost([summary['cost'] for summary in summaries]),
        validation=validation,
        attack_checks=conditions.checks(tester.conditions, rates) or None,
        tested_with=tested_with(config),
        n_labels=_n_labels(summaries) if config.labelled_share < 1 else None,
        calibration=(_calibration(experiment, workdir) or None) if pooled else None,
    )
    if pooled:
        draw_attention(experiment, experiment.folds[0], workdir)
        draw_codes(experiment, experiment.folds[0], workdir)
        write_embedding(experiment, experiment.folds[0], workdir)
    if jax.process_index() == 0:
        for name, predictions in pooled.items():
            path = workdir / 'predictions' / f'{name}.csv'
            write_predictions(path, predictions, list(results[name]['recall']))
        _draw(card, tester, workdir / 'report')
        files.write_json(workdir / 'results.json', card)
    return card


def tested_with(config: ml_collections.ConfigDict) -> dict[str, Any] | None:
    """What the conditions of a run are made with, and which corpora and models those are now.

    Args:
        config: of the run.

    Returns:
        Field -> value; None where the run has no condition but clean.
    """
    if not (config.conditions or config.test_corpora):
        return None
    flat = config_module.as_json(config)
    kinds = dict.fromkeys(config.test_corpora, config.representation)
    kinds |= {name: 'waveform' for name in (config.test_noise_corpus, config.babble_corpus) if name}
    hashes = {
        name: prepared_hash(name, data_dir=config.data.data_dir, representation=kind)
        for name, kind in kinds.items()
    }
    made_with = {name: flat[name] for name in config_module.TESTED_WITH} | {'corpus_hashes': hashes}
    if config.attack_source:
        made_with['attack_models'] = workdirs.run_fingerprint(config.attack_source)
    return made_with


def _pooled(folds: list[str], workdir: Path, result: str) -> Predictions:
    """Predictions of all folds."""
    files = [workdirs.predictions_file(workdir, name, result) for name in folds]
    return pool([read_predictions(file)[0] for file in files])


def _validated(experiment: Experiment, tester: Tester, workdir: Path) -> dict[str, float]:
    """Condition -> UAR on the validation speakers under it, mean over folds and reported tasks."""
    rates = {}
    for condition in tester.conditions:
        told = []
        for fold in experiment.folds:
            for task in experiment.reported:
                name = workdirs.result_name(f'validation_{condition}', task.name)
                said = read_predictions(workdirs.predictions_file(workdir, fold.name, name))[0]
                summary.refuse_not_finite(said)
                counts = metrics.confusion_matrix(said.label, said.prediction, len(task.classes))
                told.append(metrics.uar(counts))
        rates[condition] = float(np.mean(told))
    return rates


def _calibration(experiment: Experiment, workdir: Path) -> dict[str, dict[str, float]]:
    """`calibration.calibrate(…)` of every reported classification, named as the results of clean speech."""

    def read(name):
        names = [fold.name for fold in experiment.folds]
        files = {fold: workdirs.predictions_file(workdir, fold, name) for fold in names}
        return {fold: read_predictions(file)[0] for fold, file in files.items()}

    found = {}
    validated = all(len(fold.validation) for fold in experiment.folds)
    for task in experiment.reported:
        if task.kind == 'classification':
            clean, own = (workdirs.result_name(side, task.name) for side in ('clean', 'validation'))
            found[clean] = calibrate(read(clean), read(own) if validated else {})
    return found


def _facts(folds: list[str], workdir: Path, condition: str) -> dict[str, float]:
    """The means over the folds of what else was said of their predictions."""
    files = [workdirs.predictions_file(workdir, name, condition) for name in folds]
    facts = [json.loads(file.with_suffix('.json').read_text()) for file in files]
    sizes = [fact['n'] for fact in facts]
    return {
        name: float(np.average([fact[name] for fact in facts], weights=sizes))
        for name in facts[0].keys() - {'made_with', 'n'}
    }


def _draw(card: dict[str, Any], tester: Tester, folder: Path) -> None:
    """The pictures of a run: confusions of clean speech and of other corpora, and robustness, for every task."""
    results = card['conditions']
    for name, result in results.items():
        if name.startswith(('clean', 'cross_')):
            path = folder / f'confusion_matrix{name.removeprefix("clean")}.png'
            if name.startswith('cross_'):
                path = folder / f'confusion_matrix_{name}.png'
            labels = list(result['recall'])
            figures.confusion_matrix_figure(result['confusion'], labels, _title(card, name), path)
    for name in results:
        if name.startswith('clean') and tester.conditions:
            task = name.removeprefix('clean')
            figures.robustness_figure(
                figures.panels(
                    tester.conditions, {c: results[c + task] for c in tester.conditions}
                ),
                {'clean': results[name]['uar']},
                _title(card, name),
                folder / f'robustness{task}.png',
            )


def _title(card: dict[str, Any], name: str) -> str:
    result = card['conditions'][name]
    tested = {'corpus': card['corpus'], 'synthetic': card['synthetic']} | result
    what = f', {result["task"]}' if 'task' in result else ''
    where = f'{tested["corpus"]} ({"synthetic" if tested["synthetic"] else "real"} speech){what}'
    if name.startswith('clean'):
        folds = '{} of {} folds'.format(*card['n_folds'])
        how = f'{card["protocol"]}, {folds}, seed {card["seed"]}'
    else:
        how = f'{name}, trained on {" and ".join(card["trained_on"])}, seed {card["seed"]}'
    rate = f'UAR {100 * result["uar"]:.1f} %, n = {result["n"]}'
    return f'{card["system"]} on {where}\n{how}: {rate}'


def _validation(summary: dict[str, Any]) -> dict[str, float]:
    """The rates of a fold's validation speakers: `uar`, with several tasks also `uar_<task>`, …"""
    names = [name.removeprefix('validation_') for name in summary if 'validation_' in name]
    return {name: summary[f'validation_{name}'] for name in names if name != 'loss'}


def _n_labels(summaries: list[dict[str, Any]]) -> dict[str, float]:
    """Utterances whose labels were used, by side, mean over the folds."""
    counts = [summary['n_labels'] for summary in summaries]
    return {side: float(np.mean([count[side] for count in counts])) for side in counts[0]}


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
