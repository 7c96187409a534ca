"""The forward pass for inference: input normalisation, network, and predictions from its outputs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.audio.log_mel_jax import batch_log_mel
from ser_jax.data.tasks import Task
from ser_jax.models.encoders import fine_tuning
from ser_jax.models.encoders.pretrained import EncoderInput


def normalise(x: jax.Array | np.ndarray, constants: Mapping[str, Any]) -> jax.Array | np.ndarray:
    """Z-scores each band, [B, T, F], or the samples, [B, S], by the statistics of the training speakers."""
    return (x - constants['mean']) / constants['std']


def normalise_log_mel(x: jax.Array, constants: Mapping[str, Any]) -> jax.Array:
    """Z-scores a log-mel that is reconstructed [B, T, F], also where the network's input is another."""
    return normalise(x, constants.get('log_mel', constants))


def standardised(ratings: jax.Array, scale: jax.Array) -> jax.Array:
    """Ratings in the scale of a regression's output, by mean and standard deviation of training, `scale` [2]."""
    return (ratings - scale[0]) / scale[1]


def network_input(
    variables: Mapping[str, Any],
    x: jax.Array,
    length: jax.Array,
    kind: str,
    front_end: FrontEnd | EncoderInput | None,
) -> tuple[jax.Array, jax.Array]:
    """Computes the input of the network.

    Args:
        variables: 'constants' ('mean' and 'std'); for an `EncoderInput` also 'encoder', its parameters, and 'params', whose subtree
            `fine_tuning.PRETRAINED` replaces some of them.
        x: [B, ...].
        length: int [B], see `forward`.
        kind: 'log_mel', 'waveform' or 'encoded', or 'standardised' where x is the network's input already.
        front_end: log-mel parameters of a network that sees log-mels; encoder of one that sees its outputs; None for one that
            sees waveforms.

    Returns:
        (the input [B, ...]; its lengths int [B]).
    """
    if kind == 'standardised':
        return x, length
    if kind == 'waveform' and isinstance(front_end, EncoderInput):
        trained = variables['params'].get(fine_tuning.PRETRAINED, {})
        x, length = front_end(x, length, fine_tuning.merge(variables['encoder'], trained))
    elif kind == 'waveform' and front_end:
        x = batch_log_mel(x, front_end)
    return normalise(x, variables['constants']), length


def forward(
    model: nn.Module,
    variables: Mapping[str, Any],
    x: jax.Array,
    length: jax.Array,
    kind: str,
    front_end: FrontEnd | EncoderInput | None,
) -> dict:
    """Computes the outputs of a network in evaluation mode.

    Args:
        model: the network.
        variables: 'params', 'batch_stats', 'constants' and perhaps 'encoder', see `network_input`.
        x: input of some kind [B, ...].
        length: int [B], frames or samples of the network's input; of an `EncoderInput` from waveforms, samples.
        kind, front_end: see `network_input`.
    """
    x, length = network_input(variables, x, length, kind, front_end)
    own = {'params': variables['params'], 'batch_stats': variables['batch_stats']}
    return model.apply(own, x, length, train=False)


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
    model: nn.Module,
    tasks: tuple[Task, ...],
    axis_name: str,
    kind: str,
    front_end: FrontEnd | EncoderInput | None,
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
