"""Speech emotion recognition in JAX."""


def load(workdir):
    """Loads the final model of a finished run, see `serving.predictor.load`."""
    from ser_jax.serving.predictor import load  # slow to import

    return load(workdir)
