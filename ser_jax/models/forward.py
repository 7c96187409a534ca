"""The forward pass for inference: input normalisation, the network, and its predictions."""

from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.audio.log_mel_jax import batch_log_mel
from ser_jax.data.tasks import Task


def network_input(
    x: jax.Array, constants: dict[str, jax.Array], kind: str, front_end: FrontEnd | None
) -> jax.Array:
    """What the network sees, made of what is given.

    Args:
        x: [B, ...].
        constants: with 'mean' and 'std'.
        kind: of x: 'log_mel', 'waveform', or 'standardised' for what the network sees.
        front_end: of a network that sees log-mels; None for one that sees waveforms.
    """
    if kind == 'standardised':
        return x
    if kind == 'waveform' and front_end:
        x = batch_log_mel(x, front_end)
    return normalise(x, constants)


def outputs_of(model: nn.Module, variables, batch: dict, x: jax.Array, *how) -> dict:
    """The outputs of a network; `how`: kind and front end, see `network_input`."""
    return model.apply(
        {'params': variables['params'], 'batch_stats': variables['batch_stats']},
        network_input(x, variables['constants'], *how),
        batch['length'],
        train=False,
    )


def make_predict_step(
    model: nn.Module, tasks: tuple[Task, ...], axis_name: str, kind: str, front_end: FrontEnd | None
) -> Callable:
    """Builds `predict_step(variables, batch) -> {task: probabilities [B, K] or ratings [B, 1]}`.

    Args:
        model: the network.
        tasks: classifications and regressions to predict.
        axis_name: the devices' axis; every device returns the rows of all.
        kind, front_end: see `network_input`; the batch has a field named as the kind.

    Returns:
        The step; `variables` has 'params', 'batch_stats' and 'constants' (`inference_variables`).
    """

    def predict_step(variables, batch):
        outputs = outputs_of(model, variables, batch, batch[kind], kind, front_end)
        said = answers(outputs, tasks, variables['constants'])
        return jax.lax.all_gather(said, axis_name, tiled=True)

    return predict_step


def answers(
    outputs: dict[str, jax.Array], tasks: tuple[Task, ...], constants: dict[str, Any]
) -> dict[str, jax.Array]:
    """What a network says of each task, from its outputs: probabilities [B, K], or the rating [B, 1] of a regression."""
    said = {}
    for task in tasks:
        if task.kind == 'regression':
            mean, std = constants['ratings'][task.name]
            said[task.name] = mean + std * outputs[task.name]
        else:
            said[task.name] = jax.nn.softmax(outputs[task.name])
    return said


def normalise(x: jax.Array, constants: dict[str, jax.Array]) -> jax.Array:
    """Z-scores each band, [B, T, F], or the samples, [B, S], by the training speakers' statistics."""
    return (x - constants['mean']) / constants['std']


def standardised(ratings: jax.Array, scale: jax.Array) -> jax.Array:
    """Ratings as a regression's output has them: by mean and standard deviation of training, `scale` [2]."""
    return (ratings - scale[0]) / scale[1]
