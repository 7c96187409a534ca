"""Applies the final model of a run to recordings."""

import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import jax
import numpy as np
from flax.errors import FlaxError
from flax.traverse_util import flatten_dict

from ser_jax.audio import screening
from ser_jax.audio.log_mel import FrontEnd
from ser_jax.audio.reading import read_blocks, to_mono
from ser_jax.config import check_front_end
from ser_jax.data.batches import as_float, padded_batches
from ser_jax.data.tasks import Task
from ser_jax.models.build import stored_model
from ser_jax.models.encoders import fine_tuning
from ser_jax.models.encoders.pretrained import EncoderInput, load_input
from ser_jax.models.forward import forward, to_predictions
from ser_jax.runs.checkpoints import Checkpoints
from ser_jax.runs.finished import CONFIG
from ser_jax.runs.result_card import read_card
from ser_jax.runs.workdir import result_name
from ser_jax.runtime import devices
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import local_path
from ser_jax.runtime.schema import read_json
from ser_jax.serving import shipped
from ser_jax.serving.results import Prediction, Timeline

# Recordings up to the first length are predicted whole, longer ones in windows of the second, whose outputs are averaged. In long
# windows the general model predicts sad too often: docs/predicting.md. 3.99 s are 400 frames at the default hop, which batches
# have; 4 s would be padded by a fifth.
WHOLE_SECONDS, WINDOW_SECONDS = 5.0, 3.99
# Rows of a batch. On CPUs larger batches are slower, probably as activations leave the cache.
_ROWS, _ROWS_ON_CPU = 16, 4
_PORTION = 256  # windows held at once, batched with others of like length: 33 MB of 4 s


@dataclasses.dataclass(frozen=True)
class Predictor:
    """The final model of a run.

    Attributes:
        tasks: classifications and regressions that are predicted.
        synthetic: whether the model was trained on synthetic speech, and is not meaningful for real speech.
        uncalibrated: why the probabilities lack a temperature fitted on validation speakers; '' if they have one.
        front_end: log-mel settings; `compute` takes waveforms at `front_end.sample_rate`.
        compute: (waveform float32 [B, S], samples int32 [B]) -> {task: probabilities [B, K] or ratings [B, 1]}.
        model: name of the run, and a checksum of its parameters.
    """

    tasks: tuple[Task, ...]
    synthetic: bool
    uncalibrated: str
    front_end: FrontEnd
    compute: Callable[[jax.Array, jax.Array], dict[str, jax.Array]]
    model: str

    def predict(
        self, waveform: np.ndarray | str | os.PathLike, sample_rate: float | None = None
    ) -> Prediction:
        """Predicts a recording.

        Args:
            waveform: [S] or [S, channels], floats in [-1, 1] or integers (`audio.screening.problem`); or the path of a file.
            sample_rate: sample rate of the waveform, Hz; a file has its own.

        Returns:
            The prediction.

        Raises:
            UserError: no samples, another dtype, shape or scale, not finite, no plausible sample rate, or an unusable file.
        """
        rate = self.front_end.sample_rate
        if isinstance(waveform, str | os.PathLike):
            blocks = read_blocks(local_path(waveform), rate)  # of any length, in bounded memory
            return _merged(list(self.predict_windows(_cut(blocks, rate))))
        return self.predict_batch([to_mono(waveform, sample_rate, rate)])[0]

    def predict_batch(self, waveforms: Sequence[np.ndarray]) -> list[Prediction]:
        """Predicts recordings; long ones are cut into windows.

        Args:
            waveforms: N arrays int16 [S] at `front_end.sample_rate`, see `audio.reading.read_audio`; or as `predict` takes
                them.

        Returns:
            N predictions.

        Raises:
            UserError: a waveform that `predict` refuses.
        """
        rate = self.front_end.sample_rate
        is_read = lambda x: (
            isinstance(x, np.ndarray) and x.dtype == np.int16 and x.ndim == 1 and x.size
        )
        waveforms = [x if is_read(x) else to_mono(x, rate, rate) for x in waveforms]
        parts = [list(_cut([waveform], rate)) for waveform in waveforms]
        predicted = self.predict_windows(itertools.chain.from_iterable(parts))
        return [_merged(list(itertools.islice(predicted, len(windows)))) for windows in parts]

    def predict_windows(self, windows: Iterable[tuple[int, np.ndarray]]) -> Iterator[Prediction]:
        """Predicts windows of recordings; few are held at once. Those whose flags suppress the label are not computed.

        Args:
            windows: (first sample, samples int16 [S]) of each window.
        """
        rate, windows = self.front_end.sample_rate, iter(windows)
        while portion := list(itertools.islice(windows, _PORTION)):
            screened = [screening.screen(samples, rate) for _, samples in portion]
            labelled = [i for i, flags in enumerate(screened) if screening.has_label(flags)]
            outputs = dict(zip(labelled, self._outputs([portion[i][1] for i in labelled])))
            for number, ((start, samples), flags) in enumerate(zip(portion, screened)):
                times = start / rate, (start + len(samples)) / rate
                yield Prediction(*times, flags, outputs.get(number), self.tasks)

    def timeline(
        self,
        waveform: np.ndarray | str | os.PathLike,
        sample_rate: float | None = None,
        task: str | None = None,
    ) -> Timeline:
        """Finds the segments of speech in a recording, with their labels.

        Args:
            waveform, sample_rate: as `predict` takes them.
            task: name of a classification; the first one by default.

        Raises:
            UserError: a waveform that `predict` refuses, or no such classification.
        """
        from ser_jax.serving.timeline import make_timelines  # which imports this module

        rate = self.front_end.sample_rate
        if isinstance(waveform, str | os.PathLike):
            path = local_path(waveform)
            return make_timelines(self, [lambda: read_blocks(path, rate)], task)[0]
        samples = to_mono(waveform, sample_rate, rate)
        return make_timelines(self, [lambda: [samples]], task)[0]

    def _outputs(self, pieces: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
        """The outputs for each piece."""
        samples = np.array([len(piece) for piece in pieces], np.int32)
        frames = np.array([self.front_end.frames(length) for length in samples], np.int32)
        # The maximum number of samples that gives `longest` frames.
        padded = lambda longest: longest * self.front_end.hop_length - 1
        found = [{} for _ in pieces]
        rows = _ROWS_ON_CPU if devices.on_cpu() else _ROWS
        rows = rows if len(pieces) > 1 else 1  # batches are filled with repeated pieces
        for positions, _, batch in padded_batches(pieces, frames, rows, padded=padded):
            outputs = self.compute(as_float(batch), samples[positions])
            values = {name: np.array(one) for name, one in outputs.items()}
            for row, position in enumerate(positions):
                found[position] = {name: one[row] for name, one in values.items()}
        return found


def window_samples(sample_rate: int) -> tuple[int, int]:
    """`WHOLE_SECONDS` and `WINDOW_SECONDS` in samples."""
    return int(WHOLE_SECONDS * sample_rate), int(WINDOW_SECONDS * sample_rate)


def _cut(blocks: Iterable[np.ndarray], sample_rate: int) -> Iterator[tuple[int, np.ndarray]]:
    """The windows that a recording is predicted in (`screening.windows`)."""
    return screening.windows(blocks, *window_samples(sample_rate))


def _merged(windows: list[Prediction]) -> Prediction:
    """The prediction for a recording from those of its windows."""
    if len(windows) == 1:
        return windows[0]
    used, flags = screening.merge([window.flags for window in windows])
    own, outputs = [windows[i].outputs for i in used], None
    if own[0] is not None:
        outputs = {name: np.mean([one[name] for one in own], axis=0) for name in own[0]}
    return Prediction(0.0, windows[-1].end, flags, outputs, windows[0].tasks, tuple(windows))


def load(name_or_path: str | os.PathLike = shipped.GENERAL) -> Predictor:
    """Loads a model that comes with ser_jax, or the final model of a finished run; no corpus is needed.

    Args:
        name_or_path: name of the model, or run directory of `python -m ser_jax.main`.

    Returns:
        The predictor; each input shape is compiled on first use.

    Raises:
        UserError: no finished run, no final model, or a damaged one; no device.
    """
    devices.check_devices()
    workdir = shipped.model_folder(name_or_path)
    card = read_card(workdir)
    if card is None:
        raise UserError(f'{workdir} holds no finished run: run ser_jax.main first')
    try:
        config = read_json(workdir / 'config.json', CONFIG)
    except FileNotFoundError as error:
        raise UserError(
            f'{workdir} holds results without their model: train one with ser_jax.main'
        ) from error
    folder = workdir / 'checkpoints' / 'final' / 'best'
    if not folder.is_dir():
        raise UserError(
            f'{workdir} has no final model: run the config again in another --workdir, without '
            '`smoke`, --config.final=False and --config.report_test=False'
        )
    variables = Checkpoints(folder, read_only=True).restore()
    expected, reported = config['tasks'], card.get('tasks', {'emotion': card['labels']})
    if not reported or not reported.keys() <= expected.keys():
        raise UserError(f'{workdir}: results.json and config.json have different tasks')
    tasks = tuple(
        Task(name, expected[name]['kind'], expected[name]['target'], 1.0, tuple(classes))
        for name, classes in reported.items()
    )
    stored = config['data']['front_end']
    front_end = FrontEnd(**{field.name: stored[field.name] for field in fields(FrontEnd)})
    check_front_end(front_end, f'{workdir / "config.json"}: ')
    model = stored_model(config, {task.name: task.outputs for task in tasks})
    encoder, trained = _encoder(config, card, workdir), variables
    if encoder:
        variables = variables | {'encoder': encoder.encoder.params}
    problem = _mismatch(model, config['representation'], front_end, encoder, variables)
    if problem:
        raise UserError(f'{workdir}: config.json does not match checkpoints/final: {problem}')
    temperatures = _temperatures(card, tasks)
    name = f'{workdir.name}-{_checksum(trained, temperatures)}'
    compute = _program(model, tasks, config, front_end, encoder, variables, temperatures)
    return Predictor(
        tasks, card['synthetic'], _uncalibrated(card, tasks, temperatures), front_end, compute, name
    )


def _encoder(config: dict, card: dict, workdir: Path) -> EncoderInput | None:
    """The pretrained encoder of a run, which must be the one that it was trained on."""
    fine_tune = config.get('fine_tune', {})
    if config['representation'] != 'encoded' and not fine_tune.get('trains'):
        return None
    settings = config['encoder']
    seen = load_input(settings, fine_tune)
    encoder, expected = seen.encoder, card.get('encoder', {}).get('identity')
    if encoder.identity != expected:
        raise UserError(
            f'{workdir} was trained on the encoder {settings["weights"]} of the identity {expected} (parameters and '
            f'settings); that of {encoder.folder} is {encoder.identity}'
        )
    return seen


def _temperatures(card: dict, tasks: Sequence[Task]) -> dict[str, float]:
    """Task -> fitted temperature, by which its logits are divided; only tasks that have one."""
    fitted = card.get('calibration', {})
    own = {task.name: fitted.get(result_name('clean', task.name), {}) for task in tasks}
    found = {name: one['temperature'] for name, one in own.items() if 'temperature' in one}
    for name, temperature in found.items():
        if not 0.01 <= temperature <= 100:
            raise UserError(
                f'results.json: the temperature of {name} is {temperature}, not 0.01 to 100'
            )
    return found


def _checksum(variables: dict, temperatures: dict[str, float]) -> str:
    """Identifies what a run has trained, in 12 characters."""
    sha256 = hashlib.sha256(repr(sorted(temperatures.items())).encode())
    for name, values in sorted(flatten_dict(variables).items()):
        sha256.update('/'.join(map(str, name)).encode() + np.asarray(values).tobytes())
    return sha256.hexdigest()[:12]


def _mismatch(model, representation, front_end, encoder, variables) -> str:
    """Why the network cannot have these parameters; '' if it can."""
    samples = int(screening.SHORTEST_SECONDS * front_end.sample_rate)
    log_mel = (1, front_end.frames(samples), front_end.n_mels)
    shape = log_mel if representation == 'log_mel' else (1, samples)
    inputs = jax.ShapeDtypeStruct(shape, np.float32), jax.ShapeDtypeStruct((1,), np.int32)
    kind, trained = 'waveform' if encoder else 'standardised', encoder.rates if encoder else ()
    try:
        if set(flatten_dict(variables['params'].get(fine_tuning.PRETRAINED, {}))) != set(trained):
            return 'other parameters of the encoder train'
        jax.eval_shape(lambda *x: forward(model, variables, *x, kind, encoder), *inputs)
    except (ArithmeticError, LookupError, TypeError, ValueError, FlaxError) as error:
        return ' '.join(str(error).split())[:200]
    return ''


def _program(model, tasks, config, front_end, encoder, variables, temperatures) -> Callable:
    """Builds `Predictor.compute`."""
    seen = encoder
    if config['representation'] == 'log_mel':
        seen = front_end

    @jax.jit
    def compute(variables, waveform, samples):
        length = samples
        if isinstance(seen, FrontEnd):
            length = 1 + samples // seen.hop_length
        outputs = forward(model, variables, waveform, length, 'waveform', seen)
        outputs |= {name: outputs[name] / value for name, value in temperatures.items()}
        return to_predictions(outputs, tasks, variables['constants'])

    return functools.partial(compute, jax.device_put(variables))


def _uncalibrated(card, tasks, temperatures) -> str:
    """`Predictor.uncalibrated`."""
    if all(task.name in temperatures for task in tasks if task.kind == 'classification'):
        return ''
    if 'calibration' in card:
        return 'probabilities are not calibrated: the run had no validation speakers'
    return (
        'probabilities are not calibrated: for runs of older versions, --mode=evaluate of '
        'ser_jax.main adds the calibration'
    )
