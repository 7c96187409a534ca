"""Evaluation protocols: from the metadata of a corpus to folds of index rows.

A protocol is one function, named by a call string: `leave_one_speaker_out()`,
`leave_one_session_out()`, `speaker_folds(4)`, `published_folds()`, `fixed_lists("lists.json")` or `whole_corpus()`.
Folds depend on the metadata alone: the training seed plays no part, so that runs with several seeds
share their folds.

An utterance whose speaker is unknown ('') might be anybody's, the test speaker's too: it takes part
in no fold of these protocols (`Fold.excluded`). Only `fixed_lists` uses it, as its lists are
somebody's own statement; the leak check counts it.
"""

import bisect
import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ser_jax.calls import parse_call
from ser_jax.errors import UserError

_NONE = np.empty(0, np.int64)
_SIDES = {'train', 'validation', 'test'}


@dataclasses.dataclass(frozen=True, eq=False)
class Fold:
    """One split of a corpus.

    Attributes:
        name: `fold_01`, `fold_02`, …; fit for a folder's name.
        train: rows of the index to train on, int64, ascending.
        validation: rows on which every choice is made; empty with `make_folds(…,
            validation=False)`.
        test: rows to report on.
        test_speakers: the known speakers of `test`, sorted.
        excluded: usable rows that belong to no side because their speaker is unknown.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    test_speakers: tuple[str, ...]
    excluded: np.ndarray = dataclasses.field(default_factory=_NONE.copy)


@dataclasses.dataclass(frozen=True, eq=False)
class Utterances:
    """What a protocol function sees of a corpus."""

    index: Mapping[str, np.ndarray]
    usable: np.ndarray  # every usable row, ascending
    rows: np.ndarray  # of these, the rows whose speaker is known
    speaker: np.ndarray  # of every row of the index, str
    genders: dict[str, int]  # speakers of `rows`, sorted -> 0 female, 1 male, -1 unknown
    published: Sequence[Sequence[str]] | None  # test speakers of the published folds
    seed: int  # of the split; 0 is sorted order

    def speakers_of(self, rows) -> tuple[str, ...]:
        """The known speakers of some rows, sorted."""
        return tuple(str(name) for name in np.unique(self.speaker[rows]) if name)

    def hold_out(self, test) -> tuple:
        """(train, None, test): whatever is not tested is left to training."""
        return np.setdiff1d(self.rows, test), None, test

    def hold_out_speakers(self, groups) -> list[tuple]:
        """One split per group of test speakers."""
        said_by = [np.isin(self.speaker[self.rows], list(speakers)) for speakers in groups]
        return [self.hold_out(self.rows[chosen]) for chosen in said_by]


# A protocol function returns rows per fold: (train, validation, or None = by the rule, and test).


def leave_one_speaker_out(utterances: Utterances) -> list[tuple]:
    """As many folds as speakers; each speaker is the test speaker once."""
    return utterances.hold_out_speakers([[speaker] for speaker in utterances.genders])


def speaker_folds(utterances: Utterances, k: int) -> list[tuple]:
    """k folds of whole speakers, each with its share of the women and of the men.

    Women, then men, then the others are dealt out in turn: in sorted order, or, with a split seed
    other than 0, in an order drawn from it.
    """
    speakers = list(utterances.genders)
    if not isinstance(k, int) or not 2 <= k <= len(speakers):
        raise UserError(f'speaker_folds({k!r}): k is 2 to {len(speakers)}, the speakers')
    if utterances.seed:
        np.random.default_rng(utterances.seed).shuffle(speakers)
    dealt = sorted(speakers, key=lambda speaker: (0, 1, -1).index(utterances.genders[speaker]))
    return utterances.hold_out_speakers([dealt[number::k] for number in range(k)])


def published_folds(utterances: Utterances) -> list[tuple]:
    """The folds published for the corpus: its metadata lists their test speakers."""
    if not utterances.published:
        raise UserError('published_folds(): this corpus has none; use leave_one_speaker_out()')
    listed = [speaker for speakers in utterances.published for speaker in speakers]
    twice = sorted({speaker for speaker in listed if listed.count(speaker) > 1})
    if twice:
        raise UserError(f'published_folds(): speaker {twice[0]} is a test speaker of two folds')
    return utterances.hold_out_speakers(utterances.published)


def leave_one_session_out(utterances: Utterances) -> list[tuple]:
    """As many folds as recording sessions (of two speakers each in IEMOCAP and MSP-IMPROV)."""
    sessions = np.asarray(utterances.index['session']).astype(str)[utterances.rows]
    names = np.unique(sessions)
    if '' in names:
        raise UserError(
            f'leave_one_session_out(): {np.sum(sessions == "")} of {sessions.size} utterances '
            'have no session; fill it in, or use leave_one_speaker_out()'
        )
    if names.size < 2:
        raise UserError(
            'leave_one_session_out(): there is one session only; use leave_one_speaker_out()'
        )
    tests = [utterances.rows[sessions == name] for name in names]
    return [utterances.hold_out(test) for test in tests]


def fixed_lists(utterances: Utterances, path: str) -> list[tuple]:
    """The splits of a JSON file.

    It holds `{"train": [ids], "validation": [ids], "test": [ids]}`, or a list of such folds.
    Without "validation" the validation speakers are taken from the training list by the common
    rule. Listed utterances that the task cannot use (another emotion) are passed over; ids that the
    corpus does not have are an error.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'fixed_lists: cannot read {path} as JSON: {error}') from error
    row_of = {str(name): row for row, name in enumerate(utterances.index['id'])}
    splits, tested = [], set()
    for number, lists in enumerate(content if isinstance(content, list) else [content], 1):
        where = f'fixed_lists, {path}, fold {number}'
        if not isinstance(lists, dict) or not {'train', 'test'} <= set(lists) <= _SIDES:
            raise UserError(f'{where}: need "train", "test" and perhaps "validation", lists of ids')
        sides = {}
        for side, names in lists.items():
            names = names or ()
            missing = [name for name in names if name not in row_of]
            if missing:
                raise UserError(
                    f'{where}: {len(missing)} {side} ids are not in the corpus, e.g. {missing[0]!r}'
                )
            listed = np.array([row_of[name] for name in names], np.int64)
            sides[side] = np.intersect1d(listed, utterances.usable)
        twice = tested.intersection(sides['test'].tolist())
        if twice:
            example = utterances.index['id'][min(twice)]
            raise UserError(f'{where}: {example!r} is tested in two folds')
        tested.update(sides['test'].tolist())
        validation = sides.get('validation', _NONE)
        splits.append((sides['train'], validation if validation.size else None, sides['test']))
    return splits


PROTOCOLS = {
    'leave_one_speaker_out': leave_one_speaker_out,
    'leave_one_session_out': leave_one_session_out,
    'speaker_folds': speaker_folds,
    'published_folds': published_folds,
    'fixed_lists': fixed_lists,
    # No folds: all train the final model, which `config.test_corpora` test.
    'whole_corpus': lambda utterances: [],
}


def validation_speakers(
    genders: Mapping[str, int], test_speakers: Sequence[str]
) -> tuple[str, ...]:
    """The validation speakers of a fold: the next speaker of each gender.

    "Next" is cyclic in sorted order, after the last test speaker, and never a test speaker. Where
    only one gender, or none, is known, the next speakers of whatever gender make up two. At most
    half of the speakers that are not test speakers are taken, so that training keeps at least as
    many.

    Args:
        genders: speaker -> 0 female, 1 male, -1 unknown: the speakers to choose from (test speakers
            are passed over).
        test_speakers: the test speakers of the fold.

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
    """Splits a corpus by a protocol.

    Args:
        index: the index of the corpus: str fields `id`, `speaker`, `session`, int field `gender`,
            one entry a row.
        protocol: call string, e.g. `'speaker_folds(4)'`.
        rows: the usable rows: those that have a label of the task.
        folds: published folds as lists of test speakers (`Corpus.metadata['folds']`), or None.
        seed: of the split (`speaker_folds`); 0 deals the speakers in sorted order. Not the seed of
            training.
        validation: False adds the validation utterances to training and leaves `Fold.validation`
            empty, to train a frozen configuration on every speaker that is not tested.

    Returns:
        The folds, `fold_01` first.

    Raises:
        UserError: unknown protocol or wrong arguments, fewer than three known speakers, an empty
            side.
    """
    name, arguments = parse_call(protocol)
    if name not in PROTOCOLS:
        raise UserError(f'unknown protocol {name!r}; there are {", ".join(PROTOCOLS)}')
    try:
        inspect.signature(PROTOCOLS[name]).bind(None, *arguments)
    except TypeError as error:
        raise UserError(f'protocol {protocol}: {error}') from error
    utterances = _utterances(index, np.unique(np.asarray(rows, np.int64)), folds, seed)
    if len(utterances.genders) < 3 and name not in ('fixed_lists', 'whole_corpus'):
        raise UserError(
            f'{protocol} needs 3 known speakers (test, validation, training), the corpus has '
            f'{len(utterances.genders)}; fixed_lists("lists.json") takes any split'
        )
    excluded = _NONE if name == 'fixed_lists' else np.setdiff1d(utterances.usable, utterances.rows)
    splits = PROTOCOLS[name](utterances, *arguments)
    digits = max(2, len(str(len(splits))))
    return [
        _fold(utterances, f'fold_{number:0{digits}d}', split, validation, excluded)
        for number, split in enumerate(splits, 1)
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


def _fold(utterances, name, split, validation, excluded):
    train, held_out, test = split
    test_speakers = utterances.speakers_of(test)
    if held_out is None:
        free = utterances.speakers_of(train)
        chosen = validation_speakers(
            {name: utterances.genders[name] for name in free}, test_speakers
        )
        held_out = train[np.isin(utterances.speaker[train], chosen)]
        train = np.setdiff1d(train, held_out)
    if not validation:
        train, held_out = np.union1d(train, held_out), _NONE
    for side, rows in (('training', train), ('validation', held_out), ('test', test)):
        if not rows.size and (side != 'validation' or validation):
            raise UserError(
                f'{name}: no {side} utterance (test: {", ".join(test_speakers) or "nobody"})'
            )
    return Fold(name, train, held_out, test, test_speakers, excluded)


def select_folds(folds: Sequence[Fold], numbers: Sequence[int]) -> list[Fold]:
    """The folds of some numbers, counted from 1; all of them for no numbers.

    Raises:
        UserError: a fold that does not exist.
    """
    if not folds:
        return []  # the protocol has none, whatever an option may choose
    for number in numbers:
        if not isinstance(number, int) or not 1 <= number <= len(folds):
            raise UserError(f'there is no fold {number!r}, only 1 to {len(folds)}')
    return [folds[number - 1] for number in sorted(set(numbers))] if numbers else list(folds)
