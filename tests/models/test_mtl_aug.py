"""MTL-AUG: outputs, independent of padding and batch-mates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ser_jax.models import mtl_aug

FRAMES, BANDS = 61, 80
LENGTH = np.array([61, 40, 13, 2])


@pytest.fixture(scope='module')
def network():
    model = mtl_aug.Model(
        heads={'emotion': 4, 'augmentation_type': 5},
        channels=(8, 8, 8),
        frame_features=16,
        blstm_features=8,
        embedding_features=8,
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, FRAMES, BANDS)), jnp.float32)
    init = jax.jit(lambda key, x, length: model.init(key, x, length, train=False))
    variables = init(jax.random.key(0), x, jnp.asarray(LENGTH))
    _, updated = model.apply(
        variables,
        x,
        jnp.asarray(LENGTH),
        train=True,
        rngs={'dropout': jax.random.key(1)},
        mutable=['batch_stats'],
    )
    predict = jax.jit(
        lambda x, length: model.apply({**variables, **updated}, x, length, train=False)
    )
    return model, variables, predict, x


def test_outputs_have_the_stated_shapes(network):
    _, _, predict, x = network
    out = predict(x, LENGTH)
    assert {k: v.shape for k, v in out.items()} == {
        'emotion': (4, 4),
        'augmentation_type': (4, 5),
        'reconstruction': (4, FRAMES, BANDS),
        'embedding': (4, 8),
        'attention': (4, 16),
    }
    np.testing.assert_allclose(out['attention'].sum(1), 1.0, atol=1e-5)


def test_padding_changes_no_output(network):
    _, _, predict, x = network
    out = predict(x, LENGTH)
    padding = np.random.default_rng(1).normal(size=(4, FRAMES + 40, BANDS)).astype(np.float32) * 9
    for i, n in enumerate(LENGTH):
        padding[i, :n] = x[i, :n]
    padded = predict(padding, LENGTH)
    for name in ('emotion', 'augmentation_type', 'embedding'):
        np.testing.assert_allclose(out[name], padded[name], atol=1e-5)
    for i, n in enumerate(LENGTH):
        np.testing.assert_allclose(
            out['reconstruction'][i, :n], padded['reconstruction'][i, :n], atol=1e-5
        )
        steps = -(-n // 4)
        np.testing.assert_allclose(
            out['attention'][i, :steps], padded['attention'][i, :steps], atol=1e-5
        )


def test_padding_changes_no_batch_statistics(network):
    model, variables, _, x = network
    narrow = model.clone(dropout=0.0, map_dropout=0.0)
    wide = np.full((4, FRAMES + 7, BANDS), 50.0, np.float32)
    wide[:, :FRAMES] = x
    stats = [
        narrow.apply(variables, v, jnp.asarray(LENGTH), train=True, mutable=['batch_stats'])[1]
        for v in (x, wide)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *stats)


def test_batch_mates_change_no_output(network):
    _, _, predict, x = network
    together = predict(x, LENGTH)
    for i in range(4):
        alone = predict(x[i : i + 1], LENGTH[i : i + 1])
        for name in together:
            np.testing.assert_allclose(together[name][i], alone[name][0], atol=1e-5)


def test_every_real_frame_has_a_gradient(network):
    _, _, predict, x = network
    gradient = jax.grad(lambda x: predict(x, LENGTH)['emotion'][:, 0].sum())(x)
    largest = np.abs(gradient).max(-1)
    for i, n in enumerate(LENGTH):
        assert (largest[i, :n] > 0).all()
        assert not largest[i, n:].any()


def test_unused_decoder_and_heads_do_not_exist():
    model = mtl_aug.Model(heads={'emotion': 3}, reconstruction=False, channels=(4, 4, 4))
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, jnp.array([8]), train=False),
        jax.random.key(0),
        jnp.zeros((1, 8, BANDS)),
    )
    assert not [name for name in shapes['params'] if 'decoder' in name or 'type' in name]


def test_on_frames_the_logits_of_a_linear_probe_are_added():
    rng = np.random.default_rng(0)
    model = mtl_aug.Model(
        heads={'emotion': 3}, reconstruction=False, input='frames', blstm_features=0
    )
    length = np.array([7, 12], np.int32)
    x = rng.normal(size=(2, 12, 5)).astype(np.float32)
    x[0, 7:] = 99  # padding
    variables = model.init(jax.random.key(0), x, length, train=False)
    params, stats = variables['params'], variables['batch_stats']
    before = model.apply(variables, x, length, train=False)['emotion']
    kernel = rng.normal(size=(10, 3)).astype(np.float32)
    params = {**params, 'emotion_probe': {'kernel': kernel, 'bias': np.ones(3, np.float32)}}
    mean, var = rng.normal(size=10), rng.uniform(0.1, 2, size=10)
    stats = {**stats, 'statistics_norm': {'mean': mean, 'var': var}}
    variables = {'params': params, 'batch_stats': stats}
    after = model.apply(variables, x, length, train=False)['emotion']
    frames = [row[:size] for row, size in zip(x, length)]
    found = np.stack([np.concatenate([f.mean(0), f.std(0)]) for f in frames])
    expected = (found - mean) / np.sqrt(var + 1e-3) @ kernel + 1
    np.testing.assert_allclose(after - before, expected, atol=1e-4)
