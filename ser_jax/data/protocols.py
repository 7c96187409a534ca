"""Evaluation protocols: from the metadata of a corpus to folds of index rows.

A protocol is one function, named by a call string: `leave_one_speaker_out()`,
`leave_one_session_out()`, `session_split("1 2 3", "4", "5")`, `speaker_folds(4)`, `published_folds()`, `fixed_lists("lists.json")` or `whole_corpus()`.
Folds depend on the metadata alone: the training seed plays no part, so that runs with several seeds
share their folds.

An utterance whose speaker is unknown ('') might be anybody's, the test speaker's too: it takes part
in no fold of these protocols (`Fold.excluded`). Only `fixed_lists` uses it, as its lists are
somebody's own statement; the leak check counts it.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ser_jax.runtime.errors import UserError

_NONE = np.empty(0, np.int64)
_SIDES = {'train', 'validation', 'test'}


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


def session_split(utterances: Utterances, train: str, validation: str, test: str) -> list[tuple]:
    """One split by recording sessions, each side named by words: `session_split("1 2 3", "4", "5")`.

    Sessions that no side names are left out.
    """
    sides = [str(side).split() for side in (train, validation, test)]
    named = [name for side in sides for name in side]
    everywhere = np.asarray(utterances.index['session']).astype(str)
    sessions = everywhere[utterances.rows]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise UserError(f'session_split: session {twice[0]!r} is named twice')
    for name in named:
        if name not in everywhere:
            there = ', '.join(sorted(set(everywhere) - {''})) or 'none at all'
            raise UserError(f'session_split: {name!r} is no session of the corpus; it has {there}')
        if name not in sessions:
            raise UserError(f'session_split: no utterance of session {name!r} has a label to use')
    return [tuple(utterances.rows[np.isin(sessions, side)] for side in sides)]


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
    'session_split': session_split,
    'speaker_folds': speaker_folds,
    'published_folds': published_folds,
    'fixed_lists': fixed_lists,
    # No folds: all train the final model, which `config.test_corpora` test.
    'whole_corpus': lambda utterances: [],
}
