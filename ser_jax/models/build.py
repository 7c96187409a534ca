"""Networks, built from configs or from what the folders of finished runs say."""

import dataclasses
import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import ml_collections
from flax import linen as nn

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.data.tasks import Task
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError


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
    model_class, settings = _class_and_settings(config.model.to_dict())
    unused = sorted(set(config.model) - {'name', *settings})
    if unused:
        warnings.warn(
            f'the network {config.model.name} does not use config.model.{", ".join(unused)}',
            stacklevel=2,
        )
    front_end = FrontEnd(**config.data.front_end)
    model_class.validate(settings, front_end)
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
        axis_name=devices.AXIS,
        **settings,
    )


def _class_and_settings(settings: Mapping[str, Any]) -> tuple[type[nn.Module], dict[str, Any]]:
    """The network that `config.model` names, and those of its settings that are attributes of it.

    The others are another network's: so that naming one is all it takes to exchange them.
    """
    name = settings['name']
    try:
        if not str(name).isidentifier():  # nothing beyond that folder
            raise ModuleNotFoundError(name)
        model_class = importlib.import_module(f'ser_jax.models.{name}').Model
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f'config.model.name is {name!r}: no ser_jax/models/{name}.py with a Model'
        ) from error
    known = {field.name for field in dataclasses.fields(model_class)} - {'name'}
    return model_class, {key: value for key, value in settings.items() if key in known}


def stored_model(config: Mapping[str, Any], heads: Mapping[str, int]) -> nn.Module:
    """The network of a run with some of its heads: all that prediction needs.

    Args:
        config: the run's `config.json`.
        heads: task -> number of outputs.

    Returns:
        The module, for its stored parameters.
    """
    stored = {k: tuple(v) if isinstance(v, list) else v for k, v in config['model'].items()}
    model_class, settings = _class_and_settings(stored)
    return model_class(heads=dict(heads), reconstruction=False, **settings)
