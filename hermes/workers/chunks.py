"""Walk a chunk-coded body (RFC 9112 §7.1) without decoding it: find where each chunk ends and that the whole ended properly.

Pure: bytes in, bytes out. Ollama sends a chunk a token, and the client needs the very same coding, so whole chunks are handed on
as they came. What is handed on always ends at a chunk boundary, so that an error record can be put behind it at any time:
an unfinished chunk is held back, and one that is too large to hold is handed on in chunks of our own. Extensions and trailers
are dropped, as a proxy may.
"""

import re
from functools import lru_cache

from hermes.errors import UpstreamBroken

HOLD = 64 * 1024            # bytes of an unfinished chunk that are worth waiting for
_LINE_MAX = 256             # a chunk size with its extension
_TRAILER_MAX = 8 * 1024
_MANY = 1024                # bytes from which a read is likely to hold several chunks
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(;[^\r\n]*)?\Z")


@lru_cache(maxsize=4096)
def size_of(line: bytes) -> int:
    """A chunk's size from its first line, extension allowed. Raises UpstreamBroken."""
    match = _SIZE.match(line)
    if not match:
        raise UpstreamBroken("Ollama's answer has a malformed chunk size")
    return int(match[1], 16)


class ChunkWalker:
    """`feed` returns what may be handed on; `ended` turns true at the end of the body; `rest` is what came after it."""

    def __init__(self, decode: bool = False):
        """`decode`: hand on payloads, without coding."""
        self.ended = False
        self.rest = b""
        self._decode = decode
        self._held = b""
        self._left = 0              # payload bytes to come of a chunk that was too large to hold
        self._trailer = False

    def feed(self, data: bytes) -> bytes:
        """Raises UpstreamBroken on anything that is not chunked coding."""
        buffer = self._held + data if self._held else data
        self._held = b""
        if self._trailer:
            self._skip_trailer(buffer)
            return b""
        if len(buffer) > _MANY and not self._left and (out := self._feed_many(buffer)) is not None:
            return out
        at, pieces = self._continue_large(buffer) if self._left else (0, [])
        start, length = at, len(buffer)
        while not self._left:
            line_end = buffer.find(b"\r\n", at, at + _LINE_MAX)
            if line_end < 0:
                if length - at >= _LINE_MAX:
                    raise UpstreamBroken("Ollama's answer has a malformed chunk size")
                break
            line = buffer[at:line_end]
            size = size_of(line)
            payload = line_end + 2
            if size == 0:
                pieces.append(buffer[start:at])
                self._trailer = True
                self._skip_trailer(buffer[payload:])
                return b"".join(pieces)
            end = payload + size
            if end + 2 > length:
                if length - at > HOLD:
                    pieces.append(buffer[start:at])
                    pieces.append(self._begin_large(buffer[payload:], size))
                    return b"".join(pieces)
                break
            if buffer[end:end + 2] != b"\r\n":
                raise UpstreamBroken("Ollama's answer has a chunk that does not end where it should")
            if end + 2 == length and not at and not self._decode and b";" not in line:
                return buffer                   # one whole chunk: a token at leisure
            if self._decode or b";" in line:
                pieces.append(buffer[start:at])
                pieces.append(self._coded(buffer[payload:end]))
                start = end + 2
            at = end + 2
        self._held = buffer[at:]
        if not pieces:
            return buffer[start:at]
        pieces.append(buffer[start:at])
        return b"".join(pieces)

    @property
    def at_boundary(self) -> bool:
        """Has nothing begun that has not ended?"""
        return not self._held and not self._left and not self._trailer

    def _feed_many(self, buffer: bytes) -> bytes | None:
        """The usual read of a fast stream: whole chunks without a line end in any payload, perhaps with the end of the body.

        Cut at the line ends, sizes and payloads take turns, and if every length is right the cut was right. A few calls into C do what
        the loop does a chunk at a time. None: not that simple, nothing has been done.
        """
        *lines, rest = buffer.split(b"\r\n")
        if rest or len(lines) % 2 or b";" in buffer:
            return None
        sizes = lines[::2]
        try:
            lengths = list(map(size_of, sizes))
        except UpstreamBroken:
            return None
        if lengths != list(map(len, lines[1::2])) or 0 in lengths[:-1]:
            return None
        self.ended = lengths[-1] == 0
        if self._decode:
            return b"".join(lines[1::2])
        return buffer[:-4 - len(sizes[-1])] if self.ended else buffer

    def _coded(self, payload: bytes) -> bytes:
        return payload if self._decode or not payload else b"%x\r\n%b\r\n" % (len(payload), payload)

    def _begin_large(self, part: bytes, size: int) -> bytes:
        """`part` is what has come of a chunk of `size` bytes; the loop goes on in _continue_large."""
        payload = part[:size]
        self._left = size - len(payload) + 2
        if len(part) > size:                    # only the line end is missing, or half of it
            self._left = 2
            self._held = part[size:]
        return self._coded(payload)

    def _continue_large(self, buffer: bytes) -> tuple[int, list[bytes]]:
        take = min(max(0, self._left - 2), len(buffer))
        payload = buffer[:take]
        self._left -= take
        pieces = [self._coded(payload)] if payload else []
        if self._left > 2 or len(buffer) - take < 2:
            return take, pieces                 # `feed` holds back the rest: half of a line end
        if buffer[take:take + 2] != b"\r\n":
            raise UpstreamBroken("Ollama's answer has a chunk that does not end where it should")
        self._left = 0
        return take + 2, pieces

    def _skip_trailer(self, buffer: bytes) -> None:
        """After the last chunk: trailer fields, which are dropped, and an empty line."""
        while True:
            line_end = buffer.find(b"\r\n")
            if line_end < 0:
                if len(buffer) > _TRAILER_MAX:
                    raise UpstreamBroken("Ollama's answer has an endless trailer")
                self._held = buffer
                return
            if line_end == 0:
                self.ended, self.rest = True, buffer[2:]
                return
            buffer = buffer[line_end + 2:]


def payload(coded: bytes) -> bytes:
    """The payload of whole chunks."""
    return ChunkWalker(decode=True).feed(coded)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""
