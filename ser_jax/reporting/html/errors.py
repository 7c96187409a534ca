"""The worst errors of a run as a table, optionally with the recordings."""

import base64
import io
from pathlib import Path

import numpy as np

from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.data.corpora import Corpus, open_corpus
from ser_jax.data.records import corpus_folder, is_prepared
from ser_jax.reporting.html.markup import element, table
from ser_jax.reporting.text import speaker_prefix
from ser_jax.runs.finished import CONFIG
from ser_jax.runs.predictions import Predictions
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import read_json

_MOST = 12


def worst_errors(predictions: Predictions) -> np.ndarray:
    """Rows of at most 12 utterances: the most confident wrong predictions, or the largest rating errors."""
    if predictions.rated:
        misses = np.abs(predictions.predicted_rating - predictions.rating)
        return np.argsort(-misses, kind='stable')[:_MOST]
    wrong = np.flatnonzero(predictions.prediction != predictions.label)
    confidence = predictions.probabilities[wrong].max(1)
    return wrong[np.argsort(-confidence, kind='stable')[:_MOST]]


def errors_table(predictions: Predictions, labels: list[str], records: Corpus | None):
    """The worst errors as a table; None if there are none.

    Args:
        predictions: predictions for clean speech.
        labels: K class names.
        records: waveforms of the corpus, to embed the recordings; None to leave them out.

    Raises:
        UserError: the corpus lacks an utterance.
    """
    rows = worst_errors(predictions)
    if not len(rows):
        return None
    sounds = players(records, predictions.id[rows]) if records else []
    skip, lines = speaker_prefix(predictions.speaker.tolist()), []
    for number, row in enumerate(rows):
        line = [element('td', predictions.id[row], class_='id')]
        if predictions.rated:
            line += [f'{x[row]:.2f}' for x in (predictions.rating, predictions.predicted_rating)]
        else:
            predicted, label = predictions.prediction[row], predictions.label[row]
            chances = 100 * predictions.probabilities[row]
            line += [labels[label], labels[predicted]]
            line += [f'{chances[predicted]:.1f}', f'{chances[label]:.1f}']
        line.append(element('td', predictions.speaker[row][skip:] or '?'))
        lines.append([*line, *([element('td', sounds[number])] if sounds else [])])
    head = ['utterance', 'true', 'predicted', 'confidence %', 'true class %']
    if predictions.rated:
        head = ['utterance', 'true rating', 'predicted']
    head += [element('th', 'speaker'), *([element('th', 'listen')] if sounds else [])]
    return table(head, lines, texts=1 if predictions.rated else 3)


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


def players(records: Corpus, ids: np.ndarray) -> list:
    """One `audio` element per utterance, with the recording embedded.

    Args:
        records: waveforms of the corpus.
        ids: utterance ids.

    Raises:
        UserError: the corpus lacks an utterance.
    """
    import soundfile  # only needed with --audio

    rows = {name: row for row, name in enumerate(records.index['id'].tolist())}
    source, rate = records.source(), records.metadata['front_end']['sample_rate']
    elements = []
    for name in ids.tolist():
        if name not in rows:
            raise UserError(f'--audio: {records.path} lacks {name}, a test utterance of the run')
        file = io.BytesIO()
        soundfile.write(file, source[rows[name]], rate, format='WAV', subtype='PCM_16')
        data = base64.b64encode(file.getvalue()).decode()
        elements.append(
            element('audio', '', controls='', preload='none', src=f'data:audio/wav;base64,{data}')
        )
    return elements
