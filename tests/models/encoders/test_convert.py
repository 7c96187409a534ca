"""Converting pickled weights: what is read afterwards is what was pickled, and no code in the file is run."""

import os
import sys
import zipfile

import numpy as np
import pytest
from conftest import run
from encoder_folders import CONFIG, tensors, write_json
from safetensors import safe_open

from ser_jax.models.encoders import convert as command
from ser_jax.models.encoders.convert import convert
from ser_jax.models.encoders.weights import read_checkpoint
from ser_jax.runtime.errors import UserError

PREFIX = 'model.encoder.'


@pytest.fixture
def torch():
    """PyTorch, of the extra [parity]."""
    return pytest.importorskip('torch', reason='needs the extra [parity]')


def pickled(torch, folder, content=None, **options):
    """Writes a folder with `pytorch_model.bin`; by default of a whole Whisper."""
    write_json(folder / 'config.json', CONFIG)
    if content is None:
        own = {PREFIX + name: torch.from_numpy(value) for name, value in tensors().items()}
        content = own | {'model.decoder.x': torch.ones(10**5), 'proj_out.weight': torch.ones(3)}
    torch.save(content, folder / 'pytorch_model.bin', **options)
    return folder


def refusal(source, out):
    """The line with which `convert` refuses; nothing is left behind."""
    before = sorted(source.parent.rglob('*'))
    with pytest.raises(UserError) as error:
        convert(source, out)
    assert '\n' not in str(error.value)
    assert sorted(source.parent.rglob('*')) == before
    return str(error.value)


@pytest.mark.parametrize('archive', [True, False], ids=['archive', 'legacy'])
@pytest.mark.parametrize('dtype', ['float16', 'float32', 'bfloat16'])
def test_what_is_converted(dtype, archive, torch, tmp_path):
    own = {
        PREFIX + name: torch.from_numpy(value).to(getattr(torch, dtype)).T.contiguous().T
        for name, value in tensors().items()
        if value.ndim == 2
    }
    own['model.decoder.x'] = torch.ones(10**5)
    folder = pickled(torch, tmp_path / 'in', own, _use_new_zipfile_serialization=archive)
    write_json(folder / 'preprocessor_config.json', {'do_normalize': True})
    out = tmp_path / 'out'
    out.mkdir()  # empty: taken
    line = convert(folder, out)
    assert line.startswith(f'{out}: 13 tensors of a whisper encoder, 0.0 MB')
    assert sorted(path.name for path in out.iterdir()) == [
        'config.json',
        'model.safetensors',
        'preprocessor_config.json',
    ]
    checkpoint = read_checkpoint(out)
    assert checkpoint.config == CONFIG
    assert checkpoint.preprocessor == {'do_normalize': True}
    assert {PREFIX + name for name in checkpoint.tensors} == own.keys() - {'model.decoder.x'}
    for name, value in checkpoint.tensors.items():
        np.testing.assert_array_equal(value, own[PREFIX + name].float().numpy())
    with safe_open(out / 'model.safetensors', framework='pt') as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {getattr(torch, dtype)}  # noqa: SIM118
        assert file.metadata() == {'format': 'pt'}  # without which transformers refuses it


def test_the_file_itself(torch, tmp_path):
    folder = pickled(torch, tmp_path / 'in')
    convert(folder / 'pytorch_model.bin', tmp_path / 'a' / 'out')
    (folder / 'pytorch_model.bin').rename(folder / 'other.bin')
    convert(folder / 'other.bin', tmp_path / 'b')
    for out in (tmp_path / 'a' / 'out', tmp_path / 'b'):
        found = read_checkpoint(out).tensors
        assert found.keys() == tensors().keys()
        for name, value in tensors().items():
            np.testing.assert_array_equal(found[name], value)


def test_shards(torch, tmp_path):
    folder, content = pickled(torch, tmp_path / 'in'), tensors()
    (folder / 'pytorch_model.bin').unlink()
    for i in range(2):
        own = {PREFIX + name: torch.from_numpy(content[name]) for name in sorted(content)[i::2]}
        torch.save(own, folder / f'pytorch_model-0000{i + 1}-of-00002.bin')
    convert(folder, tmp_path / 'out')
    assert read_checkpoint(tmp_path / 'out').tensors.keys() == content.keys()


class Trap:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.mark.parametrize('archive', [True, False], ids=['archive', 'legacy'])
def test_code_is_not_run(archive, torch, tmp_path):
    content = {PREFIX + 'conv1.bias': Trap(tmp_path / 'sprung')}
    folder = pickled(torch, tmp_path / 'in', content, _use_new_zipfile_serialization=archive)
    line = refusal(folder, tmp_path / 'out')
    assert (
        f'{folder / "pytorch_model.bin"} is damaged, incomplete, or holds more than tensors' in line
    )
    assert '(it names posix.system)' in line
    torch.load(folder / 'pytorch_model.bin', weights_only=False)
    assert (tmp_path / 'sprung').exists()  # that the trap works


def test_what_is_no_state_dictionary(torch, tmp_path):
    name = PREFIX + 'conv1.bias'
    ones = torch.ones(8)
    contents = {
        'no state dictionary': [
            *(
                [ones],
                {'model': {name: ones}},
                {name: [1.0]},
                {name: ones, 7: ones},
                {'args': None},
            ),
        ],
        f'{name} is no dense floating-point tensor': [
            {name: ones.int()},
            {name: ones.to_sparse()},
        ],
        'its tensors are larger than the file': [
            {name: torch.ones(1).expand(10**9, 10**3)},
            {f'{PREFIX}{i}': ones.expand(100, 8) for i in range(100)},
        ],
        'holds no encoder of whisper': [{}, {'decoder.x': ones, 'proj_out.weight': ones}],
    }
    for i, (message, bad) in enumerate(contents.items()):
        for j, content in enumerate(bad):
            folder = pickled(torch, tmp_path / f'{i}-{j}', content)
            assert message in refusal(folder, tmp_path / 'out')


def test_damaged_files(torch, tmp_path):
    for archive in (True, False):
        folder = pickled(torch, tmp_path / 'in', _use_new_zipfile_serialization=archive)
        path = folder / 'pytorch_model.bin'
        whole = path.read_bytes()
        for content in (
            b'',
            b'<html>',
            whole[:-1],
            whole[: len(whole) // 2],
            whole[:20],
            bytes(99),
        ):
            path.write_bytes(content)
            line = refusal(folder, tmp_path / 'out')
            assert f'{path} is damaged, incomplete' in line
            assert 'weights_only' not in line
    path.write_bytes(b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n')
    assert 'is a pointer of Git LFS' in refusal(folder, tmp_path / 'out')


def test_compressed_archives(torch, tmp_path):
    """A thousand times as much memory as the file is long."""
    folder = pickled(torch, tmp_path / 'in')
    path = folder / 'pytorch_model.bin'
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    assert torch.load(path, weights_only=True)  # PyTorch takes it
    assert '(ValueError)' in refusal(folder, tmp_path / 'out')


def test_other_refusals(torch, tmp_path, monkeypatch):
    folder = pickled(torch, tmp_path / 'in')
    assert 'pytorch_model.bin is missing' in refusal(tmp_path, tmp_path / 'out')
    assert 'none is missing' in refusal(tmp_path / 'none', tmp_path / 'out')
    assert 'exists: name a new folder' in refusal(folder, folder)
    assert 'exists: name a new folder' in refusal(folder, folder / 'config.json')
    assert 'cannot write to' in refusal(folder, folder / 'config.json' / 'out')

    def full(tensors, path):
        path.touch()
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(command, '_save', full)
        assert 'No space left on device' in refusal(folder, tmp_path / 'out')
    write_json(folder / 'config.json', CONFIG | {'model_type': 'bert'})
    assert "model_type is 'bert'" in refusal(folder, tmp_path / 'out')
    (folder / 'config.json').unlink()
    assert 'config.json is missing' in refusal(folder, tmp_path / 'out')


def test_without_pytorch(tmp_path, monkeypatch):
    write_json(tmp_path / 'config.json', CONFIG)
    (tmp_path / 'pytorch_model.bin').write_bytes(b'x' * 99)
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert "needs PyTorch: pip install -e '.[parity]'" in refusal(tmp_path, tmp_path / 'out')


def test_the_command(torch, tmp_path):
    folder, out = pickled(torch, tmp_path / 'in'), tmp_path / 'out'
    done = run('ser_jax.models.encoders.convert', str(folder), str(out))
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout.splitlines() == [f'{out}: 37 tensors of a whisper encoder, 0.0 MB']
    done = run('ser_jax.models.encoders.convert', str(folder), str(out))
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr.splitlines() == [f'error: {out} exists: name a new folder']


def test_help_needs_no_slow_imports():
    done = run('ser_jax.models.encoders.convert', '--help', PYTHONPROFILEIMPORTTIME='1')
    assert done.returncode == 0
    assert 'FOLDER_OR_FILE' in done.stdout
    assert not {'jax', 'torch', 'safetensors'} & {
        line.rpartition('|')[2].strip() for line in done.stderr.splitlines()
    }
