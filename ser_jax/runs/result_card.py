"""The result card of a run, `results.json`: what it holds, how it is written and validated."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import _plain
from ser_jax.runtime.schema import read_json

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


def result_card(
    *,
    system: str,
    config_hash: str,
    config: Mapping,
    corpus: str,
    trained_on: Sequence[str],
    corpus_hash: str,
    synthetic: bool,
    labels: Sequence[str],
    tasks: Mapping[str, Sequence[str]],
    protocol: str,
    n_folds: tuple[int, int],
    environment: Mapping,
    seed: int,
    n_params: int,
    conditions: Mapping[str, Mapping],
    leak_check: Mapping[str, int],
    cost: Mapping[str, float],
    validation: Mapping | None = None,
    attack_checks: Sequence[Mapping] = (),
    tested_with: Mapping | None = None,
    n_labels: Mapping | None = None,
    calibration: Mapping | None = None,
) -> dict:
    """The result card: everything that `results.json` says about a run.

    Args:
        system: name of the configuration, e.g. `mtl_aug` or `mtl_aug,single_task`.
        config_hash: of the whole configuration but its seed.
        config: that configuration, dotted field -> value.
        corpus: name of the corpus; `corpus_hash`, `synthetic`: from its metadata.
        trained_on: names of the corpora whose labels trained.
        labels: the emotions.
        tasks: reported task -> its class names.
        protocol: call string.
        n_folds: (folds that were run, folds that the protocol has).
        environment: `environment.joined(…)`: 'commit', 'versions', 'device'.
        seed: of training.
        n_params: number of trained parameters.
        conditions: name -> `summarise(…)`; `clean` is the plain one. Empty with `report_test =
            False`.
        leak_check: `leaks.check_folds(…)`.
        cost: `train_seconds`, `compile_seconds`, `utterances_per_second`, `peak_memory_mb`,
            `data_wait_fraction`.
        validation: `summarise_validation(…)` or None; only then does the card have it.
        attack_checks: `conditions.attack_checks(…)`; where there are any the card has them.
        tested_with: `reporting.tested_with(…)`; likewise.
        n_labels: utterances a fold whose labels were used, by side; likewise.
        calibration: `clean`, … -> `calibration.calibrate(…)`; likewise.

    Returns:
        The card, in plain Python values.
    """
    card = {
        'system': system,
        'config_hash': config_hash,
        **environment,
        'corpus': corpus,
        'trained_on': trained_on,
        'corpus_hash': corpus_hash,
        'synthetic': synthetic,
        'labels': labels,
        'tasks': tasks,
        'protocol': protocol,
        'n_folds': n_folds,
        'seed': seed,
        'n_params': n_params,
        'conditions': conditions,
        'leak_check': leak_check,
        'cost': cost,
    }
    if validation is not None:
        card['validation'] = validation
    if attack_checks:
        card['attack_checks'] = attack_checks
    if calibration:
        card['calibration'] = calibration
    card['config'] = config
    if n_labels:
        card['n_labels'] = n_labels
    if tested_with:
        card['tested_with'] = tested_with
    return _plain(card)
