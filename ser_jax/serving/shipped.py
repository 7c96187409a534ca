"""The models that come with ser_jax: run directories in ser_jax/pretrained/, cut down to what `predict` and `export` read."""

import os
from pathlib import Path

from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import library_path

FOLDER = Path(__file__).resolve().parent.parent / 'pretrained'
GENERAL = 'general'


def names() -> list[str]:
    """The names of the models."""
    found = (path.parent.name for path in FOLDER.glob('*/results.json'))
    return sorted(name for name in found if '.' not in name)  # unfinished ones have an ending


def model_folder(name_or_path: str | os.PathLike) -> Path:
    """The folder of a model, absolute.

    Args:
        name_or_path: a name of `names`, or a run directory ('./general' for one in the current folder).

    Raises:
        UserError: neither.
    """
    if isinstance(name_or_path, str) and name_or_path in names():
        return FOLDER / name_or_path
    folder = library_path(name_or_path).absolute()
    if not folder.is_dir() and len(Path(name_or_path).parts) == 1:
        raise UserError(
            f'{name_or_path} is neither a run directory nor a model that comes with ser_jax ({", ".join(names())})'
        )
    return folder
