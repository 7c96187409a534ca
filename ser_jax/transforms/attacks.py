"""Adversarial attacks within an L-infinity ball, on the standardised log-mel or on the waveform in [-1, 1].

Epsilon is in the units of the attacked input. The iterations are a Python loop over one compiled step, because
convolutions inside a compiled loop lose their threads on CPU. The caller compiles that step around `ascend`, with its own
sharding, and passes it in a `Problem`. An attack is a function `name(problem, *arguments)`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Problem(NamedTuple):
    """The input of an attack, and the functions and limits it works with.

    Attributes:
        x: float32 [B, ...].
        step: (x_now, lower, upper, size) -> x_next, all [B, ...] except the scalar `size`: `ascend` with the gradient of
            the *summed* loss, which gives each example its own gradient.
        loss: x -> [B]; only used by `pgd` with several starts.
        keys: random keys [B], one an example, so that a draw depends on neither batch-mates nor devices; only used by
            `random_sign` and `pgd`.
        mask: bool, broadcast to x; where False, nothing moves (padding).
        lowest: smallest value allowed, such as -1 for a waveform.
        highest: largest value allowed.
    """

    x: jax.Array
    step: Callable[..., jax.Array]
    loss: Callable[[jax.Array], jax.Array] | None = None
    keys: jax.Array | None = None
    mask: jax.Array | bool = True
    lowest: float = -np.inf
    highest: float = np.inf


def ball(
    x: jax.Array,
    epsilon: float,
    mask: jax.Array | bool = True,
    lowest: float = -np.inf,
    highest: float = np.inf,
) -> tuple[jax.Array, jax.Array]:
    """Interval in which each value may move.

    Every float32 in it is within epsilon of x *exactly*, however the distance is computed: epsilon is rounded down to
    float32, and x ± epsilon, which may lie just outside, is moved inwards by one float32 value.

    Args:
        x: float32 [B, ...].
        epsilon: radius, at least 0.
        mask, lowest, highest: see `Problem`. A value of x outside the range may stay where it is.

    Returns:
        (lower, upper), both float32 [B, ...], lower ≤ x ≤ upper; equal to x where nothing may move.
    """
    radius = np.float32(epsilon)
    if float(radius) > epsilon:
        radius = np.nextafter(radius, np.float32(0))
    lower = jnp.maximum(jnp.nextafter(x - radius, jnp.inf), lowest)
    upper = jnp.minimum(jnp.nextafter(x + radius, -jnp.inf), highest)
    return jnp.where(mask, jnp.minimum(lower, x), x), jnp.where(mask, jnp.maximum(upper, x), x)


def ascend(
    x: jax.Array,
    gradient: Callable[[jax.Array], jax.Array],
    lower: jax.Array,
    upper: jax.Array,
    size: jax.Array | float,
) -> jax.Array:
    """One step uphill along the sign of the gradient, clipped to the ball.

    Args:
        x: [B, ...] within the ball.
        gradient: x -> [B, ...]. NaN makes x NaN, so that it does not count as robust.
        lower, upper: bounds of the ball.
        size: step size.

    Returns:
        [B, ...].
    """
    moved = jnp.clip(x + size * jnp.sign(gradient(x)), lower, upper)
    return jnp.where(lower < upper, moved, x)


@jax.jit
def _random_corner(keys, lower, upper):
    draw = jax.vmap(lambda key: jax.random.bernoulli(key, shape=lower.shape[1:]))
    return jnp.where(draw(keys), upper, lower)


@jax.jit
def _random_start(keys, number, lower, upper):
    draw = lambda key: jax.random.uniform(jax.random.fold_in(key, number), lower.shape[1:])
    return jnp.clip(lower + jax.vmap(draw)(keys) * (upper - lower), lower, upper)


def random_sign(problem: Problem, epsilon: float) -> jax.Array:
    """Control: moves every value by ±epsilon at random, as far as FGSM.

    Like all attacks it returns [B, ...], each value within epsilon of `problem.x`.
    """
    return _random_corner(problem.keys, *_ball(problem, epsilon))


def fgsm(problem: Problem, epsilon: float) -> jax.Array:
    """Fast gradient sign method: one step of epsilon (Goodfellow et al. 2015, arXiv 1412.6572)."""
    return problem.step(problem.x, *_ball(problem, epsilon), epsilon)


def bim(problem: Problem, epsilon: float, steps: int) -> jax.Array:
    """Basic iterative method from x (Kurakin et al. 2017, arXiv 1607.02533).

    Step size 1.25 epsilon / steps: the paper takes 1.25 epsilon steps of one grey level.
    """
    bounds, x = _ball(problem, epsilon), problem.x
    for _ in range(steps):
        x = problem.step(x, *bounds, 1.25 * epsilon / steps)
    return x


def pgd(problem: Problem, epsilon: float, steps: int, starts: int = 1) -> jax.Array:
    """Projected gradient descent from random starts (Madry et al. 2018, arXiv 1706.06083).

    Step size 2.5 epsilon / steps, as in the paper: enough to cross the ball and move along its border. Starts are uniform
    in the ball; of several, each example keeps the one of highest loss.
    """
    bounds = _ball(problem, epsilon)
    for number in range(starts):
        x = _random_start(problem.keys, number, *bounds)
        for _ in range(steps):
            x = problem.step(x, *bounds, 2.5 * epsilon / steps)
        if starts == 1:
            return x
        loss = problem.loss(x)
        if number == 0:
            worst, highest = x, loss
        else:
            higher = (loss > highest).reshape(-1, *[1] * (x.ndim - 1))
            worst, highest = jnp.where(higher, x, worst), jnp.maximum(loss, highest)
    return worst


def _ball(problem: Problem, epsilon: float) -> tuple[jax.Array, jax.Array]:
    return ball(problem.x, epsilon, problem.mask, problem.lowest, problem.highest)


def perturbation_snr(x: jax.Array, moved: jax.Array, lengths: jax.Array) -> jax.Array:
    """Signal-to-perturbation ratio [B] in dB over whole waveforms [B, S]; infinite where nothing moved."""
    real = jnp.arange(x.shape[1]) < jnp.asarray(lengths)[:, None]
    signal = jnp.sum(jnp.square(x), axis=1, where=real)
    added = jnp.sum(jnp.square(moved - x), axis=1, where=real)
    return jnp.where(added > 0, 10 * jnp.log10(signal / added), jnp.inf)


# Attack -> function(problem, *arguments); the same on the waveform.
ATTACKS = {'random_sign': random_sign, 'fgsm': fgsm, 'bim': bim, 'pgd': pgd}
ATTACKS |= {f'{name}_waveform': function for name, function in ATTACKS.items()}
