"""Prepared corpora: what a record holds, where it lies, and how it is opened.

A prepared corpus is one folder, `<data_dir>/<name>/<representation>/<version>/`: ArrayRecord shards and TFDS'
own metadata, `index.npz` (every record field but the arrays, row r = record r), `metadata.json` and `checksums.json`
of all of them. The folder appears by one rename after everything in it is written, so a half-built corpus has no folder.
"""

import dataclasses
import json
import os
import pathlib
import warnings
import zipfile

import numpy as np

from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.data.records import (
    INDEX_FILE,
    METADATA_FILE,
    SPLIT,
    corpus_folder,
    default_manual_dir,
    is_prepared,
)
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import damaged_file, file_sha256, local_path


@dataclasses.dataclass(frozen=True)
class RecordSource:
    """Random access to the arrays of a prepared corpus; picklable, opened by `Corpus.source()`.

    Attributes:
        records: TFDS' data source of the split, whole records.
        representation: the field handed out, 'log_mel' or 'waveform'.
        folder: of the corpus, for messages.
    """

    records: object
    representation: str
    folder: pathlib.Path

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, row: int) -> np.ndarray:
        """The array of one row: float32 [T, n_mels] log-mel, or int16 [S]. Read-only.

        Raises:
            UserError: the record is damaged.
        """
        try:
            return self.records[int(row)][self.representation]
        except RuntimeError as error:  # ArrayRecord has a checksum of every chunk
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
        index: every record field but the arrays, [N] each (`id`, `speaker`, `session`, `script`, `language`,
            `audio_sha256` str; `emotion`, `gender` int32 codes, -1 = none; `arousal`, `valence`, `dominance`
            float32, NaN = none; `duration` seconds, `frames` int32), and `log_mel_sum`, `log_mel_squares`
            float64 [N, n_mels], sums over the frames. Row r describes `source()[r]`.
        metadata: `vocabulary` (names of the emotion codes), `labels` (classes of the default task), `protocol`,
            `folds`, `synthetic`, `front_end`, `corpus_hash`, `builder_hash`, `published`, `missing`, `skipped`,
            `notes`, ...
        representation: 'log_mel' or 'waveform'.
        path: the folder.
        kept: arrays by row that somebody has read and keeps in memory, for all who read the same.
    """

    name: str
    index: dict[str, np.ndarray]
    metadata: dict
    representation: str
    path: pathlib.Path
    kept: dict[int, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.index['id'])

    def source(self) -> RecordSource:
        """Opens the records: `len()`, `[row]` -> the array of that row (about 0.15 ms each).

        Raises:
            UserError: the list of fields is not what TFDS writes.
        """
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
        manual_dir: folder that it was prepared from; None = `$SER_JAX_MANUAL_DIR/<corpus>`. Warns of labels that were
            edited there since.
        representation: 'log_mel' or 'waveform'.
        front_end: what the corpus must have been prepared with.

    Returns:
        The corpus.

    Raises:
        UserError: it is not prepared (says how), was prepared with another front end (names both), or is damaged.
    """
    folder = corpus_folder(name, data_dir=data_dir, representation=representation)
    if not is_prepared(folder):
        raise UserError(
            f'{name} is not prepared in {folder}: python -m tfds_builders.build {name} --representation={representation}'
        )
    corpus = _load(name, folder, representation)
    _check_front_end(corpus, front_end)
    _warn_if_stale(corpus, manual_dir)
    return corpus


def _load(name: str, folder: pathlib.Path, representation: str) -> Corpus:
    """Reads index and metadata of a prepared folder."""
    try:
        if damaged := damaged_file(folder, whole=False):
            raise ValueError(f'{damaged} is not what was written')
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
        f'{corpus.name} in {corpus.path} was prepared with {have}, but {want} is asked for: '
        'ask for the former, or name another data_dir to have it prepared there'
    )


def _warn_if_stale(corpus: Corpus, manual_dir: str | os.PathLike | None):
    """Warns where the list of labels (a csv corpus' metadata.csv) was edited after the corpus was prepared."""
    folder = local_path(manual_dir) if manual_dir else default_manual_dir(corpus.name)
    for file, digest in corpus.metadata.get('label_files', {}).items():
        if (
            folder is not None
            and not pathlib.PurePath(file).is_absolute()
            and '..' not in pathlib.PurePath(file).parts
            and (folder / file).is_file()
            and file_sha256(folder / file) != digest
        ):
            warnings.warn(
                f'{folder / file} has changed since {corpus.name} was prepared: '
                f'python -m tfds_builders.build {corpus.name} --representation={corpus.representation} prepares it again',
                stacklevel=3,
            )


# The kinds of fields that records have, and what TFDS says of each.
_KINDS = {
    'features_dict.FeaturesDict': 'featuresDict',
    'class_label_feature.ClassLabel': 'classLabel',
    'tensor_feature.Tensor': 'tensor',
    'text_feature.Text': 'text',
}


def check_features(path: pathlib.Path) -> None:
    """Refuses a `features.json` of prepared records that names other kinds of fields than ours: TFDS imports what it names.

    Raises:
        UserError: it does, or cannot be read.
    """
    try:
        if _is_known(json.loads(path.read_text(encoding='utf-8'))):
            return
    except (OSError, ValueError, RecursionError):
        pass
    raise UserError(f'{path} is not what was written: delete the folder and prepare it anew')


def _is_known(feature: object) -> bool:
    """Whether a feature in TFDS' JSON is of the kinds that records have: TFDS imports any module that it names."""
    if not isinstance(feature, dict):
        return False
    own = str(feature.get('pythonClassName')).removeprefix('tensorflow_datasets.core.features.')
    if feature.keys() != {'pythonClassName', _KINDS.get(own)}:
        return False
    told = feature[_KINDS[own]]
    if own != 'features_dict.FeaturesDict':
        return isinstance(told, dict) and told.keys() <= {
            'dtype',
            'encoding',
            'shape',
            'numClasses',
        }
    return told.keys() == {'features'} and all(map(_is_known, told['features'].values()))
