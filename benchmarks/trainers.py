"""The training step of MTL-AUG for the benchmarks, compared with PyTorch; `same_losses` needs PyTorch."""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks import timing
from benchmarks.setting import BANDS, Setting, make_batch, make_constants
from ser_jax.models import layers
from ser_jax.models.mtl_aug import Model
from ser_jax.objectives import multitask, optimiser
from ser_jax.runtime import devices
from ser_jax.training import steps


class _InBfloat16:
    """A network that computes in bfloat16 from float32 parameters; batch statistics and outputs are float32."""

    def __init__(self, model: nn.Module):
        self._model = model

    def apply(self, variables, x, length, **options):
        variables = {**variables, 'params': _cast(variables['params'], jnp.bfloat16)}
        with nn.intercept_methods(_round_norms):
            outputs, updated = self._model.apply(
                variables, x.astype(jnp.bfloat16), length, **options
            )
        return _cast(outputs, jnp.float32), updated


def _cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _round_norms(call, args, kwargs, context):
    """Casts the float32 output of batch norm back to bfloat16 for the layers after it."""
    result = call(*args, **kwargs)
    norm = isinstance(context.module, layers.MaskedBatchNorm) and context.method_name == '__call__'
    return result.astype(jnp.bfloat16) if norm else result


class JaxTrainer:
    """The training step of ser_jax on synthetic batches that stay on the device.

    Args:
        setting: training setting.
        dropout: whether the configured dropout is used.
        bfloat16: mixed precision: the network computes in bfloat16, the rest is float32.
        variables: initial 'params' and 'batch_stats'; None: random.
        placement: placement on devices; None: data-parallel on all.
        augment: (key, batch) -> batch, applied before each step as in training; None: none.
        make: (setting, seed) -> batch.

    Attributes:
        state, batch: placed on the devices.
        step: compiled (state, batch) -> (state, metrics).
    """

    def __init__(
        self,
        setting: Setting,
        *,
        dropout: bool = True,
        bfloat16: bool = False,
        variables: Mapping | None = None,
        placement=None,
        augment: Callable | None = None,
        make: Callable = make_batch,
    ):
        settings = setting.model_settings(dropout=dropout)
        model = Model(heads=setting.heads, axis_name=devices.AXIS, **settings)
        self._phases = multitask.multitask(
            _InBfloat16(model) if bfloat16 else model,
            setting.make_tasks(),
            optimiser.make_optimiser(setting.optimiser, setting.steps),
            label_smoothing=setting.label_smoothing,
            clean_target=True,
            axis_name=devices.AXIS,
        )
        self.placement = placement or devices.DataParallel(devices.make_mesh())
        self._init = jax.jit(
            functools.partial(
                steps.init_state,
                model=model,
                phases=self._phases,
                input_shape=(setting.crop_frames, BANDS),
            )
        )
        if augment:
            self.step = steps.compile_train_step(self._phases, augment, self.placement)
        else:
            step = steps.make_train_step(self._phases, devices.AXIS)
            self.step = self.placement.compile(step, donate=True)
        self._setting, self._variables, self._make = setting, variables, make
        self.reset()

    def _start(self, seed: int) -> steps.TrainState:
        constants = make_constants(self._setting, seed)
        if self._variables is None:
            state = self._init(constants)
        else:
            params, batch_stats = self._variables['params'], self._variables['batch_stats']
            state = steps.TrainState(
                step=np.int32(0),
                params=params,
                opt_state={phase.name: phase.tx.init(params) for phase in self._phases},
                model_state={'batch_stats': batch_stats, 'constants': constants},
            )
        return devices.replicate(state, self.placement.mesh)

    def reset(self, seed: int = 0) -> None:
        """Returns to step 0 of a seed; further runs of the placement get the following seeds."""
        seeds = range(seed, seed + self.placement.runs)
        self.state = self.placement.pack([self._start(seed) for seed in seeds])
        self.batch = self.placement.to_devices([self._make(self._setting, seed) for seed in seeds])

    def variables(self) -> dict:
        """'params' and 'batch_stats' of the first run, on the host."""
        state = jax.device_get(self.placement.run_of(self.state, 0))
        return {'params': state.params, 'batch_stats': state.model_state['batch_stats']}

    def run(self, n: int):
        """Trains n steps and returns the last loss, or one per run if there are several."""
        for _ in range(n):
            self.state, metrics = self.step(self.state, self.batch)
        return np.asarray(metrics['loss'])


def same_losses(
    setting: Setting, n: int = 5, *, bfloat16: bool = False, tolerance: float = 1e-3, **options
) -> list[tuple[float, float]]:
    """The losses (ours, PyTorch's) of n steps without dropout, from the same parameters.

    Args:
        setting: training setting.
        n: number of steps.
        bfloat16: whether both use mixed precision.
        tolerance: largest relative difference.
        options: options of `JaxTrainer`.

    Raises:
        AssertionError: the losses differ.
    """
    from benchmarks.torch_mtl_aug import TorchTrainer

    ours = JaxTrainer(setting, dropout=False, bfloat16=bfloat16, **options)
    theirs = TorchTrainer(setting, ours.variables()['params'], dropout=False, bfloat16=bfloat16)
    losses = [(float(ours.run(1)), theirs.run(1)) for _ in range(n)]
    for a, b in losses:
        assert abs(a - b) < tolerance * abs(b), f'the two do not train alike: {losses}'
    return losses


def seconds_per_step(runs: dict[str, Callable[[int], object]], block: int, blocks: int) -> dict:
    """Seconds per step of each implementation, timed in alternating blocks: name -> [blocks]."""
    for run in runs.values():
        run(3)
    ways = {name: functools.partial(run, block) for name, run in runs.items()}
    times = timing.alternate(ways, blocks)
    return {name: [value / block for value in values] for name, values in times.items()}
