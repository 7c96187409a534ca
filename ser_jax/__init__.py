"""Speech emotion recognition in JAX."""

from ser_jax.runtime.user import provide_user

__version__ = '0.2.0'

provide_user()  # before anything looks for its cache


def load(workdir):
    """Loads the final model of a finished run, see `serving.predictor.load`."""
    from ser_jax.serving.predictor import load  # slow to import

    return load(workdir)
