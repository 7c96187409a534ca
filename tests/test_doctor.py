"""What the doctor says of a corpus folder, and what a download may do."""

import contextlib
import functools
import http.server
import pathlib
import threading
import zipfile

import pytest
from conftest import ROOT
from trees import call, failed, spoil, write_emodb

from ser_jax.errors import UserError
from tfds_builders import build, doctor, downloads
from tfds_builders.emodb.emodb_dataset_builder import Builder as EmoDB


def test_doctor(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    flags = ('emodb', f'--manual_dir={folder}')
    status, out, _ = call(tmp_path, doctor, *flags)
    assert status == 1
    assert 'found 8 of 535 published utterances, missing 527, unusable 0' in out
    assert 'angry 2 of 127' in out
    assert 'default task (angry, happy, neutral, sad): 8 of 339' in out
    assert '8 wav files differ' in out
    assert out.count('wav/') < 12
    assert call(tmp_path, doctor, *flags, '--all')[1].count('wav/') >= 527
    spoil(folder)
    assert 'unusable 4' in call(tmp_path, doctor, *flags)[1]
    status, out, _ = call(tmp_path, doctor, 'demo_speech')
    assert status == 0
    assert 'synthesised' in out


def test_doctor_is_content_with_a_whole_corpus(tmp_path):
    listed = [line.split()[1] for line in (ROOT / 'tfds_builders/emodb/checksums.sha256').open()]
    assert len(listed) == 535
    folder = write_emodb(tmp_path / 'emodb', [pathlib.Path(name).stem for name in listed])
    status, out, _ = call(tmp_path, doctor, 'emodb', f'--manual_dir={folder}')
    assert status == 0, out
    assert 'found 535 of 535 published utterances, missing 0' in out
    counts = 'angry 127 of 127, bored 81 of 81, disgusted 46 of 46, fearful 69 of 69'
    assert f'{counts}, happy 71 of 71, neutral 79 of 79, sad 62 of 62' in out


def test_zip_members_cannot_leave_the_folder(tmp_path):
    for member in ('../outside.wav', '/outside.wav', 'wav/../../outside.wav', 'c:/outside.wav'):
        archive = tmp_path / 'bad.zip'
        with zipfile.ZipFile(archive, 'w') as file:
            file.writestr('wav/03a01Fa.wav', b'x')
            file.writestr(member, b'x')
        with pytest.raises(UserError, match='points outside'):
            downloads.unpack(archive, tmp_path / 'unpacked')
        assert sorted(path.name for path in tmp_path.iterdir()) == ['bad.zip']
    (tmp_path / 'bad.zip').write_bytes(b'<html>')
    with pytest.raises(UserError, match='not a whole zip'):
        downloads.unpack(tmp_path / 'bad.zip', tmp_path / 'unpacked')


@contextlib.contextmanager
def served(folder):
    """A web server over a folder: yields its address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_address[1]}'
        server.shutdown()


def test_download(tmp_path, monkeypatch):
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    folder = write_emodb(tmp_path / 'owner')
    with zipfile.ZipFile(tmp_path / 'download.zip', 'w') as archive:
        for path in folder.rglob('*.wav'):
            archive.write(path, path.relative_to(folder))
    with served(tmp_path) as address:
        monkeypatch.setattr(EmoDB, 'DOWNLOAD', f'{address}/gone.zip')
        failed(call(tmp_path, build, 'emodb'), 'is not prepared and not here', 'SER_JAX_MANUAL_DIR')
        monkeypatch.setattr(EmoDB, 'DOWNLOAD', f'{address}/download.zip')
        status, out, err = call(tmp_path, build, 'emodb')
    assert status == 0, err
    assert '8 of 535' in out
    # Nothing listens there any more: what was unpacked is used again.
    assert call(tmp_path, build, 'emodb')[0] == 0
