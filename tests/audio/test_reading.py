"""Audio files of all formats, intact and broken."""

import os
import pickle
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import ROOT

from ser_jax.audio.reading import AudioError, read_audio, to_mono, unusable_reason
from ser_jax.audio.screening import screen
from ser_jax.runtime.errors import UserError


def tone(rate, seconds=0.5, hertz=440.0, level=0.4):
    """float64 [S]."""
    return level * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def test_16_bit_mono_comes_back_bit_for_bit(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    for ending in ('wav', 'flac'):
        path = tmp_path / f'a.{ending}'
        soundfile.write(path, samples, 16000, subtype='PCM_16')
        result = read_audio(path)
        assert result.dtype == np.int16
        assert np.array_equal(result, samples)


@pytest.mark.parametrize('rate', [8000, 22050, 44100, 48000])
def test_rates(tmp_path, rate):
    soundfile.write(tmp_path / 'a.wav', tone(rate), rate)
    result = read_audio(tmp_path / 'a.wav') / 32768
    assert abs(len(result) - 8000) <= 2
    middle = slice(1000, 7000)
    np.testing.assert_allclose(result[middle], tone(16000)[: len(result)][middle], atol=2e-3)


def test_channels_are_averaged(tmp_path):
    left, right = tone(16000, hertz=300), tone(16000, hertz=900)
    soundfile.write(tmp_path / 'a.wav', np.stack([left, right, 0 * left], 1), 16000)
    expected = (left + right) / 3 * 32768
    assert np.abs(read_audio(tmp_path / 'a.wav') - expected).max() < 2


@pytest.mark.parametrize(
    ('ending', 'subtype', 'tolerance'),
    [
        ('wav', 'PCM_U8', 0.01),
        ('wav', 'PCM_24', 1e-4),
        ('wav', 'FLOAT', 1e-4),
        ('ogg', 'VORBIS', 0.05),
        ('mp3', 'MPEG_LAYER_III', 0.05),
    ],
)
def test_kinds(tmp_path, ending, subtype, tolerance):
    path = tmp_path / f'a.{ending}'
    soundfile.write(path, tone(16000), 16000, subtype=subtype)
    result = read_audio(path) / 32768
    assert abs(np.sqrt((result**2).mean()) - 0.4 / np.sqrt(2)) < tolerance


def test_too_loud_floats_are_clipped_not_wrapped(tmp_path):
    soundfile.write(tmp_path / 'a.wav', tone(16000, level=1.9), 16000, subtype='FLOAT')
    result = read_audio(tmp_path / 'a.wav')
    assert result.max() == 32767
    assert result.min() == -32768
    assert np.abs(np.diff(result.astype(int))).max() < 20000


@pytest.mark.parametrize('subtype', ['FLOAT', 'DOUBLE'])
@pytest.mark.parametrize(
    ('full', 'remedy'),
    [
        (3.0, 'floats from -3 to 2.5, not in [-1, 1]: divide all of them by one number from 3 up'),
        (2**14, 'from -16384 to 13653.3, not in [-1, 1]: divide all of them by 32768 (16-bit samples)'),
        (2**22, 'by 8388608 (24-bit samples)'),
        (2**30, 'by 2147483648 (32-bit samples)'),
        (2.0**40, 'one number from 1.09951e+12 up'),
    ],
)  # fmt: skip
def test_floats_of_another_scale_are_refused(tmp_path, monkeypatch, subtype, full, remedy):
    monkeypatch.setattr('ser_jax.audio.reading._BLOCK', 100)
    samples = np.full((1000, 2), 0.1)
    samples[500, 1], samples[700, 0] = full * 2.5 / 3, -full
    soundfile.write(tmp_path / 'a.wav', samples, 44100, subtype=subtype)
    with pytest.raises(AudioError, match=re.escape(remedy)):
        read_audio(tmp_path / 'a.wav')
    with pytest.raises(UserError, match=re.escape(remedy)):
        to_mono(samples, 44100)


@pytest.mark.parametrize(('ending', 'rate'), [('mp3', 44100), ('ogg', 16000)])
def test_decoders_that_exceed_full_scale_are_read(tmp_path, ending, rate):
    noise = np.sign(np.random.default_rng(0).standard_normal(rate))
    soundfile.write(tmp_path / f'a.{ending}', noise, rate)
    assert np.abs(soundfile.read(tmp_path / f'a.{ending}')[0]).max() > 2
    assert read_audio(tmp_path / f'a.{ending}').max() == 32767


@pytest.mark.parametrize('dtype', ['uint8', 'int8', 'int16', 'int32'])
def test_integers_in_memory_have_the_full_scale_of_their_type(dtype):
    limits = np.iinfo(dtype)
    middle = (limits.max + limits.min + 1) // 2
    half = middle + (limits.max - middle) // 2 + 1
    samples = np.array([limits.min, middle, half], dtype)
    np.testing.assert_array_equal(to_mono(samples, 16000), [-32768, 0, 16384])
    np.testing.assert_array_equal(to_mono(samples[:, None], 16000), [-32768, 0, 16384])


@pytest.mark.parametrize('dtype', ['uint16', 'int64', 'bool', 'complex64', 'str', 'object'])
def test_other_types_in_memory_are_refused(dtype):
    with pytest.raises(
        UserError, match=r'a waveform holds floats in .* or uint8, int8, int16, int32, not'
    ):
        to_mono(np.zeros(1000).astype(dtype), 16000)


@pytest.mark.parametrize('rate', [None, '16000', 0, -1, 1.0, np.nan, np.inf, True, [16000]])
def test_implausible_sample_rates_in_memory(rate):
    with pytest.raises(UserError, match=r'sample rate is .* must be a number from 1000 to 768000'):
        to_mono(np.zeros(1000), rate)


def write_broken(path, kind):
    """A file that is broken in one way."""
    soundfile.write(path, tone(16000), 16000)
    whole = path.read_bytes()
    if kind == 'missing':
        path.unlink()
    elif kind == 'empty':
        path.write_bytes(b'')
    elif kind == 'truncated':
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == 'garbage':
        path.write_bytes(b'<html>404 not found</html>' * 20)
    elif kind == 'header only':
        soundfile.write(path, np.zeros(0), 16000)
    elif kind == 'not a number':
        soundfile.write(path, np.full(8000, np.nan), 16000, subtype='FLOAT')
    elif kind == 'folder':
        path.unlink()
        path.mkdir()
    elif kind == 'pipe':
        path.unlink()
        os.mkfifo(path)
    elif kind == 'link':
        path.unlink()
        path.symlink_to('gone.wav')


@pytest.mark.parametrize(
    ('kind', 'reason'),
    [
        ('missing', 'no such file'),
        ('empty', 'empty'),
        ('truncated', 'truncated'),
        ('garbage', 'cannot be decoded'),
        ('header only', 'no samples'),
        ('not a number', 'not finite'),
        ('folder', 'a folder, not a file'),
        ('pipe', 'a pipe or device, which is not read'),
        ('link', 'a link that leads nowhere'),
    ],
)
def test_broken_files(tmp_path, kind, reason):
    path = tmp_path / 'broken.wav'
    write_broken(path, kind)
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path)
    assert 'broken.wav' in str(caught.value)
    assert '\n' not in str(caught.value)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.reason, str(again)) == (caught.value.reason, str(caught.value))


@pytest.mark.parametrize('size', [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_headers_of_streaming_writers_are_no_truncation(tmp_path, size):
    path = tmp_path / 'streamed.wav'
    soundfile.write(path, tone(16000), 16000)
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack('<I', size) + data[8:])
    assert len(read_audio(path)) == 8000


def test_unusable_reason():
    speech = np.round(tone(16000) * 32767).astype(np.int16)
    assert unusable_reason(speech) is None
    assert unusable_reason(speech[:1599]).startswith('too short (0.10 s')
    assert unusable_reason(np.zeros(16000, np.int16)) == 'silent'
    assert unusable_reason(np.full(16000, -32768, np.int16)) == 'silent'  # constant
    assert unusable_reason(speech // 2 + 16000) is None
    assert screen(np.full(16000, 12000, np.int16)) == ('silent',)


@pytest.mark.parametrize('rate', [8000, 16000, 22050, 48000])
@pytest.mark.parametrize('level', [0.01, 0.4, -0.99])
def test_constant_recordings_are_silent_for_build_and_predict(tmp_path, rate, level):
    soundfile.write(tmp_path / 'a.wav', np.full(rate, level), rate)
    samples = read_audio(tmp_path / 'a.wav')
    assert unusable_reason(samples) == 'silent'
    assert screen(samples) == ('silent',)


def test_reading_in_blocks(tmp_path, monkeypatch):
    import soxr

    monkeypatch.setattr('ser_jax.audio.reading._BLOCK', 1 << 12)
    stereo = np.random.default_rng(0).normal(0, 0.1, (30000, 2)).astype(np.float32)
    soundfile.write(tmp_path / 'a.wav', stereo, 44100, subtype='FLOAT')
    whole = soxr.resample(stereo.mean(1), 44100, 16000, quality='HQ')
    expected = np.rint(whole * 32768).astype(np.int16)
    np.testing.assert_array_equal(read_audio(tmp_path / 'a.wav'), expected)


@pytest.mark.parametrize('rate', [1, 999, 900_000])
def test_implausible_sample_rates(tmp_path, rate):
    soundfile.write(tmp_path / 'a.wav', tone(16000), rate)
    with pytest.raises(AudioError, match=f'implausible sample rate of {rate} Hz'):
        read_audio(tmp_path / 'a.wav')


def test_without_a_header(tmp_path):
    (tmp_path / 'a.raw').write_bytes(bytes(1000))
    with pytest.raises(AudioError, match='no header'):
        read_audio(tmp_path / 'a.raw')


def stereo(*factors):
    """One voice in some channels, each with a factor."""
    return np.stack([tone(16000) * factor for factor in factors], axis=1)


@pytest.mark.parametrize(
    ('factors', 'expected'),
    [
        ((1, 1), 1),
        ((1, 0.5), 0.75),
        ((1, -1), 1),
        ((0.9, -1), -1),
        ((0, 1), 1),
        ((1, 1e-3), 1),
        ((0, 0, 1, 0), 1),
        ((1, 0, 0, 1), 0.5),
        ((1, -1, 1, -1), 1),
        ((0, 0), 0),
    ],
)
def test_empty_and_opposite_channels(tmp_path, monkeypatch, factors, expected):
    monkeypatch.setattr('ser_jax.audio.reading._BLOCK', 1 << 12)
    sound = stereo(*factors)
    soundfile.write(tmp_path / 'a.wav', sound, 16000, subtype='FLOAT')
    wanted = np.rint(32768 * expected * tone(16000)).astype(int)
    for result in (
        read_audio(tmp_path / 'a.wav'),
        to_mono(sound, 16000),
        to_mono(np.rint(sound * 32767).astype(np.int16), 16000),
    ):
        assert np.abs(result - wanted).max() <= 2


def test_an_offset_in_one_channel_does_not_matter(tmp_path):
    sound = stereo(1, 0) + np.array([0, 0.2])
    soundfile.write(tmp_path / 'a.wav', sound, 16000, subtype='FLOAT')
    assert np.abs(read_audio(tmp_path / 'a.wav') - np.rint(32768 * tone(16000))).max() <= 1


def test_a_name_that_the_locale_lacks(tmp_path):
    soundfile.write(tmp_path / '\u00fc.wav', tone(16000), 16000)
    code = 'import sys; from ser_jax.audio.reading import read_audio; read_audio(sys.argv[1] + "/\\u00fc.wav")'
    locale = {'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, **locale},
        capture_output=True,
        text=True,
    )
    assert 'the locale has no characters for this name: set PYTHONUTF8=1' in done.stderr
