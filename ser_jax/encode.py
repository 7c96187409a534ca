"""Computes the frames of a pretrained encoder for recordings: python -m ser_jax.encode --encoder=NAME FILE_OR_FOLDER...

--encoder     a Hugging Face name (openai/whisper-tiny.en) or a folder, see docs/encoders.md
--layers      comma-separated numbers of layers; default all
--statistics  mean and standard deviation over time [layers, 2 D] instead of frames [layers, T, D]
--out         .npz file to write, one float32 array a recording
--dtype       float32, or bfloat16 on accelerators
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command starts over')

import argparse
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tqdm

from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import local_path, replacing, set_compilation_cache


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 where a file could not be used."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.encode',
        description=__doc__.partition(':')[0],
        epilog='The numbers of a layer in the printed table are the mean and the standard deviation over its frames.',
    )
    parser.add_argument('--encoder', required=True, help='a Hugging Face name or a folder')
    parser.add_argument('--layers', type=_numbers, help='comma-separated; default all')
    parser.add_argument('--statistics', action='store_true', help='mean and deviation over time')
    parser.add_argument('--out', metavar='FILE.npz', type=local_path, help='file to write')
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
    parser.add_argument('paths', nargs='+', metavar='FILE_OR_FOLDER', help='as in ser_jax.predict')
    options = parser.parse_args(arguments)
    set_compilation_cache()
    try:
        return _encode(options)
    except UserError as error:
        sys.exit(f'error: {error}')


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(',')))


def _encode(options) -> int:
    # After the flags: JAX is slow to import.
    from ser_jax.encoding.extraction import Extractor
    from ser_jax.models.encoders.pretrained import SAMPLE_RATE, load_encoder
    from ser_jax.serving.files import find_files, map_files

    encoder = load_encoder(options.encoder, dtype=options.dtype)
    module = encoder.module
    print(
        f'{encoder.name}: {encoder.family}, {encoder.size / 1e6:.1f} M parameters, layers 0 to {module.outputs - 1} of '
        f'{module.width}, {SAMPLE_RATE / module.stride:g} frames a second, fingerprint {encoder.fingerprint[:16]}'
        + (f', revision {encoder.revision}' if encoder.revision else '')
    )
    extractor = Extractor(encoder, layers=options.layers, statistics=options.statistics)
    if '-' in options.paths:
        sys.stdin.reconfigure(errors='surrogateescape')
    found = list(find_files(options.paths))
    files = [path for path in found if isinstance(path, Path)]
    problems = [problem for problem in found if isinstance(problem, str)]
    # A recording that is too short must not end the others.
    encode = lambda waveforms: _encode_usable(extractor, module.min_samples, waveforms)
    results = map_files(encode, files, SAMPLE_RATE)
    disable = True if len(files) < 2 else None  # None: unless standard error is a terminal
    results = tqdm.tqdm(results, total=len(files), unit='file', disable=disable)
    if options.out is None:
        for path, array in results:
            _report(path, array, extractor.layers, options.statistics, problems)
    else:
        _write(options.out, results, extractor.layers, options.statistics, problems)
    for problem in problems:
        print(f'error: {problem}', file=sys.stderr)
    return int(bool(problems))


def _encode_usable(extractor, least: int, waveforms: list[np.ndarray]) -> list[np.ndarray | str]:
    usable = [waveform for waveform in waveforms if len(waveform) >= least]
    encoded = iter(extractor(usable))
    short = f'too short for the encoder, which takes {least} samples at 16 kHz or more'
    return [next(encoded) if len(waveform) >= least else short for waveform in waveforms]


def _report(path, array, layers, statistics, problems) -> bool:
    """Prints one recording, or notes why it cannot be used; returns whether it can."""
    if isinstance(array, str):
        problems.append(array if array.startswith(str(path)) else f'{path}: {array}')
        return False
    with tqdm.tqdm.external_write_mode(file=sys.stdout):
        mean, deviation = (
            np.split(array, 2, axis=-1)
            if statistics
            else (array.mean(axis=1), array.std(axis=1))
        )
        numbers = '  '.join(
            f'{layer}: {a.mean():.5f} {b.mean():.5f}'
            for layer, a, b in zip(layers, mean, deviation)
        )
        frames = '' if statistics else f'  {array.shape[1]} frames'
        print(f'{path}{frames}  {numbers}')
    return True


def _write(out: Path, results: Iterator, layers, statistics, problems) -> None:
    """Writes the arrays to a .npz file, one after the other: they need not fit into memory."""
    if out.suffix != '.npz':
        raise UserError(f'--out={out}: the name of the file has to end with .npz')
    try:
        with replacing(out) as temporary, zipfile.ZipFile(temporary, 'w') as archive:
            names = set()
            for path, array in results:
                if not _report(path, array, layers, statistics, problems):
                    continue
                if str(path) in names:
                    continue
                names.add(str(path))
                with archive.open(f'{path}.npy', 'w', force_zip64=True) as file:
                    np.lib.format.write_array(file, array)
            with archive.open('layers.npy', 'w') as file:
                np.lib.format.write_array(file, np.array(layers))
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error.strerror}') from error


if __name__ == '__main__':
    sys.exit(main())
