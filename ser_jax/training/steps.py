"""The training step: a pure function of (state, batch) for the rows of one device."""

import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ser_jax.models.encoders.fine_tuning import PRETRAINED, split
from ser_jax.objectives import optimiser
from ser_jax.objectives.multitask import Phase
from ser_jax.runtime import devices


@flax.struct.dataclass
class TrainState:
    """The state of training, with the constants of the run.

    Attributes:
        step: steps made, int32 [].
        params: parameters of the network.
        opt_state: phase name -> optimiser state.
        model_state: 'batch_stats' of the network; 'constants', the training-set statistics (`data.dataset.Dataset.statistics`):
            'seed' [], 'mean' and 'std' of the inputs, 'class_weights' [K] of every reported classification, 'trained_classes'
            bool [K] of every other (the classes that occur in training), 'ratings' [2] (mean, standard deviation) of every regression;
            of an encoder that trains, 'encoder', its frozen parameters: those that train are `params[PRETRAINED]`.
    """

    step: jax.Array
    params: Any
    opt_state: dict[str, optax.OptState]
    model_state: dict[str, Any]


def stream(seed: jax.Array, step: jax.Array, name: str) -> jax.Array:
    """The random key of (seed, step, stream name), so that resuming needs no stored keys."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def init_state(
    constants: dict[str, Any],
    encoder: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    *,
    model: nn.Module,
    phases: tuple[Phase, ...],
    input_shape: tuple[int, ...],
    trained: Collection[tuple[str, ...]] = (),
) -> TrainState:
    """Initialises the state of step 0.

    Args:
        constants: see `TrainState.model_state`.
        encoder: parameters of an encoder that trains with the network.
        start: parameters of the network that replace the random ones.
        model: the network.
        phases: phases of the objective.
        input_shape: shape of one input of the network, (T, F) or (S,), to trace it.
        trained: paths of the encoder's parameters that train.
    """
    variables = model.clone(axis_name=None).init(
        stream(constants['seed'], jnp.int32(0), 'init'),
        jnp.zeros((1, *input_shape)),
        jnp.full((1,), input_shape[0], jnp.int32),
        train=False,
    )
    params = {**variables['params'], **(start or {})}
    model_state = {'batch_stats': variables.get('batch_stats', {}), 'constants': constants}
    if encoder:
        params[PRETRAINED], model_state['encoder'] = split(encoder, trained)
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state={phase.name: phase.tx.init(chosen(params, phase.updates)) for phase in phases},
        model_state=model_state,
    )


def stored(state: TrainState) -> TrainState:
    """What a checkpoint holds: a state without the frozen parameters of an encoder, which its identity stands for."""
    kept = {name: part for name, part in state.model_state.items() if name != 'encoder'}
    return state.replace(model_state=kept)


def restored(found: TrainState, initial: TrainState) -> TrainState:
    """A stored state with the frozen parameters of an encoder, which the initial state has."""
    return found.replace(model_state={**initial.model_state, **found.model_state})


def chosen(params: dict[str, Any], updates: tuple[str, ...]) -> dict[str, Any]:
    """The top-level subtrees of the parameters that a phase updates, see `Phase`."""
    return {name: params[name] for name in updates} if updates else params


def make_augment_step(augment: Callable[[jax.Array, dict], dict]) -> Callable:
    """Builds `augment_step((seed, step), batch) -> batch` for one device's rows, see `augment.augment`."""
    return lambda when, batch: augment(stream(*when, 'augment'), batch)


def make_train_step(phases: tuple[Phase, ...], axis_name: str) -> Callable:
    """Builds `train_step(state, batch) -> (state, metrics)` for one device's rows.

    Args:
        phases: phases of the objective, run in order.
        axis_name: axis of the devices.

    Returns:
        The step, for augmented batches; its metrics are global scalars: those of the phases' losses, and
        'gradient_norm', with several phases 'gradient_norm_<phase>'.
    """

    def train_step(state: TrainState, batch: dict[str, jax.Array]):
        seed = state.model_state['constants']['seed']
        params, opt_state, model_state = state.params, dict(state.opt_state), state.model_state
        metrics = {}
        for phase in phases:
            own = chosen(params, phase.updates)
            rngs = {
                name: stream(seed, state.step, f'{name} {phase.name}')
                for name in ('dropout', 'sample')
            }
            gradient_of = jax.grad(
                lambda own, params, *rest, loss=phase.loss: loss({**params, **own}, *rest),
                has_aux=True,
            )
            gradients, (new, model_state) = gradient_of(own, params, model_state, batch, rngs)
            gradients = jax.lax.psum(gradients, axis_name)
            updates, opt_state[phase.name] = phase.tx.update(gradients, opt_state[phase.name], own)
            params = {**params, **optax.apply_updates(own, updates)}
            norm = 'gradient_norm' if len(phases) == 1 else f'gradient_norm_{phase.name}'
            metrics |= new | {norm: optax.tree.norm(gradients)}
        # The optimiser skips gradients that are not finite; running statistics must not keep them either.
        batch_stats = jax.tree.map(
            lambda new, old: jnp.where(jnp.isfinite(new).all(), new, old),
            model_state['batch_stats'],
            state.model_state['batch_stats'],
        )
        model_state = {**state.model_state, 'batch_stats': batch_stats}
        return TrainState(state.step + 1, params, opt_state, model_state), metrics

    return train_step


def compile_train_step(
    phases: tuple[Phase, ...],
    augment: Callable[[jax.Array, dict], dict],
    placement: devices.DataParallel | devices.ParallelRuns,
) -> Callable:
    """Compiles the training step on all devices: (state, batch as the host delivers it) -> (state, metrics).

    These are two programs: in one, XLA:CPU would recompute the augmentations element by element wherever the
    network reads their result in another order (40 instead of 34 ms per step).

    Args:
        phases: phases of the objective.
        augment: (key, batch) -> batch, see `augment.augment`.
        placement: placement of the training.
    """
    augment_step = placement.compile(make_augment_step(augment), returns_rows=True)
    update = placement.compile(make_train_step(phases, devices.AXIS), donate=True)

    def train_step(state: TrainState, batch: dict[str, jax.Array]):
        when = state.model_state['constants']['seed'], state.step
        return update(state, augment_step(when, batch))

    return train_step


def inference_variables(state: TrainState) -> dict[str, Any]:
    """The part of a state that prediction needs: averaged parameters and model state."""
    params = dict(state.params)
    # Where several phases change a subtree, the last of their names counts: for the encoder, `supervised`.
    for _, opt_state in sorted(state.opt_state.items()):
        params |= optimiser.averaged_params(opt_state)
    return {'params': params, **state.model_state}
