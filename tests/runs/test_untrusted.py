"""Untrusted workdirs, exports and records: no code in them is run, and no files outside them are touched."""

import ast
import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cards import unpack
from conftest import ROOT

from ser_jax.config import as_json, base_config
from ser_jax.prepare import open_prepared
from ser_jax.reporting.html import page
from ser_jax.reporting.text import card_table
from ser_jax.runs import finished, workdir
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runtime.errors import UserError
from ser_jax.serving import predictor, standalone

# Records what Python executes, imports, opens and connects to during a command; files opened by C++ are not seen.
WATCH = """
import json, os, sys

seen = []

def hook(event, arguments):
    if event == 'open':
        path, _, flags = arguments
        if isinstance(path, (str, bytes)):
            seen.append(('write' if flags & (os.O_WRONLY | os.O_RDWR) else 'read', os.fsdecode(path)))
    elif event == 'exec':
        seen.append((event, arguments[0].co_filename))
    elif event in ('os.system', 'os.exec', 'os.posix_spawn', 'subprocess.Popen', 'pickle.find_class', 'socket.connect'):
        seen.append((event, str(arguments)))

sys.addaudithook(hook)
out, module, *arguments = sys.argv[1:]
try:
    status = __import__('importlib').import_module(module).main(arguments)
except SystemExit as end:
    print(end.code, file=sys.stderr)
    status = 1
seen += [('import', str(getattr(module, '__file__', ''))) for module in list(sys.modules.values())]
with open(out, 'w') as file:
    json.dump(seen, file)
sys.exit(status)
"""
TRAP = "import pathlib\npathlib.Path(__file__).with_name('sprung').touch()\nModel = dict\n"


@pytest.fixture
def untrusted(trained, tmp_path) -> Path:
    """An untrusted workdir with modules that must not be imported, next to a secret."""
    folder = tmp_path / 'untrusted'
    shutil.copytree(trained[0], folder)
    (tmp_path / 'secret.csv').write_text('id,fold\n')
    for name in ('evil', 'numpy', 'jax', 'ser_jax', 'sitecustomize', 'conftest'):
        (folder / f'{name}.py').write_text(TRAP)
    return folder


def edit(folder, name, **values):
    """Sets dotted fields of a JSON file."""
    content = json.loads((folder / name).read_text())
    for field, value in values.items():
        *above, last = field.split('__')
        inside = content
        for part in above:
            inside = inside[part]
        inside[last] = value
    (folder / name).write_text(json.dumps(content))


def content_of(folder):
    """Path -> bytes of all files below a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.slow
def test_commands_run_no_code_of_a_workdir(untrusted, voices, tmp_path):
    scratch = tmp_path / 'scratch'
    scratch.mkdir()
    commands = {
        'predict': [f'--workdir={untrusted}', '--format=json', voices],
        'report': [f'--workdir={untrusted}', f'--html={tmp_path / "out" / "page.html"}'],
        'export': [f'--workdir={untrusted}', f'--out={tmp_path / "out" / "model"}'],
        'export --check': [f'--check={tmp_path / "out" / "model"}'],
    }
    before = content_of(untrusted)
    for command, arguments in commands.items():
        module = f'ser_jax.{command.partition(" ")[0]}'
        log = tmp_path / 'seen.json'
        places = {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled'), 'TMPDIR': str(scratch)}
        places |= {'HOME': str(scratch), 'NUMBA_CACHE_DIR': str(scratch)}
        done = subprocess.run(
            [sys.executable, '-c', WATCH, str(log), module, *arguments],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=os.environ | places | {'PYTHONDONTWRITEBYTECODE': '1'},
        )
        assert done.returncode == 0, done.stderr
        seen = json.loads(log.read_text())
        there = {what for what, path in seen if str(untrusted) in path}
        assert there == ({'read'} if command != 'export --check' else set())
        assert len([path for what, path in seen if what == 'import' and 'ser_jax' in path]) > 3
        assert not [path for what, path in seen if what == 'read' and 'secret.csv' in path]
        calls = {'os.system', 'os.exec', 'socket.connect', 'pickle.find_class'}
        assert not [call for call in seen if call[0] in calls]
        written = [Path(path) for what, path in seen if what == 'write']
        allowed = (tmp_path / 'out', tmp_path / 'compiled', scratch, log, Path('/dev'))
        assert not [path for path in written if not any(path.is_relative_to(a) for a in allowed)]
    assert content_of(untrusted) == before
    assert not list(untrusted.rglob('sprung'))


@pytest.mark.parametrize(
    'name', ['evil', '..evil', './evil', 'os', 'mtl_aug.os', '__init__', 'layers', '', 'mtl_aug ']
)
def test_stored_model_name_must_be_one_of_ours(untrusted, monkeypatch, name):
    monkeypatch.syspath_prepend(str(untrusted))
    edit(untrusted, 'config.json', model__name=name)
    with pytest.raises(UserError, match=r'no ser_jax/models/'):
        predictor.load(untrusted)
    assert not list(untrusted.rglob('sprung'))


class Bomb:
    """An object whose unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def bomb(sprung: Path) -> np.ndarray:
    return np.array([Bomb(sprung)], dtype=object)


def test_pickles_are_refused(tmp_path, beeps):
    sprung = tmp_path / 'sprung'
    np.savez(tmp_path / 'try.npz', a=bomb(sprung))
    np.load(tmp_path / 'try.npz', allow_pickle=True)['a']
    assert sprung.exists(), 'the bomb must go off where pickles are allowed'
    sprung.unlink()

    kept = Checkpoints(tmp_path / 'checkpoints')
    kept.save(1, {'a': jnp.ones(2)}, {'a': bomb(sprung)})
    assert kept.intact_steps() == [1]
    with pytest.raises(ValueError, match='allow_pickle'):
        kept.read_extra(1)

    records = tmp_path / 'records'
    shutil.copytree(beeps['data_dir'], records)
    (folder,) = records.glob('csv_corpus/hums/log_mel/*')
    (folder / 'checksums.json').unlink()
    np.savez(folder / 'index.npz', id=bomb(sprung))
    with pytest.raises(UserError, match='damaged'):
        open_prepared('csv_corpus/hums', data_dir=records)
    assert not sprung.exists()


TEXT = '"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text"'
SPELLINGS = (
    '"pythonClassName": "trap.Text"',
    '"pythonClassName" : "trap.Text"',
    '"python\\u0043lassName": "trap.Text"',
    '"python_class_name": "trap.Text"',
    '"type": "trap.Text", "content": {}, ' + TEXT,
)


@pytest.mark.parametrize('spelling', SPELLINGS)
def test_records_import_nothing(tmp_path, beeps, monkeypatch, spelling):
    records = tmp_path / 'records'
    shutil.copytree(beeps['data_dir'], records)
    (folder,) = records.glob('csv_corpus/hums/log_mel/*')
    (tmp_path / 'trap.py').write_text(TRAP)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = json.dumps(json.loads((folder / 'features.json').read_text()))
    assert open_prepared('csv_corpus/hums', data_dir=records).source()[0].shape
    (folder / 'features.json').write_text(text.replace(TEXT, spelling, 1))
    (folder / 'checksums.json').unlink()
    with pytest.raises(UserError, match=r'features\.json'):
        open_prepared('csv_corpus/hums', data_dir=records).source()
    assert not (tmp_path / 'sprung').exists()


def write_export(folder: Path, compute) -> Path:
    """An export of a function with a matching card."""
    folder.mkdir()
    shapes = jax.ShapeDtypeStruct((1, 16), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.int32)
    model = jax.export.export(jax.jit(compute))(*shapes).serialize()
    (folder / 'model.stablehlo').write_bytes(model)
    waveform, samples = np.ones((1, 16), np.float32), np.array([16], np.int32)
    results = jax.device_get(compute(waveform, samples))
    outputs = {f'output_{task}': value for task, value in results.items()}
    np.savez(folder / 'example.npz', waveform=waveform, samples=samples, **outputs)
    write_card(folder)
    return folder


def write_card(folder: Path):
    digest = lambda name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
    card = {
        'format': 'stablehlo',
        'inputs': {'samples': {'minimum': 1, 'maximum': 16}},
        'outputs': {'emotion': {'labels': ['a', 'b', 'c', 'd']}},
        'sha256': {name: digest(name) for name in ('model.stablehlo', 'example.npz')},
    }
    (folder / 'card.json').write_text(json.dumps(card))


def test_export_may_not_call_external_code(tmp_path):
    plain = lambda waveform, samples: {'emotion': waveform.reshape(4, 4)[:1]}
    calling = lambda waveform, samples: {'emotion': jnp.linalg.qr(waveform.reshape(4, 4))[1][:1]}
    assert standalone.replay(write_export(tmp_path / 'plain', plain)) == {'emotion': 0.0}
    with pytest.raises(ValueError, match='calls code outside itself'):
        standalone.load(write_export(tmp_path / 'calling', calling))


def test_example_of_an_export_is_not_unpickled(tmp_path):
    plain = lambda waveform, samples: {'emotion': waveform.reshape(4, 4)[:1]}
    folder, sprung = write_export(tmp_path / 'plain', plain), tmp_path / 'sprung'
    np.savez(folder / 'example.npz', waveform=bomb(sprung), samples=bomb(sprung))
    write_card(folder)
    with pytest.raises(ValueError, match='allow_pickle'):
        standalone.replay(folder)
    assert not sprung.exists()


@pytest.mark.parametrize('name', ['../../secret', '/etc/passwd', '..', 'a\\b', 'nul\0'])
def test_stored_file_names_stay_inside(untrusted, name):
    card = json.loads((untrusted / 'results.json').read_text())
    for hostile in (
        card | {'conditions': {name: card['conditions']['clean']}},
        card | {'tasks': {name: card['labels']}},
        card | {'corpus': f'csv_corpus/{name}'},
    ):
        (untrusted / 'results.json').write_text(json.dumps(hostile))
        for read in (finished.read_card, predictor.load):
            with pytest.raises(UserError, match='is not a file name'):
                read(untrusted)


def test_terminal_escapes_are_printed_as_text(untrusted):
    card = json.loads((untrusted / 'results.json').read_text())
    card['device'], card['system'] = '\x1b]0;owned\x07cpu\u202e', 'n\u00e4her\u00a0\U0001f600'
    table = card_table(card)
    assert '\\x1b]0;owned\\x07cpu\\u202e' in table
    assert card['system'] in table
    assert '\x1b' not in table
    assert str(UserError('\x1b[2J\n')) == '\\x1b[2J\\n'


def leaves(content, path=()):
    """Paths of all values in JSON content; of lists only the first two items."""
    if path:
        yield path
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content[:2])
        for name, value in items:
            yield from leaves(value, (*path, name))


def broken(content):
    """Pairs (description, content) with one value deleted, renamed or replaced."""
    for path in leaves(content):
        for value in (None, 'x', -7, 1e400, 10**400, [], {}, [[]], True, KeyError, NameError):
            other = copy.deepcopy(content)
            inside = other
            for part in path[:-1]:
                inside = inside[part]
            if value is KeyError:
                del inside[path[-1]]
            elif value is NameError and isinstance(inside, dict):
                inside['pgd'] = inside.pop(path[-1])
            elif value is not NameError:
                inside[path[-1]] = value
            if other != content:
                yield f'{path} {str(value)[:20]}', other


@pytest.fixture
def cards(untrusted):
    """Run directories with predictions of classes, and of classes and ratings."""
    unpack(ROOT / 'results/end_to_end/demo_speech/multitask/seed0', untrusted.parent / 'rated')
    card = json.loads((untrusted.parent / 'rated' / 'results.json').read_text())
    for found in card['conditions'].values():
        found |= {'ccc': 0.5, 'ccc_ci95': [0.4, 0.6]}
    card['validation'] = {'uar': 0.5, 'ccc': 0.4, 'folds': []}
    (untrusted.parent / 'rated' / 'results.json').write_text(json.dumps(card))
    return untrusted, untrusted.parent / 'rated'


@pytest.mark.slow
def test_broken_cards_are_shown_or_refused(cards, tmp_path):
    for folder in cards:
        refused, shown = 0, 0
        cards_of = [*broken(json.loads((folder / 'results.json').read_text()))][::3]
        for number, (change, card) in enumerate(cards_of):
            (folder / 'results.json').write_text(json.dumps(card))
            try:
                card_table(finished.read_card(folder))
                if number % 10 == 0:  # drawing takes about a second
                    page.write_page(tmp_path / 'page.html', [folder])
                shown += 1
            except UserError:
                refused += 1
            except Exception as error:
                raise AssertionError(f'{folder.name}: {change}') from error
        assert min(refused, shown) > 130


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('metrics.jsonl', '{"fold": "a", "step": 1e400}\n'),
        ('metrics.jsonl', '{"fold": "a", "step": 1, "loss": 1e308, "validation_uar": "x"}\n'),
        ('metrics.jsonl', '[}\n'),
        ('command.txt', b'\xff'),
        ('report/embedding.csv', 'x,y\n1,2\n'),
        ('report/embedding.csv', 'x,y,emotion,speaker,side\nnan,2,a,b,c\n'),
        ('predictions/clean.csv', 'id,fold\n'),
        ('predictions/clean.csv', b'\x00\xff'),
    ],
)
def test_other_broken_files_are_shown_or_refused(untrusted, tmp_path, name, text):
    path = untrusted / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    try:
        page.write_page(tmp_path / 'page.html', [untrusted])
    except UserError as error:
        refusal = str(error)
    else:
        refusal = ''
    assert (path.name in refusal) or (tmp_path / 'page.html').exists()


@pytest.mark.slow
def test_broken_configs_are_used_or_refused(untrusted):
    content = json.loads((untrusted / 'config.json').read_text())
    used = ('model', 'tasks', 'data', 'representation')
    refused = 0
    for change, config in [*broken({name: content[name] for name in used})][::2]:
        (untrusted / 'config.json').write_text(json.dumps(content | config))
        if not all(name in config for name in used):
            (untrusted / 'config.json').write_text(json.dumps(config))
        try:
            predictor.load(untrusted)
        except UserError:
            refused += 1
        except Exception as error:
            raise AssertionError(change) from error
    assert refused > 100


@pytest.mark.parametrize(
    'text', ['', '{', '[]', '{}', '{"steps": "9", "fingerprint": 9, "beeps": 9}']
)
def test_damaged_metadata_is_refused_or_recomputed(tmp_path, text):
    def refused(message, function, *arguments):
        with pytest.raises(UserError, match=message):
            function(*arguments)

    for name in ('config.json', 'corpora.json', 'checkpoints/fold_01/summary.json', 'clean.json'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    refused(
        'delete .*fold_01, and the fold is trained again', workdir.read_summary, tmp_path, 'fold_01'
    )
    refused('choose another --workdir', workdir.refuse_changed, tmp_path, {'beeps': 'x'})
    refused('choose another --workdir', workdir.check_workdir, tmp_path, as_json(base_config()))
    assert not workdir.is_up_to_date([], tmp_path / 'clean.json', 'x')


def test_no_code_is_made_from_strings():
    calls = {'eval', 'exec', 'compile', '__import__'}
    for package in ('ser_jax', 'tfds_builders'):
        for path in sorted((ROOT / package).rglob('*.py')):
            for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    assert node.func.id not in calls, f'{path}:{node.lineno}'
