"""The utterances that a run was most wrong about, to look at and, where that is allowed, to listen to."""

import base64
import io
from pathlib import Path

import numpy as np

from ser_jax.audio.log_mel import DEFAULT_FRONT_END, FrontEnd
from ser_jax.data.corpora import Corpus, open_corpus
from ser_jax.data.records import corpus_folder, is_prepared
from ser_jax.reporting.html.markup import element, table
from ser_jax.runs.finished import CONFIG
from ser_jax.runs.predictions import Predictions
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import read_json

_COUNT = 12


def hardest(predictions: Predictions) -> np.ndarray:
    """Rows of the utterances that were told wrong with the most confidence, or whose rating was missed by most; at most 12."""
    if predictions.rated:
        misses = np.abs(predictions.predicted_rating - predictions.rating)
        return np.argsort(-misses, kind='stable')[:_COUNT]
    wrong = np.flatnonzero(predictions.prediction != predictions.label)
    confidence = predictions.probabilities[wrong].max(1)
    return wrong[np.argsort(-confidence, kind='stable')[:_COUNT]]


def hardest_table(predictions: Predictions, labels: list[str], records: Corpus | None):
    """The hardest utterances as a table; None where everything was right.

    Args:
        predictions: of clean speech.
        labels: the K class names.
        records: the corpus's waveforms (`open_records`), to be heard; None = not to be heard.

    Raises:
        UserError: the corpus lacks one of the utterances.
    """
    rows = hardest(predictions)
    if not len(rows):
        return None
    head = ['utterance', 'true', 'said', 'with %', 'true class %']
    if predictions.rated:
        head = ['utterance', 'true rating', 'said']
    sounds = players(records, predictions.id[rows]) if records else []
    lines = []
    for number, row in enumerate(rows):
        line = [element('td', predictions.id[row], class_='id')]
        if predictions.rated:
            line += [f'{x[row]:.2f}' for x in (predictions.rating, predictions.predicted_rating)]
        else:
            answer, truth = predictions.prediction[row], predictions.label[row]
            chances = 100 * predictions.probabilities[row]
            line += [labels[truth], labels[answer]]
            line += [f'{chances[answer]:.1f}', f'{chances[truth]:.1f}']
        line.append(element('td', predictions.speaker[row] or '?'))
        lines.append([*line, *([element('td', sounds[number])] if sounds else [])])
    head += [element('th', 'speaker'), *([element('th', 'listen')] if sounds else [])]
    return table(head, lines, texts=1 if predictions.rated else 3)


def open_records(workdir: Path, corpus: str) -> Corpus:
    """Opens the waveform records of a run's corpus; nothing is prepared.

    Args:
        workdir: of the run; where it has no `config.json`, prepared corpora lie where they usually do.
        corpus: its name.

    Raises:
        UserError: there are none.
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
    """An element `audio` for each of some utterances, the recording inside it.

    Args:
        records: waveforms of their corpus.
        ids: of the utterances.

    Raises:
        UserError: the corpus lacks one.
    """
    import soundfile  # only for this

    rows = {name: row for row, name in enumerate(records.index['id'].tolist())}
    source, rate = records.source(), records.metadata['front_end']['sample_rate']
    made = []
    for name in ids.tolist():
        if name not in rows:
            raise UserError(f'--audio: {records.path} lacks {name}, which the run was tested on')
        file = io.BytesIO()
        soundfile.write(file, source[rows[name]], rate, format='WAV', subtype='PCM_16')
        data = base64.b64encode(file.getvalue()).decode()
        made.append(
            element('audio', '', controls='', preload='none', src=f'data:audio/wav;base64,{data}')
        )
    return made
