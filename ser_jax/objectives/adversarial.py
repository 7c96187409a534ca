"""Objective of an adversarial autoencoder (Makhzani et al. 2016, arXiv 1511.05644) with supervised tasks."""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ser_jax.data.tasks import Task
from ser_jax.models import layers
from ser_jax.models.adversarial_autoencoder import functionals
from ser_jax.models.forward import normalise, normalise_log_mel
from ser_jax.objectives import losses
from ser_jax.objectives.multitask import Phase, apply_in_training, multitask_loss

PHASES = ('reconstruction', 'discriminator', 'generator', 'supervised')


def adversarial(
    model: nn.Module,
    tasks: tuple[Task, ...],
    optimisers: Mapping[str, optax.GradientTransformation],
    *,
    prior: str,
    separation: float,
    gradient_penalty: float,
    label_smoothing: float,
    clean_target: bool,
    axis_name: str,
    representation: str = 'log_mel',
) -> tuple[Phase, ...]:
    """Phases of a step, each of which updates some subtrees of the parameters.

    - `reconstruction`: encoder and decoder, squared error of the log-mel (or of its functionals);
    - `discriminator`: discriminator, between codes and draws from the prior, with a penalty on its gradient at the draws
      (R1, Mescheder et al. 2018, arXiv 1801.04406, equation 9);
    - `generator`: encoder, against the discriminator (the non-saturating loss of Goodfellow et al. 2014);
    - `supervised`: encoder and heads, Σ weight × loss over the tasks with a label.

    Only `supervised` updates the encoder's running statistics, so that their smoothness does not depend on the number of
    phases.

    Args:
        model: `models.adversarial_autoencoder.Model`.
        tasks: tasks to learn.
        optimisers: phase -> optimiser, in the order of the phases.
        prior: 'gaussian', or 'mixture': one Gaussian per emotion; the discriminator's condition is the emotion, where known.
        separation: distance of the mixture's means from the origin, each along its own axis, in standard deviations.
        gradient_penalty: weight of R1.
        label_smoothing: label smoothing of the reported tasks.
        clean_target: whether the reconstruction target is the input before noise and masks.
        axis_name: mapped axis of the devices.
        representation: batch field of the network's input, 'log_mel' or 'encoded'.

    Returns:
        One phase for each optimiser.
    """
    adversary = Adversary(model, prior, separation, gradient_penalty, axis_name, representation)
    supervised = tuple(task for task in tasks if task.kind != 'reconstruction')
    common = {
        'model': model,
        'clean_target': clean_target,
        'axis_name': axis_name,
        'representation': representation,
    }
    phase_losses = {
        'reconstruction': functools.partial(_reconstruction, **common),
        'discriminator': adversary.discriminator,
        'generator': adversary.generator,
        'supervised': functools.partial(
            multitask_loss, tasks=supervised, label_smoothing=label_smoothing, **common
        ),
    }
    heads = tuple(f'{task.name}_head' for task in supervised)
    updates = {
        'reconstruction': ('encoder', 'decoder'),
        'discriminator': ('discriminator',),
        'generator': ('encoder',),
        'supervised': ('encoder', *heads),
    }
    return tuple(
        Phase(name, phase_losses[name], updates[name], tx) for name, tx in optimisers.items()
    )


def _encode(model, params, model_state, batch, rngs, representation):
    x = normalise(batch[representation], model_state['constants'])
    length = batch['length']
    return apply_in_training(model, params, model_state, rngs, x, length, method='encode')[0]


def _reconstruction(
    params, model_state, batch, rngs, *, model, clean_target, axis_name, representation
):
    code = _encode(model, params, model_state, batch, rngs, representation)
    frames = batch[representation].shape[1]
    output = model.apply({'params': params}, code, frames, method='decode')
    target = batch['clean_log_mel'] if clean_target else batch['log_mel']
    target = normalise_log_mel(target, model_state['constants'])
    if output.ndim == 2:
        values = losses.squared_error(output, functionals(target, batch['length'])).mean(-1)
        weights = jnp.ones_like(values)
    else:
        values = losses.squared_error(output, target).mean(-1)
        weights = layers.frames_mask(batch['length'], frames)
    loss = losses.masked_mean(values, weights, axis_name)
    return loss, ({'loss_reconstruction': jax.lax.psum(loss, axis_name)}, model_state)


class Adversary:
    """Prior and losses of discriminator and generator. Arguments: see `adversarial`."""

    def __init__(
        self, model, prior, separation, gradient_penalty, axis_name, representation='log_mel'
    ):
        self._representation = representation
        self._model, self._mixture, self._separation = model, prior == 'mixture', separation
        self._penalty, self._axis = gradient_penalty, axis_name

    def sample_prior(self, rng: jax.Array, batch: dict, dimensions: int) -> jax.Array:
        """Samples the prior once for each utterance, from the component of its emotion where known.

        Args:
            rng: key, the same on every device.
            batch: 'emotion' [B, K] and 'emotion_mask' [B].
            dimensions: D, dimensions of a code.

        Returns:
            Draws [B, D].
        """
        emotion, known = batch['emotion'], batch['emotion_mask'][:, None]
        count = emotion.shape[-1]
        keys = layers.example_keys(rng, len(emotion), self._axis)
        draws = jax.vmap(lambda key: jax.random.normal(key, (dimensions,)))(keys)
        if not self._mixture:
            return draws
        shares = jnp.where(known, emotion, 1.0 / count)  # soft after mixup
        choose = lambda key, share: jax.random.categorical(jax.random.fold_in(key, 1), share)
        component = jax.vmap(choose)(keys, jnp.log(shares + 1e-9))
        means = self._separation * jnp.eye(count, dimensions)
        return draws + means[component]

    def condition(self, batch: dict) -> jax.Array:
        """The discriminator's condition: the emotion [B, K], zeros where unknown; [B, 0] if the prior has one component."""
        emotion = jnp.where(batch['emotion_mask'][:, None], batch['emotion'], 0.0)
        return emotion if self._mixture else emotion[:, :0]

    def _logits(self, params, code, condition):
        return self._model.apply({'params': params}, code, condition, method='discriminate')

    def _mean(self, values):
        return losses.masked_mean(values, jnp.ones_like(values), self._axis)

    def discriminator(self, params, model_state, batch, rngs):
        """Loss of the discriminator; log 2 at chance."""
        code = _encode(self._model, params, model_state, batch, rngs, self._representation)
        draws = self.sample_prior(rngs['sample'], batch, code.shape[-1])
        condition = self.condition(batch)
        logits = lambda z: self._logits(params, z, condition)
        real, fake = logits(draws), logits(code)
        slope = jax.grad(lambda z: logits(z).sum())(draws)
        penalty = 0.5 * self._penalty * self._mean(jnp.sum(slope**2, axis=-1))
        loss = 0.5 * self._mean(jax.nn.softplus(-real) + jax.nn.softplus(fake))
        accuracy = 0.5 * self._mean((real > 0).astype(jnp.float32) + (fake <= 0))
        shares = {
            'loss_discriminator': loss,
            'gradient_penalty': penalty,
            'discriminator_accuracy': accuracy,
        }
        gather = lambda x: jax.lax.all_gather(x, self._axis, tiled=True)
        codes = gather(code)
        metrics = jax.lax.psum(shares, self._axis) | {
            'code_offset': jnp.abs(codes.mean(0)).mean(),
            'code_std': codes.std(0).mean(),
            'code_mmd': mmd(codes, gather(draws)),  # regardless of emotions
        }
        return loss + penalty, (metrics, model_state)

    def generator(self, params, model_state, batch, rngs):
        """Loss of the encoder against the discriminator."""
        code = _encode(self._model, params, model_state, batch, rngs, self._representation)
        condition = self.condition(batch)
        loss = self._mean(jax.nn.softplus(-self._logits(params, code, condition)))
        return loss, ({'loss_generator': jax.lax.psum(loss, self._axis)}, model_state)


def mmd(x: jax.Array, y: jax.Array) -> jax.Array:
    """Squared maximum mean discrepancy of two samples, unbiased (Gretton et al. 2012, equation 3).

    The kernel is exp(-|a - b|² / 2D), since two draws of a standard Gaussian have a mean squared distance of 2D.

    Args:
        x: [B, D], B ≥ 2.
        y: [B, D].

    Returns:
        Scalar: about 0 for equal distributions, at most 2.
    """

    def kernel(a, b):
        squares = (a**2).sum(-1)[:, None] + (b**2).sum(-1) - 2 * a @ b.T
        return jnp.exp(-jnp.maximum(squares, 0.0) / (2 * a.shape[-1]))

    n = len(x)
    off_diagonal_mean = lambda k: (k.sum() - jnp.trace(k)) / (n * (n - 1))
    return (
        off_diagonal_mean(kernel(x, x)) + off_diagonal_mean(kernel(y, y)) - 2 * kernel(x, y).mean()
    )
