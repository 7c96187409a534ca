"""The notebooks run from top to bottom and are stored without outputs."""

import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest
from conftest import ROOT, simulated

NOTEBOOKS = sorted((ROOT / 'colab').glob('*.ipynb'))


def test_there_are_four():
    names = [path.stem for path in NOTEBOOKS]
    assert names == ['own_recordings', 'quickstart', 'robustness', 'tpu_training']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    general = path.stem == 'own_recordings'
    if general and not os.environ.get('SER_JAX_ENCODER'):
        pytest.skip('SER_JAX_ENCODER names no folder with the encoder of the general model')
    for name in ('ser_jax', 'configs', 'tfds_builders', 'setup.py'):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {
        **simulated(1),
        'SER_JAX_SMOKE': '1',
        'PYTHONPATH': str(ROOT),
        # `!python` runs the first Python on the path.
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    resources = {'metadata': {'path': str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    shown = 'text/html' if general else 'image/png'
    assert any(shown in output.get('data', ()) for output in outputs)
    assert (tmp_path / 'runs').is_dir() != general
