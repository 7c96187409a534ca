"""Evaluation protocols: from the metadata of a corpus to folds of index rows.

A protocol is one function, named by a call string: `leave_one_speaker_out()`, `leave_one_session_out()`,
`session_split("1 2 3", "4", "5")`, `speaker_folds(4)`, `published_folds()`, `fixed_lists("lists.json")`,
`leave_corpus_out()` or `whole_corpus()`. It returns the row numbers of each fold: (train, validation, test), where
validation None means `ser_jax.data.folds.validation_speakers`. Folds depend on the metadata only, never on the training seed.

Utterances of unknown speakers ('') might belong to a test speaker: all protocols exclude them (`Fold.excluded`)
except `fixed_lists`, which takes its lists as they are; the leak check counts them.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ser_jax.audio.finding import SimilarNames
from ser_jax.data.records import split_speaker
from ser_jax.runtime.errors import UserError

_NONE = np.empty(0, np.int64)
_SPLITS = {'train', 'validation', 'test'}


@dataclasses.dataclass(frozen=True, eq=False)
class Utterances:
    """Input of a protocol function: the metadata of a corpus."""

    index: Mapping[str, np.ndarray]
    usable: np.ndarray  # every usable row, ascending
    rows: np.ndarray  # the usable rows whose speaker is known
    speaker: np.ndarray  # speaker of every row of the index, str
    genders: dict[str, int]  # speakers of `rows`, sorted -> 0 female, 1 male, -1 unknown
    published: Sequence[Sequence[str]] | None  # test speakers of the published folds
    seed: int  # seed of the speaker order; 0 = sorted

    def speakers_of(self, rows) -> tuple[str, ...]:
        """The known speakers of some rows, sorted."""
        return tuple(str(name) for name in np.unique(self.speaker[rows]) if name)

    def hold_out(self, test) -> tuple:
        """The fold that tests some rows and trains on all others."""
        return np.setdiff1d(self.rows, test), None, test

    def hold_out_speakers(self, groups) -> list[tuple]:
        """One fold per group of test speakers."""
        masks = [np.isin(self.speaker[self.rows], list(speakers)) for speakers in groups]
        return [self.hold_out(self.rows[mask]) for mask in masks]


def leave_one_speaker_out(utterances: Utterances) -> list[tuple]:
    """One fold per speaker."""
    return utterances.hold_out_speakers([[speaker] for speaker in utterances.genders])


def speaker_folds(utterances: Utterances, k: int) -> list[tuple]:
    """k folds of whole speakers, balanced by gender.

    Women, then men, then speakers of unknown gender are dealt out in turn, in sorted order or, with a split seed other
    than 0, in random order.
    """
    speakers = list(utterances.genders)
    if not isinstance(k, int) or not 2 <= k <= len(speakers):
        raise UserError(
            f'speaker_folds({k!r}): k must be 2 to {len(speakers)}, the number of speakers'
        )
    if utterances.seed:
        np.random.default_rng(utterances.seed).shuffle(speakers)
    dealt = sorted(speakers, key=lambda speaker: (0, 1, -1).index(utterances.genders[speaker]))
    return utterances.hold_out_speakers([dealt[number::k] for number in range(k)])


def published_folds(utterances: Utterances) -> list[tuple]:
    """The published folds of the corpus: its metadata lists their test speakers."""
    if not utterances.published:
        raise UserError('published_folds(): this corpus has none; use leave_one_speaker_out()')
    listed = [speaker for speakers in utterances.published for speaker in speakers]
    repeated = sorted({speaker for speaker in listed if listed.count(speaker) > 1})
    if repeated:
        name = split_speaker(repeated[0])[1]
        raise UserError(f'published_folds(): speaker {name} is a test speaker of two folds')
    return utterances.hold_out_speakers(utterances.published)


def leave_one_session_out(utterances: Utterances) -> list[tuple]:
    """One fold per recording session (two speakers each in IEMOCAP and MSP-IMPROV)."""
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
    """One fold whose splits are lists of sessions: `session_split("1 2 3", "4", "5")`; other sessions are left out."""
    splits = [str(names).split() for names in (train, validation, test)]
    named = [name for names in splits for name in names]
    all_sessions = np.asarray(utterances.index['session']).astype(str)
    sessions = all_sessions[utterances.rows]
    repeated = [name for name in named if named.count(name) > 1]
    if repeated:
        raise UserError(f'session_split: session {repeated[0]!r} is named twice')
    for name in named:
        if name not in all_sessions:
            known = ', '.join(sorted(set(all_sessions) - {''})) or 'none'
            raise UserError(f'session_split: {name!r} is no session of the corpus; it has {known}')
        if name not in sessions:
            raise UserError(f'session_split: no utterance of session {name!r} has a label to use')
    return [tuple(utterances.rows[np.isin(sessions, names)] for names in splits)]


def fixed_lists(utterances: Utterances, path: str) -> list[tuple]:
    """The folds of a JSON file.

    The file holds `{"train": [ids], "validation": [ids], "test": [ids]}`, or a list of such folds. Without
    "validation", validation speakers are taken from the training list. Listed utterances that the task cannot use
    (another emotion) are skipped; ids that the corpus does not have are an error.
    """
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8-sig'))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'fixed_lists: cannot read {path} as JSON: {error}') from error
    row_of = {str(name): row for row, name in enumerate(utterances.index['id'])}
    folds, tested = [], set()
    for number, lists in enumerate(content if isinstance(content, list) else [content], 1):
        where = f'fixed_lists, {path}, fold {number}'
        named = isinstance(lists, dict) and {'train', 'test'} <= set(lists) <= _SPLITS
        if not named or not all(_is_list_of_ids(names) for names in lists.values()):
            raise UserError(
                f'{where}: need "train", "test" and optionally "validation", lists of ids'
            )
        splits = {}
        for split, names in lists.items():
            names = names or ()
            missing = [name for name in names if name not in row_of]
            if missing:
                near = SimilarNames(row_of).find(str(missing[0]))[0]
                raise UserError(
                    f'{where}: {len(missing)} {split} ids are not in the corpus, e.g. {missing[0]!r}'
                    + (f'; it has {near!r}' if near else '')
                )
            listed = np.array([row_of[name] for name in names], np.int64)
            splits[split] = np.intersect1d(listed, utterances.usable)
        repeated = tested.intersection(splits['test'].tolist())
        if repeated:
            example = utterances.index['id'][min(repeated)]
            raise UserError(f'{where}: {example!r} is tested in two folds')
        tested.update(splits['test'].tolist())
        validation = splits.get('validation', _NONE)
        folds.append((splits['train'], validation if validation.size else None, splits['test']))
    if not folds:
        raise UserError(f'fixed_lists, {path}: the list of folds is empty')
    return folds


def _is_list_of_ids(names: object) -> bool:
    return names is None or (isinstance(names, list) and all(isinstance(n, str) for n in names))


PROTOCOLS = {
    'leave_one_speaker_out': leave_one_speaker_out,
    'leave_one_session_out': leave_one_session_out,
    'session_split': session_split,
    'speaker_folds': speaker_folds,
    'published_folds': published_folds,
    'fixed_lists': fixed_lists,
    # One fold, which tests every speaker: only `config.labelled` trains.
    'leave_corpus_out': lambda utterances: [(_NONE, _NONE, utterances.rows)],
    # No folds: all utterances train the final model, which is tested on `config.test_corpora`.
    'whole_corpus': lambda utterances: [],
}
