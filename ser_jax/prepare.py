"""Prepares the corpora that are named and missing. Opening a corpus never builds it; nothing else imports the builders."""

import os
from collections.abc import Iterator

import ml_collections
import numpy as np

from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.data.corpora import Corpus, open_corpus
from ser_jax.data.records import corpus_folder, is_prepared
from ser_jax.encoding.cache import encode_corpus
from ser_jax.encoding.views import views_of
from ser_jax.models.encoders.pretrained import EncoderInput
from ser_jax.runtime.errors import UserError
from ser_jax.transforms.augment import parse_operations
from ser_jax.transforms.conditions import needs_waveforms, parse_conditions
from ser_jax.transforms.corruptions import Corruption


def prepare_corpus(
    name: str,
    *,
    data_dir: str | os.PathLike | None = None,
    manual_dir: str | os.PathLike | None = None,
    representation: str = 'log_mel',
    front_end: FrontEnd = DEFAULT_FRONT_END,
) -> None:
    """Prepares a corpus, unless it is prepared already.

    Args:
        name: 'demo_speech', 'emodb', 'ravdess', ..., 'csv_corpus/<name>' or 'folder/<name>'.
        data_dir: root of the prepared corpora; None = `~/.cache/ser_jax/records`.
        manual_dir: folder with the corpus as its owner distributes it; None = `$SER_JAX_MANUAL_DIR/<corpus>`.
        representation: 'log_mel' or 'waveform'.
        front_end: log-mel parameters.

    Raises:
        UserError: an unknown corpus, or one that cannot be prepared; the message says how.
    """
    if is_prepared(corpus_folder(name, data_dir=data_dir, representation=representation)):
        return
    from tfds_builders.core.prepare import prepare  # slow to import

    prepare(
        name,
        manual_dir=manual_dir,
        data_dir=data_dir,
        representation=representation,
        front_end=front_end,
    )


def open_prepared(name: str, **where) -> Corpus:
    """Prepares a corpus where it is missing, and opens it; `where`: keyword arguments of `prepare_corpus`."""
    prepare_corpus(name, **where)
    return open_corpus(name, **{'data_dir': None} | where)


def prepare_corpora(config: ml_collections.ConfigDict, encoder: EncoderInput | None = None) -> None:
    """Prepares every corpus that a config names, in the representation that it is needed in, with the config's encoder.

    Raises:
        UserError: one that is missing and cannot be prepared; names the field of the config.
    """
    if encoder:
        views, _ = views_of(parse_operations(config.augmentations, 'encoded'))
    for field, name, representation in _named(config):
        try:
            where = {
                'data_dir': config.data.data_dir,
                'manual_dir': config.data.manual_dir or None if name == config.corpus else None,
                'front_end': FrontEnd(**config.data.front_end),
            }
            if representation != 'encoded':
                prepare_corpus(name, representation=representation, **where)
            else:
                waveforms = open_prepared(name, representation='waveform', **where)
                augmented = field in ('corpus', 'labelled', 'unlabelled')
                encode_corpus(
                    waveforms,
                    encoder.encoder,
                    config.data.data_dir,
                    layers=encoder.layers,
                    output=encoder.output,
                    views=views if augmented else views[:1],
                )
        except UserError as error:
            if name == config.corpus:  # named behind the colon
                raise
            raise UserError(f'config.{field}: {error}') from error


def _named(config) -> Iterator[tuple[str, str, str]]:
    """(field, corpus, representation) of every corpus that a config needs."""
    yield 'corpus', config.corpus, config.representation
    for field in ('labelled', 'unlabelled', 'test_corpora'):
        for name in config[field]:
            yield field, name, config.representation
    if config.noise_corpus:
        yield 'noise_corpus', config.noise_corpus, config.representation
    conditions = parse_conditions(config.conditions)
    if needs_waveforms(conditions):
        yield 'corpus', config.corpus, 'waveform'
    corruptions = [c for c in conditions.values() if isinstance(c, Corruption)]
    for field in dict.fromkeys(c.recordings for c in corruptions if c.recordings):
        if config[field]:
            yield field, config[field], 'waveform'


def synthetic_utterances() -> dict[str, np.ndarray]:
    """Emotion -> an utterance of demo_speech, int16 [S] at 16 kHz; synthesised, not speech."""
    from tfds_builders.core import catalogue  # slow to import

    load = catalogue.builder_class('demo_speech').LOAD
    first = {}
    for utterance in catalogue.list_corpus('demo_speech', None).utterances:
        first.setdefault(utterance.emotion, utterance)
    return {emotion: load(utterance, 16000) for emotion, utterance in first.items()}
