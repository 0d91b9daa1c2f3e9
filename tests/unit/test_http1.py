"""Request heads, byte by byte: one grammar, no repairs (reliability.md §2.1, conventions.md §6.2)."""

import time

import pytest

from hermes.errors import CallerError
from hermes.frontend.http1 import FIELD_MAX, LAST_CHUNK, LINE_MAX, chunk, http_date, parse_head, response_head

LINE = b"GET / HTTP/1.1"


def head(*fields: bytes, line: bytes = LINE, host: bytes | None = b"Host: h") -> bytes:
    return b"\r\n".join([line, *([host] if host is not None else []), *fields])


def status(raw: bytes) -> int:
    """0 = accepted."""
    try:
        parse_head(raw)
        return 0
    except CallerError as error:
        assert error.text.isascii() and "evil" not in error.text
        return error.status


@pytest.mark.parametrize(("line", "expected"), [
    (b"GET / HTTP/1.1", 0), (b"GET / HTTP/1.0", 0), (b"GET / HTTP/1.9", 0), (b"GET //evil/%2e%2e HTTP/1.1", 0), (b"GET http://h/a?b HTTP/1.1", 0),
    (b"GET HTTPS://h:1 HTTP/1.1", 0), (b"OPTIONS * HTTP/1.1", 0), (b"TRACE / HTTP/1.1", 0), (b"GET /" + b"a" * (LINE_MAX - 14) + b" HTTP/1.1", 0),
    (b"GET / HTTP/2.0", 505), (b"GET / HTTP/0.9", 505), (b"GET / HTTP/3.0", 505),
    (b"GET /", 400), (b"GET", 400), (b"", 400), (b" GET / HTTP/1.1", 400), (b"GET / HTTP/1.1 ", 400), (b"GET  / HTTP/1.1", 400), (b"GET /  HTTP/1.1", 400),
    (b"GET\t/ HTTP/1.1", 400), (b"GET\x0b/ HTTP/1.1", 400), (b"GET\x0b/\xa0HTTP/1.1", 400), (b"GET / a HTTP/1.1", 400), (b"GET / HTTP/01.01", 400),
    (b"GET / HTTP/1.10", 400), (b"GET / HTTP/1", 400), (b"GET / http/1.1", 400), (b"GET / HTTP/1.1\n", 400), (b"GET / HTTP/1.1\nX: y", 400), (b"GET /\r HTTP/1.1", 400),
    (b"GET / HTTP/+1.1", 400), (b"GET / XTTP/1.1", 400), (b"GET /\x00 HTTP/1.1", 400), (b"GET /\xc3\xa9 HTTP/1.1", 400), (b"GET /\x7f HTTP/1.1", 400),
    (b"GET * HTTP/1.1", 400), (b"POST * HTTP/1.1", 400), (b"GET evil HTTP/1.1", 400), (b"GET ?evil HTTP/1.1", 400), (b"GET /#evil HTTP/1.1", 400),
    (b"GET http:///a HTTP/1.1", 400), (b"GET http://u@evil/a HTTP/1.1", 400), (b"GET ftp://evil/a HTTP/1.1", 400), (b"GET http://evil#/a HTTP/1.1", 400),
    (b"CONNECT evil:443 HTTP/1.1", 400), (b"G@T / HTTP/1.1", 400), (b"(GET) / HTTP/1.1", 400), (b"\xff / HTTP/1.1", 400),
    (b"get / HTTP/1.1", 501), (b"EVIL / HTTP/1.1", 501), (b"QUERY / HTTP/1.1", 501),
    (b"GET /" + b"a" * LINE_MAX + b" HTTP/1.1", 414), (b"x" * 70_000, 414),
], ids=lambda value: repr(value[:24]) + str(len(value)) if isinstance(value, bytes) else None)
def test_request_line(line: bytes, expected: int) -> None:
    assert status(head(line=line)) == expected


@pytest.mark.parametrize(("fields", "expected"), [
    ([b"A: b"], 0), ([b"A:b"], 0), ([b"A:"], 0), ([b"A: \t b \t "], 0), ([b"!#$%&'*+-.^_`|~09: x"], 0), ([b"A: \xff\x80"], 0), ([b"A: b", b"A: c"], 0),
    ([b"Cookie: a", b"Cookie: b"], 0), ([b"A%d: b" % i for i in range(99)], 0), ([b"A: " + b"x" * (FIELD_MAX - 3)], 0),
    ([b"A"], 400), ([b"A b"], 400), ([b""], 400), ([b": b"], 400), ([b"A : b"], 400), ([b"A\t: b"], 400), ([b" A: b"], 400), ([b"\tA: b"], 400),
    ([b"A: b", b" folded"], 400), ([b"A: b", b" folded: x"], 400), ([b"A\x00: b"], 400), ([b"A: b\x00c"], 400), ([b"A: b\x01"], 400), ([b"A: b\x0b"], 400),
    ([b"A: b\x7f"], 400), ([b"A: 1\rContent-Length: 5"], 400), ([b"A: 1\nContent-Length: 5"], 400), ([b"A: 1\r"], 400), ([b"\rA: 1"], 400), ([b"\xc3\xa9: b"], 400),
    ([b"A(b): c"], 400), ([b"A/b: c"], 400), ([b"From me@evil Mon"], 400), ([b"\xa0A: b"], 400), ([b"A\x85: b"], 400), ([b"[A]: b"], 400), ([b'"A": b'], 400),
    ([b"A%d: b" % i for i in range(100)], 431), ([b"A: " + b"x" * FIELD_MAX], 431), ([b"x" * 8193], 431),
    ([b"Host: h"], 400), ([b"hOST: h"], 400), ([b"Content-Length: 5", b"Content-Length: 5"], 400), ([b"Content-Length: 0", b"Content-Length: 34"], 400),
    ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 400), ([b"Content-Type: a", b"Content-Type: b"], 400),
    ([b"Authorization: a", b"Authorization: a"], 0), ([b"Expect: 100-continue", b"Expect: 100-continue"], 400), ([b"X-Api-Key: a", b"X-Api-Key: b"], 0),
    ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400), ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], 400),
    ([b"Content-Length: 5, 5"], 400), ([b"Content-Length: +5"], 400), ([b"Content-Length: -1"], 400), ([b"Content-Length: 1_0"], 400), ([b"Content-Length: 0x5"], 400),
    ([b"Content-Length: "], 400), ([b"Content-Length: \xb2"], 400), ([b"Content-Length: 5 5"], 400), ([b"Content-Length: 5.0"], 400), ([b"Content-Length: " + b"9" * 16], 400),
    ([b"Content-Length: 5\xa0"], 400), ([b"Content-Length: \x0c5"], 400), ([b"Content-Length: 00005"], 0), ([b"Content-Length:\t5 "], 0),
    ([b"Transfer-Encoding: chunked"], 0), ([b"Transfer-Encoding: CHUNKED"], 0), ([b"Transfer-Encoding: "], 501), ([b"Transfer-Encoding: identity"], 501),
    ([b"Transfer-Encoding: gzip, chunked"], 501), ([b"Transfer-Encoding: chunked, chunked"], 501), ([b"Transfer-Encoding: ,chunked"], 501),
    ([b"Transfer-Encoding: xchunked"], 501), ([b"Transfer-Encoding: chunked;q=1"], 501), ([b"Transfer-Encoding: \x0bchunked"], 400), ([b"Transfer-Encoding: chunked\xa0"], 501),
    ([b"Expect: 100-continue"], 0), ([b"Expect: 100-Continue"], 0), ([b"Expect: evil"], 417), ([b"Expect: "], 417), ([b"Expect: 100-continue, evil"], 417),
], ids=lambda value: f"{b'|'.join(value)[:70]!r} {len(value)}" if isinstance(value, list) else None)
def test_fields(fields: list[bytes], expected: int) -> None:
    assert status(head(*fields)) == expected


def test_host_is_needed_from_1_1_on() -> None:
    assert status(head(host=None)) == 400
    assert status(head(host=None, line=b"GET / HTTP/1.0")) == 0
    assert status(head(b"Transfer-Encoding: chunked", line=b"GET / HTTP/1.0")) == 400


@pytest.mark.parametrize(("target", "path", "query"), [
    (b"/", "/", ""), (b"/a?b=c?d", "/a", "b=c?d"), (b"/%2F%zz", "/%2F%zz", ""), (b"//h/../a", "//h/../a", ""), (b"/a?", "/a", ""), (b"/a;b:c", "/a;b:c", ""),
    (b"http://evil/a/b?c", "/a/b", "c"), (b"http://evil", "/", ""), (b"http://evil?x", "/", "x"), (b"HTTP://evil:80/", "/", ""), (b"/http://x/", "/http://x/", ""),
])
def test_target(target: bytes, path: str, query: str) -> None:
    request = parse_head(head(line=b"GET " + target + b" HTTP/1.1"))
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(("version", "fields", "keep_alive"), [
    (b"1.1", [], True), (b"1.0", [], False), (b"1.1", [b"Connection: close"], False), (b"1.1", [b"Connection: x, Close"], False), (b"1.1", [b"Connection: x", b"Connection: close"], False),
    (b"1.1", [b"Connection: closed"], True), (b"1.1", [b"Connection: keep-alive"], True), (b"1.0", [b"Connection: Keep-Alive"], True), (b"1.0", [b"Connection: close"], False),
    (b"1.9", [], True),
])
def test_keep_alive(version: bytes, fields: list[bytes], keep_alive: bool) -> None:
    assert parse_head(head(*fields, line=b"GET / HTTP/" + version)).keep_alive == keep_alive


def test_what_is_read() -> None:
    request = parse_head(head(b"X-A:  b\xe9 ", b"x-a: c", b"Content-Length: 12", b"Expect: 100-continue", line=b"POST /p?q HTTP/1.1"))
    assert (request.method, request.length, request.expects_100, request.http11) == ("POST", 12, True, True)
    assert request.headers == {"host": "h", "x-a": "b\xe9, c", "content-length": "12", "expect": "100-continue"}
    assert parse_head(head(b"Transfer-Encoding: chunked")).length is None
    assert parse_head(head()).length == 0
    assert not parse_head(head(b"Expect: 100-continue", line=b"GET / HTTP/1.0")).expects_100


@pytest.mark.parametrize("raw", [
    head(b"A: b" + b" " * 8000 + b"\x01"), head(b"A:" + b" " * 8000 + b"b" + b"\t " * 10), head(*[b"A: " + b" \t" * 150 + b"b"] * 90), head(b"A" * 8000),
    head(b"Connection: " + b"," * 8000), head(b"Connection: " + b" ," * 4000), head(line=b"GET " + b"/" * 8000 + b" HTTP/1.1"), head(line=b"GET " + b"http://" * 1000 + b" HTTP/1.1"),
    head(line=b"A" * 8000), head(b"Transfer-Encoding: " + b"chunked," * 900), head(b"Content-Length: " + b"0" * 8000),
], ids=range(11))
def test_linear_time(raw: bytes) -> None:
    """Long runs of anything: 20 times in half a second; a quadratic regular expression takes a second for one."""
    began = time.process_time()
    for _ in range(20):
        status(raw)
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("value", ["a\r\nSet-Cookie: x", "a\n", "a\r", "a\x00", "\x1b[31m", "a\x7f", "☃"])
def test_no_response_is_split(value: str) -> None:
    with pytest.raises(ValueError):
        response_head(200, [("A", value)])


def test_response() -> None:
    assert response_head(200, [("A", "b"), ("C", "\xe9")]) == b"HTTP/1.1 200 OK\r\nA: b\r\nC: \xe9\r\n\r\n"
    assert response_head(299, []).startswith(b"HTTP/1.1 299 ")
    assert (chunk(b""), chunk(b"x" * 16), LAST_CHUNK) == (b"", b"10\r\n" + b"x" * 16 + b"\r\n", b"0\r\n\r\n")
    assert http_date(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT"
