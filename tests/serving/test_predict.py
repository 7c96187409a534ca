"""Prediction of recordings, from Python and by the command."""

import csv
import glob
import io
import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT

import ser_jax
from ser_jax import predict
from ser_jax.audio import reading, screening
from ser_jax.audio.activity import find_speech
from ser_jax.audio.reading import AUDIO_ENDINGS, read_audio
from ser_jax.evaluation.calibration import tempered
from ser_jax.runtime.errors import UserError
from ser_jax.serving import files as serving_files
from ser_jax.serving import predictor as predictor_module
from ser_jax.serving import timeline
from ser_jax.serving.predictor import WHOLE_SECONDS, WINDOW_SECONDS, load
from ser_jax.train import build_experiment
from ser_jax.training import inference


@pytest.fixture(scope='module')
def finished(trained):
    workdir, config = trained
    return workdir, build_experiment(config)


def _files(beeps, n=6):
    return sorted(Path(beeps['manual_dir'], 'beeps').glob('*.wav'))[:n]


def test_equals_the_prediction_from_records(finished, beeps, tones_are_speech):
    workdir, experiment = finished
    rows = np.arange(len(experiment.dataset.corpus))
    variables = experiment.restore_best(workdir / 'checkpoints' / 'final')
    expected = inference.predict(experiment, variables, experiment.dataset.utterances(rows))[
        'emotion'
    ]
    card = json.loads((workdir / 'results.json').read_text())
    calibrated = tempered(expected, card['calibration']['clean']['temperature'])
    by_id = dict(zip(experiment.dataset.corpus.index['id'], calibrated))
    files = _files(beeps)
    assert np.ptp(expected, axis=0).max() > 0.02, 'all predictions are equal'
    predictions = load(workdir).predict_batch([read_audio(path) for path in files])
    found = [prediction.outputs['emotion'] for prediction in predictions]
    np.testing.assert_allclose(found, [by_id[path.stem] for path in files], atol=1e-3)


def _noise(seconds, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3000, int(16000 * seconds)).astype(np.int16)


def test_long_recordings_are_cut_into_windows(finished, tones_are_speech):
    predictor = load(finished[0])
    short, long = _noise(WHOLE_SECONDS), _noise(2.3 * WINDOW_SECONDS, seed=1)
    window = int(16000 * WINDOW_SECONDS)
    starts = np.array([0, window, len(long) - window])  # the last one ends with it
    expected = predictor.predict_batch([long[start : start + window] for start in starts])
    first, prediction = predictor.predict_batch([short, long])
    assert not first.windows
    assert [window.start for window in prediction.windows] == pytest.approx(starts / 16000)
    assert (prediction.start, prediction.end) == (0, len(long) / 16000)
    for window, one in zip(prediction.windows, expected, strict=True):
        np.testing.assert_allclose(window.outputs['emotion'], one.outputs['emotion'], atol=1e-5)
    mean = np.mean([one.outputs['emotion'] for one in expected], axis=0)
    np.testing.assert_allclose(prediction.outputs['emotion'], mean, atol=1e-5)


def test_windows_without_speech_do_not_count(finished, tones_are_speech):
    predictor = load(finished[0])
    speech = _noise(WINDOW_SECONDS)
    prediction = predictor.predict_batch([np.concatenate([speech, np.zeros_like(speech)])])[0]
    assert [window.flags for window in prediction.windows] == [(), ('silent',)]
    expected = prediction.windows[0].outputs['emotion']
    np.testing.assert_allclose(prediction.outputs['emotion'], expected, atol=1e-6)
    assert prediction.flags == ()
    assert prediction.best(predictor.tasks[0])


def test_probabilities_have_the_stored_temperature(finished, beeps, tones_are_speech, tmp_path):
    waveforms = [read_audio(path) for path in _files(beeps)]
    outputs = lambda: np.stack(
        [one.outputs['emotion'] for one in load(tmp_path / 'run').predict_batch(waveforms)]
    )
    shutil.copytree(finished[0], tmp_path / 'run')
    card = json.loads((tmp_path / 'run' / 'results.json').read_text())
    assert load(tmp_path / 'run').uncalibrated == ''
    temperature = card['calibration']['clean'].pop('temperature')
    calibrated = outputs()
    (tmp_path / 'run' / 'results.json').write_text(json.dumps(card))
    assert 'no validation speakers' in load(tmp_path / 'run').uncalibrated
    np.testing.assert_allclose(calibrated, tempered(outputs(), temperature), atol=1e-5)


@pytest.mark.parametrize(
    ('module', 'unwanted'),
    [
        ('ser_jax', ('jax', 'numpy', 'ser_jax.serving')),
        (
            'ser_jax.serving.predictor, ser_jax.serving.files, ser_jax.serving.export',
            ('ser_jax.training', 'ser_jax.objectives', 'ser_jax.evaluation', 'optax'),
        ),
    ],
)
def test_imports_are_few(module, unwanted):
    code = f'import sys, {module}; print(*sorted({set(unwanted)} & set(sys.modules)))'
    command = [sys.executable, '-c', code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == '\n'


def test_from_python(finished, beeps, tones_are_speech):
    path = _files(beeps)[0]
    predictor = ser_jax.load(finished[0])
    expected = predictor.predict_batch([read_audio(path)])[0].outputs['emotion']
    floats, rate = soundfile.read(path)
    samples = (floats * 32768).astype(np.int16)
    wide = samples.astype(np.int32) << 16
    for waveform in (floats, np.stack([floats, floats], 1), samples, wide, path, str(path)):
        prediction = predictor.predict(waveform, rate)
        np.testing.assert_allclose(prediction.outputs['emotion'], expected, atol=1e-5)
    emotion = predictor.tasks[0]
    probabilities = prediction.probabilities(emotion)
    assert prediction.best(emotion) == max(probabilities, key=probabilities.get)
    assert prediction.best('emotion') == prediction.best(emotion)
    assert prediction.probabilities('emotion') == probabilities
    for method in (prediction.best, prediction.probabilities):
        with pytest.raises(UserError, match="no task 'mood'; the model has emotion"):
            method('mood')
    with pytest.raises(UserError, match='not finite'):
        predictor.predict(np.full(16000, np.nan), 16000)
    with pytest.raises(UserError, match='int64'):
        predictor.predict(np.zeros(16000, np.int64), 16000)
    with pytest.raises(UserError, match='channels'):
        predictor.predict(np.zeros((2, 16000)), 16000)
    with pytest.raises(UserError, match='sample rate is None'):
        predictor.predict(floats)
    with pytest.raises(UserError, match='no such file'):
        predictor.predict('missing.wav')
    for outputs in predictor.predict_batch([floats.astype(np.float32), wide]):
        np.testing.assert_allclose(outputs.outputs['emotion'], expected, atol=1e-5)
    with pytest.raises(UserError, match='divide all of them by 32768'):
        predictor.predict_batch([samples, samples.astype(np.float32)])


@pytest.mark.parametrize('form', ['table', 'csv', 'json'])
def test_command(finished, beeps, tmp_path, capsys, form, tones_are_speech):
    files = _files(beeps, 2)
    stereo = tmp_path / 'stereo.flac'
    soundfile.write(stereo, np.random.default_rng(0).normal(0, 0.1, (30000, 2)), 44100)
    (tmp_path / 'broken.wav').write_bytes(b'RIFF')
    status = predict.main(
        [f'--workdir={finished[0]}', f'--format={form}', str(tmp_path), *map(str, files)]
    )
    out, err = capsys.readouterr()
    assert status == 1
    assert 'broken.wav' in err
    assert '1 of 4 files' in err
    lines = out.splitlines()
    assert len(lines) == 3 + (form != 'json')
    assert 'stereo.flac' in out
    if form == 'json':
        for line in map(json.loads, lines):
            assert sum(line['probabilities'].values()) == pytest.approx(1, abs=1e-4)
            assert line['emotion'] == max(line['probabilities'], key=line['probabilities'].get)


@pytest.mark.parametrize('form', ['table', 'csv', 'json'])
def test_command_flags_what_it_cannot_label(finished, tmp_path, capsys, form):
    tone = np.sin(np.arange(25 * 16000) * 0.2)
    sounds = {'long': 0.1 * tone, 'short': 0.1 * tone[:3200], 'tiny': tone[:800], 'loud': 3 * tone}
    for name, sound in sounds.items():
        soundfile.write(tmp_path / f'{name}.wav', np.clip(sound, -1, 1), 16000)
    soundfile.write(tmp_path / 'mute.wav', np.zeros(16000), 16000)
    flags = f'--workdir={finished[0]}', f'--format={form}', '--windows'
    assert predict.main([*flags, str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    rows = out.splitlines()[form != 'json' :]
    for name, flag in {
        'long': 'non_speech', 'short': 'too_short', 'tiny': 'too_short', 'mute': 'silent',
        'loud': 'clipped',
    }.items():  # fmt: skip
        assert any(f'{name}.wav' in row and flag in row for row in rows), out
        assert f'{name}.wav: ' in err
    if form == 'json':
        rows = {Path(row['file']).stem: row for row in map(json.loads, rows)}
        assert {row['emotion'] for row in rows.values()} == {None}
        assert {row['probabilities'] for row in rows.values()} == {None}
        starts = [window['start'] for window in rows['long']['windows']]
        assert starts == pytest.approx([0, 3.99, 7.98, 11.97, 15.96, 19.95, 21.01])
    else:
        assert len(rows) == 5 + 2 * 7  # the windows of the two long ones
    if form == 'csv':
        table = list(csv.DictReader(out.splitlines()))
        assert {row['emotion'] for row in table} == {''}


def test_patterns_and_lists(finished, beeps, tmp_path, capsys, monkeypatch):
    files = _files(beeps, 3)
    monkeypatch.setattr(sys, 'stdin', io.StringIO(f'{files[0]}\n\n{files[1]}\n'))
    pattern = f'{glob.escape(str(files[2].parent))}/*{files[2].stem[2:]}.wav'
    found = list(serving_files.find_files(['-', pattern]))
    assert found[:2] == files[:2]
    assert files[2] in found[2:]
    (tmp_path / 'empty').mkdir()
    arguments = [f'{tmp_path}/*.wav', tmp_path / 'empty', 'x' * 300]
    assert list(serving_files.find_files(arguments)) == [
        f'nothing matches {arguments[0]}',
        f'{arguments[1]} holds no {", ".join(AUDIO_ENDINGS)}',
        Path(arguments[2]),
    ]


def test_lists_written_on_windows(monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('\ufeffa b.wav\r\n\r\nc.wav\r\n', newline=''))
    assert list(serving_files.find_files(['-'])) == [Path('a b.wav'), Path('c.wav')]


def test_patterns_find_a_file_once(tmp_path):
    (tmp_path / 'deep').mkdir()
    (tmp_path / 'deep/a.wav').touch()
    (tmp_path / 'deep/loop').symlink_to(tmp_path, target_is_directory=True)
    assert list(serving_files.find_files([f'{tmp_path}/**/*.wav'])) == [tmp_path / 'deep/a.wav']


@pytest.mark.parametrize(
    ('named', 'there', 'difference'),
    [
        ('ANNA.WAV', 'anna.wav', 'in another case'),
        ('anna', 'anna.flac', 'with another ending'),
        ('Jos\u00e9.wav', 'Jose\u0301.wav', 'in another Unicode form'),
    ],
)
def test_the_file_that_a_wrong_name_means(tmp_path, named, there, difference):
    (tmp_path / there).touch()
    (message,) = serving_files.find_files([tmp_path / named])
    assert (
        message == f'{tmp_path / named}: no such file ({difference}: there is {tmp_path / there})'
    )
    assert list(serving_files.find_files([tmp_path / 'ben.wav'])) == [tmp_path / 'ben.wav']


def test_folders_name_what_they_pass_over(tmp_path):
    folder = tmp_path / 'mine'
    folder.mkdir()
    for name in ('a.m4a', 'b.wav'):
        (folder / name).touch()
    (tmp_path / 'linked').mkdir()
    (folder / 'more').symlink_to(tmp_path / 'linked', target_is_directory=True)
    (tmp_path / 'linked' / 'c.wav').touch()
    with pytest.warns(UserWarning, match=r'passed over 1 file that is not read: .m4a 1 \(a.m4a\)'):
        found = list(serving_files.find_files([folder]))
    assert found == [folder / 'b.wav', folder / 'more/c.wav']
    (folder / 'b.wav').unlink()
    (folder / 'more').unlink()
    (message,) = serving_files.find_files([folder])
    assert 'holds no .wav' in message
    assert '.m4a 1 (a.m4a)' in message


def test_portions_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(serving_files, '_CHUNK_SECONDS', 1)
    monkeypatch.setattr(serving_files, '_FIRST_CHUNK', 1)
    monkeypatch.setattr(serving_files, '_LARGEST_CHUNK', 3)
    seconds = [0.6, 0.6, 0.1, 0.1, 0.1, 0.1, 5, 0.01]
    files = [tmp_path / f'{k}.wav' for k in range(len(seconds))]
    for file, duration in zip(files, seconds):
        soundfile.write(file, np.zeros(int(8000 * duration)), 8000)
    found = [[int(path.stem) for path in chunk] for chunk in serving_files._chunks(files)]
    assert found == [[0], [1, 2], [3, 4, 5], [6], [7]]


def test_nothing_to_predict_with(finished, tmp_path):
    with pytest.raises(UserError, match='no finished run'):
        load(tmp_path)
    shutil.copytree(finished[0], tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / 'final')
    with pytest.raises(UserError, match='no final model'):
        load(tmp_path / 'run')


def test_a_bad_argument_does_not_stop_the_rest(finished, beeps, tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'a.raw').write_bytes(bytes(1000))
    strange = tmp_path / 'not\udcfftext.wav'
    strange.write_bytes(_files(beeps)[0].read_bytes())
    arguments = [tmp_path / 'empty', 'miss[1].wav', tmp_path / 'a.raw', 'x' * 300, strange]
    status = predict.main([f'--workdir={finished[0]}', '--format=csv', *map(str, arguments)])
    out, err = capsys.readouterr()
    assert status == 1
    assert len(out.splitlines()) == 2
    assert 'empty holds no' in err
    assert 'nothing matches miss[1].wav' in err
    assert 'a.raw: cannot be decoded' in err
    assert 'x: cannot be read' in err
    assert '2 of 3 files could not be used' in err


def test_long_files_are_predicted_while_they_are_read(
    finished, tmp_path, monkeypatch, tones_are_speech
):
    """Whatever the header says; the result is that of the whole."""
    samples = np.random.default_rng(0).normal(0, 0.1, 38 * 16000)
    for name, kept in (('long', samples), ('short', samples[: 12 * 16000])):
        soundfile.write(tmp_path / f'{name}.wav', kept, 16000, subtype='PCM_16')
    (tmp_path / 'cut.wav').write_bytes((tmp_path / 'long.wav').read_bytes()[:-5000])
    files = [tmp_path / f'{name}.wav' for name in ('short', 'long', 'cut')]
    predictor = load(finished[0])
    predict = lambda: list(serving_files.predict_files(predictor, files))
    whole = predict()
    streamed = []

    def read(path, rate):
        streamed.append(path)
        yield from serving_files.read_blocks(path, rate)

    monkeypatch.setattr(predictor_module, 'read_blocks', read)
    monkeypatch.setattr(predictor_module, '_PORTION', 2)
    monkeypatch.setattr(serving_files, '_LONG_SECONDS', 15)
    monkeypatch.setattr(reading, '_BLOCK', 100_000)
    for seconds in (serving_files.file_seconds, lambda path: 0.0):
        monkeypatch.setattr(serving_files, 'file_seconds', seconds)
        found = predict()
        assert 'truncated' in found[2][1]
        assert found[2] == whole[2]
        for (_, one), (_, other) in zip(found[:2], whole):
            times = [[(x.start, x.end) for x in both.windows] for both in (one, other)]
            assert times[0] == times[1]
            np.testing.assert_allclose(one.outputs['emotion'], other.outputs['emotion'], atol=1e-5)
    assert files[1] in streamed
    assert files[0] not in streamed


def test_little_of_a_long_file_is_held(tmp_path, monkeypatch):
    """1000 s take 32 MB; a block takes 1 s."""
    with soundfile.SoundFile(tmp_path / 'a.wav', 'w', 16000, 1) as file:
        for _ in range(1000):
            file.write(np.ones(16000, np.int16))
    monkeypatch.setattr(reading, '_BLOCK', 16000)
    blocks = lambda: reading.read_blocks(tmp_path / 'a.wav')
    spans = [(second * 16000, (second + 3) * 16000) for second in range(0, 998, 7)]
    ways = {
        'windows': lambda: sum(1 for _ in screening.windows(blocks(), 200_000, 160_000)),
        'spans': lambda: sum(1 for _ in timeline._cut(blocks(), iter(spans))),
        'speech': lambda: find_speech(blocks()).samples,
    }
    for name, way in ways.items():
        tracemalloc.start()
        assert way() == {'windows': 100, 'spans': len(spans), 'speech': 16_000_000}[name]
        assert tracemalloc.get_traced_memory()[1] < 4e6, name
        tracemalloc.stop()


@pytest.mark.slow
def test_an_hour_takes_less_than_2_gb(finished, tmp_path):
    minute = np.random.default_rng(0).normal(0, 0.05, (48000 * 60, 2)).astype(np.float32)
    with soundfile.SoundFile(tmp_path / 'hour.flac', 'w', 48000, 2) as file:
        for _ in range(60):
            file.write(minute)
    program = (
        'import sys; from ser_jax import predict; from ser_jax.training import cost;'
        'predict.main(sys.argv[1:]); print(cost.peak_memory_mb())'
    )
    flags = [f'--workdir={finished[0]}', '--format=json', '--windows']
    command = [sys.executable, '-c', program, *flags, str(tmp_path / 'hour.flac')]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    line, megabytes = result.stdout.splitlines()
    assert len(json.loads(line)['windows']) == 903
    assert float(megabytes) < 2000


def test_benchmark(finished, beeps, tmp_path, monkeypatch):
    from benchmarks import prediction

    out = tmp_path / 'times.json'
    flags = [f'--workdir={finished[0]}', '--rounds=1', '--limit=4', f'--out={out}']
    monkeypatch.setattr(sys, 'argv', ['prediction', *flags, f'{beeps["manual_dir"]}/beeps'])
    prediction.main()
    result = json.loads(out.read_text())
    assert result['files'] == 4
    assert min(result['times_real_time'].values()) > 0
    assert {'ser_jax.predict', 'ser_jax.predict --segments'} <= result['times_real_time'].keys()
    assert result['environment']['device']


def test_nothing_listed_and_empty_arguments(monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.StringIO('\n'))
    assert list(serving_files.find_files(['-'])) == ['standard input lists no files']
    (problem,) = serving_files.find_files([''])  # an unset variable; not this folder
    assert 'empty' in problem


def test_csv_of_any_file_name(finished, beeps, tmp_path, capsys):
    names = ['a\rb.wav', 'a\nb.wav', 'a"b, c.wav']
    for name in names:
        (tmp_path / name).write_bytes(_files(beeps)[0].read_bytes())
    assert predict.main([f'--workdir={finished[0]}', '--format=csv', str(tmp_path)]) == 0
    table = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=''))
    assert sorted(row['file'] for row in table) == sorted(str(tmp_path / name) for name in names)


@pytest.mark.parametrize(
    ('closed', 'status', 'printed'),
    [
        ('2>&-', 1, ',too_short,run-'),
        ('<&- 2>&-', 1, ',too_short,run-'),
        ('2>&1 >&-', 1, 'error: standard output is closed: redirect it to a file, or to /dev/null'),
    ],
)
def test_closed_streams(finished, tmp_path, closed, status, printed):
    soundfile.write(tmp_path / 'short.wav', np.zeros(100), 16000)
    command = f'{sys.executable} -m ser_jax.predict --workdir={finished[0]} --format=csv'
    command += f' {tmp_path}/short.wav {tmp_path}/gone.wav {closed}'
    done = subprocess.run(command, shell=True, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert done.returncode == status
    assert printed in done.stdout
    assert 'warning' not in done.stdout
    assert 'Traceback' not in done.stdout
