"""The networks of finished runs, built from what their folders say."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import linen as nn


def stored_model(config: Mapping[str, Any], heads: Mapping[str, int]) -> nn.Module:
    """The network of a run with some of its heads: all that prediction needs.

    Args:
        config: the run's `config.json`.
        heads: task -> number of classes.

    Returns:
        The module, for its stored parameters.
    """
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in config['model'].items()}
    module = importlib.import_module(f'ser_jax.models.{settings.pop("name")}')
    return module.Model(heads=dict(heads), reconstruction=False, **settings)


def run_fingerprint(workdir: str | Path) -> str | None:
    """What tells the models of a finished run from those of another; None where there is none.

    Args:
        workdir: of the run.
    """
    try:
        card = json.loads((Path(workdir).expanduser() / 'results.json').read_text())
        return f'{card["config_hash"]} seed {card["seed"]} {card["commit"]}'
    except (OSError, ValueError, KeyError):
        return None
