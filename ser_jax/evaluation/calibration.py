"""Temperature scaling, fitted on validation speakers (Guo et al., ICML 2017, arXiv 1706.04599)."""

from collections.abc import Mapping

import numpy as np
import scipy

from ser_jax.metrics import rates
from ser_jax.runs.predictions import Predictions
from ser_jax.runs.result_card import Calibration

_LOWEST, _HIGHEST = 0.05, 20.0


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Scales probabilities [..., K] as if their logits were divided by a temperature; above 1 flattens the distribution."""
    logits = np.log(np.maximum(np.asarray(probabilities, float), 1e-30)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Fits the temperature that minimises the cross-entropy (Guo et al. 2017, equation 9).

    The labels are smoothed as if every class had been seen once more (Platt 1999, section 2.2): a few predictions that are all
    correct must not yield certainty.

    Args:
        probabilities: [N, K], N >= 1.
        labels: true classes, int [N].

    Returns:
        The temperature, within [0.05, 20].
    """
    count, n_classes = probabilities.shape
    targets = (count * np.eye(n_classes)[labels] + 1) / (count + n_classes)

    def loss(log_temperature):
        scaled = tempered(probabilities, np.exp(log_temperature))
        return -(targets * np.log(scaled + 1e-30)).sum(axis=1).mean()

    bounds = np.log(_LOWEST), np.log(_HIGHEST)
    found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method='bounded')
    return float(np.exp(found.x))


def calibrate(
    tested: Mapping[str, Predictions], validated: Mapping[str, Predictions]
) -> Calibration:
    """Measures calibration on test speakers and fits temperatures on validation speakers.

    Each fold's temperature is fitted on its own validation speakers, that of the final model on those of all folds.

    Args:
        tested: fold -> predictions of its test utterances.
        validated: fold -> predictions of its validation utterances; {} leaves the result at `ece`.
    """
    error = lambda probabilities: rates.expected_calibration_error(
        np.concatenate(probabilities), np.concatenate([fold.label for fold in tested.values()])
    )
    result = {'ece': error([fold.probabilities for fold in tested.values()])}
    if not validated:
        return result
    fits = {name: fit_temperature(v.probabilities, v.label) for name, v in validated.items()}
    scaled = [tempered(fold.probabilities, fits[name]) for name, fold in tested.items()]
    all_folds = [
        np.concatenate([getattr(fold, name) for fold in validated.values()])
        for name in ('probabilities', 'label')
    ]
    return result | {
        'ece_calibrated': error(scaled),
        'temperature': fit_temperature(*all_folds),
        'n_validation': len(all_folds[1]),
    }
