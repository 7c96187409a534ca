"""Writes grid files, and finished runs of a grid."""

from pathlib import Path

import numpy as np

from ser_jax.evaluation import summary as evaluation
from ser_jax.grid import plan
from ser_jax.metrics.rates import expected_calibration_error
from ser_jax.runs import result_card
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
    summary = evaluation.summarise(predictions, LABELS)
    card = result_card.make_card(
        **{
            'system': run.variant,
            'config_hash': '1',
            'config': {},
            'corpus': 'c',
            'trained_on': ['c'],
            'corpus_hash': '2',
            'synthetic': True,
            'labels': LABELS,
            'tasks': {'emotion': LABELS},
            'protocol': 'speaker_folds(4)',
            'n_folds': (1, 4),
            'commit': 'abc',
            'versions': {},
            'device': '1 × cpu',
            'seed': run.seed,
            'n_params': 1,
            'conditions': dict.fromkeys(conditions, summary),
            'leak_check': {'scripts': 0},
            'cost': {'train_seconds': 10.0 + 10 * run.seed},
            'calibration': {
                'clean': {'ece': expected_calibration_error(predictions.probabilities, labels)}
            },
            **fields,
        }
    )
    files.write_json(folder / 'results.json', card)
