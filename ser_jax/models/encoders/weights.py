"""Weights of pretrained encoders: Hugging Face and CTranslate2 folders to parameters, and the fingerprint of parameters.

The files may come from a stranger. Only the tensors of the encoder are read; every count and size in a file is checked before
memory is taken for it, and no file is unpickled.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import local_path

CONFIG = 'config.json'
PREPROCESSOR = 'preprocessor_config.json'
SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
CTRANSLATE2 = 'model.bin'
PICKLE = 'pytorch_model.bin'
FAMILIES = {
    'whisper': ('whisper', 'Whisper'),
    'wav2vec2': ('wav2vec2', 'Wav2Vec2'),
    'hubert': ('wav2vec2', 'Wav2Vec2'),
    'wavlm': ('wav2vec2', 'Wav2Vec2'),
}  # model_type -> module in this package, class

# Sizes in config.json that may be missing.
_OPTIONAL_SIZES = ('num_mel_bins', 'max_source_positions', 'num_buckets', 'max_bucket_distance')

# Limits, which no real model comes near.
_LARGEST_JSON = 1 << 22  # bytes of a safetensors header or a JSON file
_LARGEST_SIZES = {'encoder_layers': 256, 'num_hidden_layers': 256, 'num_mel_bins': 512}
_LARGEST_SIZE = 1 << 16  # of any other width or length in config.json
_MOST_VARIABLES = 1 << 16  # of a CTranslate2 file
_LONGEST_NAME = 200
_ITEM_BYTES = {'F64': 8, 'F32': 4, 'F16': 2, 'BF16': 2, 'I32': 4, 'I16': 2, 'I8': 1}
_FLOATS = {'F64': '<f8', 'F32': '<f4', 'F16': '<f2', 'BF16': '<u2'}  # as NumPy reads them
_GIT_LFS = b'version https://git-lfs'

# First part of the names of tensors outside the encoder, or are used in pretraining only.
_IGNORED = (
    'decoder',
    'proj_out',
    'lm_head',
    'quantizer',
    'project_q',
    'project_hid',
    'projector',
    'classifier',
    'layer_weights',
    'masked_spec_embed',
)
_TRANSPOSED = ('kernel', 'weight_g', 'weight_v')


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The encoder of a checkpoint.

    Attributes:
        folder: folder of the files.
        config: content of `config.json`; for CTranslate2 the same keys, from the shapes of the tensors.
        preprocessor: content of `preprocessor_config.json`, or None.
        tensors: name below the encoder's prefix -> array as stored, float16 or float32.
    """

    folder: Path
    config: dict[str, Any]
    preprocessor: dict[str, Any] | None
    tensors: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A tensor in a file: offset in bytes, shape, and type as a key of `_ITEM_BYTES` or another."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: str


def encoder_class(model_type: str) -> type:
    """The Linen module of a `model_type` of `config.json`; raises UserError where there is none."""
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise UserError(f'model_type is {model_type!r}: supported are {", ".join(FAMILIES)}')
    file, name = FAMILIES[model_type]
    return getattr(importlib.import_module(f'ser_jax.models.encoders.{file}'), name)


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """Reads the encoder of a Hugging Face folder (safetensors, single or sharded) or a CTranslate2 folder (`model.bin`).

    Args:
        folder: holds `config.json`, the weights, and `preprocessor_config.json` where the model has one. Of several formats the
            first of `model.safetensors`, `model.safetensors.index.json` and `model.bin` is read.

    Raises:
        UserError: no such folder or no weights in it; files that are damaged, incomplete or of another kind; a family, type or
            quantisation that is not supported.
    """
    folder = local_path(folder)
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise UserError(f'cannot read the folder {folder}: {error.strerror}') from error
    if not any((folder / name).exists() for name in (SINGLE, INDEX, CTRANSLATE2)):
        raise UserError(f'{folder} {no_weights(names, str(folder))}')
    preprocessor = read_json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).exists() else None
    _check_preprocessor(preprocessor, folder / PREPROCESSOR)
    if not any((folder / name).exists() for name in (SINGLE, INDEX)):
        config, tensors = _read_ctranslate2(folder / CTRANSLATE2)
        return Checkpoint(folder, config, preprocessor, tensors)
    config = read_config(folder / CONFIG)
    if (folder / SINGLE).exists():
        stored = _safetensors_index(folder / SINGLE)
        names = encoder_tensors(stored, config['model_type'], folder / SINGLE)
    else:
        files = shards(folder / INDEX)
        names = encoder_tensors(files, config['model_type'], folder / INDEX)
        stored = _sharded_index(folder, {full: files[full] for full in names.values()})
    tensors = {name: _read(stored[full], full) for name, full in names.items()}
    return Checkpoint(folder, config, preprocessor, tensors)


def no_weights(names: Iterable[str], folder: str, before: str = '') -> str:
    """The end of an error message about a folder or repository without weights in a supported format.

    Args:
        names: files of the folder or repository.
        folder: argument for the command that converts it.
        before: step to take before, for the message.
    """
    if any(re.fullmatch(r'pytorch_model.*\.bin(\.index\.json)?', name) for name in names):
        return (
            f'holds {PICKLE} but no {SINGLE}: convert it, '
            f'{before}python -m ser_jax.models.encoders.convert {folder} OUT'
        )
    return f'holds no weights: {SINGLE}, {INDEX} or {CTRANSLATE2} (CTranslate2)'


def encoder_tensors(names: Iterable[str], model_type: str, file: Path) -> dict[str, str]:
    """Selects the tensors of the encoder.

    Args:
        names: names of all tensors of a checkpoint.
        model_type: key of `FAMILIES`.
        file: file that messages name.

    Returns:
        Name below the prefix -> full name. Of the two spellings of weight norm the older is used, `weight_g` and `weight_v`.

    Raises:
        UserError: a tensor in both spellings.
    """
    names = list(names)
    starts = (*encoder_class(model_type).prefixes, '')
    prefix = next(
        start for start in starts if any(name.startswith(start) for name in names) or not start
    )
    found = {}
    for full in names:
        name = full.removeprefix(prefix)
        if not full.startswith(prefix) or name.partition('.')[0] in _IGNORED:
            continue
        name = name.replace('.parametrizations.weight.original0', '.weight_g')
        name = name.replace('.parametrizations.weight.original1', '.weight_v')
        if name in found:
            raise UserError(f'{file} holds both {found[name]} and {full}')
        found[name] = full
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises UserError for anything else."""
    try:
        with path.open('rb') as file:
            data = file.read(_LARGEST_JSON + 1)
        if len(data) > _LARGEST_JSON:
            raise ValueError(f'more than {_LARGEST_JSON} bytes')
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError('no JSON object')
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    return content


def read_config(path: Path) -> dict[str, Any]:
    """Reads `config.json` of a Hugging Face folder; sizes are of the right type and within bounds.

    Raises:
        UserError: it cannot be read, or a size is missing or wrong, or the family is not supported.
    """
    if not path.exists():
        raise UserError(f'{path} is missing')
    config = read_json(path)
    if 'model_type' not in config:
        raise UserError(f'{path} lacks model_type')
    try:
        encoder_class(config['model_type'])
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    _check_config(config, path)
    return config


def parameters(module, checkpoint: Checkpoint) -> dict[str, Any]:
    """Parameters of an encoder from a checkpoint.

    Args:
        module: Linen module that `from_config` made of the checkpoint's config.
        checkpoint: result of `read_checkpoint`.

    Returns:
        Tree of float32 NumPy arrays, for `module.apply({'params': …})`. Low-rank updates (`lora_*`) are initialised, always with
        the same values.

    Raises:
        UserError: a tensor that is missing, unknown, of another shape, or not finite.
    """
    found, expected = checkpoint.tensors, _init(jax.eval_shape, module)
    names = {path: module.tensor_name(path) for path in expected if not _is_lora(path)}
    folder = checkpoint.folder
    if missing := sorted(set(names.values()) - set(found)):
        raise UserError(f'{folder} lacks {_some(missing)}, which {CONFIG} implies')
    if unknown := sorted(set(found) - set(names.values())):
        raise UserError(f'{folder} holds {_some(unknown)}, unknown to {type(module).__name__}')
    leaves = {}
    for path, name in names.items():
        transposed = path[-1] in _TRANSPOSED
        shape = expected[path].shape[::-1] if transposed else expected[path].shape
        if found[name].shape != shape:
            raise UserError(
                f'{folder}: tensor {name} has shape {list(found[name].shape)}, {CONFIG} implies {list(shape)}'
            )
        with np.errstate(over='ignore'):
            leaf = np.ascontiguousarray(found[name].T if transposed else found[name], np.float32)
        if not np.isfinite(leaf).all():
            raise UserError(f'{folder}: tensor {name} holds values that are not finite')
        leaves[path] = leaf
    if any(map(_is_lora, expected)):
        leaves |= jax.device_get(
            _init(lambda init, *inputs: jax.jit(init)(*inputs), module, _is_lora)
        )
    return flax.traverse_util.unflatten_dict(leaves)


def fingerprint(params: Mapping[str, Any]) -> str:
    """SHA-256 of an encoder's parameters, equal for all formats and for float16 and float32 copies of float16 weights.

    For every parameter, sorted by its name 'a/b/c': the line 'name [shape]', then the values rounded to float16, little-endian in
    C order, −0 as 0. Low-rank updates are left out, and biases of keys, which change no output and which some formats drop.

    Args:
        params: result of `parameters`.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    leaves = {'/'.join(p): (p, leaf) for p, leaf in flax.traverse_util.flatten_dict(params).items()}
    for name, (path, leaf) in sorted(leaves.items()):
        if _is_lora(path) or path[-2:] == ('key', 'bias'):
            continue
        with np.errstate(over='ignore'):
            half = np.asarray(leaf, np.float32).astype(np.float16) + np.float16(0)
        digest.update(f'{name} {list(half.shape)}\n'.encode())
        digest.update(half.astype('<f2').tobytes())
    return digest.hexdigest()


def _is_lora(path: tuple[str, ...]) -> bool:
    return path[-1].startswith('lora_')


def _init(evaluate, module, wanted=lambda path: True) -> dict[tuple[str, ...], Any]:
    """The wanted ones of a module's initial parameters, path -> leaf; others are not computed.

    Args:
        evaluate: called with the initialising function and its arguments; `jax.eval_shape` for the shapes only.
        module: the module.
        wanted: path -> whether the parameter is wanted.
    """

    def init(*inputs):
        leaves = flax.traverse_util.flatten_dict(module.init(*inputs)['params'])
        return {path: leaf for path, leaf in leaves.items() if wanted(path)}

    waveform = jnp.zeros((1, module.min_samples), jnp.float32)
    samples = jnp.full(1, module.min_samples, jnp.int32)
    return evaluate(init, jax.random.key(0), waveform, samples)


def _some(names: list[str]) -> str:
    """'a, b and 7 more tensors'."""
    rest = f' and {len(names) - 2} more tensors' if len(names) > 2 else ''
    return ', '.join(names[:2]) + rest


def _damaged(path: Path, reason) -> UserError:
    reason = ' '.join(str(reason).split())[:200]
    return UserError(f'{path} is damaged, incomplete or of another kind ({reason}): get it again')


def _check_config(config: dict[str, Any], path: Path) -> None:
    """Checks the sizes in a config, on which the time and memory of building a module depend; raises UserError."""
    family = encoder_class(config['model_type'])
    required, lists = family.SIZES, family.SIZE_LISTS
    for name in (*required, *lists):
        if name not in config:
            raise UserError(f'{path} lacks {name}')
    is_size = lambda value, most: type(value) is int and 1 <= value <= most
    for name in (*required, *_OPTIONAL_SIZES):
        most = _LARGEST_SIZES.get(name, _LARGEST_SIZE)
        if name in config and not is_size(config[name], most):
            raise UserError(
                f'{path}: {name} is {_shown(config[name])}, not an integer from 1 to {most}'
            )
    for name in lists:
        value = config[name]
        if not (
            isinstance(value, list)
            and 1 <= len(value) <= 16
            and all(is_size(item, _LARGEST_SIZE) for item in value)
            and len(value) == len(config[lists[0]])
        ):
            raise UserError(
                f'{path}: {name} is {_shown(value)}, not a list of positive integers, one for each convolution'
            )
    width, heads = config[required[0]], config[required[2]]
    if width % heads:
        raise UserError(
            f'{path}: {required[2]} is {heads}, which does not divide {required[0]} {width}'
        )


def _check_preprocessor(preprocessor: dict[str, Any] | None, path: Path) -> None:
    preprocessor = preprocessor or {}
    rate, normalise = preprocessor.get('sampling_rate', 16000), preprocessor.get('do_normalize')
    if rate != 16000:
        raise UserError(f'{path}: sampling_rate is {_shown(rate)}; only 16000 is supported')
    if normalise not in (None, True, False):
        raise UserError(f'{path}: do_normalize is {_shown(normalise)}, not true or false')


def _shown(value) -> str:
    return json.dumps(value)[:60]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Opens a file of weights for reading.

    Raises:
        UserError: it cannot be read, is a pointer of Git LFS, or the block finds it damaged (ValueError).
    """
    try:
        with path.open('rb') as file:
            if file.read(len(_GIT_LFS)) == _GIT_LFS:
                raise UserError(
                    f'{path} is a pointer of Git LFS, not the weights: run git lfs pull'
                )
            file.seek(0)
            yield file
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror or error}') from error
    except (ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise _damaged(path, error) from error


def _safetensors_index(path: Path) -> dict[str, _Stored]:
    """The tensors of a safetensors file: full name -> where it is stored.

    The library checks offsets, sizes and overlaps against the file; it takes names that occur twice, and a gigabyte of memory for
    10^6 names, which are checked here.
    """
    with reading(path) as file:
        size = int.from_bytes(file.read(8), 'little')
        if size > _LARGEST_JSON:
            raise ValueError(f'its header would have {size} bytes')
        header = json.loads(file.read(size), object_pairs_hook=_unique)
        with safetensors.safe_open(path, framework='np'):
            pass
        return {
            _check_name(name): _Stored(
                path, 8 + size + entry['data_offsets'][0], tuple(entry['shape']), entry['dtype']
            )
            for name, entry in header.items()
            if name != '__metadata__'
        }


def _check_name(name: str) -> str:
    if len(name) > _LONGEST_NAME:
        raise ValueError(f'a name of {len(name)} characters')
    return name


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(content := dict(pairs)) != len(pairs):
        raise ValueError('a name occurs twice')
    return content


def shards(path: Path) -> dict[str, str]:
    """The index of a sharded checkpoint: full name -> file name."""
    weight_map = read_json(path).get('weight_map')
    if not isinstance(weight_map, dict) or not weight_map:
        raise _damaged(path, 'no weight_map')
    for file in weight_map.values():
        # Nothing outside the folder.
        if not isinstance(file, str) or not re.fullmatch(r'[\w.-]+\.safetensors', file):
            raise UserError(
                f'{path} names {_shown(file)}, which is no safetensors file in its folder'
            )
    try:
        return {_check_name(name): file for name, file in weight_map.items()}
    except ValueError as error:
        raise _damaged(path, error) from error


def _sharded_index(folder: Path, files: Mapping[str, str]) -> dict[str, _Stored]:
    """Where the tensors of several safetensors files are stored; `files`: full name -> file name."""
    found = {}
    for file in sorted(set(files.values())):
        if not (folder / file).exists():
            raise UserError(f'{folder / file} is missing, which {INDEX} names: get it again')
        stored = _safetensors_index(folder / file)
        for name in (name for name, own in files.items() if own == file):
            if name not in stored:
                raise UserError(f'{folder / file} lacks {name}, which {INDEX} has there')
            found[name] = stored[name]
    return found


def _read(stored: _Stored, name: str) -> np.ndarray:
    """Reads a tensor: float16 and float32 as stored, other floating-point types as float32."""
    if stored.dtype not in _FLOATS:
        raise UserError(
            f'{stored.file}: tensor {name} has type {stored.dtype}; supported are {", ".join(_FLOATS)}'
        )
    if 0 in stored.shape or len(stored.shape) > 8:
        raise UserError(f'{stored.file}: tensor {name} has shape {_shown(list(stored.shape))}')
    count = math.prod(stored.shape)
    with reading(stored.file) as file:
        file.seek(stored.offset)
        array = np.fromfile(file, _FLOATS[stored.dtype], count)
        if array.size != count:
            raise ValueError(f'it ends within {name}')
    if stored.dtype == 'BF16':
        array = (array.astype('<u4') << 16).view('<f4')
    elif stored.dtype == 'F64':
        with np.errstate(over='ignore'):
            array = array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder('='), copy=False).reshape(stored.shape)


# CTranslate2: binary version 6, specification WhisperSpec, revision 3 (CTranslate2 3.8 and later, which faster-whisper needs).

_CTRANSLATE2_TYPES = ('F32', 'I8', 'I16', 'I32', 'F16', 'BF16')
_CTRANSLATE2_MODULES = {
    'self_attention/layer_norm': 'self_attn_layer_norm',
    'self_attention/linear_1': 'self_attn.out_proj',
    'ffn/layer_norm': 'final_layer_norm',
    'ffn/linear_0': 'fc1',
    'ffn/linear_1': 'fc2',
}
_CTRANSLATE2_LEAVES = {'weight': 'weight', 'bias': 'bias', 'gamma': 'weight', 'beta': 'bias'}


def _ctranslate2_index(path: Path) -> dict[str, _Stored]:
    """The variables of a CTranslate2 file: name -> where it is stored."""
    with reading(path) as file:
        size = path.stat().st_size

        def unpack(form: str) -> tuple[int, ...]:
            data = file.read(struct.calcsize(form))
            if len(data) < struct.calcsize(form):
                raise ValueError('it ends early')
            return struct.unpack(form, data)

        def text() -> str:
            (length,) = unpack('<H')
            (data,) = unpack(f'{length}s')
            return _check_name(data.removesuffix(b'\0').decode('ascii'))

        (version,) = unpack('<I')
        if version > 99:
            raise ValueError('not a CTranslate2 model')
        if version != 6:
            raise UserError(
                f'{path} has binary version {version} of CTranslate2; only 6 is supported'
            )
        specification, (revision,) = text(), unpack('<I')
        if (specification, revision) != ('WhisperSpec', 3):
            raise UserError(
                f'{path} is a {specification}, revision {revision}; of CTranslate2 only WhisperSpec 3 is supported'
            )
        found = {}

        def add(name: str, stored: _Stored) -> None:
            if name in found:
                raise ValueError(f'{name} occurs twice')
            found[name] = stored

        (count,) = unpack('<I')
        if count > _MOST_VARIABLES:
            raise ValueError(f'{count} variables')
        for _ in range(count):
            name, (rank,) = text(), unpack('<B')
            shape = unpack(f'<{rank}I')
            number, length = unpack('<BI')
            offset = file.tell()
            if number >= len(_CTRANSLATE2_TYPES) or offset + length > size:
                raise ValueError(f'{name} is of an unknown type or ends beyond the file')
            dtype = _CTRANSLATE2_TYPES[number]
            if math.prod(shape) * _ITEM_BYTES[dtype] != length:
                raise ValueError(f'{name} has another size than its shape')
            add(name, _Stored(path, offset, shape, dtype))
            file.seek(length, 1)
        (aliases,) = unpack('<I')
        if aliases > _MOST_VARIABLES:
            raise ValueError(f'{aliases} aliases')
        for _ in range(aliases):  # variables of equal values are stored once
            alias, name = text(), text()
            if name not in found:
                raise ValueError(f'{alias} stands for {name}, which is missing')
            add(alias, found[name])
        if file.read(1):
            raise ValueError('something follows its end')
        return found


def _read_ctranslate2(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads the encoder of a CTranslate2 file.

    Returns:
        (config, tensors) as in `Checkpoint`. The bias of keys is left out, as in Hugging Face's files: it changes no output.

    Raises:
        UserError: damaged, quantised, or another model.
    """
    stored = {
        name.removeprefix('encoder/'): variable
        for name, variable in _ctranslate2_index(path).items()
        if name.startswith('encoder/')
    }
    for name, variable in stored.items():
        if variable.shape and variable.dtype not in _FLOATS:
            raise UserError(
                f'{path} is quantised (encoder/{name} has type {variable.dtype}): use a float16 or float32 copy'
            )
    values = sum(math.prod(variable.shape) for variable in stored.values())
    if values * _ITEM_BYTES['F16'] > path.stat().st_size:
        raise _damaged(path, 'its tensors are larger than the file')  # by aliases
    config = _ctranslate2_config(stored, path)
    tensors = {}
    for name, variable in stored.items():
        if name == 'num_heads':
            continue
        target = _hugging_face_name(name)
        if target is None:
            raise UserError(f'{path} holds encoder/{name}, unknown to Whisper')
        array = _read(variable, f'encoder/{name}')
        if 'self_attn.qkv' not in target:
            tensors[target] = array
        elif len(array) % 3:
            raise UserError(
                f'{path}: encoder/{name} has shape {list(array.shape)}, not query, key and value'
            )
        else:
            for part, values in zip('qkv', np.split(array, 3)):
                tensors[target.replace('qkv', f'{part}_proj')] = values
            tensors.pop(target.replace('qkv.bias', 'k_proj.bias'), None)
    return config, tensors


def _hugging_face_name(name: str) -> str | None:
    """The name of a CTranslate2 variable below `encoder/` in Hugging Face's files; None if it is unknown."""
    if name == 'position_encodings/encodings':
        return 'embed_positions.weight'
    module, _, leaf = name.rpartition('/')
    leaf = _CTRANSLATE2_LEAVES.get(leaf)
    if leaf and module in ('conv1', 'conv2', 'layer_norm'):
        return f'{module}.{leaf}'
    match = re.fullmatch(r'layer_(\d+)/(.*)', module)
    inside = _CTRANSLATE2_MODULES | {'self_attention/linear_0': 'self_attn.qkv'}
    if not (leaf and match and match[2] in inside):
        return None
    return f'layers.{match[1]}.{inside[match[2]]}.{leaf}'


def _ctranslate2_config(stored: Mapping[str, _Stored], path: Path) -> dict[str, Any]:
    """The sizes of the encoder in a CTranslate2 file, with the keys of Hugging Face's `config.json`."""
    shapes = {
        'conv1/weight': 3,
        'layer_0/ffn/linear_0/weight': 2,
        'position_encodings/encodings': 2,
        'num_heads': 0,
    }
    for name, rank in shapes.items():
        if name not in stored:
            raise _damaged(path, f'it lacks encoder/{name}')
        if len(stored[name].shape) != rank:
            raise _damaged(path, f'encoder/{name} has shape {list(stored[name].shape)}')
    heads = stored['num_heads']
    if heads.dtype not in ('I8', 'I16', 'I32'):
        raise _damaged(path, f'encoder/num_heads has type {heads.dtype}')
    with reading(path) as file:
        file.seek(heads.offset)
        number = int.from_bytes(file.read(_ITEM_BYTES[heads.dtype]), 'little', signed=True)
    layers = [match[1] for name in stored if (match := re.match(r'layer_(\d{1,9})/', name))]
    config = {
        'model_type': 'whisper',
        'd_model': stored['conv1/weight'].shape[0],
        'encoder_layers': max(map(int, layers)) + 1,
        'encoder_attention_heads': number,
        'encoder_ffn_dim': stored['layer_0/ffn/linear_0/weight'].shape[0],
        'num_mel_bins': stored['conv1/weight'].shape[1],
        'max_source_positions': stored['position_encodings/encodings'].shape[0],
    }
    _check_config(config, path)
    return config
