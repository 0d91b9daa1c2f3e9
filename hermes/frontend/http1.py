"""HTTP/1.1 as bytes: request heads in, strictly; response heads out. Pure, testable byte by byte.

One grammar, no repairs: what two programs could read in two ways is refused (RFC 9112 §2.2, §3, §5, §6; reliability.md §2.1).
"""

import re
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from hermes.errors import (BadRequest, BodyTooLarge, ExpectationFailed, HeadTooLarge, NotImplementedByHermes, UriTooLong,
                           VersionNotSupported)

LINE_MAX = 8 * 1024         # bytes of the request line
FIELD_MAX = 8 * 1024        # bytes of one header field
FIELDS_MAX = 100
HEAD_MAX = 32 * 1024        # bytes of the whole head
CHUNK_LINE_MAX = 256
EXCESS_MAX = 16 * 1024      # bytes of chunk coding without much in it; decoding 64 MiB of one-byte chunks would take a minute
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"})
ONCE = frozenset({"host", "content-length", "transfer-encoding", "content-type", "expect", "origin"})

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])\Z")
_NAME = re.compile(_TOKEN + rb"\Z")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_ABSOLUTE = re.compile(r"https?://([^/?#@]*)(/[^#]*|\?[^#]*|)\Z", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,15}\Z")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\Z")
_TEXT = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")


@dataclass(frozen=True, slots=True)
class Request:
    """A request's head. `path` is raw (not decoded) and has no query; header names are lower-case, values as sent."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    http11: bool = True
    length: int | None = 0      # bytes of the body; None = chunked
    keep_alive: bool = True
    expects_100: bool = False


UNREAD = Request("-", "-", "", {}, keep_alive=False)        # stands for one whose head could not be read


def parse_head(head: bytes) -> Request:
    """`head` is everything in front of the empty line. Raises a CallerError that says what is wrong, never with the input in it."""
    lines = head.split(b"\r\n")
    if len(lines[0]) > LINE_MAX:
        raise UriTooLong("the request line is too long")
    match = _REQUEST_LINE.match(lines[0])
    if not match:
        raise BadRequest("malformed request line")
    if match[3] != b"1":
        raise VersionNotSupported("only HTTP/1.0 and HTTP/1.1 are spoken here")
    http11 = match[4] != b"0"
    method, target = match[1].decode("ascii"), match[2].decode("ascii")
    if method not in METHODS:
        raise NotImplementedByHermes("unknown method")
    headers = _parse_fields(lines[1:])
    path, query = _split_target(method, target)
    if "host" not in headers and http11:
        raise BadRequest("the Host header is missing")
    connection = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    keep_alive = "close" not in connection if http11 else "keep-alive" in connection
    return Request(method, path, query, headers, http11, _body_length(headers, http11), keep_alive, _expects_100(headers, http11))


def overlong(head: bytes) -> UriTooLong | HeadTooLarge:
    """What to say to the beginning of a head that is longer than HEAD_MAX."""
    line_end = head.find(b"\r\n")
    return UriTooLong("the request line is too long") if line_end < 0 or line_end > LINE_MAX else HeadTooLarge("the request head is too large")


def _parse_fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > FIELDS_MAX:
        raise HeadTooLarge("too many header fields")
    headers: dict[str, str] = {}
    for line in lines:
        if len(line) > FIELD_MAX:
            raise HeadTooLarge("a header field is too long")
        name, value = _parse_field(line)
        if name in headers:
            if name in ONCE:
                raise BadRequest(f"more than one {name} header")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return headers


def _parse_field(line: bytes) -> tuple[str, str]:
    """No regular expression over the whole: with spaces on both sides of a value it would take quadratic time."""
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.match(name) or _CONTROL.search(value):
        raise BadRequest("malformed header field")
    return name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")


def _split_target(method: str, target: str) -> tuple[str, str]:
    """Origin-form, or absolute-form by its path; asterisk-form for OPTIONS only (RFC 9112 §3.2)."""
    if target == "*" and method == "OPTIONS":
        return "*", ""
    if not target.startswith("/"):
        match = _ABSOLUTE.match(target)
        if not match or not match[1]:
            raise BadRequest("malformed request target")
        target = match[2] if match[2].startswith("/") else "/" + match[2]
    if "#" in target:
        raise BadRequest("malformed request target")
    path, _, query = target.partition("?")
    return path, query


def _body_length(headers: dict[str, str], http11: bool) -> int | None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or not http11:
            raise BadRequest("Transfer-Encoding beside Content-Length or in HTTP/1.0")
        if coding.lower() != "chunked":
            raise NotImplementedByHermes("only the chunked transfer coding is known here")
        return None
    if length is None:
        return 0
    if not _DIGITS.match(length):
        raise BadRequest("malformed Content-Length")
    return int(length)


def _expects_100(headers: dict[str, str], http11: bool) -> bool:
    expectation = headers.get("expect")
    if expectation is None or not http11:
        return False
    if expectation.lower() != "100-continue":
        raise ExpectationFailed("unknown expectation")
    return True


class ChunkedBody:
    """Decodes a chunked request body, strictly (RFC 9112 §7.1), each byte into its place. `ended`; then `rest` is what came behind it."""

    def __init__(self, limit: int):
        self._limit = limit
        self._buffer = b""          # the beginning of a line
        self._body = bytearray()
        self._left = 0              # bytes of the present chunk that are to come
        self._excess = 0            # bytes of coding beyond what honest chunks need
        self._in_chunk = self._trailer = False
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> None:
        """Raises BadRequest, BodyTooLarge."""
        buffer, at = self._buffer + data if self._buffer else data, 0
        while not self.ended:
            if self._in_chunk:
                at = self._chunk(buffer, at)
                if self._in_chunk:
                    break
            line_end = buffer.find(b"\r\n", at)
            if line_end < 0:
                if len(buffer) - at > (HEAD_MAX if self._trailer else CHUNK_LINE_MAX):
                    raise BadRequest("malformed chunk")
                break
            if self._trailer:
                self._trailer_line(buffer, at, line_end)
            else:
                self._size_line(buffer[at:line_end])
            at = line_end + 2
        self._buffer = buffer[at:]

    def _size_line(self, line: bytes) -> None:
        match = _CHUNK_LINE.match(line)
        if not match or len(line) > CHUNK_LINE_MAX:
            raise BadRequest("malformed chunk size")
        size = int(match[1], 16)
        self._excess = max(0, self._excess + len(line) - 12 - size)
        if self._excess > EXCESS_MAX:
            raise BadRequest("the body's chunks are too small")
        if len(self._body) + size > self._limit:
            raise BodyTooLarge(f"the body is larger than {self._limit} bytes")
        self._left, self._in_chunk, self._trailer = size, size > 0, size == 0

    def _chunk(self, buffer: bytes, at: int) -> int:
        """Take what has come of the present chunk and of the line end behind it."""
        if self._left:
            piece = memoryview(buffer)[at:at + self._left]
            self._body += piece
            at, self._left = at + len(piece), self._left - len(piece)
        line_end = buffer[at:at + 2]
        if line_end != b"\r\n"[:len(line_end)]:
            raise BadRequest("a chunk does not end where it should")
        if self._left or len(line_end) < 2:
            return at
        self._in_chunk = False
        return at + 2

    def _trailer_line(self, buffer: bytes, at: int, line_end: int) -> None:
        if line_end == at:
            self.ended, self.rest = True, buffer[at + 2:]
        else:
            _parse_field(buffer[at:line_end])

    def body(self) -> bytearray:
        return self._body

    def take(self) -> bytearray:
        """What has come since the last call, for those who pass it on."""
        piece, self._body = self._body, bytearray()
        return piece


def response_head(status: int, headers: list[tuple[str, str]]) -> bytes:
    """Status line, the given fields and the empty line. Raises ValueError on a field that would split the response."""
    lines = [_status_line(status)]
    for name, value in headers:
        if not _TEXT.match(value):
            raise ValueError("a header value with control characters")
        lines.append(f"{name}: {value}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Status"
    return f"HTTP/1.1 {status} {phrase}\r\n"


@lru_cache(maxsize=2)
def http_date(second: int) -> str:
    """An IMF-fixdate (RFC 9110 §5.6.7). Made once a second, however many ask."""
    return formatdate(second, usegmt=True)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


LAST_CHUNK = b"0\r\n\r\n"
