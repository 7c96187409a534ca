"""--out: a file of answers that a repeated command continues."""

import json
from pathlib import Path

import numpy as np
import pytest

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.data.tasks import Task
from ser_jax.runtime.errors import UserError
from ser_jax.serving.answers import Answers, textgrid_folder
from ser_jax.serving.formats import FORMATS, SEGMENT_FORMATS
from ser_jax.serving.predictor import Predictor
from ser_jax.serving.results import Prediction, Segment, Timeline

EMOTION = Task('emotion', 'classification', 'emotion', 1.0, ('happy', 'sad'))
NAMES = ['a.wav', 'b "quoted"\nin two lines.wav', 'not\udcfftext.wav', 'd, e.wav']


def predictor(model='run-0123'):
    return Predictor((EMOTION,), False, '', FrontEnd(), None, model)


def prediction(number):
    outputs = {'emotion': np.array([number / 8, 1 - number / 8], np.float32)}
    return Prediction(0.0, 1.0 + number, ('clipped',) * (number % 2), outputs, (EMOTION,))


def timeline(number):
    segments = [Segment(float(n), n + 1.0, 'sad', 0.5, ()) for n in range(number % 3)]
    return Timeline(5.0, EMOTION, 'energy', tuple(segments), ())


def command(
    path, form='csv', segments=False, windows=False, model='run-0123', names=NAMES, stop=99
):
    """Predicts the recordings that the file lacks, at most `stop`; returns how many were there."""
    if segments:
        make = lambda file: SEGMENT_FORMATS[form](predictor(model), file, EMOTION)
    else:
        make = lambda file: FORMATS[form](predictor(model), file, windows)
    parts = 'segments' * segments or 'windows' * windows
    answers = Answers(path, make, form=form, model=model, parts=parts)
    for name in [name for name in names if name not in answers.done][:stop]:
        result = timeline if segments else prediction
        answers.write(Path(name), result(names.index(name)))
    answers.close()
    return len(answers.done)


@pytest.mark.parametrize('form', ['csv', 'json'])
@pytest.mark.parametrize('segments', [False, True])
def test_a_file_that_was_cut_anywhere_becomes_whole(tmp_path, form, segments):
    path = tmp_path / 'new' / 'answers'
    assert command(path, form, segments) == 0
    whole = path.read_bytes()
    assert whole.count(b'\n') >= len(NAMES)
    repeats = form == 'csv' and segments  # the last recording
    assert command(path, form, segments) == len(NAMES) - repeats
    assert path.read_bytes() == whole
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        command(path, form, segments)
        assert path.read_bytes() == whole, length


def test_a_stopped_command_goes_on(tmp_path):
    path = tmp_path / 'answers.csv'
    assert command(path, stop=2) == 0
    assert command(path, stop=1) == 2
    assert command(path) == 3
    command(tmp_path / 'other.csv')
    assert path.read_bytes() == (tmp_path / 'other.csv').read_bytes()


@pytest.mark.parametrize(
    ('before', 'after', 'problem'),
    [
        ({}, {'model': 'run-4567'}, 'holds answers of the model run-0123, not run-4567'),
        (
            {'form': 'json'},
            {'form': 'json', 'model': 'x'},
            'holds answers of the model run-0123, not x',
        ),
        ({}, {'segments': True}, 'has other columns'),
        ({}, {'form': 'json'}, 'holds a row that is no json'),
        ({'form': 'json'}, {}, 'has other columns'),
        ({'form': 'json'}, {'form': 'json', 'windows': True}, 'holds rows without windows'),
        ({'form': 'json', 'segments': True}, {'form': 'json'}, 'holds rows with segments'),
    ],
)
def test_other_files_are_refused_and_kept(tmp_path, before, after, problem):
    path = tmp_path / 'answers'
    command(path, **before)
    content = path.read_bytes()
    with pytest.raises(UserError, match=f'answers {problem}: choose another file'):
        command(path, **after)
    assert path.read_bytes() == content


def test_what_is_no_file_of_answers(tmp_path):
    path = tmp_path / 'a.wav'
    for content, problem in {b'RIFF\x00\xff\n': 'other columns', b'notes': 'other columns'}.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=problem):
            command(path)
        assert path.read_bytes() == content
    path.write_text(json.dumps({'file': 'a.wav'}) + '\n')
    with pytest.raises(UserError, match='no json'):
        command(path, 'json')
    with pytest.raises(UserError, match='cannot be written'):
        command(tmp_path)
    with pytest.raises(UserError, match='cannot be written'):
        command(path / 'below')


def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / 'answers.csv'
    make = lambda file: FORMATS['csv'](predictor(), file, False)
    first = Answers(path, make, form='csv', model='run-0123', parts='')
    first.write(Path('a.wav'), prediction(0))
    with pytest.raises(UserError, match='another process: choose another file, or wait'):
        command(path)
    first.close()
    assert command(path) == 1


def test_textgrids_stay_in_their_folder(tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    files = [Path('a/x.wav'), Path('../b/y.wav')]
    make = lambda file: SEGMENT_FORMATS['textgrid'](predictor(), file, EMOTION)
    write = textgrid_folder(tmp_path / 'out', files, make)
    for path in files:
        write(path, timeline(1))
    found = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob('*.TextGrid'))
    assert found == [Path('out/b/y.TextGrid'), Path('out/here/a/x.TextGrid')]
    with pytest.raises(UserError, match='would both become'):
        textgrid_folder(tmp_path / 'out', [Path('a/x.wav'), Path('a/../a/x.flac')], make)
