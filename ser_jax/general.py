"""Trains the general model, which ser_jax ships: python -m ser_jax.general

--workdir     folder of the runs; default runs/general. Finished ones in it are kept
--out         folder that receives the model; default: that of the model that comes with ser_jax

Runs the grid configs/grids/general.py, chooses the system that carries over best to a corpus unseen in training, trains it on
all corpora of the grid, and tests it on URDU. Needs emodb, ravdess, nemo and urdu.
"""

from ser_jax.runtime import signals

if __name__ == '__main__':
    signals.handle('the same command resumes from here', seconds=9.5)

import argparse
import dataclasses
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ser_jax.config import parse_config
from ser_jax.evaluation.calibration import fit_temperature, tempered
from ser_jax.grid import plan
from ser_jax.grid.plan import Run
from ser_jax.metrics.rates import expected_calibration_error
from ser_jax.runs import workdir as workdirs
from ser_jax.runs.finished import read_card, read_condition
from ser_jax.runs.predictions import Predictions
from ser_jax.runtime.errors import UserError, report_errors
from ser_jax.runtime.files import (
    docstring,
    library_path,
    local_path,
    replace_folder,
    temporary_beside,
    write_atomically,
    write_json,
)
from ser_jax.runtime.schema import read_json
from ser_jax.runtime.text import interval, markdown_table, percent
from ser_jax.serving import shipped

GRID = 'configs/grids/general.py'
LAST = 'urdu'  # tested with the shipped model only
LANGUAGES = {'emodb': 'German', 'ravdess': 'English', 'nemo': 'Polish', 'urdu': 'Urdu'}
MOST_BYTES = 4_000_000  # of the shipped model


@report_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 if a run failed."""
    parser = argparse.ArgumentParser(
        prog='python -m ser_jax.general',
        description=docstring(__file__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--workdir', default='runs/general', help=argparse.SUPPRESS)
    parser.add_argument('--out', default=shipped.FOLDER / shipped.GENERAL, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        from ser_jax.grid import runs  # imports JAX: not for --help

        workdir, grid = library_path(options.workdir), plan.read_grid(GRID)
        runs.check_grid(workdir, grid, write=True)
        if failures := runs.run_all(list(enumerate(grid.runs, 1)), workdir, len(grid.runs)):
            raise UserError(f'{len(failures)} runs failed: the same command tries them again')
        last = last_run(grid.runs, choose(grid.runs, workdir))
        if failures := runs.run_all([(1, last)], workdir, 1):
            raise UserError(next(iter(failures.values())))
        pack(grid.runs, workdir, last, local_path(options.out))
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(f'{options.out}: the general model, {last.variant}')
    return 0


def all_corpora(runs: Sequence[Run]) -> list[str]:
    """The corpora that are tested in turn."""
    return list(dict.fromkeys(run.config.corpus for run in runs))


def inner(runs: Sequence[Run], left_out: str = '') -> list[Run]:
    """The runs by which a choice for a corpus is made: that corpus neither trains nor is tested in them.

    Args:
        runs: runs of the grid.
        left_out: the corpus; '': the choice for the shipped model, by the runs that train on all corpora but the tested one.
    """
    if left_out:
        return [run for run in runs if left_out not in (run.config.corpus, *run.config.labelled)]
    return [run for run in runs if len(run.config.labelled) == len(all_corpora(runs)) - 1]


def choose(runs: Sequence[Run], workdir: Path, left_out: str = '') -> str:
    """The variant with the highest mean UAR over the runs of `inner`."""
    rates = {}
    for run in inner(runs, left_out):
        rates.setdefault(run.variant, []).append(
            read_card(workdir / run.folder)['conditions']['clean']['uar']
        )
    return max(rates, key=lambda variant: statistics.mean(rates[variant]))


def fit(runs: Sequence[Run], workdir: Path, variant: str, left_out: str = '') -> tuple[float, int]:
    """The temperature of a variant by the runs of `inner`, and the number of their predictions."""
    found = [
        _predictions(workdir / run.folder)
        for run in inner(runs, left_out)
        if run.variant == variant
    ]
    probabilities = np.concatenate([predictions.probabilities for predictions in found])
    labels = np.concatenate([predictions.label for predictions in found])
    return fit_temperature(probabilities, labels), len(labels)


def last_run(runs: Sequence[Run], variant: str) -> Run:
    """The run that trains a variant on all corpora of the grid and tests it on `LAST`; its final model is shipped."""
    run = next(run for run in inner(runs) if run.variant == variant)
    trained = tuple(all_corpora(runs))
    flags = [
        run.flags[0].replace(f':{run.config.corpus},', f':{LAST},'),
        *(flag for flag in run.flags[1:] if not flag.startswith('--config.labelled=')),
        f'--config.labelled={trained!r}',
        '--config.final=True',
    ]
    name = f'{LAST}_from_{"_".join(trained)}'
    return dataclasses.replace(run, setting=name, flags=tuple(flags), config=parse_config(flags))


def pack(runs: Sequence[Run], workdir: Path, last: Run, folder: Path) -> None:
    """Writes the shipped model: what `predict` reads of the last run, its temperature, and a table.

    Args:
        runs: runs of the grid.
        workdir: their folder.
        last: run of `last_run`.
        folder: receives the model.

    Raises:
        UserError: the model is larger than `MOST_BYTES`, or a run was made by code that is not committed.
    """
    source, card = workdir / last.folder, read_card(workdir / last.folder)
    for run in [*runs, last]:
        commit = read_card(workdir / run.folder)['commit']
        if '+' in commit:
            raise UserError(
                f'{workdir / run.folder} was made by code that is not committed ({commit})'
            )
    temperature, n = fit(runs, workdir, last.variant)
    card['calibration'] = {
        'clean': {
            'ece': _error(_predictions(source)),
            'ece_calibrated': _error(_predictions(source), temperature),
            'temperature': temperature,
            'n_validation': n,
        }
    }
    new = temporary_beside(folder)
    try:
        _write(runs, workdir, last, card, folder, new)
        replace_folder(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _write(
    runs: Sequence[Run], workdir: Path, last: Run, card: dict[str, Any], folder: Path, new: Path
) -> None:
    """Writes the files of `pack` to a new folder."""
    from ser_jax.runs import checkpoints  # imports JAX: not for --help

    source, temperature = workdir / last.folder, card['calibration']['clean']['temperature']
    best = Path('checkpoints') / 'final' / 'best'
    checkpoints.copy(source / best, new / best)
    shutil.copy(workdirs.summary_file(source, 'final'), workdirs.summary_file(new, 'final'))
    write_json(new / 'config.json', read_json(source / 'config.json', dict))
    write_json(new / 'results.json', card)
    rows = [_row(runs, workdir, corpus) for corpus in all_corpora(runs)]
    rows.append(_cells(card, last, source, temperature))
    table = markdown_table(rows[0], [row.values() for row in rows])
    write_atomically(new / 'table.md', f'# The general model on other corpora\n\n{table}\n')
    size = sum(path.stat().st_size for path in new.rglob('*') if path.is_file())
    if size > MOST_BYTES:
        raise UserError(f'{new} holds {size} bytes, more than {MOST_BYTES}')
    for path in folder.glob('*.md'):  # licence and card are written by hand
        if path.name != 'table.md':
            shutil.copy(path, new / path.name)


def _row(runs: Sequence[Run], workdir: Path, left_out: str) -> dict[str, str]:
    """The row of a corpus that neither trains nor is looked at by the choices."""
    variant = choose(runs, workdir, left_out)
    [run] = [run for run in inner(runs) if (run.config.corpus, run.variant) == (left_out, variant)]
    temperature, _ = fit(runs, workdir, variant, left_out)
    source = workdir / run.folder
    return _cells(read_card(source), run, source, temperature)


def _cells(card: Mapping[str, Any], run: Run, source: Path, temperature: float) -> dict[str, str]:
    clean, others = card['conditions']['clean'], dict(card['conditions'])
    del others['clean']
    predictions = _predictions(source)
    return {
        'tested': f'{run.config.corpus} ({LANGUAGES[run.config.corpus]})',
        'trained on': ', '.join(run.config.labelled),
        'system': run.variant,
        'n': str(clean['n']),
        'UAR % [95 % interval]': f'{percent(clean["uar"])} {interval(clean["uar_ci95"])}',
        **{f'recall {label}': percent(value) for label, value in clean['recall'].items()},
        'ECE %': percent(_error(predictions, temperature)),
        **{name: percent(result['uar']) for name, result in others.items()},
    }


def _predictions(workdir: Path) -> Predictions:
    return read_condition(workdir, 'clean')[0]


def _error(predictions: Predictions, temperature: float = 1.0) -> float:
    """The expected calibration error with a temperature."""
    scaled = tempered(predictions.probabilities, temperature)
    return float(expected_calibration_error(scaled, predictions.label))


if __name__ == '__main__':
    sys.exit(main())
