"""Every benchmark runs; measured values are not asserted."""

import collections
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, run, simulated

from benchmarks import (
    accelerator,
    build,
    corpus_levels,
    emodb_listeners,
    encoder,
    end_to_end_step,
    extraction,
    flops,
    front_end,
    memory,
    profile_step,
    screening,
    setting,
    start,
    train_step,
    trainers,
)
from ser_jax.runs import finished
from ser_jax.runtime.errors import UserError

_HAS_TORCH = importlib.util.find_spec('torch') is not None
_NEEDS_TORCH = pytest.mark.skipif(
    not (_HAS_TORCH and importlib.util.find_spec('transformers')), reason='needs the extra [parity]'
)


def _run(module, monkeypatch, *arguments):
    monkeypatch.setattr(sys, 'argv', [module.__name__, *arguments])
    module.main()


def test_train_step(monkeypatch, tmp_path):
    out = tmp_path / 'times.json'
    flags = ['--config=demo_speech,smoke', '--block=1', '--blocks=1', f'--out={out}']
    _run(train_step, monkeypatch, *flags, '--without=torch')
    rows = json.loads(out.read_text())['rows']
    assert set(rows) == {'ser_jax', 'ser_jax with augmentations'}


def test_end_to_end_step(monkeypatch, tmp_path):
    out = tmp_path / 'times.json'
    flags = ['--batch=2', '--seconds=0.06', '--blocks=1', f'--out={out}']
    _run(end_to_end_step, monkeypatch, *flags, '--without=torch')
    assert set(json.loads(out.read_text())['rows']) == {'ser_jax'}


@pytest.mark.parametrize('without', ['torch', pytest.param('compile', marks=_NEEDS_TORCH)])
def test_encoder(monkeypatch, tmp_path, without):
    out = tmp_path / 'times.json'
    flags = ['--utterances=1', '--seconds=0.1', '--rounds=1', f'--without={without}']
    _run(encoder, monkeypatch, *flags, f'--out={out}')
    rows = json.loads(out.read_text())['rows']
    libraries = ['ser_jax'] if without == 'torch' else ['ser_jax', 'PyTorch eager']
    assert [(row['encoder'], row['what'], row['library']) for row in rows] == [
        (name, what, library)
        for name in ('whisper_tiny', 'wav2vec2_base')
        for what in ('forward', 'step')
        for library in libraries
    ]


def test_extraction_with_an_encoder(monkeypatch, tmp_path, voices):
    out = tmp_path / 'times.json'
    _run(extraction, monkeypatch, '--encoder=whisper_tiny', voices, f'--out={out}')
    result = json.loads(out.read_text())
    assert result['audio_seconds'] > 8
    assert result['gigabytes'] > 0.1


@_NEEDS_TORCH
def test_encoder_parity(monkeypatch, capsys):
    from benchmarks import encoder_parity

    _run(encoder_parity, monkeypatch, '--cases=hubert-group_norm-small')
    assert '| hubert | group norm, post-norm | small, 2 × 48 |' in capsys.readouterr().out


def test_front_end(monkeypatch, tmp_path):
    out = tmp_path / 'times.json'
    _run(front_end, monkeypatch, '--minutes=0.2', '--rounds=1', f'--out={out}')
    assert {'librosa', 'records (NumPy)', 'JAX, batches'} <= set(
        json.loads(out.read_text())['times_real_time']
    )


def test_build(monkeypatch, tmp_path, beeps):
    monkeypatch.setenv('SER_JAX_MANUAL_DIR', beeps['manual_dir'])
    out = tmp_path / 'build.json'
    flags = ['csv_corpus/beeps', '--hours=0.01', f'--folder={tmp_path}', f'--out={out}']
    _run(build, monkeypatch, *flags)
    rows = json.loads(out.read_text())['rows']
    assert set(rows) == {'csv_corpus/beeps', 'made up'}
    assert rows['made up']['hours'] == pytest.approx(0.01)
    assert rows['made up']['megabytes'] > 50


@pytest.mark.slow
def test_start(monkeypatch, tmp_path):
    out = tmp_path / 'times.json'
    _run(start, monkeypatch, '--starts=1', f'--out={out}')
    assert set(json.loads(out.read_text())['seconds']) == {'--help', 'first step, warm'}


@pytest.mark.slow
def test_memory(monkeypatch, tmp_path):
    out = tmp_path / 'memory.json'
    flags = ['--hours=0.02', '--steps=2', f'--folder={tmp_path / "made_up"}', f'--out={out}']
    _run(memory, monkeypatch, *flags)
    assert json.loads(out.read_text())['megabytes'] > 100


def test_profile_step(monkeypatch, capsys, tmp_path):
    out = tmp_path / 'profile.json'
    flags = ['--config=demo_speech,smoke', '--batch_size=2', '--steps=1', '--augmented']
    _run(profile_step, monkeypatch, *flags, f'--out={out}')
    assert 'ms a step' in capsys.readouterr().out.splitlines()[0]
    result = json.loads(out.read_text())
    assert {'block_0 forward', 'block_0 backward', 'BLSTM backward', 'augmentations'} <= set(
        result['milliseconds_by_part']
    )
    assert result['work']['products_gflop'] > 0


@pytest.mark.slow
def test_parallel_runs_equal_separate_ones():
    flags = ('--config=demo_speech,smoke', '--runs=4', '--check')
    result = run('benchmarks.parallel_runs', *flags, devices=4)
    assert result.returncode == 0, result.stderr
    assert float(re.search(r'differ by (\S+)', result.stdout)[1]) < 1e-4


@pytest.mark.slow
def test_parallel_runs(tmp_path):
    out = tmp_path / 'times.json'
    flags = ('--config=demo_speech,smoke', '--runs=2', '--blocks=1', f'--out={out}')
    result = run('benchmarks.parallel_runs', *flags, devices=2)
    assert result.returncode == 0, result.stderr
    seconds = json.loads(out.read_text())['seconds_per_step_and_run']
    assert set(seconds) == {'side by side', 'one after the other'}


# Dependencies of ser_jax, without absl, which Flax and Optax need.
_NOT_ON_AN_ACCELERATOR = 'grain librosa matplotlib ml_collections sklearn soundfile soxr tensorboardX tensorflow_datasets'


@pytest.mark.parametrize(
    ('absent', 'precisions'),
    [
        ('torch', 'bfloat16'),
        pytest.param(
            '',
            'float32,tf32,bfloat16',
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(not _HAS_TORCH, reason='PyTorch is not installed'),
            ],
        ),
    ],
)
def test_accelerator_needs_jax_flax_and_optax_only(monkeypatch, tmp_path, absent, precisions):
    saved, out = tmp_path / 'saved.npz', tmp_path / 'times.json'
    _run(accelerator, monkeypatch, '--config=demo_speech,smoke', f'--save={saved}')
    small, variables = accelerator.load(saved)
    # With four steps the learning rate peaks after the first, and rounding errors grow.
    accelerator.save(saved, dataclasses.replace(small, steps=400), variables)
    source = (
        f'import sys; sys.modules |= dict.fromkeys({f"{_NOT_ON_AN_ACCELERATOR} {absent}".split()}); '
        'from benchmarks import accelerator; accelerator.main()'
    )
    count = len(precisions.split(','))
    flags = [f'--load={saved}', f'--precisions={precisions}', '--batch_sizes=2', '--block=1']
    flags += ['--blocks=1', f'--peak_tflops={",".join(["0.1"] * count)}', f'--out={out}']
    result = subprocess.run(
        [sys.executable, '-c', source, *flags],
        cwd=ROOT,
        env={**os.environ, **simulated(1)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    rows = json.loads(out.read_text())['rows']
    assert len(rows) == count * (1 if absent else 2)
    assert all(row['utilisation'] > 0 for row in rows)


def test_accelerator_times_encoders(monkeypatch, tmp_path):
    saved, out = tmp_path / 'saved.npz', tmp_path / 'times.json'
    monkeypatch.setattr(accelerator, '_has_torch', lambda: False)
    _run(accelerator, monkeypatch, '--config=demo_speech,smoke', f'--save={saved}')
    flags = [f'--load={saved}', '--precisions=bfloat16', '--batch_sizes=1', '--block=1']
    flags += ['--blocks=1', '--encoders=whisper_tiny', f'--out={out}']
    _run(accelerator, monkeypatch, *flags)
    rows = [row for row in json.loads(out.read_text())['rows'] if 'encoder' in row]
    assert [(row['what'], row['precision']) for row in rows] == [
        ('forward', 'bfloat16'),
        ('step', 'bfloat16'),
    ]


def test_the_operations_of_loops_and_convolutions_are_counted():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 5))
    convolve = lambda x: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    assert flops.matrix_flops(jax.jit(convolve), x) == 2 * (2 * 8 * 8) * (3 * 3 * 3 * 5)
    square = jnp.ones((4, 4))
    power = lambda x: jax.lax.fori_loop(0, 7, lambda _, y: y @ square, x)
    unused = lambda x: (square @ x, power(x))[1]
    assert flops.matrix_flops(jax.jit(unused), square) == 7 * 2 * 4**3


@pytest.mark.skipif(not _HAS_TORCH, reason='PyTorch is not installed (extra [bench])')
@pytest.mark.parametrize('corpus', ['demo_speech', 'ravdess'])
def test_the_network_in_pytorch_is_the_same(corpus):
    config = train_step.get_config(corpus)
    config.batch_size, config.crop_frames = 4, 64
    losses = trainers.same_losses(setting.Setting.of(config))
    assert losses[0][0] > losses[-1][0]  # and it learns


@pytest.mark.parametrize('path', sorted((ROOT / 'results').glob('opensmile_*.json')), ids=str)
def test_the_results_cite_the_measured_baselines(path):
    result = json.loads(path.read_text())
    page = ' '.join((ROOT / 'results' / 'README.md').read_text().split())
    for machine in ('svc', 'svc_balanced'):
        assert f'{100 * result[machine]["uar"]:.1f}' in page
    assert f'benchmarks.opensmile_baseline {result["corpus"]}' in page


@pytest.mark.skipif(not _HAS_TORCH, reason='PyTorch is not installed (extra [bench])')
def test_the_end_to_end_network_in_pytorch_is_the_same():
    losses = end_to_end_step.same_losses(end_to_end_step.make_batch(2, 0.1))
    assert losses[0][0] > losses[-1][0]  # and it learns


def test_screening(beeps, capsys, monkeypatch):
    _run(screening, monkeypatch, f'{beeps["manual_dir"]}/hums')
    assert re.search(r'^hums +16 ', capsys.readouterr().out, re.MULTILINE)


def test_emodb_listeners(tmp_path, monkeypatch, capsys):
    stored = ROOT / 'results' / 'mtl_aug'
    right = collections.Counter()
    runs = finished.list_runs(stored)
    for folder in runs:
        rows, _ = finished.read_condition(folder, 'clean')
        right.update(dict(zip(rows.id.tolist(), (rows.prediction == rows.label).tolist())))
    count = len(runs)
    # Listeners that equal the runs, in the layout of EMO-DB's file, with its decimal commas and hard spaces.
    lines = ['Nr.\tSatz\terkannt\tnatuerlich']
    for number, (name, times) in enumerate(right.items(), 1):
        share = f'{100 * times / count:.2f}'.replace('.', ',')
        lines.append(f'{number}\xa0\t{name.removeprefix("wav/")}.wav\t{share}\xa0\xa0\t50,00\xa0')
    (tmp_path / 'erkennung.txt').write_text('\n'.join(lines), encoding='latin-1')
    out = tmp_path / 'out.json'
    flags = [str(stored), f'--manual_dir={tmp_path}', f'--out={out}']
    _run(emodb_listeners, monkeypatch, *flags)
    result = json.loads(out.read_text())
    assert result['runs'] == count
    every = result['emotions']['all']
    assert every['recordings'] == sum(
        result['emotions'][name]['recordings'] for name in ('angry', 'happy', 'neutral', 'sad')
    )
    mean = 100 * sum(right.values()) / count / len(right)
    assert every['listeners'] == pytest.approx(mean, abs=0.06)
    assert every['listeners_where_every_run_is_right'] == 100
    assert every['listeners_where_fewer_than_half_are'] < 50
    assert every['spearman'] == 1
    (tmp_path / 'erkennung.txt').write_text('\n'.join(lines[:100]), encoding='latin-1')
    with pytest.raises(SystemExit):
        _run(emodb_listeners, monkeypatch, *flags)
    assert 'the listening test has no' in capsys.readouterr().err


def test_corpus_levels(monkeypatch, tmp_path, capsys, demo_records):
    sine = 0.5 * np.sin(2 * np.pi * 200 * np.arange(32000) / 16000)
    loud = np.round(32768 * sine).astype(np.int16)
    expected = 10 * np.log10(0.5**2 / 2)
    assert corpus_levels.level(loud) == pytest.approx(expected, abs=0.01)
    silence = np.zeros(48000, np.int16)
    soft = np.round(loud / 100).astype(np.int16)  # 40 dB below: no part of it
    assert corpus_levels.level(np.concatenate([silence, loud, soft])) == pytest.approx(
        expected, abs=0.01
    )
    with pytest.raises(UserError, match='digital silence'):
        corpus_levels.level(silence)
    out = tmp_path / 'out.json'
    flags = [f'--data_dir={demo_records}', f'--out={out}']
    _run(corpus_levels, monkeypatch, 'demo_speech', *flags)
    found = json.loads(out.read_text())['demo_speech']
    assert found['recordings'] > 300
    assert -60 < found['mean_dbfs'] < 0
    emotions = found['mean_dbfs_by_emotion']
    assert set(emotions) == {'angry', 'happy', 'neutral', 'sad'}
    assert min(emotions.values()) <= found['mean_dbfs'] <= max(emotions.values())
    with pytest.raises(SystemExit):
        _run(corpus_levels, monkeypatch, 'no_such_corpus', *flags)
    assert 'no_such_corpus' in capsys.readouterr().err
