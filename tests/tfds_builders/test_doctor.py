"""The doctor, and downloads."""

import contextlib
import functools
import http.server
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
import soundfile
from conftest import ROOT
from trees import beep, call, failed, spoil, write_emodb

from ser_jax.runtime.errors import UserError, report_errors
from tfds_builders import build, doctor
from tfds_builders.core import downloads
from tfds_builders.emodb.emodb_dataset_builder import Builder as EmoDB
from tfds_builders.urdu.urdu_dataset_builder import Builder as URDU


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
    status, out, _ = call(tmp_path, doctor, *flags, '--json')
    found = json.loads(out)
    assert (status, found['well'], found['missing'], len(found['missing_names'])) == (
        1,
        False,
        527,
        527,
    )
    assert {problem['reason'].split()[0] for problem in found['unusable']} == {
        *('empty', 'silent', 'too', 'truncated')
    }
    assert found['emotions']['angry'] == [1, 127]
    assert found['task'] == [4, 339]
    assert found['speakers'] == {'emodb/03': 1, 'emodb/09': 1, 'emodb/11': 1, 'emodb/16': 1}
    status, out, _ = call(tmp_path, doctor, 'demo_speech')
    assert status == 0
    assert 'synthesised' in out


def test_doctor_of_a_complete_corpus(tmp_path):
    listed = [line.split()[1] for line in (ROOT / 'tfds_builders/emodb/checksums.sha256').open()]
    assert len(listed) == 535
    folder = write_emodb(tmp_path / 'emodb', [pathlib.Path(name).stem for name in listed])
    status, out, _ = call(tmp_path, doctor, 'emodb', f'--manual_dir={folder}')
    assert status == 0, out
    assert 'found 535 of 535 published utterances, missing 0' in out
    counts = 'angry 127 of 127, bored 81 of 81, disgusted 46 of 46, fearful 69 of 69'
    assert f'{counts}, happy 71 of 71, neutral 79 of 79, sad 62 of 62' in out


def test_faults_of_usable_recordings_are_notes(tmp_path):
    folder = write_emodb(tmp_path / 'emodb')
    loud, moved = 4 * beep(0.5), beep(0.5) / 3 + 0.1
    soundfile.write(folder / 'wav/03a01Fa.wav', np.clip(loud, -1, 1), 16000, subtype='PCM_16')
    soundfile.write(folder / 'wav/03a01Nc.wav', moved, 16000, subtype='PCM_16')
    soundfile.write(folder / 'wav/03a01Wa.wav', beep(0.5), 22050, subtype='PCM_16')
    (folder / 'wav/._03a01Fa.wav').write_bytes(b'x')
    _, out, _ = call(tmp_path, doctor, 'emodb', f'--manual_dir={folder}')
    assert 'found 8 of 535 published utterances, missing 527, unusable 0' in out
    notes = [line for line in out.splitlines() if line.startswith('note: ')]
    for text in (
        '1 recordings have more than 0.1% of their samples at the limit (clipped): wav/03a01Fa',
        '1 recordings have an offset of more than 1% of full scale: wav/03a01Nc',
        '1 files are not at the 16000 Hz that the owner distributes: wav/03a01Wa',
        '1 files named ._… (left by macOS) are skipped',
    ):
        assert f'note: {text}' in notes
    assert '16000 Hz 7, 22050 Hz 1' in out


def test_a_copy_that_holds_everything_twice(tmp_path):
    for top in ('', 'audio_speech_actors_01-24/'):
        path = tmp_path / f'ravdess/{top}Actor_01/03-01-06-01-02-01-01.wav'
        path.parent.mkdir(parents=True)
        soundfile.write(path, beep(), 48000)
    _, out, _ = call(tmp_path, doctor, 'ravdess', f'--manual_dir={tmp_path / "ravdess"}')
    assert 'found 1 of 1440' in out
    assert 'this looks like the copy on Kaggle' in out


REAL = os.environ.get('SER_JAX_MANUAL_DIR')


@pytest.mark.parametrize(
    ('name', 'first', 'faults'),
    [
        ('emodb', 'found 362 of 535 published utterances, missing 173, unusable 0', ()),
        (
            'ravdess',
            'found 1440 of 1440 published utterances, missing 0, unusable 0',
            (
                r'1440 files are recoded \(flac\)',
                '1440 files are not at the 48000 Hz .*',
                'identical audio: Actor_07/03-01-03-01-02-01-07 = Actor_07/03-01-03-01-02-02-07',
            ),
        ),
        (
            'urdu',
            'found 400 of 400 published utterances, missing 0, unusable 0',
            (
                r'400 files are recoded \(flac\)',
                r'18 recordings have more than 0.1% .* \(clipped\): .*',  # 19 before they were resampled
                '156 recordings have an offset .*',
                '400 files are not at the 44100 Hz .*',
            ),
        ),
        (
            'nemo',
            'found 1265 of 4481 published utterances, missing 3216, unusable 0',
            (
                r'1265 files are recoded \(flac\)',
                '1265 files are not at the 24000 Hz .*',
            ),
        ),
    ],
)
def test_faults_of_real_corpora(tmp_path, name, first, faults):
    """The documented faults, and no others."""
    if not REAL or not os.path.isdir(os.path.join(REAL, name)):
        pytest.skip(f'real audio: set SER_JAX_MANUAL_DIR to a folder with {name}/')
    _, out, _ = call(tmp_path, doctor, name, f'--manual_dir={REAL}/{name}')
    assert first in out
    notes = [line.removeprefix('note: ') for line in out.splitlines() if line.startswith('note: ')]
    wanted = sorted(faults)
    assert len(notes) == len(wanted), notes
    for fault in wanted:
        assert any(re.fullmatch(fault, note) for note in notes), (fault, notes)


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
    with pytest.raises(UserError, match='not a whole zip or tar'):
        downloads.unpack(tmp_path / 'bad.zip', tmp_path / 'unpacked')


@pytest.mark.parametrize('kind', ['outside', 'symbolic', 'hard', 'device', 'cut'])
def test_tar_members_cannot_leave_the_folder(tmp_path, kind):
    archive = tmp_path / 'bad.tar.gz'
    with tarfile.open(archive, 'w:gz') as file:
        member = tarfile.TarInfo('../outside.wav' if kind == 'outside' else 'wav/a.wav')
        if kind in ('symbolic', 'hard'):
            member.type = tarfile.SYMTYPE if kind == 'symbolic' else tarfile.LNKTYPE
            member.linkname = '/etc/passwd'
        elif kind == 'device':
            member.type = tarfile.CHRTYPE
        else:
            member.size = 4000
        file.addfile(member, io.BytesIO(np.random.default_rng(0).bytes(4000)))
    if kind == 'cut':
        archive.write_bytes(archive.read_bytes()[:2000])
    message = {'outside': 'points outside', 'cut': 'not a whole zip or tar'}.get(
        kind, 'no plain file'
    )
    with pytest.raises(UserError, match=message):
        downloads.unpack(archive, tmp_path / 'unpacked')
    assert [path.name for path in tmp_path.iterdir()] == ['bad.tar.gz']


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
    # The server is gone: the unpacked corpus is used again.
    assert call(tmp_path, build, 'emodb')[0] == 0


def test_download_of_a_tar_that_holds_one_folder(tmp_path, monkeypatch):
    monkeypatch.delenv('SER_JAX_MANUAL_DIR', raising=False)
    for name in ('Angry/SM1_F10_A010', 'Sad/SF10_F2_S02'):
        path = tmp_path / f'owner/{name}.wav'
        path.parent.mkdir(parents=True)
        soundfile.write(path, beep(), 44100)
    with tarfile.open(tmp_path / 'master.tar.gz', 'w:gz') as file:
        file.add(tmp_path / 'owner', 'URDU-Dataset-master')
    with served(tmp_path) as address:
        monkeypatch.setattr(URDU, 'DOWNLOAD', f'{address}/master.tar.gz')
        status, out, err = call(tmp_path, build, 'urdu')
    assert status == 0, err
    assert ' of 400 published utterances' in out


def test_a_closed_stdout_gives_no_traceback():
    command = [sys.executable, '-m', 'tfds_builders.doctor', 'demo_speech']
    pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == ''
    assert process.returncode == 1


def test_other_broken_pipes_keep_their_traceback():
    with pytest.raises(BrokenPipeError), report_errors():
        raise BrokenPipeError
