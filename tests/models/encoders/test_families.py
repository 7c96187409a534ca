"""The encoders without a reference: padding, devices, options, gradients, Whisper's log-mel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import same_on_devices
from flax import traverse_util

from ser_jax.models.encoders.wav2vec2 import Wav2Vec2
from ser_jax.models.encoders.whisper import Whisper, log_mel
from ser_jax.runtime.errors import UserError

SIZES = {'width': 32, 'layers': 2, 'heads': 4, 'hidden': 64}
_SMALL = {'conv_dim': (16,) * 7}
VARIANTS = {
    'whisper': (Whisper, {}),
    'base': (Wav2Vec2, _SMALL),
    'large': (
        Wav2Vec2,
        _SMALL | {'group_norm': False, 'conv_bias': True, 'pre_norm': True},
    ),
    'wavlm': (Wav2Vec2, _SMALL | {'buckets': 320}),
}


@pytest.fixture(params=VARIANTS)
def make(request):
    """Makes the encoder of a variant; options as in `load_encoder`."""
    family, settings = VARIANTS[request.param]
    return lambda **options: family(**SIZES, **settings, **options)


def _speechlike(samples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    envelope = np.repeat(rng.uniform(0, 0.3, samples // 800 + 1), 800)[:samples]
    return (envelope * rng.standard_normal(samples)).astype(np.float32)


def _batch(*lengths: int, garbage: float = np.nan) -> tuple[np.ndarray, np.ndarray]:
    waveform = np.full((len(lengths), max(lengths) + 700), garbage, np.float32)
    for row, length in enumerate(lengths):
        waveform[row, :length] = _speechlike(length, row)
    return waveform, np.array(lengths, np.int32)


def _random(module) -> dict:
    """Random parameters, of norms and biases too."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 800)), jnp.array([800]))
    leaves, tree = jax.tree.flatten(shapes['params'])
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal(leaf.shape) / np.sqrt(leaf.shape[0] if leaf.ndim > 1 else 1)
        for leaf in leaves
    ]
    return jax.tree.unflatten(tree, [np.asarray(array, np.float32) for array in arrays])


def test_log_mel_of_a_batch_is_whispers():
    """In float64, by the definition of the paper's code."""
    import librosa

    waveform, samples = _batch(400, 16001, 9000, garbage=0.0)
    ours = log_mel(jnp.asarray(waveform), jnp.asarray(samples), 80)
    mel = librosa.filters.mel(sr=16000, n_fft=400, n_mels=80, dtype=np.float64)
    for row, length in enumerate(samples):
        frames = -(-length // 160)
        signal = np.pad(waveform[row, :length].astype(np.float64), (0, 500))
        power = np.abs(librosa.stft(signal, n_fft=400, hop_length=160, pad_mode='reflect')) ** 2
        log = np.log10(np.maximum(mel @ power[:, :frames], 1e-10))
        expected = (np.maximum(log, log.max() - 8) + 4) / 4
        np.testing.assert_allclose(ours[row, :frames], expected.T, atol=3e-5)
        assert not ours[row, frames:].any()


def test_padding_changes_no_output(make):
    module = make()
    params = _random(module)
    waveform, samples = _batch(400, 16001, 9000)
    apply = jax.jit(module.apply)
    states, mask = apply({'params': params}, waveform, samples)
    assert len(states) == module.outputs
    for row, length in enumerate(samples.tolist()):
        alone, _ = apply({'params': params}, waveform[row : row + 1, :length], samples[[row]])
        frames = module.frames(length)
        assert mask[row].sum() == frames == alone[0].shape[1]
        for state, expected in zip(states, alone):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(state[row, :frames] / scale, expected[0] / scale, atol=5e-6)
            assert not state[row, frames:].any()


def test_rematerialisation_computes_the_same_gradient(make):
    params = _random(make())
    waveform, samples = _batch(4000, 5000, garbage=0.0)

    def gradient(module):
        loss = lambda p: sum(
            jnp.sum(x**3) for x in module.apply({'params': p}, waveform, samples)[0]
        )
        return jax.jit(jax.grad(loss))(params)

    plain, recomputed = gradient(make()), gradient(make(remat=True))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain))
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), plain, recomputed)
    assert max(jax.tree.leaves(difference)) < 1e-5 * largest


def test_lora_starts_as_identity_and_learns(make):
    """Two steps on the low-rank parameters alone lower a loss."""
    plain, module = make(), make(lora_rank=2)
    waveform, samples = _batch(4000, 5000, garbage=0.0)
    params = jax.jit(module.init)(jax.random.key(1), waveform, samples)['params']
    flat = traverse_util.flatten_dict(params)
    low_rank = {path: leaf for path, leaf in flat.items() if path[-1].startswith('lora_')}
    assert {path[-2] for path in low_rank} == {'query', 'value'}
    rest = {path: leaf for path, leaf in flat.items() if path not in low_rank}
    expected = jax.jit(plain.apply)(
        {'params': traverse_util.unflatten_dict(rest)}, waveform, samples
    )[0]

    @jax.jit
    def outputs(low_rank):
        params = traverse_util.unflatten_dict({**rest, **low_rank})
        return module.apply({'params': params}, waveform, samples)[0]

    for state, other in zip(outputs(low_rank), expected):
        np.testing.assert_allclose(state, other, atol=1e-5)
    target = jax.random.normal(jax.random.key(2), expected[-1].shape)
    loss = lambda low_rank: jnp.mean((outputs(low_rank)[-1] - target) ** 2)
    losses = [loss(low_rank)]
    for _ in range(2):
        gradient = jax.grad(loss)(low_rank)
        low_rank = jax.tree.map(lambda p, g: p - 0.3 * g, low_rank, gradient)
        losses.append(loss(low_rank))
    assert losses[0] > losses[1] > losses[2]


def test_bfloat16_is_within_its_precision(make):
    params = _random(make())
    waveform, samples = _batch(16000, 5000, garbage=0.0)
    states = lambda module: jax.jit(module.apply)({'params': params}, waveform, samples)[0]
    for state, expected in zip(states(make(dtype='bfloat16')), states(make())):
        assert state.dtype == jnp.float32
        error = np.linalg.norm(state - expected) / np.linalg.norm(expected)
        assert 1e-4 < error < 5e-2  # 2^-9 a rounding


def test_gradient_reaches_the_waveform(make):
    module = make()
    params = _random(module)
    waveform, samples = _batch(4000, 8000, garbage=0.0)
    loss = lambda x: jnp.sum(module.apply({'params': params}, x, samples)[0][-1] ** 3)
    gradient = jax.jit(jax.grad(loss))(jnp.asarray(waveform))
    assert np.isfinite(gradient).all()
    assert np.mean(np.abs(gradient[1, :7900]) > 0) > 0.9
    assert not gradient[0, 4000:].any()


@pytest.mark.parametrize('variant', VARIANTS)
def test_devices_agree(variant):
    family, settings = VARIANTS[variant]
    same_on_devices(
        f"""
        import jax, numpy as np
        from {family.__module__} import {family.__name__}
        from ser_jax.runtime import devices

        module = {family.__name__}(**{SIZES | settings})
        rng = np.random.default_rng(0)
        batch = {{
            'x': rng.normal(0, 0.1, (8, 8000)).astype(np.float32),
            'samples': rng.integers(400, 8001, 8).astype(np.int32),
        }}
        params = jax.jit(module.init)(jax.random.key(0), batch['x'], batch['samples'])['params']
        apply = lambda p, b: module.apply({{'params': p}}, b['x'], b['samples'])[0]
        expected = jax.jit(apply)(params, batch)
        scale = max(float(abs(e).max()) for e in expected)
        for count in (1, 2, 4, 8):
            mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), ('data',))
            step = devices.DataParallel(mesh).compile(apply, returns_rows=True)
            ours = step(devices.replicate(params, mesh), devices.to_devices(batch, mesh))
            assert all(abs(np.asarray(o) - np.asarray(e)).max() < 1e-5 * scale for o, e in zip(ours, expected))
        print('same')
        """,
        devices=8,
    )


@pytest.mark.parametrize(
    ('name', 'value'), [('activation_function', 'relu'), ('scale_embedding', True)]
)
def test_unsupported_switches_are_refused_by_name(name, value):
    config = {'d_model': 8, 'encoder_layers': 1, 'encoder_attention_heads': 1, 'encoder_ffn_dim': 8}
    with pytest.raises(UserError, match=name):
        Whisper.from_config({**config, name: value}, None)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('hidden_act', 'relu'),
        ('feat_extract_activation', 'relu'),
        ('add_adapter', True),
        ('conv_pos_batch_norm', True),
        ('adapter_attn_dim', 16),
        ('position_embeddings_type', 'rotary'),
    ],
)
def test_unsupported_switches_of_wav2vec2_are_refused_by_name(name, value):
    config = {
        'model_type': 'wav2vec2',
        'hidden_size': 16,
        'num_hidden_layers': 1,
        'num_attention_heads': 1,
        'intermediate_size': 16,
        'num_conv_pos_embeddings': 128,
        'num_conv_pos_embedding_groups': 16,
        'conv_dim': [16] * 7,
        'conv_kernel': [10, 3, 3, 3, 3, 2, 2],
        'conv_stride': [5, 2, 2, 2, 2, 2, 2],
        'feat_extract_norm': 'group',
        'do_stable_layer_norm': False,
        'conv_bias': False,
    }
    assert Wav2Vec2.from_config(config, {'do_normalize': True}).outputs == 2
    with pytest.raises(UserError, match=name):
        Wav2Vec2.from_config(config | {name: value}, {'do_normalize': True})
