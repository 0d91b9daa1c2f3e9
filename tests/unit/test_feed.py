"""A body on its way to a worker whose far end the test holds: who is waited for, and who is told what."""

import os
import select
import socket
from types import SimpleNamespace

import pytest

from hermes.dispatch import feed as feed_module
from hermes.dispatch.feed import Feed
from hermes.errors import BadRequest, ClientGone, RequestTimeout
from hermes.workers.messages import Failure, Head, Kind, ProtocolError, frame, pack

LONG = 30.0
HEAD = pack(Head(200, (), "length", 0))
MORE = frame(Kind.MORE)


class Body:
    """Ends after `size` bytes; what is read comes from the client's socket, a piece a read."""

    def __init__(self, sock: socket.socket, size: int):
        self.sock, self.left = sock, size
        self.patience = LONG
        self.invited = 0
        self.error: Exception | None = None
        self.ready = False

    @property
    def ended(self) -> bool:
        return self.left == 0

    def invite(self) -> None:
        self.invited += 1

    def read(self) -> bytes:
        if self.error:
            raise self.error
        data = self.sock.recv(min(self.left, 1 << 16))
        self.left -= len(data)
        return data


class Yard:
    """A child, a client and what goes between them. `run` in a thread, unless it cannot wait."""

    def __init__(self, new_child, new_pair, start):
        self.child = new_child()
        self.ours, self.client = new_pair()
        self.start = start

    def feed(self, size: int, patience: float = LONG) -> tuple[Feed, Body]:
        body = Body(self.ours, size)
        return Feed(self.child, self.ours.fileno(), body, patience), body


@pytest.fixture
def yard(new_child, new_pair, start) -> Yard:
    return Yard(new_child, new_pair, start)


def test_a_piece_for_each_that_is_asked_for(yard: Yard) -> None:
    feed, body = yard.feed(9)
    running = yard.start(feed.run)
    yard.client.sendall(b"abc")
    assert yard.child.quiet(), "nothing before it is asked for"
    yard.child.say(MORE)
    assert yard.child.hear() == (Kind.BODY, b"abc") and body.invited == 1
    yard.client.sendall(b"def")
    yard.child.say(MORE + MORE)
    assert yard.child.hear() == (Kind.BODY, b"def")
    yard.client.sendall(b"ghi")
    assert [yard.child.hear(), yard.child.hear()] == [(Kind.BODY, b"ghi"), (Kind.BODY_END, b"")]
    assert running.result(10) == [] and body.invited == 1


def test_no_more_than_was_asked_for(yard: Yard) -> None:
    feed, body = yard.feed(1 << 30)
    yard.client.sendall(b"x" * 100_000)
    yard.child.say(MORE)
    running = yard.start(feed.run)
    assert yard.child.hear()[0] == Kind.BODY
    rest = body.left
    yard.child.say(HEAD)
    assert [kind for kind, _ in running.result(10)] == [Kind.HEAD]
    assert body.left == rest and yard.child.quiet()


def test_an_empty_body_ends_when_it_is_asked_for(yard: Yard) -> None:
    feed, _ = yard.feed(0)
    running = yard.start(feed.run)
    assert yard.child.quiet()
    yard.child.say(MORE + MORE)
    assert yard.child.hear() == (Kind.BODY_END, b"") and running.result(10) == []
    assert yard.child.quiet()


def test_what_is_here_already_is_not_waited_for(yard: Yard) -> None:
    feed, body = yard.feed(3)
    body.ready, body.read = True, lambda: setattr(body, "left", 0) or b"abc"
    yard.child.say(MORE)
    assert feed.run() == []
    assert [yard.child.hear(), yard.child.hear()] == [(Kind.BODY, b"abc"), (Kind.BODY_END, b"")]


def test_reads_that_give_nothing_use_up_nothing(yard: Yard) -> None:
    """A chunk's size alone, for one."""
    feed, body = yard.feed(3)
    reads = iter((b"", b"", b"abc"))

    def read() -> bytes:
        data = next(reads)
        body.left -= len(data)
        return data

    body.ready, body.read = True, read
    yard.child.say(MORE)
    assert feed.run() == [] and yard.child.hear() == (Kind.BODY, b"abc")


@pytest.mark.parametrize("word", [HEAD, pack(Failure("UpstreamBroken", "x"))])
@pytest.mark.parametrize("asked", [b"", MORE])
def test_a_word_from_the_worker_ends_it(yard: Yard, asked: bytes, word: bytes) -> None:
    feed, body = yard.feed(1 << 30)
    yard.client.sendall(b"abc")
    yard.child.say(asked + word + MORE)
    assert [kind for kind, _ in feed.run()] == [word[0], Kind.MORE]
    assert body.left == 1 << 30 and body.invited == 0 and yard.child.quiet()


@pytest.mark.parametrize("asked", [b"", MORE])
@pytest.mark.parametrize("how", ["closed", "half", "with bytes behind"])
def test_the_client_leaves(yard: Yard, how: str, asked: bytes) -> None:
    feed, _ = yard.feed(1 << 30)
    if how == "with bytes behind":
        yard.client.sendall(b"abc")
    yard.client.shutdown(socket.SHUT_WR) if how == "half" else yard.client.close()
    yard.child.say(asked)
    with pytest.raises(ClientGone):
        feed.run()


def test_what_is_wrong_with_the_body(yard: Yard) -> None:
    feed, body = yard.feed(5)
    body.error = BadRequest("malformed")
    yard.client.sendall(b"abc")
    yard.child.say(MORE)
    with pytest.raises(BadRequest):
        feed.run()
    assert yard.child.quiet()


def test_the_client_pauses_for_too_long(yard: Yard) -> None:
    feed, body = yard.feed(5)
    body.patience = 0.05
    yard.child.say(MORE)
    with pytest.raises(RequestTimeout):
        feed.run()


def test_the_worker_is_silent_for_too_long(yard: Yard) -> None:
    """Whose turn it is decides who is late: nobody has asked the client for anything."""
    feed, body = yard.feed(5, patience=0.05)
    body.patience = 0.0
    with pytest.raises(TimeoutError):
        feed.run()


@pytest.mark.parametrize(("end", "error"), [("die", (EOFError, OSError)), ("rubbish", ProtocolError)])
def test_the_worker_is_lost(yard: Yard, end: str, error) -> None:
    feed, _ = yard.feed(5)
    yard.child.die() if end == "die" else yard.child.say(b"\xff" * 9)
    with pytest.raises(error):
        feed.run()


class Clock:
    """Stands still but for what a test adds. Nobody waits: what would wait for nothing fails. `waits`: for how many ms each would have."""

    def __init__(self, monkeypatch):
        self.now, self.waits = 100.0, []
        monkeypatch.setattr(feed_module.time, "monotonic", lambda: self.now)

    def rule(self, feed: Feed) -> None:
        poll = feed._poll

        def look(wait: float) -> list[tuple[int, int]]:
            self.waits.append(wait)
            found = poll.poll(0)
            assert found or not wait, f"would wait {wait} ms"
            return found

        feed._poll = SimpleNamespace(register=poll.register, poll=look)


def test_each_piece_gives_the_client_a_new_limit(yard: Yard, monkeypatch) -> None:
    clock = Clock(monkeypatch)
    feed, body = yard.feed(6)
    clock.rule(feed)
    body.patience = 10.0
    clock.now += 20.0
    yard.child.say(MORE * 9)
    feed._wait()
    for _ in range(5):
        clock.now += 9.0
        yard.client.sendall(b"x")
        feed._wait()
    clock.now += 11.0
    with pytest.raises(RequestTimeout):
        feed._wait()
    assert clock.waits == [10_000, *[1000] * 5, 0]


def test_a_word_from_the_worker_gives_the_client_no_new_limit(yard: Yard, monkeypatch) -> None:
    clock = Clock(monkeypatch)
    feed, body = yard.feed(6)
    clock.rule(feed)
    body.patience = 10.0
    yard.child.say(MORE)
    feed._wait()
    clock.now += 9.0
    yard.child.say(MORE)
    feed._wait()
    clock.now += 2.0
    with pytest.raises(RequestTimeout):
        feed._wait()
    assert clock.waits == [30_000, 1000, 0]


def test_a_slow_client_does_not_make_the_worker_late(yard: Yard, monkeypatch) -> None:
    clock = Clock(monkeypatch)
    feed, body = yard.feed(6, patience=10.0)
    clock.rule(feed)
    yard.child.say(MORE)
    feed._wait()
    clock.now += 20.0
    yard.client.sendall(b"x")
    feed._wait()                            # the piece; and now it is the worker's turn
    yard.child.say(MORE)
    clock.now += 9.0
    feed._wait()
    clock.now += 20.0
    yard.client.sendall(b"x")
    feed._wait()
    clock.now += 11.0
    with pytest.raises(TimeoutError):
        feed._wait()
    assert clock.waits == [10_000, 10_000, 1000, 10_000, 0]


def test_a_pipe_that_takes_half_a_piece(yard: Yard) -> None:
    """Not on Linux, where it holds the window; elsewhere the rest is written when there is room, and a word from the worker is heard."""
    yard.child.far.setblocking(False)
    fill(yard.child.fd)
    feed, body = yard.feed(6)
    yard.client.sendall(b"abc")
    yard.child.say(MORE * 2)
    feed._wait()
    feed._pass()
    assert yard.child.unsent and not feed._clients_turn, "a second piece would take the first one's place"
    running = yard.start(feed.run)
    yard.client.sendall(b"def")
    yard.child.far.settimeout(10)
    received = b""
    while not received.endswith(frame(Kind.BODY, b"abc") + frame(Kind.BODY, b"def") + frame(Kind.BODY_END)):
        received += yard.child.far.recv(1 << 16)
    assert running.result(10) == [] and not yard.child.unsent


def test_no_cancel_inside_a_frame(yard: Yard) -> None:
    """There may be room on the pipe again; the worker would take it for a part of the body."""
    yard.child.push(frame(Kind.BODY, b"x" * (1 << 20)))
    yard.child.far.recv(1 << 16)
    with pytest.raises(BlockingIOError):
        yard.child.cancel()
    while yard.child.unsent:
        yard.child.far.recv(1 << 16)
        yard.child.flush()
    yard.child.cancel()


def fill(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    while poll.poll(0):
        try:
            os.write(fd, b"x" * 4096)
        except BlockingIOError:
            break
    try:
        while True:
            os.write(fd, b"x")
    except BlockingIOError:
        pass


def test_the_window_fits_into_a_pipe(yard: Yard) -> None:
    """So that a CANCEL finds room behind it, whatever Ollama does."""
    from hermes.workers.messages import WINDOW
    for _ in range(WINDOW):
        yard.child.push(frame(Kind.BODY, b"x" * (64 * 1024 + 16)))
        assert not yard.child.unsent
    yard.child.cancel()
