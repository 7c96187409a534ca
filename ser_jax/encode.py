"""Computes the frames of a pretrained encoder for recordings: python -m ser_jax.encode --encoder=NAME FILE_OR_FOLDER..."""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command starts over')

import argparse
import contextlib
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm

from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import docstring, local_path, replacing, set_compilation_cache

_LAYERS = 'layers'  # array with the numbers of the layers


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 where a file could not be used."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.encode',
        description=docstring(__file__).partition(':')[0],
        epilog='Printed for each layer: mean and standard deviation of all its values. Exit status 1 if a file could not be '
        'used; the others are encoded all the same.',
        allow_abbrev=False,
    )
    parser.add_argument(
        '--encoder',
        required=True,
        help='a Hugging Face name (openai/whisper-tiny.en) or a folder, see docs/encoders.md',
    )
    parser.add_argument('--layers', type=_numbers, help='comma-separated numbers; default all')
    parser.add_argument(
        '--statistics',
        action='store_true',
        help='mean and standard deviation over time [layers, 2 D] instead of frames [layers, T, D]',
    )
    parser.add_argument(
        '--out', metavar='FILE.npz', type=Path, help='file to write, a float32 array a recording'
    )
    parser.add_argument(
        '--export',
        metavar='FILE',
        type=Path,
        help='file to write the encoder to, as StableHLO that runs without ser_jax',
    )
    parser.add_argument(
        '--dtype',
        default='float32',
        choices=['float32', 'bfloat16'],
        help='bfloat16: for accelerators',
    )
    parser.add_argument('paths', nargs='*', metavar='FILE_OR_FOLDER', help='as in ser_jax.predict')
    options = parser.parse_args(arguments)
    if not options.paths and not options.export:
        parser.error('recordings, or --export')
    if options.out and options.out.suffix != '.npz':
        parser.error(f'--out={options.out}: the name has to end with .npz')
    set_compilation_cache()
    try:
        return _encode(options)
    except UserError as error:
        sys.exit(f'error: {error}')


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, text.split(',')))
    except ValueError as error:
        raise argparse.ArgumentTypeError('whole numbers separated by commas') from error


def _encode(options) -> int:
    # After the flags: JAX is slow to import.
    from ser_jax.encoding.extraction import Extractor, export_encoder
    from ser_jax.models.encoders.pretrained import SAMPLE_RATE, load_encoder
    from ser_jax.runtime import devices
    from ser_jax.serving.files import find_files, map_files

    devices.start_processes()
    devices.check_devices()
    encoder = load_encoder(options.encoder, dtype=options.dtype)
    output = 'statistics' if options.statistics else 'frames'
    extractor = Extractor(encoder, layers=options.layers, output=output)
    show = print
    if not devices.is_main_process():  # it only computes its share
        options.out = options.export = None
        show = lambda line: None
    show(encoder.summary())
    if options.export:
        with _writing(options.export) as path:
            path.write_bytes(export_encoder(encoder, extractor.layers))
    if '-' in options.paths:
        sys.stdin.reconfigure(errors='surrogateescape')
    found = list(dict.fromkeys(find_files(options.paths)))
    files = [path for path in found if isinstance(path, Path)]
    problems = [problem for problem in found if isinstance(problem, str)]
    least = encoder.module.min_samples
    # A recording that is too short must not end the others.
    encode = lambda waveforms: _encode_usable(extractor, least, waveforms)
    disable = True if len(files) < 2 else None  # None: unless standard error is a terminal
    with (
        _archive(options.out) as add,
        tqdm.tqdm(total=len(files), unit='file', disable=disable) as bar,
    ):
        for path, array in map_files(encode, files, SAMPLE_RATE):
            if isinstance(array, str):
                problems.append(array if array.startswith(str(path)) else f'{path}: {array}')
            else:
                with tqdm.tqdm.external_write_mode(file=sys.stdout):
                    show(_line(path, array, extractor.layers, options.statistics))
                add(_key(path), array)
            bar.update()
        add(_LAYERS, np.array(extractor.layers))
    for problem in problems if devices.is_main_process() else ():
        print(f'error: {problem}', file=sys.stderr)
    return int(bool(problems))


def _encode_usable(extractor, least: int, waveforms: list[np.ndarray]) -> list[np.ndarray | str]:
    """The result for each recording, or why there is none."""
    usable = [waveform for waveform in waveforms if len(waveform) >= least]
    encoded = iter(extractor(usable))
    short = f'too short for the encoder, which takes {least} samples at 16 kHz or more'
    return [next(encoded) if len(waveform) >= least else short for waveform in waveforms]


def _key(path: Path) -> str:
    """The name of a recording in the archive; file names need not be valid text, and one name is taken."""
    name = str(path).encode('utf-8', 'backslashreplace').decode()
    return f'./{name}' if name == _LAYERS else name


def _line(path: Path, array: np.ndarray, layers: Sequence[int], statistics: bool) -> str:
    """What is printed for a recording."""
    if statistics:
        mean, deviation = np.split(array, 2, axis=-1)
        rows = ((f'{layer}:', a.mean(), b.mean()) for layer, a, b in zip(layers, mean, deviation))
        text = ''
    else:
        rows = ((f'{layer}:', a.mean(), a.std()) for layer, a in zip(layers, array))
        text = f'  {array.shape[1]} frames'
    return f'{path}{text}' + ''.join(f'  {layer} {a:.5f} {b:.5f}' for layer, a, b in rows)


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[Path]:
    """`replacing`, with errors of the disk in one line."""
    try:
        with (
            replacing(local_path(out)) as temporary,
            signals.on_stop(lambda: temporary.unlink(missing_ok=True)),
        ):
            yield temporary
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error.strerror}') from error


@contextlib.contextmanager
def _archive(out: Path | None) -> Iterator[Callable[[str, np.ndarray], None]]:
    """Yields a function that adds a named array to a .npz file: all of them need not fit into memory."""
    if out is None:
        yield lambda name, array: None
        return
    with _writing(out) as temporary, zipfile.ZipFile(temporary, 'w') as archive:

        def add(name, array):
            with archive.open(f'{name}.npy', 'w', force_zip64=True) as file:
                np.lib.format.write_array(file, array)

        yield add


if __name__ == '__main__':
    sys.exit(main())
