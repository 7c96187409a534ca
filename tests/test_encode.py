"""The command that encodes recordings, and what it writes."""

import os
import subprocess
import sys
import textwrap
from importlib.metadata import files as files_of
from pathlib import Path

import encoder_folders
import numpy as np
import pytest
import soundfile
from conftest import ROOT, run
from processes import start_two

from ser_jax.encoding.extraction import Extractor
from ser_jax.models.encoders.pretrained import load_encoder


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return encoder_folders.write_single(
        tmp_path_factory.mktemp('weights'), encoder_folders.tensors()
    )


@pytest.fixture(scope='module')
def recordings(tmp_path_factory):
    folder = tmp_path_factory.mktemp('recordings')
    rng = np.random.default_rng(0)
    for name, samples in (('a', 9000), ('b', 15999), ('c', 3000)):
        soundfile.write(folder / f'{name}.wav', rng.uniform(-0.2, 0.2, samples), 16000)
    return folder


def _encode(weights, *arguments, **options):
    return run('ser_jax.encode', f'--encoder={weights}', *map(str, arguments), **options)


def test_writes_frames_of_every_recording(weights, recordings, tmp_path):
    out = tmp_path / 'new' / 'frames.npz'
    done = _encode(weights, f'--out={out}', '--layers=0,2', recordings)
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert load_encoder(weights).fingerprint[:16] in first
    assert [line.split()[:2] for line in lines] == [
        [f'{recordings}/a.wav', '29'],
        [f'{recordings}/b.wav', '50'],
        [f'{recordings}/c.wav', '10'],
    ]
    found = dict(np.load(out))
    assert found.pop('layers').tolist() == [0, 2]
    assert sorted(found) == [f'{recordings}/{name}.wav' for name in 'abc']
    waveform = soundfile.read(recordings / 'b.wav', dtype='int16')[0]
    (expected,) = Extractor(load_encoder(weights), layers=[0, 2])([waveform])
    np.testing.assert_allclose(found[f'{recordings}/b.wav'], expected, atol=1e-5)


def test_two_processes_write_what_one_writes(weights, recordings, tmp_path):
    one = _encode(weights, f'--out={tmp_path / "one.npz"}', '--statistics', recordings)
    assert one.returncode == 0, one.stderr
    command = ('ser_jax.encode', f'--encoder={weights}', f'--out={tmp_path / "two.npz"}')
    processes = [process for process, _ in start_two(*command, '--statistics', str(recordings))]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    expected, found = (dict(np.load(tmp_path / f'{name}.npz')) for name in ('one', 'two'))
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)


def test_unusable_recordings_do_not_end_the_others(weights, recordings, tmp_path):
    soundfile.write(tmp_path / 'short.wav', np.ones(300) / 9, 16000)
    (tmp_path / 'text.wav').write_text('no audio')
    done = _encode(weights, tmp_path, recordings / 'a.wav')
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 2
    errors = done.stderr.splitlines()
    assert any('short.wav: too short for the encoder, which takes 400 samples' in e for e in errors)
    assert any('text.wav: cannot be decoded' in error for error in errors)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--layers=7', 'x.wav'), 'has layers 0 to 3, not layer 7'),
        (('--out=x.npy', 'x.wav'), 'has to end with .npz'),
        (('--out=/proc/x.npz', 'x.wav'), 'cannot write to /proc/x.npz'),
        ((), 'recordings, or --export'),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(weights, arguments, message):
    done = _encode(weights, *arguments)
    assert done.returncode in (1, 2)
    assert message in done.stderr.splitlines()[-1]
    assert 'Traceback' not in done.stderr


def test_exported_encoder_needs_jax_flatbuffers_and_numpy_only(weights, tmp_path):
    """In an environment that holds nothing else, for another batch size and length than it was made for."""
    done = _encode(weights, f'--export={tmp_path / "encoder.stablehlo"}', '--layers=1,3')
    assert done.returncode == 0, done.stderr
    site = tmp_path / 'site'
    site.mkdir()
    # jax itself needs the last three.
    for package in ('jax', 'jaxlib', 'flatbuffers', 'numpy', 'ml_dtypes', 'opt_einsum', 'scipy'):
        for file in files_of(package):
            top = file.parts[0]
            if top != '..' and not (site / top).exists():
                (site / top).symlink_to(Path(str(file.locate())).parents[len(file.parts) - 1] / top)
    script = f"""
        import jax, jax.export, numpy as np
        encode = jax.export.deserialize(open({str(tmp_path / 'encoder.stablehlo')!r}, 'rb').read())
        x = np.random.default_rng(0).uniform(-0.3, 0.3, (3, 7001)).astype(np.float32)
        frames, mask = encode.call(x, np.array([7001, 400, 3210], np.int32))
        np.savez({str(tmp_path / 'found.npz')!r}, frames=frames, mask=mask)
        import importlib.util
        assert not importlib.util.find_spec('flax') and not importlib.util.find_spec('ser_jax')
        """
    environment = {'PATH': os.environ['PATH'], 'PYTHONPATH': str(site), 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run(
        [sys.executable, '-S', '-c', textwrap.dedent(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / 'found.npz')
    encoder = load_encoder(weights)
    x = np.random.default_rng(0).uniform(-0.3, 0.3, (3, 7001)).astype(np.float32)
    states, mask = encoder.module.apply(
        {'params': encoder.params}, x, np.array([7001, 400, 3210], np.int32)
    )
    np.testing.assert_array_equal(found['mask'], mask)
    for number, layer in enumerate((1, 3)):
        np.testing.assert_allclose(found['frames'][:, number], states[layer], atol=1e-5)


def test_any_file_name_can_be_encoded(weights, recordings, tmp_path):
    samples = (recordings / 'a.wav').read_bytes()
    names = ('not\udcfftext.wav', 'layers', 'b.wav')
    for name in names:
        (tmp_path / name).write_bytes(samples)
    command = [sys.executable, '-m', 'ser_jax.encode', f'--encoder={weights}', '--out=o.npz']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [*command, *names], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = dict(np.load(tmp_path / 'o.npz'))
    assert found.pop('layers').ndim == 1
    assert sorted(found) == ['./layers', 'b.wav', 'not\\udcfftext.wav']


def test_an_interrupted_command_leaves_nothing(tmp_path):
    script = (
        'import sys, time, pathlib\n'
        'from ser_jax import encode\n'
        'from ser_jax.runtime import signals\n'
        'signals.handle("later")\n'
        f'with encode._writing(pathlib.Path({str(tmp_path / "o.npz")!r})) as temporary:\n'
        '    temporary.write_bytes(b"0")\n'
        '    print("ready", flush=True)\n'
        '    time.sleep(60)\n'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'ready\n'
    assert len(list(tmp_path.iterdir())) == 1
    process.terminate()
    assert process.wait(timeout=60) == 143
    process.stdout.close()
    assert not list(tmp_path.iterdir())
