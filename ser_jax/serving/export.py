"""Makes one artefact of a finished run's final model: from raw samples to probabilities, with all that its user must know."""

import functools
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ser_jax.audio.reading import MIN_SECONDS
from ser_jax.data.batches import BUCKET_STEP
from ser_jax.data.tasks import Task
from ser_jax.runs import workdir as workdirs
from ser_jax.runs.environment import environment
from ser_jax.runs.finished import CONFIG
from ser_jax.runs.result_card import read_card
from ser_jax.runtime import signals
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.schema import read_json
from ser_jax.serving import standalone
from ser_jax.serving.predictor import WINDOW_SECONDS, Predictor, load

PLATFORMS = ('cpu', 'cuda', 'tpu')
_LOCATIONS = 'jax_hlo_source_file_canonicalization_regex'
_FILES = ('card.json', standalone.EXAMPLE, 'run.py')  # and the model


def write_export(workdir: str | Path, out: str | Path, form: str) -> dict[str, float]:
    """Exports the final model of a run and computes the stored example with what was written.

    Args:
        workdir: of the finished run.
        out: folder to make, whole or not at all; an export that lies there is replaced.
        form: of `exported.MODELS`.

    Returns:
        Task -> largest difference between artefact and predictor over the example.

    Raises:
        UserError: no finished run or final model; `out` holds something else or cannot be written; a package is missing.
        ValueError: the artefact computes something else than the predictor.
    """
    workdir, out = (Path(path).expanduser().absolute() for path in (workdir, out))
    _refuse_other(out)
    predictor = load(workdir)
    config = read_json(workdir / 'config.json', CONFIG | {'unlabelled': [str]})
    convert = {'stablehlo': stablehlo, 'onnx': _onnx}[form]
    # Float32 throughout: GPUs and TPUs would shorten the factors of products, and answer otherwise than the example.
    with jax.default_matmul_precision('highest'):
        model = convert(predictor, *padding(config['model'], predictor.front_end.hop_length))
        example = _example(predictor)
    card = _card(workdir, config, predictor, form)
    temporary = out.with_name(f'{out.name}.{os.getpid()}.tmp')
    tidy = functools.partial(shutil.rmtree, temporary, ignore_errors=True)
    try:
        with signals.on_stop(tidy):
            _fill(temporary, model, example, card)
            differences = standalone.replay(temporary)
            if not all(difference <= standalone.TOLERANCE for difference in differences.values()):
                raise ValueError(f'the artefact differs from the predictor: {differences}')
            _put(temporary, out)
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error.strerror}') from error
    finally:
        tidy()
    return differences


def _fill(folder: Path, model: bytes, example: dict[str, np.ndarray], card: dict[str, Any]) -> None:
    """Makes a folder with all the files of an export."""
    folder.mkdir(parents=True)
    name = standalone.MODELS[card['format']]
    (folder / name).write_bytes(model)
    np.savez(folder / standalone.EXAMPLE, **example)
    digest = lambda file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
    card = card | {'sha256': {file: digest(file) for file in (name, standalone.EXAMPLE)}}
    text = json.dumps(card, indent=1, ensure_ascii=False)
    (folder / 'card.json').write_text(text + '\n', encoding='utf-8')
    shutil.copyfile(standalone.__file__, folder / 'run.py')


def _refuse_other(out: Path) -> None:
    """Refuses a folder with anything in it but an export."""
    try:
        names = {path.name for path in out.iterdir()} if out.exists() else set()
    except OSError as error:
        raise UserError(f'{out} is not a folder that can be read: choose another --out') from error
    names -= {'__pycache__'}
    if names and names not in [{*_FILES, model} for model in standalone.MODELS.values()]:
        raise UserError(f'{out} holds something else than an export: choose another --out')


def _put(temporary: Path, out: Path) -> None:
    """Renames a finished folder into its place."""
    old = temporary.with_suffix('.old')
    with signals.postponed():
        if out.exists():
            os.replace(out, old)
        os.replace(temporary, out)
        shutil.rmtree(old, ignore_errors=True)


def padding(model: dict[str, Any], hop: int) -> tuple[int, int]:
    """Which lengths a network takes without its blocks, pools and frames being cut: any multiple of a step, plus a rest.

    Args:
        model: `config.model`.
        hop: of the log-mel front end.

    Returns:
        (step, rest), samples.
    """
    own = model.get('hop_samples', 1)  # of a network that frames the waveform itself
    return math.lcm(BUCKET_STEP * hop, own), max(0, model.get('frame_samples', 0) - own)


def from_samples(predictor: Predictor, step: int, rest: int) -> Callable:
    """The function that is exported: `compute`, made safe for any length and for whatever lies in the padding.

    Args:
        predictor: of the run.
        step, rest: of `padding`.

    Returns:
        (waveform float32 [B, S], samples int32 [B]) -> {task: [B, K]}, for sizes known or symbolic.
    """

    def compute(waveform: jax.Array, samples: jax.Array) -> dict[str, jax.Array]:
        length = waveform.shape[1]
        samples = jnp.clip(samples, 0, length)
        waveform = jnp.where(jnp.arange(length) < samples[:, None], waveform, 0.0)
        # Steps counted, not a remainder added: so JAX can show that the network's own divisions leave none.
        whole = (length + step - 1) // step * step + rest
        waveform = jnp.pad(waveform, ((0, 0), (0, step + rest)))[:, :whole]
        return predictor.compute(waveform, samples)

    return compute


def stablehlo(
    predictor: Predictor, step: int, rest: int, platforms: tuple[str, ...] = PLATFORMS
) -> bytearray:
    """`from_samples` for any batch and length, as `jax.export` serialises it.

    Args:
        predictor: of the run.
        step, rest: of `padding`.
        platforms: what it can run on.

    Returns:
        The file.
    """
    batch, length = jax.export.symbolic_shape('B, S')
    inputs = (
        jax.ShapeDtypeStruct((batch, length), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    before = getattr(jax.config, _LOCATIONS)
    jax.config.update(
        _LOCATIONS, r'.*[/\\]'
    )  # the program names the files that made it, not where they lie
    try:
        function = jax.jit(from_samples(predictor, step, rest))
        return jax.export.export(function, platforms=platforms)(*inputs).serialize()
    finally:
        jax.config.update(_LOCATIONS, before)


def _onnx(predictor: Predictor, step: int, rest: int) -> bytes:
    """The same for one utterance in the longest waveform: jax2onnx cannot yet convert sizes that are not known."""
    try:
        import onnxruntime  # noqa: F401  computes the example afterwards
        from jax2onnx import to_onnx
    except ImportError as error:
        raise UserError(
            f"--format=onnx: {error}: pip install -e '.[onnx]' && pip install --no-deps jax2onnx==0.17.1"
        ) from error
    compute = from_samples(predictor, step, rest)
    tasks = [task.name for task in predictor.tasks]
    return to_onnx(
        lambda waveform, samples: tuple(compute(waveform, samples)[task] for task in tasks),
        [
            jax.ShapeDtypeStruct((1, _longest(predictor)), jnp.float32),
            jax.ShapeDtypeStruct((1,), jnp.int32),
        ],
        input_names=['waveform', 'samples'],
        output_names=tasks,
    ).SerializeToString()


def _longest(predictor: Predictor) -> int:
    return int(WINDOW_SECONDS * predictor.front_end.sample_rate)


def _example(predictor: Predictor) -> dict[str, np.ndarray]:
    """Bursts of noise (no corpus's licence covers them), and what the predictor says of them."""
    samples = np.array([19200, 14321], np.int32)
    loudness = 0.1 * np.sin(np.arange(samples.max()) / 1000) ** 2
    waveform = loudness * np.random.default_rng(0).standard_normal((2, samples.max()))
    waveform = np.clip(waveform, -1, 1).astype(np.float32)
    waveform[1, samples[1] :] = 0
    said = jax.device_get(predictor.compute(waveform, samples))
    outputs = {f'output_{task}': value for task, value in said.items()}
    return {'waveform': waveform, 'samples': samples, **outputs}


def _card(workdir: Path, config: dict[str, Any], predictor: Predictor, form: str) -> dict[str, Any]:
    """What the user of the artefact must know."""
    card, summary = read_card(workdir), workdirs.read_summary(workdir, 'final')
    trained_on = list(
        dict.fromkeys([*card.get('trained_on', [card['corpus']]), *config['unlabelled']])
    )
    rate, longest = predictor.front_end.sample_rate, _longest(predictor)
    fixed = form == 'onnx'
    here, packages = environment(), ['jax', 'jaxlib', *(['jax2onnx', 'onnx'] if fixed else [])]
    return {
        'format': form,
        'says': 'SYNTHETIC: trained on made-up speech, says nothing about real speech'
        if card['synthetic']
        else f'trained on speech of {", ".join(trained_on)}; other speech is another matter',
        'system': card['system'],
        'corpus': card['corpus'],
        'trained_on': trained_on,
        'synthetic': card['synthetic'],
        'inputs': {
            'waveform': {
                'dtype': 'float32',
                'shape': [1, longest] if fixed else ['B', 'S'],
                'unit': 'amplitude, full scale -1 to 1 (16-bit samples / 32768)',
                'sample_rate': rate,
                'channels': 1,
                'padding': 'behind the utterance; whatever it holds is ignored',
            },
            'samples': {
                'dtype': 'int32',
                'shape': [1] if fixed else ['B'],
                'unit': 'samples of each utterance without padding, at most S',
                'minimum': round(MIN_SECONDS * rate),
                'maximum': longest,
                'longer': f'cut into equally spaced windows of {longest} samples that overlap by half or more, and average '
                'the outputs',
            },
        },
        'outputs': {task.name: _output(task, fixed) for task in predictor.tasks},
        'calibration': card.get('calibration'),
        'platforms': ['onnxruntime'] if fixed else list(PLATFORMS),
        'example': f'{standalone.EXAMPLE}: bursts of noise and what the predictor of the run says of them; `python run.py` compares',
        'config_hash': card['config_hash'],
        'seed': card['seed'],
        'trained_with': {name: summary['environment'][name] for name in ('commit', 'versions')},
        'exported_with': {
            'commit': here['commit'],
            'versions': {name: importlib.metadata.version(name) for name in packages},
        },
        'licence': 'run.py: Apache-2.0. The parameters were learnt from the corpora in `trained_on` (and from noise corpora, if '
        "their augmentation uses any); what may be done with them depends on those corpora's licences: see "
        'tfds_builders/<corpus>/README.md.',
    }


def _output(task: Task, fixed: bool) -> dict[str, Any]:
    shape = [1 if fixed else 'B', task.outputs]
    if task.kind == 'regression':
        about = {'unit': 'rating, 1 to 5', 'labels': [task.name]}
    else:
        about = {'unit': 'probability', 'labels': list(task.classes)}
    return {'kind': task.kind, 'dtype': 'float32', 'shape': shape, **about}
