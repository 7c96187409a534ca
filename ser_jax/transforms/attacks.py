"""Adversarial attacks within an L-infinity ball, and checks that an attack works as attacks do.

Epsilon is in the units of what is attacked: the standardised log-mel, or samples of a waveform in
[-1, 1]. The iterations are a Python loop over one compiled step, because convolutions inside a
compiled loop lose their threads on CPU. The caller compiles that step around `ascend`, with its own
sharding, and hands it over in a `Problem`; an attack is a function `name(problem, *arguments)`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.runtime.call_strings import check_arguments, number_rule, parse_call
from ser_jax.runtime.errors import UserError


class Problem(NamedTuple):
    """What is attacked, and with what.

    Attributes:
        x: float32 [B, ...].
        step: (x_now, lower, upper, size) -> x_next, all [B, ...] but the scalar `size`: `ascend`
            with the gradient of the loss. That of the *summed* loss gives each example its own.
        loss: x -> [B]; used by `pgd` with several starts only.
        keys: random keys [B], one an example, so that a draw depends on neither batch-mates nor
            devices; used by `random_sign` and `pgd` only.
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
    """The interval in which each value may move.

    Every float32 in it is within epsilon of x *exactly*, however the distance is computed: epsilon
    is rounded down to float32, and x ± epsilon, which may be just outside, one value inwards.

    Args:
        x: float32 [B, ...].
        epsilon: at least 0.
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
    """One step uphill, along the sign of the gradient, and back into the ball.

    Args:
        x: [B, ...] within the ball.
        gradient: x -> [B, ...]. Where it is not a number x becomes so, and is not called robust.
        lower, upper: of `ball`.
        size: of the step.

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
    """The control: every value moved by ±epsilon at random, as far as FGSM moves it.

    Like all attacks it returns [B, ...], each value within epsilon of the problem's x.
    """
    return _random_corner(problem.keys, *_ball(problem, epsilon))


def fgsm(problem: Problem, epsilon: float) -> jax.Array:
    """Fast gradient sign method, one step of epsilon (Goodfellow et al. 2015, arXiv 1412.6572)."""
    return problem.step(problem.x, *_ball(problem, epsilon), epsilon)


def bim(problem: Problem, epsilon: float, steps: int) -> jax.Array:
    """Basic iterative method from x (Kurakin et al. 2017, arXiv 1607.02533).

    Steps of 1.25 epsilon / steps: theirs are 1 grey level each, and 1.25 epsilon of them.
    """
    bounds, x = _ball(problem, epsilon), problem.x
    for _ in range(steps):
        x = problem.step(x, *bounds, 1.25 * epsilon / steps)
    return x


def pgd(problem: Problem, epsilon: float, steps: int, starts: int = 1) -> jax.Array:
    """Projected gradient descent from random starts (Madry et al. 2018, arXiv 1706.06083).

    Steps of 2.5 epsilon / steps, as theirs, can cross the ball and still move along its border. Of
    several starts, drawn evenly from the ball, each example keeps the one of highest loss.
    """
    bounds = _ball(problem, epsilon)
    for number in range(starts):
        x = _random_start(problem.keys, number, *bounds)
        for _ in range(steps):
            x = problem.step(x, *bounds, 2.5 * epsilon / steps)
        if starts == 1:
            return x
        reached = problem.loss(x)
        if number == 0:
            worst, highest = x, reached
        else:
            higher = (reached > highest).reshape(-1, *[1] * (x.ndim - 1))
            worst, highest = jnp.where(higher, x, worst), jnp.maximum(reached, highest)
    return worst


def _ball(problem: Problem, epsilon: float) -> tuple[jax.Array, jax.Array]:
    return ball(problem.x, epsilon, problem.mask, problem.lowest, problem.highest)


def perturbation_snr(x: jax.Array, moved: jax.Array, lengths: jax.Array) -> jax.Array:
    """How far a perturbation lies below the signal.

    Args:
        x: waveforms, float32 [B, S].
        moved: the same, attacked.
        lengths: int [B], samples that are the utterance's own.

    Returns:
        [B], dB over the whole utterance; infinite where nothing moved.
    """
    own = jnp.arange(x.shape[1]) < jnp.asarray(lengths)[:, None]
    signal = jnp.sum(jnp.square(x), axis=1, where=own)
    added = jnp.sum(jnp.square(moved - x), axis=1, where=own)
    return jnp.where(added > 0, 10 * jnp.log10(signal / added), jnp.inf)


_EPSILON = {'epsilon': number_rule(0, 100)}
_STEPS = {'steps': number_rule(1, 10_000, whole=True)}
_STARTS = {'starts': number_rule(1, 1000, whole=True)}  # 1 where left out
# name -> (function(problem, *arguments), arguments of a call string: name -> (test, in words)).
ATTACKS = {
    'random_sign': (random_sign, _EPSILON),
    'fgsm': (fgsm, _EPSILON),
    'bim': (bim, _EPSILON | _STEPS),
    'pgd': (pgd, _EPSILON | _STEPS | _STARTS),
}
# The same attacks on the waveform.
ATTACKS |= {f'{name}_waveform': entry for name, entry in ATTACKS.items()}


class Attack(NamedTuple):
    """A parsed call string.

    Attributes:
        name: in `ATTACKS`.
        arguments: epsilon first, none left out.
    """

    name: str
    arguments: tuple

    @property
    def condition(self) -> str:
        """Its name among the results: `fgsm_0.05`, `bim_0.05_10`, `pgd_0.05_20_1`."""
        return '_'.join([self.name, *(f'{number:g}' for number in self.arguments)])


def parse_attack(text: str) -> Attack:
    """Parses a call string.

    Args:
        text: e.g. `fgsm(0.05)`, `bim(0.05, 10)`, `pgd(0.05, 20)`, `pgd(0.05, 20, 2)`, or, on the
            waveform, `pgd_waveform(0.002, 20)`.

    Returns:
        `Attack`.

    Raises:
        UserError: no such attack, or wrong arguments.
    """
    name, arguments = parse_call(text, 'condition')
    if name not in ATTACKS:
        raise UserError(f'attack {name!r} does not exist; there are {", ".join(ATTACKS)}')
    rules = ATTACKS[name][1]
    if 'starts' in rules and len(arguments) < len(rules):
        rules = {field: rule for field, rule in rules.items() if field != 'starts'}
        check_arguments('attack', text, name, arguments, rules)
        return Attack(name, (*arguments, 1))
    check_arguments('attack', text, name, arguments, rules)
    return Attack(name, arguments)


def attack_checks(results: Mapping[str, float]) -> list[tuple[str, bool]]:
    """Whether the attacks behave as attacks that work do (after Carlini et al. 2019, 1902.06705).

    Args:
        results: call string, or 'clean' -> accuracy or UAR, a fraction.

    Returns:
        (what should hold, with the numbers; whether it does), for what the results allow: the rate
        falls with epsilon (in all, and to 1 point at every step); the largest epsilon, if at least 0.3, reaches below 10 %;
        PGD is as strong as FGSM (to half a point); random signs harm less than FGSM; twice the
        steps change less than 3 points.

    Raises:
        UserError: a key that is not an attack.
    """
    rates = {parse_attack(text): rate for text, rate in results.items() if text != 'clean'}
    clean = results.get('clean')
    checks = [*_checks_over_epsilon(rates, clean), *_checks_of_pairs(rates, clean)]
    return [(text, bool(holds)) for text, holds in checks]


def _checks_over_epsilon(rates, clean):
    attacks = {attack: rate for attack, rate in rates.items() if 'random_sign' not in attack.name}
    for kind in dict.fromkeys((attack.name, attack.arguments[1:]) for attack in attacks):
        sweep = {a: r for a, r in attacks.items() if (a.name, a.arguments[1:]) == kind}
        if clean is not None:
            sweep[Attack('clean', ())] = clean
        order = sorted(sweep, key=lambda attack: attack.arguments[:1])
        values = np.array([sweep[attack] for attack in order])
        falls = values[1:] <= np.minimum.accumulate(values)[:-1] + 0.01
        if len(order) > 1:
            # Where nothing falls at all, nothing was attacked: a model that always says the same.
            holds = falls.all() and values[-1] < values[0]
            yield f'{kind[0]} falls with epsilon: {_listed(sweep, *order)}', holds
    largest = max((attack.arguments[0] for attack in attacks), default=0)
    if largest >= 0.3:
        strongest = min((a for a in attacks if a.arguments[0] == largest), key=attacks.get)
        text = f'the largest epsilon reaches below 10 %: {_listed(attacks, strongest)}'
        yield text, attacks[strongest] < 0.1


def _checks_of_pairs(rates, clean):
    for attack, rate in rates.items():
        kind, (epsilon, *rest) = attack.name.removesuffix('_waveform'), attack.arguments
        fgsm = Attack(attack.name.replace(kind, 'fgsm'), (epsilon,))
        if fgsm in rates and kind == 'pgd':
            holds = rate <= rates[fgsm] + 0.005
            yield f'PGD is as strong as FGSM: {_listed(rates, attack, fgsm)}', holds
        if fgsm in rates and kind == 'random_sign' and epsilon > 0:
            # An epsilon so small that neither changes anything is no fault of the attack.
            holds = rate > rates[fgsm] or rate == rates[fgsm] == clean
            yield f'random signs harm less than FGSM: {_listed(rates, attack, fgsm)}', holds
        twice = Attack(attack.name, (epsilon, *(2 * steps for steps in rest[:1]), *rest[1:]))
        if rest and twice in rates:
            holds = abs(rates[twice] - rate) < 0.03
            yield f'twice the steps change little: {_listed(rates, attack, twice)}', holds


def _listed(rates, *attacks) -> str:
    return ', '.join(f'{attack.condition} {100 * rates[attack]:.1f} %' for attack in attacks)
