"""Runs an exported model without ser_jax; a copy of this file lies in every export as run.py.

It needs NumPy and what the model's format needs: jax and flatbuffers for model.stablehlo, onnxruntime for
model.onnx. `python run.py` computes the stored example again.
"""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np

MODELS = {'stablehlo': 'model.stablehlo', 'onnx': 'model.onnx'}
EXAMPLE = 'example.npz'
TOLERANCE = 1e-4  # of probabilities and ratings; processors round differently


def load(folder):
    """Loads an export.

    Args:
        folder: with card.json.

    Returns:
        (the card; a function from waveform float32 [B, S] and samples int32 [B], as the card's `inputs` say, to
        {task: probabilities float32 [B, K], or ratings [B, 1]}). Each new (B, S) is compiled first: pad to few lengths.

    Raises:
        ValueError: a file is not the one that the card describes; of the function: inputs that do not suit.
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
        waveform, samples = np.asarray(waveform, np.float32), np.asarray(samples, np.int32)
        if waveform.ndim != 2 or samples.shape != waveform.shape[:1]:
            raise ValueError(f'waveform {waveform.shape}, samples {samples.shape}: not [B, S], [B]')
        if samples.min() < shortest or samples.max() > min(longest, waveform.shape[1]):
            raise ValueError(
                f'samples must be {shortest} to {longest} and at most S: see card.json'
            )
        return {task: np.asarray(said) for task, said in compute(waveform, samples).items()}

    return card, run


def _stablehlo(path, longest):
    import jax.export

    del longest  # any length will do
    model = jax.export.deserialize(bytearray(Path(path).read_bytes()))
    # All else is arithmetic; a custom call may run whatever is in this process.
    text = model.mlir_module()
    if text.count('custom_call') > len(
        re.findall(r'stablehlo\.custom_call @shape_assertion\(', text)
    ):
        raise ValueError(f'{Path(path).name} calls code outside itself: not run')
    return jax.jit(model.call)


def _onnx(path, longest):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: it warns of what it leaves out
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    tasks = [output.name for output in session.get_outputs()]

    def compute(waveform, samples):  # one utterance of the longest length at a time
        waveform = np.pad(waveform[:, :longest], ((0, 0), (0, max(0, longest - waveform.shape[1]))))
        rows = range(len(samples))
        feed = lambda i: {'waveform': waveform[i : i + 1], 'samples': samples[i : i + 1]}
        said = [session.run(tasks, feed(i)) for i in rows]
        return {task: np.concatenate(values) for task, values in zip(tasks, zip(*said))}

    return compute


def replay(folder):
    """Computes the stored example again.

    Args:
        folder: with card.json.

    Returns:
        Task -> largest difference to the stored output.

    Raises:
        ValueError: a damaged file, or a model that does not suit its card.
    """
    card, run = load(folder)
    with np.load(Path(folder) / EXAMPLE, allow_pickle=False) as stored:
        inputs = stored['waveform'], stored['samples']
        expected = {task: stored[f'output_{task}'] for task in card['outputs']}
    labels = {task: len(about['labels']) for task, about in card['outputs'].items()}
    shapes = {task: (len(inputs[1]), count) for task, count in labels.items()}
    suits = lambda outputs: shapes == {task: said.shape for task, said in outputs.items()}
    found = run(*inputs) if suits(expected) else {}
    if not labels or not suits(found):
        raise ValueError('the outputs are not those that card.json describes')
    return {task: float(np.abs(found[task] - expected[task]).max()) for task in shapes}


if __name__ == '__main__':
    differences = replay(Path(__file__).parent)
    print(json.dumps(differences))
    sys.exit(not all(difference <= TOLERANCE for difference in differences.values()))
