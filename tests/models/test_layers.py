"""Layers: equal to plain formulations, independent of padding and of the number of devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import same_on_devices
from jax import lax

from ser_jax.models import convolution, layers, recurrent

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize('size', [(3, 3), (1, 1), (5, 2)])
@pytest.mark.parametrize('formulation', ['chosen', 'cpu', 'default'])
def test_convolution_and_its_gradients_equal_xla(size, formulation):
    x, kernel = normal(3, 9, 6, 4), normal(*size, 4, 5)

    def plain(x, kernel):
        return lax.conv_general_dilated(
            x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    out, pull = jax.vjp(plain, x, kernel)
    cotangent = normal(*out.shape)
    expected = pull(cotangent)
    np.testing.assert_allclose(convolution.convolution(x, kernel), out, atol=1e-5)
    if formulation == 'chosen':
        got = jax.jit(lambda *a: jax.vjp(convolution.convolution, x, kernel)[1](*a))(cotangent)
        np.testing.assert_allclose(got[0], expected[0], atol=1e-4)
        kernel_gradient = got[1]
    else:
        name = {'cpu': '_kernel_gradient_cpu', 'default': '_kernel_gradient'}[formulation]
        kernel_gradient = getattr(convolution, name)(x, cotangent, size=size)
    np.testing.assert_allclose(kernel_gradient, expected[1], atol=1e-4)


def test_max_pool_equals_flax():
    x = normal(2, 8, 6, 3)
    np.testing.assert_array_equal(
        convolution.max_pool(x, 2, 3), nn.max_pool(x, (2, 3), strides=(2, 3))
    )


def test_depth_to_space_inverts_space_to_depth():
    x = normal(2, 8, 6, 3)
    folded = convolution.space_to_depth(x, 2, 3)
    assert folded.shape == (2, 4, 2, 18)
    np.testing.assert_array_equal(folded[0, 1, 1].reshape(2, 3, 3), x[0, 2:4, 3:6])
    np.testing.assert_array_equal(convolution.depth_to_space(folded, 2, 3), x)


def test_batch_norm_uses_real_frames_only():
    x, length = normal(3, 7, 5, 4) * 2 + 1, np.array([7, 3, 1])
    mask = layers.frames_mask(jnp.asarray(length), 7)
    norm = layers.MaskedBatchNorm(momentum=0.0, epsilon=0.0)
    variables = norm.init(jax.random.key(0), x, mask, train=True)
    out, updated = norm.apply(variables, x, mask, train=True, mutable=['batch_stats'])
    real = np.asarray(x)[np.asarray(mask)].reshape(-1, 4)
    np.testing.assert_allclose(updated['batch_stats']['mean'], real.mean(0), atol=1e-5)
    np.testing.assert_allclose(updated['batch_stats']['var'], real.var(0), rtol=1e-4)
    np.testing.assert_allclose(
        np.asarray(out)[np.asarray(mask)].reshape(-1, 4),
        (real - real.mean(0)) / real.std(0),
        atol=1e-4,
    )
    # With momentum 0 the running statistics are the last batch's: evaluation gives the same.
    again = norm.apply({**variables, **updated}, x, mask, train=False)
    np.testing.assert_allclose(out, again, atol=1e-4)


def reference_lstm(x, kernel_in, kernel, bias):
    """One direction, one utterance, [T, D] -> [T, H], gate by gate in NumPy."""
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    cells = kernel.shape[0]
    hidden, cell, out = np.zeros(cells), np.zeros(cells), []
    for frame in x:
        gates = frame @ kernel_in + hidden @ kernel + bias
        write, keep, candidate, read = np.split(gates, 4)
        cell = sigmoid(keep) * cell + sigmoid(write) * np.tanh(candidate)
        hidden = sigmoid(read) * np.tanh(cell)
        out.append(hidden)
    return np.array(out)


def test_blstm_equals_a_plain_one_on_each_utterance_alone():
    x, length = normal(3, 7, 4), [7, 4, 1]
    blstm = recurrent.BLSTM(5)
    mask = layers.frames_mask(jnp.asarray(length), 7)
    variables = blstm.init(jax.random.key(0), x, mask)
    out = np.asarray(blstm.apply(variables, x, mask))
    p = jax.tree.map(np.asarray, variables['params'])
    for i, n in enumerate(length):
        real = np.asarray(x)[i, :n]
        forward = reference_lstm(real, p['kernel_in'][0], p['kernel'][0], p['bias'][0])
        backward = reference_lstm(real[::-1], p['kernel_in'][1], p['kernel'][1], p['bias'][1])[::-1]
        np.testing.assert_allclose(out[i, :n], np.concatenate([forward, backward], 1), atol=1e-5)
        assert not out[i, n:].any()


def test_grus_side_by_side_equal_flax():
    x, kernel_in, kernel = normal(2, 7, 4), normal(3, 4, 15), normal(3, 5, 15)
    bias_in, bias = normal(3, 15), normal(3, 5)
    gates_in = jnp.einsum('btd,edg->tebg', x, kernel_in) + bias_in[:, None]
    states = recurrent.gru(gates_in, kernel, bias)
    for i in range(3):
        cell = {}
        for gate, columns in zip('rzn', np.split(np.arange(15), 3)):
            cell[f'i{gate}'] = {'kernel': kernel_in[i][:, columns], 'bias': bias_in[i][columns]}
            cell[f'h{gate}'] = {'kernel': kernel[i][:, columns]}
        cell['hn']['bias'] = bias[i]
        expected = nn.RNN(nn.GRUCell(5)).apply({'params': {'cell': cell}}, x)
        np.testing.assert_allclose(states[:, i].transpose(1, 0, 2), expected, atol=1e-5)


def test_attention_pooling_ignores_padding_and_gives_mean_and_deviation():
    x, length = normal(2, 6, 3), jnp.array([6, 2])
    pool = layers.AttentionPooling(features=4)
    mask = layers.frames_mask(length, 6)
    variables = pool.init(jax.random.key(0), x, mask)
    pooled, weights = pool.apply(variables, x, mask)
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-6)
    assert not np.asarray(weights)[1, 2:].any()
    w, v = np.asarray(weights)[1, :2, None], np.asarray(x)[1, :2]
    mean = (w * v).sum(0)
    deviation = np.sqrt((w * (v - mean) ** 2).sum(0) + 1e-4)
    np.testing.assert_allclose(pooled[1], np.concatenate([mean, deviation]), atol=1e-5)


def test_dropout_keeps_the_mean_and_shares_its_draw():
    x = jnp.ones((8, 5, 6, 50))
    drop = layers.Dropout(0.25, shared=(1, 2))
    out = np.asarray(drop.apply({}, x, train=True, rngs={'dropout': jax.random.key(0)}))
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
    assert (out == out[:, :1, :1]).all(), 'whole maps'
    assert (out[0] != out[1]).any(), 'independent draws of the examples'
    assert abs(out.mean() - 1) < 0.15
    np.testing.assert_array_equal(drop.apply({}, x, train=False), x)


DEVICES = """
    import flax.linen as nn, jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, PartitionSpec as P
    from ser_jax.transforms import augment
    from ser_jax.models import convolution, layers

    class Net(nn.Module):
        axis_name: str | None
        @nn.compact
        def __call__(self, x, mask):
            x = layers.MaskedBatchNorm(axis_name=self.axis_name)(x, mask, train=True)
            return layers.Dropout(0.5, axis_name=self.axis_name)(x, train=True)

    rng = np.random.default_rng(0)
    batch = {
        'log_mel': jnp.asarray(rng.normal(-6, 2, (8, 40, 16)), jnp.float32),
        'length': jnp.asarray(rng.integers(12, 41, 8), jnp.int32),
        'emotion': jax.nn.one_hot(jnp.asarray([0, 1, 2, -1, 1, 0, 2, 1]), 3),
        'emotion_mask': jnp.arange(8) != 3,
    }
    operations = augment.parse_operations(
        ('speed(0.8, 1.25)', 'mixup(2.0)', 'spec_mask(1, 0.3, 0.3)', 'noise(0, 10)'))

    def step(axis_name, key, batch):
        out = augment.augment(
            key, batch, operations, frames=32, clean_share=0.1, axis_name=axis_name)
        mask = layers.frames_mask(out['length'], 32)
        net = Net(axis_name)
        variables = net.init({'params': key, 'dropout': key}, out['log_mel'], mask)
        y, updated = net.apply(
            variables, out['log_mel'], mask, rngs={'dropout': key}, mutable=['batch_stats'])
        return out, y, updated

    results = {}
    for n in (1, 2, 4):
        mesh = Mesh(np.array(jax.devices()[:n]), ('data',))
        sharded = jax.shard_map(
            lambda k, b: step('data', k, b), mesh=mesh, in_specs=(P(), P('data')),
            out_specs=(P('data'), P('data'), P()), check_vma=False)
        results[n] = jax.tree.map(np.asarray, jax.jit(sharded)(jax.random.key(3), batch))
    results[0] = jax.tree.map(np.asarray, jax.jit(lambda k, b: step(None, k, b))(
        jax.random.key(3), batch))
    assert 2 in results[1][0]['augmentation_type'], 'no mixup drawn: the test shows nothing'
    for n in (0, 2, 4):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), results[n], results[1])
    print('same')
"""


def test_norm_dropout_and_augmentation_are_the_same_on_1_2_and_4_devices():
    same_on_devices(DEVICES)
