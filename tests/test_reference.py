"""configs/README.md: every field and option with its meaning, as declared in the configs."""

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, load

from ser_jax.config import flatten
from ser_jax.grid import plan

README = (ROOT / 'configs' / 'README.md').read_text(encoding='utf-8')


@pytest.fixture
def make_reference(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    return load('configs/make_reference.py')


def rows(section):
    """First cell -> the others, of the tables of a section of the reference."""
    text = next(part for part in README.split('\n## ') if part.startswith(section))
    cells = [line.strip('| ').split(' | ') for line in text.splitlines() if line.startswith('| `')]
    return {row[0].strip('`'): row[1:] for row in cells}


def test_the_reference_is_current(make_reference, capsys):
    assert make_reference.main(['--check']) == 0, capsys.readouterr().err


@pytest.mark.parametrize('system', ['mtl_aug', 'end_to_end', 'adversarial_autoencoder', 'probe'])
def test_every_field_and_option_is_described(system):
    config = importlib.import_module(f'configs.{system}')
    shared = {k: v for part in README.split('\n## ')[1:] for k, v in rows(part).items()}
    table = shared | rows(f'{system}.py')
    for field in flatten(config.get_config()):
        row = re.sub(r'^(tasks|optimisers)\.\w+', r'\1.NAME', field)
        meaning, default, must = table[row]
        assert row == field or f'{field.split(".")[1]}: `' in default
        assert must.strip()
        assert 10 <= len(meaning) <= 240, f'{field}: {meaning}'
    for option in config.OPTIONS:
        assert len(table[option][0]) >= 10, option


def test_every_key_of_a_grid_file_is_described():
    text = next(part for part in README.split('\n## ') if part.startswith('Grid files'))
    for key in (*plan._KEYS, *plan._VARIANT_KEYS):
        assert f'`{key}`' in text, key


def test_a_difference_is_found_and_corrected(make_reference, tmp_path, monkeypatch, capsys):
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    readme = tmp_path / 'configs' / 'README.md'
    readme.write_text(README.replace('Seed of initial parameters', 'Seed of something'))
    monkeypatch.setattr(make_reference, 'HERE', tmp_path / 'configs')
    assert make_reference.main(['--check']) == 1
    assert 'make_reference.py' in capsys.readouterr().err
    assert make_reference.main([]) == 0
    assert readme.read_text(encoding='utf-8') == README
    assert make_reference.main(['--check']) == 0


FLAGS = README.partition('<!-- fields -->\n```\n')[2].partition('```')[0].splitlines()
READ = """
import functools, sys
from ser_jax import config, main
main.parse_flags(['main', '--config=configs/mtl_aug.py', *sys.argv[1:]])
config.check_config(main._CONFIG.value)
field = sys.argv[1].removeprefix('--config.').partition('=')[0]
print(functools.reduce(getattr, field.split('.'), main._CONFIG.value))
"""


@pytest.mark.parametrize('line', FLAGS)
def test_the_flags_shown_are_read(line):
    (word,) = shlex.split(line)  # as the shell splits it
    result = subprocess.run(
        [sys.executable, '-c', READ, word], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    read, written = result.stdout.strip(), word.partition('=')[2]
    try:
        assert ast.literal_eval(read) == ast.literal_eval(written)
    except (SyntaxError, ValueError):  # a string
        assert read == written
