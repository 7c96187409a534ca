"""The phases of a training step that a config asks for."""

import ml_collections
from flax import linen as nn

from ser_jax.data.tasks import Task
from ser_jax.objectives import multitask
from ser_jax.objectives.adversarial import PHASES, adversarial
from ser_jax.objectives.optimiser import make_optimiser
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError


def make_phases(
    config: ml_collections.ConfigDict, model: nn.Module, tasks: tuple[Task, ...]
) -> tuple[multitask.Phase, ...]:
    """Builds the phases of `config.objective`.

    Args:
        config: of the run.
        model: the network.
        tasks: what is learnt.

    Returns:
        The phases, in the order in which they are run.

    Raises:
        UserError: phases that cannot be.
    """
    common = {
        'label_smoothing': config.label_smoothing,
        'clean_target': config.reconstruction_target == 'clean',
        'axis_name': devices.AXIS,
    }
    optimiser = make_optimiser(config.optimiser, config.steps)
    if config.objective == 'multitask':
        return multitask.multitask(
            model,
            tasks,
            optimiser,
            adversarial_epsilon=config.adversarial_epsilon,
            representation=config.representation,
            **common,
        )
    _check(config, tasks)
    others = {
        name: make_optimiser(config.optimisers[name], config.steps)
        for name in config.phases
        if name != 'supervised'
    }
    optimisers = {name: others.get(name, optimiser) for name in config.phases}
    settings = config.adversary.to_dict()
    return adversarial(model, tasks, optimisers, **settings, **common)


def _check(config: ml_collections.ConfigDict, tasks: tuple[Task, ...]) -> None:
    names, kinds = tuple(config.phases), {task.kind for task in tasks}
    unknown = [name for name in names if name not in PHASES]
    problem = ''
    if unknown or len(set(names)) < len(names):
        problem = f'it must name each of {", ".join(PHASES)} at most once'
    elif 'supervised' not in names:
        problem = "without 'supervised' nothing is reported"
    elif ('discriminator' in names) != ('generator' in names):
        problem = "'discriminator' and 'generator' need each other"
    elif ('reconstruction' in names) != ('reconstruction' in kinds):
        problem = "'reconstruction' needs a task of that kind in config.tasks with a weight above 0, and the other way round"
    if problem:
        raise UserError(f'config.phases is {names!r}: {problem}')
    if ('discriminator' in names) != config.model.adversary:
        raise UserError(
            'config.model.adversary says whether there is a discriminator: it must be so where config.phases has '
            "'discriminator', and only there"
        )
    if config.adversarial_epsilon:
        raise UserError("config.adversarial_epsilon needs config.objective 'multitask'")
    if config.model.adversary and config.batch_size < 2:
        raise UserError(
            f'config.batch_size is {config.batch_size}; codes are compared with a prior over at least 2 utterances'
        )
    if config.adversary.prior not in ('gaussian', 'mixture'):
        raise UserError(
            f"config.adversary.prior is {config.adversary.prior!r}; it must be 'gaussian' or 'mixture'"
        )
    emotions = next((len(task.classes) for task in tasks if task.name == 'emotion'), 0)
    mixture = config.model.adversary and config.adversary.prior == 'mixture'
    if mixture and emotions > config.model.code_features:
        raise UserError(
            f'config.model.code_features is {config.model.code_features}; a mixture of {emotions} emotions needs at '
            'least as many'
        )
    weight = config.tasks.reconstruction.weight if 'reconstruction' in config.tasks else 0
    if weight not in (0, 1):
        raise UserError(
            f'config.tasks.reconstruction.weight is {weight}; it must be 0 or 1: the weight of this phase is '
            'config.optimisers.reconstruction.learning_rate'
        )
    if mixture and not emotions:
        raise UserError(
            "config.adversary.prior 'mixture' has a component an emotion: it needs that task"
        )
