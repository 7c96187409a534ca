"""Runs an exported model without ser_jax; every export contains a copy of this file as run.py.

    python run.py RECORDING...      prints a line of JSON for each
    python run.py                   recomputes the stored example

    sys.path.append('folder/of/the/export')
    import run
    model = run.load('folder/of/the/export')
    model.predict(waveform, sample_rate)

Needs NumPy, jax and flatbuffers for model.stablehlo or onnxruntime for model.onnx, soxr for other sample rates than the
model's, and soundfile for files other than PCM wav.
"""

import hashlib
import json
import re
import sys
import wave
from pathlib import Path

import numpy as np

from ser_jax.audio import screening

MODELS = {'stablehlo': 'model.stablehlo', 'onnx': 'model.onnx'}
EXAMPLE = 'example.npz'
TOLERANCE = 1e-4  # absolute, for probabilities and ratings; processors round differently
_HALVINGS = 2  # of what `predict` takes whole: it pads to three lengths, each compiled on first use


def load(folder):
    """Loads an export.

    Args:
        folder: folder of the export, with card.json.

    Returns:
        A `Model`.

    Raises:
        ValueError: a file does not match its checksum in the card.
    """
    folder = Path(folder)
    card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
    name = MODELS[card['format']]
    for file in (name, EXAMPLE):
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != card['sha256'][file]:
            raise ValueError(f'{file} is damaged or not the file that card.json describes')
    make = {'stablehlo': _stablehlo, 'onnx': _onnx}[card['format']]
    return Model(card, make(str(folder / name), card['inputs']['samples']['maximum']))


class Model:
    """An exported model.

    Attributes:
        card: content of card.json.
    """

    def __init__(self, card, compute):
        self.card, self._compute = card, compute
        self._shortest, self._longest = (
            card['inputs']['samples'][bound] for bound in ('minimum', 'maximum')
        )

    def predict(self, waveform, sample_rate):
        """Predicts a recording of any length, as `Predictor.predict` of ser_jax does.

        Args:
            waveform: [S] or [S, channels], floats in [-1, 1], or integers (uint8, int8, int16, int32) of their type's full
                scale.
            sample_rate: sample rate of the waveform, Hz.

        Returns:
            Most of a line of `python -m ser_jax.predict --format=json`, as a dict: `seconds`; each task -> label or rating, None
            where a flag suppresses it; `probabilities` of the classes, by task if there are several; `flags`, the keys of
            `screening.FLAGS` that apply.

        Raises:
            ValueError: no samples, another dtype, shape or scale, not finite, no plausible sample rate; another sample
                rate than the model's, and soxr is not installed.
        """
        waveform, rate = np.asarray(waveform), self.card['inputs']['waveform']['sample_rate']
        if problem := screening.problem(waveform, sample_rate):
            raise ValueError(problem)
        try:
            samples = screening.to_mono(waveform, sample_rate, rate)
        except ImportError as error:
            raise ValueError(
                f'the waveform has {sample_rate} Hz, the model takes {rate}: pip install soxr, or resample it'
            ) from error
        limits = (self.card['inputs']['samples'][name] for name in ('whole', 'window'))
        pieces = [piece for _, piece in screening.windows([samples], *limits)]
        used, flags = screening.merge([screening.screen(piece, rate) for piece in pieces])
        outputs = None
        if screening.has_label(flags):
            rows = [self._padded(pieces[i]) for i in used]
            outputs = {task: np.mean([row[task] for row in rows], axis=0) for task in rows[0]}
        return {
            'seconds': round(len(samples) / rate, 3),
            **self._answer(outputs),
            'flags': [*flags],
        }

    def run(self, waveform, samples):
        """The exported program itself, without windows, resampling and flags.

        Args:
            waveform: [B, S], floats in [-1, 1], or integers of their type's full scale; see `inputs` of the card. Each new
                (B, S) is compiled: pad to few lengths.
            samples: int32 [B], without padding.

        Returns:
            Task -> probabilities float32 [B, K], or ratings [B, 1].

        Raises:
            ValueError: inputs outside the limits of the card.
        """
        waveform, samples = np.asarray(waveform), np.asarray(samples, np.int32)
        if waveform.ndim != 2 or samples.shape != waveform.shape[:1]:
            raise ValueError(f'waveform {waveform.shape}, samples {samples.shape}: not [B, S], [B]')
        longest = min(self._longest, waveform.shape[1])
        if samples.min(initial=longest) < self._shortest or samples.max(initial=0) > longest:
            raise ValueError(
                f'samples must be {self._shortest} to {self._longest} and at most S: see card.json'
            )
        outputs = self._compute(_scaled(waveform, samples), samples)
        return {task: np.asarray(values) for task, values in outputs.items()}

    def _padded(self, piece):
        """The outputs for int16 [S], padded to one of few lengths."""
        whole = self.card['inputs']['samples']['whole']
        lengths = [whole >> halvings for halvings in range(_HALVINGS, -1, -1)]
        length = next(length for length in lengths if length >= len(piece))
        row = np.pad(piece, (0, length - len(piece)))
        return {task: values[0] for task, values in self.run(row[None], [len(piece)]).items()}

    def _answer(self, outputs):
        """The labels, ratings and probabilities that `predict` returns; None throughout where there are no outputs."""
        answer, probabilities = {}, {}
        for task, about in self.card['outputs'].items():
            values = outputs and outputs[task]
            if about['kind'] == 'regression':
                answer[task] = outputs and round(float(values[0]), 3)
            else:
                answer[task] = outputs and about['labels'][values.argmax()]
                probabilities[task] = outputs and dict(zip(about['labels'], map(float, values)))
        if probabilities:
            several = len(answer) > 1
            answer['probabilities'] = probabilities if several else probabilities.popitem()[1]
        return answer


def _scaled(waveform, samples):
    """The waveform as float32 with full scale -1 to 1, clipped; its padding becomes 0."""
    name = waveform.dtype.name
    if name not in screening.INTEGERS and waveform.dtype.kind != 'f':
        raise ValueError(
            f'a waveform holds floats in [-1, 1] or {", ".join(screening.INTEGERS)}, not {name}'
        )
    zero, full = screening.INTEGERS.get(name, (0, 1))
    used = np.arange(waveform.shape[1]) < samples[:, None]
    waveform = (np.where(used, waveform, zero).astype(np.float32) - zero) / full
    if waveform.size and (problem := screening.floats_problem(waveform)):
        raise ValueError(problem)
    return np.clip(waveform, -1, 1)


def _stablehlo(path, longest):
    import jax.export

    del longest  # the program takes any length
    model = jax.export.deserialize(bytearray(Path(path).read_bytes()))
    # Everything else is arithmetic, but a custom call may run any code of this process.
    text = model.mlir_module()
    if text.count('custom_call') > len(
        re.findall(r'stablehlo\.custom_call @shape_assertion\(', text)
    ):
        raise ValueError(f'{Path(path).name} calls code outside itself: not run')
    return jax.jit(model.call)


def _onnx(path, longest):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: skips warnings about unused initialisers
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    tasks = [output.name for output in session.get_outputs()]

    def compute(waveform, samples):  # the model takes one utterance, padded to the longest
        waveform = np.pad(waveform[:, :longest], ((0, 0), (0, max(0, longest - waveform.shape[1]))))
        rows = range(len(samples))
        feed = lambda i: {'waveform': waveform[i : i + 1], 'samples': samples[i : i + 1]}
        outputs = [session.run(tasks, feed(i)) for i in rows]
        return {task: np.concatenate(values) for task, values in zip(tasks, zip(*outputs))}

    return compute


def replay(folder):
    """Recomputes the stored example.

    Args:
        folder: folder of the export, with card.json.

    Returns:
        Task -> largest absolute difference from the stored output.

    Raises:
        ValueError: a damaged file, or a model that does not match its card.
    """
    model = load(folder)
    with np.load(Path(folder) / EXAMPLE, allow_pickle=False) as stored:
        inputs = stored['waveform'], stored['samples']
        expected = {task: stored[f'output_{task}'] for task in model.card['outputs']}
    labels = {task: len(about['labels']) for task, about in model.card['outputs'].items()}
    shapes = {task: (len(inputs[1]), count) for task, count in labels.items()}
    matches = lambda outputs: shapes == {task: value.shape for task, value in outputs.items()}
    found = model.run(*inputs) if matches(expected) else {}
    if not labels or not matches(found):
        raise ValueError('the outputs are not those that card.json describes')
    return {task: float(np.abs(found[task] - expected[task]).max()) for task in shapes}


def read(path):
    """Reads a file: any format of soundfile where that is installed, else PCM wav.

    Args:
        path: path of the file.

    Returns:
        (waveform [S, channels], sample rate in Hz).

    Raises:
        ValueError: no such format, or a wav file that is cut off.
        OSError: no such file, or not readable.
    """
    with open(path, 'rb') as file:
        if _is_cut_off(file):
            raise ValueError('shorter than stated in its header: copied or downloaded in part')
        try:
            import soundfile
        except ImportError:
            return _read_pcm(file)
        try:
            return soundfile.read(file, dtype='float32', always_2d=True)
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: raw formats
            reason = getattr(error, 'error_string', '') or error
            raise ValueError(f'cannot be decoded as audio ({reason})') from error
        except MemoryError as error:
            raise ValueError('its header states more samples than fit in memory') from error


def _is_cut_off(file):
    """Whether a wav file ends before the samples that its header states; goes back to its beginning."""
    length, at, found = file.seek(0, 2), 12, False
    file.seek(0)
    if file.read(4) == b'RIFF':
        while at < length:
            file.seek(at)
            name, size = file.read(4), int.from_bytes(file.read(4), 'little')
            at += 8 + size + size % 2
            if name == b'data':
                # Some writers leave out the last bytes; a larger size is that of a stream.
                found = length + 64 < at < 0x7F000000
                break
    file.seek(0)
    return found


def _read_pcm(file):
    try:
        with wave.open(file) as reader:
            channels, width, rate, frames, *_ = reader.getparams()
            data = reader.readframes(frames)
    except (wave.Error, EOFError) as error:
        raise ValueError(f'not a PCM wav file ({error}): pip install soundfile') from error
    if width == 3:  # becomes the upper bytes of int32
        data = np.pad(np.frombuffer(data, np.uint8).reshape(-1, 3), ((0, 0), (1, 0))).tobytes()
    dtype = {1: 'u1', 2: '<i2', 3: '<i4', 4: '<i4'}[width]
    return np.frombuffer(data, dtype).reshape(-1, channels), rate


def main(paths):
    """Predicts and prints files, or recomputes the stored example where none is given; returns the exit status."""
    if {'-h', '--help'} & set(paths):
        print(__doc__)
        return 0
    folder, status = Path(__file__).parent, 0
    if not paths:
        differences = replay(folder)
        print(json.dumps(differences))
        return int(not all(difference <= TOLERANCE for difference in differences.values()))
    model = load(folder)
    print(f'warning: {model.card["notice"]}', file=sys.stderr)
    for path in paths:
        try:
            answer = model.predict(*read(path))
        except (ValueError, OSError) as error:
            reason = getattr(error, 'strerror', None) or error
            print(f'error: {path}: {reason}', file=sys.stderr)
            status = 1
            continue
        print(json.dumps({'file': path, **answer}))
        for flag in answer['flags']:
            print(f'warning: {path}: {screening.FLAGS[flag]}', file=sys.stderr)
    return status


if __name__ == '__main__':
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')
