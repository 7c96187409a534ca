"""The examples of extending ser_jax in docs/, each applied to a copy of the repository and run.

A block after `<!-- example: NAME -->` belongs to an example: a command, or a part of a file that its first line names:
`# FILE` (a new file, or the end of one), `# FILE, above: LINE` or `# FILE, below: LINE`. `<!-- example: NAME, FILE -->`
names the file itself, where such a line would become part of it.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, metrics, run, simulated
from test_imports import faults, undocumented

PAGES = (ROOT / 'docs' / 'extending.md', ROOT / 'docs' / 'recordings.md')
BLOCK = re.compile(r'<!-- example: (\w+)(?:, (\S+))? -->\n```(\w*)\n(.*?)```\n', re.DOTALL)
SMOKE = 'runs/mtl_aug-{}-smoke-seed0'
EXAMPLES = ('recordings', 'corpus', 'augmentation', 'task', 'architecture', 'protocol')


def blocks(name):
    """(file or '', language, text) of the blocks of an example, in order."""
    found = [block for page in PAGES for block in BLOCK.findall(page.read_text(encoding='utf-8'))]
    return [rest for example, *rest in found if example == name]


def copied(folder):
    """Copies all files of the repository but its results."""
    listed = ['git', 'ls-files', '--cached', '--others', '--exclude-standard']
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if not name.startswith('results/') and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def applied(name, folder):
    """Applies the blocks of an example to a copy; returns (files touched, its commands)."""
    touched, commands = set(), []
    for file, language, text in blocks(name):
        if language == 'bash':
            commands += text.splitlines()
            continue
        where = ''
        if not file:
            first, _, text = text.partition('\n')
            file, _, where = first.removeprefix('# ').partition(', ')
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        old = path.read_text(encoding='utf-8') if path.exists() else ''
        path.write_text(placed(old, text, where), encoding='utf-8')
        touched.add(file)
    return touched, commands


def placed(old, text, where):
    """Inserts text at the end of a file, or above or below the line that `where` names."""
    if not where:
        return f'{old.rstrip()}\n\n\n{text}' if old else text
    side, _, line = where.partition(': ')
    if text.startswith('def '):
        text = f'{text.rstrip()}\n\n\n'
    (at,) = [i for i, other in enumerate(old.splitlines()) if other.strip() == line.strip()]
    lines = old.splitlines(keepends=True)
    at += {'above': 0, 'below': 1}[side]
    return ''.join([*lines[:at], text, *lines[at:]])


def beep(path, hertz):
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.01 * np.random.default_rng(hertz).standard_normal(12000)
    soundfile.write(path, 0.2 * np.sin(np.arange(12000) * hertz * 2 * np.pi / 16000) + noise, 16000)


@pytest.mark.parametrize('name', EXAMPLES)
def test_an_example_touches_one_place_and_keeps_the_rules_of_the_code(tmp_path, name):
    touched, commands = applied(name, copied(tmp_path))
    assert commands
    assert len({Path(file).parent if name == 'corpus' else file for file in touched}) == 1
    code = [str(tmp_path / file) for file in touched if file.endswith('.py')]
    for path in code:
        assert undocumented(Path(path)) == []
    assert faults(tmp_path) == []
    for check in (['check'], ['format', '--check']) if code else ():
        result = run('ruff', *check, *code)
        assert result.returncode == 0, result.stdout


@pytest.fixture(scope='module')
def home(tmp_path_factory):
    """A home folder in which synthetic speech is prepared once for all examples."""
    return tmp_path_factory.mktemp('home')


def ran(name, folder, home, options='', **variables):
    """Runs the commands of an example, with further options and environment variables; returns the result of the last."""
    _, commands = applied(name, copied(folder))
    for command in commands:
        result = subprocess.run(
            ['bash', '-c', f'{command}{options * (" --config=" in command)}'],
            cwd=folder,
            env={
                'HOME': str(home),
                'PATH': f'{Path(sys.executable).parent}:/usr/bin:/bin',
                'PYTHONPATH': str(folder),
                **simulated(1),
                **variables,
            },
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, f'{command}\n{result.stdout}\n{result.stderr}'
    return result


def card(folder, corpus='demo_speech'):
    return json.loads((folder / SMOKE.format(corpus) / 'results.json').read_text())


@pytest.mark.slow
def test_recordings(tmp_path, home, tiny_encoder):
    (text,) = [text for file, _, text in blocks('recordings') if file]
    for number, row in enumerate(csv.DictReader(text.splitlines())):
        beep(tmp_path / 'recordings' / row['file'], 200 + 40 * number)
    ran('recordings', tmp_path, home, ',smoke', SER_JAX_ENCODER=str(tiny_encoder))
    run = tmp_path / 'runs/probe-csv_corpus_mine-views-smoke-seed0'
    result = json.loads((run / 'results.json').read_text())
    assert result['corpus'] == 'csv_corpus/mine'
    assert result['conditions']['clean']['n'] == 2
    assert result['labels'] == ['happy', 'sad']


def test_corpus(tmp_path, home):
    names = [
        f'{who}_{e}_1' for who in ('anna_f', 'ben_m', 'eve_f', 'dan_m') for e in ('happy', 'sad')
    ]
    for number, name in enumerate(names):
        beep(tmp_path / 'corpora' / 'actors' / 'wav' / f'{name}.wav', 200 + 40 * number)
    ran('corpus', tmp_path, home)
    result = card(tmp_path, 'actors')
    assert result['protocol'] == 'leave_one_speaker_out()'
    assert result['n_folds'] == [1, 4]


@pytest.mark.slow
def test_augmentation(tmp_path, home):
    ran('augmentation', tmp_path, home)
    assert card(tmp_path)['conditions']['clean']['n'] == 96
    workdir = tmp_path / SMOKE.format('demo_speech')
    config = json.loads((workdir / 'config.json').read_text())
    assert config['augmentations'] == ['tilt(6)', 'noise(15, 30)']
    assert all(row['loss_augmentation_type'] > 0 for row in metrics(workdir))


@pytest.mark.slow
def test_task(tmp_path, home):
    ran('task', tmp_path, home)
    result = card(tmp_path)
    assert set(result['conditions']) == {'clean', 'clean_gender'}
    assert result['tasks']['gender'] == ['female', 'male']


@pytest.mark.slow
def test_architecture(tmp_path, home):
    ran('architecture', tmp_path, home)
    assert card(tmp_path)['conditions']['clean']['n'] == 96
    config = json.loads((tmp_path / SMOKE.format('demo_speech') / 'config.json').read_text())
    assert config['model'] == {'name': 'mean_pool', 'width': 32}


def test_protocol(tmp_path, home):
    ran('protocol', tmp_path, home)
    result = card(tmp_path)
    assert result['protocol'] == 'across_genders()'
    assert result['n_folds'] == [1, 2]
    assert result['conditions']['clean']['n'] == 192
