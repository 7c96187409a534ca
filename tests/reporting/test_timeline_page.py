"""The page of timelines: one script, everything escaped, recordings embedded or linked."""

import base64
import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_html_page import EVIL, Page

from ser_jax.audio.overview import make_overview
from ser_jax.data.tasks import Task
from ser_jax.reporting.html import timeline as timeline_page
from ser_jax.runtime.errors import UserError
from ser_jax.serving.results import Prediction, Segment, Timeline

RATE = 16000
EMOTION = Task('emotion', 'classification', 'emotion', 1.0, ('angry', EVIL[0], 'sad'))


class Model:
    """What the page shows of a predictor."""

    model, synthetic, uncalibrated = f'run{EVIL[1]}', True, f'not calibrated {EVIL[3]}'


def window(start, flags=()):
    outputs = {'emotion': np.array([0.7, 0.2, 0.1], np.float32)}
    return Prediction(start, start + 3.0, flags, outputs, (EMOTION,))


def timeline(seconds=8.0):
    segments = (Segment(1.0, 4.5, 'angry', 0.75, ()), Segment(4.5, 6.0, EVIL[0], 0.5, ('clipped',)))
    windows = (window(1), window(2, ('clipped',)), window(5, ('non_speech',)))
    return Timeline(seconds, EMOTION, 'energy', segments, windows)


@pytest.fixture
def recording(tmp_path):
    """A recording of 8 s whose name is markup."""
    path = tmp_path / EVIL[0].replace('/', '') / f'{EVIL[1]}.wav'.replace('/', '')
    path.parent.mkdir()
    samples = np.random.default_rng(0).normal(0, 3000, 8 * RATE).astype(np.int16)
    soundfile.write(path, samples, RATE)
    return path


def read(path):
    """Parses a page and checks what holds for every page."""
    text = path.read_text(encoding='utf-8')
    page = Page(text)
    assert page.tags.count('script') == 1
    assert not {'img', 'iframe', 'object', 'embed', 'link'} & set(page.tags)
    assert 'url(' not in text
    (script,) = re.findall('<script>(.*?)</script>', text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [v for _, name, v in page.attributes if name == 'content' and 'default-src' in v]
    assert policy.endswith(f"; script-src 'sha256-{digest}'")
    assert "default-src 'none'" in policy
    ids = [value for _, name, value in page.attributes if name == 'id']
    assert len(set(ids)) == len(ids)
    for _, name, value in page.attributes:
        assert not name.startswith('on')
        assert name != 'href' or value.startswith('data:image/png;base64,') or value[1:] in ids
    return page, policy


def sources(page):
    """The sources of the players."""
    return [value for tag, name, value in page.attributes if (tag, name) == ('audio', 'src')]


def test_a_recording_is_part_of_its_page(recording, tmp_path):
    path = tmp_path / 'page.html'
    timeline_page.write_page(path, [(recording, timeline())], Model)
    page, policy = read(path)
    (source,) = sources(page)
    wave, rate = soundfile.read(
        io.BytesIO(base64.b64decode(source.removeprefix('data:audio/flac;base64,'))), dtype='int16'
    )
    assert rate == RATE
    np.testing.assert_array_equal(wave, soundfile.read(recording, dtype='int16')[0])
    assert 'file:' not in policy
    text = ' '.join(page.words)
    for expected in (
        str(recording),
        Model.model,
        Model.uncalibrated,
        'trained on SYNTHETIC speech',
        'angry 75.0 %, 1.0–4.5 s',
        'clipped: overdriven speech is easily taken for anger',
        'does not sound like speech',
        EVIL[0],
    ):
        assert expected in text
    assert 'image' in page.tags  # the spectrogram


def test_long_recordings_are_linked(recording, tmp_path, monkeypatch):
    path = tmp_path / 'pages' / 'page.html'
    monkeypatch.setattr(timeline_page, '_EMBEDDED', 7)
    timeline_page.write_page(path, [(recording, timeline())], Model)
    page, policy = read(path)
    (source,) = sources(page)
    assert source.startswith('../%3Cscript%3E')
    assert (path.parent / Path(*map(unquoted, source.split('/')))).resolve() == recording
    assert "media-src data: 'self' file:;" in policy


def unquoted(text):
    """A part of an address as a file name."""
    return re.sub('%(..)', lambda match: chr(int(match[1], 16)), text)


def test_several_recordings_have_a_list(recording, tmp_path, monkeypatch):
    path = tmp_path / 'page.html'
    monkeypatch.setattr(timeline_page, '_EMBEDDED_TOGETHER', 17)
    timeline_page.write_page(path, [(recording, timeline())] * 3, Model)
    page, _ = read(path)
    assert page.headings[0] == 'Recordings'
    links = [value for tag, name, value in page.attributes if (tag, name) == ('a', 'href')]
    assert links == ['#r1', '#r2', '#r3']
    assert [source.startswith('data:') for source in sources(page)] == [True, True, False]
    assert page.words.count('3.5') == 3  # seconds of anger


def test_nothing_is_half_written(recording, tmp_path):
    path = tmp_path / 'page.html'
    for timelines, problem in (
        ([], '1 to 100 recordings, not 0'),
        ([(recording, timeline())] * 101, 'not 101'),
        ([(tmp_path / 'gone.wav', timeline())], 'no such file'),
    ):
        with pytest.raises(UserError, match=problem):
            timeline_page.write_page(path, timelines, Model)
    with pytest.raises(UserError, match='cannot write the page'):
        timeline_page.write_page(recording / 'page.html', [(recording, timeline())], Model)
    assert not path.exists()


def test_overviews_have_few_columns():
    """Extremes of each column, and the tone in the band of its frequency; blocks change little."""
    samples = (8000 * np.sin(2 * np.pi * 1000 * np.arange(30 * RATE) / RATE)).astype(np.int16)
    samples[: 10 * RATE] //= 8
    whole = make_overview([samples], len(samples))
    assert len(whole.low) == len(whole.high) == len(whole.log_mel) == 1000
    assert whole.high[0] == pytest.approx(1000 / 32768, rel=0.01)
    assert whole.low[-1] == pytest.approx(-8000 / 32768, rel=0.01)
    assert whole.band_hz[whole.log_mel[500].argmax()] == pytest.approx(1000, abs=40)
    parts = make_overview(np.array_split(samples, 7), len(samples))
    np.testing.assert_array_equal(parts.high, whole.high)
    assert np.median(np.abs(parts.log_mel - whole.log_mel)) < 1e-3
    assert len(make_overview([samples[:100]], 100).low) == 1
