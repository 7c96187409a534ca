"""End-to-end network: published sizes, equal to a plain one on each utterance alone, independent of padding."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import same_on_devices

from ser_jax.models import end_to_end

RNG = np.random.default_rng(0)
HEADS = {'arousal': 3, 'valence': 3, 'dominance': 1}
FRAME, HOP = 60, 16
SMALL = {
    'filters': 6,
    'width': 8,
    'pool_channels': 3,
    'frame_samples': FRAME,
    'hop_samples': HOP,
    'gru_features': 5,
}


def waveform(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def drawn(shapes):
    """Parameters of given shapes, none of them 0, so that a forgotten bias shows."""
    return jax.tree.map(lambda leaf: 0.3 * waveform(*leaf.shape), shapes)


def shapes_of(model, samples=200):
    x, length = jnp.zeros((1, samples)), jnp.full((1,), samples)
    init = functools.partial(model.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), x, length)['params']


def make(**changes):
    """A small network."""
    return end_to_end.Model(**{'heads': HEADS, **SMALL, **changes})


@functools.cache
def small(attention=True):
    """A small network and its variables."""
    model = make(attention=attention)
    return model, {'params': drawn(shapes_of(model))}


def apply(model, variables, x, length):
    return jax.jit(functools.partial(model.apply, train=False))(variables, x, jnp.array(length))


def convolve_plainly(x, kernel, bias):
    """[T, N, C] → [T, N, D] of the same length, by definition."""
    width = len(kernel)
    padded = np.pad(x, ((0, 0), ((width - 1) // 2, width // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)
    return np.maximum(np.einsum('tncw,wcd->tnd', windows, kernel) + bias, 0)


def run_gru_plainly(params, x):
    """One layer, [T, D] → [T, H], gate by gate in NumPy."""
    sigmoid = lambda v: 1 / (1 + np.exp(-v))
    hidden, states = np.zeros(len(params['bias'])), []
    for row in x @ params['kernel_in'] + params['bias_in']:
        reset_in, update_in, candidate_in = np.split(row, 3)
        reset, update, candidate = np.split(hidden @ params['kernel'], 3)
        update = sigmoid(update_in + update)
        reset = sigmoid(reset_in + reset)
        new = np.tanh(candidate_in + reset * (candidate + params['bias']))
        hidden = update * hidden + (1 - update) * new
        states.append(hidden)
    return np.array(states)


def run_plainly(params, x, attention):
    """The small network on one utterance without padding: outputs and weights of every head."""
    x = np.pad(x, (0, max(0, FRAME - len(x))))
    frames = np.lib.stride_tricks.sliding_window_view(x, FRAME)[::HOP]
    encoder = params['encoder']
    y = convolve_plainly(frames[..., None], encoder['kernel_1'], encoder['bias_1'])
    y = y.reshape(len(y), FRAME // 2, 2, -1).max(2)
    y = convolve_plainly(y, encoder['kernel_2'], encoder['bias_2'])
    neighbours = y.reshape(*y.shape[:2], -1, SMALL['pool_channels'])
    encoded = neighbours.max(-1).reshape(len(y), -1)
    outputs, weights = {}, {}
    for task in HEADS:
        states = encoded
        for layer in range(2):
            states = run_gru_plainly(params[f'{task}_gru_{layer}'], states)
        weights[task] = np.eye(len(states))[-1]
        if attention:
            scores = np.exp(states @ params[f'{task}_score']['kernel'][:, 0])
            weights[task] = scores / scores.sum()
        head = params[f'{task}_head']
        outputs[task] = weights[task] @ states @ head['kernel'] + head['bias']
    return outputs, weights


def test_sizes_are_the_published_ones():
    # Flax's GRU has one bias where PyTorch's and cuDNN's have two: 641,027 of the latter a task.
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    model = end_to_end.Model(heads=dict.fromkeys(HEADS, 3))
    params = shapes_of(model)
    assert count(params['encoder']) == 65_680
    for task in HEADS:
        own = {name: leaf for name, leaf in params.items() if name.startswith(f'{task}_')}
        assert count(own) == 640_515
    assert count(params) == 65_680 + 3 * 640_515


@pytest.mark.parametrize(('width', 'frame', 'hop'), [(40, 640, 160), (8, 60, 16), (5, 30, 40)])
def test_sharing_between_frames_changes_nothing(width, frame, hop):
    encoder = end_to_end.FrameEncoder(
        filters=6, width=width, pool_channels=3, frame_samples=frame, hop_samples=hop
    )
    x = waveform(2, frame + 4 * hop)
    params = drawn(jax.eval_shape(encoder.init, jax.random.key(0), x)['params'])
    convolution = nn.Conv(6, (width,))

    def encode_plainly(params, x):
        y = jnp.stack([x[:, i * hop : i * hop + frame] for i in range(5)], 1)[..., None]
        layers = [{'kernel': params[f'kernel_{i}'], 'bias': params[f'bias_{i}']} for i in (1, 2)]
        y = nn.relu(convolution.apply({'params': layers[0]}, y))
        y = nn.max_pool(y.reshape(10, frame, 6), (2,), strides=(2,))
        y = nn.relu(convolution.apply({'params': layers[1]}, y))
        return jnp.stack([y[..., :3].max(-1), y[..., 3:].max(-1)], -1).reshape(2, 5, -1)

    def both(function, cotangent):
        out, pull = jax.vjp(function, params, x)
        return out, *pull(cotangent)

    cotangent = waveform(2, 5, frame)
    encode = lambda params, x: encoder.apply({'params': params}, x)
    got, expected = (
        jax.jit(functools.partial(both, f))(cotangent) for f in (encode, encode_plainly)
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6 * float(jnp.abs(b).max())),
        got,
        expected,
    )


@pytest.mark.parametrize('attention', [True, False])
def test_a_padded_batch_equals_a_plain_network_on_each_utterance_alone(attention):
    model, variables = small(attention)
    x, lengths = waveform(5, 200), [200, 10, FRAME, FRAME + HOP - 1, FRAME + HOP]
    outputs = apply(model, variables, x, lengths)
    params = jax.tree.map(np.asarray, variables['params'])
    for i, length in enumerate(lengths):
        expected, weights = run_plainly(params, np.asarray(x)[i, :length], attention)
        frames = 1 + (max(length, FRAME) - FRAME) // HOP
        for task, outs in HEADS.items():
            assert outputs[task].shape == (5, outs)
            np.testing.assert_allclose(outputs[task][i], expected[task], atol=1e-5)
            got = np.asarray(outputs['attention'][task][i])
            np.testing.assert_allclose(got[:frames], weights[task], atol=1e-6)
            assert not got[frames:].any()


@pytest.mark.parametrize('samples', [1, FRAME - 1, FRAME, FRAME + HOP - 1, FRAME + HOP, 201])
def test_frames_follow_from_samples(samples):
    model, variables = small()
    run = functools.partial(model.apply, train=False)
    shapes = jax.eval_shape(run, variables, jnp.zeros((2, samples)), jnp.array([samples] * 2))
    frames = 1 + (max(samples, FRAME) - FRAME) // HOP
    assert {weights.shape for weights in shapes['attention'].values()} == {(2, frames)}


def test_padding_changes_neither_outputs_nor_gradients():
    model, variables = small()
    x, length = waveform(3, 200), jnp.array([200, 130, 20])
    garbage = jnp.full((3, 77), jnp.nan)
    dirty = jnp.where(jnp.arange(200) < length[:, None], x, jnp.inf)

    @jax.jit
    def run(params, x):
        outputs = model.apply({'params': params}, x, length, train=False)
        return sum(jnp.sin(outputs[task]).sum() for task in HEADS), outputs

    gradient = jax.value_and_grad(run, argnums=(0, 1), has_aux=True)
    (_, outputs), (by_params, by_x) = gradient(variables['params'], x)
    (_, padded_outputs), (padded_by_params, padded_by_x) = gradient(
        variables['params'], jnp.concatenate([dirty, garbage], axis=1)
    )
    for row, n in zip(np.asarray(padded_by_x), length):
        assert not row[n:].any()
    for task in HEADS:
        np.testing.assert_allclose(padded_outputs[task], outputs[task], atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
        (padded_by_params, padded_by_x[:, :200]),
        (by_params, by_x),
    )


def test_batch_mates_change_nothing():
    model, variables = small()
    x, length = waveform(4, 200), [200, 130, 20, 90]
    together = apply(model, variables, x, length)
    others = apply(model, variables, jnp.concatenate([x[:1], 9 * x[1:]]), [200, 60, 200, 1])
    alone = apply(model, variables, x[:1], length[:1])
    for got in (others, alone):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b[0], atol=1e-6), got, together)


def test_one_task_alone_is_the_same_network():
    model, variables = small()
    single = make(heads={'valence': HEADS['valence']})
    own = {'params': {name: variables['params'][name] for name in shapes_of(single)}}
    x, length = waveform(2, 150), [150, 100]
    expected, got = apply(model, variables, x, length), apply(single, own, x, length)
    for a, b in ((got, expected), (got['attention'], expected['attention'])):
        np.testing.assert_allclose(a['valence'], b['valence'], atol=1e-6)


def test_a_task_trains_its_own_branch_and_the_encoder_only():
    model, variables = small()
    x, length = waveform(2, 150), jnp.array([150, 100])
    loss = lambda params: model.apply({'params': params}, x, length, train=False)['valence'].sum()
    gradients = jax.jit(jax.grad(loss))(variables['params'])
    moved = {name for name, leaf in gradients.items() if any(map(jnp.any, jax.tree.leaves(leaf)))}
    own = {'valence_gru_0', 'valence_gru_1', 'valence_score', 'valence_head'}
    assert moved == own | {'encoder'}


def test_without_attention_there_are_no_score_parameters():
    with_scores, without = (set(small(attention)[1]['params']) for attention in (True, False))
    assert with_scores - without == {f'{task}_score' for task in HEADS}


@pytest.mark.parametrize(
    'change',
    [('reconstruction', True), ('hop_samples', 15), ('frame_samples', 61), ('frame_samples', 20)],
)
def test_invalid_attributes_are_refused(change):
    with pytest.raises(ValueError, match='must be'):
        shapes_of(make(**dict([change])))


DEVICES = """
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, PartitionSpec as P
    from ser_jax.models.end_to_end import Model

    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(8, 100)), jnp.float32)
    length = jnp.asarray(rng.integers(10, 101, 8), jnp.int32)
    make = lambda axis_name: Model(
        {'a': 3}, filters=4, width=5, pool_channels=2, frame_samples=40, hop_samples=10,
        gru_features=4, gru_layers=1, dropout=0.5, axis_name=axis_name)
    init = jax.jit(lambda *a: make(None).init(*a, train=False)['params'])
    params = init(jax.random.key(0), x, length)

    def step(axis_name, params, key, x, length):
        def loss(params):
            rngs = {'dropout': key}
            out = make(axis_name).apply({'params': params}, x, length, train=True, rngs=rngs)['a']
            return jnp.sum(out**2), out

        gradients, out = jax.grad(loss, has_aux=True)(params)
        return (gradients if axis_name is None else jax.lax.psum(gradients, axis_name)), out

    one = jax.jit(lambda *a: step(None, *a))
    expected, other = (one(params, jax.random.key(seed), x, length) for seed in (1, 2))
    assert abs(expected[1] - other[1]).max() > 1e-3, 'no dropout'
    for n in (2, 4):
        sharded = jax.shard_map(
            lambda *a: step('data', *a), mesh=Mesh(np.array(jax.devices()[:n]), ('data',)),
            in_specs=(P(), P(), P('data'), P('data')), out_specs=(P(), P('data')), check_vma=False)
        got = jax.jit(sharded)(params, jax.random.key(1), x, length)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)
    print('same')
"""


def test_dropout_and_gradients_are_the_same_on_1_2_and_4_devices():
    same_on_devices(DEVICES)
