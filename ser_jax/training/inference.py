"""Predictions of trained parameters for utterances, and their quality on validation utterances."""

from typing import Any

import numpy as np

from ser_jax.data.batches import Utterances, padded_batches
from ser_jax.data.labels import level_of
from ser_jax.metrics import rates
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.training.experiment import Experiment


def predict(
    experiment: Experiment, variables: dict[str, Any], utterances: Utterances
) -> dict[str, np.ndarray]:
    """Predicts whole utterances.

    Args:
        experiment: dataset and program.
        variables: parameters, batch statistics and constants (`steps.inference_variables`).
        utterances: N utterances, or any random access to N inputs with `lengths` [N].

    Returns:
        Reported task -> probabilities float32 [N, K], or the ratings [N, 1] of a regression.
    """
    program, lengths = experiment.program, utterances.lengths
    size = program.eval_batch_size
    outputs = {
        task.name: np.zeros((len(utterances), task.outputs), np.float32)
        for task in experiment.dataset.reported
    }
    rows = devices.local_rows(size)
    for positions, own, x in padded_batches(utterances, lengths, size, rows=rows):
        batch = {program.representation: x, 'length': lengths[own]}
        found = program.predict_step(variables, devices.to_devices(batch, program.mesh))
        for name, array in found.items():
            outputs[name][positions] = np.asarray(array.addressable_shards[0].data)
    return outputs


def validate(
    experiment: Experiment, variables: dict[str, Any], validation: Utterances
) -> dict[str, float]:
    """Computes the validation metrics.

    Args:
        experiment: dataset and program.
        variables: see `predict`.
        validation: utterances with labels of all reported tasks.

    Returns:
        'validation_uar' (mean of the reported tasks) and 'validation_loss'; with several tasks also each
        'validation_uar_<task>'; with ratings 'validation_ccc', 'validation_ccc_<task>' and 'validation_score'.

    Raises:
        UserError: training diverged.
    """
    outputs = predict(experiment, variables, validation)
    recalls, losses = {}, []
    scores, concordances = [], {}
    for task in experiment.dataset.reported:
        labels = validation.labels[task.target]
        known, labels = labels >= 0, labels[labels >= 0]
        output = outputs[task.name][known]
        if not np.isfinite(output).all():
            raise UserError(
                'training diverged: predictions are not finite; lower config.optimiser.learning_rate'
            )
        if task.kind == 'regression':
            predicted = level_of(output[:, 0])
            ccc = rates.ccc(validation.ratings[task.target][known], output[:, 0])
            concordances[f'validation_ccc_{task.name}'] = ccc
            losses.append(1 - ccc)
        else:
            predicted = output.argmax(1)
            losses.append(-np.log(output[np.arange(len(labels)), labels] + 1e-9).mean())
        confusion = rates.confusion_matrix(labels, predicted, len(task.classes))
        recalls[f'validation_uar_{task.name}'] = float(rates.uar(confusion))
        scores.append(
            concordances.get(f'validation_ccc_{task.name}', recalls[f'validation_uar_{task.name}'])
        )
    means = {'validation_uar': float(np.mean(list(recalls.values())))}
    if concordances:
        means['validation_ccc'] = float(np.mean(list(concordances.values())))
        means['validation_score'] = float(np.mean(scores))
    means['validation_loss'] = float(np.mean(losses))
    return means | recalls | concordances if len(recalls) > 1 else means
