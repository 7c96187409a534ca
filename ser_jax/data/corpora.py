"""Prepared corpora: what a record holds, where it lies, and how it is opened.

A prepared corpus is one folder, `<data_dir>/<name>/<representation>/<version>/`: ArrayRecord shards and TFDS'
own metadata, `index.npz` (every record field but the arrays, row r = record r), `metadata.json` and `checksums.json`
of all of them. The folder appears by one rename after everything in it is written, so a half-built corpus has no folder.
"""

import dataclasses
import json
import os
import pathlib
import re
import warnings
import zipfile

import numpy as np

from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.runtime.checksums import damaged_file, file_sha256
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.paths import local_path
from ser_jax.runtime.stored import check_features

# One vocabulary for all corpora; class codes of records are positions in it.
EMOTIONS = (
    'neutral',
    'calm',
    'happy',
    'sad',
    'angry',
    'fearful',
    'disgusted',
    'surprised',
    'bored',
    'excited',
    'frustrated',
    'other',
)
GENDERS = ('female', 'male')
DIMENSIONS = ('arousal', 'valence', 'dominance')
# Two classes of a dimension made of categories: class -> emotions, for EMO-DB as usual in cross-corpus work, for the other
# emotions our choice. Emotions in neither class have no label.
EMOTIONS_OF = {
    'arousal_of_emotion': {
        'low': ('neutral', 'calm', 'sad', 'disgusted', 'bored'),
        'high': ('happy', 'angry', 'fearful', 'surprised', 'excited'),
    },
    'valence_of_emotion': {
        'negative': ('sad', 'angry', 'fearful', 'disgusted', 'bored', 'frustrated'),
        'positive': ('neutral', 'calm', 'happy', 'surprised', 'excited'),
    },
}
REPRESENTATIONS = ('log_mel', 'waveform')
SPLIT = 'utterances'
# Of the record's layout, not of a corpus: another number means that other fields are expected.
RECORD_VERSION = '1.0.0'
DEFAULT_DATA_DIR = '~/.cache/ser_jax/records'
INDEX_FILE = 'index.npz'
METADATA_FILE = 'metadata.json'


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


def corpus_folder(
    name: str, *, data_dir: str | os.PathLike | None, representation: str
) -> pathlib.Path:
    """Where a prepared corpus lies, whether it exists or not.

    Raises:
        UserError: an unknown representation.
    """
    if representation not in REPRESENTATIONS:
        raise UserError(
            f'unknown representation {representation!r}: one of {", ".join(REPRESENTATIONS)}'
        )
    return local_path(data_dir or DEFAULT_DATA_DIR) / name / representation / RECORD_VERSION


def default_manual_dir(name: str) -> pathlib.Path | None:
    """`$SER_JAX_MANUAL_DIR/<corpus>` (of csv_corpus/<name> and folder/<name>: `$SER_JAX_MANUAL_DIR/<name>`); None where unset."""
    root = os.environ.get('SER_JAX_MANUAL_DIR')
    return local_path(root) / name.rpartition('/')[2] if root else None


def is_prepared(folder: pathlib.Path) -> bool:
    """Whether a whole prepared corpus lies there: index, metadata, and every shard that TFDS lists."""
    needed = (INDEX_FILE, METADATA_FILE, 'dataset_info.json')
    if not all((folder / name).is_file() for name in needed):
        return False
    try:
        info = json.loads((folder / 'dataset_info.json').read_text())
        shards = len(info['splits'][0]['shardLengths'])
    except (OSError, ValueError, KeyError, IndexError):
        return False
    return len(list(folder.glob(f'*-{SPLIT}.array_record-*-of-{shards:05d}'))) == shards


def prepared_hash(
    name: str, *, data_dir: str | os.PathLike | None, representation: str = 'log_mel'
) -> str | None:
    """The `corpus_hash` of a corpus as it is prepared now; None where it is not.

    Args:
        name: of the corpus.
        data_dir: root of the prepared corpora; None = `~/.cache/ser_jax/records`.
        representation: 'log_mel' or 'waveform'.
    """
    folder = corpus_folder(name, data_dir=data_dir, representation=representation)
    if not is_prepared(folder):
        return None
    return json.loads((folder / METADATA_FILE).read_text(encoding='utf-8'))['corpus_hash']


def open_corpus(
    name: str,
    *,
    data_dir: str | os.PathLike | None,
    manual_dir: str | os.PathLike | None = None,
    representation: str = 'log_mel',
    front_end: FrontEnd = DEFAULT_FRONT_END,
) -> Corpus:
    """Opens a corpus; prepares it first where it is missing and can be prepared.

    Args:
        name: 'demo_speech', 'emodb', 'ravdess', ..., 'csv_corpus/<name>' or 'folder/<name>'.
        data_dir: root of the prepared corpora; None = `~/.cache/ser_jax/records`.
        manual_dir: folder with the corpus as its owner distributes it; None = `$SER_JAX_MANUAL_DIR/<corpus>`.
        representation: 'log_mel' or 'waveform'.
        front_end: what the corpus must have been prepared with.

    Returns:
        The corpus.

    Raises:
        UserError: an unknown corpus, one that is missing and cannot be prepared (says how), one that was
            prepared with another front end (names both), or a damaged one.
    """
    folder = corpus_folder(name, data_dir=data_dir, representation=representation)
    if not is_prepared(folder):
        # The one place where ser_jax reaches the builders, and only when there is something to build.
        from tfds_builders.core.prepare import prepare

        prepare(
            name,
            manual_dir=manual_dir,
            data_dir=data_dir,
            representation=representation,
            front_end=front_end,
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


def noise_type(text: str) -> str:
    """The type of a noise recording as conditions write it: `Dog bark` -> `dog_bark`."""
    return re.sub(r'\W+', '_', text.strip().lower())
