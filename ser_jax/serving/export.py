"""Exports the final model of a finished run, from raw samples to probabilities, with a card and a stored example."""

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

from ser_jax.audio import screening
from ser_jax.data.batches import BUCKET_STEP
from ser_jax.data.tasks import Task
from ser_jax.models.encoders import functionals
from ser_jax.runs import workdir as workdirs
from ser_jax.runs.environment import environment
from ser_jax.runs.finished import CONFIG
from ser_jax.runs.result_card import read_card
from ser_jax.runtime import signals
from ser_jax.runtime.errors import UserError
from ser_jax.runtime.files import replace_folder, temporary_beside
from ser_jax.runtime.schema import read_json
from ser_jax.serving import shipped, standalone
from ser_jax.serving.predictor import Predictor, load, window_samples

PLATFORMS = ('cpu', 'cuda', 'tpu')
_LONGEST_SECONDS = 10.0  # of an utterance that the StableHLO program itself takes
_LICENCE = 'LICENCE.md'  # of the parameters, where a model has one
_FILES = {
    'card.json',
    _LICENCE,
    standalone.EXAMPLE,
    'run.py',
    'screening.py',
    *standalone.MODELS.values(),
}
_SOURCE_PATHS = 'jax_hlo_source_file_canonicalization_regex'


def write_export(workdir: str | Path, out: str | Path, form: str) -> dict[str, float]:
    """Exports the final model of a run, and checks the export against the predictor on the stored example.

    Args:
        workdir: see `predictor.load`.
        out: folder to write, atomically; an existing export is replaced.
        form: key of `standalone.MODELS`.

    Returns:
        Task -> largest difference between export and predictor on the example.

    Raises:
        UserError: no finished run or final model; `out` holds something else or cannot be written; a missing package.
        ValueError: the export computes other outputs than the predictor.
    """
    workdir, out = shipped.model_folder(workdir), Path(os.path.realpath(Path(out).expanduser()))
    _refuse_other(out)
    predictor = load(workdir)
    config = read_json(workdir / 'config.json', CONFIG | {'unlabelled': [str]})
    if config.get('encoder', {}).get('weights') == functionals.NAME:
        raise UserError(f'{workdir} reads openSMILE functionals, which cannot be exported')
    convert = {'stablehlo': stablehlo, 'onnx': _onnx}[form]
    # Full float32 products: by default GPUs and TPUs round the factors, and would miss the example.
    with jax.default_matmul_precision('highest'):
        model = convert(predictor, *valid_lengths(config['model'], predictor.front_end.hop_length))
        example = _example(predictor)
    card = _card(workdir, config, predictor, form)
    temporary = temporary_beside(out)
    tidy = functools.partial(shutil.rmtree, temporary, ignore_errors=True)
    try:
        with signals.on_stop(tidy):
            _write_files(temporary, model, example, card)
            if (workdir / _LICENCE).exists():
                shutil.copyfile(workdir / _LICENCE, temporary / _LICENCE)
            differences = standalone.replay(temporary)
            if not all(difference <= standalone.TOLERANCE for difference in differences.values()):
                raise ValueError(f'the export differs from the predictor: {differences}')
            replace_folder(temporary, out)
    except OSError as error:
        raise UserError(f'cannot write to {out}: {error.strerror}') from error
    finally:
        tidy()
    return differences


def _write_files(
    folder: Path, model: bytes, example: dict[str, np.ndarray], card: dict[str, Any]
) -> None:
    """Writes all files of an export to a new folder."""
    shutil.rmtree(folder, ignore_errors=True)  # of a killed process with the same number
    folder.mkdir(parents=True)
    name = standalone.MODELS[card['format']]
    (folder / name).write_bytes(model)
    np.savez(folder / standalone.EXAMPLE, **example)
    digest = lambda file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
    card = card | {'sha256': {file: digest(file) for file in (name, standalone.EXAMPLE)}}
    text = json.dumps(card, indent=1, ensure_ascii=False)
    (folder / 'card.json').write_text(text + '\n', encoding='utf-8')
    shutil.copyfile(screening.__file__, folder / 'screening.py')
    program = Path(standalone.__file__).read_text(encoding='utf-8')
    # Its only import from here becomes that of the file beside it.
    program = program.replace('from ser_jax.audio import screening', 'import screening')
    (folder / 'run.py').write_text(program, encoding='utf-8')


def _refuse_other(out: Path) -> None:
    """Refuses a folder that holds anything but an export."""
    try:
        names = {path.name for path in out.iterdir()} if out.exists() else set()
    except OSError as error:
        raise UserError(f'{out} is not a readable folder: choose another --out') from error
    names -= {'__pycache__'}
    if names and not {'card.json', 'run.py'} <= names <= _FILES:
        raise UserError(f'{out} holds other files than an export: choose another --out')


def valid_lengths(model: dict[str, Any], hop_length: int) -> tuple[int, int]:
    """The lengths whose blocks, pools and frames come out even: multiples of a step, plus a remainder.

    Args:
        model: `config.model`.
        hop_length: hop of the log-mel front end, samples.

    Returns:
        (step, remainder), samples.
    """
    own_hop = model.get('hop_samples', 1)  # of networks that frame the waveform themselves
    step = math.lcm(BUCKET_STEP * hop_length, own_hop)
    return step, max(0, model.get('frame_samples', 0) - own_hop)


def _padded_compute(predictor: Predictor, step: int, remainder: int) -> Callable:
    """The exported function: `predictor.compute` for any length, known or symbolic, and any content of the padding."""

    def compute(waveform: jax.Array, samples: jax.Array) -> dict[str, jax.Array]:
        length = waveform.shape[1]
        samples = jnp.clip(samples, 0, length)
        waveform = jnp.where(jnp.arange(length) < samples[:, None], waveform, 0.0)
        # Written as a multiple of the step, so that JAX can prove the network's own divisions exact.
        padded = (length + step - 1) // step * step + remainder
        waveform = jnp.pad(waveform, ((0, 0), (0, step + remainder)))[:, :padded]
        return predictor.compute(waveform, samples)

    return compute


def stablehlo(
    predictor: Predictor, step: int, remainder: int, platforms: tuple[str, ...] = PLATFORMS
) -> bytearray:
    """Serialises a predictor by `jax.export`, for any batch size and length.

    Args:
        predictor: a loaded model.
        step, remainder: from `valid_lengths`.
        platforms: platforms that can run it.

    Returns:
        The content of the file.
    """
    batch, length = jax.export.symbolic_shape('B, S')
    inputs = (
        jax.ShapeDtypeStruct((batch, length), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    before = getattr(jax.config, _SOURCE_PATHS)
    jax.config.update(_SOURCE_PATHS, r'.*[/\\]')  # leaves out the folders of this machine
    try:
        function = jax.jit(_padded_compute(predictor, step, remainder))
        return jax.export.export(function, platforms=platforms)(*inputs).serialize()
    finally:
        jax.config.update(_SOURCE_PATHS, before)


def _onnx(predictor: Predictor, step: int, remainder: int) -> bytes:
    """Converts a predictor to ONNX, for one utterance of one length: jax2onnx lacks symbolic sizes here."""
    try:
        import onnxruntime  # noqa: F401  needed to compute the example
        from jax2onnx import to_onnx
    except ImportError as error:
        raise UserError(
            f"--format=onnx: {error}: pip install -e '.[onnx]' && pip install --no-deps jax2onnx==0.17.1"
        ) from error
    compute = _padded_compute(predictor, step, remainder)
    tasks = [task.name for task in predictor.tasks]
    return to_onnx(
        lambda waveform, samples: tuple(compute(waveform, samples)[task] for task in tasks),
        [
            jax.ShapeDtypeStruct((1, _longest(predictor, 'onnx')), jnp.float32),
            jax.ShapeDtypeStruct((1,), jnp.int32),
        ],
        input_names=['waveform', 'samples'],
        output_names=tasks,
    ).SerializeToString()


def _longest(predictor: Predictor, form: str) -> int:
    """Samples of the longest utterance that an exported program takes; ONNX pads to it, so there no more than `predict` needs."""
    rate = predictor.front_end.sample_rate
    return window_samples(rate)[0] if form == 'onnx' else int(_LONGEST_SECONDS * rate)


def _example(predictor: Predictor) -> dict[str, np.ndarray]:
    """Bursts of noise, which no corpus licence covers, with the outputs of the predictor."""
    samples = np.array([19200, 14321], np.int32)
    loudness = 0.1 * np.sin(np.arange(samples.max()) / 1000) ** 2
    waveform = loudness * np.random.default_rng(0).standard_normal((2, samples.max()))
    waveform = np.clip(waveform, -1, 1).astype(np.float32)
    waveform[1, samples[1] :] = 0
    outputs = jax.device_get(predictor.compute(waveform, samples))
    outputs = {f'output_{task}': value for task, value in outputs.items()}
    return {'waveform': waveform, 'samples': samples, **outputs}


def _card(workdir: Path, config: dict[str, Any], predictor: Predictor, form: str) -> dict[str, Any]:
    """The content of card.json, but for the checksums."""
    card, summary = read_card(workdir), workdirs.read_summary(workdir, 'final')
    trained_on = list(
        dict.fromkeys([*card.get('trained_on', [card['corpus']]), *config['unlabelled']])
    )
    rate, longest = predictor.front_end.sample_rate, _longest(predictor, form)
    whole, window = window_samples(rate)
    fixed = form == 'onnx'
    here, packages = environment(), ['jax', 'jaxlib', *(['jax2onnx', 'onnx'] if fixed else [])]
    return {
        'format': form,
        'notice': 'SYNTHETIC: trained on synthetic speech, not meaningful for real speech'
        if card['synthetic']
        else f'trained on speech of {", ".join(trained_on)}; results on other speech may differ',
        'intended_use': 'research on speech emotion recognition, with recordings like those of the corpora in `trained_on`',
        'limits': [
            'labels are what actors played or raters heard, not what a person feels',
            'not for decisions about people, such as hiring, grading, policing, credit, diagnosis or care; the European '
            'Union prohibits inferring emotions at work and in education, with few exceptions (AI Act, Article 5(1)(f))',
            'recordings above 5 s are predicted in windows, `test` on whole utterances',
            'other languages, rooms, microphones, ages and spontaneous speech may give other results than `test`',
            '`predict` flags silence and most noise, but takes music, animals and babies for speech; `run` flags nothing',
        ],
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
                'padding': 'after the utterance; its content is ignored',
            },
            'samples': {
                'dtype': 'int32',
                'shape': [1] if fixed else ['B'],
                'unit': 'length of each utterance in samples, without padding; at most S',
                'minimum': round(screening.MIN_SECONDS * rate),
                'maximum': longest,
                'whole': whole,
                'window': window,
                'longer': 'than `whole`: `predict` averages the outputs for consecutive windows',
            },
        },
        'outputs': {task.name: _output(task, fixed) for task in predictor.tasks},
        'test': _test(card, predictor.tasks),
        'calibration': card.get('calibration'),
        'platforms': ['onnxruntime'] if fixed else list(PLATFORMS),
        'example': f'{standalone.EXAMPLE}: bursts of noise with the outputs of the predictor; `python run.py` recomputes them',
        'config_hash': card['config_hash'],
        'seed': card['seed'],
        'trained_with': {name: summary['environment'][name] for name in ('commit', 'versions')},
        'exported_with': {
            'commit': here['commit'],
            'versions': {name: importlib.metadata.version(name) for name in packages},
        },
        'licence': 'run.py, screening.py: Apache-2.0. The parameters were learnt from the corpora in `trained_on` (and from a '
        'noise corpus, if the augmentation uses one); their use depends on the licences of those corpora (tfds_builders/<corpus>/'
        'README.md) and of a pretrained encoder (Whisper: MIT)'
        + (f'; see {_LICENCE}' if (workdir / _LICENCE).exists() else ''),
    }


def _test(card: dict[str, Any], tasks: tuple[Task, ...]) -> dict[str, Any] | None:
    """The card's entry for the results on clean speech; None if the run was not tested on any of its own corpus."""
    if not any(name.startswith('clean') for name in card['conditions']):
        return None
    results = {}
    for task in tasks:
        name = workdirs.result_name('clean', task.name)
        result = card['conditions'].get(name, {})
        calibration = card.get('calibration', {}).get(name, {})
        fields = ('n', 'uar', 'uar_ci95', 'ccc', 'ccc_ci95', 'recall')
        results[task.name] = {field: result[field] for field in fields if field in result}
        # With the temperature that the exported model has, too.
        ece = 'ece_calibrated' if 'temperature' in calibration else 'ece'
        results[task.name]['ece'] = calibration.get(ece)
    models = (
        'one for each fold, trained without its test speakers; the exported model is trained on all'
    )
    if card['corpus'] not in card.get('trained_on', [card['corpus']]):
        models = 'the exported model, on a corpus unseen in training'
    return {
        'models': models,
        'corpus': card['corpus'],
        'protocol': card['protocol'],
        'folds': card['n_folds'],
        'results': results,
    }


def _output(task: Task, fixed: bool) -> dict[str, Any]:
    """The card's entry for the output of a task."""
    shape = [1 if fixed else 'B', task.outputs]
    if task.kind == 'regression':
        content = {'unit': 'rating, 1 to 5', 'labels': [task.name]}
    else:
        content = {'unit': 'probability', 'labels': list(task.classes)}
    return {'kind': task.kind, 'dtype': 'float32', 'shape': shape, **content}
