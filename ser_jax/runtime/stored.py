"""Files of finished runs and prepared records, read with suspicion: the folder may come from a stranger."""

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

from ser_jax.runtime.errors import UserError

_LARGEST = 2**53  # more is no count, time or loss
_NUMBER, _MAYBE = (int, float), (int, float, type(None))
_FOLDS = [{'fold': str, 'n': int, 'uar': _MAYBE, 'validation_speakers': [str]}]
_CONDITION = {
    'n': int,
    'uar': _NUMBER,
    'uar_ci95': [_MAYBE, _MAYBE],
    'wa': _NUMBER,
    'macro_f1': _NUMBER,
    'recall': {str: _MAYBE},
    'confusion': [[int]],
    'folds': [{'fold': str, 'n': int, 'uar': _MAYBE, 'wa': _MAYBE, 'test_speakers': [str]}],
    'ccc?': _NUMBER,
    'ccc_ci95?': [_MAYBE, _MAYBE],
    'perturbation_snr_db?': _NUMBER,
}
# What a reader of a result card relies on. A shape is a type, a tuple of types, [shape] of any length, [shape, shape] of two alike, or {name: shape},
# where `name?` may be missing, further names may be there, and {str: shape} has any names. Numbers are finite.
CARD = {
    'system': str,
    'config_hash': str,
    'commit': str,
    'device': str,
    'versions?': {str: str},
    'corpus': str,
    'corpus_hash': str,
    'synthetic': bool,
    'labels': [str],
    'tasks?': {str: [str]},
    'trained_on?': [str],
    'protocol': str,
    'n_folds': [int, int],
    'seed': int,
    'n_params': int,
    'conditions': {str: _CONDITION},
    'leak_check': {
        **dict.fromkeys(('speakers?', 'audio?', 'ids?'), int),
        'scripts': int,
        'unknown_speakers?': int,
        'excluded?': int,
    },
    'cost': {str: _MAYBE},
    'validation?': {
        'uar': _NUMBER,
        'ccc?': _NUMBER,
        'folds': _FOLDS,
        'conditions?': {str: _NUMBER},
    },
    'attack_checks?': [{'check': str, 'holds': bool}],
    'calibration?': {str: {'temperature?': _NUMBER, 'ece_calibrated?': _MAYBE}},
    'config?': {str: object},
    'tested_with?': {str: object},
    'n_labels?': {'train': _NUMBER, 'validation': _NUMBER},
}
CONFIG = {
    'representation': str,
    'model': {'name': str},
    'tasks': {str: {'kind': str, 'target': str}},
    'data': {
        'front_end': {
            **dict.fromkeys(('sample_rate', 'n_fft', 'win_length', 'hop_length', 'n_mels'), int),
            **dict.fromkeys(('fmin', 'fmax', 'floor'), _NUMBER),
        }
    },
}
_TEXTS = 'emotion', 'speaker', 'side'  # of an embedding, beside x and y
_PLOTTED = 'loss', 'validation_uar', 'validation_ccc'
_METRICS = {'fold': str, 'step': int}

# The kinds of fields that records have, and what TFDS says of each.
_KINDS = {
    'features_dict.FeaturesDict': 'featuresDict',
    'class_label_feature.ClassLabel': 'classLabel',
    'tensor_feature.Tensor': 'tensor',
    'text_feature.Text': 'text',
}


def read_json(path: Path, shape: Any) -> Any:
    """Reads a file that must have a shape.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read, is not JSON, or has another shape.
    """
    try:
        return _checked(json.loads(path.read_text(encoding='utf-8')), shape)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(path) from error
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, without one that is being written; [] where there is no such file.

    Raises:
        UserError: it holds something else.
    """
    try:
        lines = path.read_text(encoding='utf-8').splitlines() if path.exists() else []
        rows = [_checked(json.loads(line), _METRICS) for line in lines if line.endswith('}')]
        # Of training that diverged anything may be told: no point of a curve.
        for row in rows:
            row.update({name: None for name in _PLOTTED if _problem(row.get(name), _NUMBER, '')})
        return rows
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error


def read_card(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """The result card of a finished run; None where there is none yet.

    Args:
        workdir: of the run, or a folder of `results/`.

    Raises:
        UserError: it cannot be read, or is no result card.
    """
    path = Path(workdir) / 'results.json'
    try:
        card = read_json(path, CARD)
    except FileNotFoundError:
        return None
    parts = card['corpus'].split('/')  # csv_corpus/NAME
    for name in (*card['conditions'], *card.get('tasks', ()), *parts):  # files are named after them
        if name in ('', '.', '..') or any(separator in name for separator in '/\\\0'):
            raise UserError(f'{path} is not what ser_jax writes: {name!r} is no name of a file')
    for name, found in card['conditions'].items():
        classes = len(found['recall'])
        told = [recall for recall in found['recall'].values() if recall is not None]
        square = [len(row) for row in found['confusion']] == classes * [classes]
        rated = {'ccc', 'ccc_ci95'} & found.keys()
        if not (told and square and found['folds']) or len(rated) == 1:
            raise UserError(
                f'{path} is not what ser_jax writes: {name} lacks classes, folds, an interval or cells of its matrix'
            )
    if not card['conditions'] and not card.get('validation', {}).get('folds'):
        raise UserError(f'{path} is not what ser_jax writes: it holds no result')
    return card


def read_embedding(path: Path) -> list[dict[str, str]]:
    """The rows of `report/embedding.csv`; [] where there is no such file.

    Raises:
        UserError: it holds something else.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            rows = list(csv.DictReader(file))
        texts = all(isinstance(row[name], str) for row in rows for name in _TEXTS)
        if not texts or not all(math.isfinite(float(row[axis])) for row in rows for axis in 'xy'):
            raise ValueError('a row is not whole')
        return rows
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error


def check_features(path: Path) -> None:
    """Refuses a `features.json` of prepared records that names other kinds of fields than ours: TFDS imports what it names.

    Raises:
        UserError: it does, or cannot be read.
    """
    try:
        if _is_known(json.loads(path.read_text(encoding='utf-8'))):
            return
    except (OSError, ValueError, RecursionError):
        pass
    raise UserError(f'{path} is not what was written: delete the folder and prepare it anew')


def _checked(found: Any, shape: Any) -> Any:
    problem = _problem(found, shape, '')
    if problem:
        raise ValueError(problem)
    return found


def _problem(found: Any, shape: Any, where: str) -> str:
    """Where something has not the shape it should have, and what is there; '' where it has."""
    if isinstance(shape, list | dict):
        if not isinstance(found, type(shape)):
            return _told(found, where)
        if isinstance(shape, list):
            if len(shape) > 1 and len(found) != len(shape):
                return _told(found, where)
            parts = [(str(number), one, shape[0]) for number, one in enumerate(found)]
        elif str in shape:
            parts = [(name, one, shape[str]) for name, one in found.items()]
        else:
            names = {name.removesuffix('?'): name for name in shape}
            lacking = [name for name in names if name not in found and name in shape]
            if lacking:
                return f'{where + ": " if where else ""}it lacks {", ".join(lacking)}'
            parts = [
                (name, found[name], shape[own]) for name, own in names.items() if name in found
            ]
        problems = (_problem(one, own, f'{where}.{name}'.strip('.')) for name, one, own in parts)
        return next(filter(None, problems), '')
    wanted = shape if isinstance(shape, tuple) else (shape,)
    fits = isinstance(found, wanted) and not (isinstance(found, bool) and bool not in wanted)
    fits &= not isinstance(found, int | float) or abs(found) <= _LARGEST  # false of NaN
    return '' if fits or object in wanted else _told(found, where)


def _told(found: Any, where: str) -> str:
    return f'{where or "the whole"} is {json.dumps(found)[:60]}'


def _is_known(feature: object) -> bool:
    """Whether a feature in TFDS' JSON is of the kinds that records have: TFDS imports any module that it names."""
    if not isinstance(feature, dict):
        return False
    own = str(feature.get('pythonClassName')).removeprefix('tensorflow_datasets.core.features.')
    if feature.keys() != {'pythonClassName', _KINDS.get(own)}:
        return False
    told = feature[_KINDS[own]]
    if own != 'features_dict.FeaturesDict':
        return isinstance(told, dict) and told.keys() <= {
            'dtype',
            'encoding',
            'shape',
            'numClasses',
        }
    return told.keys() == {'features'} and all(map(_is_known, told['features'].values()))
