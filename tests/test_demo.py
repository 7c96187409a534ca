"""The demo: answers, bad files, and what it leaves behind, over HTTP and in a browser."""

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chromium
import numpy as np
import pytest
import soundfile
from conftest import ROOT

from ser_jax import demo
from ser_jax.runtime.files import try_lock
from ser_jax.serving.predictor import load

RATE = 16000
needs_gradio = pytest.mark.skipif(
    importlib.util.find_spec('gradio') is None, reason='gradio is not installed (extra [demo])'
)
needs_chromium = pytest.mark.skipif(chromium.find() is None, reason='there is no Chromium')
# Any connection to another machine ends the process.
GUARDED = """
import os, socket, sys
connect = socket.socket.connect
def guarded(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ('127.0.0.1', '::1', 'localhost'):
        os.write(2, f'CONNECTS TO {address}\\n'.encode())
        os._exit(9)
    return connect(self, address)
def look_up(host, *rest, known=socket.getaddrinfo, **named):
    if host not in ('127.0.0.1', '::1', 'localhost', None):
        os.write(2, f'LOOKS UP {host}\\n'.encode())
        os._exit(9)
    return known(host, *rest, **named)
socket.socket.connect, socket.getaddrinfo = guarded, look_up
from ser_jax import demo
from ser_jax.runtime import signals
signals.handle('gone')
demo._KEPT = eval(sys.argv.pop(1))
demo.main()
"""


@contextlib.contextmanager
def started(folder, *workdirs, kept=(60, 600), stop=signal.SIGTERM):
    """Runs the demo in an own folder for temporary files; yields its address, and expects that nothing is left."""
    temporary, here = folder / 'temporary', folder / 'here'
    temporary.mkdir()
    here.mkdir()
    environment = {**os.environ, 'TMPDIR': str(temporary), 'PYTHONPATH': str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, '-c', GUARDED, repr(kept), *(f'--workdir={one}' for one in workdirs)],
        cwd=here,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        found = re.match(r'Open (http://127\.0\.0\.1:\d+/) ', line)
        assert found, line + process.communicate(timeout=60)[1]
        yield found[1]
    finally:
        process.send_signal(stop)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + stop, output + errors
    assert 'Traceback' not in errors
    assert errors.endswith(f'stopped by {stop.name}: gone\n')
    assert not list(temporary.iterdir())
    assert not list(here.iterdir())


@pytest.fixture(scope='module')
def address(trained, tmp_path_factory):
    with started(tmp_path_factory.mktemp('demo'), trained[0], stop=signal.SIGINT) as url:
        yield url


@pytest.fixture(scope='module')
def client(address, tmp_path_factory):
    from gradio_client import Client

    return Client(address, verbose=False, download_files=False)


@pytest.fixture(scope='module')
def files(voices, tmp_path_factory):
    """Recordings and files that are none, by name."""
    folder = tmp_path_factory.mktemp('files')
    speech = np.concatenate([soundfile.read(path)[0] for path in sorted(Path(voices).iterdir())])
    sounds = {
        'speech': speech[: 4 * RATE],
        'six': np.stack([speech[:RATE]] + 5 * [np.zeros(RATE)], 1),
        'silence': np.zeros(RATE),
        'none': np.zeros(0),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / f'{name}.wav', samples, RATE, subtype='PCM_16')
    soundfile.write(folder / 'nan.wav', np.full(RATE, np.nan), RATE, subtype='FLOAT')
    for name, content in (
        ('text.wav', b'hello'),
        ('empty.wav', b''),
        ('video.mp4', b'\0\0\0\x18ftypmp42' + bytes(1000)),
        ('<b>.wav', b'hello'),
    ):
        (folder / name).write_bytes(content)
    return folder


EXPECTED = {
    'speech.wav': r'<p class="best">(angry|happy|neutral|sad)</p>.*<table class="bars">.* %.*<div class="strip"><div ',
    'six.wav': r'<p class="best">(angry|happy|neutral|sad)</p>',
    'silence.wav': r'<p class="best">no label</p><p class="flag">Silent: no label.</p>$',
    'none.wav': r'<p class="flag">none.wav: no samples</p>$',
    'nan.wav': r'<p class="flag">nan.wav: samples that are not finite</p>$',
    'text.wav': r'<p class="flag">text.wav: [^<]+</p>$',
    'empty.wav': r'<p class="flag">empty.wav: empty file</p>$',
    'video.mp4': r'<p class="flag">video.mp4: [^<]+</p>$',
}


@pytest.mark.parametrize('name', EXPECTED)
def test_answers(trained, files, name):
    predictor = load(trained[0])
    text = demo.show(predictor, str(files / name))
    assert re.match(EXPECTED[name], text, re.DOTALL), text
    assert str(files) not in text
    label = predictor.predict(files / name).best('emotion') if '<table' in text else None
    assert not label or f'"best">{label}<' in text


def test_names_of_files_are_escaped(trained, files):
    assert '&lt;b&gt;.wav: ' in demo.show(load(trained[0]), str(files / '<b>.wav'))


def test_a_recording_that_is_gone(trained, tmp_path):
    assert 'choose it again' in demo.show(load(trained[0]), str(tmp_path / 'gone.wav'))


def test_without_gradio(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    monkeypatch.setattr(demo.tempfile, 'tempdir', None)
    monkeypatch.setattr(demo.os, 'environ', {**os.environ})
    with pytest.raises(
        SystemExit, match=r"^error: the demo needs Gradio .*: pip install -e '\.\[demo\]'$"
    ):
        demo.main([f'--workdir={trained[0]}'])


@needs_gradio
@pytest.mark.parametrize('name', EXPECTED)
def test_uploads(trained, client, files, name):
    from gradio_client import handle_file

    text = client.predict(str(trained[0]), handle_file(files / name), api_name='/predict')
    assert re.match(EXPECTED[name], text, re.DOTALL), text


@needs_gradio
@pytest.mark.slow
def test_an_hour_of_silence(trained, client, tmp_path):
    from gradio_client import handle_file

    soundfile.write(tmp_path / 'hour.wav', np.zeros(3600 * RATE, np.int16), RATE)
    text = client.predict(str(trained[0]), handle_file(tmp_path / 'hour.wav'), api_name='/predict')
    assert re.match(EXPECTED['silence.wav'], text), text


def test_folders_of_demos_that_were_killed_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path))
    with contextlib.ExitStack() as stack:
        for name in ('killed', 'running'):
            folder = tmp_path / f'ser_jax_demo_{name}'
            folder.mkdir()
            lock = (folder / '.lock').open('w')
            try_lock(lock)
            stack.callback(lock.close) if name == 'running' else lock.close()
        demo._remove_abandoned()
        assert [path.name for path in tmp_path.iterdir()] == ['ser_jax_demo_running']


@needs_gradio
def test_recordings_are_deleted(trained, files, tmp_path):
    """After a time, and at the end: `started` expects an empty folder."""
    from gradio_client import Client, handle_file

    with started(tmp_path, trained[0], kept=(1, 1)) as url:
        client = Client(url, verbose=False, download_files=False)
        with contextlib.suppress(Exception):  # it may be deleted before it is predicted
            client.predict(str(trained[0]), handle_file(files / 'six.wav'), api_name='/predict')
        kept = lambda: list(tmp_path.glob('temporary/**/six.wav'))
        end = time.monotonic() + 60
        while kept() and time.monotonic() < end:
            time.sleep(0.1)
        assert not kept()
        for _ in range(
            10
        ):  # the copy of the example is deleted like any upload, but can be had again
            example = client.predict(api_name='/silence')
            text = client.predict(str(trained[0]), example, api_name='/predict')
            if re.match(EXPECTED['silence.wav'], text):
                break
        else:
            pytest.fail(text)


@needs_gradio
@needs_chromium
@pytest.mark.parametrize('width', [1400, 390])
def test_in_a_browser(address, files, tmp_path, width):
    with chromium.opened(tmp_path / 'profile') as page:
        page.open(address, width)
        page.wait("document.querySelector('input[type=file]')")
        for name, expected in (
            ('speech.wav', 'Over time'),
            ('silence.wav', 'Silent: no label.'),
            ('text.wav', 'text.wav: '),
        ):
            page.open(address, width)
            page.wait("document.querySelector('input[type=file]')")
            page.choose_file('input[type=file]', files / name)
            page.wait(f"document.querySelector('.answer').innerText.includes('{expected}')")
        page.open(address, width)
        page.wait("document.querySelector('input[type=file]')")
        page.evaluate(
            "[...document.querySelectorAll('button')].find(x => x.innerText == 'noise').click()"
        )
        page.wait(
            "document.querySelector('.answer').innerText.includes('Does not sound like speech')"
        )
        assert page.evaluate('document.documentElement.scrollWidth') <= width
    assert page.requested
    assert [url for url in page.requested if not url.startswith(address)] == []
