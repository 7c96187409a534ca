"""Makes the result card of a run from the summaries and predictions of its folds."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.data.dataset import Dataset
from ser_jax.evaluation import summary
from ser_jax.evaluation.calibration import calibrate
from ser_jax.evaluation.cross_corpus import CrossCorpusTester
from ser_jax.metrics import rates
from ser_jax.models.encoders.pretrained import EncoderInput
from ser_jax.runs import result_card
from ser_jax.runs import workdir as workdirs
from ser_jax.runs.environment import merge_environments
from ser_jax.runs.predictions import Predictions, pool, read_predictions
from ser_jax.runtime.errors import UserError
from ser_jax.transforms.conditions import attack_checks


def pooled_predictions(
    dataset: Dataset, conditions: Sequence[str], workdir: Path
) -> dict[str, Predictions]:
    """Pools the predictions of the folds under some conditions: name of the result (`workdir.result_name`) -> predictions."""
    return {
        name: pool(
            [
                read_predictions(workdirs.predictions_file(workdir, fold.name, name))[0]
                for fold in dataset.folds
            ]
        )
        for condition in conditions
        for name in (workdirs.result_name(condition, task.name) for task in dataset.reported)
    }


def make_card(
    dataset: Dataset,
    pooled: Mapping[str, Predictions],
    cross: CrossCorpusTester,
    workdir: Path,
    *,
    system: str,
    config: Mapping[str, Any],
    conditions: Mapping[str, Any],
    report_test: bool,
    tested_with: Mapping[str, Any] | None,
    encoder: EncoderInput | None = None,
) -> dict[str, Any]:
    """Makes the result card.

    Args:
        dataset: dataset of the run.
        pooled: predictions of the folds (`pooled_predictions`); {} where no test speaker was read.
        cross: other corpora that were tested.
        workdir: run directory with summaries and predictions.
        system: name of the configuration, e.g. `mtl_aug,single_task`.
        config: dotted field -> value of everything that defines the run (`config.compared`).
        conditions: name -> parsed call.
        report_test: whether test speakers may be read.
        tested_with: inputs of the conditions, or None.
        encoder: the pretrained encoder, or None.

    Returns:
        The card.
    """
    folds = [fold.name for fold in dataset.folds]
    # Without folds there is only the final model, whose time and size then count.
    summaries = [workdirs.read_summary(workdir, name) for name in folds or ['final']]
    results, recalls, validation = {}, {}, None
    for condition in ('clean', *conditions) if pooled else ():
        facts = _facts(folds, workdir, condition)
        for task in dataset.reported:
            name = workdirs.result_name(condition, task.name)
            own = {} if task.name == 'emotion' else {'task': task.name, 'labels': task.classes}
            results[name] = summary.summarise(pooled[name], task.classes) | facts | own
        names = [workdirs.result_name(condition, task.name) for task in dataset.reported]
        recalls[condition] = float(np.mean([results[name]['uar'] for name in names]))
    for name in cross.conditions:
        predictions, labels = read_predictions(workdirs.pooled_file(workdir, name))
        results[name] = summary.summarise(predictions, labels) | cross.about(name)
    if all(len(fold.validation) for fold in dataset.folds) and folds:
        tried = {} if report_test else _validation_recalls(dataset, conditions, workdir)
        speakers = dataset.corpus.index['speaker']
        validation = summary.summarise_validation(
            [
                {
                    'fold': fold.name,
                    'validation_speakers': sorted(set(speakers[fold.validation])),
                    'n': len(fold.validation),
                    **_validation_metrics(found),
                }
                for fold, found in zip(dataset.folds, summaries)
            ],
            tried,
        )
        undefined = [name for name, value in validation.items() if value is None]
        if undefined:  # e.g. the CCC of constant predictions
            raise UserError(f'{workdir}: the validation {undefined[0]} is not defined')
        recalls = recalls or {'clean': validation['uar'], **tried}
    content = dict(config)
    seed = content.pop('seed')  # runs that differ in nothing else make one row of a table
    return result_card.make_card(
        system=system,
        config_hash=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16],
        config=content,
        corpus=dataset.corpus.name,
        trained_on=[
            *([] if dataset.leaves_corpus_out else [dataset.corpus.name]),
            *(corpus.name for corpus, _ in dataset.labelled),
        ],
        corpus_hash=dataset.corpus.metadata['corpus_hash'],
        synthetic=dataset.corpus.metadata['synthetic'],
        labels=dataset.labels,
        tasks={task.name: task.classes for task in dataset.reported},
        protocol=dataset.protocol,
        n_folds=(len(folds), dataset.n_folds),
        **merge_environments([found['environment'] for found in summaries]),
        seed=seed,
        n_params=summaries[0]['n_params'],
        conditions=results,
        leak_check=dataset.leak_check,
        untrained_classes=list(dataset.untrained_classes) or None,
        cost=_total_cost([found['cost'] for found in summaries]),
        validation=validation,
        attack_checks=attack_checks(conditions, recalls) or None,
        tested_with=tested_with,
        n_labels=_mean_labels(summaries) if dataset.sampling.labelled_share < 1 else None,
        encoder=encoder and encoder.facts(),
        calibration=(_calibration(dataset, workdir) or None) if pooled else None,
    )


def _validation_recalls(
    dataset: Dataset, conditions: Sequence[str], workdir: Path
) -> dict[str, float]:
    """Condition -> UAR on the validation speakers under it, mean over folds and reported tasks."""
    found = {}
    for condition in conditions:
        uars = []
        for fold in dataset.folds:
            for task in dataset.reported:
                name = workdirs.result_name(f'validation_{condition}', task.name)
                path = workdirs.predictions_file(workdir, fold.name, name)
                predictions, _ = read_predictions(path)
                summary.refuse_not_finite(predictions)
                counts = rates.confusion_matrix(
                    predictions.label, predictions.prediction, len(task.classes)
                )
                uars.append(rates.uar(counts))
        found[condition] = float(np.mean(uars))
    return found


def _calibration(dataset: Dataset, workdir: Path) -> dict[str, dict[str, float]]:
    """`calibration.calibrate(…)` of every reported classification, named as the results of clean speech."""

    def read(name):
        names = [fold.name for fold in dataset.folds]
        files = {fold: workdirs.predictions_file(workdir, fold, name) for fold in names}
        return {fold: read_predictions(file)[0] for fold, file in files.items()}

    found = {}
    validated = all(len(fold.validation) for fold in dataset.folds)
    for task in dataset.reported:
        if task.kind == 'classification':
            clean, validation = (
                workdirs.result_name(name, task.name) for name in ('clean', 'validation')
            )
            found[clean] = calibrate(read(clean), read(validation) if validated else {})
    return found


def _facts(folds: Sequence[str], workdir: Path, condition: str) -> dict[str, float]:
    """Further facts of the predictions under a condition, means over the folds."""
    files = [workdirs.predictions_file(workdir, name, condition) for name in folds]
    facts = [json.loads(file.with_suffix('.json').read_text()) for file in files]
    found = {}
    for name in sorted(set().union(*facts) - {'fingerprint', 'n'}):  # a fold may lack a ratio
        values, weights = zip(*((fact[name], fact['n']) for fact in facts if name in fact))
        found[name] = float(np.average(values, weights=weights))
    return found


def _validation_metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """The validation metrics of a summary: `uar`, with several tasks also `uar_<task>`, …"""
    names = [name.removeprefix('validation_') for name in found if 'validation_' in name]
    return {name: found[f'validation_{name}'] for name in names if name != 'loss'}


def _mean_labels(summaries: Sequence[Mapping]) -> dict[str, float]:
    """Utterances whose labels were used, by split, mean over the folds."""
    counts = [found['n_labels'] for found in summaries]
    return {split: float(np.mean([count[split] for count in counts])) for split in counts[0]}


def _total_cost(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sums of seconds, means of rates (each weighted by the seconds of its fold), the peak of memory."""
    seconds = np.array([cost['train_seconds'] for cost in costs])
    mean = lambda name: float(np.average([cost[name] for cost in costs], weights=seconds))
    peaks = [cost['peak_memory_mb'] for cost in costs if cost['peak_memory_mb'] is not None]
    return {
        'train_seconds': float(seconds.sum()),
        'compile_seconds': sum(cost['compile_seconds'] for cost in costs),
        'utterances_per_second': mean('utterances_per_second'),
        'peak_memory_mb': max(peaks, default=None),
        'data_wait_fraction': mean('data_wait_fraction'),
    }
