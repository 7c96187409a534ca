"""Writes grid files, and finished runs of a grid."""

from pathlib import Path

import numpy as np
from cards import bare_card

from ser_jax.evaluation import summary
from ser_jax.grid import plan
from ser_jax.metrics.rates import expected_calibration_error
from ser_jax.runs.predictions import Predictions, write_predictions
from ser_jax.runtime import files

LABELS = ['angry', 'happy', 'sad']


def write_grid(path: Path, **content) -> Path:
    """Writes a grid file of one variant, with further content."""
    content = {'config': 'configs/mtl_aug.py', 'variants': {'full': {}}, **content}
    path.write_text(f'def get_grid():\n    return {content!r}\n')
    return path


def make_grid(folder: Path, **content) -> plan.Grid:
    """The grid of such a file."""
    return plan.read_grid(str(write_grid(folder / 'plan.py', **content)))


def fake_result(workdir, run, hits, *, conditions=('clean',), n=24, **fields):
    """Writes a card and predictions of a run that gets `hits` of the utterances of each class right."""
    labels = np.arange(n) % 3
    predicted = np.where(np.arange(n) // 3 < hits, labels, (labels + 1) % 3)
    predictions = Predictions(
        id=[f'u{i:02d}' for i in range(n)],
        fold=['fold_01'] * n,
        speaker=[f'c/{i // 3}' for i in range(n)],
        label=labels,
        probabilities=0.7 * np.eye(3)[predicted] + 0.1,
    )
    folder = workdir / run.folder
    for condition in conditions:
        write_predictions(folder / f'predictions/{condition}.csv', predictions, LABELS)
    error = expected_calibration_error(predictions.probabilities, labels)
    made = {
        'system': run.variant,
        'corpus': 'c',
        'synthetic': True,
        'protocol': 'speaker_folds(4)',
        'n_folds': (1, 4),
        'commit': 'abc',
        'seed': run.seed,
        'conditions': dict.fromkeys(conditions, summary.summarise(predictions, LABELS)),
        'cost': {'train_seconds': 10.0 + 10 * run.seed},
        'calibration': {'clean': {'ece': error}},
    }
    files.write_json(folder / 'results.json', bare_card(LABELS, **made | fields))
