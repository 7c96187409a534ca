"""Stored runs: the cards, commands and predictions of many finished runs in one folder, as `results/` keeps them.

`cards.jsonl`       one JSON object per run: `run` (its name), `command`, `card`
`predictions.npz`   arrays `<set>/<field>`, one set per list of test utterances, without pickle:
                    `id`, `fold`, `speaker`, `label` [N] (uint8), `classes` [K]; `rating` [N] of predicted ratings;
                    `results` [M], as `<run>/<condition>`; `predicted` [M, N], the class (uint8);
                    `probabilities` [2, M, N, K], high and low bytes of uint16, 1 = 65535, or `predicted_rating` [M, N];
                    no file if no run was tested

The path `<folder>/<run>` stands for a stored run wherever `finished` takes a run directory.
"""

import dataclasses
import functools
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from ser_jax.runs import result_card
from ser_jax.runs.predictions import Predictions
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import replacing, write_atomically
from ser_jax.runtime.schema import checked

CARDS, PREDICTIONS = 'cards.jsonl', 'predictions.npz'
_ONE = np.iinfo(np.uint16).max  # probability 1 in fixed point
_DEPTH = 3  # a run is named <setting>/<variant>/seed<K> at most
_SHARED = 'id', 'fold', 'speaker', 'label', 'rating'  # fields of the utterances, not of a run


class _Line(TypedDict):
    """A line of `cards.jsonl`."""

    run: str
    command: str
    card: object


@dataclasses.dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Attributes:
        card: result card.
        command: command line.
        predictions: condition -> (predictions, class names).
    """

    card: dict[str, Any]
    command: str
    predictions: Mapping[str, tuple[Predictions, list[str]]]


class Store:
    """Reads the runs of a folder.

    Attributes:
        folder: the folder.
        names: names of the runs.
    """

    def __init__(self, folder: Path):
        """Reads the cards and the arrays; raises UserError for missing or malformed files."""
        self.folder = folder
        self._lines = _read_lines(folder / CARDS)
        self._valid: set[str] = set()
        self.names = list(self._lines)
        self._sets = _read_sets(folder / PREDICTIONS)
        self._places = {
            result: (arrays, row)
            for arrays in self._sets.values()
            for row, result in enumerate(arrays['results'].tolist())
        }

    def card(self, name: str) -> dict[str, Any]:
        """The result card of a run; raises UserError without one."""
        if name not in self._lines:
            raise UserError(f'{self.folder / CARDS} has no run {name}')
        card = json.loads(self._lines[name])['card']  # the caller's own copy
        if name not in self._valid:
            result_card.validated(card, f'{self.folder / CARDS}, {name},')
            self._valid.add(name)
        return card

    def command(self, name: str) -> str:
        """The command line of a run."""
        return json.loads(self._lines[name])['command']

    def predictions(self, name: str, condition: str) -> tuple[Predictions, list[str]]:
        """The predictions of a run under a condition, sorted by utterance, and the class names; raises UserError without them."""
        if f'{name}/{condition}' not in self._places:
            raise UserError(f'{self.folder / PREDICTIONS} has no {name}/{condition}')
        arrays, row = self._places[f'{name}/{condition}']
        predicted = arrays['predicted'][row]
        shared = {field: arrays.get(field) for field in _SHARED}
        if 'predicted_rating' in arrays:
            probabilities = np.eye(len(arrays['classes']), dtype=np.float32)[predicted]
            shared['predicted_rating'] = arrays['predicted_rating'][row]
        else:
            probabilities = (arrays['probabilities'][row] / _ONE).astype(np.float32)
            # Where rounding made another class as probable as the predicted one.
            lost = np.flatnonzero(probabilities.argmax(1) != predicted)
            probabilities[lost, predicted[lost]] = np.nextafter(
                probabilities[lost].max(1), np.float32(2)
            )
        return Predictions(probabilities=probabilities, **shared), arrays['classes'].tolist()

    def run(self, name: str) -> StoredRun:
        """A whole run; see `card` and `predictions`."""
        card = self.card(name)
        predictions = {one: self.predictions(name, one) for one in card['conditions']}
        return StoredRun(card, self.command(name), predictions)


def exists(folder: Path) -> bool:
    """Whether a folder holds stored runs."""
    return (folder / CARDS).is_file()


def read(folder: Path) -> Store:
    """Reads the runs of a folder, once as long as its files do not change; raises UserError for none or malformed ones."""
    if not exists(folder):
        raise UserError(f'{folder} holds no {CARDS}: no stored runs')
    paths = [folder / name for name in (CARDS, PREDICTIONS)]
    return _read(folder, *(path.stat().st_mtime_ns if path.exists() else 0 for path in paths))


@functools.lru_cache(maxsize=4)
def _read(folder: Path, *_times: int) -> Store:
    return Store(folder)


def find(path: Path) -> tuple[Store, str] | None:
    """The store and the name of a run whose path is `<folder>/<run>`; None if there is no such run."""
    for folder in path.parents[:_DEPTH]:
        if exists(folder):
            store, name = read(folder), path.relative_to(folder).as_posix()
            return (store, name) if name in store.names else None
    return None


def write(folder: Path, runs: Mapping[str, StoredRun]) -> None:
    """Writes runs by name to a folder, each file atomically; runs that the folder held before are replaced."""
    arrays: dict[str, np.ndarray] = {}
    for number, members in enumerate(_by_utterances(runs).values()):
        arrays |= {f'{number}/{field}': value for field, value in _stacked(members).items()}
    lines = (
        json.dumps(
            {'run': name, 'command': run.command, 'card': run.card},
            ensure_ascii=False,
            separators=(',', ':'),
        )
        for name, run in runs.items()
    )
    if arrays:
        with replacing(folder / PREDICTIONS) as temporary, temporary.open('wb') as file:
            np.savez_compressed(file, **arrays)
    else:
        (folder / PREDICTIONS).unlink(missing_ok=True)
    write_atomically(folder / CARDS, ''.join(f'{line}\n' for line in lines))


def _by_utterances(runs: Mapping[str, StoredRun]) -> dict[tuple, dict[str, tuple]]:
    """Groups results by their utterances: key -> {`<run>/<condition>`: (sorted predictions, class names)}."""
    groups: dict[tuple, dict[str, tuple]] = {}
    for name, run in runs.items():
        for condition, (predictions, classes) in run.predictions.items():
            order = np.argsort(predictions.id, kind='stable')
            fields = [field.name for field in dataclasses.fields(predictions)]
            ordered = Predictions(*(getattr(predictions, field)[order] for field in fields))
            key = (*classes, *(getattr(ordered, field).tobytes() for field in _SHARED))
            groups.setdefault(key, {})[f'{name}/{condition}'] = ordered, classes
    return groups


def _stacked(members: Mapping[str, tuple[Predictions, list[str]]]) -> dict[str, np.ndarray]:
    """The arrays of one set."""
    predictions = [one for one, _ in members.values()]
    first, classes = next(iter(members.values()))
    arrays = {
        'results': np.array(list(members)),
        'classes': np.array(classes),
        'id': first.id,
        'fold': first.fold,
        'speaker': first.speaker,
        'label': first.label.astype(np.uint8),
        'predicted': np.stack([one.prediction for one in predictions]).astype(np.uint8),
    }
    if first.rated:
        ratings = np.stack([one.predicted_rating for one in predictions])
        return arrays | {'rating': first.rating, 'predicted_rating': ratings}
    stacked = np.stack([one.probabilities for one in predictions])
    probabilities = np.rint(stacked * _ONE).clip(0, _ONE).astype(np.uint16)
    return arrays | {'probabilities': _bytes(probabilities)}


def _bytes(values: np.ndarray) -> np.ndarray:
    """uint16 [...] as high and low bytes, uint8 [2, ...], which compress better apart."""
    return np.stack([values >> 8, values & 255]).astype(np.uint8)


def _from_bytes(parts: np.ndarray) -> np.ndarray:
    """Inverse of `_bytes`; uint16, as older files have it, is returned unchanged."""
    if parts.dtype != np.uint8:
        return parts
    high, low = parts.astype(np.uint16)
    return high << 8 | low


def _read_lines(path: Path) -> dict[str, str]:
    """Run -> line of `cards.jsonl`."""
    try:
        # Not splitlines: it also splits at other separators, which JSON may contain.
        lines = path.read_text(encoding='utf-8').split('\n')[:-1]
        runs = checked([json.loads(line) for line in lines], list[_Line])
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error
    named = {run['run']: line for run, line in zip(runs, lines)}
    if len(named) < len(lines):
        raise UserError(f'{path} lists a run twice')
    return named


def _read_sets(path: Path) -> dict[str, dict[str, np.ndarray]]:
    sets: dict[str, dict[str, np.ndarray]] = {}
    if not path.exists():  # no run was tested
        return sets
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                number, _, field = name.partition('/')
                array = file[name]
                if field == 'probabilities':
                    array = _from_bytes(array)
                sets.setdefault(number, {})[field] = array
        for number, arrays in sets.items():
            if problem := _misshapen(arrays):
                raise ValueError(f'set {number}: {problem}')
    except (
        OSError,
        TypeError,
        ValueError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(f'{path} is not what ser_jax writes: {error}') from error
    return sets


def _misshapen(arrays: Mapping[str, np.ndarray]) -> str:
    """The first array of a set that does not fit the others; '' if all fit."""
    n, m, k = (len(arrays[name]) for name in ('id', 'results', 'classes'))
    shapes = {
        **dict.fromkeys(('id', 'fold', 'speaker', 'label'), (n,)),
        **{'results': (m,), 'classes': (k,), 'predicted': (m, n)},
    }
    rated = {'rating': (n,), 'predicted_rating': (m, n)}
    shapes |= rated if 'rating' in arrays else {'probabilities': (m, n, k)}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            return f'{name} is {list(arrays[name].shape)}, not {list(shape)}'
    if max(arrays['label'].max(), arrays['predicted'].max()) >= k:
        return 'class index out of range'
    if rated.keys() & arrays.keys():
        return ''
    probabilities, predicted = arrays['probabilities'], arrays['predicted']
    highest = np.take_along_axis(probabilities, predicted[..., None], 2)[..., 0]
    # Rounding changes each of the K probabilities by half a step at most.
    off = np.abs(probabilities.sum(2, dtype=np.int64) - _ONE) > (k + 1) // 2
    for wrong, problem in (
        (off, 'its probabilities do not sum to 1'),
        (highest < probabilities.max(2), 'its predicted class is not the most probable one'),
    ):
        if wrong.any():
            result, row = np.argwhere(wrong)[0]
            return f'{arrays["results"][result]}, {arrays["id"][row]}: {problem}'
    return ''
