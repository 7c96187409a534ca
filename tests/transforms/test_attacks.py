"""Attacks: closed forms on linear models, bounds to the last bit, masks, starts."""

import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.audio.log_mel_jax import batch_log_mel
from ser_jax.runtime.devices import DataParallel, make_mesh
from ser_jax.transforms import attacks
from ser_jax.transforms.attacks import ball
from ser_jax.transforms.conditions import parse_attack

RNG = np.random.default_rng(0)
W = RNG.normal(size=(7, 3)).astype(np.float32)
X = RNG.normal(size=(6, 7, 3)).astype(np.float32)
Y = np.array([1, -1, 1, -1, 1, -1], np.float32)
EPSILONS = (0.0, 0.001, 0.1, 1 / 3)
CALLS = ('random_sign(%r)', 'fgsm(%r)', 'bim(%r, 5)', 'pgd(%r, 5)', 'pgd(%r, 4, 3)')


def logistic(x, y=Y, w=W):
    """Loss [B] of logistic regression with labels ±1."""
    return jax.nn.softplus(-y * jnp.einsum('btf,tf->b', x, w))


@functools.cache
def compiled_step(loss):
    """`ascend` along the gradient of a loss."""
    gradient = jax.grad(lambda x: loss(x).sum())
    return jax.jit(lambda x, lower, upper, size: attacks.ascend(x, gradient, lower, upper, size))


def problem(x=X, loss=logistic, seed=0, **limits):
    """A problem with a compiled step."""
    keys = jax.vmap(jax.random.key)(seed * 1000 + jnp.arange(len(x)))
    return attacks.Problem(jnp.asarray(x), compiled_step(loss), loss, keys, **limits)


def attack(call, target):
    """Runs a call string."""
    name, arguments = parse_attack(call)
    return np.asarray(attacks.ATTACKS[name](target, *arguments))


# The worst point of a ball for logistic regression is x − epsilon · y · sign(w), and the loss there is
# softplus(−y w·x + epsilon · ‖w‖₁).


@pytest.mark.parametrize('call', CALLS[1:])
@pytest.mark.parametrize('epsilon', EPSILONS)
def test_reaches_the_closed_form(call, epsilon):
    moved = attack(call % epsilon, problem())
    corner = X.astype(np.float64) - epsilon * Y[:, None, None] * np.sign(W)
    np.testing.assert_allclose(moved, corner, atol=1e-6)
    margin = Y * np.einsum('btf,tf->b', X, W)
    worst = np.logaddexp(0, -margin + epsilon * np.abs(W).sum())
    np.testing.assert_allclose(logistic(moved), worst, rtol=1e-5)


def test_random_signs_move_as_far_and_harm_less():
    moved = attack('random_sign(0.3)', problem())
    np.testing.assert_allclose(np.abs(moved - X), 0.3, atol=1e-6)
    assert 0.3 < (moved > X).mean() < 0.7
    assert (logistic(moved) < logistic(attack('fgsm(0.3)', problem()))).all()


@pytest.mark.parametrize('call', ['bim(0.4, 40)', 'pgd(0.4, 40)'])
def test_later_steps_follow_the_gradient_of_where_they_are(call):
    peak = X + 0.25 * np.sign(W)  # a maximum inside the ball, which one step of epsilon overshoots
    target = problem(loss=lambda x: -jnp.square(x - peak).sum((1, 2)))
    assert np.abs(attack(call, target) - peak).max() < 2.5 * 0.4 / 40 + 1e-6
    assert np.abs(attack('fgsm(0.4)', target) - peak).max() > 0.1


# Bounds.


def every_size(count=20_000):
    """Values of both signs over 12 binades, among them powers of two, grid points and zeros."""
    x = RNG.normal(size=count) * 2.0 ** RNG.integers(-8, 4, count)
    x[: count // 4] = RNG.integers(-32768, 32768, count // 4) / 32768
    x[-64:] = np.concatenate([sign * 2.0 ** np.arange(-16, 16) for sign in (1, -1)])
    x[:4] = (0.0, -0.0, 0.1, -0.1)
    return x.astype(np.float32).reshape(8, -1)


@pytest.mark.parametrize('epsilon', [0.002, 0.005, 0.1, 0.3, 1 / 3, 1.0])
def test_bounds_hold_to_the_last_bit(epsilon):
    x = every_size()
    for bounds in (ball(x, epsilon), jax.jit(lambda x: ball(x, epsilon))(x)):
        lower, upper = (np.asarray(bound) for bound in bounds)
        assert ((lower <= x) & (x <= upper)).all()
        for moved in (lower, upper):
            assert moved.dtype == np.float32
            distance = np.abs(moved.astype(np.float64) - x)
            assert distance.max() <= epsilon
            assert float(np.abs(moved - x).max()) <= epsilon  # rounded to float32
            # Three float32 values less at most: epsilon, the sum and the step inwards.
            grain = np.spacing(
                np.maximum(np.maximum(np.abs(x), np.abs(moved)), np.float32(epsilon))
            )
            assert (distance >= epsilon - 3.0 * grain).all()
            for old, new in zip(x.ravel()[::97], moved.ravel()[::97]):
                assert abs(Fraction(float(new)) - Fraction(float(old))) <= Fraction(epsilon)
    # x + epsilon itself does not hold them: the test can fail.
    assert ((x + np.float32(epsilon)).astype(np.float64) - x).max() > epsilon


@pytest.mark.parametrize('call', CALLS)
@pytest.mark.parametrize('epsilon', EPSILONS)
def test_attacks_stay_in_the_ball(call, epsilon):
    moved = attack(call % epsilon, problem())
    assert moved.dtype == np.float32
    assert np.abs(moved.astype(np.float64) - X).max() <= epsilon
    assert (moved == X).all() if epsilon == 0 else (moved != X).all()


@pytest.mark.parametrize('call', CALLS)
def test_what_is_masked_does_not_move_and_the_rest_stays_in_range(call):
    x = np.clip(X, -1, 1)
    mask = (np.arange(7) < np.array([7, 5, 1, 0, 3, 7])[:, None])[..., None]
    wide = attack(call % 0.5, problem(x, lowest=-1.0, highest=1.0))
    moved = attack(call % 0.5, problem(x, mask=mask, lowest=-1.0, highest=1.0))
    assert np.array_equal(moved, np.where(mask, wide, x))
    assert np.abs(wide).max() == 1.0
    assert np.abs(attack(call % 0.5, problem(x))).max() > 1.0


def test_a_value_out_of_range_may_stay_but_does_not_go_further():
    bounds = ball(np.float32([1.5, -3.0, 0.9]), 0.2, lowest=-1.0, highest=1.0)
    np.testing.assert_allclose(bounds, [[1.3, -3.0, 0.7], [1.5, -2.8, 1.0]], atol=1e-6)


def test_a_gradient_that_is_not_a_number_shows_unless_masked():
    loss = lambda x: jnp.sqrt(jnp.square(x).sum((1, 2)) * 0)
    assert np.isnan(attack('fgsm(0.1)', problem(loss=loss))).all()
    mask = np.zeros(X.shape, bool)
    assert np.array_equal(attack('bim(0.1, 3)', problem(loss=loss, mask=mask)), X)


# Starts and loops.


def test_starts_fill_the_ball_evenly():
    x = np.float32([[0] * 5000 + [0.9] * 5000] * 2)
    start, again, other = (
        attack('pgd(0.2, 1)', problem(x, seed=seed, highest=1.0)._replace(step=lambda x, *_: x))
        for seed in (0, 0, 1)
    )
    for part, low, high in ((start[:, :5000], -0.2, 0.2), (start[:, 5000:], 0.7, 1.0)):
        shares, _ = np.histogram(part, 10, (low, high))
        assert shares.sum() == 10_000  # all inside
        assert (abs(shares - 1000) < 150).all()  # five standard deviations
    assert np.array_equal(start, again)
    assert not (start == other).all(1).any()
    assert not (start[0] == start[1]).all()


@pytest.mark.parametrize('call', ['random_sign(0.3)', 'pgd(0.3, 1)'])
def test_draws_depend_on_neither_batch_mates_nor_padding(call):
    target = problem(X)._replace(step=lambda x, *_: x)
    few = target._replace(x=target.x[2:4, :4], keys=target.keys[2:4])
    assert np.array_equal(attack(call, target)[2:4, :4], attack(call, few))


def test_of_several_starts_the_worst_is_kept_for_each_example():
    seen = []
    wavy = lambda x: jnp.cos(40 * x).sum((1, 2)) + 0.1 * x.sum((1, 2))  # many maxima

    def recorded(x):
        seen.append((np.asarray(x), np.asarray(wavy(x))))
        return wavy(x)

    moved = attack('pgd(0.3, 3, 9)', problem(loss=wavy)._replace(loss=recorded))
    points, losses = (np.stack(part) for part in zip(*seen))
    best = losses.argmax(0)
    assert len(points) == 9
    assert len(set(best)) > 2
    assert np.array_equal(moved, points[best, np.arange(6)])
    # One start needs no loss, and is the first of several.
    one = attack('pgd(0.3, 3)', problem(loss=wavy)._replace(loss=None))
    assert np.array_equal(one, points[0])


def test_number_and_size_of_steps():
    for call, sizes in (
        ('fgsm(0.2)', [0.2]), ('bim(0.2, 4)', [0.0625] * 4), ('pgd(0.2, 4, 2)', [0.125] * 8)
    ):  # fmt: skip
        taken = []
        step = lambda x, lower, upper, size, taken=taken: taken.append(size) or x
        attack(call, problem()._replace(step=step))
        assert taken == pytest.approx(sizes)


def test_a_step_compiled_over_the_devices():
    placement, traced = DataParallel(make_mesh()), []

    def row_step(variables, batch):
        traced.append(1)
        gradient = jax.grad(lambda x: logistic(x, batch['y'], variables['w']).sum())
        bounds = batch['lower'], batch['upper']
        return attacks.ascend(batch['x'], gradient, *bounds, variables['size'])

    compiled = placement.compile(row_step, returns_rows=True)
    rows = np.arange(2 * len(jax.devices())) % 6
    batch = placement.to_devices([{'x': X[rows], 'y': Y[rows]}])

    def step(x, lower, upper, size):
        return compiled({'w': W, 'size': size}, batch | {'x': x, 'lower': lower, 'upper': upper})

    keys = jax.vmap(jax.random.key)(jnp.arange(len(rows)))
    target = attacks.Problem(batch['x'], step, keys=keys)
    corner = X[rows] - 0.1 * Y[rows, None, None] * np.sign(W)
    for call in CALLS[1:4]:
        np.testing.assert_allclose(attack(call % 0.1, target), corner, atol=1e-6)
    assert len(traced) == 1  # one program for all attacks


def test_waveforms_are_attacked_through_the_front_end():
    phase = 2 * np.pi * np.array([[220], [330]]) * np.arange(3200) / 16000
    x = np.clip(1.1 * np.sin(phase), -1, 1).astype(np.float32)
    x[1, 1600:] = 0
    lengths = np.array([3200, 1600])
    weights = RNG.normal(size=80).astype(np.float32)
    loss = lambda x: (batch_log_mel(x) @ weights).mean(1)
    mask = np.arange(3200) < lengths[:, None]
    target = problem(x, loss, mask=mask, lowest=-1.0, highest=1.0)
    moved = attack('pgd_waveform(0.002, 8)', target)
    assert np.abs(moved.astype(np.float64) - x).max() <= 0.002
    assert np.abs(moved).max() <= 1
    assert not moved[1, 1600:].any()
    assert (loss(moved) > loss(attack('random_sign_waveform(0.002)', target)) + 1).all()


def test_perturbation_snr():
    x, noise = RNG.normal(size=(2, 3, 1000)).astype(np.float32)
    noise[2, :700] = 0
    snr = attacks.perturbation_snr(x, x + 0.01 * noise, np.array([1000, 400, 700]))
    for row, n in ((0, 1000), (1, 400)):
        expected = 40 + 10 * np.log10((x[row, :n] ** 2).sum() / (noise[row, :n] ** 2).sum())
        assert snr[row] == pytest.approx(expected, abs=0.01)
    assert snr[2] == np.inf
