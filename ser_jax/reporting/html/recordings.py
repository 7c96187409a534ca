"""Recordings that a page embeds."""

import base64
import io
from pathlib import Path

import numpy as np

from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.data.corpora import Corpus, open_corpus
from ser_jax.data.records import corpus_folder, is_prepared
from ser_jax.runs.finished import CONFIG
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import read_json


def open_records(workdir: Path, corpus: str) -> Corpus:
    """Opens the prepared waveforms of a run's corpus.

    Args:
        workdir: workdir of the run; without `config.json` in it, the default data folder is used.
        corpus: corpus name.

    Raises:
        UserError: the corpus is not prepared as waveforms.
    """
    file = workdir / 'config.json'
    settings = read_json(file, {'data': CONFIG['data']})['data'] if file.exists() else {}
    where = {'data_dir': settings.get('data_dir'), 'representation': 'waveform'}
    if not is_prepared(corpus_folder(corpus, **where)):
        raise UserError(
            f'--audio: {corpus} is not prepared as waveforms in {corpus_folder(corpus, **where)}: '
            f'python -m tfds_builders.build {corpus} --representation=waveform'
        )
    front_end = FrontEnd(**settings['front_end']) if settings else DEFAULT_FRONT_END
    return open_corpus(corpus, **where, front_end=front_end)


def read_recordings(records: Corpus, ids: np.ndarray) -> list[str]:
    """Reads recordings of a corpus of waveforms as base64 of WAV files; raises UserError where one is missing."""
    import soundfile  # only needed with --audio

    rows = {name: row for row, name in enumerate(records.index['id'].tolist())}
    source, rate = records.source(), records.metadata['front_end']['sample_rate']
    sounds = []
    for name in ids.tolist():
        if name not in rows:
            raise UserError(f'--audio: {records.path} lacks {name}, a test utterance of the run')
        file = io.BytesIO()
        soundfile.write(file, source[rows[name]], rate, format='WAV', subtype='PCM_16')
        sounds.append(base64.b64encode(file.getvalue()).decode())
    return sounds
