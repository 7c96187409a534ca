"""Training setting of the benchmarks, and synthetic batches for it."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from ser_jax.data.tasks import Task

BANDS = 80


@dataclasses.dataclass(frozen=True)
class Setting:
    """The config fields that a training step needs, serialisable as JSON, and the number of classes.

    Attributes:
        model, tasks, optimiser, augmentations, clean_share, label_smoothing, batch_size, crop_frames,
            steps: config fields.
        classes: number of emotions.
    """

    model: Mapping
    tasks: Mapping[str, Mapping]
    optimiser: Mapping[str, float]
    augmentations: tuple[str, ...]
    clean_share: float
    label_smoothing: float
    batch_size: int
    crop_frames: int
    steps: int
    classes: int = 4

    @classmethod
    def of(cls, config) -> 'Setting':
        """The setting of a `ConfigDict`."""
        fields = config.to_dict()
        names = [field.name for field in dataclasses.fields(cls) if field.name in fields]
        return cls(**{name: fields[name] for name in names})

    @property
    def heads(self) -> dict[str, int]:
        """Classes of every classification head."""
        return {'emotion': self.classes, 'augmentation_type': 1 + len(self.augmentations)}

    def model_settings(self, *, dropout: bool) -> dict:
        """`config.model` without its name, and optionally without dropout."""
        settings = {name: value for name, value in self.model.items() if name != 'name'}
        return settings if dropout else {**settings, 'dropout': 0.0, 'map_dropout': 0.0}

    def make_tasks(self) -> tuple[Task, ...]:
        """The tasks, with unnamed classes."""
        return tuple(
            Task(
                name, task['kind'], task['target'], task['weight'], ('',) * self.heads.get(name, 0)
            )
            for name, task in self.tasks.items()
        )


def make_batch(setting: Setting, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch of noise as `augment` returns it; every utterance is as long as the crop."""
    rng = np.random.default_rng(seed)
    size, frames = setting.batch_size, setting.crop_frames
    log_mel = rng.normal(-6.0, 2.0, (size, frames, BANDS)).astype(np.float32)
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


def make_constants(setting: Setting, seed: int = 0) -> dict[str, np.ndarray]:
    """Synthetic training-set statistics, see `steps.TrainState.model_state`."""
    return {
        'seed': np.int32(seed),
        'mean': np.full(BANDS, -6.0, np.float32),
        'std': np.full(BANDS, 2.0, np.float32),
        'class_weights': {'emotion': np.linspace(0.7, 1.3, setting.classes).astype(np.float32)},
        'trained_classes': {},
    }
