"""Calibrated probabilities: temperatures fitted on validation speakers, and what that does to the test speakers' error.

Guo et al., On Calibration of Modern Neural Networks (ICML 2017, arXiv 1706.04599).
"""

from collections.abc import Mapping

import numpy as np
import scipy

from ser_jax.metrics import rates
from ser_jax.runs.predictions import Predictions

_LOWEST, _HIGHEST = 0.05, 20.0


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities as they would be, had the logits been divided by a temperature.

    Args:
        probabilities: [..., K].
        temperature: > 0; above 1 makes them more alike.

    Returns:
        float64 [..., K].
    """
    logits = np.log(np.maximum(np.asarray(probabilities, float), 1e-30)) / temperature
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The temperature of the least cross-entropy (Guo et al. 2017, equation 9).

    The labels are smoothed as if every class had been seen once more (Platt 1999, section 2.2): that few answers are all right
    must not make a system certain.

    Args:
        probabilities: [N, K], N >= 1.
        labels: true classes, int [N].

    Returns:
        The temperature, within [0.05, 20].
    """

    count, n_classes = probabilities.shape
    targets = (count * np.eye(n_classes)[labels] + 1) / (count + n_classes)

    def loss(log_temperature):
        said = tempered(probabilities, np.exp(log_temperature))
        return -(targets * np.log(said + 1e-30)).sum(axis=1).mean()

    bounds = np.log(_LOWEST), np.log(_HIGHEST)
    found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method='bounded')
    return float(np.exp(found.x))


def calibrate(
    tested: Mapping[str, Predictions], validated: Mapping[str, Predictions]
) -> dict[str, float]:
    """How far a system's probabilities are from the truth, and the temperature of its final model.

    The temperature of a fold is fitted on its own validation speakers, that of the final model on those of all folds.

    Args:
        tested: fold -> predictions of its test utterances.
        validated: fold -> those of its validation utterances; {} where there are none.

    Returns:
        `ece`, the expected calibration error of the test utterances as they were predicted; with
        validation also `ece_calibrated`, the same after each fold's temperature, `temperature`, of the final model, and
        `n_validation`, predictions that it was fitted on.
    """
    error = lambda said: rates.expected_calibration_error(
        np.concatenate(said), np.concatenate([fold.label for fold in tested.values()])
    )
    result = {'ece': error([fold.probabilities for fold in tested.values()])}
    if not validated:
        return result
    fits = {name: fit_temperature(v.probabilities, v.label) for name, v in validated.items()}
    said = [tempered(fold.probabilities, fits[name]) for name, fold in tested.items()]
    everything = [
        np.concatenate([getattr(fold, name) for fold in validated.values()])
        for name in ('probabilities', 'label')
    ]
    return result | {
        'ece_calibrated': error(said),
        'temperature': fit_temperature(*everything),
        'n_validation': len(everything[1]),
    }
