"""Speech emotion recognition in JAX."""


def load(workdir):
    """The final model of a finished run, ready for recordings: see `predictor.load`."""
    from ser_jax.serving.predictor import load  # slow to import

    return load(workdir)
