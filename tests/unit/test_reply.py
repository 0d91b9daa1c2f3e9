"""The head of Ollama's answer, over a real socket pair."""

import socket

import pytest

from hermes.errors import UpstreamBroken
from hermes.workers.reply import Reply


def reply_to(raw: bytes, method: str = "POST", pieces: int = 1) -> tuple[Reply, bytes]:
    """The reply, and all of its body that the connection brings. `pieces` > 1: byte by byte."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(raw)
        theirs.shutdown(socket.SHUT_WR)

        class Drip:
            def recv(self, size: int) -> bytes:
                return ours.recv(1 if pieces > 1 else size)

        reply = Reply(Drip(), method=method)
        reply.begin()
        body = b""
        while data := reply.read():
            body += data
        return reply, body


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(("raw", "method", "expected"), [
    (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "POST", (200, "length", 2, False, False)),
    (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", "POST", (200, "length", 2, False, False)),
    (b"HTTP/1.1 200 \r\nContent-length:0\r\n\r\n", "POST", (200, "length", 0, False, False)),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "POST", (200, "chunked", 0, False, False)),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nuntil the end", "GET", (200, "close", 0, False, True)),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", "GET", (200, "length", 2, False, True)),
    (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhi", "GET", (200, "length", 2, False, True)),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD", (200, "length", 9, True, False)),
    (b"HTTP/1.1 200 OK\r\n\r\n", "HEAD", (200, "length", 0, True, False)),
    (b"HTTP/1.1 204 No Content\r\n\r\n", "DELETE", (204, "length", 0, True, False)),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", "POST",
     (404, "length", 0, False, False)),
])
def test_head(raw: bytes, method: str, expected: tuple, pieces: int) -> None:
    reply, body = reply_to(raw, method, pieces)
    assert (reply.status, reply.framing, reply.length, reply.bodyless, reply.last) == expected
    assert body == raw.rpartition(b"\r\n\r\n")[2] or reply.framing == "chunked"


def test_headers_are_stripped_and_lower_case() -> None:
    reply, _ = reply_to(b"HTTP/1.1 200 OK\r\nContent-Type: \t text/plain\t \r\nX-A:\xe9\r\nContent-Length: 0\r\nContent-Encoding: Identity\r\n\r\n")
    assert reply.headers == {"content-type": "text/plain", "x-a": "\xe9", "content-length": "0", "content-encoding": "Identity"}


@pytest.mark.parametrize("raw", [
    b"H", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n",
    b"HTTP/2.0 200 OK\r\n\r\n", b"HTTP/1.2 200 OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n", b"HTTP/1.1 099 X\r\n\r\n", b"HTTP/1.1 600 X\r\n\r\n",
    b"HTTP/1.1 2000 X\r\n\r\n", b"HTTP/1.1 200OK\r\n\r\n", b"http/1.1 200 OK\r\n\r\n", b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"<html>\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n",
    *(b"HTTP/1.1 200 OK\r\n" + field + b"\r\n\r\n" for field in (
        b" folded: x", b"A : b", b": b", b"A\x00: b", b"A: b\x00", b"A: b\rC: d", b"A: b\nC: d", b"A\xe9: b", b"A: b\r\n c",
        b"no colon", b"nocolon", b"A: b\x01c", b"A: b\x7f", b"Content-Length: 1\r\nContent-Length: 1", b"Content-Length: 1, 1",
        b"Content-Length: +1", b"Content-Length: -1", b"Content-Length: 1_0", b"Content-Length: ", b"Content-Length: \xb2",
        b"Content-Length: 1234567890123456", b"Transfer-Encoding: chunked\r\nContent-Length: 1", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", b"Transfer-Encoding:",
        b"Content-Encoding: gzip", b"Content-Encoding: identity, br")),
    b"HTTP/1.1 200 OK\r\n" + b"".join(b"A%d: b\r\n" % i for i in range(101)) + b"\r\n",
    b"HTTP/1.1 200 OK\r\nA: " + b"x" * 150_000,
], ids=lambda raw: repr(raw[-24:]))
def test_malformed(raw: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        reply_to(raw)


def test_end_before_the_first_byte_is_told_apart() -> None:
    with pytest.raises(EOFError):
        reply_to(b"")
