"""Networks, built from configs or from what the folders of finished runs say."""

import importlib
from collections.abc import Mapping
from typing import Any

import ml_collections
from flax import linen as nn

from ser_jax import sharding
from ser_jax.errors import UserError
from ser_jax.features import FrontEnd
from ser_jax.tasks import Task


def make_model(config: ml_collections.ConfigDict, tasks: tuple[Task, ...]) -> nn.Module:
    """The network of a config, with a head or a decoder for every task.

    Args:
        config: of the run.
        tasks: what is learnt.

    Returns:
        The module, for batches spread over `sharding.AXIS`.

    Raises:
        UserError: no such network, attributes that cannot be, or another objective than its own.
    """
    settings = config.model.to_dict()
    model_class = _model_class(settings.pop('name'))
    front_end = FrontEnd(**config.data.front_end)
    problem = model_class.problem(settings, front_end)
    if problem:
        raise UserError(f'config.model: {problem}')
    objective = getattr(model_class, 'objective', 'multitask')
    if config.objective != objective:
        raise UserError(
            f'config.objective is {config.objective!r}, but the network {config.model.name} is trained by {objective!r}'
        )
    if objective == 'adversarial':
        settings['bands'] = front_end.n_mels
        if config.adversary.prior == 'mixture':
            settings['conditions'] = sum(len(t.classes) for t in tasks if t.name == 'emotion')
    return model_class(
        heads={task.name: task.outputs for task in tasks if task.kind != 'reconstruction'},
        reconstruction=any(task.kind == 'reconstruction' for task in tasks),
        axis_name=sharding.AXIS,
        **settings,
    )


def _model_class(name: str) -> type[nn.Module]:
    try:
        return importlib.import_module(f'ser_jax.models.{name}').Model
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f'config.model.name is {name!r}: no ser_jax/models/{name}.py with a Model'
        ) from error


def stored_model(config: Mapping[str, Any], heads: Mapping[str, int]) -> nn.Module:
    """The network of a run with some of its heads: all that prediction needs.

    Args:
        config: the run's `config.json`.
        heads: task -> number of outputs.

    Returns:
        The module, for its stored parameters.
    """
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in config['model'].items()}
    return _model_class(settings.pop('name'))(heads=dict(heads), reconstruction=False, **settings)
