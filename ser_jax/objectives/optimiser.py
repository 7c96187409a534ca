"""AdamW with warm-up and cosine decay, clipping, skipping of non-finite steps, and averaging of the parameters."""

import functools
from collections.abc import Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class AverageState(NamedTuple):
    """State of `with_average`: number of updates, state of the wrapped optimiser, average of the parameters."""

    count: jax.Array
    inner: optax.OptState
    average: optax.Params


def with_average(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """Keeps an exponential moving average of the parameters in the state of an optimiser.

    The decay is warmed up as min(decay, (1 + n) / (10 + n)) after n updates, so that the average soon forgets the random
    initial parameters. Training itself is unchanged.

    Args:
        inner: optimiser to wrap.
        decay: share of the old average kept by a step, in [0, 1); 0 = the parameters themselves.

    Returns:
        A transformation whose state is an `AverageState`.
    """

    def init(params):
        return AverageState(jnp.zeros([], jnp.int32), inner.init(params), params)

    def update(updates, state, params):
        updates, inner_state = inner.update(updates, state.inner, params)
        rate = jnp.minimum(decay, (1.0 + state.count) / (10.0 + state.count))
        average = optax.incremental_update(
            optax.apply_updates(params, updates), state.average, 1.0 - rate
        )
        return updates, AverageState(state.count + 1, inner_state, average)

    return optax.GradientTransformation(init, update)


def with_rates(
    rates: Mapping[tuple[str, ...], float], warmup_steps: int = 0
) -> optax.GradientTransformation:
    """Scales the updates of some parameters, path -> factor, from the first step on or after a linear rise."""

    def init(params):
        del params
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update(updates, state, params=None):
        del params
        rise = jnp.minimum(1.0, (state.count + 1) / (warmup_steps + 1))
        scaled = jax.tree_util.tree_map_with_path(
            lambda path, x: x * (rates[_keys(path)] * rise) if _keys(path) in rates else x, updates
        )
        return scaled, optax.ScaleByScheduleState(state.count + 1)

    return optax.GradientTransformation(init, update)


def make_optimiser(
    settings: Mapping[str, float],
    steps: int,
    *,
    rates: Mapping[tuple[str, ...], float] | None = None,
    warmup_steps: int = 0,
) -> optax.GradientTransformation:
    """Builds AdamW with warm-up and cosine decay.

    Weight decay applies to kernels, not to biases and normalisation scales, nor to pretrained parameters. A step with a non-finite gradient changes nothing
    and is counted (`skipped_steps`).

    Args:
        settings: `learning_rate` (peak), `warmup` (share of the steps), `beta1` (of Adam), `weight_decay`, `clip` (largest
            global gradient norm), `average` (see `with_average`).
        steps: length of the whole schedule.
        rates: path -> relative learning rate of pretrained parameters.
        warmup_steps: steps during which these rates rise from 0.

    Returns:
        An optax transformation for the whole parameter tree.
    """
    warmup = max(1, round(settings['warmup'] * steps))
    schedule = optax.warmup_cosine_decay_schedule(
        0.0,
        settings['learning_rate'],
        warmup,
        max(steps, warmup + 1),
        0.01 * settings['learning_rate'],
    )
    adamw = optax.adamw(
        schedule,
        b1=settings['beta1'],
        weight_decay=settings['weight_decay'],
        mask=functools.partial(_decays, pretrained=rates or ()),
    )
    parts = [optax.clip_by_global_norm(settings['clip']), adamw]
    if rates:
        parts.append(with_rates(rates, warmup_steps))
    tx = with_average(optax.chain(*parts), settings['average'])
    return optax.apply_if_finite(tx, max_consecutive_errors=1_000_000)


def _decays(params: optax.Params, pretrained: Collection[tuple[str, ...]]):
    """True for kernels, False for biases and scales, regardless of shape, and for pretrained parameters."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[-1].key not in ('bias', 'scale') and _keys(path) not in pretrained,
        params,
    )


def _keys(path) -> tuple[str, ...]:
    return tuple(part.key for part in path)


def averaged_params(opt_state: optax.OptState) -> optax.Params:
    """Averaged parameters in the state of a `make_optimiser` transformation."""
    return opt_state.inner_state.average


def skipped_steps(opt_state: optax.OptState) -> tuple[jax.Array, jax.Array]:
    """Number of steps skipped for a non-finite gradient: (consecutive until now, total), int32 [] each."""
    return opt_state.notfinite_count, opt_state.total_notfinite
