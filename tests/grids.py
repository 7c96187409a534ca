"""Writes grid files."""

from pathlib import Path

from ser_jax.grid import plan


def write_grid(path: Path, **content) -> Path:
    """Writes a grid file of one variant, with further content."""
    content = {'config': 'configs/mtl_aug.py', 'variants': {'full': {}}, **content}
    path.write_text(f'def get_grid():\n    return {content!r}\n')
    return path


def make_grid(folder: Path, **content) -> plan.Grid:
    """The grid of such a file."""
    return plan.read_grid(str(write_grid(folder / 'plan.py', **content)))
