"""Recordings that evaluation needs beside the tested log-mels: their waveforms, noises and voices."""

import numpy as np

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.audio.reading import SILENCE_PEAK
from ser_jax.data.corpora import Corpus, open_corpus
from ser_jax.data.records import noise_type
from ser_jax.runtime.errors import UserError
from ser_jax.transforms.corruptions import COLOURS, Corruption

_SCALE = np.float32(32768)


def open_waveforms(name: str, config) -> Corpus:
    """Opens the waveform records of a corpus, which are made first where they can be."""
    return open_corpus(
        name,
        data_dir=config.data.data_dir,
        manual_dir=config.data.manual_dir or None if name == config.corpus else None,
        representation='waveform',
        front_end=FrontEnd(**config.data.front_end),
    )


class Waveforms:
    """The waveforms of a corpus by the rows of its log-mel index: `[row]` -> float32 [S] in [-1, 1).

    Args:
        corpus: with log-mel records.
        config: says where prepared corpora lie.

    Raises:
        UserError: there are no waveform records that hold the same utterances, and none can be made.
    """

    def __init__(self, corpus: Corpus, config):
        own = open_waveforms(corpus.name, config)
        rows = {name: row for row, name in enumerate(own.index['id'])}
        missing = [name for name in corpus.index['id'] if name not in rows]
        if missing:
            raise UserError(
                f'the waveforms of {corpus.name} lack {missing[0]}: prepare both at once, python -m '
                f'tfds_builders.build {corpus.name} --representation=both'
            )
        self._rows = np.array([rows[name] for name in corpus.index['id']])
        if (own.index['audio_sha256'][self._rows] != corpus.index['audio_sha256']).any():
            raise UserError(
                f'waveforms and log-mels of {corpus.name} were made of different audio: prepare both at once, python -m '
                f'tfds_builders.build {corpus.name} --representation=both'
            )
        self._source = own.source()

    def __getitem__(self, row: int) -> np.ndarray:
        return self._source[self._rows[row]].astype(np.float32) / _SCALE


def open_clips(corruption: Corruption, config) -> tuple[dict[str, np.ndarray] | None, str]:
    """Reads the recordings that a corruption mixes in.

    Args:
        corruption: of the condition.
        config: names the corpora: `test_noise_corpus`, `babble_corpus`.

    Returns:
        (utterance id -> float32 [N]: all noises of the type, or one utterance of each speaker; the hash of
        their corpus). (None, '') where the corruption needs none.

    Raises:
        UserError: no corpus is named, or it lacks the type, or it is one that it must not be.
    """
    name, arguments = corruption
    if name == 'noise' and arguments[0] not in COLOURS:
        corpus = _clip_corpus('test_noise_corpus', corruption, config)
        trained = config.noise_types or (arguments[0],)  # () = all
        if corpus.name == config.noise_corpus and arguments[0] in trained:
            raise UserError(
                f'condition {corruption.condition}: {arguments[0]} of {corpus.name} trains; name the types that train '
                'in config.noise_types, and test others'
            )
        types = np.array([noise_type(text) for text in corpus.index['script']])
        rows = np.flatnonzero(types == arguments[0])
        if not len(rows):
            there = ', '.join(sorted(set(types) - {''})) or 'no types at all'
            raise UserError(
                f'{corpus.name} has no noise of the type {arguments[0]!r}; it has {there}'
            )
    elif name == 'babble':
        corpus = _clip_corpus('babble_corpus', corruption, config)
        speakers = corpus.index['speaker']
        longest = np.argsort(-corpus.index['duration'], kind='stable')
        rows = [longest[speakers[longest] == who][0] for who in sorted(set(speakers) - {''})]
        if len(rows) < arguments[0]:
            raise UserError(
                f'condition {corruption.condition} needs {arguments[0]} voices; {corpus.name} has {len(rows)} speakers'
            )
    else:
        return None, ''
    source = corpus.source()
    clips = {str(corpus.index['id'][row]): source[row].astype(np.float32) / _SCALE for row in rows}
    silent = [
        name for name, clip in clips.items() if np.abs(clip).max(initial=0) < SILENCE_PEAK / _SCALE
    ]
    if silent:
        raise UserError(
            f'{silent[0]} of {corpus.name} is silent, and has no level to mix it at: leave it out of the corpus'
        )
    return clips, corpus.metadata['corpus_hash']


def _clip_corpus(field: str, corruption: Corruption, config) -> Corpus:
    if not config[field]:
        raise UserError(
            f'condition {corruption.condition} needs recordings: name a prepared corpus in config.{field} (noise of '
            f'the types {", ".join(COLOURS)} needs none)'
        )
    try:
        return open_waveforms(config[field], config)
    except UserError as error:
        raise UserError(f'config.{field}: {error}') from error
