"""Files that are cut off, streams whose size is left open, and files that are no recordings."""

import contextlib
import re
import struct

import numpy as np
import pytest
import soundfile

from ser_jax.audio.reading import AudioError, read_audio

NOISE = np.random.default_rng(0).bytes(100_000)
SAMPLES = (np.random.default_rng(0).normal(0, 0.1, 40000) * 32767).astype(np.int16)


def written(path, form='WAV', subtype='PCM_16', endian='FILE', samples=SAMPLES):
    """The bytes of a file in some format."""
    if subtype == 'FLOAT':
        samples = samples / 32768
    soundfile.write(path, samples, 16000, format=form, subtype=subtype, endian=endian)
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ('form', 'subtype', 'endian'),
    [
        ('WAV', 'PCM_16', 'FILE'),
        ('WAV', 'PCM_16', 'BIG'),  # RIFX
        ('WAV', 'FLOAT', 'FILE'),
        ('WAV', 'MS_ADPCM', 'FILE'),
        ('WAVEX', 'PCM_24', 'FILE'),
        ('RF64', 'PCM_16', 'FILE'),
        ('W64', 'PCM_16', 'FILE'),
        ('AIFF', 'PCM_16', 'FILE'),
        ('AIFF', 'PCM_16', 'LITTLE'),
        ('AU', 'PCM_16', 'FILE'),
        ('AU', 'PCM_16', 'LITTLE'),
        ('CAF', 'PCM_16', 'FILE'),
        ('SVX', 'PCM_16', 'FILE'),
        ('NIST', 'PCM_16', 'FILE'),
        ('VOC', 'PCM_16', 'FILE'),
        ('VOC', 'PCM_U8', 'FILE'),
        ('VOC', 'ULAW', 'FILE'),
        ('AVR', 'PCM_16', 'FILE'),
        ('AVR', 'PCM_S8', 'FILE'),
        ('WVE', 'ALAW', 'FILE'),
        ('HTK', 'PCM_16', 'FILE'),
        ('FLAC', 'PCM_16', 'FILE'),
        ('OGG', 'VORBIS', 'FILE'),
        ('OGG', 'OPUS', 'FILE'),
        ('MP3', 'MPEG_LAYER_III', 'FILE'),
    ],
)
def test_files_that_are_cut_off_are_refused(tmp_path, form, subtype, endian):
    path = tmp_path / 'a.wav'
    whole = written(path, form, subtype, endian)
    expected = 80000 if form == 'WVE' else 40000  # always 8 kHz
    assert abs(len(read_audio(path)) - expected) < 1000
    path.write_bytes(b'ID3\4\0\0\0\0\0\x14' + bytes(20) + whole if form == 'MP3' else whole)
    read_audio(path)
    # libsndfile checks the length of HTK files itself.
    reason = {'FLAC': 'truncated|lost sync', 'HTK': 'not recognised'}.get(form, 'truncated')
    for part in (0.3, 0.5, 0.9, 0.98):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(AudioError, match=reason):
            read_audio(path)


def test_variable_bit_rates_are_no_truncation(tmp_path):
    path = tmp_path / 'a.mp3'
    noise = np.concatenate([np.zeros(40000, np.int16), SAMPLES])
    soundfile.write(path, noise, 16000, bitrate_mode='VARIABLE', compression_level=0.5)
    assert len(read_audio(path)) == 80000


OPEN = [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x7F000008]


@pytest.mark.parametrize('size', OPEN)
@pytest.mark.parametrize(
    ('form', 'endian', 'name', 'after', 'pack'),
    [
        ('WAV', 'FILE', b'data', 4, '<I'),
        ('WAV', 'BIG', b'data', 4, '>I'),
        ('AIFF', 'FILE', b'SSND', 4, '>I'),
        ('AU', 'FILE', b'.snd', 8, '>I'),
        ('AU', 'LITTLE', b'dns.', 8, '<I'),
        ('RF64', 'FILE', b'ds64', 16, '<Q'),
        ('W64', 'FILE', b'data', 16, '<Q'),
        ('CAF', 'FILE', b'data', 4, '>Q'),
    ],
)
def test_streams_of_open_size_are_read_to_their_end(
    tmp_path, form, endian, name, after, pack, size
):
    path = tmp_path / 'a.wav'
    data = written(path, form, 'PCM_16', endian)
    if pack[1] == 'Q' and size:
        size = {0xFFFFFFFF: 2**32 - 1, 0x7FFFF000: 2**64 - 1}.get(size, 2**63 - 1)
    struct.pack_into(pack, data, data.index(name) + after, size)
    if form == 'WAV':
        struct.pack_into(pack, data, 4, size)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path), SAMPLES)


def test_flac_of_open_size_is_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr('ser_jax.audio.reading._BLOCK', 1 << 14)
    path = tmp_path / 'a.flac'
    data = written(path, 'FLAC')
    data[21] &= 0xF0  # the last 36 bits of these 8 bytes are the number of samples
    data[22:26] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(read_audio(path), SAMPLES)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match='lost sync'):
        read_audio(path)


def test_a_header_without_samples_is_empty(tmp_path):
    path = tmp_path / 'a.wav'
    data = written(path, samples=SAMPLES[:0])
    path.write_bytes(data + b'LIST' + struct.pack('<I', 8) + b'INFOabcd')
    with pytest.raises(AudioError, match='no samples'):
        read_audio(path)


def test_samples_behind_other_chunks(tmp_path):
    path = tmp_path / 'a.wav'
    data = written(path)
    chunk = b'junk' + struct.pack('<I', 5) + bytes(6)
    path.write_bytes(data[:12] + chunk + data[12:] + chunk)
    np.testing.assert_array_equal(read_audio(path), SAMPLES)
    path.write_bytes(data[:12] + chunk + data[12:-40000])
    with pytest.raises(AudioError, match='truncated'):
        read_audio(path)


def test_headers_of_many_chunks_end(tmp_path):
    (tmp_path / 'a.wav').write_bytes(b'RIFF\xff\xff\xff\x7fWAVE' + bytes(1 << 20))
    with pytest.raises(AudioError, match='cannot be decoded'):
        read_audio(tmp_path / 'a.wav')


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 3\n', 'git lfs pull'),
        (b'\n<!DOCTYPE html>\n<html>' + b' ' * 5000, 'an HTML page, not a recording'),
        (b'<HTML><body>404</body></HTML>', 'an HTML page'),
        (b'<?xml version="1.0"?><Error/>', 'an XML text'),
        (b'{"message": "Not Found"}', 'a text, no recording'),
        (b'PK\x03\x04' + bytes(100), 'a zip archive: unpack it'),
        (b'\0\0\0\x20ftypM4A ' + bytes(100), 'm4a, mp4.*convert it to wav'),
        (b'\x1a\x45\xdf\xa3' + bytes(100), 'webm'),
        (b'#!AMR\n' + bytes(100), 'AMR'),
        (b'\xff\xf1\x50\x80' + NOISE, 'AAC'),
    ],
)
@pytest.mark.parametrize('name', ['a.wav', 'a.mp3', 'a.raw'])
def test_files_that_are_no_recordings_are_named(tmp_path, content, words, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=f'cannot be decoded: .*{words}'):
        read_audio(tmp_path / name)


@pytest.mark.parametrize('name', ['a.wav', 'a.mp3'])
def test_a_file_of_no_format_is_not_called_missing(tmp_path, name):
    (tmp_path / name).write_bytes(NOISE)
    with pytest.raises(AudioError, match='cannot be decoded') as raised:
        read_audio(tmp_path / name)
    assert 'exist' not in str(raised.value)


@pytest.mark.parametrize(
    'form', ['WAV', 'RF64', 'W64', 'AIFF', 'AU', 'CAF', 'OGG', 'NIST', 'VOC', 'AVR', 'HTK']
)
def test_headers_cut_off_anywhere_and_changed(tmp_path, form):
    path = tmp_path / 'a.wav'
    whole = written(path, form, 'VORBIS' if form == 'OGG' else 'PCM_16', samples=SAMPLES[:4000])
    rng = np.random.default_rng(0)
    for size in range(1, 120):
        path.write_bytes(whole[:size])
        with pytest.raises(AudioError):
            read_audio(path)
    for _ in range(200):
        changed = bytearray(whole)
        for place in rng.integers(0, 100, 4):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(AudioError):
            read_audio(path)


@pytest.mark.parametrize(
    ('form', 'subtype'),
    [
        ('OGG', 'VORBIS'),
        ('OGG', 'OPUS'),
        *((form, 'PCM_16') for form in ('FLAC', 'WAV', 'AIFF', 'AU')),
    ],
)
def test_joined_recordings_are_refused(tmp_path, form, subtype):
    one = tmp_path / 'one'
    written(one, form, subtype)
    assert len(read_audio(one))
    both = tmp_path / 'both'
    both.write_bytes(one.read_bytes() * 2)
    with pytest.raises(AudioError, match='several recordings in one file'):
        read_audio(both)


@pytest.mark.parametrize('form', ['WAV', 'RF64', 'AIFF', 'AU', 'CAF'])
def test_samples_behind_those_of_the_header(tmp_path, form):
    path = tmp_path / 'a'
    whole = written(path, form)
    for harmless in (bytes(5000), b'LIST' + bytes(5000), b'ID3\3' + bytes(5000), b'\1' * 1000):
        path.write_bytes(whole + harmless)
        assert len(read_audio(path)) == 40000
    path.write_bytes(whole + SAMPLES.tobytes())  # appended without a new header
    with pytest.raises(AudioError, match='longer than its header says'):
        read_audio(path)


@pytest.mark.parametrize('subtype', ['VORBIS', 'OPUS'])
def test_ogg_files_with_damaged_or_missing_pages(tmp_path, subtype):
    path = tmp_path / 'a.ogg'
    whole = written(path, 'OGG', subtype)
    pages = [match.start() for match in re.finditer(b'OggS', whole)]
    third, fourth = pages[2:4]
    changed = bytearray(whole)
    changed[third + 500] ^= 1
    for content in (
        changed,
        whole[:third] + whole[fourth:],
        whole[:third] + b'xx' + whole[third:],
        whole[: third + 100] + bytes(100) + whole[third + 200 :],
    ):
        path.write_bytes(content)
        with pytest.raises(AudioError, match='damaged inside'):
            read_audio(path)
    path.write_bytes(whole + b'TAG' + bytes(125))
    assert len(read_audio(path)) == 40000
