"""Users unknown to the system: `docker run -u NUMBER` leaves HOME unset, or sets it to / ."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

# A user number that the system does not know; modules are imported with the rights of the real one.
UNKNOWN = """
import grp, pwd, runpy, sys
def unknown(number):
    raise KeyError(number)
grp.getgrgid = pwd.getpwuid = unknown
sys.argv.pop(0)
"""
MODULE = UNKNOWN + 'runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)'


@pytest.fixture
def start(tmp_path):
    """Starts Python code as an unknown user."""

    def start(code, *arguments, **environment):
        inherited = {name: value for name, value in os.environ.items() if name != 'HOME'}
        return subprocess.run(
            [sys.executable, '-c', code, *arguments],
            cwd=ROOT,
            env={**inherited, 'TMPDIR': str(tmp_path), **environment},
            capture_output=True,
            text=True,
        )

    return start


@pytest.mark.parametrize('home', [{}, {'HOME': '/nowhere'}], ids=str)
def test_caches_go_to_a_temporary_folder(start, tmp_path, home):
    folder = tmp_path / f'ser_jax-{os.getuid()}'
    built = start(MODULE, 'tfds_builders.build', 'demo_speech', **home)
    assert built.returncode == 0, built.stderr
    assert (folder / '.cache/ser_jax/records/demo_speech').is_dir()
    lines = [line for line in built.stderr.splitlines() if 'home directory' in line]
    assert len(lines) == 1  # none from the processes of the pool
    assert str(folder) in lines[0]
    tested = start(MODULE, 'ser_jax.predict', f'--workdir={tmp_path}', 'x.wav', **home)
    assert 'holds no finished run' in tested.stderr
    assert 'Traceback' not in tested.stderr


def test_a_folder_of_another_user_is_not_trusted(start, tmp_path):
    code = (
        UNKNOWN + 'import os\nos.getuid = lambda: 54321\nimport ser_jax\nprint(os.environ["HOME"])'
    )
    (tmp_path / 'ser_jax-54321').mkdir()
    home = start(code, '').stdout.strip()
    assert os.path.dirname(home) == str(tmp_path)
    assert home != str(tmp_path / 'ser_jax-54321')


def test_a_home_that_can_be_written_to_stays(start, tmp_path):
    (tmp_path / 'home').mkdir()
    code = UNKNOWN + 'import os, ser_jax\nprint(os.environ["HOME"])'
    done = start(code, '', HOME=str(tmp_path / 'home'))
    assert (done.stdout, done.stderr) == (f'{tmp_path / "home"}\n', '')
