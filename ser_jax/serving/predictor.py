"""A trained model made ready for recordings: waveforms in, answers out."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import jax
import numpy as np
from flax.errors import FlaxError

from ser_jax.audio.log_mel import FrontEnd
from ser_jax.audio.reading import MIN_SECONDS, to_mono
from ser_jax.config import check_front_end
from ser_jax.data import batches
from ser_jax.data.tasks import Task
from ser_jax.models.build import stored_model
from ser_jax.models.forward import answers, network_input
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runs.finished import CONFIG
from ser_jax.runs.result_card import read_card
from ser_jax.runs.workdir import result_name
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import local_path
from ser_jax.runtime.schema import read_json
from ser_jax.serving import screening

# Longer recordings are cut into overlapping windows, whose answers are averaged.
WINDOW_SECONDS = 10.0
_BATCH = 16


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model says of a recording, or of a window of it.

    Attributes:
        start, end: seconds.
        flags: what speaks against the answer, see `screening.screen`.
        said: task -> probabilities float32 [K], or the rating [1] of a regression; of several windows the mean over those
            that nothing speaks against, or over all. None where there was too little to hear.
        windows: of a recording longer than one.
    """

    start: float
    end: float
    flags: tuple[str, ...]
    said: dict[str, np.ndarray] | None
    windows: tuple['Answer', ...] = ()

    def best(self, task: Task) -> str | float | None:
        """The most probable class of a task, or its rating; None where what was heard does not allow to tell."""
        if self.said is None or set(self.flags) & set(screening.UNANSWERED):
            return None
        if task.kind == 'regression':
            return round(float(self.said[task.name][0]), 3)
        return task.classes[self.said[task.name].argmax()]

    def probabilities(self, task: Task) -> dict[str, float] | None:
        """Class -> probability; None where nothing can be told."""
        if self.best(task) is None:
            return None
        return dict(zip(task.classes, map(float, self.said[task.name])))


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The final model of a run.

    Attributes:
        tasks: what it tells: classifications and regressions.
        synthetic: whether it was trained on made-up speech and says nothing about real one.
        uncalibrated: why its probabilities are not calibrated by a temperature fitted on validation speakers; '' where they are.
        front_end: of the features; `front_end.sample_rate` is what `compute` must get.
        compute: (waveform float32 [B, S], samples int32 [B]) -> {task: probabilities [B, K] or ratings [B, 1]}.
    """

    tasks: tuple[Task, ...]
    synthetic: bool
    uncalibrated: str
    front_end: FrontEnd
    compute: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]

    def predict(self, waveform: np.ndarray, sample_rate: int) -> Answer:
        """What the model says of a recording.

        Args:
            waveform: [S] or [S, channels], floats in [-1, 1] or int16.
            sample_rate: Hz.

        Returns:
            The answer.

        Raises:
            UserError: no samples, of another kind, or not finite.
        """
        return self.predict_batch([to_mono(waveform, sample_rate, self.front_end.sample_rate)])[0]

    def predict_batch(self, waveforms: Sequence[np.ndarray]) -> list[Answer]:
        """What the model says of recordings, each cut into windows where it is long.

        Args:
            waveforms: N arrays int16 [S] at `front_end.sample_rate`, see `audio.read_audio`.

        Returns:
            N answers.
        """
        rate = self.front_end.sample_rate
        cut = [_windows(waveform, int(WINDOW_SECONDS * rate)) for waveform in waveforms]
        pieces = [piece for windows in cut for _, piece in windows]
        said = iter(self._said(pieces))
        answers = []
        for windows in cut:
            heard = [
                Answer(
                    start / rate,
                    (start + len(piece)) / rate,
                    screening.screen(piece, rate),
                    next(said),
                )
                for start, piece in windows
            ]
            answers.append(heard[0] if len(heard) == 1 else _merged(heard))
        return answers

    def _said(self, pieces: list[np.ndarray]) -> list[dict[str, np.ndarray] | None]:
        """What the network says of each piece; None of those it cannot take."""
        least = int(MIN_SECONDS * self.front_end.sample_rate)
        usable = [piece for piece in pieces if len(piece) >= least]
        samples = np.array([len(piece) for piece in usable], np.int32)
        frames = np.array([self.front_end.frames(length) for length in samples], np.int32)
        found = [{} for _ in usable]
        for longest, positions in batches.buckets(frames, _BATCH):
            # The most samples that `longest` frames may stand for.
            batch = np.zeros((_BATCH, longest * self.front_end.hop_length - 1), np.float32)
            for row, position in zip(batch, positions):
                row[: len(usable[position])] = usable[position] / np.float32(32768)
            rows = jax.device_get(self.compute(batch, samples[positions]))
            for row, position in enumerate(positions):  # a last batch repeats its last piece
                found[position] = {name: said[row] for name, said in rows.items()}
        found = iter(found)
        return [next(found) if len(piece) >= least else None for piece in pieces]


def _merged(windows: list[Answer]) -> Answer:
    """The answer for a whole recording."""
    good = [one for one in windows if not set(one.flags) & set(screening.UNANSWERED)] or windows
    said = {name: np.mean([one.said[name] for one in good], axis=0) for name in good[0].said}
    # Silence between two sentences speaks against nothing; clipping anywhere does.
    flags = {flag for one in good for flag in one.flags}
    order = [flag for flag in screening.FLAGS if flag in flags]
    return Answer(0.0, windows[-1].end, tuple(order), said, tuple(windows))


def _windows(waveform: np.ndarray, window: int) -> list[tuple[int, np.ndarray]]:
    """(first sample, samples) of the waveform itself, or of equally spaced windows that overlap by at least a half."""
    if len(waveform) <= window:
        return [(0, waveform)]
    starts = np.linspace(0, len(waveform) - window, 1 + -(-2 * (len(waveform) - window) // window))
    return [(start, waveform[start : start + window]) for start in starts.astype(int).tolist()]


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
    card = read_card(workdir)
    if card is None:
        raise UserError(f'{workdir} holds no finished run: run ser_jax.main first')
    try:
        config = read_json(workdir / 'config.json', CONFIG)
    except FileNotFoundError as error:
        raise UserError(
            f'{workdir} holds results without the model that made them: train one with ser_jax.main'
        ) from error
    folder = workdir / 'checkpoints' / 'final' / 'best'
    if not folder.is_dir():
        raise UserError(
            f'{workdir} has no final model: run the config again in another --workdir, without '
            '`smoke`, --config.final=False and --config.report_test=False'
        )
    variables = Checkpoints(folder, read_only=True).restore()
    told, reported = config['tasks'], card.get('tasks', {'emotion': card['labels']})
    if not reported or not reported.keys() <= told.keys():
        raise UserError(f'{workdir}: results.json and config.json have other tasks')
    tasks = tuple(
        Task(name, told[name]['kind'], told[name]['target'], 1.0, tuple(classes))
        for name, classes in reported.items()
    )
    stored = config['data']['front_end']
    front_end = FrontEnd(**{field.name: stored[field.name] for field in fields(FrontEnd)})
    check_front_end(front_end, f'{workdir / "config.json"}: ')
    model = stored_model(config, {task.name: task.outputs for task in tasks})
    problem = _mismatch(model, config['representation'], front_end, variables)
    if problem:
        raise UserError(f'{workdir}: config.json and checkpoints/final do not suit: {problem}')
    temperatures = _temperatures(card, tasks)
    compute = _program(model, tasks, config, front_end, variables, temperatures)
    return Predictor(
        tasks, card['synthetic'], _uncalibrated(card, tasks, temperatures), front_end, compute
    )


def _temperatures(card: dict, tasks: Sequence[Task]) -> dict[str, float]:
    """Task -> what its log-odds are divided by, where that was fitted."""
    fitted = card.get('calibration', {})
    own = {task.name: fitted.get(result_name('clean', task.name), {}) for task in tasks}
    found = {name: one['temperature'] for name, one in own.items() if 'temperature' in one}
    for name, temperature in found.items():
        if not 0.01 <= temperature <= 100:
            raise UserError(
                f'results.json: no calibration has the temperature {temperature} ({name})'
            )
    return found


def _mismatch(model, representation, front_end, variables) -> str:
    """What keeps a network from having these parameters; '' = nothing."""
    samples = int(screening.SHORTEST_SECONDS * front_end.sample_rate)
    log_mel = (1, front_end.frames(samples), front_end.n_mels)
    shape = log_mel if representation == 'log_mel' else (1, samples)
    inputs = jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct((1,), np.int32)
    try:
        own = {name: variables[name] for name in ('params', 'batch_stats')}
        jax.eval_shape(lambda *x: model.apply(own, *x, train=False), *inputs)
    except (ArithmeticError, LookupError, TypeError, ValueError, FlaxError) as error:
        return ' '.join(str(error).split())[:200]
    return ''


def _program(model, tasks, config, front_end, variables, temperatures) -> Callable:
    """`Predictor.compute`."""
    seen = front_end if config['representation'] == 'log_mel' else None  # by the network

    @jax.jit
    def compute(waveform, samples):
        outputs = model.apply(
            {'params': variables['params'], 'batch_stats': variables['batch_stats']},
            network_input(waveform, variables['constants'], 'waveform', seen),
            1 + samples // seen.hop_length if seen else samples,
            train=False,
        )
        outputs |= {name: outputs[name] / value for name, value in temperatures.items()}
        return answers(outputs, tasks, variables['constants'])

    return compute


def _uncalibrated(card, tasks, temperatures) -> str:
    if all(task.name in temperatures for task in tasks if task.kind == 'classification'):
        return ''
    if 'calibration' in card:
        return 'probabilities are not calibrated: the run had no validation speakers'
    return 'probabilities are not calibrated: --mode=evaluate of ser_jax.main does so for runs of older versions'
