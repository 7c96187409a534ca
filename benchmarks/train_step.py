"""One training step of MTL-AUG here and in PyTorch, side by side: python -m benchmarks.train_step [--out=FILE]

The same network, batch, lengths, precision and optimiser (AdamW, clipping, parameter average; PyTorch's schedule is
the warm-up only), from the same parameters; both must compute the same loss before anything is timed. Timed in alternating blocks, so that what else
the machine does falls on both. Augmentation is timed apart: PyTorch has none here. Needs the extra [bench].
"""

import argparse
import dataclasses
import functools
import pathlib
import statistics
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import timing
from configs.mtl_aug import get_config
from ser_jax import augment, objectives, optimiser, sharding, steps
from ser_jax.models.mtl_aug import Model
from ser_jax.tasks import Task

_BANDS = 80


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained: `config` of a corpus, and the numbers that a corpus would give."""

    config: object
    classes: int = 4

    @property
    def heads(self) -> dict[str, int]:
        return {'emotion': self.classes, 'augmentation_type': 1 + len(self.config.augmentations)}

    def model(self, *, dropout: bool) -> Model:
        settings = self.config.model.to_dict()
        settings.pop('name')
        if not dropout:
            settings.update(dropout=0.0, map_dropout=0.0)
        return Model(heads=self.heads, axis_name=sharding.AXIS, **settings)

    def tasks(self) -> tuple[Task, ...]:
        return tuple(
            Task(name, task.kind, task.target, task.weight, ('',) * self.heads.get(name, 0))
            for name, task in self.config.tasks.items()
        )


def make_batch(setting: Setting, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch as `augment` returns it, of noise, every utterance as long as the crop."""
    rng = np.random.default_rng(seed)
    size, frames = setting.config.batch_size, setting.config.crop_frames
    log_mel = rng.normal(-6.0, 2.0, (size, frames, _BANDS)).astype(np.float32)
    return {
        'log_mel': log_mel,
        'clean_log_mel': log_mel + rng.normal(0, 0.1, log_mel.shape).astype(np.float32),
        'length': np.full(size, frames, np.int32),
        'emotion': np.eye(setting.classes, dtype=np.float32)[
            rng.integers(setting.classes, size=size)
        ],
        'emotion_mask': np.ones(size, bool),
        'augmentation_type': rng.integers(
            setting.heads['augmentation_type'], size=size, dtype=np.int32
        ),
    }


def make_raw_batch(setting: Setting, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch as the host delivers it to `augment`, of noise."""
    rng = np.random.default_rng(seed)
    size = setting.config.batch_size
    operations = augment.parse_operations(setting.config.augmentations)
    frames = augment.input_frames(operations, setting.config.crop_frames)
    return {
        'log_mel': rng.normal(-6.0, 2.0, (size, frames, _BANDS)).astype(np.float32),
        'length': np.full(size, frames, np.int32),
        'emotion': rng.integers(setting.classes, size=size, dtype=np.int32),
    }


def _augmentation(setting: Setting) -> Callable:
    return functools.partial(
        augment.augment,
        operations=augment.parse_operations(setting.config.augmentations),
        frames=setting.config.crop_frames,
        n_classes=setting.classes,
        clean_share=setting.config.clean_share,
        axis_name=sharding.AXIS,
    )


def _constants(setting: Setting, seed: int = 0) -> dict[str, np.ndarray]:
    return {
        'seed': np.int32(seed),
        'mean': np.full(_BANDS, -6.0, np.float32),
        'std': np.full(_BANDS, 2.0, np.float32),
        'class_weights': np.linspace(0.7, 1.3, setting.classes).astype(np.float32),
    }


class JaxTrainer:
    """Our step on a placement (default: all devices); `augmented` runs the augmentations before it, as training does."""

    def __init__(
        self, setting: Setting, *, dropout: bool = True, augmented: bool = False, placement=None
    ):
        config = setting.config
        model = setting.model(dropout=dropout)
        phases = objectives.multitask(
            model,
            setting.tasks(),
            optimiser.make_optimiser(config.optimiser, config.steps),
            label_smoothing=config.label_smoothing,
            clean_target=True,
            axis_name=sharding.AXIS,
        )
        self.placement = placement or sharding.DataParallel(sharding.make_mesh())
        self._init = jax.jit(
            functools.partial(
                steps.init_state,
                model=model,
                phases=phases,
                frames=config.crop_frames,
                n_mels=_BANDS,
            )
        )
        if augmented:
            self._step = steps.compile_train_step(phases, _augmentation(setting), self.placement)
        else:
            step = steps.make_train_step(phases, sharding.AXIS)
            self._step = self.placement.compile(step, donate=True)
        self._setting, self._make = setting, make_raw_batch if augmented else make_batch
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Back to step 0 of a seed; further runs of the placement have the following ones."""
        seeds = range(seed, seed + self.placement.runs)
        states = [self._init(_constants(self._setting, seed)) for seed in seeds]
        states = [sharding.replicate(state, self.placement.mesh) for state in states]
        self.state = self.placement.pack(states)
        self.batch = self.placement.to_devices([self._make(self._setting, seed) for seed in seeds])

    def params(self):
        """Of the first run, on the host."""
        return jax.device_get(self.placement.run_of(self.state.params, 0))

    def run(self, n: int):
        """Trains n steps; the last loss, of each run where there are several."""
        for _ in range(n):
            self.state, metrics = self._step(self.state, self.batch)
        return np.asarray(metrics['loss'])


class TorchTrainer:
    """The same training in PyTorch, eager or compiled."""

    def __init__(self, setting: Setting, params, *, dropout: bool = True, compiled: bool = False):
        import torch

        from benchmarks.torch_mtl_aug import TorchMtlAug, load_flax

        self.torch, config = torch, setting.config
        device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
        settings = config.model.to_dict()
        if not dropout:
            settings.update(dropout=0.0, map_dropout=0.0)
        self.model = TorchMtlAug(setting.heads, settings)
        load_flax(self.model, params)
        self.model.to(device)
        self.network = torch.compile(self.model) if compiled else self.model
        decays = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        self.parameters = decays + others
        self.average = [p.detach().clone() for p in self.parameters]
        options = config.optimiser
        self.optimiser = torch.optim.AdamW(
            [
                {'params': decays, 'weight_decay': options.weight_decay},
                {'params': others, 'weight_decay': 0.0},
            ],
            lr=options.learning_rate,
            foreach=True,
        )
        warmup = max(1, round(options.warmup * config.steps))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, lambda n: min(1.0, n / warmup)
        )
        self.config, self.tasks = config, {task.name: task.weight for task in setting.tasks()}
        constants, batch = _constants(setting), make_batch(setting)
        put = lambda array: torch.from_numpy(array).to(device)
        self.mean, self.std = put(constants['mean']), put(constants['std'])
        self.class_weights = put(constants['class_weights'])
        self.batch = {name: put(array) for name, array in batch.items() if name != 'length'}

    def run(self, n: int) -> float:
        """Trains n steps; the last loss."""
        torch, F = self.torch, self.torch.nn.functional
        options, batch = self.config.optimiser, self.batch
        for _ in range(n):
            outputs = self.network((batch['log_mel'] - self.mean) / self.std)
            weights = batch['emotion'] @ self.class_weights
            emotion = F.cross_entropy(
                outputs['emotion'],
                batch['emotion'],
                label_smoothing=self.config.label_smoothing,
                reduction='none',
            )
            shares = {
                'emotion': (emotion * weights).sum() / weights.sum(),
                'augmentation_type': F.cross_entropy(
                    outputs['augmentation_type'], batch['augmentation_type'].long()
                ),
                'reconstruction': F.mse_loss(
                    outputs['reconstruction'], (batch['clean_log_mel'] - self.mean) / self.std
                ),
            }
            loss = sum(weight * shares[name] for name, weight in self.tasks.items())
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, options.clip)
            self.optimiser.step()
            self.schedule.step()
            with torch.no_grad():
                torch._foreach_lerp_(self.average, self.parameters, 1 - options.average)
        return float(loss.detach())


def same_losses(setting: Setting, n: int = 5) -> list[tuple[float, float]]:
    """The losses (ours, PyTorch's) of n steps without dropout, from the same parameters.

    Raises:
        AssertionError: they differ.
    """
    ours = JaxTrainer(setting, dropout=False)
    theirs = TorchTrainer(setting, ours.params(), dropout=False)
    losses = [(ours.run(1), theirs.run(1)) for _ in range(n)]
    for a, b in losses:
        assert abs(a - b) < 1e-3 * abs(b), f'the two do not train alike: {losses}'
    return losses


def seconds_per_step(runs: dict[str, Callable[[int], object]], block: int, blocks: int) -> dict:
    """Seconds a step of every run, timed in alternating blocks: name -> [blocks]."""
    for run in runs.values():
        run(3)
    ways = {name: functools.partial(run, block) for name, run in runs.items()}
    times = timing.alternate(ways, blocks)
    return {name: [value / block for value in values] for name, values in times.items()}


def main() -> None:
    """Prints the table and writes `--out`."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--config', default='demo_speech', help='corpus whose config is timed')
    parser.add_argument('--block', type=int, default=10, help='steps of a block')
    parser.add_argument('--blocks', type=int, default=8)
    parser.add_argument('--without', default='', help='comma-separated: torch, compile')
    parser.add_argument('--out', type=pathlib.Path)
    options = parser.parse_args()

    setting = Setting(get_config(options.config))
    ours = JaxTrainer(setting)
    runs = {
        'ser_jax': ours.run,
        'ser_jax with augmentations': JaxTrainer(setting, augmented=True).run,
    }
    without = options.without.split(',')
    if 'torch' not in without:
        losses = same_losses(setting)
        print('losses of the first steps (ser_jax, PyTorch):', losses)
        runs['PyTorch eager'] = TorchTrainer(setting, ours.params()).run
        if 'compile' not in without:
            runs['PyTorch torch.compile'] = TorchTrainer(setting, ours.params(), compiled=True).run
    seconds = seconds_per_step(runs, options.block, options.blocks)
    base = seconds['ser_jax']
    size = setting.config.batch_size
    rows = {
        name: {
            'seconds_per_step': statistics.median(values),
            'utterances_per_second': size / statistics.median(values),
            'times_ser_jax': statistics.median(v / b for v, b in zip(values, base, strict=True)),
        }
        for name, values in seconds.items()
    }
    print(f'{options.config}: batch {size} x {setting.config.crop_frames} frames, made up')
    for name, row in rows.items():
        print(
            f'{name:32} {1000 * row["seconds_per_step"]:8.1f} ms a step '
            f'{row["utterances_per_second"]:8.0f} utterances/s   x {row["times_ser_jax"]:.2f}'
        )
    timing.write(options.out, config=options.config, rows=rows)


if __name__ == '__main__':
    main()
