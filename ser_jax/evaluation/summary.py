"""What comes out of a run: the summary of its predictions, and the result card."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ser_jax.metrics import rates as metrics
from ser_jax.metrics import significance
from ser_jax.runs.predictions import Predictions
from ser_jax.runs.workdir import write_atomically
from ser_jax.runtime.errors import UserError


def write_json(path, content) -> None:
    """Writes JSON, whole or not at all; NumPy values become plain ones and NaN becomes null.

    Args:
        path: file to write; its folder is made.
        content: dicts, lists, scalars and arrays.
    """
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(Path(path), text + '\n')


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def summarise(
    predictions: Predictions, labels: Sequence[str], *, n_bootstrap: int = 10_000, seed: int = 0
) -> dict:
    """The metrics of one evaluation condition, on predictions pooled over the folds.

    Args:
        predictions: N >= 1 rows, every one with a label.
        labels: the K class names.
        n_bootstrap: resamples of the interval.
        seed: of the interval.

    Returns:
        `n`, `uar`, `uar_ci95` [lower, upper] and `redrawn` (see `comparison.bootstrap_uar`), `wa`,
        `macro_f1`, `recall` by label, `confusion` [[…]] and `folds`: `fold`, `test_speakers`, `n`, `uar`, `wa`
        of each. Rates are fractions; None = undefined (the recall of a class that does not occur,
        the interval of a single speaker). The UAR of a fold is over the classes that it holds.
        Of predicted ratings also `ccc` with `ccc_ci95`, and `ccc` of each fold; the rest is of the classes they fall into.

    Raises:
        UserError: probabilities that are not finite: the training went astray.
    """
    refuse_not_finite(predictions)
    truth, said, n_classes = predictions.label, predictions.prediction, len(labels)
    confusion = metrics.confusion_matrix(truth, said, n_classes)
    by_speaker = metrics.confusion_by_speaker(truth, said, predictions.speaker, n_classes)
    drawn, redrawn = significance.bootstrap_uar(by_speaker[None], n_bootstrap, seed)
    folds = []
    for name in dict.fromkeys(predictions.fold.tolist()):
        rows = predictions.fold == name
        part = metrics.confusion_matrix(truth[rows], said[rows], n_classes)
        speakers = sorted(set(predictions.speaker[rows].tolist()) - {''})
        rates = {'uar': metrics.uar(part), 'wa': metrics.wa(part)}
        if predictions.rated:
            rates['ccc'] = metrics.ccc(predictions.rating[rows], predictions.predicted_rating[rows])
        folds.append({'fold': name, 'test_speakers': speakers, 'n': part.sum(), **rates})
    return _plain(
        _concordance(predictions, n_bootstrap, seed)
        | {
            'n': confusion.sum(),
            'uar': metrics.uar(confusion),
            'uar_ci95': significance.interval(drawn[:, 0]),
            'redrawn': redrawn,
            'wa': metrics.wa(confusion),
            'macro_f1': metrics.macro_f1(confusion),
            'recall': dict(zip(labels, metrics.recall(confusion))),
            'confusion': confusion,
            'folds': folds,
        }
    )


def refuse_not_finite(predictions: Predictions) -> None:
    """Refuses predictions that are no numbers, which would count as the first class.

    Raises:
        UserError: the training went astray.
    """
    broken = ~np.isfinite(predictions.probabilities).all(1)
    if predictions.rated:
        broken |= ~np.isfinite(predictions.predicted_rating)
    if broken.any():
        raise UserError(
            f'{broken.sum()} of {broken.size} predictions are not finite, e.g. of '
            f'{predictions.id[broken][0]}: training diverged; lower the learning rate'
        )


def _concordance(predictions, n_bootstrap, seed):
    if not predictions.rated:
        return {}
    pairs = predictions.rating, predictions.predicted_rating
    sums = metrics.concordance_sums(*pairs, predictions.speaker)
    drawn = significance.bootstrap_ccc(sums, n_bootstrap, seed)
    return {'ccc': metrics.ccc(*pairs), 'ccc_ci95': significance.interval(drawn)}


def summarise_validation(
    folds: Sequence[Mapping], conditions: Mapping[str, float] | None = None
) -> dict:
    """What a run with `report_test = False` may say: the validation UAR of each fold and its mean, and that under conditions.

    Args:
        folds: `fold`, `validation_speakers`, `n`, `uar` of each; with several tasks `uar_<task>`, with predicted
            ratings `ccc`, `score`, `ccc_<task>`.
        conditions: name -> UAR under it, mean over folds and tasks.

    Returns:
        The rates: their means over the folds, and `folds`; `conditions` where there are any.
    """
    rates = [name for name in folds[0] if name.startswith(('uar', 'ccc', 'score'))]
    means = {name: np.mean([fold[name] for fold in folds]) for name in rates}
    tried = {'conditions': conditions} if conditions else {}
    return _plain(means | {'folds': list(folds)} | tried)


def result_card(
    *,
    system: str,
    config_hash: str,
    config: Mapping,
    corpus: str,
    trained_on: Sequence[str],
    corpus_hash: str,
    synthetic: bool,
    labels: Sequence[str],
    tasks: Mapping[str, Sequence[str]],
    protocol: str,
    n_folds: tuple[int, int],
    environment: Mapping,
    seed: int,
    n_params: int,
    conditions: Mapping[str, Mapping],
    leak_check: Mapping[str, int],
    cost: Mapping[str, float],
    validation: Mapping | None = None,
    attack_checks: Sequence[Mapping] = (),
    tested_with: Mapping | None = None,
    n_labels: Mapping | None = None,
    calibration: Mapping | None = None,
) -> dict:
    """The result card: everything that `results.json` says about a run.

    Args:
        system: name of the configuration, e.g. `mtl_aug` or `mtl_aug,single_task`.
        config_hash: of the whole configuration but its seed.
        config: that configuration, dotted field -> value.
        corpus: name of the corpus; `corpus_hash`, `synthetic`: from its metadata.
        trained_on: names of the corpora whose labels trained.
        labels: the emotions.
        tasks: reported task -> its class names.
        protocol: call string.
        n_folds: (folds that were run, folds that the protocol has).
        environment: `environment.joined(…)`: 'commit', 'versions', 'device'.
        seed: of training.
        n_params: number of trained parameters.
        conditions: name -> `summarise(…)`; `clean` is the plain one. Empty with `report_test =
            False`.
        leak_check: `leaks.check_folds(…)`.
        cost: `train_seconds`, `compile_seconds`, `utterances_per_second`, `peak_memory_mb`,
            `data_wait_fraction`.
        validation: `summarise_validation(…)` or None; only then does the card have it.
        attack_checks: `conditions.checks(…)`; where there are any the card has them.
        tested_with: `reporting.tested_with(…)`; likewise.
        n_labels: utterances a fold whose labels were used, by side; likewise.
        calibration: `clean`, … -> `calibration.calibrate(…)`; likewise.

    Returns:
        The card, in plain Python values.
    """
    card = {
        'system': system,
        'config_hash': config_hash,
        **environment,
        'corpus': corpus,
        'trained_on': trained_on,
        'corpus_hash': corpus_hash,
        'synthetic': synthetic,
        'labels': labels,
        'tasks': tasks,
        'protocol': protocol,
        'n_folds': n_folds,
        'seed': seed,
        'n_params': n_params,
        'conditions': conditions,
        'leak_check': leak_check,
        'cost': cost,
    }
    if validation is not None:
        card['validation'] = validation
    if attack_checks:
        card['attack_checks'] = attack_checks
    if calibration:
        card['calibration'] = calibration
    card['config'] = config
    if n_labels:
        card['n_labels'] = n_labels
    if tested_with:
        card['tested_with'] = tested_with
    return _plain(card)
