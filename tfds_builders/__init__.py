"""Builders that turn corpora, as their owners distribute them, into the records that ser_jax reads."""
