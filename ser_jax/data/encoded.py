"""Outputs of a frozen encoder for the utterances of a corpus, as `encoding.cache` writes them; never computes any.

`<data_dir>/<corpus>/encoded/<identity>/<output>/<view>/` holds, for the rows of the corpus' waveform records, values.npy and
metadata.json. The output is one of

- `statistics`: values float32 [N, layers, 2 D], mean and standard deviation over time of every layer;
- `frames_<layers>`: values float16 [sum of T, D + n_mels], 25 frames a second: the mean of some layers, and the log-mel of the
  utterance without noise, room and filters; lengths.npy int32 [N], the T of each row.

A view is 'clean' or an augmentation of the waveforms (`encoding.views`).
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

VALUES_FILE, LENGTHS_FILE = 'values.npy', 'lengths.npy'
FRAME_RATE = 25  # frames a second
_SCHEMA = {'corpus_hash': str, 'identity': str, 'encoder': str}


class Encoding(NamedTuple):
    """A frozen encoder, and which of its outputs are a network's input.

    Attributes:
        encoder: name of the encoder, for messages.
        identity: SHA-256 of its parameters and settings (`Encoder.identity`).
        layers: numbers of the layers: statistics are concatenated in this order, frames averaged.
        output: 'statistics' or 'frames'.
        views: names of the folders of the views; the first is 'clean'.
    """

    encoder: str
    identity: str
    layers: tuple[int, ...]
    output: str = 'statistics'
    views: tuple[str, ...] = ('clean',)

    def folder(self, corpus: str, data_dir: str | os.PathLike | None, view: str = 'clean') -> Path:
        """The folder of a view of a corpus, existing or not."""
        root = local_path(data_dir or DEFAULT_DATA_DIR)
        output = self.output
        if output == 'frames':
            output = '_'.join(['frames', *map(str, sorted(self.layers))])
        return root / corpus / 'encoded' / self.identity[:16] / output / view


@dataclasses.dataclass(frozen=True)
class _View:
    """The files of a view: values, memory-mapped; `ends` int64 [N + 1], the rows of the values of each utterance."""

    values: np.ndarray
    ends: np.ndarray


@dataclasses.dataclass(frozen=True)
class EncodedSource:
    """Random access to the network's inputs.

    Attributes:
        views: one for each view of the encoding.
        layers: numbers of the layers of statistics; () for frames.
        bands: mel bands stored behind the frames; 0 for statistics.
    """

    views: tuple[_View, ...]
    layers: tuple[int, ...]
    bands: int

    def __len__(self) -> int:
        return len(self.views[0].ends) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        """The input of one row of the clean view, float32 [T, F]."""
        return self.with_log_mel(row, 0)[0]

    def with_log_mel(self, row: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        """The input of one row of a view, float32 [T, F], and its clean log-mel, float32 [T, bands]."""
        values, ends = self.views[view].values, self.views[view].ends
        found = np.asarray(values[ends[row] : ends[row + 1]], np.float32)
        if self.layers:  # one frame, the statistics of the chosen layers
            found = found[:, list(self.layers)].reshape(1, -1)
        features = found.shape[1] - self.bands
        return found[:, :features], found[:, features:]

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """T of the clean view of some rows."""
        return np.diff(self.views[0].ends)[rows]


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
        corpus: waveform records.
        encoding: the encoder, its output and the views.
        data_dir: root of the prepared corpora.

    Raises:
        UserError: they are missing, damaged, or of other audio.
    """
    views = tuple(_open_view(corpus, encoding, data_dir, view) for view in encoding.views)
    fields = {field.name: getattr(corpus, field.name) for field in dataclasses.fields(corpus)}
    fields |= {'representation': 'encoded', 'kept': {}}
    if encoding.output == 'frames':
        source = EncodedSource(views, (), corpus.metadata['front_end']['n_mels'])
    else:
        source = EncodedSource(views, encoding.layers, 0)
    return EncodedCorpus(**fields, encoded=source)


def _open_view(corpus: Corpus, encoding: Encoding, data_dir, view: str) -> _View:
    folder = encoding.folder(corpus.name, data_dir, view)
    again = f'delete the folder, and the same command encodes {corpus.name} again'
    if not is_encoded(folder):
        raise UserError(f'{corpus.name} is not encoded by {encoding.encoder} in {folder}')
    try:
        if damaged := damaged_file(folder, whole=False):
            raise ValueError(f'{damaged} does not match its checksum')
        metadata = read_json(folder / METADATA_FILE, _SCHEMA)
        values = np.load(folder / VALUES_FILE, mmap_mode='r')
        lengths = np.ones(len(values), np.int64)
        if encoding.output == 'frames':
            lengths = np.load(folder / LENGTHS_FILE)
        ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        if ends[-1] != len(values):
            raise ValueError(f'{LENGTHS_FILE} and {VALUES_FILE} differ')
    except (OSError, ValueError) as error:
        raise UserError(f'{folder} is damaged ({error}): {again}') from error
    if metadata['corpus_hash'] != corpus.metadata['corpus_hash']:
        raise UserError(f'{folder} was encoded from an earlier state of {corpus.name}: {again}')
    if metadata['identity'] != encoding.identity:
        raise UserError(f'{folder} was encoded by other weights than {encoding.encoder}: {again}')
    return _View(values, ends)


def is_encoded(folder: Path) -> bool:
    """Whether a folder holds complete outputs."""
    return (folder / METADATA_FILE).is_file() and (folder / VALUES_FILE).is_file()
