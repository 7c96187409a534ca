"""Environment of a run: commit, package versions, device."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jax

_PACKAGES = [
    'jax',
    'jaxlib',
    'flax',
    'optax',
    'orbax-checkpoint',
    'numpy',
    'grain',
    'tensorflow-datasets',
    'librosa',
    'ml-collections',
]


def environment() -> dict:
    """Describes the environment of this process.

    Returns:
        `commit` of the clone, followed by '+changes' if the code is modified, '' outside a clone; `versions` of Python and of the
        packages that affect results, or 'not installed'; `device`, number and kind.
    """
    root = Path(__file__).resolve().parents[2]
    git = lambda *arguments: subprocess.run(
        ['git', '-C', root, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        # Installed inside another clone: that clone's commit is not ours.
        ours = Path(git('rev-parse', '--show-toplevel')).resolve() == root
        commit = git('rev-parse', 'HEAD') if ours else ''
        changed = git('status', '--porcelain', '--untracked-files=all').splitlines() if ours else []
        if any(not line.startswith('??') or line.endswith('.py') for line in changed):
            commit += '+changes'
    except (OSError, subprocess.CalledProcessError):
        commit = ''
    versions = {'python': platform.python_version()}
    versions |= {name: _version(name) for name in _PACKAGES}
    devices = jax.devices()
    device = f'{len(devices)} × {devices[0].device_kind}'
    if devices[0].platform == 'cpu':
        device += f' ({usable_cores()} cores, {_processor()})'
    return {'commit': commit, 'versions': versions, 'device': device}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # benchmarks need JAX, Flax and Optax only
        return 'not installed'


def usable_cores() -> int:
    """Number of cores available to this process; all cores where the affinity is unknown (macOS)."""
    return len(getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))(0))


def _processor():
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(': ')[1] for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def merge_environments(environments: Sequence[dict]) -> dict:
    """Merges the environments of a run's folds; differing values, of other machines, are joined by semicolons."""
    join = lambda values: '; '.join(dict.fromkeys(values))
    return {
        'commit': join(place['commit'] for place in environments),
        'versions': {
            name: join(place['versions'].get(name, 'unknown') for place in environments)
            for name in environments[0]['versions']
        },
        'device': join(place['device'] for place in environments),
    }
