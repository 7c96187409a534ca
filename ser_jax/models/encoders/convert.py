"""Converts pickled encoder weights to safetensors: python -m ser_jax.models.encoders.convert FOLDER_OR_FILE OUT

FOLDER_OR_FILE  a Hugging Face folder with pytorch_model.bin (or its shards), or that file; config.json lies in its folder
OUT             new folder to write: model.safetensors, config.json and preprocessor_config.json

Only the tensors of the encoder are kept, in their type. No code in the file is run: files that need it are refused.
Needs PyTorch: pip install -e '.[parity]'
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('nothing is left behind; the same command starts over')

import argparse
import functools
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import docstring, local_path, remove_leftovers, temporary_beside


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    text = docstring(__file__)
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.models.encoders.convert',
        description=text.partition(':')[0],
        epilog=text[text.index('Only the') :],
        allow_abbrev=False,
    )
    parser.add_argument(
        'source', metavar='FOLDER_OR_FILE', help='a folder with pytorch_model.bin, or that file'
    )
    parser.add_argument('out', metavar='OUT', help='new folder to write')
    options = parser.parse_args(arguments)
    try:
        print(convert(options.source, options.out))
    except UserError as error:
        sys.exit(f'error: {error}')
    return 0


def convert(source: str | Path, out: str | Path) -> str:
    """Converts `pytorch_model.bin` to a folder that `weights.read_checkpoint` reads.

    Args:
        source: Hugging Face folder, with one file or shards; or the file in it.
        out: folder to write, atomically; it must not exist or be empty.

    Returns:
        What was written, one line.

    Raises:
        UserError: PyTorch is missing; no such file, or it is damaged, holds objects other than tensors, or no encoder of a family
            that is supported; `out` exists or cannot be written.
    """
    from ser_jax.models.encoders import weights  # after the flags: JAX is slow to import

    source, out = local_path(source), local_path(out).absolute()
    file = source / weights.PICKLE if source.is_dir() else source
    shards = [] if file.exists() else sorted(source.glob('pytorch_model-*-of-*.bin'))
    files = shards or [file]
    if not files[0].is_file():
        raise UserError(f'{file} is missing')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f'{out} exists: name a new folder')
    config = weights.read_config(file.with_name(weights.CONFIG))
    state = {}
    for one in files:
        with weights.reading(one):  # no pointer of Git LFS
            state |= _load(one)
    names = weights.encoder_tensors(state, config['model_type'], file)
    if not names:
        raise UserError(f'{file} holds no encoder of {config["model_type"]}')
    tensors = {name: state[name] for name in names.values()}
    _check_tensors(tensors, file, sum(one.stat().st_size for one in files))
    temporary = temporary_beside(out)
    tidy = functools.partial(shutil.rmtree, temporary, ignore_errors=True)
    try:
        with signals.on_stop(tidy):
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with the same number
            temporary.mkdir(parents=True)
            _save(tensors, temporary / weights.SINGLE)
            for name in (weights.CONFIG, weights.PREPROCESSOR):
                if file.with_name(name).exists():
                    shutil.copyfile(file.with_name(name), temporary / name)
            size = (temporary / weights.SINGLE).stat().st_size
            if out.exists():
                out.rmdir()
            temporary.rename(out)
            remove_leftovers(out)
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error.strerror}') from error
    finally:
        tidy()
    return f'{out}: {len(tensors)} tensors of a {config["model_type"]} encoder, {size / 1e6:.1f} MB'


def _load(file: Path) -> dict[str, Any]:
    """Reads a pickled state dictionary: name -> PyTorch tensor. No code in it is run."""
    try:
        import torch
    except ImportError as error:
        raise UserError("converting needs PyTorch: pip install -e '.[parity]'") from error
    try:
        archive = zipfile.is_zipfile(file)
        if archive:
            with zipfile.ZipFile(file) as content:
                # PyTorch compresses nothing: a small file cannot take much memory.
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in content.infolist()):
                    raise ValueError('compressed')
        state = torch.load(file, map_location='cpu', weights_only=True, mmap=archive)
    except Exception as error:  # the file may come from anyone: anything may be wrong
        name = re.search(r'GLOBAL ([\w.]+)', str(error))
        reason = f'it names {name[1][:60]}' if name else type(error).__name__
        raise UserError(
            f'{file} is damaged, incomplete, or holds more than tensors ({reason}): get it again, or safetensors instead'
        ) from error
    is_named_tensor = lambda item: isinstance(item[0], str) and isinstance(item[1], torch.Tensor)
    if not isinstance(state, dict) or not all(map(is_named_tensor, state.items())):
        raise UserError(f'{file} is no state dictionary of Hugging Face, name -> tensor')
    return state


def _check_tensors(tensors: Mapping[str, Any], file: Path, size: int) -> None:
    """Refuses tensors that `_save` could not write, or that need more bytes than their files have: repeated values."""
    import torch

    total = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise UserError(f'{file}: {name} is no dense floating-point tensor, but {tensor.dtype}')
        total += tensor.numel() * tensor.element_size()
    if total > size:
        raise UserError(f'{file} is damaged: its tensors are larger than the file')


def _save(tensors: Mapping[str, Any], path: Path) -> None:
    """Writes a safetensors file that transformers reads, too."""
    import safetensors.torch

    # Copies: the format stores no views.
    copies = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    safetensors.torch.save_file(copies, path, metadata={'format': 'pt'})


if __name__ == '__main__':
    sys.exit(main())
