"""Walk a chunk-coded body (RFC 9112 §7.1) without decoding it: find where each chunk ends and that the whole ended properly.

Pure: bytes in, bytes out. Ollama sends a chunk a token, and the client needs the very same coding, so whole chunks are handed on
as they came. What is handed on always ends at a chunk boundary, so that an error record can be put behind it at any time:
an unfinished chunk is held back, and one that is too large to hold is handed on in chunks of our own. Extensions and trailers
are dropped, as a proxy may.
"""

import re

from hermes.errors import UpstreamBroken

HOLD = 64 * 1024            # bytes of an unfinished chunk that are worth waiting for
_LINE_MAX = 256             # a chunk size with its extension
_TRAILER_MAX = 8 * 1024
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(;[^\r\n]*)?\Z")


class ChunkWalker:
    """`feed` returns what may be handed on; `ended` turns true at the end of the body; `rest` is what came after it."""

    def __init__(self, note=None, decode: bool = False):
        """`note(buffer, start, end)` is told where each chunk's payload lies. `decode`: hand on payloads, without coding."""
        self.ended = False
        self.rest = b""
        self._note = note
        self._decode = decode
        self._held = b""
        self._left = 0              # payload bytes to come of a chunk that was too large to hold
        self._trailer = False
        self._sizes: dict[bytes, int] = {}

    def feed(self, data: bytes) -> bytes:
        """Raises UpstreamBroken on anything that is not chunked coding."""
        buffer = self._held + data if self._held else data
        self._held = b""
        if self._trailer:
            self._skip_trailer(buffer)
            return b""
        at, pieces = self._continue_large(buffer) if self._left else (0, [])
        start, length = at, len(buffer)
        while not self._left:
            line_end = buffer.find(b"\r\n", at, at + _LINE_MAX)
            if line_end < 0:
                if length - at >= _LINE_MAX:
                    raise UpstreamBroken("Ollama's answer has a malformed chunk size")
                break
            line = buffer[at:line_end]
            size = self._sizes.get(line)
            if size is None:
                size = self._parse_size(line)
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
            if self._note:
                self._note(buffer, payload, end)
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

    def _parse_size(self, line: bytes) -> int:
        match = _SIZE.match(line)
        if not match:
            raise UpstreamBroken("Ollama's answer has a malformed chunk size")
        size = int(match[1], 16)
        if len(self._sizes) < 4096:
            self._sizes[line] = size
        return size

    def _coded(self, payload: bytes) -> bytes:
        return payload if self._decode or not payload else b"%x\r\n%b\r\n" % (len(payload), payload)

    def _begin_large(self, part: bytes, size: int) -> bytes:
        """`part` is what has come of a chunk of `size` bytes; the loop goes on in _continue_large."""
        payload = part[:size]
        self._left = size - len(payload) + 2
        if len(part) > size:                    # only the line end is missing, or half of it
            self._left = 2
            self._held = part[size:]
        self._tell(payload)
        return self._coded(payload)

    def _continue_large(self, buffer: bytes) -> tuple[int, list[bytes]]:
        take = min(max(0, self._left - 2), len(buffer))
        payload = buffer[:take]
        self._left -= take
        pieces = [self._coded(payload)] if payload else []
        self._tell(payload)
        if self._left > 2 or len(buffer) - take < 2:
            self._held = buffer[take:]
            return len(buffer), pieces
        if buffer[take:take + 2] != b"\r\n":
            raise UpstreamBroken("Ollama's answer has a chunk that does not end where it should")
        self._left = 0
        return take + 2, pieces

    def _tell(self, payload: bytes) -> None:
        if self._note and payload:
            self._note(payload, 0, len(payload))

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
