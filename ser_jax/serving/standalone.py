"""Runs an exported model without ser_jax; every export contains a copy of this file as run.py.

Requires NumPy, and jax and flatbuffers for model.stablehlo or onnxruntime for model.onnx. `python run.py` recomputes
the stored example.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np

MODELS = {'stablehlo': 'model.stablehlo', 'onnx': 'model.onnx'}
EXAMPLE = 'example.npz'
# Types of integer samples -> zero and full scale.
INTEGERS = {'uint8': (128, 128), 'int8': (0, 128), 'int16': (0, 1 << 15), 'int32': (0, 1 << 31)}
HIGHEST_PEAK = 2.0  # of floats; decoders of mp3 and the like exceed 1 a little
TOLERANCE = 1e-4  # absolute, for probabilities and ratings; processors round differently


def load(folder):
    """Loads an export.

    Args:
        folder: folder of the export, with card.json.

    Returns:
        (card, run): `run` maps waveform [B, S], floats in [-1, 1] or integers of their type's full scale, and samples int32
        [B], see `inputs` of the card, to {task: probabilities float32 [B, K], or ratings [B, 1]}. Each new (B, S) is
        compiled: pad to few lengths. It raises ValueError for inputs outside the card's limits.

    Raises:
        ValueError: a file does not match its checksum in the card.
    """
    folder = Path(folder)
    card = json.loads((folder / 'card.json').read_text(encoding='utf-8'))
    name = MODELS[card['format']]
    for file in (name, EXAMPLE):
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != card['sha256'][file]:
            raise ValueError(f'{file} is damaged or not the file that card.json describes')
    shortest, longest = (card['inputs']['samples'][bound] for bound in ('minimum', 'maximum'))
    make = {'stablehlo': _stablehlo, 'onnx': _onnx}[card['format']]
    compute = make(str(folder / name), longest)

    def run(waveform, samples):
        waveform, samples = np.asarray(waveform), np.asarray(samples, np.int32)
        if waveform.ndim != 2 or samples.shape != waveform.shape[:1]:
            raise ValueError(f'waveform {waveform.shape}, samples {samples.shape}: not [B, S], [B]')
        if samples.min() < shortest or samples.max() > min(longest, waveform.shape[1]):
            raise ValueError(
                f'samples must be {shortest} to {longest} and at most S: see card.json'
            )
        waveform = _scaled(waveform, samples)
        return {task: np.asarray(values) for task, values in compute(waveform, samples).items()}

    return card, run


def _scaled(waveform, samples):
    """The waveform as float32 with full scale -1 to 1, clipped; its padding becomes 0."""
    name = waveform.dtype.name
    if name not in INTEGERS and waveform.dtype.kind != 'f':
        raise ValueError(f'waveform holds floats in [-1, 1] or {", ".join(INTEGERS)}, not {name}')
    zero, full = INTEGERS.get(name, (0, 1))
    used = np.arange(waveform.shape[1]) < samples[:, None]
    waveform = (np.where(used, waveform, zero).astype(np.float32) - zero) / full
    low, high = waveform.min(), waveform.max()
    if not max(-low, high) <= HIGHEST_PEAK:  # NaN too
        raise ValueError(
            f'waveform holds floats from {low:.6g} to {high:.6g}; they must be finite and in [-1, 1]: divide by the full '
            'scale, 32768 for 16-bit samples'
        )
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
    card, run = load(folder)
    with np.load(Path(folder) / EXAMPLE, allow_pickle=False) as stored:
        inputs = stored['waveform'], stored['samples']
        expected = {task: stored[f'output_{task}'] for task in card['outputs']}
    labels = {task: len(about['labels']) for task, about in card['outputs'].items()}
    shapes = {task: (len(inputs[1]), count) for task, count in labels.items()}
    matches = lambda outputs: shapes == {task: value.shape for task, value in outputs.items()}
    found = run(*inputs) if matches(expected) else {}
    if not labels or not matches(found):
        raise ValueError('the outputs are not those that card.json describes')
    return {task: float(np.abs(found[task] - expected[task]).max()) for task in shapes}


if __name__ == '__main__':
    differences = replay(Path(__file__).parent)
    print(json.dumps(differences))
    sys.exit(not all(difference <= TOLERANCE for difference in differences.values()))
