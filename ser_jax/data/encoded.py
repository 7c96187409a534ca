"""Outputs of a frozen encoder for the utterances of a corpus, as `encoding.cache` writes them; never computes any.

`<data_dir>/<corpus>/encoded/<identity>/` holds statistics.npy, float32 [N, layers, 2 D], mean and standard deviation over time
of every layer for the rows of the corpus' waveform records, and metadata.json.
"""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ser_jax.data.corpora import Corpus
from ser_jax.data.records import DEFAULT_DATA_DIR, METADATA_FILE
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import damaged_file, local_path
from ser_jax.runtime.schema import read_json

STATISTICS_FILE = 'statistics.npy'
_SCHEMA = {'corpus_hash': str, 'identity': str, 'encoder': str}


class Encoding(NamedTuple):
    """A frozen encoder, and which of its outputs are a network's input.

    Attributes:
        encoder: its name, for messages.
        identity: of its parameters and settings (`Encoder.identity`).
        layers: numbers of the layers, in the order in which they are concatenated.
    """

    encoder: str
    identity: str
    layers: tuple[int, ...]

    def folder(self, corpus: str, data_dir: str | os.PathLike | None) -> Path:
        """The folder of the outputs for a corpus, existing or not."""
        root = local_path(data_dir or DEFAULT_DATA_DIR)
        return root / corpus / 'encoded' / self.identity[:16]


@dataclasses.dataclass(frozen=True)
class EncodedSource:
    """Random access to the network's inputs.

    Attributes:
        statistics: float32 [N, layers, 2 D], memory-mapped.
        layers: numbers of the layers.
    """

    statistics: np.ndarray
    layers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.statistics)

    def __getitem__(self, row: int) -> np.ndarray:
        """The input of one row: one frame, float32 [1, layers × 2 D]."""
        return np.asarray(self.statistics[row, list(self.layers)]).reshape(1, -1)


@dataclasses.dataclass(frozen=True)
class EncodedCorpus(Corpus):
    """A corpus whose arrays are outputs of an encoder.

    Attributes:
        encoded: random access to them.
    """

    encoded: EncodedSource | None = None

    def source(self) -> EncodedSource:
        """The inputs by row."""
        return self.encoded


def open_encoded(
    corpus: Corpus, encoding: Encoding, data_dir: str | os.PathLike | None
) -> EncodedCorpus:
    """Opens the outputs of an encoder for a corpus.

    Args:
        corpus: its waveform records.
        encoding: the encoder and the layers.
        data_dir: root of the prepared corpora.

    Raises:
        UserError: they are missing, damaged, or of other audio.
    """
    folder = encoding.folder(corpus.name, data_dir)
    again = f'delete the folder, and the same command encodes {corpus.name} again'
    if not is_encoded(folder):
        raise UserError(f'{corpus.name} is not encoded by {encoding.encoder} in {folder}')
    try:
        if damaged := damaged_file(folder, whole=False):
            raise ValueError(f'{damaged} does not match its checksum')
        metadata = read_json(folder / METADATA_FILE, _SCHEMA)
        statistics = np.load(folder / STATISTICS_FILE, mmap_mode='r')
    except (OSError, ValueError) as error:
        raise UserError(f'{folder} is damaged ({error}): {again}') from error
    if metadata['corpus_hash'] != corpus.metadata['corpus_hash']:
        raise UserError(f'{folder} was encoded from an earlier state of {corpus.name}: {again}')
    if metadata['identity'] != encoding.identity:
        raise UserError(f'{folder} was encoded by other weights than {encoding.encoder}: {again}')
    fields = {field.name: getattr(corpus, field.name) for field in dataclasses.fields(corpus)}
    fields |= {'representation': 'encoded', 'kept': {}}
    return EncodedCorpus(**fields, encoded=EncodedSource(statistics, encoding.layers))


def is_encoded(folder: Path) -> bool:
    """Whether a folder holds complete outputs."""
    return (folder / METADATA_FILE).is_file() and (folder / STATISTICS_FILE).is_file()
