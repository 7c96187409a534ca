"""mp3 files whose header states no, or another, number of frames."""

import contextlib

import numpy as np
import pytest
import soundfile

from ser_jax.audio.mp3 import find_frames
from ser_jax.audio.reading import AudioError, read_audio

# Loud, then quiet: the first frame has a high bit rate, which promises few frames.
LOUD = np.random.default_rng(0).normal(0, 0.1, 80000)
SOUND = np.concatenate([LOUD, np.zeros(160000), LOUD / 2])


@pytest.fixture(params=[(16000, 1), (16000, 2), (44100, 1), (44100, 2), (8000, 1)], ids=str)
def encoded(request, tmp_path):
    """(path, sample rate, content) of a file of variable bit rate."""
    rate, channels = request.param
    path = tmp_path / 'a.mp3'
    samples = np.stack([SOUND] * channels, axis=1)
    soundfile.write(path, samples, rate, bitrate_mode='VARIABLE', compression_level=0.5)
    return path, rate, path.read_bytes()


def test_without_a_header_all_is_read(encoded):
    path, rate, content = encoded
    whole = read_audio(path, rate)
    frames = find_frames(path)
    assert frames.stated == frames.count
    assert frames.varies
    assert not frames.is_misread
    assert not frames.is_cut_off
    path.write_bytes(content[frames.start :] + b'TAG' + bytes(125))
    assert find_frames(path).stated is None
    result = read_audio(path, rate)
    assert abs(len(result) - len(whole)) < 3000
    # The end is there, and at its usual place up to the encoder's delay.
    energy = lambda samples: (samples[-60000:].astype(float) ** 2).mean()
    assert energy(result) == pytest.approx(energy(whole), rel=0.1)


def test_joined_files_are_read_to_their_end(encoded):
    path, rate, content = encoded
    tag = b'ID3\4\0\0\0\0\1\0' + bytes(128)
    path.write_bytes(tag + content + tag + content)
    assert len(read_audio(path, rate)) > 1.99 * len(SOUND)


def test_cut_off(encoded):
    path, rate, content = encoded
    for part in (0.3, 0.6, 0.9):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(AudioError, match='truncated'):
            read_audio(path, rate)


@pytest.mark.parametrize(
    'content', [b'\xff', b'\xff\xfb\x90', b'ID3\4\0\0\x7f\x7f\x7f\x7f', b'ID3']
)
def test_no_frames(tmp_path, content):
    (tmp_path / 'a.mp3').write_bytes(content)
    assert find_frames(tmp_path / 'a.mp3') is None
    with pytest.raises(AudioError):
        read_audio(tmp_path / 'a.mp3')


def test_constant_bit_rate_without_a_header(tmp_path):
    soundfile.write(
        tmp_path / 'a.mp3', SOUND, 16000, bitrate_mode='CONSTANT', compression_level=0.5
    )
    frames = find_frames(tmp_path / 'a.mp3')
    content = (tmp_path / 'a.mp3').read_bytes()
    (tmp_path / 'a.mp3').write_bytes(content[frames.start :])
    assert not find_frames(tmp_path / 'a.mp3').is_misread
    assert abs(len(read_audio(tmp_path / 'a.mp3')) - len(SOUND)) < 3000


def test_headers_cut_off_anywhere_and_changed(encoded):
    path, rate, content = encoded
    rng = np.random.default_rng(0)
    for size in range(1, 120):
        path.write_bytes(content[:size])
        with pytest.raises(AudioError):
            read_audio(path, rate)
    for _ in range(100):
        changed = bytearray(content[:4000])
        for place in rng.integers(0, 300, 5):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(AudioError):
            read_audio(path, rate)
