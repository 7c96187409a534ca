"""Opens prepared corpora: index, metadata, and random access to the arrays. Never builds one."""

import dataclasses
import json
import os
import shlex
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePath

import numpy as np

from ser_jax.audio.finding import file_states
from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.data.records import (
    INDEX_FILE,
    METADATA_FILE,
    SPLIT,
    corpus_folder,
    default_manual_dir,
    is_prepared,
    read_sources,
)
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import damaged_file, file_sha256, local_path


@dataclasses.dataclass(frozen=True)
class RecordSource:
    """Random access to the arrays of a prepared corpus; picklable, opened by `Corpus.source()`.

    Attributes:
        records: TFDS' data source of the split, whole records.
        representation: field to return, 'log_mel' or 'waveform'.
        folder: folder of the corpus, for messages.
    """

    records: object
    representation: str
    folder: Path

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> np.ndarray:
        """The array of one row, read-only: float32 [T, n_mels] log-mel, or int16 [S]; UserError: the record is damaged."""
        try:
            return self.records[int(row)][self.representation]
        except RuntimeError as error:  # a chunk does not match ArrayRecord's checksum
            reason = str(error).partition('\n')[0]
            raise UserError(
                f'record {row} of {self.folder} cannot be read ({reason}): delete the folder, and the same command '
                'prepares the corpus again'
            ) from error


@dataclasses.dataclass(frozen=True)
class Corpus:
    """An opened corpus.

    Attributes:
        name: such as 'emodb' or 'csv_corpus/mine'.
        index: all record fields but the arrays, [N] each (`id`, `speaker`, `session`, `script`, `language`,
            `audio_sha256` str; `emotion`, `gender` int32 codes, -1 = none; `arousal`, `valence`, `dominance`
            float32, NaN = none; `duration` seconds, `frames` int32), and `log_mel_sum`, `log_mel_squares`
            float64 [N, n_mels], sums over the frames. Row r describes `source()[r]`.
        metadata: `vocabulary` (names of the emotion codes), `labels` (classes of the default task), `protocol`,
            `folds`, `synthetic`, `front_end`, `corpus_hash`, `builder_hash`, `published`, `missing`, `skipped`,
            `notes`, ...
        representation: 'log_mel' or 'waveform'.
        path: folder of the corpus.
        kept: arrays by row that are held in memory, shared by all readers.
    """

    name: str
    index: dict[str, np.ndarray]
    metadata: dict
    representation: str
    path: Path
    kept: dict[int, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.index['id'])

    def source(self) -> RecordSource:
        """Opens the records: `len()`, `[row]` -> the array of that row (about 0.15 ms each); raises UserError."""
        import tensorflow_datasets as tfds

        check_features(self.path / 'features.json')
        builder = tfds.builder_from_directory(self.path)
        return RecordSource(builder.as_data_source(SPLIT), self.representation, self.path)


def open_corpus(
    name: str,
    *,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None = None,
    representation: str = 'log_mel',
    front_end: FrontEnd = DEFAULT_FRONT_END,
) -> Corpus:
    """Opens a prepared corpus.

    Args:
        name: 'demo_speech', 'emodb', 'ravdess', ..., 'csv_corpus/<name>' or 'folder/<name>'.
        data_dir: root of the prepared corpora; None = `~/.cache/ser_jax/records`.
        manual_dir: folder of the corpus; None = the one that it was prepared from, else `$SER_JAX_MANUAL_DIR/<corpus>`.
            A warning is given if labels or recordings in it have changed or gone, or are new, since the corpus was prepared.
        representation: 'log_mel' or 'waveform'.
        front_end: expected log-mel parameters.

    Returns:
        The corpus.

    Raises:
        UserError: the corpus is not prepared, was prepared with another front end, or is damaged.
    """
    folder = corpus_folder(name, data_dir=data_dir, representation=representation)
    if not is_prepared(folder):
        where = f' --data_dir={data_dir}' if data_dir else ''
        raise UserError(
            f'{name} is not prepared in {folder}: run python -m tfds_builders.build {name} '
            f'--representation={representation}{where}'
        )
    corpus = _load(name, folder, representation)
    _check_front_end(corpus, front_end)
    _warn_if_stale(corpus, manual_dir, data_dir)
    return corpus


def _load(name: str, folder: Path, representation: str) -> Corpus:
    """Reads index and metadata of a prepared folder."""
    try:
        if damaged := damaged_file(folder, whole=False):
            raise ValueError(f'{damaged} does not match its checksum')
        metadata = json.loads((folder / METADATA_FILE).read_text(encoding='utf-8'))
        with np.load(folder / INDEX_FILE, allow_pickle=False) as stored:
            index = {field: stored[field] for field in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f'{folder} is damaged ({error}): delete it and run '
            f'python -m tfds_builders.build {name} --representation={representation}'
        ) from error
    return Corpus(name, index, metadata, representation, folder)


def _check_front_end(corpus: Corpus, front_end: FrontEnd):
    stored, wanted = corpus.metadata['front_end'], dataclasses.asdict(front_end)
    if stored == wanted:
        return
    fields = [field for field in wanted if stored.get(field) != wanted[field]]
    have = ', '.join(f'{field}={stored.get(field)}' for field in fields)
    want = ', '.join(f'{field}={wanted[field]}' for field in fields)
    raise UserError(
        f'{corpus.name} in {corpus.path} was prepared with {have}, but {want} is requested: '
        'request the former, or set another data_dir to prepare it there'
    )


def _warn_if_stale(
    corpus: Corpus, manual_dir: str | os.PathLike | None, data_dir: str | os.PathLike | None
):
    """Warns where labels or recordings have changed or gone, or are new, since the corpus was prepared from them."""
    sources = read_sources(corpus.path)
    recorded = sources.get('manual_dir')  # '' if downloaded or synthesised, None in older records
    if recorded == '':
        return
    places = [manual_dir] if manual_dir else [recorded, default_manual_dir(corpus.name)]
    places = [local_path(place) for place in places if place]
    folder = next((place for place in places if place.is_dir()), None)
    if not folder:  # records may be copied without their recordings: the doctor names the folder
        return
    same = bool(recorded) and os.path.realpath(folder) == os.path.realpath(recorded)
    changes = [*_changed_labels(corpus, folder), *_changed_recordings(sources, folder, same)]
    if changes:
        warnings.warn(
            f'{folder}: {", ".join(changes)} since {corpus.name} was prepared: to prepare it again, run '
            + _build_command(corpus, folder, data_dir),
            stacklevel=3,
        )


def _changed_labels(corpus: Corpus, folder: Path) -> Iterator[str]:
    """The files of labels in a folder that are not those that the corpus was prepared from."""
    known = corpus.metadata.get(
        'label_files', {}
    )  # file -> SHA-256, pattern of further files -> None
    for file, digest in known.items():
        path = PurePath(file)
        if not path.parts or path.is_absolute() or '..' in path.parts:
            continue
        if not digest:
            found = (path.relative_to(folder).as_posix() for path in folder.glob(file))
            new = [name for name in found if not known.get(name)]
            yield from (f'{name} is new' for name in sorted(new) if PurePath(name).name[0] != '.')
        elif not (folder / file).is_file():
            yield f'{file} is gone'
        elif file_sha256(folder / file) != digest:
            yield f'{file} has changed'


def _changed_recordings(sources: dict, folder: Path, same: bool) -> Iterator[str]:
    """The recordings in a folder that are not those that the corpus was prepared from, counted by kind.

    Args:
        sources: content of `sources.json`.
        folder: folder of the recordings.
        same: whether it is the folder that the corpus was prepared from: copies may have other times.
    """
    if not sources:
        return
    before = sources['recordings']
    now = file_states(folder, None if sources['scanned'] else before)
    count = 2 if same else 1  # of (size, time)
    changed, new, gone = [], [], []
    for name in before.keys() | now.keys():
        old, found = before.get(name), now.get(name)
        if old and found and old[:count] != found[:count]:
            changed.append(name)
        elif found and not old:
            new.append(name)
        elif old and not found:
            gone.append(name)
    for names, one, many in (
        (changed, 'has changed', 'have changed'),
        (new, 'is new', 'are new'),
        (gone, 'is gone', 'are gone'),
    ):
        if names:
            more = f' and {len(names) - 1} more recordings {many}' if len(names) > 1 else f' {one}'
            yield min(names) + more


def _build_command(corpus: Corpus, folder: Path, data_dir: str | os.PathLike | None) -> str:
    """The command that prepares a corpus again with the same options."""
    options = corpus.metadata.get('options') or {}
    command = ['python', '-m', 'tfds_builders.build', corpus.name]
    command += [f'--representation={corpus.representation}', f'--manual_dir={folder}']
    command += [f'--data_dir={data_dir}'] if data_dir else []
    for label, emotion in (options.get('map') or {}).items():
        command += ['--map', f'{label}={emotion}']
    command += ['--own_labels'] if options.get('own_labels') else []
    return shlex.join(command)


# TFDS classes of the fields of records, and the key of each in TFDS' JSON.
_FEATURE_CLASSES = {
    'features_dict.FeaturesDict': 'featuresDict',
    'class_label_feature.ClassLabel': 'classLabel',
    'tensor_feature.Tensor': 'tensor',
    'text_feature.Text': 'text',
}
_FEATURE_FIELDS = {'dtype', 'encoding', 'shape', 'numClasses'}


def check_features(path: Path) -> None:
    """Refuses a `features.json` with other classes than records have: TFDS imports any module named there.

    Raises:
        UserError: it names other classes, or cannot be read.
    """
    try:
        if _is_known(json.loads(path.read_text(encoding='utf-8'))):
            return
    except (OSError, ValueError, RecursionError):
        pass
    raise UserError(
        f'{path} is damaged or not from ser_jax: delete the folder and prepare the corpus again'
    )


def _is_known(feature: object) -> bool:
    """Whether a feature in TFDS' JSON, with all features inside it, is of `_FEATURE_CLASSES`."""
    if not isinstance(feature, dict):
        return False
    name = str(feature.get('pythonClassName')).removeprefix('tensorflow_datasets.core.features.')
    key = _FEATURE_CLASSES.get(name)
    if feature.keys() != {'pythonClassName', key}:
        return False
    content = feature[key]
    if name != 'features_dict.FeaturesDict':
        return isinstance(content, dict) and content.keys() <= _FEATURE_FIELDS
    return content.keys() == {'features'} and all(map(_is_known, content['features'].values()))
