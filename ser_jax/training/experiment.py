"""A run made ready: its dataset, and its program (network, placement on the devices, compiled steps)."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.data.batches import prefetch
from ser_jax.data.dataset import Dataset
from ser_jax.data.tasks import Task
from ser_jax.models.encoders.pretrained import EncoderInput
from ser_jax.models.forward import make_predict_step
from ser_jax.objectives.multitask import Phase
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runtime import devices
from ser_jax.training import steps
from ser_jax.training.steps import TrainState
from ser_jax.transforms import augment


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """What is compiled for a run; all folds share it.

    Attributes:
        representation: input of the network on disk, 'log_mel', 'waveform' or 'encoded'.
        front_end: see `forward.network_input`.
        crop_frames: frames of a training input.
        input_length: frames or samples of a training input.
        eval_batch_size: rows of a global evaluation batch.
        model: the network, for one device, without the encoder.
        placement: how training is spread over the devices.
        parallelism: 'jit' or 'pmap'.
        mesh: devices of everything but training.
        init_state: (statistics of the training set, parameters of the network that replace the random ones) -> `steps.TrainState`.
        train_step: (state, batch) -> (state, metrics), for what `placement` packed.
        predict_step: (variables, batch) -> {reported task: probabilities [B, K] or ratings [B, 1]}.
    """

    representation: str
    front_end: FrontEnd | EncoderInput | None
    crop_frames: int
    input_length: int
    eval_batch_size: int
    model: nn.Module
    placement: devices.DataParallel | devices.ParallelRuns
    parallelism: str
    mesh: Mesh
    init_state: Callable
    train_step: Callable
    predict_step: Callable

    @property
    def encoder(self) -> EncoderInput | None:
        """The pretrained encoder whose outputs the network sees, or None."""
        return self.front_end if isinstance(self.front_end, EncoderInput) else None

    @property
    def trains_encoder(self) -> bool:
        """Whether the encoder trains with the network: it then runs in every step, else its outputs are read."""
        return self.encoder is not None and bool(self.encoder.rates)

    def on_all_devices(self) -> devices.DataParallel:
        """The placement of one computation over all devices of `mesh`."""
        return devices.DataParallel(self.mesh, self.parallelism)


class Experiment(NamedTuple):
    """The dataset and the program of a run.

    Attributes:
        dataset: data of the run.
        program: network and compiled steps.
        head: the network on the outputs of the frozen encoder, with which fine-tuning begins.
        n_steps: training steps of a `head`.
    """

    dataset: Dataset
    program: Program
    head: 'Experiment | None' = None
    n_steps: int = 0

    def statistics(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics of training rows (`Dataset.statistics`); inputs of a fine-tuned encoder are normalised like its frozen outputs."""
        return (self.head or self).dataset.statistics(rows)

    def initial_state(self, rows: np.ndarray, start: dict[str, Any] | None = None) -> TrainState:
        """The state of step 0; `start`: parameters of the network that replace the random ones."""
        return self.program.init_state(self.statistics(rows), start)

    def train(self, rows: np.ndarray) -> dict[str, Any]:
        """Trains on some rows for `n_steps` steps, without validation or checkpoints; returns the averaged parameters."""
        placement = self.program.placement
        state = placement.pack([self.initial_state(rows)])
        for batch in prefetch(self.dataset.train_batches(rows), 0, self.n_steps):
            state, _ = self.program.train_step(state, placement.to_devices([batch]))
        return jax.device_get(steps.inference_variables(placement.run_of(state, 0))['params'])

    def restore_best(self, folder: Path) -> dict[str, Any]:
        """The parameters that a finished fold kept, with all that prediction needs; UserError: there are none, or damaged ones."""
        # Only shapes count, and the statistics of few rows are quickly computed.
        template = steps.stored(self.initial_state(self.dataset.rows[:1]))
        variables = Checkpoints(folder / 'best').restore(steps.inference_variables(template))
        return self.with_encoder(variables) if self.program.trains_encoder else variables

    def with_encoder(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Adds the pretrained parameters of the encoder, if there is one, which inputs of waveforms need."""
        program = self.program
        if not program.encoder or 'encoder' in variables:
            return variables
        return variables | {
            'encoder': devices.replicate(program.encoder.encoder.params, program.mesh)
        }


def build_program(
    *,
    model: nn.Module,
    phases: tuple[Phase, ...],
    reported: tuple[Task, ...],
    representation: str,
    front_end: FrontEnd,
    operations: Sequence[augment.Operation],
    clean_share: float,
    crop_frames: int,
    encoder: EncoderInput | None = None,
    eval_batch_size: int,
    parallelism: str,
    placement: devices.DataParallel | devices.ParallelRuns,
) -> Program:
    """Builds the steps of a run; nothing is compiled before it is first called.

    Args:
        model: the network, for batches spread over `devices.AXIS`.
        phases: phases of the objective.
        reported: tasks to predict.
        representation: 'log_mel', 'waveform' or 'encoded'.
        front_end: log-mel parameters of the records.
        operations: augmentations.
        clean_share: probability that an utterance is left clean.
        crop_frames: frames of a training input.
        encoder: encoder of a network that sees its outputs: read where the representation is 'encoded', else computed in every step.
        eval_batch_size: rows of a global evaluation batch.
        parallelism: 'jit' or 'pmap'.
        placement: how training is spread over the devices.
    """
    if representation == 'log_mel':
        seen, input_shape = front_end, (crop_frames, front_end.n_mels)
        augment_batch = functools.partial(
            augment.augment,
            operations=operations,
            frames=crop_frames,
            clean_share=clean_share,
            axis_name=devices.AXIS,
            front_end=front_end,
        )
    elif representation == 'encoded':
        seen, input_shape = encoder, (crop_frames, encoder.features)
        augment_batch = functools.partial(
            augment.augment_frames, operations=operations, axis_name=devices.AXIS
        )
    else:
        seen, augment_batch = encoder, augment.unchanged
        input_shape = (1, encoder.features) if encoder else (crop_frames * front_end.hop_length,)
        if operations:
            augment_batch = functools.partial(
                augment.augment_waveforms, operations=operations, axis_name=devices.AXIS
            )
    trained = encoder.rates if encoder else {}
    pretrained = encoder.encoder.params if trained else None
    init_state = jax.jit(
        functools.partial(
            steps.init_state, model=model, phases=phases, input_shape=input_shape, trained=trained
        )
    )
    model, mesh = model.clone(axis_name=None), placement.mesh
    predict_step = make_predict_step(model, reported, devices.AXIS, representation, seen)
    return Program(
        representation=representation,
        front_end=seen,
        crop_frames=crop_frames,
        input_length=crop_frames * (front_end.hop_length if representation == 'waveform' else 1),
        eval_batch_size=eval_batch_size,
        model=model,
        placement=placement,
        parallelism=parallelism,
        mesh=mesh,
        init_state=lambda statistics, start=None: devices.replicate(
            init_state(statistics, pretrained, start), mesh
        ),
        train_step=steps.compile_train_step(phases, augment_batch, placement),
        predict_step=devices.DataParallel(mesh, parallelism).compile(predict_step),
    )
