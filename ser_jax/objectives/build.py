"""Builds the phases of a training step."""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import linen as nn

from ser_jax.data.tasks import Task
from ser_jax.models.encoders.fine_tuning import PRETRAINED
from ser_jax.models.encoders.pretrained import EncoderInput
from ser_jax.objectives.adversarial import PHASES, adversarial
from ser_jax.objectives.multitask import Phase, multitask
from ser_jax.objectives.optimiser import make_optimiser
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError


def make_phases(
    model: nn.Module,
    tasks: tuple[Task, ...],
    *,
    objective: str,
    steps: int,
    optimiser: Mapping[str, float],
    label_smoothing: float,
    clean_target: bool,
    representation: str,
    batch_size: int,
    adversarial_epsilon: float = 0.0,
    phases: Sequence[str] = (),
    optimisers: Mapping[str, Mapping[str, float]] | None = None,
    adversary: Mapping[str, Any] | None = None,
    encoder: EncoderInput | None = None,
    encoder_warmup: int = 0,
) -> tuple[Phase, ...]:
    """Builds the phases of an objective.

    Args:
        model: the network.
        tasks: tasks to learn.
        objective: 'multitask' or 'adversarial'.
        steps: length of the learning-rate schedule.
        optimiser: settings of `make_optimiser`, for the phase 'supervised' where there are several.
        label_smoothing, clean_target, representation, adversarial_epsilon: see `multitask_loss`.
        batch_size: rows of the global batch.
        phases: phases of an adversarial objective, in the order in which they are run.
        optimisers: settings of the other phases' optimisers.
        adversary: 'prior', 'separation' and 'gradient_penalty' of an adversarial objective.
        encoder: the pretrained encoder that trains with the network, or None.
        encoder_warmup: steps during which its learning rates rise from 0.

    Raises:
        UserError: phases that do not fit the network or the tasks.
    """
    common = {
        'label_smoothing': label_smoothing,
        'clean_target': clean_target,
        'axis_name': devices.AXIS,
        'representation': representation,
    }
    rates = {(PRETRAINED, *path): rate for path, rate in (encoder.rates if encoder else {}).items()}
    supervised = make_optimiser(optimiser, steps, rates=rates, warmup_steps=encoder_warmup)
    if objective == 'multitask':
        common |= {'adversarial_epsilon': adversarial_epsilon, 'encoder': encoder}
        return multitask(model, tasks, supervised, **common)
    _check_phases(phases, tasks, model.adversary)
    if model.adversary and batch_size < 2:
        raise UserError(
            f'config.batch_size is {batch_size}; codes are compared with a prior over at least 2 utterances'
        )
    _check_prior(adversary['prior'], tasks, model)
    if adversarial_epsilon:
        raise UserError("config.adversarial_epsilon needs config.objective 'multitask'")
    transformations = {
        name: supervised if name == 'supervised' else make_optimiser(optimisers[name], steps)
        for name in phases
    }
    return adversarial(model, tasks, transformations, **adversary, **common)


def _check_phases(names: Sequence[str], tasks: tuple[Task, ...], adversary: bool) -> None:
    weights = {task.kind: task.weight for task in tasks}
    problem = ''
    if set(names) - set(PHASES) or len(set(names)) < len(names):
        problem = f'it must name each of {", ".join(PHASES)} at most once'
    elif 'supervised' not in names:
        problem = "without 'supervised' nothing is reported"
    elif ('discriminator' in names) != ('generator' in names):
        problem = "'discriminator' and 'generator' need each other"
    elif ('reconstruction' in names) != ('reconstruction' in weights):
        problem = "'reconstruction' needs a task of that kind in config.tasks with a weight above 0, and the other way round"
    if problem:
        raise UserError(f'config.phases is {tuple(names)!r}: {problem}')
    if ('discriminator' in names) != adversary:
        raise UserError(
            'config.model.adversary adds a discriminator: it must be True where config.phases has '
            "'discriminator', and only there"
        )
    weight = weights.get('reconstruction', 0)
    if weight not in (0, 1):
        raise UserError(
            f'config.tasks.reconstruction.weight is {weight}; it must be 0 or 1: the weight of this phase is '
            'config.optimisers.reconstruction.learning_rate'
        )


def _check_prior(prior: str, tasks: tuple[Task, ...], model: nn.Module) -> None:
    emotions = next((len(task.classes) for task in tasks if task.name == 'emotion'), 0)
    mixture = model.adversary and prior == 'mixture'
    if mixture and not emotions:
        raise UserError(
            "config.adversary.prior 'mixture' has a component an emotion: it needs that task"
        )
    if mixture and emotions > model.code_features:
        raise UserError(
            f'config.model.code_features is {model.code_features}; a mixture of {emotions} emotions needs at '
            'least as many'
        )
