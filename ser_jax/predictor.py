"""A trained model made ready for recordings: waveforms in, answers out."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from ser_jax import pipeline
from ser_jax.checkpoints import Checkpoints
from ser_jax.errors import UserError
from ser_jax.features import FrontEnd
from ser_jax.networks import stored_model
from ser_jax.paths import local_path
from ser_jax.steps import answers, network_input
from ser_jax.tasks import Task

# Longer recordings are cut into overlapping windows, whose answers are averaged.
WINDOW_SECONDS = 10.0
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The final model of a run.

    Attributes:
        tasks: what it tells: classifications and regressions.
        synthetic: whether it was trained on made-up speech and says nothing about real one.
        front_end: of the features; `front_end.sample_rate` is what waveforms must have.
        compute: (waveform float32 [B, S], samples int32 [B]) -> {task: probabilities [B, K] or ratings [B, 1]}.
    """

    tasks: tuple[Task, ...]
    synthetic: bool
    front_end: FrontEnd
    compute: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]

    def predict(self, waveforms: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """What the model says of recordings; of several windows the mean.

        Args:
            waveforms: N arrays int16 [S] at `front_end.sample_rate`, see `audio.read_audio`.

        Returns:
            Task -> probabilities float32 [N, K], or the ratings [N, 1] of a regression.
        """
        pieces, owners = [], []
        for owner, waveform in enumerate(waveforms):
            windows = _windows(waveform, int(WINDOW_SECONDS * self.front_end.sample_rate))
            pieces += windows
            owners += [owner] * len(windows)
        samples = np.array([len(piece) for piece in pieces], np.int32)
        frames = np.array([self.front_end.frames(length) for length in samples], np.int32)
        result = {task.name: np.zeros((len(waveforms), task.outputs)) for task in self.tasks}
        n_windows = np.bincount(owners, minlength=len(waveforms))[:, None]
        for longest, positions in pipeline.buckets(frames, _BATCH):
            # The most samples that `longest` frames may stand for.
            batch = np.zeros((_BATCH, longest * self.front_end.hop_length - 1), np.float32)
            for row, position in zip(batch, positions):
                row[: len(pieces[position])] = pieces[position] / np.float32(32768)
            found = jax.device_get(self.compute(batch, samples[positions]))
            # A last batch repeats its last piece, which must count once.
            for position in np.unique(positions):
                row = int(np.argmax(positions == position))
                for name, said in found.items():
                    result[name][owners[position]] += said[row]
        return {name: (sums / n_windows).astype(np.float32) for name, sums in result.items()}


def _windows(waveform: np.ndarray, window: int) -> list[np.ndarray]:
    """The waveform itself, or equally spaced windows that overlap by at least a half."""
    if len(waveform) <= window:
        return [waveform]
    starts = np.linspace(0, len(waveform) - window, 1 + -(-2 * (len(waveform) - window) // window))
    return [waveform[start : start + window] for start in starts.astype(int)]


def load(workdir: str | Path) -> Predictor:
    """Loads the final model of a finished run; no corpus is needed.

    Args:
        workdir: of the run (`python -m ser_jax.main`).

    Returns:
        The predictor; programs are compiled when they are first needed.

    Raises:
        UserError: no finished run, no final model, or a damaged one.
    """
    workdir = local_path(workdir).absolute()
    try:
        config = json.loads((workdir / 'config.json').read_text())
        card = json.loads((workdir / 'results.json').read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'{workdir} holds no finished run: run ser_jax.main first') from error
    folder = workdir / 'checkpoints' / 'final' / 'best'
    if not folder.is_dir():
        raise UserError(
            f'{workdir} has no final model: run the config again in another --workdir, without '
            '`smoke`, --config.final=False and --config.report_test=False'
        )
    variables = Checkpoints(folder).restore()
    told = config['tasks']
    tasks = tuple(
        Task(name, told[name]['kind'], told[name]['target'], 1.0, tuple(classes))
        for name, classes in card['tasks'].items()
    )
    front_end = FrontEnd(**config['data']['front_end'])
    model = stored_model(config, {task.name: task.outputs for task in tasks})
    seen = front_end if config['representation'] == 'log_mel' else None  # by the network

    @jax.jit
    def compute(waveform, samples):
        outputs = model.apply(
            {'params': variables['params'], 'batch_stats': variables['batch_stats']},
            network_input(waveform, variables['constants'], 'waveform', seen),
            1 + samples // seen.hop_length if seen else samples,
            train=False,
        )
        return answers(outputs, tasks, variables['constants'])

    return Predictor(tasks, card['synthetic'], front_end, compute)
