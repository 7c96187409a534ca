"""Time and memory of encoding recordings: python -m benchmarks.extraction --encoder=NAME FOLDER [--out=FILE]

Runs `python -m ser_jax.encode --statistics` in a separate process, without compiled programs of earlier runs. --encoder is a folder, a
Hugging Face name, or a key of `benchmarks.encoder.CONFIGS`, which gets random weights.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util

from benchmarks import timing
from benchmarks.encoder import CONFIGS, make_module
from ser_jax.audio.reading import file_seconds
from ser_jax.serving.files import find_files

_TRANSPOSED = ('kernel', 'weight_g', 'weight_v')


def write_random_weights(name: str, folder: pathlib.Path) -> None:
    """Writes a Hugging Face folder with random weights of the encoder `CONFIGS[name]`."""
    config = CONFIGS[name]
    module = make_module(config)
    inputs = jnp.zeros((1, 800)), jnp.array([800])
    params = jax.jit(module.init)(jax.random.key(0), *inputs)['params']
    tensors = {
        module.tensor_name(path): np.ascontiguousarray(
            np.asarray(leaf).T if path[-1] in _TRANSPOSED else leaf
        )
        for path, leaf in traverse_util.flatten_dict(params).items()
    }
    safetensors.numpy.save_file(tensors, folder / 'model.safetensors')
    (folder / 'config.json').write_text(json.dumps(config))
    (folder / 'preprocessor_config.json').write_text(json.dumps({'do_normalize': True}))


def main() -> None:
    """Prints the result and writes `--out`."""
    parser = timing.parser(__doc__)
    parser.add_argument('--encoder', required=True)
    parser.add_argument('folder', type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        encoder = options.encoder
        if encoder in CONFIGS:
            encoder = temporary
            write_random_weights(options.encoder, pathlib.Path(temporary))
        command = [sys.executable, '-m', 'ser_jax.encode', f'--encoder={encoder}', '--statistics']
        environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': f'{temporary}/compiled'}
        start = time.perf_counter()
        subprocess.run(
            [*command, str(options.folder)],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        seconds = time.perf_counter() - start
    gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9
    files = [path for path in find_files([options.folder]) if isinstance(path, pathlib.Path)]
    audio = sum(map(file_seconds, files))
    print(
        f'{options.encoder}: {audio / 60:.1f} minutes of audio in {seconds:.1f} s, {audio / seconds:.0f} × real time, '
        f'{gigabytes:.2f} GB resident at most'
    )
    timing.write(options.out, audio_seconds=audio, seconds=seconds, gigabytes=gigabytes)


if __name__ == '__main__':
    main()
