"""The networks of finished runs, built from what their folders say."""

import importlib
from collections.abc import Mapping
from typing import Any

from flax import linen as nn


def emotion_model(config: Mapping[str, Any], classes: int) -> nn.Module:
    """The network of a run without its auxiliary heads: all that prediction needs.

    Args:
        config: the run's `config.json`.
        classes: number of emotions.

    Returns:
        The module, for its stored parameters.
    """
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in config['model'].items()}
    module = importlib.import_module(f'ser_jax.models.{settings.pop("name")}')
    return module.Model(heads={'emotion': classes}, reconstruction=False, **settings)
