"""HTTP/1.1 as bytes: request heads in, strictly; response heads out. Pure, testable byte by byte.

One grammar, no repairs: what two programs could read in two ways is refused (RFC 9112 §2.2, §3, §5, §6; reliability.md §2.1).
"""

import ipaddress
import re
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from hermes.errors import BadRequest, BodyTooLarge, ExpectationFailed, NotImplementedByHermes, UriTooLong, VersionNotSupported
from hermes.frontend.lines import FIELD_MAX, FIELDS_MAX, HEAD_MAX, TOKEN, TOKEN_CHAR, Fields, end_of_line

__all__ = ["CHUNK_LINE_MAX", "EXCESS_MAX", "FIELDS_MAX", "FIELD_MAX", "HEAD_MAX", "LAST_CHUNK", "LINE_MAX", "ChunkedBody", "CountedBody",
           "HeadReader", "Request", "chunk", "http_date", "parse_head", "response_head"]

LINE_MAX = 8 * 1024         # bytes of the request line
CHUNK_LINE_MAX = 256
EXCESS_MAX = 16 * 1024      # bytes of chunk coding without much in it; decoding 64 MiB of one-byte chunks would take a minute
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"})
# Fields that decide about a message's framing, its routing or its sender must not come when all that is decided (RFC 9110 §6.5.1).
NO_TRAILERS = frozenset({"authorization", "connection", "content-encoding", "content-length", "content-range", "content-type", "cookie",
                         "expect", "host", "keep-alive", "origin", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade",
                         "x-api-key"})

_FIRST = re.compile(TOKEN_CHAR + rb"|\r")
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([!$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+) HTTP/([0-9])\.([0-9])\Z")
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]*)(?::[0-9]{1,5})?"
_AUTHORITY = re.compile(_HOST + r"\Z")
_ABSOLUTE = re.compile(r"https?://(" + _HOST + r")(/.*|\?.*|)\Z", re.IGNORECASE)
_DIGITS = re.compile(r"[0-9]{1,15}\Z")
_EXTENSION = rb"[ \t]*;[ \t]*" + TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + TOKEN + rb"|\"(?:[^\"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t -~])*\"))?"
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,12})(?:" + _EXTENSION + rb")*\Z")
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


class HeadReader:
    """One request's head, fed as its bytes come. `request` is None until it is whole; then `rest` is what came behind it.

    What is wrong is said in a CallerError as soon as it is there, and never with the input in it.
    """

    def __init__(self) -> None:
        self.request: Request | None = None
        self.rest = b""
        self._buffer = b""                              # the beginning of a line
        self._line: tuple[str, str, bool] | None = None
        self._fields = Fields()
        self._empty = 0                                 # bytes of empty lines

    @property
    def begun(self) -> bool:
        """Has a byte of the request come?"""
        return self._line is not None or self._buffer not in (b"", b"\r")

    @property
    def known(self) -> Request:
        """What is known of a request whose head cannot be read: how it wants to be told so."""
        if self._line is None:
            return UNREAD
        method, target, http11 = self._line
        try:
            path, _, _ = _split_target(method, target)
        except BadRequest:
            path = UNREAD.path
        return Request(method, path, "", {}, http11, keep_alive=False)

    def feed(self, data: bytes) -> None:
        """Raises a CallerError."""
        buffer, at = self._buffer + data if self._buffer else data, 0
        while self._line is None:
            if at < len(buffer) and not _FIRST.match(buffer, at):
                raise BadRequest("malformed request line")          # such as TLS, which may have no line end for long
            end = end_of_line(buffer, at, LINE_MAX, (UriTooLong, "the request line is too long"))
            if end < 0:
                break
            self._first_line(buffer[at:end])
            at = end + 2
        else:
            at = self._fields.take(buffer, at)
            if self._fields.ended:
                self.request, self.rest = _request(*self._line, self._fields.headers), buffer[at:]
        self._buffer = buffer[at:]

    def _first_line(self, line: bytes) -> None:
        if line:
            self._line = _parse_request_line(line)
            self._fields = Fields(self._empty + len(line) + 2)
        else:                                           # RFC 9112 §2.2: an empty line in front of a request is no request
            self._empty += 2
            if self._empty > HEAD_MAX:
                raise BadRequest("malformed request line")


def parse_head(head: bytes) -> Request:
    """A whole head, `head` being everything in front of the empty line. Raises a CallerError."""
    reader = HeadReader()
    reader.feed(head + b"\r\n\r\n")
    if reader.request is None or reader.rest:
        raise BadRequest("that is not one head")
    return reader.request


def _parse_request_line(line: bytes) -> tuple[str, str, bool]:
    """Method, target, and whether it is HTTP/1.1."""
    match = _REQUEST_LINE.match(line)
    if not match:
        raise BadRequest("malformed request line")
    if match[3] != b"1" or match[4] not in b"01":
        raise VersionNotSupported("only HTTP/1.0 and HTTP/1.1 are spoken here")
    method = match[1].decode("ascii")
    if method not in METHODS:
        raise NotImplementedByHermes("unknown method")
    return method, match[2].decode("ascii"), match[4] == b"1"


def _request(method: str, target: str, http11: bool, headers: dict[str, str]) -> Request:
    path, query, authority = _split_target(method, target)
    if "host" not in headers and http11:
        raise BadRequest("the Host header is missing")
    # RFC 9112 §3.2: they must be the same, and what is checked of the one must hold for the other.
    if authority is not None and headers.setdefault("host", authority).lower() != authority.lower():
        raise BadRequest("the Host header is not the host of the request target")
    if not _is_authority(headers.get("host", "")):
        raise BadRequest("malformed Host header")
    connection = {token.strip(" \t").lower() for token in headers.get("connection", "").split(",")}
    keep_alive = "close" not in connection if http11 else "keep-alive" in connection and "close" not in connection
    return Request(method, path, query, headers, http11, _body_length(headers, http11), keep_alive, _expects_100(headers, http11))


def _is_authority(host: str) -> bool:
    """What stands in brackets has to be an address too (RFC 3986 §3.2.2)."""
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:host.find("]")])
    except ValueError:
        return False
    return bool(_AUTHORITY.match(host))


def _split_target(method: str, target: str) -> tuple[str, str, str | None]:
    """Path, query, and the host of the absolute form; the asterisk for OPTIONS only, the form of CONNECT never (RFC 9112 §3.2)."""
    authority = None
    if target == "*" and method == "OPTIONS":
        return "*", "", None
    if not target.startswith("/"):
        match = _ABSOLUTE.match(target)
        if not match or not match[1]:
            raise BadRequest("malformed request target")
        authority, target = match[1], match[2] if match[2].startswith("/") else "/" + match[2]
    path, _, query = target.partition("?")
    return path, query, authority


def _body_length(headers: dict[str, str], http11: bool) -> int | None:
    """None = chunked. A list of codings is refused as a whole: two programs need only differ in how they read a list (RFC 9112 §6.1)."""
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None:
        if length is not None or not http11:
            raise BadRequest("Transfer-Encoding beside Content-Length or in HTTP/1.0")
        if coding.lower() != "chunked":
            raise BadRequest("a Transfer-Encoding other than chunked")
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


class CountedBody:
    """A body of a known length, each byte into its place, and never more room than what has come. `ended`; then `rest` is what came behind it."""

    def __init__(self, length: int):
        self._left = length
        self._body = bytearray()
        self.ended = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> None:
        if len(data) > self._left:
            data, self.rest = data[:self._left], data[self._left:]
        self._body += data
        self._left -= len(data)
        self.ended = self._left == 0

    def body(self) -> bytearray:
        return self._body


class ChunkedBody:
    """Decodes a chunked request body, strictly (RFC 9112 §7.1), each byte into its place. `ended`; then `rest` is what came behind it."""

    def __init__(self, limit: int):
        self.limit = limit          # bytes of the whole body
        self._buffer = b""          # the beginning of a line
        self._body = bytearray()
        self._size = 0              # bytes of the chunks that have begun
        self._left = 0              # bytes of the present chunk that are to come
        self._excess = 0            # bytes of coding beyond what honest chunks need
        self._in_chunk = False
        self._trailers: Fields | None = None
        self.ended = False
        self.rest = b""

    def feed(self, data: bytes) -> None:
        """Raises BadRequest, BodyTooLarge, HeadTooLarge."""
        buffer, at = self._buffer + data if self._buffer else data, 0
        while not self.ended:
            if self._in_chunk:
                at = self._chunk(buffer, at)
                if self._in_chunk:
                    break
            if self._trailers is not None:
                at = self._trailers.take(buffer, at)
                if self._trailers.ended:
                    self._end(buffer[at:])
                break
            line_end = end_of_line(buffer, at, CHUNK_LINE_MAX, (BadRequest, "malformed chunk size"))
            if line_end < 0:
                break
            self._size_line(buffer[at:line_end])
            at = line_end + 2
        self._buffer = buffer[at:]

    def _size_line(self, line: bytes) -> None:
        match = _CHUNK_LINE.match(line)
        if not match:
            raise BadRequest("malformed chunk size")
        size = int(match[1], 16)
        self._excess = max(0, self._excess + len(line) - 12 - size)
        if self._excess > EXCESS_MAX:
            raise BadRequest("the body's chunks are too small")
        self._size += size
        if self._size > self.limit:
            raise BodyTooLarge(f"the body is larger than {self.limit} bytes")
        self._left, self._in_chunk = size, size > 0
        if size == 0:
            self._trailers = Fields()

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

    def _end(self, rest: bytes) -> None:
        if not NO_TRAILERS.isdisjoint(self._trailers.headers):
            raise BadRequest("a trailer that may be no trailer")
        self.ended, self.rest = True, rest

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
