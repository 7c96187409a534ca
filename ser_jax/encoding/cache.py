"""Encodes the utterances of a corpus by a frozen encoder, once, and keeps the result on disk (`data.encoded`)."""

import contextlib
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tqdm
from jax.experimental import multihost_utils

from ser_jax.audio.log_mel import FrontEnd, log_mel_of_signal
from ser_jax.data.corpora import Corpus
from ser_jax.data.encoded import FRAME_RATE, LENGTHS_FILE, VALUES_FILE, Encoding, is_encoded
from ser_jax.data.records import METADATA_FILE
from ser_jax.encoding.extraction import Extractor, average_frames
from ser_jax.encoding.views import View, augment_waveforms
from ser_jax.models.encoders.pretrained import Encoder
from ser_jax.runtime.devices import is_main_process
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import replacing, waiting_lock, write_checksums, write_json
from ser_jax.runtime.text import duration

_CHUNK = 256  # utterances that are encoded before a part is written; an interrupted extraction resumes behind it
_RESERVE = 5 << 30  # bytes of the disk that are left free


def make_encoding(
    encoder: Encoder, layers: Sequence[int], output: str, views: Sequence[View] = (View(),)
) -> Encoding:
    """Names an encoder, its output and the views, as `data.encoded` finds them on disk."""
    names = tuple(view.name for view in views)
    return Encoding(encoder.name, encoder.identity, tuple(layers), output, names)


def encode_corpus(
    corpus: Corpus,
    encoder: Encoder,
    data_dir: str | os.PathLike | None,
    *,
    layers: Sequence[int] = (),
    output: str = 'statistics',
    views: Sequence[View] = (View(),),
) -> None:
    """Writes the outputs of an encoder for a corpus, unless they are there already.

    An interrupted extraction resumes; a folder is complete once its metadata are there. Several processes share the work and
    the folder.

    Args:
        corpus: waveform records.
        encoder: a loaded encoder.
        data_dir: root of the prepared corpora.
        layers: layers that frames average; statistics of all layers are written.
        output: 'statistics' or 'frames'.
        views: views of the utterances.

    Raises:
        UserError: no room on the disk, or an utterance too short for the encoder.
    """
    encoding = make_encoding(encoder, layers, output, views)
    folders = {view: encoding.folder(corpus.name, data_dir, view.name) for view in views}
    missing = {view: folder for view, folder in folders.items() if not is_encoded(folder)}
    if not missing:
        return
    if is_main_process():
        _announce(corpus, encoder, output, missing)
    progress = tqdm.tqdm(
        total=len(missing) * len(corpus),
        unit='utterance',
        disable=None if is_main_process() else True,
    )
    average = output == 'frames'
    extractor = Extractor(
        encoder, layers=layers if average else None, output='average' if average else output
    )
    begin = time.monotonic()
    with progress:
        for number, (view, folder) in enumerate(missing.items(), 1):
            waiting = f'waiting for another run that writes to {folder}'
            lock = waiting_lock(folder / '.lock', lambda text=waiting: print(text, file=sys.stderr))
            with lock if is_main_process() else contextlib.nullcontext():
                # Another run may just have written it.
                if not multihost_utils.broadcast_one_to_all(np.array(is_encoded(folder))):
                    _encode(corpus, encoder, extractor, output, view, folder, progress)
            if progress.disable and is_main_process():  # in a log
                seconds = time.monotonic() - begin
                left = duration(seconds / number * (len(missing) - number))
                print(
                    f'encoded {number} of {len(missing)} ({view.text}), {left} left',
                    file=sys.stderr,
                    flush=True,
                )


def _announce(corpus: Corpus, encoder: Encoder, output: str, missing: dict[View, Path]) -> None:
    """Prints what will be computed and its size; refuses what does not fit on the disk."""
    seconds, module = float(corpus.index['duration'].sum()), encoder.module
    size = 4 * len(corpus) * module.outputs * module.statistics
    if output == 'frames':
        bands = corpus.metadata['front_end']['n_mels']
        size = 2 * (module.width + bands) * int(FRAME_RATE * seconds + len(corpus))
    total = size * len(missing)
    folder = next(iter(missing.values())).parent
    print(
        f'encoding {corpus.name} by {encoder.name}, {output}: {len(missing)} × {seconds / 3600:.2f} h of speech '
        f'({", ".join(view.text for view in missing)}), {total / 1e6:.0f} MB in {folder}',
        file=sys.stderr,
    )
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if total + size > free - _RESERVE:  # the last view is written twice, in parts and as a whole
        raise UserError(
            f'{folder} needs {total / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free, of which 5 are left: set '
            'config.data.data_dir to another disk'
        )


def _encode(
    corpus: Corpus,
    encoder: Encoder,
    extractor: Extractor,
    output: str,
    view: View,
    folder: Path,
    progress: tqdm.tqdm,
) -> None:
    """Encodes a view of a corpus."""
    main, source = is_main_process(), corpus.source()
    front_end = FrontEnd(**corpus.metadata['front_end'])
    parts = []
    for start in range(0, len(corpus), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(corpus)))
        # Named after the corpus: parts of an earlier state of it are of no use.
        part = folder / f'part_{corpus.metadata["corpus_hash"][:16]}_{start:08d}.npz'
        parts.append(part)
        if not multihost_utils.broadcast_one_to_all(np.array(part.exists())):
            ids = corpus.index['id'][rows.start : rows.stop]
            signals = augment_waveforms(view, [source[row] for row in rows], ids)
            arrays = extractor(signals.waveforms)
            if output == 'frames':
                arrays = [
                    _with_log_mel(average_frames(array), signal, front_end)
                    for array, signal in zip(arrays, signals.clean)
                ]
                lengths = [len(array) for array in arrays]
                values = np.concatenate(arrays)
            else:
                values, lengths = np.stack(arrays), np.ones(len(rows))
            if main:
                with replacing(part) as temporary, temporary.open('wb') as file:
                    np.savez(file, values=values, lengths=np.array(lengths, np.int32))
        progress.update(len(rows))
    if main:
        _finish(folder, parts, with_lengths=output == 'frames')
        metadata = {
            'corpus': corpus.name,
            'corpus_hash': corpus.metadata['corpus_hash'],
            'encoder': encoder.name,
            'revision': encoder.revision,
            'fingerprint': encoder.fingerprint,
            'identity': encoder.identity,
            'view': view.text,
            'layers': extractor.layers,
        }
        write_json(folder / METADATA_FILE, metadata)
    multihost_utils.sync_global_devices(f'encoded {corpus.name} {view.name}')


def cached_inputs(
    path: Path, compute: Callable[[], Iterable[np.ndarray]], encode: Callable
) -> list[np.ndarray]:
    """Encodes waveforms once, and keeps the network's inputs for other runs.

    Args:
        path: file of the inputs, existing or not; its name identifies everything that they depend on.
        compute: makes the waveforms, N arrays float32 [S].
        encode: waveforms -> inputs float32 [T, F], see `extraction.input_extractor`; all processes call it together.

    Returns:
        N inputs.
    """
    arrays = None
    if path.exists():
        try:
            with np.load(path) as stored:
                ends = np.cumsum(stored['lengths'])
                arrays = np.split(stored['values'], ends[:-1])
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            pass  # damaged: computed again
    if not multihost_utils.process_allgather(np.array(arrays is not None)).all():
        arrays = encode(list(compute()))
        if is_main_process():
            with replacing(path) as temporary, temporary.open('wb') as file:
                lengths = np.array([len(array) for array in arrays])
                np.savez(file, values=np.concatenate(arrays), lengths=lengths)
    return arrays


def _with_log_mel(frames: np.ndarray, clean: np.ndarray, front_end: FrontEnd) -> np.ndarray:
    """Frames [T, D] with the log-mel of the same time behind them, float16 [T, D + n_mels]."""
    log_mel = log_mel_of_signal(clean, front_end)
    hops = front_end.sample_rate // (FRAME_RATE * front_end.hop_length)
    log_mel = np.pad(log_mel, ((0, max(0, hops * len(frames) - len(log_mel))), (0, 0)), mode='edge')
    log_mel = log_mel[: hops * len(frames)].reshape(len(frames), hops, -1).mean(axis=1)
    return np.concatenate([frames, log_mel], axis=1).astype(np.float16)


def _finish(folder: Path, parts: list[Path], *, with_lengths: bool) -> None:
    """Joins the parts, one in memory at a time, and removes them."""
    lengths = np.concatenate([np.load(part)['lengths'] for part in parts])
    with replacing(folder / VALUES_FILE) as temporary:
        done = 0
        for part in parts:
            values = np.load(part)['values']
            if not done:
                shape = (int(lengths.sum()), *values.shape[1:])
                joined = np.lib.format.open_memmap(temporary, 'w+', values.dtype, shape)
            joined[done : done + len(values)] = values
            done += len(values)
        joined.flush()
    if with_lengths:
        with replacing(folder / LENGTHS_FILE) as temporary, temporary.open('wb') as file:
            np.save(file, lengths)
    for part in folder.glob('part_*.np*'):
        part.unlink()
    (folder / METADATA_FILE).unlink(missing_ok=True)
    write_checksums(folder)
