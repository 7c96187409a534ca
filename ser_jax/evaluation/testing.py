"""Predicts the folds, and other corpora, under every condition of a run; what is up to date is kept."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from ser_jax.data.dataset import Dataset
from ser_jax.data.folds import Fold
from ser_jax.data.labels import level_of
from ser_jax.evaluation.cross_corpus import CrossCorpusTester
from ser_jax.evaluation.robustness import RobustnessTester
from ser_jax.runs import workdir as workdirs
from ser_jax.runs.predictions import Predictions, write_predictions
from ser_jax.runtime.files import write_json
from ser_jax.training import inference
from ser_jax.training.experiment import Experiment
from ser_jax.training.progress import Progress


def predict_fold(
    experiment: Experiment,
    tester: RobustnessTester,
    fold: Fold,
    workdir: Path,
    progress: Progress,
    *,
    test: bool,
    again: bool = False,
) -> None:
    """Predicts the utterances of a fold with its kept parameters, and writes `predictions/<fold>/<condition>.csv`.

    These are its test utterances under every condition, and its validation utterances, which calibrate. Without `test`
    they are its validation utterances under every condition but clean.

    Args:
        experiment: dataset and program.
        tester: predicts under the conditions.
        fold: the fold.
        workdir: run directory.
        progress: progress of the run.
        test: whether test speakers may be read.
        again: whether to predict what is up to date, too.
    """
    dataset = experiment.dataset
    prefix = '' if test else 'validation_'

    def files(name: str) -> tuple[list[Path], Path]:
        results = [workdirs.result_name(name, task.name) for task in dataset.reported]
        paths = [workdirs.predictions_file(workdir, fold.name, result) for result in results]
        return paths, paths[0].with_name(f'{name}.json')

    names = [
        name
        for name in ('clean', *tester.conditions)
        if (test or name != 'clean')
        and (again or not workdirs.is_up_to_date(*files(prefix + name), tester.fingerprint(name)))
    ]
    validation = files('validation')[0] if len(fold.validation) and test else []
    if not again and all(path.exists() for path in validation):
        validation = []
    if not names and not validation:
        return
    variables = experiment.restore_best(workdir / 'checkpoints' / fold.name)
    if validation:
        utterances = dataset.utterances(fold.validation)
        outputs = inference.predict(experiment, variables, utterances)
        _write(dataset, fold.name, fold.validation, outputs, validation)
    for number, name in enumerate(names, 1):
        progress.test(fold.name, number, len(names), name)
        outputs, facts = tester.predict(name, variables, fold)
        if jax.process_index() > 0:
            continue
        paths, facts_file = files(prefix + name)
        for path in paths:  # predictions with another fingerprint must not be taken for these
            path.unlink(missing_ok=True)
        n = len(tester.rows(fold))
        write_json(facts_file, {'fingerprint': tester.fingerprint(name), 'n': n, **facts})
        _write(dataset, fold.name, tester.rows(fold), outputs, paths)
    multihost_utils.sync_global_devices(f'predictions {fold.name}')


def predict_corpora(
    experiment: Experiment,
    tester: CrossCorpusTester,
    workdir: Path,
    progress: Progress,
    *,
    again: bool = False,
) -> None:
    """Predicts other corpora with the final model, and writes `predictions/<condition>.csv`; see `predict_fold`."""
    facts = {
        name: workdirs.predictions_file(workdir, 'final', name).with_suffix('.json')
        for name in tester.conditions
    }
    names = [
        name
        for name in tester.conditions
        if again
        or not workdirs.is_up_to_date(
            [workdirs.pooled_file(workdir, name)], facts[name], tester.fingerprint(name)
        )
    ]
    if not names:
        return
    variables = experiment.restore_best(workdir / 'checkpoints' / 'final')
    for number, name in enumerate(names, 1):
        progress.test('final', number, len(names), name)
        predictions, labels = tester.predict(name, variables)
        if jax.process_index() == 0:
            path = workdirs.pooled_file(workdir, name)
            path.unlink(missing_ok=True)
            write_json(facts[name], {'fingerprint': tester.fingerprint(name)})
            write_predictions(path, predictions, labels)
    multihost_utils.sync_global_devices('predictions of corpora')


def _write(
    dataset: Dataset,
    fold: str,
    rows: np.ndarray,
    outputs: dict[str, np.ndarray],
    paths: Sequence[Path],
) -> None:
    """Writes the predictions of every reported task, for the rows that have a label of it."""
    if jax.process_index() > 0:
        return
    index = dataset.corpus.index
    for task, path in zip(dataset.reported, paths):
        labels, ratings = dataset.labels_of(task, rows), {}
        labelled = labels >= 0
        known, output = rows[labelled], outputs[task.name][labelled]
        if task.kind == 'regression':
            ratings = {'rating': index[task.target][known], 'predicted_rating': output[:, 0]}
            output = np.eye(len(task.classes))[level_of(output[:, 0])]
        predictions = Predictions(
            id=index['id'][known],
            fold=[fold] * len(known),
            speaker=index['speaker'][known],
            label=labels[labelled],
            probabilities=output,
            **ratings,
        )
        write_predictions(path, predictions, task.classes)
