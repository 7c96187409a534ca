"""Where things may lie: in folders that the system knows; where compiled programs are kept."""

import os
import re
from pathlib import Path

from ser_jax.runtime.errors import UserError


def local_path(path: str | os.PathLike) -> Path:
    """A path with `~` expanded.

    Raises:
        UserError: the address of a bucket, which would quietly become a folder `gs:` here.
    """
    if re.match(r'[a-z0-9]{2,}:/', text := os.fspath(path)):  # Path makes one slash of two
        raise UserError(
            f'{text} is no folder: mount the bucket and name the folder it is mounted on, as cloud/README.md says'
        )
    return Path(path).expanduser()


def keep_compiled(data_dir: str | os.PathLike = '~/.cache/ser_jax/records') -> None:
    """Has JAX keep what it compiles beside the prepared corpora, for the next start; before JAX is imported.

    Small programs, too: JAX would compile those of less than a second each time, and a run has forty.

    Args:
        data_dir: where the corpora lie.
    """
    folder = Path(data_dir).expanduser().parent / 'compiled'
    os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(folder))
    os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
