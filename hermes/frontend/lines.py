"""Lines and header fields out of bytes as they come: what a request's head and a chunked body have in common. Pure.

A line ends with CR LF and nothing else. RFC 9112 §2.2 would let a bare LF pass; but what one program takes for the end of a line, and another
for a part of it, has smuggled many a request past a proxy. A bad line is found as soon as it is bad, and a verdict depends on the bytes alone,
not on the pieces that they come in.
"""

import re

from hermes.errors import BadRequest, CallerError, HeadTooLarge

FIELD_MAX = 8 * 1024        # bytes of one header field
FIELDS_MAX = 100
HEAD_MAX = 32 * 1024        # bytes of the whole head, or of a body's trailers
ONCE = frozenset({"host", "content-length", "transfer-encoding", "content-type", "expect", "origin"})
TOKEN_CHAR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
TOKEN = TOKEN_CHAR + rb"+"

_TOO_LARGE = (HeadTooLarge, "a header field or the whole head is too large")
_NAME = re.compile(TOKEN + rb"\Z")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def end_of_line(buffer: bytes, at: int, limit: int, too_long: tuple[type[CallerError], str]) -> int:
    """Where the line that begins at `at` ends: its CR, or -1 if that has not come yet. Raises `too_long` on more than `limit` bytes without
    an end, BadRequest on a bare CR or LF; but in a line that is whole those are the caller's to refuse."""
    end = buffer.find(b"\r\n", at, at + limit + 2)
    if end >= 0:
        return end
    seen = min(len(buffer), at + limit + 2)
    # The last byte may be the CR whose LF has yet to come.
    if buffer.find(b"\n", at, seen) >= 0 or buffer.find(b"\r", at, seen - 1) >= 0:
        raise BadRequest("a line does not end with CR LF")
    if seen - at > limit + 1:
        error, text = too_long
        raise error(text)
    return -1


class Fields:
    """The fields of a head, or of a body's trailers, until the empty line; then it has `ended`. Names are lower-case, values as sent."""

    def __init__(self, used: int = 0):
        """`used`: bytes that count as well."""
        self.headers: dict[str, str] = {}
        self.ended = False
        self._left = HEAD_MAX - used
        self._count = 0

    def take(self, buffer: bytes, at: int) -> int:
        """Take the lines that are whole from `at` on. Returns where the next one begins. Raises BadRequest, HeadTooLarge."""
        while True:
            room = FIELD_MAX if self._left >= FIELD_MAX else max(0, self._left)
            end = end_of_line(buffer, at, room, _TOO_LARGE)
            if end < 0:
                return at
            if end == at:
                self.ended = True
                return end + 2
            self._add(buffer[at:end])
            at = end + 2

    def _add(self, line: bytes) -> None:
        """No regular expression over the whole: with spaces on both sides of a value it would take quadratic time."""
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or not _NAME.match(raw_name) or _CONTROL.search(raw_value):
            raise BadRequest("malformed header field")
        name, value = raw_name.decode("ascii").lower(), raw_value.strip(b" \t").decode("latin-1")
        self._left -= len(line) + 2
        self._count += 1
        if self._count > FIELDS_MAX:
            raise HeadTooLarge("too many header fields")
        if name in self.headers:
            if name in ONCE:
                raise BadRequest(f"more than one {name} header")
            value = f"{self.headers[name]}, {value}"
        self.headers[name] = value
