"""Encodes the utterances of a corpus by a frozen encoder, once, and keeps the result on disk (`data.encoded`)."""

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tqdm
from jax.experimental import multihost_utils

from ser_jax.data.corpora import Corpus
from ser_jax.data.encoded import STATISTICS_FILE, Encoding, is_encoded
from ser_jax.data.records import METADATA_FILE
from ser_jax.encoding.extraction import Extractor
from ser_jax.models.encoders.pretrained import Encoder
from ser_jax.runtime.devices import is_main_process
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import replacing, write_checksums, write_json

_CHUNK = 256  # utterances that are encoded before a part is written; an interrupted extraction resumes behind it
_RESERVE = 5 << 30  # bytes of the disk that are left free


def encode_corpus(corpus: Corpus, encoder: Encoder, data_dir: str | os.PathLike | None) -> None:
    """Writes mean and standard deviation over time of every layer, unless they are there already.

    An interrupted extraction resumes; a folder is complete once its metadata are there. Several processes share the work and
    the folder.

    Args:
        corpus: waveform records.
        encoder: a loaded encoder.
        data_dir: root of the prepared corpora.

    Raises:
        UserError: no room on the disk, or an utterance too short for the encoder.
    """
    folder = Encoding(encoder.name, encoder.identity, ()).folder(corpus.name, data_dir)
    if is_encoded(folder):
        return
    if not is_main_process():
        _encode(corpus, encoder, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not is_encoded(folder):  # another run may just have written it
            _encode(corpus, encoder, folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits until no other run encodes the corpus."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            print(f'waiting for another run that writes to {folder}', file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _encode(corpus: Corpus, encoder: Encoder, folder: Path) -> None:
    module = encoder.module
    size = 4 * len(corpus) * module.outputs * 2 * module.width
    hours = corpus.index['duration'].sum() / 3600
    main = is_main_process()
    if main:
        print(
            f'encoding {corpus.name} by {encoder.name}: {hours:.2f} h of speech, {size / 1e6:.0f} MB in {folder}',
            file=sys.stderr,
        )
        free = shutil.disk_usage(folder).free
        if size > free - _RESERVE:
            raise UserError(
                f'{folder} needs {size / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free, of which 5 are left: set '
                'config.data.data_dir to another disk'
            )
    extractor, source = Extractor(encoder, statistics=True), corpus.source()
    parts = []
    progress = tqdm.tqdm(total=len(corpus), unit='utterance', disable=None if main else True)
    for start in range(0, len(corpus), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(corpus)))
        # Named after the corpus: parts of an earlier state of it are of no use.
        part = folder / f'part_{corpus.metadata["corpus_hash"][:16]}_{start:08d}.npy'
        parts.append(part)
        if not multihost_utils.broadcast_one_to_all(np.array(part.exists())):
            values = np.stack(extractor([source[row] for row in rows]))
            if main:
                with replacing(part) as temporary, temporary.open('wb') as file:
                    np.save(file, values)
        progress.update(len(rows))
    progress.close()
    if main:
        with replacing(folder / STATISTICS_FILE) as temporary, temporary.open('wb') as file:
            np.save(file, np.concatenate([np.load(part) for part in parts]))
        for part in folder.glob('part_*.npy'):
            part.unlink()
        (folder / METADATA_FILE).unlink(missing_ok=True)
        write_checksums(folder)
        write_json(
            folder / METADATA_FILE,
            {
                'corpus': corpus.name,
                'corpus_hash': corpus.metadata['corpus_hash'],
                'encoder': encoder.name,
                'revision': encoder.revision,
                'fingerprint': encoder.fingerprint,
                'identity': encoder.identity,
                'layers': module.outputs,
                'width': module.width,
            },
        )
    multihost_utils.sync_global_devices(f'encoded {corpus.name}')
