"""What all tests share: XLA settings, a tiny corpus of beeps, a trained run, and commands as processes."""

import atexit
import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import types
from pathlib import Path

import hypothesis
import numpy as np
import pytest

# Background jobs ignore Ctrl-C, and so would the commands that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Under nohup, SIGHUP is ignored likewise; child processes reset signals that are handled here.
if hasattr(signal, 'SIGHUP') and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)


def known(*flags: str) -> str:
    """The flags that this version of XLA knows: an unknown one ends the process."""
    while flags:
        probe = subprocess.run(
            [sys.executable, '-c', 'import jax; jax.devices()'],
            env={**os.environ, 'XLA_FLAGS': ' '.join(flags), 'JAX_PLATFORMS': 'cpu'},
            capture_output=True,
            text=True,
        )
        left = tuple(flag for flag in flags if flag not in probe.stderr)
        if not probe.returncode or left == flags:
            break
        flags = left
    return ' '.join(flags)


# Little optimisation: the tests spend their time compiling, not computing. Probed once, not by every worker.
if 'QUICK_XLA_FLAGS' not in os.environ:
    os.environ['QUICK_XLA_FLAGS'] = known(
        '--xla_backend_optimization_level=0',
        '--xla_llvm_disable_expensive_passes=true',
        '--xla_cpu_use_fusion_emitters=false',
    )
QUICK = os.environ['QUICK_XLA_FLAGS']
os.environ.setdefault('XLA_FLAGS', QUICK)
# All tests share what they compile; an entry that is read half-written is compiled again. The process that starts the
# workers makes the folder before them, and deletes it.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, os.environ['JAX_COMPILATION_CACHE_DIR'], ignore_errors=True)
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
# The same examples every time: failures are reproducible.
hypothesis.settings.register_profile('fixed', derandomize=True)
hypothesis.settings.load_profile('fixed')

ROOT = Path(__file__).resolve().parent.parent
# The files that take longest, in the core tests or the slow ones, for --dist loadfile: started last, one would run alone.
LONGEST = (
    'tests/test_main.py',
    'tests/training/test_stopping.py',
    'tests/test_kills.py',
    'tests/training/test_parallel.py',
    'tests/training/test_long_run.py',
    'tests/objectives/test_adversarial.py',
    'tests/grid/test_grid.py',
    'tests/test_notebooks.py',
    'tests/test_config_fuzz.py',
    'tests/evaluation/test_robustness.py',
    'tests/evaluation/test_reported.py',
    'tests/training/test_regression.py',
    'tests/tfds_builders/test_iemocap.py',
    'tests/tfds_builders/test_msp_improv.py',
    'tests/runs/test_untrusted.py',
    'tests/test_benchmarks.py',
    'tests/reporting/test_html_page.py',
    'tests/models/test_end_to_end.py',
    'tests/test_examples.py',
    'tests/training/test_resume.py',
    'tests/transforms/test_augment.py',
)
EMOTIONS = ('angry', 'happy', 'neutral', 'sad')
RATINGS = {'angry': (4.5, 1.5, 4.5), 'happy': (4, 5, 3), 'neutral': (3, 3, 3), 'sad': (1, 2, 2)}


def pytest_configure(config) -> None:
    config.option.loadscopereorder = False  # xdist would sort files by their number of tests


def pytest_collection_modifyitems(items) -> None:
    """Moves the longest files to the front."""
    files = [str(ROOT / name) for name in LONGEST]
    rank = lambda item: files.index(str(item.path)) if str(item.path) in files else len(files)
    items.sort(key=rank)


def write_beeps(
    folder: Path, speakers: int = 6, takes: int = 2, seed: int = 0, prefix: str = 's'
) -> None:
    """A csv corpus: the emotion is the pitch, the speaker the timbre; lengths from 0.5 to 1.4 s."""
    import soundfile

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    with (folder / 'metadata.csv').open('w', newline='') as file:
        table = csv.writer(file)
        names = ('arousal', 'valence', 'dominance')
        table.writerow(['file', 'emotion', 'speaker', 'gender', 'language', *names])
        for speaker in range(speakers):
            for number, emotion in enumerate(EMOTIONS):
                for take in range(takes):
                    time = np.arange(int(16000 * rng.uniform(0.5, 1.4))) / 16000
                    pitch = (200 + 150 * number) * rng.uniform(0.9, 1.1)
                    wave = np.sin(2 * np.pi * pitch * time) + 0.3 * np.sin(
                        2 * np.pi * pitch * (2 + speaker) * time
                    )
                    wave = 0.2 * wave + 0.02 * rng.standard_normal(len(time))
                    name = f'{prefix}{speaker}_{emotion}_{take}.wav'
                    soundfile.write(folder / name, wave, 16000, subtype='PCM_16')
                    gender = 'female' if speaker % 2 else 'male'
                    language = 'de' if speaker < 3 else 'en'
                    name_of_speaker = f'{prefix}{speaker}'
                    table.writerow(
                        [name, emotion, name_of_speaker, gender, language, *RATINGS[emotion]]
                    )


@pytest.fixture(scope='session')
def beeps(tmp_path_factory) -> dict[str, str]:
    """data_dir and manual_dir of the prepared corpora csv_corpus/beeps and csv_corpus/hums."""
    root = tmp_path_factory.mktemp('beeps')
    write_beeps(root / 'manual' / 'beeps')
    write_beeps(root / 'manual' / 'hums', speakers=2, seed=1, prefix='h')
    os.environ['SER_JAX_MANUAL_DIR'], before = (
        str(root / 'manual'),
        os.environ.get('SER_JAX_MANUAL_DIR'),
    )
    from ser_jax.prepare import open_prepared

    for name in ('csv_corpus/beeps', 'csv_corpus/hums'):
        open_prepared(name, data_dir=root / 'records')
    if before is None:
        del os.environ['SER_JAX_MANUAL_DIR']
    else:
        os.environ['SER_JAX_MANUAL_DIR'] = before
    return {'data_dir': str(root / 'records'), 'manual_dir': str(root / 'manual')}


@pytest.fixture(scope='session')
def tiny_encoder(tmp_path_factory) -> Path:
    """A folder with the weights of a tiny random encoder, for the environment variable SER_JAX_ENCODER."""
    import encoder_folders

    return encoder_folders.write_encoder(tmp_path_factory.mktemp('encoder'))


@pytest.fixture(scope='session')
def demo_records(tmp_path_factory) -> Path:
    """A data_dir for demo_speech, which the first run prepares."""
    return tmp_path_factory.mktemp('demo') / 'records'


@pytest.fixture(scope='session')
def voices(tmp_path_factory) -> str:
    """A folder with eight recordings that pass as speech; the beeps do not."""
    import soundfile

    from tfds_builders.core import catalogue

    folder = tmp_path_factory.mktemp('voices')
    load = catalogue.builder_class('demo_speech').LOAD
    for utterance in catalogue.list_corpus('demo_speech', None).utterances[:384:48]:
        name = utterance.id.replace('/', '_')
        soundfile.write(folder / f'{name}.wav', load(utterance, 16000), 16000)
    return str(folder)


@pytest.fixture(scope='session')
def trained(beeps, tmp_path_factory):
    """(workdir, config) of a finished smoke run of MTL-AUG with a final model; not to be changed."""
    from configs.mtl_aug import get_config

    workdir = tmp_path_factory.mktemp('trained') / 'run'
    config = get_config('csv_corpus/beeps,settings=emodb,smoke')  # the recipe of its size
    config.data.data_dir = beeps['data_dir']
    config.optimiser.learning_rate = 0.02
    config.update(final=True, steps=60, eval_every=20)
    done = run(
        'ser_jax.main',
        '--config=configs/mtl_aug.py:csv_corpus/beeps,smoke',
        f'--config.data.data_dir={config.data.data_dir}',
        '--config.optimiser.learning_rate=0.02',
        '--config.final=True',
        '--config.steps=60',
        '--config.eval_every=20',
        f'--workdir={workdir}',
    )
    assert done.returncode == 0, done.stderr
    return workdir, config


@pytest.fixture(scope='session')
def undisturbed(beeps, tmp_path_factory) -> Path:
    """The workdir of the short training of `runs_on_disk`, which nothing interrupts; not to be changed."""
    from runs_on_disk import command

    workdir = tmp_path_factory.mktemp('undisturbed') / 'run'
    done = run(*command(beeps, workdir))
    assert done.returncode == 0, done.stderr
    return workdir


def load(path: str) -> types.ModuleType:
    """Imports a Python file outside of the packages; the path is relative to the root of the repository."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments: str, devices: int = 1, **environment: str) -> subprocess.CompletedProcess:
    """Runs `python -m …` at the root of the repository on simulated devices."""
    return subprocess.run(
        [sys.executable, '-m', *arguments],
        cwd=ROOT,
        env={**os.environ, **simulated(devices), **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


def simulated(devices: int) -> dict[str, str]:
    """Environment for JAX on several simulated CPU devices."""
    return {
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices} {QUICK}',
        'JAX_PLATFORMS': 'cpu',
    }


def same_on_devices(script: str, devices: int = 4) -> None:
    """Runs a Python script on simulated devices and asserts that it ends by printing `same`."""
    environment = {
        **os.environ,
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'JAX_PLATFORMS': 'cpu',
        'PYTHONPATH': os.pathsep.join(sys.path),
    }
    result = subprocess.run(
        [sys.executable, '-c', textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == 'same', result.stderr[-3000:]


def metrics(workdir: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]


@pytest.fixture
def tones_are_speech(monkeypatch):
    """Accepts any sound as speech: the test corpus consists of beeps."""
    monkeypatch.setattr('ser_jax.audio.screening.VOICED_SHARE', -1)
    monkeypatch.setattr('ser_jax.audio.screening.TONALITY_SPREAD', -1)
