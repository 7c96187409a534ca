"""An objective is a list of phases; multitask learning has one, the weighted sum of its tasks' losses."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import linen as nn

from ser_jax import losses
from ser_jax.models import layers
from ser_jax.tasks import Task


@dataclasses.dataclass(frozen=True)
class Phase:
    """One update of a training step.

    Attributes:
        name: names the phase's optimiser state.
        loss: (params, model_state, batch, rngs) -> (this device's share of the loss, (metrics,
            model_state)); metrics are global.
        updates: the top-level subtrees of the parameters that the phase changes; () = all.
        tx: its optimiser.
    """

    name: str
    loss: Callable[..., tuple[jax.Array, tuple[dict[str, jax.Array], Any]]]
    updates: tuple[str, ...]
    tx: optax.GradientTransformation


def multitask(
    model: nn.Module,
    tasks: tuple[Task, ...],
    tx: optax.GradientTransformation,
    *,
    label_smoothing: float,
    clean_target: bool,
    axis_name: str,
) -> tuple[Phase, ...]:
    """The objective of MTL-AUG: Σ weight × loss over the tasks (Latif et al. 2022), in one phase.

    Args:
        model: maps (log_mel, length) to one output a task.
        tasks: what to learn.
        tx: the optimiser.
        label_smoothing: of the emotion task, in [0, 1).
        clean_target: reconstruct the input as it was before noise and masks, not as the network sees it.
        axis_name: the devices' axis.

    Returns:
        One phase.
    """
    loss = functools.partial(
        _multitask_loss,
        model=model,
        tasks=tasks,
        label_smoothing=label_smoothing,
        clean_target=clean_target,
        axis_name=axis_name,
    )
    return (Phase('multitask', loss, (), tx),)


def _multitask_loss(
    params, model_state, batch, rngs, *, model, tasks, label_smoothing, clean_target, axis_name
):
    constants = model_state['constants']
    outputs, updated = model.apply(
        {'params': params, 'batch_stats': model_state['batch_stats']},
        normalise(batch['log_mel'], constants),
        batch['length'],
        train=True,
        rngs=rngs,
        mutable=['batch_stats'],
    )
    shares = {}
    for task in tasks:
        output = outputs[task.name]
        if task.kind == 'reconstruction':
            target = batch['clean_log_mel'] if clean_target else batch['log_mel']
            values = losses.squared_error(output, normalise(target, constants)).mean(axis=-1)
            weights = layers.frames_mask(batch['length'], values.shape[1])
        elif task.target == 'emotion':
            values = losses.cross_entropy(output, batch['emotion'], label_smoothing)
            weights = batch['emotion_mask'] * (batch['emotion'] @ constants['class_weights'])
        else:
            labels = batch[task.target]
            values = losses.cross_entropy(output, jax.nn.one_hot(labels, len(task.classes)), 0.0)
            weights = labels >= 0
        shares[task.name] = losses.masked_mean(values, weights, axis_name)
    loss = sum(task.weight * shares[task.name] for task in tasks)
    metrics = {'loss': loss, **{f'loss_{name}': share for name, share in shares.items()}}
    return loss, (
        jax.lax.psum(metrics, axis_name),
        {**model_state, 'batch_stats': updated['batch_stats']},
    )


def normalise(log_mel: jax.Array, constants: dict[str, jax.Array]) -> jax.Array:
    """Z-scores each band, [B, T, F], by the training speakers' statistics."""
    return (log_mel - constants['mean']) / constants['std']
