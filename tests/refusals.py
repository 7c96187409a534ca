"""Configs that are refused, in this process: a command takes seconds to start."""

import ast
import contextlib
from pathlib import Path

import pytest
from conftest import load

from ser_jax import train
from ser_jax.runtime.errors import UserError


def config_of(*arguments):
    """The config of `--config=FILE:ARGUMENT` and `--config.FIELD=VALUE`, as `ser_jax.main` reads them."""
    changes = {}
    for argument in arguments:
        name, _, value = argument.partition('=')
        if name == '--config':
            file, _, text = value.partition(':')
            config = load(file).get_config(text)
        elif name.startswith('--config.'):
            with contextlib.suppress(ValueError, SyntaxError):  # a bare word is text
                value = ast.literal_eval(value)
            changes[name.removeprefix('--config.')] = value
    config.update_from_flattened_dict(changes)
    return config


def refusal(*arguments):
    """The line with which `train_and_evaluate` refuses the arguments of `ser_jax.main`, before it trains."""
    (workdir,) = [Path(a.partition('=')[2]) for a in arguments if a.startswith('--workdir=')]
    with pytest.raises(UserError) as error:
        train.train_and_evaluate(config_of(*arguments), workdir)
    assert '\n' not in str(error.value)
    assert not (workdir / 'checkpoints').exists()
    return str(error.value)
