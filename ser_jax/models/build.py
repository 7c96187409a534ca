"""Builds networks from the settings of a config or of a finished run."""

import dataclasses
import importlib
import warnings
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.data.tasks import Task
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError


def make_model(
    model: Mapping[str, Any],
    tasks: tuple[Task, ...],
    front_end: FrontEnd,
    *,
    objective: str,
    prior: str = '',
) -> nn.Module:
    """Builds a network with a head or a decoder for every task.

    Args:
        model: `config.model`: 'name' of a module in `ser_jax.models`, and attributes of its `Model`.
        tasks: tasks to learn.
        front_end: log-mel parameters.
        objective: `config.objective`.
        prior: prior of an adversarial autoencoder.

    Returns:
        The module, for batches spread over `devices.AXIS`.

    Raises:
        UserError: no such network, invalid attributes, or another objective than its own.
    """
    name = model['name']
    model_class, settings = _class_and_settings(model)
    unused = sorted(set(model) - {'name', *settings})
    if unused:
        warnings.warn(
            f'the network {name} does not use config.model.{", ".join(unused)}', stacklevel=2
        )
    model_class.validate(settings, front_end)
    own = getattr(model_class, 'objective', 'multitask')
    if objective != own:
        raise UserError(
            f'config.objective is {objective!r}, but the network {name} is trained by {own!r}'
        )
    if 'bands' in {field.name for field in dataclasses.fields(model_class)}:
        settings['bands'] = front_end.n_mels
    if objective == 'adversarial' and prior == 'mixture':
        settings['conditions'] = sum(len(t.classes) for t in tasks if t.name == 'emotion')
    return model_class(
        heads={task.name: task.outputs for task in tasks if task.kind != 'reconstruction'},
        reconstruction=any(task.kind == 'reconstruction' for task in tasks),
        axis_name=devices.AXIS,
        **settings,
    )


def _class_and_settings(settings: Mapping[str, Any]) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class that `config.model` names, and those of the settings that are its attributes.

    Settings of other networks are left out, so that a change of the name is all it takes to exchange networks.
    """
    name = settings['name']
    try:
        if not str(name).isidentifier():  # nothing outside ser_jax.models
            raise ModuleNotFoundError(name)
        model_class = importlib.import_module(f'ser_jax.models.{name}').Model
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(
            f'config.model.name is {name!r}: no ser_jax/models/{name}.py with a Model'
        ) from error
    known = {field.name for field in dataclasses.fields(model_class)} - {'name'}
    return model_class, {key: value for key, value in settings.items() if key in known}


def stored_model(config: Mapping[str, Any], heads: Mapping[str, int]) -> nn.Module:
    """Builds the network of a finished run for prediction, with its stored config and the number of outputs of every task."""
    stored = {k: tuple(v) if isinstance(v, list) else v for k, v in config['model'].items()}
    model_class, settings = _class_and_settings(stored)
    return model_class(heads=dict(heads), reconstruction=False, **settings)
