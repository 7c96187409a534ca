"""Where a run takes place: code, versions, device."""

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
    """Where a run takes place.

    Returns:
        `commit` of the clone, with '+changes' behind it where code differs from that commit, '' outside
        a clone; `versions` of Python and the packages that make the numbers ('not installed' is one); `device`.
    """
    root = Path(__file__).resolve().parents[2]
    git = lambda *words: subprocess.run(
        ['git', '-C', root, *words], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        # A package installed somewhere inside another clone must not take that clone's commit.
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
    except importlib.metadata.PackageNotFoundError:  # a benchmark takes JAX, Flax and Optax only
        return 'not installed'


def usable_cores() -> int:
    """Cores that this process may use, where the system says so; all of them where it does not (macOS)."""
    return len(getattr(os, 'sched_getaffinity', lambda _: range(os.cpu_count() or 1))(0))


def _processor():
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        return next(line.split(': ')[1] for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def joined(environments: Sequence[dict]) -> dict:
    """One description of several places, for a run that was begun in one and ended in another.

    Args:
        environments: of `environment`, one a fold.

    Returns:
        The same fields; what differs is joined by semicolons.
    """
    join = lambda values: '; '.join(dict.fromkeys(values))
    return {
        'commit': join(place['commit'] for place in environments),
        'versions': {
            name: join(place['versions'][name] for place in environments)
            for name in environments[0]['versions']
        },
        'device': join(place['device'] for place in environments),
    }
