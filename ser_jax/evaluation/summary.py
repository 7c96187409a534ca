"""What comes out of a run: the summary of its predictions, and the result card."""

from collections.abc import Mapping, Sequence

import numpy as np

from ser_jax.metrics import rates as metrics
from ser_jax.metrics import significance
from ser_jax.runs.predictions import Predictions
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import _plain


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
