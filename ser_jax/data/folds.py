"""Folds of index rows from a protocol, with validation speakers where it defines none."""

import bisect
import dataclasses
import inspect
from collections.abc import Mapping, Sequence

import numpy as np

from ser_jax.data.protocols import PROTOCOLS, Utterances
from ser_jax.data.records import split_speaker
from ser_jax.runtime.call_strings import parse_call
from ser_jax.runtime.errors import UserError

_NONE = np.empty(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """Training, validation and test rows of one fold of a corpus.

    Attributes:
        name: `fold_01`, `fold_02`, …; also the name of its folder.
        train: index rows for training, int64, ascending.
        validation: index rows for all choices; empty with `make_folds(…, validation=False)`.
        test: index rows for the reported results.
        test_speakers: known speakers of `test`, sorted.
        excluded: usable rows that belong to no split because their speaker is unknown.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    test_speakers: tuple[str, ...]
    excluded: np.ndarray = dataclasses.field(default_factory=_NONE.copy)


def validation_speakers(
    genders: Mapping[str, int], test_speakers: Sequence[str]
) -> tuple[str, ...]:
    """Chooses the validation speakers of a fold: the next speaker of each gender.

    "Next" means the order of names, cyclic, after the last test speaker. Where only one gender, or none, is known, the
    next speakers of any gender make up two. At most half of the speakers that are not tested are taken: training keeps
    at least as many.

    Args:
        genders: speaker -> 0 female, 1 male, -1 unknown; test speakers are skipped.
        test_speakers: test speakers of the fold.

    Returns:
        One or two speakers, in cyclic order; none where fewer than two speakers are left.
    """
    ordered = sorted(set(genders) - set(test_speakers))
    after = bisect.bisect_right(ordered, max(test_speakers, default=''))
    cyclic = ordered[after:] + ordered[:after]
    first = {}
    for speaker in cyclic:
        if genders[speaker] >= 0:
            first.setdefault(genders[speaker], speaker)
    chosen = list(first.values())
    chosen += [name for name in cyclic if name not in chosen][: max(0, 2 - len(chosen))]
    return tuple(sorted(chosen, key=cyclic.index)[: min(2, len(cyclic) // 2)])


def make_folds(
    index: Mapping[str, np.ndarray],
    protocol: str,
    *,
    rows,
    folds: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
    validation: bool = True,
) -> list[Fold]:
    """Divides a corpus into folds by a protocol.

    Args:
        index: index of the corpus: str fields `id`, `speaker`, `session`, int field `gender`, one entry per row.
        protocol: call string, e.g. `'speaker_folds(4)'`.
        rows: usable rows: those with a label of the task.
        folds: published folds as lists of test speakers (`Corpus.metadata['folds']`), or None.
        seed: seed of the speaker order of `speaker_folds`, not of training; 0 = sorted.
        validation: False adds the validation rows to training, for a frozen configuration.

    Returns:
        The folds, `fold_01` first.

    Raises:
        UserError: unknown protocol or wrong arguments, fewer than three known speakers (two without validation), an
            empty split.
    """
    name, arguments = parse_call(protocol, 'protocol')
    if name not in PROTOCOLS:
        raise UserError(f'unknown protocol {name!r}: one of {", ".join(PROTOCOLS)}')
    try:
        inspect.signature(PROTOCOLS[name]).bind(None, *arguments)
    except TypeError as error:
        raise UserError(f'protocol {protocol}: {error}') from error
    utterances = _utterances(index, np.unique(np.asarray(rows, np.int64)), folds, seed)
    needed = ('test', 'validation', 'training') if validation else ('test', 'training')
    any_number = 'fixed_lists', 'leave_corpus_out', 'whole_corpus'  # of speakers
    if len(utterances.genders) < len(needed) and name not in any_number:
        raise UserError(
            f'{protocol} needs {len(needed)} known speakers ({", ".join(needed)}), the corpus has '
            f'{len(utterances.genders)}; fixed_lists("lists.json") accepts any split'
        )
    excluded = _NONE if name == 'fixed_lists' else np.setdiff1d(utterances.usable, utterances.rows)
    divisions = PROTOCOLS[name](utterances, *arguments)
    digits = max(2, len(str(len(divisions))))
    required = {'training', 'test'} | ({'validation'} if validation else set())
    if name == 'leave_corpus_out':
        required = {'test'}
    return [
        _fold(utterances, f'fold_{number:0{digits}d}', splits, validation, excluded, required)
        for number, splits in enumerate(divisions, 1)
    ]


def _utterances(index, usable, published, seed):
    speaker = np.asarray(index['speaker']).astype(str)
    rows = usable[speaker[usable] != '']
    gender = np.asarray(index['gender'])
    genders = {
        str(name): int(gender[rows[speaker[rows] == name]].max())
        for name in np.unique(speaker[rows])
    }
    return Utterances(index, usable, rows, speaker, genders, published, seed)


def _fold(utterances, name, splits, validation, excluded, required):
    train, held_out, test = splits
    test_speakers = utterances.speakers_of(test)
    if held_out is None:
        genders = {who: utterances.genders[who] for who in utterances.speakers_of(train)}
        chosen = validation_speakers(genders, test_speakers)
        held_out = train[np.isin(utterances.speaker[train], chosen)]
        train = np.setdiff1d(train, held_out)
    if not validation:
        train, held_out = np.union1d(train, held_out), _NONE
    for split, rows in (('training', train), ('validation', held_out), ('test', test)):
        if not rows.size and split in required:
            names = ', '.join(split_speaker(speaker)[1] for speaker in test_speakers)
            raise UserError(f'{name}: no {split} utterance (test speakers: {names or "none"})')
    return Fold(name, train, held_out, test, test_speakers, excluded)


def select_folds(folds: Sequence[Fold], numbers: Sequence[int]) -> list[Fold]:
    """The folds with some numbers, counted from 1, or all for an empty list; UserError: a number without a fold."""
    if not folds:
        return []  # a protocol without folds ignores the option
    for number in numbers:
        if not isinstance(number, int) or not 1 <= number <= len(folds):
            raise UserError(f'config.folds: there is no fold {number!r}, only 1 to {len(folds)}')
    return [folds[number - 1] for number in sorted(set(numbers))] if numbers else list(folds)
