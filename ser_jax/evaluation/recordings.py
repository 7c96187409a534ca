"""Recordings that evaluation needs in addition to the tested utterances: waveforms of the corpus, noises and voices."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ser_jax.audio.screening import SILENCE_PEAK
from ser_jax.data.batches import as_float
from ser_jax.data.corpora import Corpus
from ser_jax.data.dataset import Dataset, Records
from ser_jax.data.records import noise_type
from ser_jax.runtime.errors import UserError
from ser_jax.transforms.corruptions import COLOURS, Corruption


class Waveforms:
    """The waveforms of a corpus by the rows of its log-mel index: `[row]` -> float32 [S] in [-1, 1).

    Raises:
        UserError: there are no waveform records of the same utterances.
    """

    def __init__(self, corpus: Corpus, records: Records):
        waveforms = records.open(corpus.name, 'waveform')
        rows = {name: row for row, name in enumerate(waveforms.index['id'])}
        both = f'prepare both at once, python -m tfds_builders.build {corpus.name} --representation=both'
        missing = [name for name in corpus.index['id'] if name not in rows]
        if missing:
            raise UserError(f'the waveforms of {corpus.name} lack {missing[0]}: {both}')
        self._rows = np.array([rows[name] for name in corpus.index['id']])
        if (waveforms.index['audio_sha256'][self._rows] != corpus.index['audio_sha256']).any():
            raise UserError(
                f'waveforms and log-mels of {corpus.name} were made of different audio: {both}'
            )
        self._source = waveforms.source()

    def __getitem__(self, row: int) -> np.ndarray:
        return as_float(self._source[self._rows[row]])


class Clips(NamedTuple):
    """Recordings that a corruption mixes in.

    Attributes:
        waveforms: utterance id -> float32 [N]; None where the corruption needs none.
        corpus_hash: hash of their corpus, or ''.
    """

    waveforms: dict[str, np.ndarray] | None
    corpus_hash: str


def read_clips(
    corruption: Corruption,
    dataset: Dataset,
    corpora: Mapping[str, str],
    trained_types: tuple[str, ...],
) -> Clips:
    """Reads the recordings that a corruption mixes in: all noises of its type, or one utterance of each speaker.

    Args:
        corruption: parsed call.
        dataset: dataset of the run; its noise must not be tested.
        corpora: 'test_noise_corpus' and 'babble_corpus' -> name of a prepared corpus, or ''.
        trained_types: types of noise that train; () = all of the noise corpus.

    Raises:
        UserError: no corpus is named, it lacks the type, or its recordings must not be used.
    """
    field = corruption.recordings
    if not field:
        return Clips(None, '')
    if not corpora[field]:
        raise UserError(
            f'condition {corruption.condition} needs recordings: name a prepared corpus in config.{field} (noise of '
            f'the types {", ".join(COLOURS)} needs none)'
        )
    corpus = dataset.records.open(corpora[field], 'waveform', field)
    if field == 'test_noise_corpus':
        rows = _noises(corpus, corruption, dataset, trained_types)
    else:
        rows = _voices(corpus, corruption)
    source = corpus.source()
    clips = {str(corpus.index['id'][row]): source[row] for row in rows}
    silent = [
        name
        for name, clip in clips.items()
        if np.abs(clip.astype(np.int32)).max(initial=0) < SILENCE_PEAK
    ]
    if silent:
        raise UserError(
            f'{silent[0]} of {corpus.name} is silent, and has no level to mix it at: leave it out of the corpus'
        )
    waveforms = {name: as_float(clip) for name, clip in clips.items()}
    return Clips(waveforms, corpus.metadata['corpus_hash'])


def _noises(corpus, corruption, dataset, trained_types):
    kind = corruption.arguments[0]
    trains = dataset.noise is not None and dataset.noise[0].name == corpus.name
    if trains and kind in (trained_types or (kind,)):
        raise UserError(
            f'condition {corruption.condition}: {kind} of {corpus.name} trains; name the types that train '
            'in config.noise_types, and test others'
        )
    types = np.array([noise_type(text) for text in corpus.index['script']])
    rows = np.flatnonzero(types == kind)
    if not len(rows):
        found = ', '.join(sorted(set(types) - {''})) or 'no types at all'
        raise UserError(f'{corpus.name} has no noise of the type {kind!r}; it has {found}')
    return rows


def _voices(corpus, corruption):
    """The longest utterance of each known speaker."""
    speakers = corpus.index['speaker']
    longest = np.argsort(-corpus.index['duration'], kind='stable')
    rows = [longest[speakers[longest] == who][0] for who in sorted(set(speakers) - {''})]
    if len(rows) < corruption.arguments[0]:
        raise UserError(
            f'condition {corruption.condition} needs {corruption.arguments[0]} voices; {corpus.name} has {len(rows)} speakers'
        )
    return rows
