"""Atomic writes and JAX's compilation cache."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import (
    damaged_file,
    library_path,
    replacing,
    write_atomically,
    write_checksums,
)


def test_a_write_that_fails_changes_nothing(tmp_path):
    path = tmp_path / 'folder' / 'file'
    write_atomically(path, 'before')
    with pytest.raises(OSError, match='4'), replacing(path) as temporary:
        raise OSError(temporary.write_text('half'))
    assert [other.name for other in path.parent.iterdir()] == ['file']
    assert path.read_text() == 'before'


def test_what_killed_processes_left_is_removed(tmp_path):
    path = tmp_path / 'x[1].json'
    code = (
        'import os, pathlib, signal, sys\n'
        'from ser_jax.runtime.files import replacing\n'
        'with replacing(sys.argv[1]) as temporary:\n'
        '    temporary.write_text("half")\n'
        '    os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    subprocess.run([sys.executable, '-c', code, str(path)], cwd=ROOT)
    (left,) = tmp_path.iterdir()
    running = left.with_name(left.name.replace(left.stem.rpartition('-')[2], str(os.getppid())))
    running.touch()
    write_atomically(path, 'whole')
    assert set(tmp_path.iterdir()) == {path, running}


def test_even_small_programs_are_cached_beside_the_corpora(tmp_path):
    script = (
        'from ser_jax.runtime.files import set_compilation_cache\n'
        f'set_compilation_cache({str(tmp_path / "corpora")!r})\n'
        'import jax\n'
        'jax.jit(lambda x: 2 * x)(1.0)'
    )
    variables = ('JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS')
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    subprocess.run([sys.executable, '-c', script], check=True, cwd=ROOT, env=environment)
    assert any(path.name.startswith('jit__lambda') for path in (tmp_path / 'compiled').iterdir())


def test_a_name_that_is_no_text():
    with pytest.raises(UserError, match=r'd\\udcff: the name is not text in this locale'):
        library_path('d\udcff')


def test_checksums_written_twice_still_match(tmp_path):
    (tmp_path / 'values.npy').write_bytes(b'1')
    for content in (b'1', b'22'):
        (tmp_path / 'values.npy').write_bytes(content)
        write_checksums(tmp_path)
        assert damaged_file(tmp_path, whole=True) is None
