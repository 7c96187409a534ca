"""Environment of a run, and the tested versions of packages."""

import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

from ser_jax.runs.environment import environment, merge_environments


def test_environment_of_this_run():
    found = environment()
    assert re.fullmatch(r'([0-9a-f]{40}(\+changes)?)?', found['commit'])
    assert re.match(r'\d+\.\d+', found['versions']['jax'])
    assert 'cpu' in found['device'].lower()


def test_differing_environments_are_joined():
    here = {'commit': 'a', 'versions': {'jax': '1'}, 'device': 'cpu'}
    there = {'commit': 'b', 'versions': {'jax': '1'}, 'device': 'gpu'}
    assert merge_environments([here, there, here]) == {
        'commit': 'a; b',
        'versions': {'jax': '1'},
        'device': 'cpu; gpu',
    }


def test_peak_memory_excludes_the_parent_process():
    parent = np.ones(100_000_000)  # 800 MB
    program = 'from ser_jax.training import cost; print(cost.peak_memory_mb())'
    command = [sys.executable, '-c', program]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert 20 < float(result.stdout) < parent.nbytes / 2**20


def listed(name):
    """Package -> version in a file of constraints."""
    text = (ROOT / 'constraints' / name).read_text()
    return dict(re.findall(r'^([\w.-]+)==([\d.]+)', text, re.M))


def numbers(version):
    return [int(part) for part in version.split('.')]


@pytest.mark.parametrize('name', ['lowest.txt', 'python3.11.txt', 'python3.13.txt'])
def test_tested_versions_are_allowed(name):
    allowed = re.findall(r"^\s+'([\w.-]+)>=([\d.]+)'", (ROOT / 'setup.py').read_text(), re.M)
    assert len(allowed) > 20
    tested = listed(name)
    for package, lowest in allowed:
        found = tested[package.lower().replace('_', '-')]
        if name == 'lowest.txt':
            assert f'{found}.'.startswith(f'{lowest}.'), f'{package}: {found}'
        assert numbers(found) >= numbers(lowest), f'{package}: {found}'
