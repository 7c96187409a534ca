"""Folders of pretrained weights in every format, of a tiny Whisper with random parameters."""

import json
import struct
from pathlib import Path

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from ser_jax.models.encoders.whisper import Whisper

CONFIG = {
    'model_type': 'whisper',
    'd_model': 8,
    'encoder_layers': 2,
    'encoder_attention_heads': 2,
    'encoder_ffn_dim': 12,
    'num_mel_bins': 80,
    'max_source_positions': 50,
}
TYPES = ('float32', 'int8', 'int16', 'int32', 'float16')  # numbers of CTranslate2


def module(config=CONFIG, **options):
    """The encoder of a config."""
    return Whisper.from_config(config, None, **options)


def tensors(seed=0, dtype=np.float16, config=CONFIG):
    """Random tensors of the encoder under Hugging Face's names, without prefix."""
    own = module(config)
    waveform, samples = jnp.zeros((1, 400)), jnp.full(1, 400)
    shapes = jax.eval_shape(own.init, jax.random.key(0), waveform, samples)['params']
    rng = np.random.default_rng(seed)
    found = {}
    for path, leaf in sorted(flax.traverse_util.flatten_dict(shapes).items()):
        shape = leaf.shape[::-1] if path[-1] == 'kernel' else leaf.shape
        found[own.tensor_name(path)] = rng.normal(size=shape).astype(dtype)
    return found


def write_json(path, content):
    """Writes a JSON file; its folder is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_single(
    folder: Path, content, prefix='model.encoder.', others=None, config=CONFIG
) -> Path:
    """Writes `model.safetensors` and `config.json`, with other tensors under their full names; returns the folder."""
    write_json(folder / 'config.json', config)
    named = {prefix + name: value for name, value in content.items()} | (others or {})
    safetensors.numpy.save_file(named, folder / 'model.safetensors')
    return folder


def write_encoder(folder: Path, seed=0) -> Path:
    """Writes an encoder with the layers 0 to 4, which the settings of the corpora name; returns the folder."""
    config = CONFIG | {'encoder_layers': 3}
    return write_single(folder, tensors(seed, config=config), config=config)


def write_sharded(folder: Path, content, prefix='model.encoder.', others=None) -> Path:
    """Writes two shards, their index and `config.json`; returns the folder."""
    write_json(folder / 'config.json', CONFIG)
    named = {prefix + name: value for name, value in content.items()} | (others or {})
    weight_map = {
        name: f'model-{1 + i % 2:05}-of-00002.safetensors' for i, name in enumerate(sorted(named))
    }
    for file in set(weight_map.values()):
        own = {name: named[name] for name in named if weight_map[name] == file}
        safetensors.numpy.save_file(own, folder / file)
    write_json(folder / 'model.safetensors.index.json', {'metadata': {}, 'weight_map': weight_map})
    return folder


def raw_safetensors(header, data=b'', size=None) -> bytes:
    """A safetensors file of any header: a dictionary, or bytes; `size` is the declared one."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(header) if size is None else size) + header + data


def ctranslate2_variables(content) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 file for tensors under Hugging Face's names; the decoder is one embedding."""
    found = {
        'encoder/num_heads': np.int16(CONFIG['encoder_attention_heads']),
        'encoder/position_encodings/encodings': content['embed_positions.weight'],
        'decoder/embeddings/weight': np.ones((5, 3), np.float16),
        'decoder/num_heads': np.int16(2),
    }
    plain = {
        'self_attn_layer_norm': 'self_attention/layer_norm',
        'self_attn.out_proj': 'self_attention/linear_1',
        'final_layer_norm': 'ffn/layer_norm',
        'fc1': 'ffn/linear_0',
        'fc2': 'ffn/linear_1',
    }
    modules = {name: name for name in ('conv1', 'conv2', 'layer_norm')}
    for i in range(CONFIG['encoder_layers']):
        modules |= {f'layers.{i}.{name}': f'layer_{i}/{own}' for name, own in plain.items()}
        part = lambda name, i=i: content[f'layers.{i}.self_attn.{name}']
        zeros = np.zeros_like(part('q_proj.bias'))
        fused = f'encoder/layer_{i}/self_attention/linear_0'
        found[f'{fused}/weight'] = np.concatenate([part(f'{p}_proj.weight') for p in 'qkv'])
        found[f'{fused}/bias'] = np.concatenate([part('q_proj.bias'), zeros, part('v_proj.bias')])
    for name, own in modules.items():
        norm = own.endswith('layer_norm')
        for leaf, other in (('weight', 'gamma'), ('bias', 'beta')):
            found[f'encoder/{own}/{other if norm else leaf}'] = content[f'{name}.{leaf}']
    return found


def ctranslate2(variables, aliases=(), version=6, specification='WhisperSpec', revision=3) -> bytes:
    """A CTranslate2 file.

    Args:
        variables: name -> array.
        aliases: pairs (alias, name).
        version, specification, revision: of its head.
    """
    text = lambda name: struct.pack('<H', len(name) + 1) + name.encode() + b'\0'
    out = [struct.pack('<I', version), text(specification), struct.pack('<I', revision)]
    out.append(struct.pack('<I', len(variables)))
    for name, value in sorted(variables.items()):
        value = np.asarray(value)
        out += [text(name), struct.pack(f'<B{value.ndim}I', value.ndim, *value.shape)]
        out.append(struct.pack('<BI', TYPES.index(value.dtype.name), value.nbytes))
        out.append(value.tobytes())
    out.append(struct.pack('<I', len(aliases)))
    out += [text(name) for pair in aliases for name in pair]
    return b''.join(out)


def write_ctranslate2(folder: Path, content, **options) -> Path:
    """Writes `model.bin` and CTranslate2's own `config.json`; returns the folder."""
    write_json(folder / 'config.json', {'alignment_heads': [[0, 1]], 'lang_ids': []})
    (folder / 'model.bin').write_bytes(ctranslate2(ctranslate2_variables(content), **options))
    return folder
