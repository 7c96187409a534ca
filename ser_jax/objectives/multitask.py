"""Phases of a training step, and multitask learning: one phase, the weighted sum of the tasks' losses."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ser_jax.data.tasks import Task
from ser_jax.models import layers
from ser_jax.models.encoders.pretrained import EncoderInput
from ser_jax.models.forward import network_input, normalise_log_mel, standardised
from ser_jax.objectives import losses
from ser_jax.transforms import attacks

_EXCLUDED = -1e9  # logit of classes without training examples, e.g. test speakers


@dataclasses.dataclass(frozen=True)
class Phase:
    """One update of a training step.

    Attributes:
        name: key of the optimiser state.
        loss: (params, model_state, batch, rngs) -> (this device's share of the loss, (global metrics, model_state)).
        updates: top-level subtrees of the parameters that the phase updates; () = all.
        tx: optimiser.
    """

    name: str
    loss: Callable[..., tuple[jax.Array, tuple[dict[str, jax.Array], Any]]]
    updates: tuple[str, ...]
    tx: optax.GradientTransformation


def multitask(
    model: nn.Module,
    tasks: tuple[Task, ...],
    tx: optax.GradientTransformation,
    **settings,
) -> tuple[Phase, ...]:
    """Objective of MTL-AUG: Σ weight × loss over the tasks (Latif et al. 2022), in one phase.

    Args:
        model: network, (input, length) -> one output per task.
        tasks: tasks to learn.
        tx: optimiser.
        settings: keyword arguments of `multitask_loss`.
    """
    loss = functools.partial(multitask_loss, model=model, tasks=tasks, **settings)
    return (Phase('multitask', loss, (), tx),)


def multitask_loss(
    params: dict[str, Any],
    model_state: dict[str, Any],
    batch: dict[str, jax.Array],
    rngs: dict[str, jax.Array],
    *,
    model: nn.Module,
    tasks: tuple[Task, ...],
    label_smoothing: float,
    clean_target: bool,
    axis_name: str,
    adversarial_epsilon: float = 0.0,
    representation: str = 'log_mel',
    encoder: EncoderInput | None = None,
) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, Any]]]:
    """Loss of a phase that learns tasks, see `Phase`.

    Args:
        params, model_state, batch, rngs: see `Phase`.
        model, tasks: see `multitask`.
        label_smoothing: label smoothing of the reported tasks, in [0, 1).
        clean_target: whether the reconstruction target is the input before noise and masks, not the network's input.
        axis_name: mapped axis of the devices.
        adversarial_epsilon: radius of adversarial training on the standardised log-mel (`_attacked`); 0 = none.
        representation: batch field of the network's input, 'log_mel', 'waveform' or 'encoded'.
        encoder: the pretrained encoder in the step, whose outputs of the waveforms are the network's input; or None.
    """
    variables = {**model_state, 'params': params}
    x, length = network_input(
        variables, batch[representation], batch['length'], representation, encoder
    )
    apply = lambda x: apply_in_training(model, params, model_state, rngs, x, length)
    if adversarial_epsilon:
        x = _attacked(x, apply, batch, rngs['dropout'], adversarial_epsilon, axis_name)
    outputs, model_state = apply(x)
    shares = task_losses(
        outputs,
        batch,
        tasks,
        model_state['constants'],
        label_smoothing=label_smoothing,
        clean_target=clean_target,
        axis_name=axis_name,
    )
    loss, metrics = weighted_loss(shares, tasks)
    return loss, (jax.lax.psum(metrics, axis_name), model_state)


def apply_in_training(model, params, model_state, rngs, *arguments, method=None):
    """Applies a network in training: (outputs, model state with new running statistics)."""
    outputs, updated = model.apply(
        {'params': params, 'batch_stats': model_state['batch_stats']},
        *arguments,
        train=True,
        rngs=rngs,
        mutable=['batch_stats'],
        method=method,
    )
    return outputs, {**model_state, 'batch_stats': updated.get('batch_stats', {})}


def task_losses(
    outputs: dict[str, jax.Array],
    batch: dict[str, jax.Array],
    tasks: tuple[Task, ...],
    constants: dict[str, Any],
    *,
    label_smoothing: float,
    axis_name: str,
    clean_target: bool = True,
) -> dict[str, jax.Array]:
    """This device's share of every task's loss, task -> scalar; see `multitask_loss`."""
    shares = {}
    for task in tasks:
        output = outputs[task.name]
        if task.kind == 'regression':
            ratings = batch[f'{task.target}_rating']
            scaled = standardised(ratings, constants['ratings'][task.name])
            present = jnp.isfinite(ratings)
            shares[task.name] = losses.concordance_loss(output[:, 0], scaled, present, axis_name)
            continue
        if task.kind == 'reconstruction':
            target = batch['clean_log_mel'] if clean_target else batch['log_mel']
            values = losses.squared_error(output, normalise_log_mel(target, constants)).mean(
                axis=-1
            )
            weights = layers.frames_mask(batch['length'], values.shape[1])
        elif task.target == 'emotion':
            values = losses.cross_entropy(output, batch['emotion'], label_smoothing)
            weights = batch['emotion_mask']
            if task.name in constants['class_weights']:  # reported
                weights = weights * (batch['emotion'] @ constants['class_weights']['emotion'])
        else:
            labels = batch[task.target]
            if task.name in constants['trained_classes']:
                output = jnp.where(constants['trained_classes'][task.name], output, _EXCLUDED)
            target = jax.nn.one_hot(labels, len(task.classes))  # a row of zeros for −1
            reported = task.name in constants['class_weights']
            values = losses.cross_entropy(output, target, label_smoothing if reported else 0.0)
            weights = target @ constants['class_weights'][task.name] if reported else labels >= 0
        shares[task.name] = losses.masked_mean(values, weights, axis_name)
    return shares


def weighted_loss(
    shares: dict[str, jax.Array], tasks: tuple[Task, ...]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Weighted sum of the tasks' losses, and the metrics 'loss' and 'loss_<task>'."""
    loss = sum(task.weight * shares[task.name] for task in tasks)
    return loss, {'loss': loss, **{f'loss_{name}': share for name, share in shares.items()}}


def _attacked(x, apply, batch, rng, epsilon, axis_name):
    """Attacks the inputs by one step of FGSM on the emotion, from a random start in the ball.

    Fast adversarial training, Wong et al. 2020 (arXiv 2001.03994, algorithm 3; step size 1.25 epsilon). Utterances without an
    emotion only get the random start.
    """
    keys = layers.example_keys(jax.random.fold_in(rng, 1), len(x), axis_name)
    draw = lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -epsilon, epsilon)
    start = x + jax.vmap(draw)(keys)

    def loss(start):
        logits = apply(start)[0]['emotion']
        return jnp.sum(losses.cross_entropy(logits, batch['emotion'], 0.0) * batch['emotion_mask'])

    lower, upper = attacks.ball(x, epsilon)
    # Mask: through the batch statistics, losses of others also have a gradient at utterances without an emotion.
    size = 1.25 * epsilon * batch['emotion_mask'].reshape(-1, *[1] * (x.ndim - 1))
    moved = attacks.ascend(start, jax.grad(loss), lower, upper, size)
    return jax.lax.stop_gradient(moved)
