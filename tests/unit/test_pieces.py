"""The worker's side of a body that follows its job: a real Watch between a pipe and a socket, both held by the test."""

import select
import socket

import pytest

from hermes.errors import UpstreamTimeout
from hermes.workers.connection import Connection, WatchedSocket
from hermes.workers.messages import WINDOW, FrameReader, Kind, Timeouts, frame
from hermes.workers.upload import Upload
from hermes.workers.watch import Cancelled, ParentGone, Pipe, Watch

TIMES = Timeouts(1.0, 30.0, 30.0, 60.0)
END = frame(Kind.BODY_END)


def body(data: bytes) -> bytes:
    return frame(Kind.BODY, data)


class Bench:
    def __init__(self, new_pair, start):
        self.theirs, self.parent = new_pair()
        self.sock, self.ollama = new_pair()
        self.sock.setblocking(False)
        self.ollama.settimeout(10)
        self.parent.settimeout(10)
        self.watch = Watch(Pipe(self.theirs.fileno()))
        self.watch.begin(60.0)
        self.watched = WatchedSocket(self.sock, self.watch)
        self.start = start

    def upload(self, times: Timeouts = TIMES) -> Upload:
        return Upload(self.watch, times)

    def asked(self) -> int:
        """How many pieces have been asked for since the last time."""
        frames = FrameReader().feed(self.parent.recv(1 << 16))
        assert {kind for kind, _ in frames} == {Kind.MORE}
        return len(frames)

    def connection(self) -> Connection:
        connection = Connection("h", 1, False, self.watch)
        connection._sock = self.watched
        return connection


@pytest.fixture
def bench(new_pair, start) -> Bench:
    return Bench(new_pair, start)


def test_pieces_go_out_in_order_and_each_makes_room_for_one(bench: Bench) -> None:
    upload = bench.upload()
    sending = bench.start(upload.send, bench.watched)
    assert bench.asked() == WINDOW
    for piece in (b"abc", b"de", b"f"):
        bench.parent.sendall(body(piece))
        assert bench.ollama.recv(100) == piece
        assert bench.asked() == 1
    assert not upload.whole
    bench.parent.sendall(END)
    assert sending.result(10) is None and upload.whole


def test_both_at_once(bench: Bench) -> None:
    bench.parent.sendall(body(b"abc") + body(b"de") + END)
    upload = bench.upload()
    assert upload.send(bench.watched) is None and upload.whole
    assert bench.ollama.recv(100) == b"abcde"


def test_an_empty_body(bench: Bench) -> None:
    bench.parent.sendall(END)
    upload = bench.upload()
    assert upload.send(bench.watched) is None and upload.whole


@pytest.mark.parametrize("before", [b"", body(b"abc")])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\n", b""])
def test_an_early_answer(bench: Bench, before: bytes, answer: bytes) -> None:
    upload = bench.upload()
    bench.parent.sendall(before)
    sending = bench.start(upload.send, bench.watched)
    if before:
        bench.ollama.recv(100)
    bench.ollama.sendall(answer) if answer else bench.ollama.shutdown(socket.SHUT_WR)
    assert sending.result(10) == answer and not upload.whole


def test_a_piece_that_ollama_does_not_take_is_not_the_end(bench: Bench) -> None:
    """Everything is full: the early answer and the cancel are heard all the same, and no third piece is asked for."""
    large = b"x" * (1 << 20)
    upload = bench.upload()
    sending = bench.start(upload.send, bench.watched)
    assert bench.asked() == WINDOW
    bench.parent.sendall(body(large))
    bench.parent.sendall(body(b"second"))
    bench.ollama.sendall(b"HTTP")
    assert sending.result(10) == b"HTTP" and not upload.whole
    bench.parent.setblocking(False)
    with pytest.raises(BlockingIOError):
        bench.parent.recv(1)


@pytest.mark.parametrize("before", [b"", body(b"x" * (1 << 20))])
@pytest.mark.parametrize(("event", "error"), [("cancel", Cancelled), ("gone", ParentGone), ("rubbish", ParentGone)])
def test_the_parent_has_the_last_word(bench: Bench, before: bytes, event: str, error: type) -> None:
    upload = bench.upload()
    sending = bench.start(upload.send, bench.watched)
    bench.parent.sendall(before)
    bench.parent.close() if event == "gone" else bench.parent.sendall(frame(Kind.CANCEL if event == "cancel" else Kind.HEAD))
    with pytest.raises(error):
        sending.result(10)
    assert not upload.whole


def test_ollama_takes_nothing_for_too_long(bench: Bench) -> None:
    sending = bench.start(bench.upload(TIMES._replace(idle=0.05)).send, bench.watched)
    bench.parent.sendall(body(b"x" * (1 << 20)))
    with pytest.raises(UpstreamTimeout, match="took nothing"):
        sending.result(10)


def test_a_slow_client_is_not_ollamas_fault(bench: Bench) -> None:
    """Without a piece there is no limit but the total."""
    bench.watch.begin(0.1)
    with pytest.raises(UpstreamTimeout, match="total_timeout"):
        bench.upload(TIMES._replace(idle=0.01)).send(bench.watched)


def test_the_answer_has_its_own_limit_again(bench: Bench) -> None:
    bench.parent.sendall(END)
    bench.upload(TIMES._replace(first_byte=0.05, idle=0.0)).send(bench.watched)
    with pytest.raises(UpstreamTimeout, match="first_byte_timeout"):
        bench.watch.wait(bench.sock, select.POLLIN)


def test_tls_that_talks_of_itself_is_no_answer(bench: Bench) -> None:
    """Readable, and then nothing to read: TLS 1.3 sends tickets when it likes."""
    tickets = [BlockingIOError()] * 3

    class Talkative(WatchedSocket):
        def take(self) -> bytes | None:
            bench.sock.recv(1)
            return tickets.pop() and None

    bench.ollama.sendall(b"ttt")
    bench.parent.sendall(body(b"abc") + END)
    upload = bench.upload()
    assert upload.send(Talkative(bench.sock, bench.watch)) is None and upload.whole


@pytest.mark.parametrize(("pieces", "last"), [(body(b"hello") + END, False), (body(b"hel"), True)])
def test_the_connection_is_kept_only_after_a_whole_body(bench: Bench, pieces: bytes, last: bool) -> None:
    bench.parent.sendall(pieces)
    exchange = bench.start(bench.connection().exchange, b"POST / HTTP/1.1\r\n\r\n", bench.upload(), "POST")
    received = b""
    while not received.endswith(b"\r\n\r\nhello"[:4 + 5 - 2 * last]):
        received += bench.ollama.recv(100)
    bench.parent.settimeout(0.01)
    bench.ollama.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    reply = exchange.result(10)
    assert (reply.status, reply.first, reply.last) == (200, b"{}", last)


def test_what_an_early_answer_left_is_not_the_next_body(bench: Bench) -> None:
    bench.ollama.sendall(b"HTTP")
    assert bench.upload().send(bench.watched) == b"HTTP"
    bench.parent.sendall(body(b"old"))
    bench.watch.phase("", 5.0)
    bench.watch.wait(bench.sock, select.POLLOUT, or_piece=True)
    bench.watch._pipe.heed() if not bench.watch.pieces else None
    assert bench.watch.pieces
    bench.watch.begin(60.0)
    bench.parent.sendall(body(b"new") + END)
    bench.upload().send(bench.watched)
    assert bench.ollama.recv(100) == b"new"
