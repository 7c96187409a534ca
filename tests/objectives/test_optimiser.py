"""The optimiser against plain NumPy."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from ser_jax.objectives import optimiser

CONFIG = ml_collections.ConfigDict(
    {
        'learning_rate': 0.1,
        'warmup': 0.2,
        'beta1': 0.9,
        'weight_decay': 0.0,
        'clip': 1e9,
        'average': 0.9,
    }
)


def test_average_is_the_warmed_up_exponential_one():
    tx = optimiser.with_average(optax.sgd(1.0), 0.5)
    params, expected = jnp.array(3.0), 3.0
    state, value = tx.init(params), 3.0
    for count in range(8):
        updates, state = tx.update(jnp.array(1.0), state, params)
        params, value = optax.apply_updates(params, updates), value - 1.0
        rate = min(0.5, (1 + count) / (10 + count))
        expected = rate * expected + (1 - rate) * value
    np.testing.assert_allclose(state.average, expected, rtol=1e-6)
    np.testing.assert_allclose(params, value)


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted():
    tx = optimiser.make_optimiser(CONFIG, 10)
    params = {'kernel': jnp.ones((2, 2))}
    state = tx.init(params)
    good = {'kernel': jnp.ones((2, 2))}
    bad = {'kernel': jnp.full((2, 2), jnp.nan)}
    updates, state = tx.update(good, state, params)
    average = optimiser.averaged_params(state)
    updates, state = tx.update(bad, state, params)
    np.testing.assert_array_equal(updates['kernel'], 0.0)
    jax.tree.map(np.testing.assert_array_equal, optimiser.averaged_params(state), average)
    assert [int(n) for n in optimiser.skipped_steps(state)] == [1, 1]
    _, state = tx.update(good, state, params)
    assert [int(n) for n in optimiser.skipped_steps(state)] == [0, 1]


def test_warm_up_then_cosine():
    config = CONFIG.copy_and_resolve_references()
    tx = optimiser.make_optimiser(config, 10)
    params = {'kernel': jnp.zeros((2, 2))}
    state, sizes = tx.init(params), []
    for _ in range(10):
        updates, state = tx.update({'kernel': jnp.ones((2, 2))}, state, params)
        sizes.append(
            float(-updates['kernel'][0, 0])
        )  # Adam: gradients of one size give steps of lr
    assert sizes[0] == 0.0
    np.testing.assert_allclose(sizes[2], 0.1, rtol=1e-3)
    steps = np.arange(8) / 8
    cosine = 0.1 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * steps)))
    np.testing.assert_allclose(sizes[2:], cosine, rtol=1e-3)


def test_biases_and_scales_do_not_decay():
    config = CONFIG.copy_and_resolve_references()
    config.weight_decay, config.warmup = 0.5, 0.0
    tx = optimiser.make_optimiser(config, 100)
    params = {'lstm': {'kernel': jnp.ones((2, 2)), 'bias': jnp.ones((2, 8)), 'scale': jnp.ones(2)}}
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(jax.tree.map(jnp.zeros_like, params), state, params)
    assert (updates['lstm']['kernel'] < 0).all()
    assert (updates['lstm']['bias'] == 0).all()
    assert (updates['lstm']['scale'] == 0).all()


def test_pretrained_parameters_have_their_own_rates_rise_and_no_decay():
    """Adam moves every parameter by the learning rate where gradients are constant."""
    config = CONFIG.copy_and_resolve_references()
    config.update(warmup=0.0, weight_decay=0.5, clip=1e9)
    rates = {('pretrained', 'layer_1', 'kernel'): 0.1, ('pretrained', 'layer_0', 'kernel'): 0.05}
    leaf = {'kernel': jnp.ones((2, 2))}
    params = {'head': leaf, 'pretrained': {'layer_0': leaf, 'layer_1': leaf}}
    gradients = jax.tree.map(lambda x: jnp.full_like(x, 0.5), params)
    sizes = {}
    for warmup_steps in (0, 4):
        tx = optimiser.make_optimiser(config, 1000, rates=rates, warmup_steps=warmup_steps)
        state = tx.init(params)
        for step in range(6):
            updates, state = tx.update(gradients, state, params)
            sizes[warmup_steps, step] = jax.tree.map(lambda x: -float(x[0, 0]), updates)
    for (warmup_steps, step), size in sizes.items():
        if step == 0:
            continue  # the rate of the first step is 0
        adam = size['head']['kernel'] / 1.5  # the decay of a parameter of 1 adds a half
        np.testing.assert_allclose(adam, 0.1, rtol=1e-3)
        rise = min(1.0, (step + 1) / (warmup_steps + 1))
        for name, rate in (('layer_1', 0.1), ('layer_0', 0.05)):
            found = size['pretrained'][name]['kernel']
            np.testing.assert_allclose(found, adam * rate * rise, rtol=1e-3)
