"""What the headers of audio files state: where the samples lie and how many bytes they take.

libsndfile reads files that are cut off as if they were whole, and some streams, whose size was not known when their
header was written, as if they were empty.
"""

import io
import itertools
import mmap
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

# Bytes that may be missing: some writers count the header among the samples, or padding that they do not write.
_SLACK = 64
_MOST_CHUNKS = 1000
_FLAC_HEAD = re.compile(rb'fLaC[\x00\x80]\x00\x00\x22')
_OGG_PAGE = 27 + 255 + 255 * 255  # bytes at most
_REVERSED = bytes(int(f'{byte:08b}'[::-1], 2) for byte in range(256))
_TRAILER = 4096  # bytes from which what follows the samples is looked at
_HEADS = (b'RIFF', b'RIFX', b'RF64', b'BW64', b'FORM', b'caff', b'.snd', b'dns.')
_JOINED = 'several recordings in one file, of which only the first would be read: split it, or convert it to wav'
_LONGER = 'longer than its header says: the rest would not be read (correct the header)'
_DAMAGED = 'damaged inside: a part would be left out'
# Endings of the GUIDs of wave64: `riff`, and `wave`, `data` and so on.
_RIFF_GUID = bytes.fromhex('2e91cf11a5d628db04c10000')
_GUID = bytes.fromhex('f3acd3118cd100c04f8edb8a')
_CONVERT = 'which is not read: convert it to wav or flac'
# Beginning of a file (regular expression) -> what it is.
_OTHER_CONTENT = {
    rb'version https://git-lfs': 'a git-lfs pointer, not the recording: run git lfs pull in its folder',
    rb'\s*(<!doctype html|<html)': 'an HTML page, not a recording: download it again',
    rb'\s*<\?xml': 'an XML text, not a recording: download it again',
    rb'PK\x03\x04': 'a zip archive: unpack it',
    rb'\x1f\x8b': 'a gzip archive: unpack it',
    rb'....ftyp': f'MPEG-4 (m4a, mp4), {_CONVERT}',
    rb'\x1a\x45\xdf\xa3': f'Matroska (webm, mka), {_CONVERT}',
    rb'\xff[\xf0\xf1\xf8\xf9]': f'AAC, {_CONVERT}',
    rb'#!AMR': f'AMR, {_CONVERT}',
    rb'\x30\x26\xb2\x75': f'Windows Media (wma), {_CONVERT}',
}


class Samples(NamedTuple):
    """The part of a file that holds the samples.

    Attributes:
        start: position of the first byte.
        size: bytes that the header states; None for an open end.
        field: position of this number in the header, 0 where it cannot be replaced.
        form: struct format of the number.
        extra: bytes that it counts besides the samples.
    """

    start: int
    size: int | None
    field: int = 0
    form: str = '<I'
    extra: int = 0


def find_samples(file: BinaryIO, length: int) -> Samples | None:
    """The samples that the header of an audio file states; None for a format without such a number, or an unreadable header.

    The file is read from its beginning; `length` is its number of bytes.
    """
    head = file.read(40)
    try:
        if head[:4] in (b'RIFF', b'RIFX', b'RF64', b'BW64') and head[8:12] == b'WAVE':
            return _chunks(file, length, 12, '>I' if head[:4] == b'RIFX' else '<I', (b'data',))
        if head[:4] == b'FORM' and head[8:12] in (b'AIFF', b'AIFC', b'8SVX', b'16SV'):
            return _chunks(file, length, 12, '>I', (b'SSND', b'BODY'))
        if head[:16] == b'riff' + _RIFF_GUID and head[24:40] == b'wave' + _GUID:
            return _chunks(file, length, 40, '<Q', (b'data' + _GUID,))
        if head[:4] == b'caff':
            return _chunks(file, length, 8, '>Q', (b'data',))
        if head[:4] in (b'.snd', b'dns.'):
            form = '>I' if head[:4] == b'.snd' else '<I'
            start, size = struct.unpack(form[0] + '2I', head[4:12])
            return Samples(start, _stated(size, form, length - start), 8, form)
        if head[:7] == b'NIST_1A':
            return _nist(file)
        if head[:20] == b'Creative Voice File\x1a':
            return _last_voc_block(file, length, *struct.unpack('<H', head[20:22]))
        if head[:4] == b'2BIT':  # AVR
            stereo, bits, frames = struct.unpack('>2H10xI', head[12:30])
            return Samples(128, frames * (2 if stereo else 1) * bits // 8)
        if head[:15] == b'ALawSoundFile**':
            return Samples(32, *struct.unpack('>I', head[18:22]))
        if head[:4] == b'OggS':
            return _last_ogg_page(file, length)
        return None
    except struct.error:  # the file ends within its header
        return None


def _stated(size: int, form: str, room: int) -> int | None:
    """A size as the header states it; None for the 0 and the largest numbers that streaming writers put.

    `form` is its struct format, `room` the bytes that follow: a large number that fits in is meant.
    """
    largest = 0x7F000000 if form[1] == 'I' else 1 << 62
    is_open = size == 0 or (size > room and (size == 0xFFFFFFFF or size >= largest))
    return None if is_open else size


def _chunks(
    file: BinaryIO, length: int, at: int, form: str, wanted: tuple[bytes, ...]
) -> Samples | None:
    """Finds the chunk with the samples in RIFF, AIFF, wave64 or CAF.

    Args:
        file: the file.
        length: bytes of the file.
        at: position of the first chunk.
        form: struct format of sizes.
        wanted: names of the chunk with the samples.
    """
    name, number = len(wanted[0]), struct.calcsize(form)
    wave64 = name == 16  # sizes include the header of the chunk and are padded to 8 bytes
    in_ds64 = None
    for _ in range(_MOST_CHUNKS):
        if at >= length:
            return None
        file.seek(at)
        chunk = file.read(name)
        (size,) = struct.unpack(form, file.read(number))
        field, at = at + name, at + name + number
        if chunk in wanted:
            extra = 24 if wave64 else {b'SSND': 8, b'data': 4 * (form == '>Q')}.get(chunk, 0)
            start = at if wave64 else at + extra
            if in_ds64 and size == 0xFFFFFFFF:
                return in_ds64._replace(start=start)
            stated = _stated(size, form, length - at)
            if size == 0 and _holds_chunks(file, at, length, form, name):
                stated = extra
            return Samples(start, stated and max(0, stated - extra), field, form, extra)
        if chunk == b'ds64' and form == '<I':
            (stated,) = struct.unpack('<8xQ', file.read(16))
            in_ds64 = Samples(0, _stated(stated, '<Q', length), at + 8, '<Q')
        if wave64:
            at += max(size - 24, 0) + -size % 8
        else:
            at += size + (size % 2 if number == 4 else 0)
    return None


def _holds_chunks(file: BinaryIO, at: int, length: int, form: str, name: int) -> bool:
    """Whether only further chunks follow, as after a recording without samples."""
    while at < length:
        file.seek(at)
        chunk = file.read(name)
        if not re.fullmatch(rb'[\x20-\x7e]{4}', chunk[:4]):
            return False
        try:
            (size,) = struct.unpack(form, file.read(struct.calcsize(form)))
        except struct.error:
            return False
        at += name + struct.calcsize(form) + size + size % 2
    return at <= length + 1


def _nist(file: BinaryIO) -> Samples | None:
    file.seek(0)
    head = file.read(1024)
    numbers = [
        re.search(rb'%s -i (\d+)' % name, head)
        for name in (b'sample_count', b'channel_count', b'sample_n_bytes')
    ]
    coded = re.search(rb'sample_coding -s\d+ \S*,', head)  # compressed
    if None in numbers or coded or not (start := head[8:16].strip()).isdigit():
        return None
    count, channels, width = (int(number[1]) for number in numbers)
    return Samples(int(start), count * channels * width)


def _last_voc_block(file: BinaryIO, length: int, at: int) -> Samples | None:
    """The last block of samples of a Creative Voice file of `length` bytes; `at` is the position of the first block."""
    last = None
    for _ in range(_MOST_CHUNKS):
        file.seek(at)
        head = file.read(4)
        if at >= length or head[:1] == b'\0':  # the terminator, which some writers leave out
            break
        (size,) = struct.unpack('<I', head[1:] + b'\0')
        if head[0] in (1, 2, 9):
            last = Samples(at + 4, size)
        at += 4 + size
    return last


def _last_ogg_page(file: BinaryIO, length: int) -> Samples | None:
    """The last page of an ogg file: a file that is cut off ends within one."""
    begin, page = _from_last_ogg_page(file, length)
    if not page:
        return None
    count = page[26] if len(page) > 26 else 256
    segments = page[27 : 27 + count]
    size = 27 + len(segments) + sum(segments)
    is_whole = len(segments) == count and size <= len(page)
    return Samples(begin, size if is_whole else size + len(page) + _SLACK)


def _from_last_ogg_page(file: BinaryIO, length: int) -> tuple[int, bytes]:
    """Position and bytes from the last page of an ogg file to its end; no bytes where there is no page."""
    begin = max(0, length - _OGG_PAGE)
    file.seek(begin)
    tail = file.read()
    at = tail.rfind(b'OggS')
    return begin + max(at, 0), tail[at:] if at >= 0 else b''


def lacks_end(path: Path) -> bool:
    """Whether an ogg file does not end with the page that its writer marks as the last one.

    It is cut off between two pages, or its writer leaves the mark out, as Android's does: ogg states no size.
    """
    with path.open('rb') as file:
        page = _from_last_ogg_page(file, path.stat().st_size)[1]
    return len(page) > 5 and not page[5] & 4


def other_content(path: Path) -> str:
    """What a file holds that is not read, and the remedy, such as 'a zip archive: unpack it'; '' if unknown."""
    with path.open('rb') as file:
        head = file.read(1024)
    for pattern, content in _OTHER_CONTENT.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return f'cannot be decoded: {content}'
    try:
        text = head.decode('utf-8', 'strict' if len(head) < 1024 else 'ignore')
    except UnicodeDecodeError:
        return ''
    is_text = all(character.isprintable() or character in '\t\r\n' for character in text)
    return 'cannot be decoded: a text, no recording' if is_text else ''


def is_cut_off(samples: Samples | None, length: int) -> bool:
    """Whether a file of `length` bytes ends before the samples that its header states, as after an interrupted copy."""
    if samples is None or samples.size is None:
        return False
    return samples.start + samples.size > length + _SLACK


def unread_part(file: BinaryIO, length: int, samples: Samples | None) -> str:
    """Why libsndfile would not read all samples of a file, although it opens it; '' if nothing is known to be wrong.

    It reads the first of several recordings, as many samples as a header states, and an ogg file without its damaged pages.

    Args:
        file: file, at its beginning.
        length: bytes of the file, at least one.
        samples: result of `find_samples`.
    """
    head = file.read(4)
    if head == b'OggS':
        return _ogg_fault(file)
    if head == b'fLaC' or head[:3] == b'ID3':
        with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as content:
            return (
                _JOINED if len(list(itertools.islice(_FLAC_HEAD.finditer(content), 2))) == 2 else ''
            )
    if head not in _HEADS or samples is None or not samples.size:
        return ''
    if length - samples.start - samples.size < _TRAILER:
        return ''
    file.seek(samples.start + samples.size)
    rest = file.read(_TRAILER)
    if rest[:4] in _HEADS:
        return _JOINED
    # A further chunk, or a tag.
    is_chunk = re.match(rb'[\x20-\x7e]{3}', rest[samples.size % 2 :])
    return '' if is_chunk or not any(rest) else _LONGER


def _ogg_fault(file: BinaryIO) -> str:
    """What is wrong with the pages of an ogg file: a second recording, or damage."""
    at, content, following = 0, False, {}
    while True:
        file.seek(at)
        page = file.read(27 + 255)
        if page[:4] != b'OggS':
            return _DAMAGED if b'OggS' in page + file.read() else ''
        if len(page) < 27:
            return ''
        begins = bool(page[5] & 2)
        if begins and content:
            return _JOINED
        content |= not begins
        size = 27 + page[26] + sum(page[27 : 27 + page[26]])
        serial, number, checksum = struct.unpack('<3I', page[14:26])
        file.seek(at)
        page = file.read(size)
        if len(page) < size:
            return ''
        if following.get(serial, number) != number or _ogg_checksum(page) != checksum:
            return _DAMAGED
        following[serial] = number + 1
        at += size


def _ogg_checksum(page: bytes) -> int:
    """CRC-32 of a page, most significant bit first: zlib's, from the other end, of bytes turned around."""
    plain = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    return int(f'{zlib.crc32(plain, 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}'[::-1], 2)


class WithSize(io.RawIOBase):
    """A file whose header states the size of its samples, although the file leaves it open."""

    def __init__(self, path: Path, samples: Samples):
        """Args:
        path: path of the file.
        samples: result of `find_samples`.
        """
        self._file = path.open('rb')
        length = path.stat().st_size
        self._field = samples.field
        size = max(0, length - samples.start) + samples.extra
        most = (1 << 8 * struct.calcsize(samples.form)) - 1
        self._number = struct.pack(samples.form, min(size, most))

    def readinto(self, buffer) -> int:
        """Reads bytes, with the size in place."""
        at = self._file.tell()
        count = self._file.readinto(buffer)
        for offset, byte in enumerate(self._number, self._field - at):
            if 0 <= offset < count:
                buffer[offset : offset + 1] = bytes([byte])  # not every buffer takes numbers
        return count

    def seek(self, *where) -> int:
        """Moves to a position."""
        return self._file.seek(*where)

    def tell(self) -> int:
        """The position."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
