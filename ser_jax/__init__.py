"""Speech emotion recognition in JAX."""

__version__ = '0.1.0'


def load(workdir):
    """Loads the final model of a finished run, see `serving.predictor.load`."""
    from ser_jax.serving.predictor import load  # slow to import

    return load(workdir)
