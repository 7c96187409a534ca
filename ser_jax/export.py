"""Exports the final model of a run, from raw samples to probabilities: python -m ser_jax.export --workdir=DIR --out=DIR

--workdir     a finished run of ser_jax.main
--out         folder to write: model, card, a stored example, and run.py, which runs them without ser_jax
--format      stablehlo (any batch and length, for CPU, GPU and TPU) or onnx; default stablehlo
--check=DIR   recompute the stored example of an export instead
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('nothing is left behind; the same command starts over')

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import logging

from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import docstring, set_compilation_cache


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 if an export differs from its example."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.export',
        description=docstring(__file__).partition(':')[0],
        allow_abbrev=False,
    )
    parser.add_argument('--workdir', help='a finished run of ser_jax.main')
    parser.add_argument('--out', help='folder to write')
    parser.add_argument('--format', default='stablehlo', choices=['stablehlo', 'onnx'])
    parser.add_argument('--check', metavar='DIR', help='an export to compare with its example')
    options = parser.parse_args(arguments)
    if options.check is None and None in (options.workdir, options.out):
        parser.error('--workdir and --out, or --check')
    if options.check is not None and (options.workdir, options.out) != (None, None):
        parser.error('--check takes neither --workdir nor --out')
    logging.set_verbosity(logging.ERROR)  # hides warnings of Orbax that do not matter here
    try:
        return _export(options) if options.check is None else _check(options.check)
    except UserError as error:
        sys.exit(f'error: {error}')


def _export(options) -> int:
    set_compilation_cache()
    from ser_jax.serving.export import write_export  # after the flags: JAX is slow to import

    differences = write_export(options.workdir, options.out, options.format)
    print(
        json.loads((Path(options.out).expanduser() / 'card.json').read_text(encoding='utf-8'))[
            'notice'
        ]
    )
    _print_differences(differences)
    print(f'written to {options.out}: see card.json for its use')
    return 0


def _check(folder: str) -> int:
    from ser_jax.runtime import devices
    from ser_jax.serving import standalone

    devices.check_devices()
    try:
        differences = standalone.replay(Path(folder).expanduser())
    except ImportError as error:
        raise UserError(f'{folder} needs another package: {error}') from error
    except Exception as error:  # the files may come from anyone: anything may be wrong
        reason = ascii(' '.join(str(error).split())[:300])[1:-1]
        raise UserError(
            f'{folder} is not a sound export ({type(error).__name__}: {reason})'
        ) from error
    _print_differences(differences)
    sound = all(difference <= standalone.TOLERANCE for difference in differences.values())
    if not sound:
        print(
            f'error: {folder} differs from its example by more than {standalone.TOLERANCE}',
            file=sys.stderr,
        )
    return int(not sound)


def _print_differences(differences: Mapping[str, float]) -> None:
    for task, difference in differences.items():
        # ascii: the names come from a card that may not be ours.
        print(f'{ascii(task)[1:-1]}: largest difference to the example {difference:.1e}')


if __name__ == '__main__':
    sys.exit(main())
