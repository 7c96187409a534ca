"""The forward pass for inference: input normalisation, network, and predictions from its outputs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.audio.log_mel_jax import batch_log_mel
from ser_jax.data.tasks import Task


def normalise(x: jax.Array | np.ndarray, constants: Mapping[str, Any]) -> jax.Array | np.ndarray:
    """Z-scores each band, [B, T, F], or the samples, [B, S], by the statistics of the training speakers."""
    return (x - constants['mean']) / constants['std']


def standardised(ratings: jax.Array, scale: jax.Array) -> jax.Array:
    """Ratings in the scale of a regression's output, by mean and standard deviation of training, `scale` [2]."""
    return (ratings - scale[0]) / scale[1]


def network_input(
    x: jax.Array, constants: Mapping[str, Any], kind: str, front_end: FrontEnd | None
) -> jax.Array:
    """Computes the input of the network.

    Args:
        x: [B, ...].
        constants: 'mean' and 'std'.
        kind: 'log_mel' or 'waveform', or 'standardised' where x is the network's input already.
        front_end: log-mel parameters of a network that sees log-mels; None for one that sees waveforms.
    """
    if kind == 'standardised':
        return x
    if kind == 'waveform' and front_end:
        x = batch_log_mel(x, front_end)
    return normalise(x, constants)


def forward(
    model: nn.Module,
    variables: Mapping[str, Any],
    x: jax.Array,
    length: jax.Array,
    kind: str,
    front_end: FrontEnd | None,
) -> dict:
    """Computes the outputs of a network in evaluation mode.

    Args:
        model: the network.
        variables: 'params', 'batch_stats' and 'constants'.
        x: input of some kind [B, ...].
        length: frames or samples of the network's input, int [B].
        kind, front_end: see `network_input`.
    """
    return model.apply(
        {'params': variables['params'], 'batch_stats': variables['batch_stats']},
        network_input(x, variables['constants'], kind, front_end),
        length,
        train=False,
    )


def to_predictions(
    outputs: Mapping[str, jax.Array], tasks: tuple[Task, ...], constants: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Converts outputs to predictions: task -> class probabilities [B, K], or the rating [B, 1] of a regression."""
    predictions = {}
    for task in tasks:
        if task.kind == 'regression':
            mean, std = constants['ratings'][task.name]
            predictions[task.name] = mean + std * outputs[task.name]
        else:
            predictions[task.name] = jax.nn.softmax(outputs[task.name])
    return predictions


def make_predict_step(
    model: nn.Module, tasks: tuple[Task, ...], axis_name: str, kind: str, front_end: FrontEnd | None
) -> Callable:
    """Builds `predict_step(variables, batch) -> {task: probabilities [B, K] or ratings [B, 1]}`.

    Args:
        model: the network.
        tasks: classifications and regressions to predict.
        axis_name: axis of the devices; every device returns the rows of all.
        kind, front_end: see `network_input`; the batch has a field named as the kind.

    Returns:
        The step; `variables` has 'params', 'batch_stats' and 'constants' (`training.steps.inference_variables`).
    """

    def predict_step(variables, batch):
        outputs = forward(model, variables, batch[kind], batch['length'], kind, front_end)
        predictions = to_predictions(outputs, tasks, variables['constants'])
        return jax.lax.all_gather(predictions, axis_name, tiled=True)

    return predict_step
