"""Summaries of predictions: the metrics of a condition, and of validation."""

from collections.abc import Mapping, Sequence

import numpy as np

from ser_jax.metrics import rates, significance
from ser_jax.runs.predictions import Predictions
from ser_jax.runs.result_card import ConditionResult, ValidationResult
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import to_plain


def summarise(
    predictions: Predictions, labels: Sequence[str], *, n_bootstrap: int = 10_000, seed: int = 0
) -> ConditionResult:
    """Computes the metrics of one condition, on labelled predictions pooled over the folds.

    Raises:
        UserError: predictions that are not finite: training diverged.
    """
    refuse_not_finite(predictions)
    true, predicted = predictions.label, predictions.prediction
    confusion = rates.confusion_matrix(true, predicted, len(labels))
    by_speaker = rates.confusion_by_speaker(true, predicted, predictions.speaker, len(labels))
    unknown = int((predictions.speaker == '').sum())
    drawn, redrawn = significance.bootstrap_uar(by_speaker[None], n_bootstrap, seed)
    folds = []
    for name in dict.fromkeys(predictions.fold.tolist()):
        rows = predictions.fold == name
        counts = rates.confusion_matrix(true[rows], predicted[rows], len(labels))
        fold = {
            'fold': name,
            'test_speakers': sorted(set(predictions.speaker[rows].tolist()) - {''}),
            'n': counts.sum(),
            'uar': rates.uar(counts),
            'wa': rates.wa(counts),
        }
        if predictions.rated:
            fold['ccc'] = rates.ccc(predictions.rating[rows], predictions.predicted_rating[rows])
        folds.append(fold)
    return to_plain(
        _concordance(predictions, n_bootstrap, seed)
        | {
            'n': confusion.sum(),
            'uar': rates.uar(confusion),
            'uar_ci95': significance.interval(drawn[:, 0]),
            'redrawn': redrawn,
            'wa': rates.wa(confusion),
            'macro_f1': rates.macro_f1(confusion),
            'recall': dict(zip(labels, rates.recall(confusion))),
            'confusion': confusion,
            'folds': folds,
        }
        | ({'unknown_speakers': unknown} if unknown else {})
    )


def refuse_not_finite(predictions: Predictions) -> None:
    """Refuses predictions that are not finite, as of diverged training: they would count as the first class; raises UserError."""
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
    sums = rates.concordance_sums(*pairs, predictions.speaker)
    drawn = significance.bootstrap_ccc(sums, n_bootstrap, seed)
    return {'ccc': rates.ccc(*pairs), 'ccc_ci95': significance.interval(drawn)}


def summarise_validation(
    folds: Sequence[Mapping], conditions: Mapping[str, float] | None = None
) -> ValidationResult:
    """Averages validation rates over folds, `ValidationFold` each; `conditions`: condition -> UAR, mean over folds and tasks."""
    names = [name for name in folds[0] if name.startswith(('uar', 'ccc', 'score'))]
    means = {name: np.mean([fold[name] for fold in folds]) for name in names}
    conditions = {'conditions': conditions} if conditions else {}
    return to_plain(means | {'folds': list(folds)} | conditions)
