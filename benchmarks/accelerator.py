"""Training step by batch size and precision, compared with PyTorch: python -m benchmarks.accelerator --load=FILE.npz [--out=FILE]

For machines with an accelerator and little else: needs JAX, Flax, Optax and NumPy only; PyTorch is timed too if it can be imported and
uses the same device. The setting and the initial variables come from a file that `--save=FILE.npz` wrote on a machine with all of ser_jax.
`--encoders=whisper_tiny,wav2vec2_base` also times the forward pass and the training step of pretrained encoders, `benchmarks.encoder`,
on utterances of 3.7 s; that needs safetensors, huggingface_hub and librosa too, and transformers for the comparison with PyTorch.
One device; batches are synthetic and stay on it. Both libraries must compute the same losses, at the config's batch size, before
anything is timed, in alternating blocks.

Precisions: float32 (no shortcuts), tf32 (float32 rounded for the matrix units of a GPU: JAX's default there) and bfloat16
(the network's products and activations, on float32 parameters; autocast in PyTorch).
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import statistics
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from flax import traverse_util

from benchmarks import timing
from benchmarks.flops import matrix_flops
from benchmarks.setting import Setting
from benchmarks.trainers import JaxTrainer, same_losses, seconds_per_step
from ser_jax.runtime import devices

# What JAX does with float32 operands.
_PRECISIONS = {'float32': 'highest', 'tf32': 'tensorfloat32', 'bfloat16': 'default'}


def save(path: pathlib.Path, setting: Setting, variables: Mapping) -> None:
    """Writes a setting and the initial variables of `JaxTrainer` as .npz."""
    arrays = traverse_util.flatten_dict(variables, sep='/')
    np.savez(path, setting=json.dumps(dataclasses.asdict(setting)), **arrays)


def load(path: pathlib.Path) -> tuple[Setting, Mapping]:
    """Reads the setting and the variables that `save` wrote."""
    with np.load(path) as file:
        arrays = dict(file)
    setting = Setting(**json.loads(str(arrays.pop('setting'))))
    return setting, traverse_util.unflatten_dict(arrays, sep='/')


def _has_torch() -> bool:
    """Whether PyTorch is installed and uses the same kind of device as JAX."""
    backend = jax.default_backend()
    if importlib.util.find_spec('torch') is None or backend not in ('cpu', 'gpu'):
        return False
    import torch

    return backend == 'cpu' or torch.cuda.is_available()


@contextlib.contextmanager
def _rounding(precision: str, has_torch: bool) -> Iterator[None]:
    """Sets the precision of float32 products in both libraries."""
    if has_torch:
        import torch

        torch.set_float32_matmul_precision('highest' if precision == 'float32' else 'high')
        torch.backends.cudnn.allow_tf32 = precision != 'float32'
    with jax.default_matmul_precision(_PRECISIONS[precision]):
        yield


def check(setting: Setting, precisions: list[str], **options) -> dict[str, list]:
    """The losses of the first steps in both libraries, by precision, see `same_losses`.

    Args:
        setting: training setting.
        precisions: names of precisions; float32 is always checked.
        options: options of `JaxTrainer`.

    Raises:
        AssertionError: the losses differ by more than 0.1 %, or 5 % with rounded products.
    """
    losses = {}
    for precision in dict.fromkeys(['float32', *precisions]):
        with _rounding(precision, True):
            losses[precision] = same_losses(
                setting,
                bfloat16=precision == 'bfloat16',
                tolerance=1e-3 if precision == 'float32' else 0.05,
                **options,
            )
    return losses


def measure(
    setting: Setting, precisions: list[str], has_torch: bool, block: int, blocks: int, **options
) -> tuple[int, dict[tuple[str, str], float]]:
    """Times one batch size.

    Args:
        setting: training setting.
        precisions: names of precisions.
        has_torch: whether PyTorch is timed too.
        block, blocks: arguments of `seconds_per_step`.
        options: options of `JaxTrainer`.

    Returns:
        (FLOPs of the products of a step; (library, precision) -> seconds per step, median).
    """
    runs = {}
    for precision in precisions:
        bfloat16 = precision == 'bfloat16'
        ours = JaxTrainer(setting, bfloat16=bfloat16, **options)
        flops = matrix_flops(ours.step, ours.state, ours.batch)
        trainers = {'ser_jax': ours}
        if has_torch:
            from benchmarks.torch_mtl_aug import TorchTrainer

            trainers['PyTorch'] = TorchTrainer(
                setting, ours.variables()['params'], bfloat16=bfloat16
            )
        for library, trainer in trainers.items():
            runs[library, precision] = _rounded(trainer.run, precision, has_torch)
    times = seconds_per_step(runs, block, blocks)
    return flops, {name: statistics.median(values) for name, values in times.items()}


def measure_encoder(name: str, size: int, precisions: list[str], has_torch: bool, rounds: int):
    """Times a pretrained encoder with random weights, 3.7 s an utterance.

    Args:
        name: key of `encoder.CONFIGS`.
        size: utterances in the batch.
        precisions: names of precisions.
        has_torch: whether PyTorch is timed too.
        rounds: rounds of the timing.

    Returns:
        ('forward' or 'step', library, precision) -> seconds, median.
    """
    from benchmarks import encoder

    batch = encoder.make_batch(size, 3.7)
    config = encoder.CONFIGS[name] | {'max_source_positions': -(-batch.shape[1] // 320)}
    found = {}
    for precision in precisions:
        bfloat16 = precision == 'bfloat16'
        module = encoder.make_module(config, dtype='bfloat16' if bfloat16 else 'float32')
        samples = np.array([batch.shape[1]])
        params = jax.jit(module.init)(jax.random.key(0), batch[:1], samples)['params']
        libraries = {'ser_jax': encoder.our_ways(module, params, batch)}
        if has_torch:
            from benchmarks import torch_encoders

            theirs = torch_encoders.make_encoder(config, batch.shape[1])
            device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
            libraries['PyTorch'] = torch_encoders.make_ways(
                theirs.to(device), batch, encoder.RATE, False, bfloat16
            )
        for what in ('forward', 'step'):
            runs = {
                library: _rounded(ways[what], precision, has_torch)
                for library, ways in libraries.items()
            }
            timing.alternate(runs, 2)  # compiles
            for library, values in timing.alternate(runs, rounds).items():
                found[what, library, precision] = statistics.median(values)
    return found


def _rounded(run: Callable, precision: str, has_torch: bool) -> Callable:
    def rounded(*arguments) -> None:
        with _rounding(precision, has_torch):
            run(*arguments)

    return rounded


def main() -> None:
    """Prints the table and writes `--out`, or writes the file of `--save`."""
    parser = timing.parser(__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument('--save', type=pathlib.Path, metavar='FILE.npz')
    which.add_argument('--load', type=pathlib.Path, metavar='FILE.npz')
    parser.add_argument('--config', default='demo_speech', help='corpus whose config is saved')
    parser.add_argument('--batch_sizes', default='32,64,128,256,512,1024')
    parser.add_argument('--encoders', default='', help='comma-separated; default none')
    parser.add_argument('--precisions', default='float32,bfloat16', help=', '.join(_PRECISIONS))
    parser.add_argument('--peak_tflops', help="the device's, one number a precision")
    parser.add_argument('--block', type=int, default=20, help='steps of a block')
    parser.add_argument('--blocks', type=int, default=8)
    options = parser.parse_args()
    if options.save:
        from configs.mtl_aug import get_config  # needs packages that `--load` does not

        setting = Setting.of(get_config(options.config))
        save(options.save, setting, JaxTrainer(setting).variables())
        return

    precisions = options.precisions.split(',')
    peaks = [float(number) for number in (options.peak_tflops or '').split(',') if number]
    if peaks and len(peaks) != len(precisions):
        parser.error('--peak_tflops needs one number a precision')
    # On a GPU JAX allocates three quarters of the memory at once, but PyTorch needs some too.
    os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
    setting, variables = load(options.load)
    sizes = [int(size) for size in options.batch_sizes.split(',')]
    first_device = devices.ParallelRuns(jax.device_count()).mesh
    given = {'variables': variables, 'placement': devices.DataParallel(first_device)}
    has_torch = _has_torch()
    losses = None
    if has_torch:
        losses = check(setting, precisions, **given)
        print('losses of the first steps (ser_jax, PyTorch):', losses)

    rows = []
    for size in sizes:
        batches = dataclasses.replace(setting, batch_size=size)
        flops, seconds = measure(
            batches, precisions, has_torch, options.block, options.blocks, **given
        )
        for (library, precision), value in seconds.items():
            row = {
                'batch_size': size,
                'library': library,
                'precision': precision,
                'seconds_per_step': value,
                'utterances_per_second': size / value,
                'tflops': flops / value / 1e12,
            }
            if peaks:
                row['utilisation'] = row['tflops'] / peaks[precisions.index(precision)]
            rows.append(row)
            share = f'   {row["utilisation"]:.2%} of the peak' if peaks else ''
            print(
                f'{size:6} {library} {precision:8} {1000 * value:8.2f} ms a step '
                f'{size / value:8.0f} utterances/s {row["tflops"]:8.3f} TFLOP/s{share}'
            )
    for name in filter(None, options.encoders.split(',')):
        for size in sizes:
            found = measure_encoder(name, size, precisions, has_torch, options.blocks)
            for (what, library, precision), value in found.items():
                row = {'encoder': name, 'what': what, 'batch_size': size, 'library': library}
                row |= {'precision': precision, 'seconds': value}
                row['utterances_per_second'] = size / value
                rows.append(row)
                print(
                    f'{name} {what} {size:6} {library} {precision:8} {1000 * value:8.2f} ms '
                    f'{size / value:8.0f} utterances/s',
                    flush=True,
                )
    versions = {}
    if has_torch:
        import torch

        versions['torch'] = torch.__version__
    timing.write(options.out, rows=rows, losses=losses, **versions)


if __name__ == '__main__':
    main()
