"""Exports: equal to the predictor, written atomically, checked, and never executed beyond the model."""

import functools
import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import soundfile
from conftest import ROOT, run
from jax import lax

from ser_jax import export
from ser_jax.audio import screening
from ser_jax.serving import export as exporting
from ser_jax.serving import standalone
from ser_jax.serving.predictor import load

RATE = 16000
HOSTILE = '\x1b[2J__import__("os").system("touch executed") ${x} <script>'


@pytest.fixture(scope='module')
def workdir(trained):
    return trained[0]


@pytest.fixture(scope='module')
def finished(workdir, beeps, tmp_path_factory):
    """System -> workdir of a finished run with a final model, trained on first use."""

    @functools.cache
    def train(system):
        if system == 'mtl_aug':
            return workdir
        options = {'end_to_end': 'regression', 'adversarial_autoencoder': 'functionals'}[system]
        folder = tmp_path_factory.mktemp(system) / 'run'
        done = run(
            'ser_jax.main',
            f'--config=configs/{system}.py:csv_corpus/beeps,smoke,{options}',
            f'--config.data.data_dir={beeps["data_dir"]}',
            f'--workdir={folder}',
            '--config.final=True',
            '--config.steps=1',
            SER_JAX_MANUAL_DIR=beeps['manual_dir'],
        )
        assert done.returncode == 0, done.stderr
        return folder

    return train


@pytest.fixture(scope='module')
def exported(workdir, tmp_path_factory):
    """An export that no test may change."""
    out = tmp_path_factory.mktemp('exported') / 'deeper' / 'out'
    assert export.main([f'--workdir={workdir}', f'--out={out}']) == 0
    return out


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the export that a test may change."""
    return shutil.copytree(exported, tmp_path / 'copy')


predictor = functools.cache(load)  # several tests share the compiled programs
model = functools.cache(standalone.load)


def change_card(folder, change):
    card = json.loads((folder / 'card.json').read_text())
    change(card)
    (folder / 'card.json').write_text(json.dumps(card))


def seal(folder):
    """Updates the checksums in the card."""
    for name in ('model.stablehlo', 'example.npz'):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        change_card(
            folder, lambda card, name=name, digest=digest: card['sha256'].update({name: digest})
        )


def change_example(folder, **arrays):
    with np.load(folder / 'example.npz') as stored:
        np.savez(folder / 'example.npz', **{**stored, **arrays})
    seal(folder)


def beep(seconds):
    time = np.arange(int(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * 300 * time * (1 + 0.2 * np.sin(5 * time) + 0.1 * seconds))
    return (6000 * wave + 500 * np.random.default_rng(0).standard_normal(len(time))).astype(
        np.int16
    )


def same_as_predictor(workdir, folder, lengths, spare=0):
    """Runs a batch with noise in the padding through export and predictor, and compares the outputs."""
    waveforms = [beep(seconds) for seconds in lengths]
    samples = np.array([len(waveform) for waveform in waveforms])
    shape = len(lengths), samples.max() + spare
    batch = np.random.default_rng(1).normal(0, 0.3, shape).astype(np.float32)
    for row, waveform in zip(batch, waveforms):
        row[: len(waveform)] = waveform / np.float32(32768)
    found = model(folder).run(batch, samples)
    compute = predictor(workdir).compute
    whole = lambda wave: (wave[None] / np.float32(32768), np.int32([len(wave)]))
    expected = [compute(*whole(waveform)) for waveform in waveforms]
    assert list(found) == sorted(expected[0])
    for task in found:
        outputs = [one[task][0] for one in expected]
        np.testing.assert_allclose(found[task], outputs, atol=1e-5)
    return found


@pytest.mark.parametrize(
    ('lengths', 'spare'),
    [((0.3,), 0), ((2.7, 1.0), 77), ((10.0, 0.3, 2.7, 1.0), 0)],
)
def test_equals_the_predictor(workdir, exported, lengths, spare):
    found = same_as_predictor(workdir, exported, lengths, spare)
    if len(lengths) > 2:
        # The temperature of a smoke run leaves little difference between predictions.
        assert np.ptp(found['emotion'], axis=0).max() > 1e-3, 'all predictions are equal'


@pytest.mark.slow
@pytest.mark.parametrize('system', ['end_to_end', 'adversarial_autoencoder'])
def test_equals_the_predictor_of_other_systems(finished, tmp_path, system):
    workdir = finished(system)
    assert export.main([f'--workdir={workdir}', f'--out={tmp_path / "out"}']) == 0
    for lengths, spare in (((1.0, 0.3, 2.7), 33), ((10.0, 0.3), 0)):
        same_as_predictor(workdir, tmp_path / 'out', lengths, spare)


def test_card(workdir, exported):
    card = json.loads((exported / 'card.json').read_text())
    files = {path.name: path.read_bytes() for path in exported.iterdir()}
    assert set(files) == {'model.stablehlo', 'card.json', 'example.npz', 'run.py', 'screening.py'}
    # No file holds a path of this machine.
    assert not any(
        str(place).encode() in data for data in files.values() for place in (ROOT, workdir)
    )
    waveform, samples = card['inputs']['waveform'], card['inputs']['samples']
    assert (waveform['dtype'], waveform['shape'], waveform['sample_rate']) == (
        'float32',
        ['B', 'S'],
        RATE,
    )
    assert (samples['dtype'], samples['shape']) == ('int32', ['B'])
    assert (samples['minimum'], samples['maximum']) == (1600, 160000)
    emotion = card['outputs']['emotion']
    result = json.loads((workdir / 'results.json').read_text())
    assert emotion['labels'] == result['tasks']['emotion']
    assert sorted(emotion['labels']) == ['angry', 'happy', 'neutral', 'sad']
    assert emotion['shape'] == ['B', 4]
    assert card['synthetic'] is result['synthetic'] is False
    for field in ('system', 'corpus', 'config_hash', 'seed'):
        assert card[field] == result[field]
    assert card['trained_with']['versions']['jax'] == jax.__version__
    assert card['calibration'] == result['calibration']
    tested, clean = card['test']['results']['emotion'], result['conditions']['clean']
    assert tested['ece'] == result['calibration']['clean']['ece_calibrated']
    for field in ('n', 'uar', 'uar_ci95', 'recall'):
        assert tested[field] == clean[field]
    assert len(tested['recall']) == 4
    assert 'research' in card['intended_use']
    assert any('not for decisions about people' in limit for limit in card['limits'])
    stored = files['model.stablehlo']
    assert card['sha256']['model.stablehlo'] == hashlib.sha256(stored).hexdigest()
    program = jax.export.deserialize(bytearray(stored))
    assert list(program.platforms) == card['platforms'] == ['cpu', 'cuda', 'tpu']
    assert [str(aval.shape) for aval in program.in_avals] == ['(B, S)', '(B,)']


def execute(folder, *arguments, blocked=()):
    """Runs run.py of an export in a process that lacks some packages."""
    blocked = ('ser_jax', 'flax', 'optax', 'orbax', 'librosa', 'grain', 'absl', *blocked)
    code = (
        'import runpy, sys\n'
        f'sys.modules.update(dict.fromkeys({blocked}))\n'  # None: cannot be imported
        f'sys.path[0] = {str(folder)!r}\n'
        'runpy.run_path(sys.path[0] + "/run.py", run_name="__main__")'
    )
    command = [sys.executable, '-c', code, *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_runs_without_ser_jax(exported):
    done = execute(exported)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)['emotion'] < 1e-5


def answers(workdir, *files):
    """What `predict --format=json` prints."""
    done = run('ser_jax.predict', f'--workdir={workdir}', '--format=json', *map(str, files))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [{key: value for key, value in line.items() if key != 'model'} for line in lines]


def assert_same_answers(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one.keys() == other.keys()
        for key, value in other.items():
            # Ratings are printed with three digits.
            tolerance = {dict: 1e-5, float: 1.1e-3}.get(type(value))
            assert one[key] == (pytest.approx(value, abs=tolerance) if tolerance else value)


@pytest.fixture(scope='module')
def recordings(voices, tmp_path_factory):
    """Folder of files: short and long speech, stereo at another rate, clipped, and nothing to label."""
    folder = tmp_path_factory.mktemp('recordings')
    speech = np.concatenate([soundfile.read(path)[0] for path in sorted(Path(voices).iterdir())])
    speech = np.tile(speech, 2)[: 25 * RATE]
    pause = np.zeros(12 * RATE)
    mixed = np.concatenate([speech[: 12 * RATE], pause, speech[12 * RATE :]])
    loud = np.clip(speech[: 2 * RATE] * 20, -1, 1)
    for name, wave, rate in (
        ('short', speech[:RATE], RATE),
        ('long', speech, RATE),
        ('pause', mixed, RATE),
        ('clipped', np.append(speech, loud), RATE),
        ('stereo', np.stack([speech[: 3 * RATE], 0.5 * speech[: 3 * RATE]], 1), 44100),
        ('six', np.stack([speech[:RATE]] + 5 * [np.zeros(RATE)], 1), RATE),
        ('silent', pause, RATE),
        ('noise', np.random.default_rng(0).normal(0, 0.1, RATE), RATE),
        ('click', speech[:800], RATE),
    ):
        soundfile.write(folder / f'{name}.wav', wave, rate, subtype='PCM_16')
    return folder


def test_answers_are_those_of_predict(workdir, exported, recordings):
    files = sorted(recordings.iterdir())
    expected = answers(workdir, *files)
    flags = {Path(one['file']).stem: one['flags'] for one in expected}
    assert flags == {name: [] for name in ('short', 'long', 'pause', 'stereo', 'six')} | {
        'clipped': ['clipped'],
        'silent': ['silent'],
        'noise': ['non_speech'],
        'click': ['too_short'],
    }
    done = execute(exported, *files)
    assert done.returncode == 0, done.stderr
    assert_same_answers([json.loads(line) for line in done.stdout.splitlines()], expected)
    card = json.loads((exported / 'card.json').read_text())
    assert done.stderr.startswith(f'warning: {card["notice"]}\n')
    assert 'silent.wav: silent: no label\n' in done.stderr


def test_wav_files_need_no_soundfile(exported, recordings, tmp_path):
    files = [recordings / 'short.wav', recordings / 'six.wav']
    speech = soundfile.read(files[0])[0]
    for subtype in ('PCM_U8', 'PCM_24', 'PCM_32'):
        files.append(tmp_path / f'{subtype}.wav')
        soundfile.write(files[-1], speech, RATE, subtype=subtype)
    with_, without = (execute(exported, *files, blocked=names) for names in ((), ['soundfile']))
    assert without.returncode == 0, without.stderr
    assert without.stdout == with_.stdout
    assert len(without.stdout.splitlines()) == 5


@pytest.mark.parametrize('name', ['short.wav', 'short.flac'])
@pytest.mark.parametrize('blocked', [(), ['soundfile']])
def test_files_that_are_cut_off_are_refused(exported, recordings, tmp_path, name, blocked):
    whole, file = tmp_path / name, tmp_path / f'cut_{name}'
    soundfile.write(whole, *soundfile.read(recordings / 'short.wav'))
    content = whole.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    done = execute(exported, file, blocked=blocked)
    assert (done.returncode, done.stdout) == (1, '')
    if name.endswith('wav'):  # what is cut off after the samples does no harm
        tail = b'LIST' + (8).to_bytes(4, 'little') + b'12345678'
        file.with_stem('tail').write_bytes(content + tail[:9])
        done_tail = execute(exported, file.with_stem('tail'), blocked=blocked)
        assert done_tail.returncode == 0, done_tail.stderr
    problems = 'shorter than stated' if name.endswith('wav') else 'cannot be decoded|not a PCM'
    assert re.search(f'error: {file}: .*({problems})', done.stderr)


@pytest.mark.parametrize(
    ('content', 'blocked', 'problem'),
    [
        (b'', (), 'cannot be decoded as audio'),
        (b'hello', (), 'cannot be decoded as audio'),
        (None, (), 'No such file or directory'),
        (b'hello', ['soundfile'], 'not a PCM wav file .*: pip install soundfile'),
        (b'', ['soundfile'], 'not a PCM wav file .*: pip install soundfile'),
        (0, (), r'a waveform is \[samples\] or \[samples, channels\], not \(0, 1\)'),
        (44100, ['soxr'], 'the waveform has 44100 Hz, the model takes 16000: pip install soxr'),
    ],
)
def test_unusable_files_get_one_line(exported, tmp_path, content, blocked, problem):
    file = tmp_path / 'a.wav'
    if isinstance(content, int):
        soundfile.write(file, np.zeros(content), content or RATE)
    elif content is not None:
        file.write_bytes(content)
    done = execute(exported, file, blocked=blocked)
    assert (done.returncode, done.stdout) == (1, '')
    _, message = done.stderr.splitlines()
    assert re.match(rf'error: {file}: .*{problem}', message)


def test_scales_in_memory_agree(workdir, exported, recordings):
    wave, _ = soundfile.read(recordings / 'long.wav', dtype='int16')
    expected = model(exported).predict(wave, RATE)
    assert expected['emotion'] in predictor(workdir).tasks[0].classes
    outputs = predictor(workdir).predict(wave, RATE).probabilities('emotion')
    assert expected['probabilities'] == pytest.approx(outputs, abs=1e-5)
    for same in (
        wave / 32768,
        (wave / 32768).astype(np.float32),
        wave.astype(np.int32) << 16,
        np.stack([wave, wave], 1),
        np.stack([wave, *5 * [np.zeros_like(wave)]], 1),
    ):
        assert model(exported).predict(same, RATE) == expected


@pytest.mark.parametrize(
    ('waveform', 'rate', 'problem'),
    [
        (np.full(RATE, np.nan), RATE, 'not finite'),
        (1000 * np.ones(RATE), RATE, r'not in \[-1, 1\]: divide all of them by 32768'),
        (np.zeros(0), RATE, r'not \(0,\)'),
        (np.zeros((6, RATE)), RATE, r'is \[samples, channels\], not \(6, 16000\)'),
        (np.zeros((1, 2, 3)), RATE, r'not \(1, 2, 3\)'),
        (np.zeros(RATE, np.int64), RATE, 'uint8, int8, int16, int32, not int64'),
        (np.zeros(RATE, bool), RATE, 'not bool'),
        (['a.wav'], RATE, 'floats'),
        (np.zeros(RATE), None, 'the sample rate is None'),
        (np.zeros(RATE), 0, 'the sample rate is 0'),
    ],
)
def test_other_waveforms_are_refused(exported, waveform, rate, problem):
    with pytest.raises(ValueError, match=problem) as raised:
        model(exported).predict(waveform, rate)
    assert '\n' not in str(raised.value)


def test_other_rates_need_soxr(exported, monkeypatch):
    noise = np.random.default_rng(0).normal(0, 0.1, 44100)
    assert model(exported).predict(noise, 44100)['seconds'] == 1
    monkeypatch.setitem(sys.modules, 'soxr', None)
    with pytest.raises(ValueError, match=r'has 44100 Hz, the model takes 16000: pip install soxr'):
        model(exported).predict(noise, 44100)
    assert model(exported).predict(noise, RATE)['flags'] == ['non_speech']


def test_an_hour_of_silence_is_not_computed(exported, monkeypatch):
    monkeypatch.setattr(standalone.Model, 'run', None)
    found = model(exported).predict(np.zeros(3600 * RATE, np.int16), RATE)
    empty = {'emotion': None, 'probabilities': None}
    assert found == {'seconds': 3600.0, **empty, 'flags': ['silent']}


def test_few_shapes_are_compiled(exported, recordings, monkeypatch):
    wave, _ = soundfile.read(recordings / 'pause.wav', dtype='int16')
    shapes, program = set(), standalone.Model.run

    def recorded(self, waveform, samples):
        shapes.add(np.shape(waveform))
        return program(self, waveform, samples)

    monkeypatch.setattr(standalone.Model, 'run', recorded)
    for seconds in (*np.arange(0.6, 10, 0.8), 30):
        model(exported).predict(wave[: int(seconds * RATE)], RATE)
    assert shapes == {(1, 20000 * factor) for factor in (1, 2, 4)}


def test_check(exported, capsys):
    assert export.main([f'--check={exported}']) == 0
    assert re.fullmatch(
        r'emotion: largest difference to the example \S+\n', capsys.readouterr().out
    )


@pytest.mark.parametrize('name', ['model.stablehlo', 'example.npz'])
def test_a_flipped_byte_is_found(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(SystemExit, match=rf'^error: [^\n]*{name} is damaged[^\n]*$'):
        export.main([f'--check={copy}'])


@pytest.mark.parametrize('change', [2e-4, np.nan])
def test_another_output_is_found(copy, capsys, change):
    with np.load(copy / 'example.npz') as stored:
        output = stored['output_emotion'].copy()
    output[1, 2] += change
    change_example(copy, output_emotion=output)
    assert export.main([f'--check={copy}']) == 1
    assert 'by more than 0.0001' in capsys.readouterr().err


def test_a_hostile_card_is_never_executed(copy, capsys):
    def change(card):
        card['outputs'] = {HOSTILE: card['outputs']['emotion']}
        card['outputs'][HOSTILE]['labels'] = [HOSTILE] * 4
        card.update(system=HOSTILE, says=HOSTILE, example=HOSTILE)

    change_card(copy, lambda card: card['outputs']['emotion'].update(labels=[HOSTILE] * 4))
    assert export.main([f'--check={copy}']) == 0
    change_card(copy, change)
    with pytest.raises(SystemExit) as stopped:
        export.main([f'--check={copy}'])
    printed = str(stopped.value) + ''.join(capsys.readouterr())
    assert '\x1b' not in printed
    assert len(str(stopped.value).splitlines()) == 1
    assert not list(copy.glob('**/executed'))
    assert not (ROOT / 'executed').exists()


def _objects(folder):
    change_example(folder, waveform=np.array([{}], dtype=object))


def _cut(folder):
    program = (folder / 'model.stablehlo').read_bytes()
    (folder / 'model.stablehlo').write_bytes(program[: len(program) // 2])
    seal(folder)


@pytest.mark.parametrize(
    'damage',
    [
        lambda folder: (folder / 'card.json').write_text('{"format": "stable'),
        lambda folder: (folder / 'card.json').write_text('[]'),
        lambda folder: (folder / 'model.stablehlo').unlink(),
        lambda folder: change_card(folder, lambda card: card.update(format='../../model')),
        lambda folder: change_card(folder, lambda card: card['outputs'].clear()),
        lambda folder: change_card(folder, lambda c: c['outputs']['emotion']['labels'].pop()),
        lambda folder: change_example(folder, output_emotion=np.zeros((2, 1), np.float32)),
        _objects,
        _cut,
        shutil.rmtree,
    ],
)
def test_damage_is_reported_in_one_line(copy, damage):
    damage(copy)
    with pytest.raises(SystemExit, match=r'^error: [^\n]* is not a sound export \([^\n]*\)$'):
        export.main([f'--check={copy}'])


@pytest.mark.parametrize(
    ('shape', 'samples'),
    [((1, 8000), (1500,)), ((1, 8000), (8001,)), ((1, 170000), (160001,)), ((8000,), (8000,)),
     ((2, 8000), (8000,))],
)  # fmt: skip
def test_inputs_outside_the_limits_are_refused(exported, shape, samples):
    with pytest.raises(ValueError, match=r'card\.json|not \[B, S\]'):
        model(exported).run(np.zeros(shape, np.float32), samples)


@pytest.mark.parametrize('shift', [0, 16])
def test_integers_are_scaled_as_the_predictor_does(workdir, exported, shift, monkeypatch):
    monkeypatch.setattr(screening, 'has_label', lambda flags: True)
    wave = np.pad(beep(1.0), (0, 500), constant_values=-32768)
    wave = wave.astype(np.int32) << shift if shift else wave
    found = model(exported).run(wave[None], [RATE])
    expected = predictor(workdir).predict(wave[:RATE], RATE)
    np.testing.assert_allclose(found['emotion'], [expected.outputs['emotion']], atol=1e-5)


def test_waveforms_of_another_scale_are_refused(exported):
    compute, wave = model(exported).run, np.zeros((1, 2 * RATE), np.float32)
    wave[0, RATE:] = np.nan  # padding
    assert np.isfinite(compute(wave, [RATE])['emotion']).all()
    for value in (np.nan, np.inf, 32767, -3):
        wave[0, 5] = value
        with pytest.raises(ValueError, match=r'not finite|not in .-1, 1.: divide'):
            compute(wave, [RATE])
    for dtype in ('int64', 'uint16', 'str'):
        with pytest.raises(
            ValueError, match=r'a waveform holds floats in .* or uint8, int8, int16'
        ):
            compute(np.zeros((1, RATE)).astype(dtype), [RATE])


def test_an_export_is_replaced_atomically(workdir, copy, tmp_path, monkeypatch):
    changed = shutil.copytree(workdir, tmp_path / 'run')
    card = json.loads((workdir / 'results.json').read_text())
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    (copy / '__pycache__').mkdir()  # left by an import of run.py
    # The program of the unchanged run.
    monkeypatch.setattr(exporting, 'stablehlo', lambda *_: before['model.stablehlo'])
    arguments = [f'--workdir={changed}', f'--out={copy}']
    card['calibration']['clean']['temperature'] *= 0.5
    (changed / 'results.json').write_text(json.dumps(card))
    with pytest.raises(ValueError, match='differs from the predictor'):
        export.main(arguments)
    assert {path.name: path.read_bytes() for path in copy.glob('*.*')} == before
    card['calibration']['clean']['temperature'] *= 2
    card['seed'] += 1
    (changed / 'results.json').write_text(json.dumps(card))
    assert export.main(arguments) == 0
    assert json.loads((copy / 'card.json').read_text())['seed'] == card['seed']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['copy', 'run']


@pytest.mark.parametrize('file', ['notes.txt', 'run.py'])
def test_other_folders_are_left_alone(workdir, tmp_path, file):
    (tmp_path / file).write_text('mine')
    for out in (tmp_path, tmp_path / file, workdir):
        with pytest.raises(SystemExit, match=r'^error: [^\n]*choose another --out$'):
            export.main([f'--workdir={workdir}', f'--out={out}'])
    assert (tmp_path / file).read_text() == 'mine'


def test_runs_without_a_final_model(workdir, tmp_path):
    out = tmp_path / 'out'
    for name in ('config.json', 'results.json'):
        shutil.copy(workdir / name, tmp_path)
    with pytest.raises(SystemExit, match='has no final model'):
        export.main([f'--workdir={tmp_path}', f'--out={out}'])
    assert not out.exists()


@pytest.mark.parametrize('arguments', [[], ['--workdir=x'], ['--check=x', '--out=y']])
def test_incompatible_flags(arguments):
    with pytest.raises(SystemExit, match='2'):
        export.main(arguments)


def program(model, platforms):
    """The text of an exported program."""
    stored = exporting.stablehlo(model, 1280, 0, platforms)
    return jax.export.deserialize(stored).mlir_module()


def test_platforms_keep_their_own_formulations():
    def compute(waveform, samples):
        total = waveform.sum(1, keepdims=True)
        return {
            'task': lax.platform_dependent(
                total, cpu=lambda x: x * 0.125, default=lambda x: x * 0.75
            )
        }

    texts = {
        names: program(SimpleNamespace(compute=compute), names)
        for names in (('cpu',), ('tpu',), exporting.PLATFORMS)
    }
    found = {
        names: [value in text for value in ('1.250000e-01', '7.500000e-01')]
        for names, text in texts.items()
    }
    assert found == {
        ('cpu',): [True, False],
        ('tpu',): [False, True],
        exporting.PLATFORMS: [True, True],
    }


@pytest.mark.parametrize('platforms', [('tpu',), ('cuda',), exporting.PLATFORMS])
def test_programs_are_portable(workdir, platforms):
    with jax.default_matmul_precision('highest'):
        text = program(predictor(workdir), platforms)
    called = set(re.findall(r'custom_call @"?([\w.]+)', text))
    assert called <= {'shape_assertion'}
    products = [
        line for line in text.splitlines() if re.search(r'\.(dot_general|convolution)\b', line)
    ]
    assert products
    assert all('HIGHEST' in line for line in products)  # float32 on every platform


def test_onnx_without_its_packages(workdir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'jax2onnx', None)
    monkeypatch.setitem(sys.modules, 'onnxruntime', SimpleNamespace())
    with pytest.raises(SystemExit, match=r"^error: --format=onnx: [^\n]*'\.\[onnx\]' && [^\n]*$"):
        export.main([f'--workdir={workdir}', f'--out={tmp_path / "out"}', '--format=onnx'])
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
@pytest.mark.parametrize('system', ['mtl_aug', 'end_to_end', 'adversarial_autoencoder'])
def test_onnx(finished, voices, tmp_path, system):
    for package in ('jax2onnx', 'onnxruntime'):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed (extra [onnx], see docs/predicting.md)')
    workdir, out = finished(system), tmp_path / 'out'
    # In a separate process: jax2onnx patches JAX.
    done = run('ser_jax.export', f'--workdir={workdir}', f'--out={out}', '--format=onnx')
    assert done.returncode == 0, done.stderr
    card = json.loads((out / 'card.json').read_text())
    assert card['inputs']['waveform']['shape'] == [1, 80000]
    for lengths, spare in (((1.0, 2.7), 33), ((5.0, 0.3), 77)):
        same_as_predictor(workdir, out, lengths, spare)
    files = [*Path(voices).iterdir()]
    done = execute(out, *files, blocked=['jax'])
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert_same_answers(found, answers(workdir, *files))
    data = bytearray((out / 'model.onnx').read_bytes())
    data[len(data) // 2] ^= 1
    (out / 'model.onnx').write_bytes(data)
    with pytest.raises(SystemExit, match=r'model\.onnx is damaged'):
        export.main([f'--check={out}'])


def test_what_a_killed_export_left_is_removed(workdir, copy):
    model = (copy / 'model.stablehlo').read_bytes()
    program = (
        'import os, signal, sys\n'
        'from ser_jax import export\n'
        'from ser_jax.serving import export as exporting, standalone\n'
        'standalone.replay = lambda folder: os.kill(os.getpid(), signal.SIGKILL)\n'
        'exporting.stablehlo = lambda *_: b""\n'
        'export.main(sys.argv[1:])\n'
    )
    command = [sys.executable, '-c', program, f'--workdir={workdir}', f'--out={copy}']
    assert subprocess.run(command, cwd=ROOT).returncode == -9
    (left,) = copy.parent.glob('*.tmp')
    other = left.with_name(left.name.replace(left.name.split('.')[1], f'0-{left.stem}'))
    other.mkdir()  # of another machine, which may be at work
    left.with_suffix('.old').mkdir()
    assert (copy / 'model.stablehlo').read_bytes() == model
    assert export.main(command[3:]) == 0
    assert set(copy.parent.iterdir()) == {copy, other}


def test_an_interrupted_export_leaves_nothing(workdir, tmp_path):
    program = (
        'import os, signal, sys, time\n'
        'from ser_jax import export\n'
        'from ser_jax.runtime import signals\n'
        'from ser_jax.serving import export as exporting, standalone\n'
        'signals.handle("gone")\n'
        'def replay(folder):\n'
        '    assert (folder / "card.json").exists()\n'
        '    os.kill(os.getpid(), signal.SIGTERM)\n'
        '    time.sleep(60)\n'
        'standalone.replay = replay\n'
        'exporting.stablehlo = lambda *_: b""\n'
        'export.main(sys.argv[1:])\n'
    )
    command = [sys.executable, '-c', program, f'--workdir={workdir}', f'--out={tmp_path / "out"}']
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (143, 'stopped by SIGTERM: gone\n')
    assert not list(tmp_path.iterdir())
