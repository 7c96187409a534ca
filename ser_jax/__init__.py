"""Speech emotion recognition in JAX."""

import typing

from ser_jax.runtime.user import provide_user

if typing.TYPE_CHECKING:
    import os

    from ser_jax.serving.predictor import Predictor

__version__ = '0.2.0'

provide_user()  # before anything looks for its cache


def load(name_or_path: 'str | os.PathLike' = 'general') -> 'Predictor':
    """Loads a model that comes with ser_jax, or that of a finished run; see `serving.predictor.load`."""
    from ser_jax.serving.predictor import load  # slow to import

    return load(name_or_path)
