"""The frames of mp3 files: how many there are, and how many the first one states.

libsndfile reads as many as the first frame states (headers of Xing and LAME), or as many as there would be if all had the
bit rate of the first: it stops early in files of variable bit rate without such a header, and in joined files.
"""

import io
import mmap
import struct
from pathlib import Path
from typing import NamedTuple

# kbit/s by (MPEG 1, layer).
_BIT_RATES = {
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_TOLERANCE = 0.01  # of the frames


class _Frame(NamedTuple):
    kind: tuple  # equal for all frames of a file: version, layer, sample rate
    bit_rate: int  # bit/s
    size: int  # bytes
    side: int  # bytes before the samples: the place of Xing's header


class Frames(NamedTuple):
    """The frames of an mp3 file.

    Attributes:
        start: position of the first frame with samples.
        head: bytes of the first frame.
        count: number of frames with samples.
        stated: number that the header states; None without one.
        varies: whether the bit rate varies.
        side: position of Xing's header in a frame.
    """

    start: int
    head: bytes
    count: int
    stated: int | None
    varies: bool
    side: int

    @property
    def is_cut_off(self) -> bool:
        """Whether there are fewer frames than stated."""
        return self.stated is not None and self.count < self.stated * (1 - _TOLERANCE) - 1

    @property
    def is_misread(self) -> bool:
        """Whether libsndfile would stop before the last frame."""
        if self.stated is None:
            return self.varies
        return self.count > self.stated * (1 + _TOLERANCE) + 1


def find_frames(path: Path) -> Frames | None:
    """Walks through the frames of an mp3 file, which must not be empty; None for other files."""
    with path.open('rb') as file:
        head = file.read(3)
        if head[:1] != b'\xff' and head != b'ID3':
            return None
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:  # some network file systems
            data = head + file.read()
    at = 0
    while data[at : at + 3] == b'ID3' and len(data) > at + 10:
        sizes = zip(data[at + 6 : at + 10], (21, 14, 7, 0))
        at += 10 + sum((byte & 0x7F) << shift for byte, shift in sizes)
    first = _frame(data, at)
    if first is None:
        return None
    head, count, rates = data[at : at + first.size], 0, set()
    stated, start = _stated(head, first), at
    if stated is not None:
        at = start = at + first.size
    while at < len(data):
        frame = _frame(data, at)
        # Behind a tag or damage, two frames in a row are needed: any byte might look like one.
        if frame is None or frame.kind != first.kind:
            at = _next_frame(data, at + 1, first)
            continue
        if at + frame.size <= len(data):
            count += 1
            rates.add(frame.bit_rate)
        at += frame.size
    return Frames(start, head, count, stated, len(rates) > 1, first.side)


def _frame(data, at: int) -> _Frame | None:
    """The frame whose header is at a position; None where there is none."""
    if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, 4 - (data[at + 1] >> 1 & 3)
    index, rate, padding = data[at + 2] >> 4, data[at + 2] >> 2 & 3, data[at + 2] >> 1 & 1
    if version == 1 or layer not in (2, 3) or index in (0, 15) or rate == 3:
        return None
    newest, sample_rate = version == 3, _RATES[version][rate]
    bit_rate = 1000 * _BIT_RATES[newest, layer][index]
    size = (144 if newest or layer == 2 else 72) * bit_rate // sample_rate + padding
    is_mono = data[at + 3] >> 6 == 3
    side = 4 + ((17 if is_mono else 32) if newest else (9 if is_mono else 17))
    return _Frame((version, layer, sample_rate), bit_rate, size, side)


def _next_frame(data, at: int, first: _Frame) -> int:
    """The position of the next frame that another one follows; the end of the data where there is none."""
    while (at := data.find(b'\xff', at)) >= 0:
        frame = _frame(data, at)
        if frame and frame.kind == first.kind:
            after = _frame(data, at + frame.size)
            if after and after.kind == first.kind:
                return at
        at += 1
    return len(data)


def _stated(head: bytes, first: _Frame) -> int | None:
    """The number of frames that the first one states; 0 if it is a header without that number."""
    side, head = first.side, head.ljust(64, b'\0')  # it may be cut off
    if head[side : side + 4] in (b'Xing', b'Info'):
        flags, count = struct.unpack('>II', head[side + 4 : side + 12])
        return count if flags & 1 else 0
    if head[36:40] == b'VBRI':
        return struct.unpack('>I', head[50:54])[0]
    return None


class WithFrameCount(io.RawIOBase):
    """An mp3 file whose first frame states the number of its frames."""

    def __init__(self, path: Path, frames: Frames):
        """Args:
        path: path of the file.
        frames: result of `find_frames`.
        """
        xing = b'Xing' + struct.pack('>II', 1, frames.count)
        head = frames.head[:4] + bytes(frames.side - 4) + xing
        self._head = head.ljust(len(frames.head), b'\0')
        self._file = path.open('rb')
        self._start = frames.start
        self._length = len(self._head) + path.stat().st_size - frames.start
        self._at = 0

    def readinto(self, buffer) -> int:
        """Reads bytes: those of the new first frame, or of the file."""
        wanted = len(buffer)
        piece = self._head[self._at : self._at + wanted]
        if len(piece) < wanted:
            self._file.seek(self._start + self._at + len(piece) - len(self._head))
            piece += self._file.read(wanted - len(piece))
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a position."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence, self._length)
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()
