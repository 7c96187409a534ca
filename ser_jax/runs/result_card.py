"""The result card of a run, `results.json`: one schema, by which it is written and validated.

Rates are fractions 0–1; None = undefined (JSON null). Fields that are not required are absent where they do not apply, or in
cards of older versions.
"""

import os
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import to_plain
from ser_jax.runtime.schema import checked, mismatch, read_json


class FoldResult(TypedDict):
    """Results on the test speakers of one fold.

    Attributes:
        fold: name.
        test_speakers: known speakers, sorted.
        n: test utterances.
        uar: over the classes that occur in the fold.
        wa: weighted accuracy.
        ccc: concordance correlation of predicted ratings.
    """

    fold: str
    test_speakers: list[str]
    n: int
    uar: float | None
    wa: float | None
    ccc: NotRequired[float | None]


class ConditionResult(TypedDict):
    """Results of one task under one condition, on predictions pooled over the folds.

    Attributes:
        ccc: concordance correlation of predicted ratings; all other rates are then of the classes they fall into.
        ccc_ci95: 95 % bootstrap interval over speakers.
        n: test utterances.
        uar: unweighted average recall.
        uar_ci95: 95 % bootstrap interval over speakers; (None, None) for a single speaker, or where few draws hold every class.
        redrawn: bootstrap draws repeated because they lacked a class.
        unknown_speakers: utterances of unknown speakers, each of which the bootstrap takes for a speaker.
        wa: weighted accuracy.
        macro_f1: mean F1 of the classes.
        recall: class -> recall; None for a class without test utterances.
        confusion: counts [K, K], row = true class.
        folds: results by fold.
        perturbation_snr_db: mean signal-to-perturbation ratio of an attack.
        task: reported task, if not `emotion`.
        corpus: tested corpus, if not the card's; likewise `corpus_hash` and `synthetic`.
        labels: class names, if not the card's.
    """

    ccc: NotRequired[float]
    ccc_ci95: NotRequired[tuple[float | None, float | None]]
    n: int
    uar: float
    uar_ci95: tuple[float | None, float | None]
    redrawn: NotRequired[int]
    unknown_speakers: NotRequired[int]
    wa: float
    macro_f1: float
    recall: dict[str, float | None]
    confusion: list[list[int]]
    folds: list[FoldResult]
    perturbation_snr_db: NotRequired[float]
    task: NotRequired[str]
    corpus: NotRequired[str]
    corpus_hash: NotRequired[str]
    synthetic: NotRequired[bool]
    labels: NotRequired[list[str]]


class LeakCheck(TypedDict):
    """Overlap of the splits (`leaks.check_folds`).

    Attributes:
        speakers: speakers in more than one split; likewise `audio` and `ids`.
        scripts: test sentences that are also spoken in training; missing if the corpus names none.
        unknown_speakers: utterances in use whose speaker is unknown.
        excluded: utterances that the protocol leaves out because their speaker is unknown.
    """

    speakers: NotRequired[int]
    audio: NotRequired[int]
    ids: NotRequired[int]
    scripts: NotRequired[int]
    unknown_speakers: NotRequired[int]
    excluded: NotRequired[int]


class ValidationFold(TypedDict):
    """Results on the validation speakers of one fold; with several tasks also `uar_<task>`, for ratings `ccc`,
    `ccc_<task>` and `score`, the mean over tasks of UAR or CCC.

    Attributes:
        fold: name.
        validation_speakers: speakers, sorted.
        n: validation utterances.
        uar: unweighted average recall, mean over tasks.
    """

    fold: str
    validation_speakers: list[str]
    n: int
    uar: float | None


class ValidationResult(TypedDict):
    """Results on validation speakers; the rates of `ValidationFold`, averaged over folds.

    Attributes:
        uar: mean UAR.
        ccc: mean CCC of predicted ratings.
        folds: results by fold.
        conditions: condition -> UAR, mean over folds and tasks; only with `report_test = False`.
    """

    uar: float
    ccc: NotRequired[float]
    folds: list[ValidationFold]
    conditions: NotRequired[dict[str, float]]


class AttackCheck(TypedDict):
    """A sanity check of the attacks, and whether it holds."""

    check: str
    holds: bool


class Calibration(TypedDict):
    """Calibration of a task's probabilities on clean speech (`calibration.calibrate`).

    Attributes:
        ece: expected calibration error of the test utterances.
        ece_calibrated: the same after each fold's temperature.
        temperature: temperature of the final model.
        n_validation: predictions it was fitted on.
    """

    ece: NotRequired[float | None]
    ece_calibrated: NotRequired[float | None]
    temperature: NotRequired[float]
    n_validation: NotRequired[int]


class LabelCounts(TypedDict):
    """Utterances whose labels were used, mean over folds."""

    train: float
    validation: float


class EncoderFacts(TypedDict):
    """A pretrained encoder.

    Attributes:
        name: folder or Hugging Face name.
        revision: commit of the Hugging Face repository.
        fingerprint: SHA-256 of its parameters.
        identity: SHA-256 of its parameters and settings.
        layers: numbers of the layers that are used.
    """

    name: str
    revision: NotRequired[str]
    fingerprint: str
    identity: str
    layers: list[int]


class ResultCard(TypedDict):
    """The content of `results.json`, in the order in which it is written.

    Attributes:
        system: name and options of the config, e.g. `mtl_aug,single_task`.
        config_hash: hash of `config`.
        commit: commit of the code, with `+changes` if modified; '' outside a clone.
        versions: package -> version.
        device: number and kind of devices.
        corpus: name of the corpus.
        trained_on: corpora whose labels were used.
        corpus_hash: hash of the prepared corpus.
        synthetic: whether the corpus is synthesised.
        labels: the emotions.
        tasks: reported task -> its class names.
        protocol: call string of the protocol.
        n_folds: (folds run, folds of the protocol).
        seed: training seed.
        n_params: trained parameters.
        conditions: condition, or `<condition>_<task>` -> result; empty with `report_test = False`.
        leak_check: overlap of the splits.
        untrained_classes: remarks on folds that train no utterance of a class of their held-out speakers.
        cost: `train_seconds`, `compile_seconds`, `utterances_per_second`, `peak_memory_mb`, `data_wait_fraction`.
        validation: results on validation speakers, if validated.
        attack_checks: sanity checks, if attacked.
        calibration: condition of clean speech -> calibration, for classification tasks.
        config: the config without its seed, dotted field -> value.
        n_labels: labels used, if only a share of them.
        encoder: the pretrained encoder, if any.
        tested_with: inputs of the conditions, if any but `clean`: config field -> value, `corpus_hashes`, `attack_models`.
    """

    system: str
    config_hash: str
    commit: str
    versions: NotRequired[dict[str, str]]
    device: str
    corpus: str
    trained_on: NotRequired[list[str]]
    corpus_hash: str
    synthetic: bool
    labels: list[str]
    tasks: NotRequired[dict[str, list[str]]]
    protocol: str
    n_folds: tuple[int, int]
    seed: int
    n_params: int
    conditions: dict[str, ConditionResult]
    leak_check: LeakCheck
    untrained_classes: NotRequired[list[str]]
    cost: dict[str, float | None]
    validation: NotRequired[ValidationResult]
    attack_checks: NotRequired[list[AttackCheck]]
    calibration: NotRequired[dict[str, Calibration]]
    config: NotRequired[dict[str, object]]
    n_labels: NotRequired[LabelCounts]
    encoder: NotRequired[EncoderFacts]
    tested_with: NotRequired[dict[str, object]]


def make_card(**fields: Unpack[ResultCard]) -> ResultCard:
    """Makes the result card of a run, in plain Python values; fields that are None are left out.

    Raises:
        TypeError: an unknown field.
        ValueError: a required field is missing, or a value has another type.
    """
    names = ResultCard.__annotations__
    if unknown := fields.keys() - names.keys():
        raise TypeError(f'not fields of a result card: {", ".join(sorted(unknown))}')
    card = {name: fields[name] for name in names if fields.get(name) is not None}
    return checked(to_plain(card), ResultCard)


def read_card(workdir: str | os.PathLike) -> dict[str, Any] | None:
    """Reads the result card of a run; None if it is not finished.

    Raises:
        UserError: unreadable, or not a result card.
    """
    path = Path(workdir) / 'results.json'
    try:
        card = read_json(path, ResultCard)
    except FileNotFoundError:
        return None
    return _consistent(card, path)


def validated(card: Any, where: str) -> dict[str, Any]:
    """Returns a result card that was read elsewhere, a place for the message of the UserError if it is none."""
    if problem := mismatch(card, ResultCard):
        raise UserError(f'{where} is not what ser_jax writes: {problem}')
    return _consistent(card, where)


def _consistent(card, where):
    if problem := _inconsistency(card):
        raise UserError(f'{where} is not what ser_jax writes: {problem}')
    return card


def _inconsistency(card: dict[str, Any]) -> str:
    """What is wrong in a card whose fields have the right types; '' if nothing is."""
    parts = card['corpus'].split('/')  # csv_corpus/NAME
    for name in (*card['conditions'], *card.get('tasks', ()), *parts):  # files are named after them
        if name in ('', '.', '..') or any(separator in name for separator in '/\\\0'):
            return f'{name!r} is not a file name'
    for name, result in card['conditions'].items():
        n_classes = len(result['recall'])
        defined = any(recall is not None for recall in result['recall'].values())
        square = [len(row) for row in result['confusion']] == n_classes * [n_classes]
        concordance = {'ccc', 'ccc_ci95'} & result.keys()
        if not (defined and square and result['folds']) or len(concordance) == 1:
            return f'{name} lacks classes, folds, an interval or cells of its confusion matrix'
    if not card['conditions'] and not card.get('validation', {}).get('folds'):
        return 'it has no results'
    return ''
