"""What comes out of a run: predictions, their summary and the result card."""

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ser_jax import comparison, metrics
from ser_jax.errors import UserError
from ser_jax.workdir import write_atomically

_COLUMNS = ('id', 'fold', 'speaker', 'label', 'prediction')


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """What a system said about utterances; rows belong together.

    Attributes:
        id: str [N].
        fold: name of the fold in which the utterance was tested, str [N].
        speaker: str [N], '' = unknown.
        label: true class, int [N], a position in the labels of the task.
        probabilities: float32 [N, K].
    """

    id: np.ndarray
    fold: np.ndarray
    speaker: np.ndarray
    label: np.ndarray
    probabilities: np.ndarray

    def __post_init__(self):
        for name, kind in (('id', str), ('fold', str), ('speaker', str), ('label', np.int64)):
            object.__setattr__(self, name, np.asarray(getattr(self, name)).astype(kind))
        object.__setattr__(self, 'probabilities', np.asarray(self.probabilities, np.float32))
        lengths = {len(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(lengths) != 1 or self.probabilities.ndim != 2:
            raise ValueError(f'rows of predictions do not belong together: lengths {lengths}')

    @property
    def prediction(self) -> np.ndarray:
        """The most probable class, int [N]."""
        return self.probabilities.argmax(1)


def pool(parts: Sequence[Predictions]) -> Predictions:
    """Joins the predictions of folds; metrics are computed on the pooled ones.

    Raises:
        ValueError: an utterance was tested twice.
    """
    fields = [field.name for field in dataclasses.fields(Predictions)]
    pooled = Predictions(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in fields)
    )
    ids, times = np.unique(pooled.id, return_counts=True)
    if np.any(times > 1):
        raise ValueError(f'{ids[times > 1][0]} was tested {times.max()} times')
    return pooled


def write_predictions(path, predictions: Predictions, labels: Sequence[str]) -> None:
    """Writes `predictions/<condition>.csv`, whole or not at all.

    Columns: id, fold, speaker, label, prediction, and `probability_<class>` per class. The
    probabilities have as many digits as it takes to read the same float32 back.

    Args:
        path: file to write; its folder is made.
        predictions: N rows.
        labels: the K class names.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow([*_COLUMNS, *(f'probability_{label}' for label in labels)])
    for row, (label, prediction) in enumerate(zip(predictions.label, predictions.prediction)):
        names = [getattr(predictions, name)[row] for name in _COLUMNS[:3]]
        numbers = [str(number) for number in predictions.probabilities[row]]
        writer.writerow([*names, labels[label], labels[prediction], *numbers])
    write_atomically(Path(path), text.getvalue())


def read_predictions(path) -> tuple[Predictions, list[str]]:
    """Reads what `write_predictions` wrote.

    Returns:
        (predictions, labels).

    Raises:
        UserError: no such file, or not one of ours.
    """
    try:
        with open(path, newline='', encoding='utf-8') as file:
            header, *rows = csv.reader(file)
        labels = [name.removeprefix('probability_') for name in header[len(_COLUMNS) :]]
        ids, folds, speakers, classes, _, *probabilities = zip(*rows)
        classes = [labels.index(name) for name in classes]
        return Predictions(ids, folds, speakers, classes, np.transpose(probabilities)), labels
    except (OSError, ValueError) as error:
        raise UserError(f'cannot read predictions from {path}: {error}') from error


def write_json(path, content) -> None:
    """Writes JSON, whole or not at all; NumPy values become plain ones and NaN becomes null.

    Args:
        path: file to write; its folder is made.
        content: dicts, lists, scalars and arrays.
    """
    text = json.dumps(_plain(content), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(Path(path), text + '\n')


def _plain(value):
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def summarise(
    predictions: Predictions, labels: Sequence[str], *, n_bootstrap: int = 10_000, seed: int = 0
) -> dict:
    """The metrics of one evaluation condition, on predictions pooled over the folds.

    Args:
        predictions: N >= 1 rows, every one with a label.
        labels: the K class names.
        n_bootstrap: resamples of the interval.
        seed: of the interval.

    Returns:
        `n`, `uar`, `uar_ci95` [lower, upper] and `redrawn` (see `comparison.bootstrap_uar`), `wa`,
        `macro_f1`, `recall` by label, `confusion` [[…]] and `folds`: `fold`, `test_speakers`, `n`, `uar`, `wa`
        of each. Rates are fractions; None = undefined (the recall of a class that does not occur,
        the interval of a single speaker). The UAR of a fold is over the classes that it holds.

    Raises:
        UserError: probabilities that are not finite: the training went astray.
    """
    broken = ~np.isfinite(predictions.probabilities).all(1)
    if broken.any():
        raise UserError(
            f'{broken.sum()} of {broken.size} predictions are not finite, e.g. of '
            f'{predictions.id[broken][0]}: training diverged; lower the learning rate'
        )
    truth, said, n_classes = predictions.label, predictions.prediction, len(labels)
    confusion = metrics.confusion_matrix(truth, said, n_classes)
    by_speaker = metrics.confusion_by_speaker(truth, said, predictions.speaker, n_classes)
    drawn, redrawn = comparison.bootstrap_uar(by_speaker[None], n_bootstrap, seed)
    folds = []
    for name in dict.fromkeys(predictions.fold.tolist()):
        rows = predictions.fold == name
        part = metrics.confusion_matrix(truth[rows], said[rows], n_classes)
        speakers = sorted(set(predictions.speaker[rows].tolist()) - {''})
        rates = {'uar': metrics.uar(part), 'wa': metrics.wa(part)}
        folds.append({'fold': name, 'test_speakers': speakers, 'n': part.sum(), **rates})
    return _plain(
        {
            'n': confusion.sum(),
            'uar': metrics.uar(confusion),
            'uar_ci95': comparison.interval(drawn[:, 0]),
            'redrawn': redrawn,
            'wa': metrics.wa(confusion),
            'macro_f1': metrics.macro_f1(confusion),
            'recall': dict(zip(labels, metrics.recall(confusion))),
            'confusion': confusion,
            'folds': folds,
        }
    )


def summarise_validation(folds: Sequence[Mapping]) -> dict:
    """What a run with `report_test = False` may say: the validation UAR of each fold and its mean.

    Args:
        folds: `fold`, `validation_speakers`, `n`, `uar` of each.

    Returns:
        `uar`: the mean over the folds, and `folds`.
    """
    return _plain({'uar': np.mean([fold['uar'] for fold in folds]), 'folds': list(folds)})


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
        attack_checks: `conditions.checks(…)`; where there are any the card has them.
        tested_with: `reporting.tested_with(…)`; likewise.
        n_labels: utterances a fold whose labels were used, by side; likewise.

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
    card['config'] = config
    if n_labels:
        card['n_labels'] = n_labels
    if tested_with:
        card['tested_with'] = tested_with
    return _plain(card)
