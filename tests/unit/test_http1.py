"""Request heads, byte by byte: one grammar, no repairs (reliability.md §2.1, conventions.md §6.2)."""

import time

import pytest

from hermes.errors import CallerError
from hermes.frontend.http1 import FIELD_MAX, HEAD_MAX, LAST_CHUNK, LINE_MAX, HeadReader, chunk, http_date, parse_head, response_head

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
    (b"GET / HTTP/1.1", 0), (b"GET / HTTP/1.0", 0), (b"GET //evil/%2e%2e HTTP/1.1", 0), (b"GET http://h/a?b HTTP/1.1", 0),
    (b"GET HTTPS://H HTTP/1.1", 0), (b"GET /a?b[]=/c@d:e,%7C HTTP/1.1", 0), (b"OPTIONS * HTTP/1.1", 0), (b"TRACE / HTTP/1.1", 0), (b"GET /" + b"a" * (LINE_MAX - 14) + b" HTTP/1.1", 0),
    (b"GET / HTTP/1.2", 505), (b"GET / HTTP/1.9", 505), (b"PRI * HTTP/2.0", 505), (b"GET / HTTP/2.0", 505), (b"GET / HTTP/0.9", 505), (b"GET / HTTP/3.0", 505),
    (b"GET /", 400), (b"GET", 400), (b"", 400), (b" GET / HTTP/1.1", 400), (b"GET / HTTP/1.1 ", 400), (b"GET  / HTTP/1.1", 400), (b"GET /  HTTP/1.1", 400),
    (b"GET\t/ HTTP/1.1", 400), (b"GET\x0b/ HTTP/1.1", 400), (b"GET\x0b/\xa0HTTP/1.1", 400), (b"GET / a HTTP/1.1", 400), (b"GET / HTTP/01.01", 400),
    (b"GET / HTTP/1.10", 400), (b"GET / HTTP/1", 400), (b"GET / http/1.1", 400), (b"GET / HTTP/1.1\n", 400), (b"GET / HTTP/1.1\nX: y", 400), (b"GET /\r HTTP/1.1", 400),
    (b"GET / HTTP/+1.1", 400), (b"GET / XTTP/1.1", 400), (b"GET /\x00 HTTP/1.1", 400), (b"GET /\xc3\xa9 HTTP/1.1", 400), (b"GET /\x7f HTTP/1.1", 400),
    (b"GET * HTTP/1.1", 400), (b"POST * HTTP/1.1", 400), (b"GET evil HTTP/1.1", 400), (b"GET ?evil HTTP/1.1", 400), (b"GET /#evil HTTP/1.1", 400),
    (b"GET /\"<>\\^`{|} HTTP/1.1", 400), (b"GET /< HTTP/1.1", 400), (b"GET /\\evil HTTP/1.1", 400), (b"GET http://evil/a HTTP/1.1", 400), (b"GET http://h:80/a HTTP/1.1", 400),
    (b"GET http:///a HTTP/1.1", 400), (b"GET http://?a HTTP/1.1", 400), (b"GET http://:80/a HTTP/1.1", 400), (b"GET h:443 HTTP/1.1", 400), (b"CONNECT h:443 HTTP/1.1", 400), (b"GET http://u@evil/a HTTP/1.1", 400), (b"GET ftp://evil/a HTTP/1.1", 400), (b"GET http://evil#/a HTTP/1.1", 400),
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
    ([b"Transfer-Encoding: chunked"], 0), ([b"Transfer-Encoding: CHUNKED"], 0), ([b"Transfer-Encoding: "], 400), ([b"Transfer-Encoding: identity"], 400),
    ([b"Transfer-Encoding: gzip, chunked"], 400), ([b"Transfer-Encoding: chunked, chunked"], 400), ([b"Transfer-Encoding: ,chunked"], 400),
    ([b"Transfer-Encoding: xchunked"], 400), ([b"Transfer-Encoding: chunked;q=1"], 400), ([b"Transfer-Encoding: \x0bchunked"], 400), ([b"Transfer-Encoding: chunked\xa0"], 400),
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
    (b"http://h/a/b?c", "/a/b", "c"), (b"http://h", "/", ""), (b"http://h?x", "/", "x"), (b"HTTP://H/", "/", ""), (b"/http://x/", "/http://x/", ""),
])
def test_target(target: bytes, path: str, query: str) -> None:
    request = parse_head(head(line=b"GET " + target + b" HTTP/1.1"))
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(("host", "expected"), [
    (b"h", 0), (b"", 0), (b"localhost:11435", 0), (b"LocalHost", 0), (b"my_host.local.", 0), (b"127.0.0.1:1", 0), (b"[::1]", 0), (b"[::1]:80", 0), (b"[::ffff:1.2.3.4]", 0),
    (b"127.1", 0), (b"0x7f000001", 0),                  # names like any other: whether they are ours is the gate's affair
    (b"u@evil", 400), (b"localhost:80@evil", 400), (b"localhost:4000/#@evil", 400), (b"h/", 400), (b"h/evil", 400), (b"h#", 400), (b"h?", 400), (b"a,b", 400), (b"a b", 400),
    (b"h:", 400), (b"h:x", 400), (b"h:123456", 400), (b"h:1:2", 400), (b"http://h", 400), (b"::1", 400), (b"[::1", 400), (b"[evil]", 400), (b"[]", 400), (b"h%00", 400), (b"\xffh\xff", 400),
    (b"[:]", 400), (b"[:::1]", 400), (b"[12345::1]", 400), (b"[1:2:3:4:5:6:7:8:9]:80", 400), (b"[::ffff:1.2.3.256]", 400), (b"[127.0.0.1]", 400),
    (b"\xc3\xa9", 400), (b"h\x85", 400), (b"h\\", 400), (b"*", 400), (b"h;", 400), (b"'h'", 400)])
def test_host(host: bytes, expected: int) -> None:
    assert status(head(host=b"Host: " + host)) == expected
    assert status(head(host=b"Host: " + host, line=b"GET / HTTP/1.0")) == expected


def test_the_target_s_host_is_the_host() -> None:
    """RFC 9112 §3.2.2: it would overrule the header; so that nobody may wonder which of them was checked, they must be the same."""
    absolute = b"GET http://evil/ HTTP/1.%d"
    assert status(head(line=absolute % 1, host=b"Host: localhost")) == status(head(line=absolute % 0, host=b"Host: localhost")) == 400
    assert status(head(line=absolute % 1, host=None)) == 400
    assert parse_head(head(line=absolute % 0, host=None)).headers["host"] == "evil", "and so it is checked"


class TestPieces:
    """A verdict depends on the bytes alone, and comes as soon as they allow."""

    @pytest.mark.parametrize(("raw", "expected"), [
        (b"GET / HTTP/1.1\n", 400), (b"GET / HTTP/1.1\rX", 400), (b"GET / HTTP/1.1\r\r", 400), (b"\n", 400), (b"\rG", 400), (b"GET /\n", 400),
        (LINE + b"\r\nHost: h\n", 400), (LINE + b"\r\nHost: h\r\n\n", 400), (LINE + b"\r\nHost: h\r\n\rZ", 400), (LINE + b"\r\nHost: h\rX", 400), (LINE + b"\r\nA\r\n", 400),
        (LINE + b"\r\nHost: h\r\n folded\r\n", 400), (b"GET / HTTP/2.0\r\n", 505), (b"BREW / HTTP/1.1\r\n", 501), (b"\x16", 400), (b" ", 400), (b"\x00", 400),
        (b"G" * (LINE_MAX + 2), 414), (LINE + b"\r\nA: " + b"b" * (FIELD_MAX - 1), 431), (LINE + b"\r\n" + (b"A: " + b"b" * 8000 + b"\r\n") * 4 + b"B: " + b"c" * 731, 431),
        (LINE + b"\r\n" + b"A: b\r\n" * 101, 431), (b"\r\n" * (HEAD_MAX // 2 + 1), 400), (b"G" * (LINE_MAX + 1) + b"\n", 400)],
        ids=lambda value: f"{value[-20:]!r} {len(value)}" if isinstance(value, bytes) else None)
    def test_refused_at_once_and_no_sooner(self, raw: bytes, expected: int) -> None:
        for step in (len(raw), 1, 7):
            reader = HeadReader()
            pieces = [raw[at:at + step] for at in range(0, len(raw), step)]
            for piece in pieces[:-1]:
                reader.feed(piece)
            with pytest.raises(CallerError) as caught:
                reader.feed(pieces[-1])
            assert caught.value.status == expected

    @pytest.mark.parametrize("raw", [head(b"A: b", b"Content-Length: 5"), b"\r\n\r\n" + head(), head(b"A: " + b"b" * 3000)])
    def test_every_cut(self, raw: bytes) -> None:
        raw, whole = raw + b"\r\n\r\nbody", parse_head(raw)
        for cut in range(len(raw)):
            reader = HeadReader()
            reader.feed(raw[:cut])
            assert (reader.request is not None) == (cut >= len(raw) - 4)
            if reader.request is None:
                assert reader.begun == bool(raw[:cut].strip())
                reader.feed(raw[cut:])
                assert reader.rest == b"body"
            assert reader.request == whole

    def test_the_largest_head(self) -> None:
        fields = [b"A: " + b"b" * 8000] * 4
        pad = HEAD_MAX - len(head(*fields)) - len(b"\r\nB: ")
        assert status(head(*fields, b"B: " + b"c" * pad)) == 0
        assert status(head(*fields, b"B: " + b"c" * (pad + 1))) == 431


@pytest.mark.parametrize(("version", "fields", "keep_alive"), [
    (b"1.1", [], True), (b"1.0", [], False), (b"1.1", [b"Connection: close"], False), (b"1.1", [b"Connection: x, Close"], False), (b"1.1", [b"Connection: x", b"Connection: close"], False),
    (b"1.1", [b"Connection: closed"], True), (b"1.1", [b"Connection: keep-alive"], True), (b"1.0", [b"Connection: Keep-Alive"], True), (b"1.0", [b"Connection: close"], False),
    (b"1.0", [b"Connection: keep-alive, close"], False), (b"1.1", [b"Connection: keep-alive, close"], False),
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
