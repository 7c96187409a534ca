"""Where things may lie: in folders that the system knows."""

import os
import re
from pathlib import Path

from ser_jax.errors import UserError


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
