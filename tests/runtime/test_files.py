"""Where things lie."""

import os
import subprocess
import sys

from conftest import ROOT


def test_even_small_programs_are_kept_compiled_beside_the_corpora(tmp_path):
    script = (
        'from ser_jax.runtime.files import keep_compiled\n'
        f'keep_compiled({str(tmp_path / "corpora")!r})\n'
        'import jax\n'
        'jax.jit(lambda x: 2 * x)(1.0)'
    )
    mine = ('JAX_COMPILATION_CACHE_DIR', 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS')
    environment = {name: value for name, value in os.environ.items() if name not in mine}
    subprocess.run([sys.executable, '-c', script], check=True, cwd=ROOT, env=environment)
    assert any(path.name.startswith('jit__lambda') for path in (tmp_path / 'compiled').iterdir())
