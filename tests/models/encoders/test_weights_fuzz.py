"""Hostile and damaged weights: one line, in bounded memory and time, whatever the bytes."""

import json
import os
import subprocess
import sys
import time
import tracemalloc

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
    write_json,
    write_sharded,
    write_single,
)

from ser_jax.models.encoders.weights import parameters, read_checkpoint
from ser_jax.runtime.errors import UserError

MEMORY = 30_000_000  # bytes, for files of 20 kB
SECONDS = 5.0
# Values that stand where counts, sizes, offsets and types are expected.
STRANGE = [
    *(0, 1, -1, 7, 2**31 - 1, 2**32, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.5, 1e300),
    *(True, None, '', 'F32', 'I8', 'BF16', 'F4', '\ud800', [], [0], [0, 0], [1] * 70, {}, {'a': 1}),
]


def survives(folder, load=read_checkpoint):
    """Reads a folder that may be damaged: it is refused by one line, or read; returns whether it was read."""
    begin, line = time.monotonic(), None
    tracemalloc.start()
    try:
        load(folder)
    except UserError as error:
        line = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY
    assert time.monotonic() - begin < SECONDS
    if line is not None:
        assert '\n' not in line
        assert len(line) < 1000
        assert str(folder) in line
    return line is None


def mutate(rng, data: bytes, end: int) -> bytes:
    """Changes a few bytes before `end`, or cuts, repeats or inserts some."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(0, max(1, min(end, len(changed)))))
        kind = rng.integers(0, 6)
        if kind <= 1:
            changed[at : at + 1] = bytes([rng.integers(0, 256)])
        elif kind == 2:
            changed[at : at + 4] = rng.choice(
                [b'\xff\xff\xff\xff', b'\0\0\0\0', b'\xff\xff\xff\x7f']
            )
        elif kind == 3:
            del changed[at : at + int(rng.integers(1, 40))]
        elif kind == 4:
            changed[at:at] = changed[at : at + int(rng.integers(1, 40))]
        else:
            del changed[at + int(rng.integers(0, len(changed))) :]
    return bytes(changed)


def replace_one(rng, content):
    """A copy of JSON content with one value, at any depth, replaced by a strange one, removed, or under another name."""
    content = json.loads(json.dumps(content))
    node = content
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = keys[rng.integers(0, len(keys))]
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        if rng.random() < 0.15:
            del node[key]
        elif isinstance(node, dict) and rng.random() < 0.15:
            node[str(STRANGE[rng.integers(0, len(STRANGE))])] = node.pop(key)
        else:
            node[key] = STRANGE[rng.integers(0, len(STRANGE))]
        return content


def fuzz(folder, path, examples, load=read_checkpoint):
    """Writes examples to a file that is sound; all are read or refused, and some of both."""
    assert survives(folder, load)
    read = []
    for example in examples:
        path.write_bytes(example)
        read.append(survives(folder, load))
    assert 0 < sum(read) < len(read)


def small_ctranslate2():
    """A file of which most bytes are structure, not values."""
    variables = ctranslate2_variables({name: value[:1] for name, value in tensors().items()})
    return ctranslate2(variables | {'encoder/num_heads': np.int16(1)})


COUNTS = [pytest.param(200, id='short'), pytest.param(2_000, id='long', marks=pytest.mark.slow)]


@pytest.mark.parametrize('count', COUNTS)
def test_safetensors_bytes(count, tmp_path):
    folder, rng = write_single(tmp_path, tensors()), np.random.default_rng(0)
    path = folder / 'model.safetensors'
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], 'little')
    fuzz(folder, path, (mutate(rng, whole, end) for _ in range(count)))


@pytest.mark.parametrize('count', COUNTS)
def test_safetensors_headers(count, tmp_path):
    folder, rng = write_single(tmp_path, tensors()), np.random.default_rng(1)
    path = folder / 'model.safetensors'
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], 'little')
    header = json.loads(whole[8:end])
    fuzz(
        folder, path, (raw_safetensors(replace_one(rng, header), whole[end:]) for _ in range(count))
    )


@pytest.mark.parametrize('count', COUNTS)
def test_ctranslate2_bytes(count, tmp_path):
    whole, rng = small_ctranslate2(), np.random.default_rng(2)
    path = tmp_path / 'model.bin'
    path.write_bytes(whole)
    fuzz(tmp_path, path, (mutate(rng, whole, len(whole)) for _ in range(count)))


def test_every_truncation_of_ctranslate2(tmp_path):
    whole = small_ctranslate2()
    for end in range(0, len(whole), len(whole) // 300):
        (tmp_path / 'model.bin').write_bytes(whole[:end])
        assert not survives(tmp_path)


@pytest.mark.parametrize('count', COUNTS)
def test_configs(count, tmp_path):
    config = CONFIG | {'activation_function': 'gelu', 'scale_embedding': False, 'dropout': 0.0}
    folder, rng = write_single(tmp_path, tensors()), np.random.default_rng(3)
    examples = (json.dumps(replace_one(rng, config)).encode() for _ in range(count))

    def load(folder):
        checkpoint = read_checkpoint(folder)
        try:
            module(checkpoint.config)
        except UserError as error:  # of the module, which knows no folder
            raise UserError(f'{folder}: {error}') from error

    fuzz(folder, folder / 'config.json', examples, load)


@pytest.mark.parametrize('count', COUNTS)
def test_shard_indices(count, tmp_path):
    folder, rng = write_sharded(tmp_path, tensors()), np.random.default_rng(4)
    path = folder / 'model.safetensors.index.json'
    index = json.loads(path.read_text())
    examples = (json.dumps(replace_one(rng, index)).encode() for _ in range(count))
    fuzz(folder, path, examples)


def test_wrong_sizes_cost_no_memory(tmp_path):
    folder = write_single(tmp_path, tensors())
    write_json(
        folder / 'config.json', CONFIG | {'d_model': 1 << 16, 'encoder_ffn_dim': 1 << 16, 'num_mel_bins': 128}
    )  # fmt: skip
    checkpoint = read_checkpoint(folder)
    tracemalloc.start()
    with pytest.raises(UserError, match='has shape'):
        parameters(module(checkpoint.config), checkpoint)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY


def test_a_million_names(tmp_path):
    """Parsing such a header takes a gigabyte: it is not parsed."""
    write_json(tmp_path / 'config.json', CONFIG)
    entry = '"k%d":{"dtype":"F32","shape":[1],"data_offsets":[%d,%d]}'
    header = '{' + ','.join(entry % (i, 4 * i, 4 * i + 4) for i in range(10**6)) + '}'
    path = tmp_path / 'model.safetensors'
    path.write_bytes(raw_safetensors(header.encode(), bytes(4 * 10**6)))
    code = (
        'import resource, sys, time\n'
        'from ser_jax.models.encoders.weights import read_checkpoint\n'
        'used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n'
        'before, begin = used(), time.monotonic()\n'
        'try: read_checkpoint(sys.argv[1])\n'
        'except Exception as error: print(type(error).__name__, "header" in str(error))\n'
        'print(used() - before < 50_000, time.monotonic() - begin < 1)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ['UserError', 'True', 'True', 'True'], done.stderr


def test_as_many_variables_as_a_file_can_claim(tmp_path):
    whole = ctranslate2({})
    at = len(whole) - 8
    assert whole[at:] == bytes(8)  # the counts of variables and of aliases
    for content in (
        whole[:at] + b'\xff\xff\xff\xff' + bytes(100),
        whole[:at] + b'\0\0\0\0\xff\xff\xff\xff' + bytes(100),
        whole[:at] + (1 << 16).to_bytes(4, 'little') + b'\x01\0\0\0\0\0\0\0' * (1 << 16),
    ):
        (tmp_path / 'model.bin').write_bytes(content)
        assert not survives(tmp_path)


def test_many_aliases_of_one_variable(tmp_path):
    """256 layers of a million values each, from a file with one such matrix."""
    variables = ctranslate2_variables(tensors()) | {'decoder/x': np.ones((1024, 1024), np.float16)}
    aliases = [(f'encoder/layer_{i}/ffn/linear_0/weight', 'decoder/x') for i in range(2, 256)]
    (tmp_path / 'model.bin').write_bytes(ctranslate2(variables, aliases))
    assert not survives(tmp_path)
