"""Builders: corpora as distributed by their owners -> the records that ser_jax reads."""
