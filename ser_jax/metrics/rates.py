"""Classification and regression metrics, in NumPy: UAR, WA, macro F1, CCC, calibration error.

Classification rates take confusion matrices `[..., K, K]` (row = true class, column = predicted class) and are vectorised over
the leading axes: folds, speakers, bootstrap resamples.
"""

from typing import NamedTuple

import numpy as np


def confusion_matrix(labels, predictions, n_classes: int) -> np.ndarray:
    """Counts utterances by true and predicted class: int64 [K, K], row = true class, column = predicted class.

    Raises:
        ValueError: a class outside 0 … K - 1 (such as a missing label, -1), or unequal lengths.
    """
    labels, predictions = _classes(labels, n_classes), _classes(predictions, n_classes)
    if labels.shape != predictions.shape:
        raise ValueError(f'{labels.size} labels but {predictions.size} predictions')
    counts = np.bincount(labels * n_classes + predictions, minlength=n_classes**2)
    return counts.reshape(n_classes, n_classes)


def _classes(values, n_classes):
    values = np.asarray(values)
    if values.ndim != 1 or (values.size and values.dtype.kind not in 'iu'):
        raise ValueError(f'classes are a 1-D integer array, not {values.dtype} {values.shape}')
    if values.size and not 0 <= values.min() <= values.max() < n_classes:
        raise ValueError(f'classes lie in 0 … {n_classes - 1}, got {values.min()} … {values.max()}')
    return values.astype(np.int64)


def _ratio(numerator, denominator):
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    undefined = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)[()]


def _mean_present(values, present):
    return _ratio(np.where(present, values, 0.0).sum(-1), present.sum(-1))


def recall(confusion) -> np.ndarray:
    """Recall of each class, float [..., K], from counts [..., K, K]; NaN for a class that does not occur in the labels."""
    confusion = np.asarray(confusion)
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1))


def uar(confusion) -> np.ndarray:
    """Unweighted average recall: the mean recall of the classes present in the labels; NaN without labels.

    Of counts [..., K, K]: float [...], 0–1. Equals scikit-learn's `balanced_accuracy_score`.
    """
    recalls = recall(confusion)
    return _mean_present(recalls, ~np.isnan(recalls))


def wa(confusion) -> np.ndarray:
    """Weighted accuracy: the fraction of correct predictions, float [...], of counts [..., K, K]; NaN without labels."""
    confusion = np.asarray(confusion)
    return _ratio(np.trace(confusion, axis1=-2, axis2=-1), confusion.sum((-2, -1)))


def macro_f1(confusion) -> np.ndarray:
    """Mean F1 over the classes that occur in labels or predictions (scikit-learn's default), of counts [..., K, K].

    A class that is predicted but does not occur counts as 0.
    """
    confusion = np.asarray(confusion)
    occurrences = confusion.sum(-1) + confusion.sum(-2)
    f1 = _ratio(2 * np.diagonal(confusion, axis1=-2, axis2=-1), occurrences)
    return _mean_present(f1, occurrences > 0)


def ccc(targets, predictions) -> float:
    """Concordance correlation coefficient (Lin 1989), with population moments.

    2 cov(t, p) / (var(t) + var(p) + (mean(t) - mean(p))²)

    Args:
        targets: float [N]; NaN = no label, ignored.
        predictions: float [N].

    Returns:
        -1 … 1; NaN if undefined (no label, or both constant and equal).
    """
    targets, predictions = np.asarray(targets, float), np.asarray(predictions, float)
    labelled = ~np.isnan(targets)
    if not labelled.any():
        return float('nan')
    targets, predictions = targets[labelled], predictions[labelled]
    covariance = np.mean((targets - targets.mean()) * (predictions - predictions.mean()))
    spread = targets.var() + predictions.var() + (targets.mean() - predictions.mean()) ** 2
    return float(_ratio(2 * covariance, spread))


def confusion_by_speaker(labels, predictions, speakers, n_classes: int) -> np.ndarray:
    """Confusion matrix of each speaker, int64 [S, K, K]: known speakers sorted, then unknown ones.

    Each utterance of an unknown speaker ('') counts as a speaker of its own. The sum is the pooled confusion matrix.
    """
    labels, predictions = _classes(labels, n_classes), _classes(predictions, n_classes)
    speaker, n_speakers = _speaker_numbers(speakers)
    cell = (speaker * n_classes + labels) * n_classes + predictions
    counts = np.bincount(cell, minlength=n_speakers * n_classes**2)
    return counts.reshape(n_speakers, n_classes, n_classes)


def _speaker_numbers(speakers) -> tuple[np.ndarray, int]:
    """Speaker indices int [N] and their number S: known speakers sorted, then one index per unknown speaker ('')."""
    speakers = np.asarray(speakers).astype(str)
    unknown = speakers == ''
    _, known = np.unique(speakers[~unknown], return_inverse=True)
    n_known = known.max() + 1 if known.size else 0
    numbers = np.empty(speakers.size, np.int64)
    numbers[~unknown] = known
    numbers[unknown] = n_known + np.arange(unknown.sum())
    return numbers, int(n_known + unknown.sum())


def concordance_sums(targets, predictions, speakers) -> np.ndarray:
    """Sufficient statistics of the CCC, summed over each speaker's utterances: float [S, 6], count, Σt, Σp, Σt², Σp², Σtp.

    Each utterance of an unknown speaker ('') counts as a speaker of its own.
    """
    t, p = np.asarray(targets, float), np.asarray(predictions, float)
    numbers, count = _speaker_numbers(speakers)
    terms = (np.ones_like(t), t, p, t**2, p**2, t * p)
    return np.stack([np.bincount(numbers, term, count) for term in terms], axis=1)


def ccc_of_sums(sums) -> np.ndarray:
    """CCC from `concordance_sums` added over speakers, [..., 6] -> [...]."""
    n, t, p, tt, pp, tp = np.moveaxis(np.asarray(sums, float), -1, 0)
    covariance = tp / n - t * p / n**2
    spread = tt / n - (t / n) ** 2 + pp / n - (p / n) ** 2 + (t / n - p / n) ** 2
    return _ratio(2 * covariance, spread)


class ConfidenceBins(NamedTuple):
    """Reliability diagram: the non-empty confidence bins.

    Attributes:
        lower: lower edge of the bin.
        confidence: mean confidence in the bin.
        accuracy: fraction of correct predictions in the bin.
        share: fraction of all utterances.
    """

    lower: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


def confidence_bins(confidence, correct, bins: int = 10) -> ConfidenceBins:
    """Accuracy by confidence, in bins of equal width (Guo et al. 2017, arXiv 1706.04599); only bins that are not empty.

    The confidence is the probability of the predicted class, 0–1, and `correct` whether it is the true one.
    """
    confidence = np.asarray(confidence, float)
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(number, minlength=bins)
    filled = count > 0
    mean = lambda values: np.bincount(number, values, bins)[filled] / count[filled]
    return ConfidenceBins(
        lower=np.flatnonzero(filled) / bins,
        confidence=mean(confidence),
        accuracy=mean(np.asarray(correct, float)),
        share=count[filled] / count.sum(),
    )


def expected_calibration_error(probabilities, labels, bins: int = 10) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599, equation 5).

    Args:
        probabilities: [N, K], N >= 1.
        labels: true classes, int [N].
        bins: number of bins of equal width, see `confidence_bins`.

    Returns:
        0–1: mean of |accuracy − confidence| of the bins, weighted by their shares.
    """
    probabilities = np.asarray(probabilities)
    correct = probabilities.argmax(1) == np.asarray(labels)
    found = confidence_bins(probabilities.max(1), correct, bins)
    return float((found.share * np.abs(found.accuracy - found.confidence)).sum())
