"""Weights of encoders: every format gives the same parameters, and what is wrong with a folder is one line that names it."""

import copy
import hashlib
import json
import os
import re
import tracemalloc

import flax
import jax
import numpy as np
import pytest
from conftest import ROOT
from encoder_folders import (
    CONFIG,
    ctranslate2,
    ctranslate2_variables,
    module,
    raw_safetensors,
    tensors,
    write_ctranslate2,
    write_json,
    write_sharded,
    write_single,
)

from ser_jax.models.encoders.weights import (
    encoder_class,
    fingerprint,
    parameters,
    read_checkpoint,
)
from ser_jax.runtime.errors import UserError

DECODER = {
    'model.decoder.layers.0.fc1.weight': np.ones((3, 3), np.int8),
    'proj_out.weight': np.ones(2, np.float32),
}
TINY_EN = '85cb73fec32ba3b719de299003b8fa3fd210ee31bd5c024927a0b8c48752e269'
FORMATS = {
    'single': write_single,
    'sharded': write_sharded,
    'ctranslate2': write_ctranslate2,
    'whole model': lambda folder, content: write_single(folder, content, others=DECODER),
    'WhisperModel': lambda folder, content: write_single(folder, content, prefix='encoder.'),
    'bare encoder': lambda folder, content: write_single(folder, content, prefix=''),
    'whole model, sharded': lambda folder, content: write_sharded(folder, content, others=DECODER),
}


def refusal(function, *arguments):
    """The line with which a function refuses its arguments."""
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert '\n' not in str(error.value)
    assert len(str(error.value)) < 700
    return str(error.value)


def load(folder):
    """The parameters of a folder."""
    checkpoint = read_checkpoint(folder)
    return parameters(module(checkpoint.config), checkpoint)


@pytest.mark.parametrize('form', FORMATS)
def test_formats_agree(form, tmp_path):
    content = tensors()
    checkpoint = read_checkpoint(FORMATS[form](tmp_path / 'weights', content))
    assert {name: checkpoint.config[name] for name in CONFIG} == CONFIG
    assert checkpoint.tensors.keys() == content.keys()
    for name, value in content.items():
        np.testing.assert_array_equal(checkpoint.tensors[name], value)
        assert checkpoint.tensors[name].dtype == np.float16
    params = parameters(module(checkpoint.config), checkpoint)
    kernel = params['layer_1']['attention']['value']['kernel']
    np.testing.assert_array_equal(kernel, content['layers.1.self_attn.v_proj.weight'].T)
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(
        params['conv1']['kernel'][2, 79], content['conv1.weight'][:, 79, 2]
    )
    np.testing.assert_array_equal(params['positions'], content['embed_positions.weight'])
    assert fingerprint(params) == fingerprint(load(write_single(tmp_path / 'other', content)))


@pytest.mark.parametrize(('dtype', 'stored'), [('F64', '<f8'), ('F32', '<f4'), ('BF16', '<u2')])
def test_types(dtype, stored, tmp_path):
    content = tensors(dtype=np.float16)
    header, data = {}, b''
    for name, value in content.items():
        if dtype == 'BF16':
            value = value.astype(np.float32).view(np.uint32) >> 16
            content[name] = (value << 16).view(np.float32)
        begin, data = len(data), data + value.astype(stored).tobytes()
        header[name] = {'dtype': dtype, 'shape': value.shape, 'data_offsets': [begin, len(data)]}
    write_json(tmp_path / 'config.json', CONFIG)
    (tmp_path / 'model.safetensors').write_bytes(raw_safetensors(header, data))
    for name, value in read_checkpoint(tmp_path).tensors.items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, content[name])


def test_ctranslate2_aliases(tmp_path):
    """Variables of equal values are stored once, wherever they are."""
    content = tensors()
    for name in ('layer_norm.weight', 'layers.1.final_layer_norm.weight'):
        content[name] = np.ones_like(content[name])
    variables = ctranslate2_variables(content)
    variables['decoder/layer_norm/gamma'] = content['layer_norm.weight']
    aliases = [
        (name, 'decoder/layer_norm/gamma')
        for name in ('encoder/layer_norm/gamma', 'encoder/layer_1/ffn/layer_norm/gamma')
    ]
    for alias, _ in aliases:
        del variables[alias]
    (tmp_path / 'model.bin').write_bytes(ctranslate2(variables, aliases))
    found = read_checkpoint(tmp_path).tensors
    assert found.keys() == content.keys()
    for name, value in content.items():
        np.testing.assert_array_equal(found[name], value)


def test_the_decoder_is_not_read(tmp_path):
    content = tensors()
    folder = write_single(tmp_path, content)
    path = folder / 'model.safetensors'
    size = int.from_bytes(path.read_bytes()[:8], 'little')
    header = json.loads(path.read_bytes()[8 : 8 + size])
    data = path.read_bytes()[8 + size :]
    end = len(data) + (1 << 28)  # a hole: no disk is used
    header['model.decoder.embed_tokens.weight'] = {
        'dtype': 'F32',
        'shape': [1 << 26],
        'data_offsets': [len(data), end],
    }
    path.write_bytes(raw_safetensors(header, data))
    with path.open('r+b') as file:
        file.truncate(path.stat().st_size - len(data) + end)
    tracemalloc.start()
    assert read_checkpoint(folder).tensors.keys() == content.keys()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e7


def test_the_preprocessor_is_kept(tmp_path):
    folder = write_single(tmp_path, tensors())
    assert read_checkpoint(folder).preprocessor is None
    write_json(folder / 'preprocessor_config.json', {'do_normalize': True, 'sampling_rate': 16000})
    assert read_checkpoint(folder).preprocessor == {'do_normalize': True, 'sampling_rate': 16000}


def test_low_rank_updates_are_initialised_always_alike(tmp_path):
    checkpoint = read_checkpoint(write_single(tmp_path, tensors()))
    plain = parameters(module(), checkpoint)
    first, second = (parameters(module(lora_rank=3), checkpoint) for _ in range(2))
    query = first['layer_0']['attention']['query']
    assert query['lora_a'].shape == (8, 3)
    assert np.std(query['lora_a']) > 0.1
    assert not np.any(query['lora_b'])
    assert np.any(query['lora_a'] != first['layer_1']['attention']['query']['lora_a'])
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert fingerprint(first) == fingerprint(plain)
    leaves = flax.traverse_util.flatten_dict(first)
    assert all(
        isinstance(leaf, np.ndarray) and leaf.dtype == np.float32 for leaf in leaves.values()
    )


def test_fingerprint():
    params = {
        'b': {'kernel': np.array([[1, -0.0], [70000, 1e-9]], np.float32)},
        'a': {'attention': {'key': {'kernel': np.ones((1, 1)), 'bias': np.ones(1)}}},
        'a b': {'query': {'bias': np.array([0.1], np.float32), 'lora_a': np.ones((1, 2))}},
    }
    expected = hashlib.sha256(
        b'a b/query/bias [1]\n\x66\x2e'
        b'a/attention/key/kernel [1, 1]\n\x00\x3c'
        b'b/kernel [2, 2]\n\x00\x3c\x00\x00\x00\x7c\x00\x00'
    ).hexdigest()
    assert fingerprint(params) == expected
    other = copy.deepcopy(params)
    other['a']['attention']['key']['bias'][0] = 2
    other['b']['kernel'][0, 1] = 0
    other['a b']['query']['bias'] = other['a b']['query']['bias'].astype(np.float16)
    assert fingerprint(other) == expected
    other['b']['kernel'] = other['b']['kernel'].T
    assert fingerprint(other) != expected


def test_real_weights_of_whisper_tiny_en(tmp_path):
    folder = os.environ.get('SER_JAX_ENCODER')
    if not folder:
        pytest.skip('SER_JAX_ENCODER names no folder with Whisper tiny.en')
    checkpoint = read_checkpoint(folder)
    if checkpoint.config.get('vocab_size') != 51864 or checkpoint.config.get('d_model') != 384:
        pytest.skip('SER_JAX_ENCODER is not Whisper tiny.en')
    params = parameters(module(checkpoint.config), checkpoint)
    assert fingerprint(params) == TINY_EN


WHISPER = {
    'd_model': 8,
    'encoder_layers': 2,
    'encoder_attention_heads': 2,
    'encoder_ffn_dim': 12,
    'decoder_layers': 1,
    'decoder_attention_heads': 2,
    'decoder_ffn_dim': 12,
    'max_source_positions': 50,
    'vocab_size': 20,
    **dict.fromkeys(['pad_token_id', 'bos_token_id', 'eos_token_id', 'decoder_start_token_id'], 1),
}
WAV2VEC2 = {
    'hidden_size': 16,
    'num_hidden_layers': 2,
    'num_attention_heads': 2,
    'intermediate_size': 12,
    'conv_dim': [4] * 7,
    'num_conv_pos_embeddings': 8,
    'num_conv_pos_embedding_groups': 4,
    'classifier_proj_size': 4,
    'vocab_size': 20,
}
LARGE = {'feat_extract_norm': 'layer', 'do_stable_layer_norm': True, 'conv_bias': True}


@pytest.mark.parametrize('max_shard_size', ['1GB', '3kB'], ids=['single', 'sharded'])
@pytest.mark.parametrize(
    ('name', 'sizes', 'encoder'),
    [
        ('WhisperForConditionalGeneration', WHISPER, 'model.encoder.'),
        ('WhisperForAudioClassification', WHISPER, 'encoder.'),
        ('WhisperModel', WHISPER, 'encoder.'),
        ('Wav2Vec2Model', WAV2VEC2, ''),
        ('Wav2Vec2Model', WAV2VEC2 | LARGE, ''),
        ('Wav2Vec2ForPreTraining', WAV2VEC2, 'wav2vec2.'),
        ('Wav2Vec2ForSequenceClassification', WAV2VEC2 | {'use_weighted_layer_sum': True}, 'wav2vec2.'),
        ('Wav2Vec2ForCTC', WAV2VEC2 | LARGE, 'wav2vec2.'),
        ('HubertModel', WAV2VEC2, ''),
        ('HubertForCTC', WAV2VEC2 | LARGE, 'hubert.'),
        ('WavLMModel', WAV2VEC2, ''),
        ('WavLMForSequenceClassification', WAV2VEC2 | LARGE, 'wavlm.'),
    ],
)  # fmt: skip
def test_models_saved_by_transformers(name, sizes, encoder, max_shard_size, tmp_path):
    transformers = pytest.importorskip('transformers', reason='needs the extra [parity]')
    if not name.startswith('Whisper'):
        pytest.importorskip('ser_jax.models.encoders.wav2vec2', reason='wav2vec 2.0 is not there')
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**sizes))
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    assert (tmp_path / 'model.safetensors').exists() == (max_shard_size == '1GB')
    checkpoint = read_checkpoint(tmp_path)
    family = encoder_class(checkpoint.config['model_type'])
    params = parameters(family.from_config(checkpoint.config, {'do_normalize': True}), checkpoint)
    old = lambda name: name.replace('parametrizations.weight.original0', 'weight_g').replace(
        'parametrizations.weight.original1', 'weight_v'
    )
    saved = {
        old(full.removeprefix(encoder)): value.numpy()
        for full, value in model.state_dict().items()
        if full.startswith(encoder) and 'decoder' not in full and 'masked_spec' not in full
    }
    assert checkpoint.tensors.keys() == saved.keys()
    for full, value in saved.items():
        np.testing.assert_array_equal(checkpoint.tensors[full], value)
    assert len(flax.traverse_util.flatten_dict(params)) == len(saved)


def test_the_example_in_the_docs(tmp_path, monkeypatch):
    page = (ROOT / 'docs' / 'encoders.md').read_text(encoding='utf-8')
    monkeypatch.setenv('SER_JAX_ENCODER', str(write_single(tmp_path, tensors())))
    names = {'waveform': np.ones(800, np.float32)}
    exec(re.search(r'```python\n(.*?)```', page, re.DOTALL)[1], names)
    assert np.shape(names['frames'][0]) == (2, 3, CONFIG['d_model'])  # layers, frames, width
    assert TINY_EN in page


# What is refused.


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model_type': None}, 'lacks model_type'),
        ({'model_type': 'bert'}, "model_type is 'bert': supported are whisper, wav2vec2, hubert, wavlm"),
        ({'model_type': ['whisper']}, 'supported are whisper'),
        ({'d_model': None}, 'lacks d_model'),
        ({'d_model': '8'}, 'd_model is "8", not an integer from 1'),
        ({'d_model': True}, 'd_model is true'),
        ({'d_model': 8.0}, 'd_model is 8.0'),
        ({'d_model': 10**9}, 'd_model is 1000000000'),
        ({'encoder_layers': 10**6}, 'not an integer from 1 to 256'),
        ({'encoder_layers': 0}, 'encoder_layers is 0'),
        ({'encoder_ffn_dim': -1}, 'encoder_ffn_dim is -1'),
        ({'encoder_attention_heads': 3}, 'encoder_attention_heads is 3, which does not divide d_model 8'),
        ({'num_mel_bins': 10**4}, 'num_mel_bins is 10000'),
        ({'max_source_positions': []}, 'max_source_positions is []'),
    ],
)  # fmt: skip
def test_wrong_configs(change, message, tmp_path):
    folder = write_single(tmp_path, tensors())
    config = {name: value for name, value in (CONFIG | change).items() if value is not None}
    write_json(folder / 'config.json', config)
    line = refusal(read_checkpoint, folder)
    assert message in line
    assert str(folder / 'config.json') in line


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'sampling_rate': 8000}, 'sampling_rate is 8000; only 16000'),
        ({'do_normalize': 'yes'}, 'do_normalize is "yes"'),
    ],
)
def test_wrong_preprocessors(change, message, tmp_path):
    folder = write_single(tmp_path, tensors())
    write_json(folder / 'preprocessor_config.json', change)
    line = refusal(read_checkpoint, folder)
    assert message in line
    assert 'preprocessor_config.json' in line


@pytest.mark.parametrize('file', ['config.json', 'model.safetensors.index.json'])
@pytest.mark.parametrize(
    'content', [b'', b'{', b'[1]', b'\xff\xfe', b'[' * 10**5, b'{"a": ' * 10**5, b'1' * 5000, b'{"a":' + b' ' * (1 << 22)]
)  # fmt: skip
def test_damaged_json(file, content, tmp_path):
    folder = write_sharded(tmp_path, tensors())
    (folder / file).write_bytes(content)
    line = refusal(read_checkpoint, folder)
    assert str(folder / file) in line
    assert 'damaged' in line


def test_missing_files(tmp_path):
    assert f'cannot read the folder {tmp_path / "none"}' in refusal(
        read_checkpoint, tmp_path / 'none'
    )
    assert 'gs' in refusal(read_checkpoint, 'gs://bucket/folder')
    assert f'{tmp_path} holds no weights' in refusal(read_checkpoint, tmp_path)
    for name in ('pytorch_model.bin', 'pytorch_model-00001-of-00002.bin'):
        (tmp_path / name).touch()
        command = f'python -m ser_jax.models.encoders.convert {tmp_path} OUT'
        assert command in refusal(read_checkpoint, tmp_path)
        (tmp_path / name).unlink()
    write_single(tmp_path, tensors())
    (tmp_path / 'config.json').unlink()
    assert f'{tmp_path / "config.json"} is missing' in refusal(read_checkpoint, tmp_path)


def test_folders_in_place_of_files(tmp_path):
    for name in ('config.json', 'model.safetensors'):
        folder = write_single(tmp_path / name, tensors())
        (folder / name).unlink()
        (folder / name).mkdir()
        assert str(folder / name) in refusal(read_checkpoint, folder)


@pytest.mark.parametrize('name', ['model.safetensors', 'model.bin'])
def test_what_is_no_weights(name, tmp_path):
    write = {'model.safetensors': write_single, 'model.bin': write_ctranslate2}[name]
    folder = write(tmp_path, tensors())
    whole = (folder / name).read_bytes()
    pointer = b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n'
    for content, message in {
        b'': 'damaged, incomplete or of another kind',
        b'<!doctype html><html>': 'damaged',
        b'PK\x03\x04' + bytes(100): 'damaged',
        bytes(100): 'version 0' if name == 'model.bin' else 'damaged',
        whole[:9]: 'damaged',
        whole[: len(whole) // 2]: 'damaged',
        whole[:-1]: 'damaged',
        whole + b'\0': 'damaged',
        pointer: 'is a pointer of Git LFS',
    }.items():
        (folder / name).write_bytes(content)
        line = refusal(read_checkpoint, folder)
        assert message in line
        assert str(folder / name) in line


def entry(begin, end, shape=None, dtype='F32'):
    """One tensor of a safetensors header."""
    shape = [(end - begin) // 4] if shape is None else shape
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


TWICE = b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 8)).encode(),) * 2)


@pytest.mark.parametrize(
    ('header', 'data', 'size', 'message'),
    [
        ({'a': entry(0, 8), 'b': entry(4, 12)}, 12, None, 'damaged'),
        ({'a': entry(0, 8), 'b': entry(12, 20)}, 20, None, 'damaged'),  # a hole
        ({'a': entry(0, 8)}, 4, None, 'damaged'),
        ({'a': entry(0, 8)}, 12, None, 'damaged'),
        ({'a': entry(0, 8, [3])}, 8, None, 'damaged'),
        ({'a': entry(0, 8, [2**62, 2**62])}, 8, None, 'damaged'),
        ({'a': entry(-8, 0)}, 8, None, 'damaged'),
        ({'a': entry(0, 8, dtype='F33')}, 8, None, 'damaged'),
        ({'a': entry(0, 0, [0, 2**62])}, 0, None, 'tensor a has shape [0, 4611686018427387904]'),
        ({'a': entry(0, 4, [1] * 99)}, 4, None, 'tensor a has shape'),
        ({'a': entry(0, 8, [8], 'I8')}, 8, None, 'tensor a has type I8; supported are F64, F32, F16, BF16'),
        ({'a': entry(0, 8, [8], 'F8_E4M3')}, 8, None, 'tensor a has type F8_E4M3'),
        ({'a' * 300: entry(0, 8)}, 8, None, 'a name of 300 characters'),
        (TWICE, 8, None, 'a name occurs twice'),
        (b'{"a":' * 10**5, 0, None, 'damaged'),
        (b'{"__metadata__":{"a":' + b'[' * 10**5, 0, None, 'damaged'),
        (b'\xff\xfe{}', 0, None, 'damaged'),
        (b'[]', 0, None, 'damaged'),
        (b'{}', 0, 2**63, 'its header would have 9223372036854775808 bytes'),
        (b'{}', 0, 2**22, 'damaged'),
        (b'{}', 0, None, 'lacks conv1.bias, conv1.weight and 35 more tensors, which config.json implies'),
        ({'a\n\u2028b\x1b[1m': entry(0, 8)}, 8, None, 'lacks conv1.bias'),
    ],
)  # fmt: skip
def test_hostile_safetensors(header, data, size, message, tmp_path):
    write_json(tmp_path / 'config.json', CONFIG)
    path = tmp_path / 'model.safetensors'
    path.write_bytes(raw_safetensors(header, bytes(data), size))
    line = refusal(load, tmp_path)
    assert message in line
    assert str(tmp_path) in line


@pytest.mark.parametrize(
    ('file', 'message'),
    [
        ('../x.safetensors', 'names "../x.safetensors", which is no safetensors file in its folder'),
        ('/etc/x.safetensors', 'no safetensors file in its folder'),
        ('a/x.safetensors', 'no safetensors file in its folder'),
        ('a\\x.safetensors', 'no safetensors file in its folder'),
        ('..', 'no safetensors file in its folder'),
        ('model.bin', 'no safetensors file in its folder'),
        (7, 'names 7'),
        (None, 'names null'),
        ('model-00003-of-00002.safetensors', 'model-00003-of-00002.safetensors is missing'),
        ('model-00002-of-00002.safetensors', 'model-00002-of-00002.safetensors lacks model.encoder.conv1.bias'),
    ],
)  # fmt: skip
def test_wrong_shards(file, message, tmp_path):
    folder = write_sharded(tmp_path / 'a', tensors())
    write_single(tmp_path / 'b', tensors())
    (tmp_path / 'b' / 'model.safetensors').rename(tmp_path / 'x.safetensors')
    index = json.loads((folder / 'model.safetensors.index.json').read_text())
    name = 'model.encoder.conv1.bias'
    assert index['weight_map'][name] == 'model-00001-of-00002.safetensors'
    index['weight_map'][name] = file
    write_json(folder / 'model.safetensors.index.json', index)
    assert message in refusal(read_checkpoint, folder)


@pytest.mark.parametrize('content', [{}, {'weight_map': []}, {'weight_map': {}}])
def test_an_index_without_a_map(content, tmp_path):
    folder = write_sharded(tmp_path, tensors())
    write_json(folder / 'model.safetensors.index.json', content)
    assert 'no weight_map' in refusal(read_checkpoint, folder)


def test_a_missing_shard_of_the_decoder_does_not_matter(tmp_path):
    folder = write_sharded(tmp_path, tensors())
    path = folder / 'model.safetensors.index.json'
    index = json.loads(path.read_text())
    index['weight_map']['model.decoder.x'] = 'model-00003-of-00002.safetensors'
    write_json(path, index)
    assert read_checkpoint(folder).tensors.keys() == tensors().keys()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'version': 5}, 'has binary version 5 of CTranslate2; only 6 is supported'),
        ({'version': 7}, 'has binary version 7'),
        ({'specification': 'TransformerSpec'}, 'is a TransformerSpec, revision 3'),
        ({'revision': 2}, 'is a WhisperSpec, revision 2'),
        ({'aliases': [('encoder/a', 'encoder/b')]}, 'encoder/a stands for encoder/b, which is missing'),
        ({'aliases': [('encoder/conv1/bias', 'encoder/conv2/bias')]}, 'encoder/conv1/bias occurs twice'),
    ],
)  # fmt: skip
def test_other_ctranslate2_files(options, message, tmp_path):
    line = refusal(read_checkpoint, write_ctranslate2(tmp_path, tensors(), **options))
    assert message in line
    assert str(tmp_path / 'model.bin') in line


QKV = 'encoder/layer_0/self_attention/linear_0/weight'


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        (QKV, np.ones((24, 8), np.int8), f'is quantised ({QKV} has type I8): use a float16 or float32 copy'),
        (QKV, np.ones((24, 8), np.int16), f'is quantised ({QKV} has type I16)'),
        (QKV, np.ones((25, 8), np.float16), 'not query, key and value'),
        (QKV, np.ones((0, 8), np.float16), 'has shape [0, 8]'),
        (QKV, None, 'lacks layers.0.self_attn.k_proj.weight'),
        ('encoder/conv1/weight', None, 'lacks encoder/conv1/weight'),
        ('encoder/conv1/weight', np.ones(8, np.float16), 'encoder/conv1/weight has shape [8]'),
        ('encoder/num_heads', None, 'lacks encoder/num_heads'),
        ('encoder/num_heads', np.float32(2), 'encoder/num_heads has type F32'),
        ('encoder/num_heads', np.int16(-2), 'encoder_attention_heads is -2'),
        ('encoder/num_heads', np.int16(3), 'does not divide d_model 8'),
        ('encoder/layer_0/ffn/linear_2/weight', np.ones(2, np.float16), 'unknown to Whisper'),
        ('encoder/layer_999/ffn/linear_1/weight', np.ones((8, 12), np.float16), 'encoder_layers is 1000'),
        ('encoder/layer_0/ffn/linear_1/bias', np.ones(9, np.float16), 'layers.0.fc2.bias has shape [9], config.json implies [8]'),
        ('a' * 300, np.ones(1, np.float16), 'a name of 300 characters'),
    ],
)  # fmt: skip
def test_wrong_variables(name, value, message, tmp_path):
    variables = ctranslate2_variables(tensors()) | {name: value}
    variables = {name: value for name, value in variables.items() if value is not None}
    (tmp_path / 'model.bin').write_bytes(ctranslate2(variables))
    assert message in refusal(load, tmp_path)


@pytest.mark.parametrize(
    ('name', 'value', 'message'),
    [
        ('conv1.bias', None, 'lacks conv1.bias, which config.json implies'),
        ('conv1.bias', np.ones(7, np.float16), 'tensor conv1.bias has shape [7], config.json implies [8]'),
        ('conv1.weight', np.ones((3, 80, 8), np.float16), 'conv1.weight has shape [3, 80, 8], config.json implies [8, 80, 3]'),
        ('conv3.bias', np.ones(7, np.float16), 'holds conv3.bias, unknown to Whisper'),
        ('layers.2.fc1.bias', np.ones(12, np.float16), 'holds layers.2.fc1.bias, unknown to Whisper'),
        ('conv1.bias', np.array([0, np.nan] * 4, np.float16), 'conv1.bias holds values that are not finite'),
        ('conv1.bias', np.array([0, np.inf] * 4, np.float32), 'conv1.bias holds values that are not finite'),
        ('conv1.bias', np.full(8, 1e200), 'conv1.bias holds values that are not finite'),
    ],
)  # fmt: skip
def test_tensors_that_do_not_suit(name, value, message, tmp_path):
    content = {key: item for key, item in (tensors() | {name: value}).items() if item is not None}
    line = refusal(load, write_single(tmp_path, content))
    assert message in line
    assert str(tmp_path) in line
