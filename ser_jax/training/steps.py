"""The training step and the prediction step: pure functions of (state, batch) for one device's rows."""

import zlib
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.audio.log_mel_jax import batch_log_mel
from ser_jax.data.tasks import Task
from ser_jax.objectives import optimiser
from ser_jax.objectives.multitask import Phase, normalise, standardised
from ser_jax.runtime import devices
from ser_jax.transforms import attacks


@flax.struct.dataclass
class TrainState:
    """All that training changes, and the constants of the run.

    Attributes:
        step: steps made, int32 [].
        params: of the network.
        opt_state: by phase name.
        model_state: 'batch_stats' of the network; 'constants', which differ between runs but not
            within one: 'seed' [], 'mean' and 'std' of the inputs, 'class_weights' [K] of every
            reported classification, 'trained_classes' bool [K] of every other (which of them occur in training),
            'ratings' [2] (mean and standard deviation) of every regression.
    """

    step: jax.Array
    params: Any
    opt_state: dict[str, optax.OptState]
    model_state: dict[str, Any]


def stream(seed: jax.Array, step: jax.Array, name: str) -> jax.Array:
    """The random key of (seed, step, stream name): nothing random has to be stored to resume."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def init_state(
    constants: dict[str, Any],
    *,
    model: nn.Module,
    phases: tuple[Phase, ...],
    input_shape: tuple[int, ...],
) -> TrainState:
    """A fresh state.

    Args:
        constants: see `TrainState.model_state`.
        model: the network.
        phases: of the objective.
        input_shape: of one input, (T, F) or (S,), only used to trace the network.

    Returns:
        The state of step 0.
    """
    variables = model.clone(axis_name=None).init(
        stream(constants['seed'], jnp.int32(0), 'init'),
        jnp.zeros((1, *input_shape)),
        jnp.full((1,), input_shape[0], jnp.int32),
        train=False,
    )
    params = variables['params']
    return TrainState(
        step=jnp.int32(0),
        params=params,
        opt_state={phase.name: phase.tx.init(_chosen(params, phase.updates)) for phase in phases},
        model_state={'batch_stats': variables.get('batch_stats', {}), 'constants': constants},
    )


def _chosen(params, updates: tuple[str, ...]):
    return {name: params[name] for name in updates} if updates else params


def make_augment_step(augment: Callable[[jax.Array, dict], dict]) -> Callable:
    """Builds `augment_step((seed, step), batch) -> batch` for one device's rows.

    Args:
        augment: (key, batch) -> batch, see `augment.augment`.
    """
    return lambda when, batch: augment(stream(*when, 'augment'), batch)


def make_train_step(phases: tuple[Phase, ...], axis_name: str) -> Callable:
    """Builds `train_step(state, batch) -> (state, metrics)` for one device's rows.

    Args:
        phases: of the objective, run in order.
        axis_name: the devices' axis.

    Returns:
        The step, for augmented batches; its metrics are global scalars: what the losses of the phases tell, and
        'gradient_norm', with several phases 'gradient_norm_<phase>'.
    """

    def train_step(state: TrainState, batch: dict[str, jax.Array]):
        seed = state.model_state['constants']['seed']
        params, opt_state, model_state = state.params, dict(state.opt_state), state.model_state
        metrics = {}
        for phase in phases:
            chosen = _chosen(params, phase.updates)
            rngs = {
                name: stream(seed, state.step, f'{name} {phase.name}')
                for name in ('dropout', 'sample')
            }
            gradient_of = jax.grad(
                lambda chosen, params, *rest, loss=phase.loss: loss({**params, **chosen}, *rest),
                has_aux=True,
            )
            gradients, (new, model_state) = gradient_of(chosen, params, model_state, batch, rngs)
            gradients = jax.lax.psum(gradients, axis_name)
            updates, opt_state[phase.name] = phase.tx.update(
                gradients, opt_state[phase.name], chosen
            )
            params = {**params, **optax.apply_updates(chosen, updates)}
            norm = 'gradient_norm' if len(phases) == 1 else f'gradient_norm_{phase.name}'
            metrics |= new | {norm: optax.tree.norm(gradients)}
        # The optimiser skips a gradient that is not finite; running statistics must not keep it either.
        model_state = jax.tree.map(
            lambda new, old: jnp.where(jnp.isfinite(new).all(), new, old),
            model_state,
            state.model_state,
        )
        return TrainState(state.step + 1, params, opt_state, model_state), metrics

    return train_step


def compile_train_step(
    phases: tuple[Phase, ...],
    augment: Callable[[jax.Array, dict], dict],
    placement: devices.DataParallel | devices.ParallelRuns,
) -> Callable:
    """The whole training step on all devices, (state, batch as the host delivers it) -> (state, metrics).

    Two programs: in one, XLA:CPU computes the augmentations anew, element by element, wherever the
    network reads their result in another order (40 instead of 34 ms a step).

    Args:
        phases: of the objective.
        augment: (key, batch) -> batch, see `augment.augment`.
        placement: where the runs go.
    """
    augment_step = placement.compile(make_augment_step(augment), returns_rows=True)
    update = placement.compile(make_train_step(phases, devices.AXIS), donate=True)

    def train_step(state: TrainState, batch: dict[str, jax.Array]):
        when = state.model_state['constants']['seed'], state.step
        return update(state, augment_step(when, batch))

    return train_step


def network_input(
    x: jax.Array, constants: dict[str, jax.Array], kind: str, front_end: FrontEnd | None
) -> jax.Array:
    """What the network sees, made of what is given.

    Args:
        x: [B, ...].
        constants: with 'mean' and 'std'.
        kind: of x: 'log_mel', 'waveform', or 'standardised' for what the network sees.
        front_end: of a network that sees log-mels; None for one that sees waveforms.
    """
    if kind == 'standardised':
        return x
    if kind == 'waveform' and front_end:
        x = batch_log_mel(x, front_end)
    return normalise(x, constants)


def outputs_of(model: nn.Module, variables, batch: dict, x: jax.Array, *how) -> dict:
    """The outputs of a network; `how`: kind and front end, see `network_input`."""
    return model.apply(
        {'params': variables['params'], 'batch_stats': variables['batch_stats']},
        network_input(x, variables['constants'], *how),
        batch['length'],
        train=False,
    )


def make_predict_step(
    model: nn.Module, tasks: tuple[Task, ...], axis_name: str, kind: str, front_end: FrontEnd | None
) -> Callable:
    """Builds `predict_step(variables, batch) -> {task: probabilities [B, K] or ratings [B, 1]}`.

    Args:
        model: the network.
        tasks: classifications and regressions to predict.
        axis_name: the devices' axis; every device returns the rows of all.
        kind, front_end: see `network_input`; the batch has a field named as the kind.

    Returns:
        The step; `variables` has 'params', 'batch_stats' and 'constants' (`inference_variables`).
    """

    def predict_step(variables, batch):
        outputs = outputs_of(model, variables, batch, batch[kind], kind, front_end)
        said = answers(outputs, tasks, variables['constants'])
        return jax.lax.all_gather(said, axis_name, tiled=True)

    return predict_step


def answers(
    outputs: dict[str, jax.Array], tasks: tuple[Task, ...], constants: dict[str, Any]
) -> dict[str, jax.Array]:
    """What a network says of each task, from its outputs: probabilities [B, K], or the rating [B, 1] of a regression."""
    said = {}
    for task in tasks:
        if task.kind == 'regression':
            mean, std = constants['ratings'][task.name]
            said[task.name] = mean + std * outputs[task.name]
        else:
            said[task.name] = jax.nn.softmax(outputs[task.name])
    return said


def make_attack_step(
    model: nn.Module, tasks: tuple[Task, ...], kind: str, front_end: FrontEnd | None
) -> Callable:
    """Builds `attack_step(variables, batch) -> {'x', 'loss'}`: one step uphill for each row.

    Args:
        model: the network that is attacked.
        tasks: those whose summed losses are climbed: cross-entropy, or the squared error of a standardised rating.
        kind, front_end: see `network_input`; the kind is that of 'x'.

    Returns:
        The step. Its batch has 'x' and its bounds 'lower' and 'upper' [B, ...], 'size' [B] (equal), 'length' int [B] and
        'label_<task>' [B], int, −1 = none, or a rating, NaN = none; it returns the moved 'x' and the 'loss' [B] that x had
        before.
    """

    def attack_step(variables, batch):
        def loss(x):
            outputs = outputs_of(model, variables, batch, x, kind, front_end)
            each = 0.0
            for task in tasks:
                labels, output = batch[f'label_{task.name}'], outputs[task.name]
                if task.kind == 'regression':
                    scale = variables['constants']['ratings'][task.name]
                    # NaN before the square, not after: its gradient would be NaN, too.
                    error = jnp.where(
                        jnp.isfinite(labels), standardised(labels, scale) - output[:, 0], 0.0
                    )
                    each += error**2
                else:
                    own = optax.softmax_cross_entropy_with_integer_labels(output, labels)
                    each += jnp.where(labels >= 0, own, 0.0)
            return each.sum(), each

        gradient, each = jax.grad(loss, has_aux=True)(batch['x'])
        size = batch['size'].reshape(-1, *[1] * (batch['x'].ndim - 1))
        x = attacks.ascend(batch['x'], lambda _: gradient, batch['lower'], batch['upper'], size)
        return {'x': x, 'loss': each}

    return attack_step


def inference_variables(state: TrainState) -> dict[str, Any]:
    """What prediction needs of a state: the averaged parameters and the model state."""
    params = dict(state.params)
    # Where several phases change a subtree the last of their names counts: of the encoder's, `supervised`.
    for _, opt_state in sorted(state.opt_state.items()):
        params |= optimiser.averaged_params(opt_state)
    return {'params': params, **state.model_state}
