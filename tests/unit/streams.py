"""Streams of requests as raw bytes: how Hermes reads one, and those on which other servers went wrong.

The numbers are those of the server bugs in narfindustries/http-garden's TROPHIES.md; the others are named by advisory.
"""

from hermes.errors import CallerError
from hermes.frontend.http1 import ChunkedBody, CountedBody, HeadReader, Request

LIMIT = 100_000
NEXT = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def read_stream(pieces: list[bytes], heads: list[Request] | None = None) -> tuple[list[tuple[Request, bytes]], object]:
    """The requests that a connection would find, each with its body, and how the stream ends: the status of an error, "closed" behind
    the last request that a connection takes, "more" in the middle of one, or "" between two. Anything but a CallerError is raised. `heads` gets every head that was good, and
    what is known of the one that was not."""
    found: list[tuple[Request, bytes]] = []
    waiting, reader = list(pieces), HeadReader()
    try:
        while waiting or reader.begun:
            while reader.request is None:
                if not waiting:
                    return found, "more" if reader.begun else ""
                reader.feed(waiting.pop(0))
            request, rest = reader.request, reader.rest
            if heads is not None:
                heads.append(request)
            body = ChunkedBody(LIMIT) if request.length is None else CountedBody(request.length)
            body.feed(rest)
            while not body.ended:
                if not waiting:
                    return found, "more"
                body.feed(waiting.pop(0))
            found.append((request, bytes(body.body())))
            if not request.keep_alive:
                return found, "closed"
            waiting[:0], reader = [body.rest] if body.rest else [], HeadReader()
    except CallerError as error:
        assert error.text.isascii()
        if heads is not None and reader.request is None:
            heads.append(reader.known)
        return found, error.status
    return found, ""


def _get(*fields: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"GET /livez HTTP/1.1", b"Host: localhost", *fields, b"", b""]) + body


def _chunked(body: bytes) -> bytes:
    return _get(b"Transfer-Encoding: chunked", body=body)


# Name, bytes, and the statuses of all answers: 200 for a good request, and with an error nothing more.
BUGS: list[tuple[str, bytes, list[int]]] = [
    ("1 int() reads chunk sizes: underscore", _chunked(b"0_2e\r\n\r\n" + NEXT + b"0\r\n\r\n" + NEXT), [400]),
    ("1 int() reads chunk sizes: plus", _chunked(b"+5\r\nhello\r\n0\r\n\r\n" + NEXT), [400]),
    ("1 int() reads chunk sizes: minus", _chunked(b"-5\r\nhello\r\n0\r\n\r\n" + NEXT), [400]),
    ("1 int() reads chunk sizes: 0x", _chunked(b"0x5\r\nhello\r\n0\r\n\r\n" + NEXT), [400]),
    ("2 NUL and CR in a value", _get(b"Header: v\x00\ralue") + NEXT, [400]),
    ("2 LF in a value", _get(b"Header: v\nalue") + NEXT, [400]),
    ("3 whitespace behind a name", _get(b"Content-Length : 40", body=NEXT), [400]),
    ("4 whitespace in front of the first name", b"GET /livez HTTP/1.1\r\n\tContent-Length: 1\r\nHost: localhost\r\n\r\nX" + NEXT, [400]),
    ("5 longest prefix of a version", b"GET /livez HTTP/1.32\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("6 longest prefix of a method", b'G=":<>(e),[T];?" /livez HTTP/1.1\r\nHost: localhost\r\n\r\n' + NEXT, [400]),
    ("7 a target that is none", b"GET ! HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("8 non-ASCII in a name", _get(b"\xefoo: bar") + NEXT, [400]),
    ("9 LF as the space of a request line", b"GET /livez\nHTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("10 int() reads lengths", _get(b"Content-Length: +1_0", body=b"0123456789") + NEXT, [400]),
    ("11 two chunked codings", _get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"1\r\nZ\r\n0\r\n\r\n") + NEXT, [400]),
    ("12 NBSP and NEL are stripped from a value", _get(b"Transfer-Encoding: \xa0chunked\x85", body=b"0\r\n\r\n") + NEXT, [400]),
    ("13 CR ends a line", _get(b"Visible: :/\rSmuggled: :)") + NEXT, [400]),
    ("14 controls and separators in a name", _get(b"\x01\x02\"(),/;<=>?@[/]{}: x") + NEXT, [400]),
    ("15 CRs in a version", b"GET /livez HTTP/\r\r1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("16 an empty length is 0", _get(b"Content-Length: ") + NEXT, [400]),
    ("17 an empty chunk size is 0", _chunked(b"\r\n\r\n" + NEXT), [400]),
    ("18 a field without a name", _get(b": ignored") + NEXT, [400]),
    ("19 LFs are stripped from a value", _get(b"Useless:\n\nGET /livez HTTP/1.1") + NEXT, [400]),
    ("20 NEL is stripped from a name", _get(b"Content-Length\x85: 10", body=b"0123456789") + NEXT, [400]),
    ("21 comma chunked beside a length", _get(b"Transfer-Encoding: ,chunked", b"Content-Length: 5", body=b"0\r\n\r\n") + NEXT, [400]),
    ("21 comma chunked", _get(b"Transfer-Encoding: ,chunked", body=b"0\r\n\r\n") + NEXT, [400]),
    ("22 longest prefix of a chunk size", _chunked(b"0zz\r\n\r\n" + NEXT), [400]),
    ("23 the first of two lengths", _get(b"Content-Length: 1", b"Content-Length: 0", body=b"Z") + NEXT, [400]),
    ("24 overflow of a version", b"GET /livez HTTP/4294967297.257\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("25 strtoll() reads chunk sizes", _chunked(b" 0x0\r\n\r\n" + NEXT), [400]),
    ("26 a negative length", _get(b"Content-Length: -48") + NEXT, [400]),
    ("27 nothing but a colon ends the head", _get(b":", b"I: am chopped off") + NEXT, [400]),
    ("28 a field without a colon", _get(b"Content-Length 10", body=b"0123456789") + NEXT, [400]),
    ("29 longest prefix of a length", _get(b"Content-Length: 1Z", body=b"Z") + NEXT, [400]),
    ("30 CR and any byte end the head", b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\rZGET /evil: HTTP/1.1\r\n\r\n" + NEXT, [400]),
    ("31 CR and any byte end a chunk line", _chunked(b"5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n" + NEXT), [400]),
    ("32 a leading 0 is octal", _get(b"Content-Length: 010", body=b"0123456789") + NEXT, [200, 200]),
    ("33 the last of two lengths", _get(b"Content-Length: 0", b"Content-Length: 1", body=b"Z") + NEXT, [400]),
    ("34 CR in a value", _get(b"Header: va\rlue") + NEXT, [400]),
    ("35 NUL cuts a value off", _get(b"Test: test\x00dropped") + NEXT, [400]),
    ("36 CRs behind a chunk extension", _chunked(b"41;a=b\r\rXX\r\n0\r\n\r\n" + NEXT), [400]),
    ("37 a name goes on in the next line", _get(b"Transfer-", b"Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n") + NEXT, [400]),
    ("38 an empty length lasts until the timeout", _get(b"Content-Length:") + NEXT + NEXT, [400]),
    ("39 any two bytes end a chunked body", _chunked(b"0\r\nX:POST /evil HTTP/1.1\r\n\r\n") + NEXT, [200, 200]),
    ("40 method and version are not looked at", b"\x00 / HTTP/............0596.7407.\r\n\r\n" + NEXT, [400]),
    ("41 bytes above ASCII are stripped from a value", _get(b"User: \x85admin\xa0") + NEXT, [200, 200]),
    ("42 an empty length before a good one", _get(b"Content-Length: ", b"Content-Length: 40", body=NEXT), [400]),
    ("43 NUL is stripped from a value", _get(b"Evil: evil\x00") + NEXT, [400]),
    ("44 any coding is chunked", _get(b"Transfer-Encoding: blegh", body=b"1\r\nZ\r\n0\r\n\r\n") + NEXT, [400]),
    ("45 rubbish behind the last request", _get(b"Connection: close") + b"Invalid\r\n\r\n", [200]),
    ("46 high bytes are stripped from Host", b"GET /livez HTTP/1.1\r\nHost: \xfflocalhost\xff\r\n\r\n" + NEXT, [400]),
    ("46 high bytes are stripped from a coding", _get(b"Transfer-Encoding: \xffchunked\xff", body=b"1\r\nZ\r\n0\r\n\r\n") + NEXT, [400]),
    ("47 the next request begins in a bad chunk", _chunked(b"INVALID!!!\r\n" + NEXT), [400]),
    ("48 a pipelined request is a body", _get(b"Content-Length: 0") + _get(b"Content-Length: 40", body=NEXT) + NEXT, [200, 200, 200]),
    ("CVE-2019-16785 waitress: LF ends a line", b"GET /livez HTTP/1.1\nHost: localhost\n\n" + NEXT, [400]),
    ("CVE-2019-16786 waitress: a list of codings", _get(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n") + NEXT, [400]),
    ("CVE-2019-16789 waitress: VT in front of a coding", _get(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n") + NEXT, [400]),
    ("CVE-2019-16792 waitress: two lengths", _get(b"Content-Length: 40", b"Content-Length: 0", body=NEXT), [400]),
    ("CVE-2022-24761 waitress: plus in a length", _get(b"Content-Length: +40", body=NEXT), [400]),
    ("CVE-2022-24761 waitress: LF in a chunk extension", _chunked(b"0;a\nb\r\n\r\n" + NEXT), [400]),
    ("CVE-2022-24761 waitress: LF ends a chunk line", _chunked(b"0\n\r\n" + NEXT), [400]),
    ("GHSA-9298-4cf8-g4wj waitress: a request behind an error", b"GET /livez HTTP/1.1\r\nHost localhost\r\n\r\n" + NEXT + NEXT, [400]),
    ("CVE-2025-43859 h11: any two bytes end a chunk", _chunked(b"5\r\nhelloXX2\r\n45\r\n0\r\n\r\n" + NEXT), [400]),
    ("h11 181: a length of a zettabyte", _get(b"Content-Length: " + b"9" * 22) + NEXT, [400]),
    ("CVE-2024-1135 gunicorn: chunked is not the last coding", _get(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n") + NEXT, [400]),
    ("CVE-2024-1135 gunicorn: two coding fields", _get(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n") + NEXT, [400]),
    ("gunicorn 2026: authority form", b"GET localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n" + NEXT, [400]),
    ("gunicorn 2026: asterisk form", b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("gunicorn 2026: relative target", b"GET livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("gunicorn 2026: control characters in a target", b"GET /livez\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("gunicorn 2026: a length as a trailer", _chunked(b"0\r\nContent-Length: 40\r\n\r\n") + NEXT, [400]),
    ("gunicorn 2026: a list of lengths", _get(b"Content-Length: 5, 5", body=b"hello") + NEXT, [400]),
    ("CVE-2026-49468 LiteLLM: a URL made of Host", b"GET /livez HTTP/1.1\r\nHost: localhost:4000/#@evil\r\n\r\n" + NEXT, [400]),
    ("CVE-2020-7694 uvicorn: escapes into the log", b"GET /\x1b]0;evil\x07 HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("http.server: a line without a colon drops the fields behind it", _get(b"junk", b"Content-Length: 40", body=NEXT), [400]),
    ("http.server: the body of a GET is the next request", _get(b"Content-Length: 40", body=NEXT) + NEXT, [200, 200]),
    ("http.server: a chunked body is the next request", _chunked(b"28\r\n" + NEXT + b"\r\n0\r\n\r\n") + NEXT, [200, 200]),
    ("http.server: a second length of 0", _get(b"Content-Length: 0", b"Content-Length: 40", body=NEXT), [400]),
    ("http.server: a length and a coding", _get(b"Content-Length: 40", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + NEXT), [400]),
    ("http.server: a coding in HTTP/1.0", b"GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + NEXT, [400]),
    ("http.server: two Hosts", _get(b"Host: evil") + NEXT, [400]),
    ("http.server: a space folds a line", _get(b"X: 1", b" Content-Length: 40", body=NEXT), [400]),
    ("http.server: an mbox line", _get(b"From me@evil Mon") + NEXT, [400]),
    ("http.server: VT and NBSP part a request line", b"GET\x0b/livez\xa0HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("http.server: two digits in a version", b"GET /livez HTTP/01.01\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("http.server: HTTP/1.2", b"GET /livez HTTP/1.2\r\nHost: localhost\r\n\r\n" + NEXT, [505]),
    ("http.server: HTTP/2.0 is answered without a status line", b"GET /livez HTTP/2.0\r\nHost: localhost\r\n\r\n" + NEXT, [505]),
    ("http.server: HTTP/0.9", b"GET /livez\r\n\r\n" + NEXT, [400]),
    ("http.server: the method comes back in the status line", b"FOO\x1b[31m /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("http.server: an unknown expectation", _get(b"Expect: evil") + NEXT, [417]),
    ("an empty line in front of a request is none", b"\r\n" + NEXT + b"\r\n" + NEXT, [200, 200]),
    ("an absolute target with another host", b"GET http://evil/livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [400]),
    ("an absolute target with the same host", b"GET http://localhost/livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + NEXT, [200, 200]),
]
