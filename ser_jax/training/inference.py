"""What trained parameters say of utterances, and how good it is on validation utterances."""

from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.data import batches
from ser_jax.data.labels import level_of
from ser_jax.metrics import rates as metrics
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.training.experiment import Experiment
from ser_jax.training.steps import inference_variables


def predict(
    experiment: Experiment, variables: dict[str, Any], utterances: batches.Utterances
) -> dict[str, np.ndarray]:
    """What the network says of whole utterances.

    Args:
        experiment: with the compiled prediction step.
        variables: parameters, batch statistics and constants (`steps.inference_variables`).
        utterances: N of them.

    Returns:
        Reported task -> probabilities float32 [N, K], or the ratings [N, 1] of a regression.
    """
    size = experiment.config.eval_batch_size
    answers = {
        task.name: np.zeros((len(utterances), task.outputs), np.float32)
        for task in experiment.reported
    }
    for positions, batch in batches.evaluation_batches(utterances, size, devices.local_rows(size)):
        rows = experiment.predict_step(variables, devices.to_devices(batch, experiment.mesh))
        for name, array in rows.items():
            answers[name][positions] = np.asarray(array.addressable_shards[0].data)
    return answers


def restore_best(experiment: Experiment, folder: Path) -> dict[str, Any]:
    """The parameters that a finished fold kept, with all that prediction needs.

    Args:
        experiment: of the run.
        folder: of the fold's checkpoints.

    Raises:
        UserError: there are none, or they are damaged.
    """
    # Only shapes count, and the constants of few rows are quickly made.
    template = experiment.init_state(experiment.constants(experiment.rows[:1]))
    return Checkpoints(folder / 'best').restore(inference_variables(template))


def validate(
    experiment: Experiment, variables: dict[str, Any], validation: batches.Utterances
) -> dict[str, float]:
    """How good the network is on validation utterances.

    Args:
        experiment: with the compiled prediction step.
        variables: see `predict`.
        validation: the utterances, with labels of all reported tasks.

    Returns:
        'validation_uar' (mean of the reported tasks) and 'validation_loss'; with several tasks also each
        'validation_uar_<task>'; with ratings 'validation_ccc', 'validation_ccc_<task>' and 'validation_score'.

    Raises:
        UserError: training diverged.
    """
    found = predict(experiment, variables, validation)
    rates, losses = {}, []
    scores, concordances = [], {}
    for task in experiment.reported:
        labels = validation.labels[task.target]
        known, labels = labels >= 0, labels[labels >= 0]
        answers = found[task.name][known]
        if not np.isfinite(answers).all():
            raise UserError(
                'training diverged: predictions are not finite; lower config.optimiser.learning_rate'
            )
        if task.kind == 'regression':
            said = level_of(answers[:, 0])
            ccc = metrics.ccc(validation.ratings[task.target][known], answers[:, 0])
            concordances[f'validation_ccc_{task.name}'] = ccc
            losses.append(1 - ccc)
        else:
            said = answers.argmax(1)
            losses.append(-np.log(answers[np.arange(len(labels)), labels] + 1e-9).mean())
        confusion = metrics.confusion_matrix(labels, said, len(task.classes))
        rates[f'validation_uar_{task.name}'] = float(metrics.uar(confusion))
        scores.append(
            concordances.get(f'validation_ccc_{task.name}', rates[f'validation_uar_{task.name}'])
        )
    whole = {'validation_uar': float(np.mean(list(rates.values())))}
    if concordances:
        whole['validation_ccc'] = float(np.mean(list(concordances.values())))
        whole['validation_score'] = float(np.mean(scores))
    whole['validation_loss'] = float(np.mean(losses))
    return whole | rates | concordances if len(rates) > 1 else whole
