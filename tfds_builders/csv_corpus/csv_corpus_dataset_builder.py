"""csv_corpus/<name>: a user's recordings, a folder of audio with a metadata.csv (or another table, see `tables`)."""

import difflib
import math
import os
import pathlib
import re
import shlex
from collections.abc import Sequence

from ser_jax.audio.finding import SimilarNames, find_audio
from ser_jax.data.records import DIMENSIONS, EMOTIONS, GENDERS, known_name
from ser_jax.runtime.errors import UserError
from tfds_builders.core.base import CorpusBuilder, Listing
from tfds_builders.core.utterance import Utterance
from tfds_builders.csv_corpus.tables import COLUMNS, NAMES, TABLE, read_folder

# With more speakers, leaving one out at a time takes too many folds.
_MAX_FOLDS = 12
_ROUNDED = re.compile(r'\d([.,]\d+)?E\+\d+')  # 1.23E+11
_GENDERS = {'f': 'female', 'w': 'female', 'm': 'male', '': '', **{name: name for name in GENDERS}}


def _unused_columns(row: dict[str, str]) -> list[str]:
    """A note for each unknown column, with the known column of a similar name."""
    notes = []
    for name in row.keys() - {*COLUMNS, ''}:
        near = difflib.get_close_matches(name, COLUMNS, 1)
        notes.append(
            f'column {name!r} is not used' + ''.join(f'; did you mean {n!r}?' for n in near)
        )
    return sorted(notes)


def _similar_names(folder: pathlib.Path) -> SimilarNames:
    return SimilarNames(path.relative_to(folder).as_posix() for path in find_audio(folder).audio)


def _remarks(folder: pathlib.Path, utterances: Sequence[Utterance]) -> dict[str, str]:
    """For each utterance whose file is not there, the file that its name may mean."""
    absent = [item for item in utterances if not os.path.exists(item.path)]
    remarks, names = {}, _similar_names(folder) if absent else None
    for item in absent:
        near, difference = names.find(os.path.relpath(item.path, folder))
        if near:
            remarks[item.id] = f'{difference}: there is {near!r}'
    return remarks


class Builder(CorpusBuilder):
    """Builder of csv corpora; emotion and speaker may be blank (noise, speech without labels)."""

    NAMED_BY_TABLE = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = f'it needs a folder with the recordings and {TABLE}'

    @classmethod
    def list_utterances(
        cls,
        folder: pathlib.Path,
        *,
        name: str = 'csv_corpus',
        map: dict[str, str] | None = None,
        own_labels: bool = False,
    ) -> Listing:
        """Reads the table; the audio files are opened later, one by one.

        Args:
            folder: folder of the table.
            name: name of the corpus, the prefix of its speakers.
            map: label, in any case, -> emotion ('' = none).
            own_labels: whether to keep the labels as they are, in a vocabulary of their own.

        Raises:
            UserError: a table or cell that cannot be used, with its line.
        """
        mapping = {label.lower(): emotion for label, emotion in (map or {}).items()}
        rows, files = read_folder(folder)
        utterances, seen, ids, unknown = [], {}, set(), {}
        for where, row in rows:
            item = cls._utterance(folder, row, where, name)
            label = mapping.get(row['emotion'].lower(), row['emotion'])
            if not own_labels:
                label = label.lower()
                if label and label not in EMOTIONS:
                    unknown.setdefault(label, where.rpartition(' ')[2])
            line, path = seen.setdefault(item.id, (where.rpartition(' ')[2], item.path))
            if path != item.path:
                raise UserError(
                    f'{where}: {row["file"]!r} and {os.path.basename(path)!r} in line {line} differ in their ending only: '
                    'rename one of them'
                )
            if item.id in ids:
                raise UserError(f'{where}: {item.id!r} is in line {line} already')
            ids.add(item.id)
            utterances.append(Utterance(**{**item.__dict__, 'emotion': label}))
        if unknown:
            raise cls._unknown_labels(rows[0].where.rpartition(' line ')[0], unknown, name)
        notes = _unused_columns(rows[0].cells)
        labels = {row['emotion'].lower() for _, row in rows}
        notes += [
            f'--map: no label is {label!r}'
            for label in sorted(map or {})
            if label.lower() not in labels
        ]
        unlabelled = sum(not item.emotion for item in utterances)
        if 0 < unlabelled < len(utterances):
            notes.append(f'{unlabelled} utterances have no emotion: they have no label to train on')
        speakers = sum(not item.speaker for item in utterances)
        if speakers:
            notes.append(f'{speakers} utterances have no speaker: they cannot be split by speaker')
        named = {row['speaker'] for _, row in rows} - {''}
        missing = [repr(text) for text in sorted(named) if not known_name(text)]
        if missing:
            notes.append(f'the speaker {" or ".join(missing)} counts as unknown')
        rounded = sorted({row.get(field, '') for _, row in rows for field in NAMES})
        notes += [
            f'{text!r} looks like a number that a spreadsheet rounded: distinct names may have become one; write them as text'
            for text in rounded
            if _ROUNDED.fullmatch(text)
        ]
        if own_labels:
            notes += [
                f'the label {label!r} is a class of its own; {shlex.join(["--map", f"{label}="])} drops it'
                for label in sorted({item.emotion for item in utterances} - {''})
                if not known_name(label)
            ]
        remarks = _remarks(folder, utterances)
        return Listing(utterances, notes=tuple(notes), label_files=files, remarks=remarks)

    @staticmethod
    def _unknown_labels(path: str, unknown: dict[str, str], name: str) -> UserError:
        labels = ', '.join(f'{label!r} (line {line})' for label, line in unknown.items())
        label = next(iter(unknown))
        option = lambda emotion: shlex.join(['--map', f'{label}={emotion}'])
        return UserError(
            f'{path}: labels outside the vocabulary: {labels}; the vocabulary is '
            f'{", ".join(EMOTIONS)}. Run python -m tfds_builders.build {name} with '
            f'{option("EMOTION")} to read one as another, {option("")} to drop it, '
            'or --own_labels to keep all labels as they are (rules out runs across corpora)'
        )

    @staticmethod
    def _utterance(folder: pathlib.Path, row: dict[str, str], where: str, name: str) -> Utterance:
        """One row without its label."""
        file = os.path.normpath(row['file'].replace('\\', '/'))
        if not row['file']:
            raise UserError(f'{where}: no file named')
        if any(ord(character) < ord(' ') for character in file):
            raise UserError(f'{where}: file {row["file"]!r} holds control characters')
        if os.path.isabs(file) or re.match('[A-Za-z]:/', file) or file.split(os.sep)[0] == '..':
            near = _similar_names(folder).find(file)[0]
            raise UserError(
                f'{where}: {row["file"]!r} lies outside {folder}; name files inside it'
                + (f': {near!r}' if near else '')
            )
        named = {name: known_name(row.get(name, '')) for name in NAMES}
        gender = named['gender'].lower()
        if gender not in _GENDERS:
            raise UserError(f'{where}: gender {row["gender"]!r} is not female or male')
        dimensions = {}
        for field in DIMENSIONS:
            text = known_name(row.get(field, ''))
            try:
                value = float(text.replace(',', '.')) if text else math.nan
            except ValueError:
                value = None
            if value is None or not (math.isnan(value) or 1 <= value <= 5):
                raise UserError(
                    f'{where}: {field} {text!r} is not a number from 1 to 5'
                    + ': convert the whole column to that scale' * (value is not None)
                )
            dimensions[field] = value
        return Utterance(
            id=pathlib.PurePath(file).with_suffix('').as_posix(),
            path=str(folder / file),
            speaker=f'{name}/{named["speaker"]}' if named['speaker'] else '',
            session=named['session'],
            script=named['script'],
            language=named['language'],
            gender=_GENDERS[gender],
            **dimensions,
        )

    @classmethod
    def vocabulary(cls, listing: Listing, own_labels: bool = False, **_) -> tuple[str, ...]:
        """The canonical emotions; with `own_labels` the labels that occur, sorted."""
        if not own_labels:
            return EMOTIONS
        return tuple(sorted({item.emotion for item in listing.utterances} - {''})) or EMOTIONS

    @classmethod
    def task(cls, listing: Listing, vocabulary: Sequence[str]) -> dict:
        """All labels that occur; leave one speaker out, or five folds of speakers for many speakers."""
        labelled = [item for item in listing.utterances if item.emotion]
        present = {item.emotion for item in labelled}
        speakers = {item.speaker for item in labelled} - {''}
        protocol = None
        if speakers:
            many = len(speakers) > _MAX_FOLDS
            protocol = 'speaker_folds(5)' if many else 'leave_one_speaker_out()'
        labels = [name for name in vocabulary if name in present]
        return {'labels': labels, 'protocol': protocol, 'folds': None}
