"""Names of weights: folders, a prepared Hugging Face cache without network, and downloads from a local server."""

import functools
import hashlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
import urllib.parse
from pathlib import Path

import pytest
from conftest import ROOT
from encoder_folders import (
    module,
    tensors,
    write_ctranslate2,
    write_json,
    write_sharded,
    write_single,
)

from ser_jax.models.encoders.hub import Resolved, resolve
from ser_jax.models.encoders.weights import fingerprint, parameters, read_checkpoint
from ser_jax.runtime.errors import UserError

COMMIT = 'c0ffee' + '0' * 34
# Resolves the names in its arguments; huggingface_hub reads the environment when it is imported.
SCRIPT = """
import json, sys
from ser_jax.models.encoders.hub import resolve
from ser_jax.models.encoders.weights import read_checkpoint
from ser_jax.runtime.errors import UserError
found = []
for name in sys.argv[1:]:
    try:
        resolved = resolve(name)
        size = len(read_checkpoint(resolved.folder).tensors)
        found.append([str(resolved.folder), resolved.name, resolved.revision, size])
    except UserError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def resolve_all(cache, *names, **environment):
    """Resolves names in a process with its own cache: [folder, name, revision, number of tensors] or an error for each."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(('HF_', 'SER_'))}
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, *names],
        cwd=ROOT,
        env={
            **clean,
            'PYTHONPATH': str(ROOT),
            'HF_HOME': str(cache.parent / 'home'),
            'HF_HUB_CACHE': str(cache),
            'HF_HUB_DISABLE_TELEMETRY': '1',
            'NO_PROXY': '*',
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all('\n' not in line for line in found if isinstance(line, str))
    return found


@functools.cache
def content():
    """The tensors of the tiny encoder."""
    return tensors()


# Folders.


def test_a_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('SER_JAX_ENCODER', str(tmp_path / 'none'))  # for hub names only
    assert resolve(tmp_path) == Resolved(tmp_path, str(tmp_path), '')
    assert resolve(str(tmp_path)) == Resolved(tmp_path, str(tmp_path), '')
    (tmp_path / 'owner' / 'name').mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve('owner/name').folder.resolve() == tmp_path / 'owner' / 'name'


def test_a_folder_in_place_of_a_download(tmp_path, monkeypatch):
    monkeypatch.setenv('SER_JAX_ENCODER', str(tmp_path))
    assert resolve('owner/name@v1') == Resolved(tmp_path, 'owner/name@v1', '')
    monkeypatch.setenv('SER_JAX_ENCODER', str(tmp_path / 'none'))
    with pytest.raises(UserError, match=r'SER_JAX_ENCODER is .*none, which is not a folder'):
        resolve('owner/name')


@pytest.mark.parametrize(
    'name',
    ['whisper', '', '/nowhere/x', './owner/name', '~/none', 'a/b/c', 'owner/name@', 'owner/../name', '../name', 'owner/name@../x',
     'owner/name@a//b', 'owner /name', 'owner/name\n', 'hf://owner', 'https://huggingface.co/openai/whisper-tiny'],
)  # fmt: skip
def test_what_is_no_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('SER_JAX_ENCODER', str(tmp_path))
    with pytest.raises(UserError) as error:
        resolve(name or 'none')
    assert re.search(
        'neither a folder nor a Hugging Face name|not a local folder', str(error.value)
    )


def test_a_file(tmp_path):
    path = write_single(tmp_path, content()) / 'model.safetensors'
    with pytest.raises(UserError, match=r'model\.safetensors is a file: name its folder'):
        resolve(path)


# A prepared cache, without network.


def cached(cache, name, write, commit=COMMIT):
    """Lays out a repository in a cache, as Hugging Face libraries do; returns its folder."""
    repository = cache / f'models--{name.replace("/", "--")}'
    folder = write(repository / 'snapshots' / commit, content())
    for path in list(folder.iterdir()):
        blob = repository / 'blobs' / hashlib.sha256(path.read_bytes()).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(os.path.relpath(blob, folder))
    (repository / 'refs').mkdir()
    (repository / 'refs' / 'main').write_text(commit)
    return folder


def test_a_prepared_cache(tmp_path):
    cache = tmp_path / 'hub'
    single = cached(cache, 'openai/single', write_single)
    sharded = cached(cache, 'openai/sharded', write_sharded)
    ctranslate2 = cached(cache, 'Systran/ctranslate2', write_ctranslate2)
    cached(cache, 'openai/without-config', write_single).joinpath('config.json').unlink()
    cached(cache, 'openai/without-shard', write_sharded).joinpath(
        'model-00002-of-00002.safetensors'
    ).unlink()
    names = [
        *('openai/single', 'openai/single@main', f'openai/single@{COMMIT}'),
        *('openai/sharded', 'Systran/ctranslate2'),
    ]
    missing = [
        *('openai/without-config', 'openai/without-shard', 'openai/other'),
        *('openai/single@v2', 'openai/a--b'),
    ]
    found = resolve_all(cache, *names, *missing, HF_HUB_OFFLINE='1')
    folders = [single] * 3 + [sharded, ctranslate2]
    size = len(content())
    assert found[:5] == [[str(folder), name, COMMIT, size] for folder, name in zip(folders, names)]
    for name, line in zip(missing[:4], found[5:9]):
        assert f'{name} is not in the cache {cache}' in line
        assert 'HF_HUB_OFFLINE' in line
    assert 'a--b' in found[9]


# A local server.


class Hub(http.server.ThreadingHTTPServer):
    """A server with the part of the Hugging Face hub's interface that downloads need.

    Attributes:
        repositories: name -> folder.
        requests: method and path of all requests.
        breaking: number of times that a download of weights ends half-way.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.repositories, self.requests = {}, []
        self.breaking = 0

    @property
    def url(self):
        return f'http://127.0.0.1:{self.server_port}'


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection to `Hub`."""

    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def answer(self, status, body=b'', **headers):
        """Sends a whole answer."""
        self.send_response(status)
        for name, value in {'Content-Length': len(body), **headers}.items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def do_GET(self):
        """Model info, tree, or a file."""
        url = urllib.parse.urlsplit(self.path)
        parts = [urllib.parse.unquote(part) for part in url.path.strip('/').split('/')]
        self.server.requests.append((self.command, url.path))
        api = parts[:2] == ['api', 'models']
        parts = parts[2:] if api else parts
        name, parts = '/'.join(parts[:2]), parts[2:]
        if name == 'owner/gated':
            return self.answer(403, X_Error_Code='GatedRepo', X_Error_Message='accept first')
        if name == 'owner/portal':
            return self.answer(
                200, b'<html>log in to this network</html>', Content_Type='text/html'
            )
        if name == 'owner/broken':
            return self.answer(500)
        if name not in self.server.repositories:
            return self.answer(401, X_Error_Code='RepoNotFound', X_Error_Message='not found')
        folder = self.server.repositories[name]
        revision = parts[1] if len(parts) > 1 else 'main'
        if revision not in ('main', 'refs/pr/1', COMMIT):
            return self.answer(404, X_Error_Code='RevisionNotFound', X_Error_Message='no revision')
        if api:
            return self.list(name, folder, tree=parts[:1] == ['tree'])
        return self.send(folder / '/'.join(parts[2:]))

    do_HEAD = do_GET

    def list(self, name, folder, *, tree):
        """The files of a repository."""
        paths = sorted(path for path in folder.iterdir())
        if tree:
            body = [
                {
                    'type': 'file',
                    'path': path.name,
                    'size': path.stat().st_size,
                    'oid': hashlib.sha1(path.read_bytes()).hexdigest(),
                }
                for path in paths
            ]
        else:
            body = {
                'id': name,
                'sha': COMMIT,
                'private': False,
                'gated': False,
                'tags': [],
                'siblings': [{'rfilename': path.name} for path in paths],
            }
        self.answer(200, json.dumps(body).encode(), Content_Type='application/json')

    def send(self, path):
        """A file, or its end; or only a part of it."""
        if not path.exists():
            return self.answer(404, X_Error_Code='EntryNotFound')
        data = path.read_bytes()
        headers = {
            'ETag': f'"{hashlib.sha1(data).hexdigest()}"',
            'X_Repo_Commit': COMMIT,
            'Accept_Ranges': 'bytes',
        }
        begin = int(re.match(r'bytes=(\d+)-', self.headers['Range'] or 'bytes=0-')[1])
        status = 206 if begin else 200
        if begin:
            headers['Content_Range'] = f'bytes {begin}-{len(data) - 1}/{len(data)}'
        broken = self.command == 'GET' and path.suffix == '.safetensors' and self.server.breaking
        if not broken:
            return self.answer(status, data[begin:], **headers)
        self.server.breaking -= 1
        self.send_response(status)
        for name, value in {'Content-Length': len(data) - begin, **headers}.items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        self.wfile.write(data[begin : len(data) // 2])
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def hub():
    """A running `Hub`."""
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetched(hub):
    """The names of the files whose content was sent."""
    paths = [path for method, path in hub.requests if method == 'GET' and '/resolve/' in path]
    return sorted({path.rpartition('/')[2] for path in paths})


def repository(hub, folder, name, write, *others):
    """Serves a repository that also holds other files; returns its folder."""
    hub.repositories[name] = write(folder / name, content())
    write_json(folder / name / 'preprocessor_config.json', {'do_normalize': False})
    for other in others:
        (folder / name / other).write_bytes(b'other')
    return folder / name


OTHERS = ('README.md', 'pytorch_model.bin', 'tf_model.h5', 'flax_model.msgpack', 'vocab.json')


def test_a_download(hub, tmp_path):
    cache = tmp_path / 'hub'
    source = repository(hub, tmp_path, 'owner/name', write_single, *OTHERS, 'model.bin')
    (found,) = resolve_all(cache, 'owner/name', HF_ENDPOINT=hub.url)
    assert found[1:] == ['owner/name', COMMIT, len(content())]
    assert fetched(hub) == ['config.json', 'model.safetensors', 'preprocessor_config.json']
    load = lambda folder: parameters(module(), read_checkpoint(folder))
    assert fingerprint(load(found[0])) == fingerprint(load(source))
    # Offline once cached, and not looked up again with a network.
    hub.requests.clear()
    again = resolve_all(cache, 'owner/name', f'owner/name@{COMMIT}', HF_ENDPOINT=hub.url)
    assert [line[0] for line in again] == [found[0]] * 2
    assert hub.requests == []
    assert resolve_all(cache, 'owner/name', HF_HUB_OFFLINE='1') == [found]
    # The preprocessor's file, which another program did not download.
    (tmp_path / found[0] / 'preprocessor_config.json').unlink()
    assert resolve_all(cache, 'owner/name', HF_HUB_OFFLINE='1') == [found]
    assert resolve_all(cache, 'owner/name', HF_ENDPOINT='http://127.0.0.1:9') == [found]
    assert resolve_all(cache, 'owner/name', HF_ENDPOINT=hub.url) == [found]
    assert (tmp_path / found[0] / 'preprocessor_config.json').exists()


def test_other_formats(hub, tmp_path):
    repository(hub, tmp_path, 'owner/sharded', write_sharded, *OTHERS, 'model.bin')
    repository(hub, tmp_path, 'owner/ctranslate2', write_ctranslate2, 'README.md', 'vocabulary.txt')
    names = ('owner/sharded@refs/pr/1', 'owner/ctranslate2')
    found = resolve_all(tmp_path / 'hub', *names, HF_ENDPOINT=hub.url)
    assert [line[1:] for line in found] == [[name, COMMIT, len(content())] for name in names]
    assert fetched(hub) == [
        'config.json',
        'model-00001-of-00002.safetensors',
        'model-00002-of-00002.safetensors',
        'model.bin',
        'model.safetensors.index.json',
        'preprocessor_config.json',
    ]
    assert ('GET', f'/owner/sharded/resolve/{COMMIT}/model.bin') not in hub.requests


def test_refused_downloads(hub, tmp_path):
    cache = tmp_path / 'hub'
    repository(hub, tmp_path, 'owner/name', write_single)
    for name, own in {'owner/pickle': OTHERS, 'owner/empty': OTHERS[2:]}.items():
        repository(hub, tmp_path, name, write_single, *own).joinpath('model.safetensors').unlink()
    messages = {
        'owner/unknown': f'no repository owner/unknown at {hub.url}; for a private one log in',
        'owner/name@v7': 'owner/name has no revision v7',
        'owner/gated': 'owner/gated is gated: accept its conditions',
        'owner/pickle': 'holds pytorch_model.bin but no model.safetensors: convert it, hf download owner/pickle config.json '
        'preprocessor_config.json pytorch_model.bin --local-dir DIR, then python -m ser_jax.models.encoders.convert DIR OUT',
        'owner/empty': 'owner/empty on the Hugging Face hub holds no weights',
        'owner/portal': f'cannot download owner/portal from {hub.url} (JSONDecodeError',
        'owner/broken': f'cannot download owner/broken from {hub.url} (HTTP status 500): check the network',
    }
    found = resolve_all(cache, *messages, HF_ENDPOINT=hub.url)
    for message, line in zip(messages.values(), found):
        assert message in line
    assert fetched(hub) == []
    (line,) = resolve_all(cache, 'owner/name', HF_ENDPOINT='http://127.0.0.1:9')
    assert 'cannot download owner/name from http://127.0.0.1:9 (ConnectError' in line
    assert 'check the network' in line


def test_a_download_that_breaks_once(hub, tmp_path):
    """Newer versions of huggingface_hub try again by themselves, with older ones the next start does."""
    source = repository(hub, tmp_path, 'owner/name', write_single)
    hub.breaking = 1
    found = []
    while not found or isinstance(found[-1], str):
        found += resolve_all(tmp_path / 'hub', 'owner/name', HF_ENDPOINT=hub.url)
    assert len(found) <= 2
    assert all('RemoteProtocolError: peer closed' in line for line in found[:-1])
    gets = [path for method, path in hub.requests if method == 'GET' and path.endswith('tensors')]
    assert len(gets) == 2
    whole = (source / 'model.safetensors').read_bytes()
    assert Path(found[-1][0], 'model.safetensors').read_bytes() == whole


def test_a_download_that_breaks_for_good(hub, tmp_path):
    cache = tmp_path / 'hub'
    repository(hub, tmp_path, 'owner/name', write_single)
    hub.breaking = 100
    (line,) = resolve_all(cache, 'owner/name', HF_ENDPOINT=hub.url)
    assert f'cannot download owner/name from {hub.url} (' in line
    (line,) = resolve_all(cache, 'owner/name', HF_HUB_OFFLINE='1')  # half a file is not used
    assert 'is not in the cache' in line
    hub.breaking = 0
    (found,) = resolve_all(cache, 'owner/name', HF_ENDPOINT=hub.url)
    assert found[3] == len(content())
