"""Damaged and unusual files: every command reports the unusable ones and processes the rest."""

import json
import os
import random
import shutil

import numpy as np
import pytest
import soundfile
from conftest import run

from ser_jax.audio.reading import AudioError, read_audio

pytestmark = pytest.mark.slow

FUZZED = 100
# Unusable; some of the fuzzed ones are usable.
BROKEN = (
    'empty.wav',
    'no_samples.wav',
    'one_sample.wav',
    'silence.flac',
    'nan.wav',
    'infinite.wav',
    'full_scale_32768.wav',
    'text.wav',
    'dangling.wav',
    'cut.wav',
)
USABLE = (
    'rate_192000.wav',
    'bits_8.wav',
    'bits_24.wav',
    'channels_8.wav',
    'flac_inside.wav',
    'line\nbreak.wav',
    'quo"te\'s.wav',
    'emoji_😀.wav',
    os.fsdecode(b'latin_\xe9.wav'),
)


@pytest.fixture(scope='module')
def bad(voices, tmp_path_factory):
    folder = tmp_path_factory.mktemp('bad')
    voice = sorted(os.listdir(voices))[0]
    sound, rate = soundfile.read(f'{voices}/{voice}')
    write = lambda name, data, rate=rate, **how: soundfile.write(folder / name, data, rate, **how)
    (folder / 'empty.wav').touch()
    write('no_samples.wav', sound[:0])
    write('one_sample.wav', sound[:1])
    write('silence.flac', np.zeros(16000 * 3600, np.int16))
    write('nan.wav', np.full(16000, np.nan, np.float32), subtype='FLOAT')
    write('infinite.wav', np.where(sound > 0.1, np.inf, sound), subtype='FLOAT')
    write('full_scale_32768.wav', 32768 * sound, subtype='FLOAT')
    (folder / 'text.wav').write_text('no recording at all\n' * 100)
    (folder / 'dangling.wav').symlink_to(folder / 'nowhere.wav')
    (folder / 'folder.wav').mkdir()
    write('rate_192000.wav', np.repeat(sound, 12), 192000)
    write('bits_8.wav', sound, subtype='PCM_U8')
    write('bits_24.wav', sound, subtype='PCM_24')
    write('channels_8.wav', np.stack([sound] * 8, axis=1))
    write('flac_inside.flac', sound)
    (folder / 'flac_inside.flac').rename(folder / 'flac_inside.wav')
    for name in USABLE[5:]:
        shutil.copy(f'{voices}/{voice}', folder / name)
    whole = (folder / USABLE[-1]).read_bytes()
    (folder / 'cut.wav').write_bytes(whole[: len(whole) // 2])
    rng = random.Random(0)
    for number in range(FUZZED):
        content = bytearray(whole[:20000])
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(44)] = rng.randrange(256)
        (folder / f'fuzzed_{number:03}.wav').write_bytes(content)
    return folder


def escaped(name):
    """A name without line breaks and invalid text."""
    return name.encode('utf-8', 'backslashreplace').decode().replace('\n', '\\n')


def test_predict(trained, bad):
    result = run('ser_jax.predict', f'--workdir={trained[0]}', '--format=json', str(bad))
    assert result.returncode == 1
    assert 'Traceback' not in result.stderr
    predicted = [json.loads(line)['file'] for line in result.stdout.splitlines()]
    errors = [line for line in result.stderr.splitlines() if line.startswith('error: ')]
    assert len(predicted) + len(errors) == len(BROKEN) + len(USABLE) + FUZZED
    for name in set(BROKEN) - {'silence.flac', 'one_sample.wav'}:
        assert any(name in line for line in errors), name
    for name in USABLE:
        assert any(escaped(name) in escaped(file) for file in predicted), name


def test_doctor_and_build(bad, tmp_path):
    doctor = run('tfds_builders.doctor', 'folder/bad', f'--manual_dir={bad}', '--json')
    assert doctor.returncode == 1
    assert 'Traceback' not in doctor.stderr
    unusable = {problem['file'] for problem in json.loads(doctor.stdout)['unusable']}
    built = run(
        'tfds_builders.build', 'folder/bad', f'--manual_dir={bad}', f'--data_dir={tmp_path}'
    )
    assert built.returncode == 0, built.stderr
    assert 'Traceback' not in built.stderr
    for name in BROKEN:
        if name != 'dangling.wav':  # not a file
            stem = name.rpartition('.')[0]
            assert any(stem in file for file in unusable), name
            assert stem in built.stdout, name
    metadata = next(tmp_path.rglob('metadata.json'))
    stored = json.loads(metadata.read_text())
    assert stored['utterances'] + len(stored['skipped']) == len(BROKEN) - 1 + len(USABLE) + FUZZED
    assert len(stored['skipped']) == len(unusable)
    with np.load(metadata.with_name('index.npz')) as index:
        ids = [escaped(str(name)) for name in index['id']]
    for name in USABLE:
        assert any(escaped(name.rpartition('.')[0]) in found for found in ids), name


def test_without_permission(tmp_path):
    file = tmp_path / 'mine.wav'
    soundfile.write(file, np.zeros(16000), 16000)
    file.chmod(0)
    me = os.geteuid()
    if me == 0:
        tmp_path.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(AudioError, match='ermission'):
            read_audio(file, 16000)
    finally:
        os.seteuid(me)
