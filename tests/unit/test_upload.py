"""The body that a client has yet to send: what goes on of it, and what is left for the next request."""

import socket
from dataclasses import replace

import pytest

from hermes.errors import BadRequest, ClientGone
from hermes.frontend.http1 import Request
from hermes.frontend.upload import Upload
from tests.unit.test_chunked_body import verdict

POST = Request("POST", "/api/blobs/x", "", {})
NEXT = b"GET / HTTP/1.1\r\n\r\n"


class Sent:
    """A client's socket: each read as written down; the last one is the end of the connection, or raises."""

    def __init__(self, *reads: bytes | OSError):
        self.reads, self.heard = list(reads), b""

    def recv(self, size: int) -> bytes:
        step = self.reads.pop(0) if self.reads else b""
        if isinstance(step, OSError):
            raise step
        assert len(step) <= size
        return step

    def sendall(self, data: bytes) -> None:
        if self.reads and isinstance(self.reads[0], OSError):
            raise self.reads[0]
        self.heard += data


def upload(length: int | None, *reads: bytes | OSError, buffer: bytes = b"", expects_100: bool = False) -> Upload:
    return Upload(Sent(*reads), replace(POST, length=length, expects_100=expects_100), buffer, 5.0)


def read_all(body: Upload) -> bytes:
    pieces = []
    while not body.ended:
        pieces.append(bytes(body.read()))
    return b"".join(pieces)


def cuts(stream: bytes) -> list[list[bytes]]:
    return [[stream], [stream[i:i + 1] for i in range(len(stream))], *([stream[:i], stream[i:]] for i in range(1, len(stream)))]


def test_counted() -> None:
    for reads in cuts(b"hello" + NEXT):
        body = upload(5, *reads)
        assert read_all(body) == b"hello"
        assert body.rest + b"".join(body._sock.reads) == NEXT, "not a byte more than announced"
        assert body.headers == (("Content-Length", "5"),) and body.patience == 5.0


@pytest.mark.parametrize("buffer", [b"he", b"hello", b"hello" + NEXT])
def test_what_came_with_the_head(buffer: bytes) -> None:
    body = upload(5, b"llo"[len(buffer) - 2:] or b"x", buffer=buffer)
    assert body.ready and not body.ended
    assert read_all(body) == b"hello" and body.rest == buffer[5:]
    assert body.ready is bool(buffer[5:])


def test_nothing_to_come() -> None:
    body = upload(0, buffer=NEXT)
    assert body.ended and body.rest == NEXT and body.headers == (("Content-Length", "0"),)


def test_chunks_are_made_anew() -> None:
    stream = b'5;a="b"\r\nhello\r\n06\r\n world\r\n0;x\r\nTail: 1\r\n\r\n' + NEXT
    for reads in cuts(stream):
        body = upload(None, *reads)
        assert body.headers == (("Transfer-Encoding", "chunked"),)
        coded = read_all(body)
        assert b";" not in coded and b"Tail" not in coded
        assert verdict([coded]) == (b"hello world", b"") and body.rest + b"".join(body._sock.reads) == NEXT


def test_a_piece_leaves_when_it_has_come_and_not_with_its_chunk() -> None:
    body = upload(None, b"fffffff\r\nab", b"cd", b"\r")
    assert [body.read(), body.read()] == [b"2\r\nab\r\n", b"2\r\ncd\r\n"]
    assert upload(None, b"5\r\n").read() == b"", "a size alone is nothing for Ollama"


def test_the_last_chunk_only_behind_a_whole_body() -> None:
    body = upload(None, b"2\r\nab\r\n0\r\n", b"T: 1\r\n", b"\r\n")
    assert [body.read(), body.ended, body.read(), body.ended] == [b"2\r\nab\r\n", False, b"", False]
    assert body.read() == b"0\r\n\r\n" and body.ended


@pytest.mark.parametrize("stream", [b"x\r\n", b"2\r\nabc\r\n", b"2\r\nab\r\n0\r\nbad\r\n", b"1;%b\r\na\r\n" % (b"x" * 90) * 300 + b"0\r\n\r\n"])
def test_malformed(stream: bytes) -> None:
    body = upload(None, *(stream[at:at + 60_000] for at in range(0, len(stream), 60_000)))
    with pytest.raises(BadRequest):
        read_all(body)
    assert not body.ended


@pytest.mark.parametrize("end", [[], [ConnectionResetError()]])
@pytest.mark.parametrize("length", [10, None])
def test_the_client_leaves(length: int | None, end: list) -> None:
    body = upload(length, b"5\r\nhe", *end)
    body.read()
    with pytest.raises(ClientGone):
        body.read()
    assert not body.ended


@pytest.mark.parametrize(("length", "expects", "buffer", "said"), [
    (5, True, b"", True), (None, True, b"", True), (5, False, b"", False), (0, True, b"", False), (5, True, b"h", False)])
def test_the_invitation(length: int | None, expects: bool, buffer: bytes, said: bool) -> None:
    body = upload(length, buffer=buffer, expects_100=expects)
    assert body._sock.heard == b""
    body.invite()
    assert body._sock.heard == (b"HTTP/1.1 100 Continue\r\n\r\n" if said else b"")


def test_an_invitation_to_nobody() -> None:
    with pytest.raises(ClientGone):
        upload(5, BrokenPipeError(), expects_100=True).invite()


def test_one_read_is_one_read(new_pair) -> None:
    """It is called when a read need not wait; a second one would."""
    ours, theirs = new_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\0" * 16)
    body = Upload(ours, replace(POST, length=1 << 40), b"", 5.0)
    theirs.sendall(b"abc")
    assert body.read() == b"abc" and not body.ready
