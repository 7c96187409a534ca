"""The leak check: the splits of a fold share no utterance, no audio and no speaker."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from ser_jax.data.records import similar_speakers, split_speaker
from ser_jax.runtime.errors import UserError

# Equal ids in two corpora are one recording only if the durations agree to this, in seconds.
_SAME_DURATION = 0.05


def check_leaks(
    index: Mapping[str, np.ndarray], fold, extra: Sequence[Mapping[str, np.ndarray]] = ()
) -> dict[str, int]:
    """Checks that training, validation and test share no id, no identical audio and no speaker.

    Shared scripts are only counted: in acted corpora all speakers say the same sentences. So are utterances of unknown
    speakers (''), for which nothing can be checked. Missing hashes and speakers match nothing. Ids are relative to a
    corpus: an utterance of another corpus leaks by its id only if its duration is the same, to 0.05 s.

    Args:
        index: index of the corpus: str fields `id`, `audio_sha256`, `speaker`, `script`, float field `duration`.
        fold: `Fold` with rows of `index`.
        extra: indices of other corpora, all of whose rows join training.

    Returns:
        `speakers`, `audio`, `ids`: 0, since a leak raises; `scripts`: distinct scripts of the test split that occur
        in training, too, if the corpus names scripts; `unknown_speakers`: utterances of unknown speakers in use;
        `excluded`: utterances excluded by the protocol because their speaker is unknown.

    Raises:
        UserError: a leak, with an example.
    """
    splits = {'training': fold.train, 'validation': fold.validation, 'test': fold.test}
    for first, second in (('training', 'test'), ('validation', 'test'), ('training', 'validation')):
        for field, what in (
            ('id', 'utterance'),
            ('audio_sha256', 'identical audio'),
            ('speaker', 'speaker'),
        ):
            shared = _shared(index, splits[first], index, splits[second], field)
            if shared:
                example = _example(index, splits[second], field, shared[0])
                raise UserError(
                    f'leak in {fold.name}: {what} {example} is in {first} and in {second} '
                    f'({len(shared)} such); correct the lists or the metadata, '
                    'or use a speaker-independent protocol'
                )
    held_out = np.concatenate([fold.validation, fold.test])
    for other in extra:
        rows = np.arange(len(other['id']))
        for field, what in (
            ('speaker', 'speaker'),
            ('audio_sha256', 'identical audio'),
            ('id', 'utterance'),
        ):
            shared = _shared(other, rows, index, held_out, field)
            if field == 'id':
                shared = [
                    name for name in shared if _same_duration(other, rows, index, held_out, name)
                ]
            if shared:
                example = _example(other, rows, field, shared[0])
                if field == 'speaker':
                    example += f' ({split_speaker(shared[0])[0]})'
                raise UserError(
                    f'leak in {fold.name}: {what} {example} of an added corpus is in its '
                    f'validation or test split ({len(shared)} such); '
                    'leave that corpus out of the added speech'
                )
    used = np.concatenate([fold.train, held_out])
    unknown = np.sum(_values(index, used, 'speaker') == '')
    unknown += sum(np.sum(np.asarray(other['speaker']).astype(str) == '') for other in extra)
    counts = {'unknown_speakers': int(unknown), 'excluded': len(fold.excluded)}
    if np.any(np.asarray(index['script']).astype(str) != ''):
        counts['scripts'] = len(_shared(index, fold.train, index, fold.test, 'script'))
    return {'speakers': 0, 'audio': 0, 'ids': 0, **counts}


def check_folds(
    index: Mapping[str, np.ndarray], folds: Sequence, extra: Sequence[Mapping[str, np.ndarray]] = ()
) -> dict[str, int]:
    """The leak check of all folds; warns of speakers whose names differ in spelling only.

    Args:
        index: see `check_leaks`.
        folds: `Fold`s.
        extra: see `check_leaks`.

    Returns:
        The counts of `check_leaks`, each the maximum over the folds.

    Raises:
        UserError: a leak in any fold.
    """
    names = [
        _values(index, np.concatenate([f.train, f.validation, f.test]), 'speaker') for f in folds
    ]
    names += [np.asarray(other['speaker']).astype(str) for other in extra]
    for warning in similar_speakers(np.unique(np.concatenate(names)).tolist()):
        warnings.warn(warning, stacklevel=2)
    checks = [check_leaks(index, fold, extra) for fold in folds]
    return {name: max(check[name] for check in checks) for name in checks[0]}


def _values(index, rows, field):
    return np.asarray(index[field])[rows].astype(str)


def _shared(first, first_rows, second, second_rows, field):
    """The known values of a field that both have, sorted."""
    both = np.intersect1d(_values(first, first_rows, field), _values(second, second_rows, field))
    return [str(value) for value in both if value]


def _example(index, rows, field, value):
    """The shared id or speaker, as its corpus names it; for a hash, an id that has it."""
    if field != 'audio_sha256':
        return repr(split_speaker(value)[1] if field == 'speaker' else value)
    return f'of {str(index["id"][rows[_values(index, rows, field) == value][0]])!r}'


def _same_duration(first, first_rows, second, second_rows, name):
    spans = [
        np.asarray(index['duration'])[rows[_values(index, rows, 'id') == name]]
        for index, rows in ((first, first_rows), (second, second_rows))
    ]
    return bool(np.any(np.abs(spans[0][:, None] - spans[1][None, :]) < _SAME_DURATION))
