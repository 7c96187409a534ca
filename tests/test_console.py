"""The console scripts that setup.py declares."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = {
    'ser-train': 'main',
    'ser-predict': 'predict',
    'ser-report': 'report',
    'ser-demo': 'demo',
}


@pytest.mark.parametrize('name', SCRIPTS)
def test_scripts_are_the_commands(name, tmp_path):
    script = Path(sys.executable).with_name(name)
    if not script.exists():
        pytest.skip(f'{name} is not installed: pip install -e .')
    found = subprocess.run([script, '--help'], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert f'python -m ser_jax.{SCRIPTS[name]}' in found.stdout
