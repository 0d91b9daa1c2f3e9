"""A client's connection: raw bytes in, raw bytes out, over a real TCP pair; the house behind it is made of fakes."""

import errno
import itertools
import json
import select
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from hermes.errors import (BadRequest, CallerError, Cancelled, ClientGone, Draining, Forbidden, HermesError, QueueFull, RateLimited, RequestTimeout, Unauthorized,
                           UpstreamBroken, UpstreamFailed)
from hermes.frontend.connection import ClientConnection
from hermes.frontend.exchange import NDJSON, SSE, Call, Dialect, Response, Streamed, error_event, error_line
from hermes.frontend.house import House, Limits
from hermes.frontend.http1 import HEAD_MAX, chunk
from hermes.frontend.lingering import SPARE
from hermes.frontend.principal import NOBODY, Principal
from hermes.frontend.router import Route, Router
from tests.harness import Client, Reply, eventually

DIALECT = Dialect("test", error_line, error_event, ("X-Request-ID", "Another-ID"))
LONG = 30.0


class Source:
    """Steps are bytes to return or an error to raise; without one it ends with its last bytes."""

    def __init__(self, *steps: bytes | BaseException, empty_end: bool = False):
        self.steps = [*steps, *[b""] * empty_end]
        self.ended, self.closed = False, 0

    def read(self) -> bytes:
        step = self.steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        self.ended = not self.steps
        return step

    def close(self) -> None:
        self.closed += 1


class Town:
    """The server's side. `answer` is what /x gives: an answer, or an error that is raised."""

    def __init__(self, start, **limits: float):
        self.start = start
        self.notes: list[tuple[int, str]] = []
        self.calls: list[Call] = []
        self.noted: list[Call] = []
        self.answer: Response | Streamed | Exception = Response(200, b"x")
        self.refusal: HermesError | None = None
        self.fields: tuple[tuple[str, str], ...] = ()
        self.refusal_behind: HermesError | None = None
        self.closing = False
        self.principal = Principal("somebody")
        settings = {"head_timeout": LONG, "body_timeout": LONG, "keepalive_timeout": LONG, "send_timeout": LONG, "heartbeat": LONG, "heartbeat_plain": LONG, "max_body": 1000, "max_parked": 1000, **limits}
        routes = [Route(method, path, DIALECT, endpoint) for method, path, endpoint in (
            ("GET", "/x", self.give), ("HEAD", "/x", self.give), ("POST", "/x", self.give), ("POST", "/echo", self.echo))]
        routes.append(Route("POST", "/upload", DIALECT, self.take, streams_body=True))
        self.house = House(Router(routes, [("", DIALECT)]), Limits(SimpleNamespace(**settings)), self.admit, self.note, lambda: self.closing)

    def admit(self, call: Call) -> None:
        call.headers += self.fields
        if self.refusal:
            raise self.refusal
        call.principal = self.principal

    def note(self, call, status: int, outcome: str) -> None:
        self.notes.append((status, outcome))
        self.noted.append(call)

    def give(self, call: Call):
        self.calls.append(call)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def echo(self, call: Call) -> Response:
        return Response(200, call.body, "text/plain")

    def take(self, call: Call) -> Response:
        """Reads as much of the body as `answer` says, and gives it back."""
        self.calls.append(call)
        assert call.body == b""
        taken = b""
        while not call.upload.ended and len(taken) < self.answer:
            taken += call.upload.read()
        if self.refusal_behind:
            raise self.refusal_behind
        return Response(200, taken, "text/plain")

    @contextmanager
    def visit(self) -> Iterator["Visitor"]:
        listener = socket.create_server(("127.0.0.1", 0))
        with listener, socket.create_connection(listener.getsockname(), LONG) as theirs:
            ours, _ = listener.accept()
            with ours:
                connection = ClientConnection(ours, self.house)
                visitor = Visitor(theirs, connection, self.start(self._serve, connection, ours))
                try:
                    yield visitor
                finally:
                    theirs.close()
                    visitor.served.result(10)           # serve() never raises what a client can cause

    @staticmethod
    def _serve(connection: ClientConnection, sock: socket.socket) -> None:
        try:
            connection.serve()
        finally:
            sock.close()

    def talk(self, data: bytes) -> bytes:
        """Send everything, read to the end; the requests must make the server close."""
        with self.visit() as visitor:
            visitor.send_raw(data)
            while visitor.more():
                pass
            return visitor.buffer


class Visitor(Client):
    def __init__(self, sock: socket.socket, connection: ClientConnection, served: Future):
        self.sock, self.buffer, self.connection, self.served = sock, b"", connection, served

    def ask(self, raw: bytes) -> Reply:
        return self.send_raw(raw).reply(raw.split(b" ")[0].decode())

    def at_end(self) -> bool:
        """The server has closed, and nothing was left over."""
        return self.buffer == b"" and not self.more()


@pytest.fixture
def town(start) -> Town:
    return Town(start)


def get(path: str = "/x", *fields: str, method: str = "GET", version: str = "1.1", body: bytes = b"") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: h", *fields, "", ""]).encode() + body


def post(body: bytes, *fields: str, path: str = "/echo") -> bytes:
    return get(path, f"Content-Length: {len(body)}", *fields, method="POST", body=body)


CLOSE = "Connection: close"


def test_pipelined_requests_are_answered_in_order(town: Town) -> None:
    chunked = get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"3\r\ntwo\r\n0\r\nT: 1\r\n\r\n")
    with town.visit() as visitor:
        visitor.send_raw(post(b"one") + chunked + get("/nothing") + post(b"") + post(b"four", CLOSE) + post(b"never"))
        replies = [visitor.reply() for _ in range(5)]
        assert [(reply.status, reply.body) for reply in replies if reply.status == 200] == [(200, b"one"), (200, b"two"), (200, b""), (200, b"four")]
        assert replies[2].status == 404 and all(reply.complete for reply in replies)
        assert "connection" not in replies[2].headers and replies[4].headers["connection"] == "close"
        assert visitor.at_end()
    assert town.notes == [(200, "ok"), (200, "ok"), (404, "refused"), (200, "ok"), (200, "ok")]


def test_byte_by_byte_is_the_same(town: Town) -> None:
    stream = post(b"one") + get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"3\r\ntwo\r\n0\r\n\r\n") + post(b"three", CLOSE)
    with town.visit() as visitor:
        for number in range(len(stream)):
            visitor.send_raw(stream[number:number + 1])
        assert [visitor.reply().body for _ in range(3)] == [b"one", b"two", b"three"]
        assert visitor.at_end()


@pytest.mark.parametrize("lines", [1, 2, 3])
@pytest.mark.parametrize("at_once", [True, False])
def test_empty_lines_in_front_of_a_request(town: Town, lines: int, at_once: bool) -> None:
    """RFC 9112 §2.2; what segments the lines come in must not matter."""
    with town.visit() as visitor:
        if at_once:
            visitor.send_raw(b"\r\n" * lines + post(b"x"))
        else:
            for byte in b"\r\n" * lines + post(b"x"):
                visitor.send_raw(bytes([byte]))
        assert visitor.reply().status == 200


@pytest.mark.parametrize(("raw", "status"), [
    (b"nonsense\r\n\r\n", 400), (b"GET /x HTTP/1.1\r\n\r\n", 400), (b"GET /x HTTP/2.0\r\nHost: h\r\n\r\n", 505), (b"GET /x\r\n\r\n", 400), (b"BREW /x HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    (get("/x", "A : b"), 400), (get("/x", "Content-Length: 1, 1"), 400), (get("/x", "Content-Length: 1", "Transfer-Encoding: chunked"), 400), (get("/x", "Expect: x"), 417),
    (get("/x", "Transfer-Encoding: gzip"), 400), (get("/x", *["A: b"] * 101), 431), (get("/" + "x" * 9000), 414), (b"GET /" + b"x" * 70_000, 414),
    (get("/x", *["A: " + "b" * 8000] * 5), 431), (get("/x", "A: " + "b" * 9000), 431), (get("/x", *["A: " + "b" * 8000] * 20), 431),
    (get("/nothing"), 404), (get("/x", method="DELETE"), 405), (get("/x", "Content-Length: 100001", method="POST"), 413), (get("/nothing", "Content-Length: 5", method="POST", body=b"hello"), 404),
    (get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"3e9\r\n"), 413), (get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"+5\r\nhello\r\n"), 400),
], ids=range(22))
def test_errors_are_whole_answers(town: Town, raw: bytes, status: int) -> None:
    with town.visit() as visitor:
        reply = visitor.ask(raw)
        assert (reply.status, reply.complete) == (status, True) and reply.raw.startswith(b"HTTP/1.1 ")
        if status in (404, 405):
            assert (reply.headers["content-type"], reply.body) == ("text/plain", b"404 page not found" if status == 404 else b"405 method not allowed")
        else:
            assert reply.headers["content-type"] == "application/json; charset=utf-8" and list(reply.json()) == ["error"]
        if status not in (404, 405):
            assert reply.headers["connection"] == "close" and visitor.at_end(), "what follows cannot be trusted to be a request"
        else:
            assert visitor.ask(get()).status == 200
        assert ("allow" in reply.headers) == (status == 405)
    assert len(town.notes) == 1 + (status in (404, 405)) and town.notes[0][0] == status


@pytest.mark.parametrize("error", [QueueFull("full", retry_after=7), Forbidden("no"), BadRequest("bad"), UpstreamBroken("cut")])
def test_errors_of_the_endpoint(town: Town, error: HermesError) -> None:
    town.answer = error
    with town.visit() as visitor:
        reply = visitor.ask(get())
        assert (reply.status, reply.json()) == (error.status, {"error": error.text})
        assert reply.headers.get("retry-after") == ("7" if isinstance(error, QueueFull) else None)
        town.answer = Response(200, b"x")
        assert visitor.ask(get()).status == 200, "its body was read: the connection is good"
    assert town.notes == [(error.status, "refused" if isinstance(error, CallerError) else error.code), (200, "ok")]
    assert [call.error for call in town.noted] == [error, None]


@pytest.mark.parametrize(("raw", "status", "method", "path"), [
    (get("/x", "A : b", method="HEAD"), 400, "HEAD", "/x"), (get("/x?a=b", "Expect: x", method="HEAD"), 417, "HEAD", "/x"), (get("/x", *["A: b"] * 101, method="HEAD"), 431, "HEAD", "/x"),
    (b"HEAD http://h HTTP/1.1\r\nHost: other\r\n\r\n", 400, "HEAD", "/"), (b"HEAD x HTTP/1.1\r\nHost: h\r\n\r\n", 400, "HEAD", "-"), (get("/x", "A : b"), 400, "GET", "/x"),
    (b"HEAD /x HTTP/2.0\r\nHost: h\r\n\r\n", 505, "-", "-"), (b"HEAD /x\r\n\r\n", 400, "-", "-")], ids=range(8))
def test_what_is_known_of_a_bad_head_decides_how_it_is_said(town: Town, raw: bytes, status: int, method: str, path: str) -> None:
    """No body to HEAD, and the shape of the path's family."""
    with town.visit() as visitor:
        reply = visitor.send_raw(raw).reply(method)
        assert (reply.status, reply.complete, reply.headers["connection"]) == (status, True, "close") and visitor.at_end()
        assert (reply.body == b"") == (method == "HEAD") and int(reply.headers["content-length"]) > 0
    assert [(call.request.method, call.request.path) for call in town.noted] == [(method, path)]


@pytest.mark.parametrize("raw", [get(), get("/x", "X-Request-ID: a b"), get("/nothing"), get("/x", method="DELETE"), get("/x", method="HEAD"), b"nonsense\r\n\r\n",
                                 get("/x", "Content-Length: 1001", method="POST")], ids=range(7))
def test_every_answer_has_its_id(town: Town, raw: bytes) -> None:
    """Also that to what could not be read, and the log knows it."""
    with town.visit() as visitor:
        reply = visitor.ask(raw)
        assert reply.headers["x-request-id"] == reply.headers["another-id"] and reply.headers["x-request-id"].startswith("req_")
    assert reply.headers["x-request-id"] == town.noted[0].request_id


@pytest.mark.parametrize("answer", [Response(200, b"x"), Streamed(200, Source(b"x"), "plain"), BadRequest("no"), RuntimeError("a defect"),
                                    Streamed(200, Source(UpstreamBroken("cut")), "plain")], ids=range(5))
def test_the_clients_own_id_comes_back(town: Town, answer) -> None:
    town.answer = answer
    with town.visit() as visitor:
        for name in ("mine", "x" * 128):
            assert visitor.ask(get("/x", f"X-Request-ID: {name}", CLOSE if len(name) > 4 else "A: b")).headers["x-request-id"] == name
            town.answer = Response(200, b"x")
            if isinstance(answer, RuntimeError):
                break
    assert town.noted[0].request_id == "mine"


@pytest.mark.parametrize("coding", ["zstd", "gzip", "deflate, identity"])
@pytest.mark.parametrize("path", ["/echo", "/nothing"])
def test_compressed_body(town: Town, path: str, coding: str) -> None:
    """Refused before it is read: nobody here can."""
    with town.visit() as visitor:
        reply = visitor.ask(get(path, f"Content-Encoding: {coding}", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert reply.status == (415 if path == "/echo" else 404) and coding.encode() not in reply.body and visitor.at_end()
        assert (b"enable_request_compression" in reply.body) == (path == "/echo")


@pytest.mark.parametrize("fields", [["Content-Encoding: identity"], ["Content-Encoding: IDENTITY"], []])
def test_identity_is_no_coding(town: Town, fields: list[str]) -> None:
    with town.visit() as visitor:
        assert visitor.ask(post(b"one", *fields)).body == b"one"
        assert visitor.ask(get("/x", "Content-Encoding: gzip")).status == 200, "there is no body"


def test_admission_comes_before_routing_and_the_body(town: Town) -> None:
    town.refusal = Forbidden("this Host is not allowed")
    with town.visit() as visitor:
        assert visitor.ask(get("/nothing", "Content-Length: 9", "Expect: 100-continue", method="POST")).status == 403
        assert visitor.at_end()


def test_what_the_gate_has_to_say_is_on_every_answer(town: Town) -> None:
    """On an answer, a stream, its failure, and an error from anywhere."""
    town.fields = (("Access-Control-Allow-Origin", "app://x"), ("Vary", "Origin"))
    said = lambda reply: (reply.headers.get("access-control-allow-origin"), reply.headers.get("vary")) == ("app://x", "Origin")
    with town.visit() as visitor:
        for town.answer in (Response(200, b"x"), Streamed(200, Source(b"x"), "plain"), QueueFull("full"), Streamed(200, Source(UpstreamBroken("cut")), "plain")):
            assert said(visitor.ask(get()))
        town.answer = ValueError("a mistake of ours")
        assert said(visitor.ask(get()))
    town.answer = Response(200, b"x")
    with town.visit() as visitor:
        assert said(visitor.ask(get("/nothing"))) and said(visitor.ask(get(method="DELETE"))) and said(visitor.ask(get(method="OPTIONS")))
        assert said(visitor.ask(get("/x/"))) and said(visitor.ask(post(b"x", "Expect: 100-continue")))
        town.refusal = Unauthorized()
        refused = visitor.ask(get())
        assert said(refused) and (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer"), "and an error's own fields with it"
        assert not said(visitor.ask(b"nonsense\r\n\r\n")), "no request, no page"


def test_answer_without_a_body(town: Town) -> None:
    """A 204 has no length and no type (RFC 9110 §8.6), and another request may follow it."""
    with town.visit() as visitor:
        head = visitor.send_raw(get(method="OPTIONS")).read_until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 204 No Content\r\nDate: ") and b"Content-" not in head and head.endswith(b"\r\n\r\n")
        visitor.buffer = b""
        town.answer = Response(307, content_type="", headers=(("Location", "/x"),))
        reply = visitor.ask(get())
        assert (reply.headers["content-length"], reply.headers["location"], "content-type" in reply.headers) == ("0", "/x", False)
    assert town.notes == [(204, "ok"), (307, "ok")]


def test_the_address_that_was_reached(town: Town) -> None:
    with town.visit() as visitor:
        assert visitor.connection.reached() == "127.0.0.1"


class TestExpect:
    def test_continue_comes_first(self, town: Town) -> None:
        with town.visit() as visitor:
            visitor.send_raw(get("/echo", "Content-Length: 2", "Expect: 100-continue", method="POST"))
            assert visitor.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            visitor.buffer = b""
            assert visitor.send_raw(b"hi").reply().body == b"hi"

    def test_none_when_the_body_is_here(self, town: Town) -> None:
        assert b"100 Continue" not in town.talk(post(b"hi", "Expect: 100-continue", CLOSE))

    @pytest.mark.parametrize(("raw", "status"), [
        (get("/nothing", "Content-Length: 2", "Expect: 100-continue", method="POST"), 404), (get("/echo", "Content-Length: 1001", "Expect: 100-continue", method="POST"), 413),
        (get("/echo", "Content-Length: 2", "Expect: 100-continue"), 405), (get("/echo", "Expect: 100-continue", CLOSE, method="POST"), 200),
    ], ids=range(4))
    def test_none_when_no_body_is_wanted(self, town: Town, raw: bytes, status: int) -> None:
        assert town.talk(raw).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("raw", [get("/echo", "Content-Length: 5", method="POST", body=b"hell"), get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"5\r\nhell"),
                                 get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"5\r\nhello\r\n0\r\n")], ids=range(3))
@pytest.mark.parametrize("how", ["ends", "stops"])
def test_body_that_is_not_whole(start, raw: bytes, how: str) -> None:
    town = Town(start, body_timeout=0.05 if how == "stops" else LONG)
    with town.visit() as visitor:
        visitor.send_raw(raw)
        if how == "ends":
            visitor.sock.shutdown(socket.SHUT_WR)
        reply = visitor.reply()
        assert reply.status == (400 if how == "ends" else 408) and reply.complete and visitor.at_end()
    assert not town.calls and len(town.notes) == 1


class TestParking:
    """Bodies of all requests together: the house holds 1000 bytes."""

    def test_no_room_is_said_before_the_body(self, town: Town) -> None:
        with town.visit() as first, town.visit() as second:
            first.send_raw(get("/echo", "Content-Length: 900", method="POST", body=b"x" * 600))
            eventually(lambda: town.house.parking.size == 600)
            reply = second.ask(get("/echo", "Content-Length: 401", "Expect: 100-continue", method="POST"))
            assert (reply.status, reply.headers["retry-after"]) == (503, "1") and second.at_end()
            assert first.send_raw(b"x" * 300).reply().body == b"x" * 900
            eventually(lambda: town.house.parking.size == 0)
            assert first.ask(post(b"y" * 1000)).body == b"y" * 1000

    @pytest.mark.parametrize("how", ["counted", "chunked"])
    def test_no_room_in_the_middle(self, town: Town, how: str) -> None:
        with town.visit() as first, town.visit() as second:
            heads = {"counted": get("/echo", "Content-Length: 600", method="POST"), "chunked": get("/echo", "Transfer-Encoding: chunked", method="POST", body=b"258\r\n")}
            second.send_raw(heads[how] + b"x")
            eventually(lambda: town.house.parking.size == 1)
            first.send_raw(get("/echo", "Content-Length: 900", method="POST", body=b"x" * 600))
            eventually(lambda: town.house.parking.size == 601)
            assert second.send_raw(b"x" * 400).reply().status == 503 and second.at_end()
            assert town.house.parking.size == 600, "what had come of it is given back"
            assert first.send_raw(b"x" * 300).reply().status == 200

    @pytest.mark.parametrize("end", ["client", "endpoint", "stream", "error"])
    def test_it_is_given_back(self, town: Town, end: str) -> None:
        town.answer = {"client": Response(200, b"x"), "endpoint": RuntimeError("a defect"), "stream": Streamed(200, Source(b"a", ClientGone()), "plain"), "error": QueueFull("full")}[end]
        with town.visit() as visitor:
            visitor.send_raw(get("/x", f"Content-Length: {6 if end == 'client' else 5}", method="POST", body=b"hello"))
            eventually(lambda: town.house.parking.size == 5 or town.notes)
        assert town.house.parking.size == 0


def test_a_body_may_last_as_long_as_it_comes_at_a_decent_pace(town: Town, monkeypatch) -> None:
    """The deadline is one for the whole, with a second more for each 50 kB."""
    deadlines, pieces = [], [b"", b"x" * 400, b"x" * 500]

    def read(connection, deadline: float) -> bytes:
        deadlines.append(deadline)
        return pieces.pop()

    with town.visit() as visitor:
        connection = visitor.connection
        connection._buffer = b"x" * 100
        monkeypatch.setattr(ClientConnection, "_read", read)
        with pytest.raises(BadRequest):
            connection._read_body(1001)
        monkeypatch.undo()
        connection._park(0)
    assert [round(deadline - deadlines[0], 6) for deadline in deadlines] == [0, 0.01, 0.018]


class TestEviction:
    def test_an_idle_connection_goes_without_a_word(self, town: Town) -> None:
        with town.visit() as visitor:
            assert visitor.ask(get()).status == 200
            eventually(lambda: visitor.connection in town.house.waiting._guests)
            assert town.house.waiting.evict() and visitor.at_end()
        assert town.notes == [(200, "ok")]

    def test_one_in_its_head_is_told(self, town: Town) -> None:
        with town.visit() as visitor:
            visitor.send_raw(get()[:-2])
            eventually(lambda: not visitor.connection.idle)
            assert town.house.waiting.evict()
            reply = visitor.reply()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1") and visitor.at_end()
        assert town.notes == [(503, "too_many_connections")]

    def test_the_one_that_has_waited_longest_goes_first(self, town: Town) -> None:
        with town.visit() as first, town.visit() as second:
            for visitor in (second, first, second):
                assert visitor.ask(get()).status == 200
                eventually(lambda: visitor.connection in town.house.waiting._guests)
            assert town.house.waiting.evict() and first.at_end()
            assert second.ask(get()).status == 200

    def test_a_request_that_has_arrived_is_not_among_them(self, town: Town) -> None:
        with town.visit() as visitor:
            visitor.send_raw(get("/echo", "Content-Length: 5", method="POST", body=b"hell"))
            eventually(lambda: town.house.parking.size == 4)
            assert not town.house.waiting.evict()
            assert visitor.send_raw(b"o").reply().body == b"hello"

    @pytest.mark.parametrize("told", [True, False])
    def test_a_head_that_is_whole_just_then_is_refused_all_the_same(self, town: Town, monkeypatch, told: bool) -> None:
        """`told`: of those that wait it is none any more, and whoever sends it away has had the time to say so."""
        monkeypatch.setattr(town.house.waiting, "leave", lambda guest: False)
        with town.visit() as visitor:
            visitor.connection._evicted = told
            assert visitor.ask(get()).status == 503 and visitor.at_end()
        assert not town.calls


def test_no_descriptor_for_a_request(town: Town) -> None:
    town.answer = OSError(errno.EMFILE, "Too many open files")
    with town.visit() as visitor:
        assert visitor.ask(get()).status == 503
        town.answer = Response(200, b"x")
        assert visitor.ask(get()).status == 200
    assert town.notes == [(503, "busy"), (200, "ok")]


@pytest.mark.parametrize("begun", [b"", b"{}\n"])
def test_no_descriptor_for_the_rest_of_a_stream(town: Town, begun: bytes) -> None:
    steps = [begun] if begun else []
    town.answer = Streamed(200, Source(*steps, OSError(errno.EMFILE, "Too many open files")), "plain", in_band=DIALECT.in_band(NDJSON))
    with town.visit() as visitor:
        reply = visitor.ask(get())
        if begun:
            assert (reply.status, reply.complete, reply.records()[1:]) == (200, False, [{"error": "no descriptor is left for this request"}]) and visitor.at_end()
        else:
            assert (reply.status, reply.complete) == (503, True) and "connection" not in reply.headers
    assert town.notes == [(200 if begun else 503, "busy")] and town.answer.source.closed == 1
    assert town.noted[0].error.code == "busy"


@pytest.mark.parametrize("begun", [None, b"", b"{}\n"])
def test_an_error_of_the_systems_that_is_not_the_clients_ends_nothing_in_silence(town: Town, caplog, begun: bytes | None) -> None:
    """Who has left is a ClientGone of whoever has noticed."""
    error = ProcessLookupError(errno.ESRCH, "No such process")
    town.answer = error if begun is None else Streamed(200, Source(*[begun] if begun else [], error), "plain", in_band=DIALECT.in_band(NDJSON))
    with town.visit() as visitor:
        reply = visitor.ask(get())
        if begun:
            assert (reply.status, reply.complete, reply.records()[1:]) == (200, False, [{"error": "internal error"}])
        else:
            assert (reply.status, reply.complete, reply.json()) == (500, True, {"error": "internal error"})
    assert town.notes == [(200 if begun else 500, "internal_error")] and "No such process" in caplog.text


@pytest.mark.parametrize("steps", [[b"{}\n"], [UpstreamBroken("x")]])
def test_a_source_that_cannot_be_closed_is_noted_and_is_no_client_who_has_left(town: Town, steps: list) -> None:
    """What is not noted is never given back to who has a quota."""
    source = Source(*steps)
    source.close = lambda: (_ for _ in ()).throw(ProcessLookupError(errno.ESRCH, "No such process"))
    town.answer = Streamed(200, source, "plain")
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, socket.create_connection(listener.getsockname(), LONG) as theirs:
        ours, _ = listener.accept()
        with ours:
            served = town.start(ClientConnection(ours, town.house).serve)
            theirs.sendall(get())
            with pytest.raises(RuntimeError, match="ProcessLookupError in Hermes itself"):
                served.result(10)
    assert town.notes == [(200, "ok") if steps == [b"{}\n"] else (502, "upstream_broken")]


def test_head_that_stops(start) -> None:
    town = Town(start, head_timeout=0.05)
    with town.visit() as visitor:
        assert visitor.ask(get()[:-2]).status == 408 and visitor.at_end()


def test_head_that_drips_has_one_deadline(start) -> None:
    town = Town(start, head_timeout=0.05)
    with town.visit() as visitor:
        for byte in itertools.cycle(b"GET /xxxx"):
            visitor.send_raw(bytes([byte]))
            if select.select([visitor.sock], [], [], 0.001)[0]:         # without a pause the line would be too long first
                break
        assert visitor.reply().status == 408
    assert town.notes == [(408, "refused")]


def test_idle_connection_is_closed_without_a_word(start) -> None:
    town = Town(start, keepalive_timeout=0.05)
    with town.visit() as visitor:
        assert visitor.at_end()
    with town.visit() as visitor:
        assert visitor.ask(get()).status == 200 and visitor.at_end()
    assert town.notes == [(200, "ok")]


@pytest.mark.parametrize("lines", [b"\r\n", b"\r\n\r\n", b"\r"])
def test_an_empty_line_is_no_request_that_comes_too_late(start, lines: bytes) -> None:
    """Some clients send one behind a body (RFC 9112 §2.2): a 408 would be taken for the answer to what they ask next."""
    town = Town(start, head_timeout=0.05)
    with town.visit() as visitor:
        assert visitor.send_raw(lines).at_end()
    with town.visit() as visitor:
        assert visitor.ask(post(b"x") + lines).body == b"x" and visitor.at_end()
    assert town.notes == [(200, "ok")]


def test_hang_up_on_an_idle_connection(town: Town) -> None:
    with town.visit() as visitor:
        assert visitor.ask(get()).status == 200
        eventually(lambda: visitor.connection.idle)
        visitor.connection.hang_up()
        assert visitor.at_end()


def test_closing_house_says_so(town: Town) -> None:
    town.closing = True
    with town.visit() as visitor:
        assert visitor.ask(get()).headers["connection"] == "close" and visitor.at_end()


def test_client_that_leaves_inside_a_head(town: Town) -> None:
    with town.visit() as visitor:
        visitor.send_raw(get()[:-3])
        visitor.sock.shutdown(socket.SHUT_WR)
        assert visitor.at_end()
    assert town.notes == [], "it was no request yet"


def test_client_that_never_says_anything(town: Town) -> None:
    with town.visit():
        pass
    assert town.notes == []


def test_endpoint_finds_the_client_gone(town: Town) -> None:
    town.answer = ClientGone()
    with town.visit() as visitor:
        visitor.send_raw(get())
        assert visitor.at_end()
    assert town.notes == [(499, "cancelled")]


def reset(visitor: Visitor) -> None:
    visitor.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visitor.sock.close()


@pytest.mark.parametrize("answer", [Response(200, b"x"), BadRequest("no")], ids=["answer", "error"])
def test_every_request_is_noted_once_though_nobody_hears_the_answer(town: Town, start, answer) -> None:
    town.answer = answer
    give = town.give

    def give_late(call: Call):
        reset(visitor)
        eventually(lambda: visitor.connection._poll.poll(0))
        return give(call)

    town.house.router._exact[("GET", "/x")] = Route("GET", "/x", DIALECT, give_late)
    with town.visit() as visitor:
        visitor.send_raw(get())
        visitor.served.result(10)
    assert len(town.notes) == 1


def test_head_has_the_headers_of_get_and_no_body(town: Town) -> None:
    for make in (lambda: Response(200, b"hello"), lambda: Streamed(200, Source(b"hello"), "length", 5), lambda: Streamed(200, Source(b"hel", b"lo"), "plain")):
        heads = []
        with town.visit() as visitor:
            for method in ("GET", "HEAD"):
                town.answer = make()
                reply = visitor.ask(get("/x", "X-Request-ID: one", method=method))
                heads.append({name: value for name, value in reply.headers.items() if name != "date"})
                assert reply.body == (b"hello" if method == "GET" else b"")
            assert visitor.ask(get("/nothing", method="HEAD")).status == 404, "nothing of a body was in between"
        assert heads[0] == heads[1]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("make", [lambda: Response(200, b"hello"), lambda: Streamed(200, Source(b"he", b"llo"), "length", 5), lambda: Streamed(200, Source(b"he", b"llo"), "plain")],
                         ids=["whole", "length", "plain"])
def test_http_1_0(town: Town, keep: bool, make) -> None:
    town.answer = make()
    with town.visit() as visitor:
        reply = visitor.ask(get("/x", *["Connection: keep-alive"] * keep, version="1.0"))
        assert reply.status == 200 and reply.body == b"hello" and "transfer-encoding" not in reply.headers
        kept = keep and "content-length" in reply.headers
        assert reply.headers["connection"] == ("keep-alive" if kept else "close")
        town.answer = Response(200, b"")
        assert visitor.ask(get()).status == 200 if kept else visitor.at_end()


@pytest.mark.parametrize("empty_end", [False, True])
@pytest.mark.parametrize(("framing", "steps"), [("plain", (b"a", b"", b"bc")), ("plain", (b"",)), ("length", (b"a", b"", b"bc")), ("length", (b"",)), ("chunked", (b"1\r\na\r\n", b"", b"2\r\nbc\r\n")), ("chunked", (b"",))])
def test_streams(town: Town, framing: str, steps: tuple, empty_end: bool) -> None:
    body = b"abc" if len(steps) > 1 else b""
    source = Source(*steps, empty_end=empty_end)
    town.answer = Streamed(200, source, framing, len(body), (("Content-Type", NDJSON),))
    with town.visit() as visitor:
        reply = visitor.ask(get())
        assert reply.complete and reply.body == body and reply.headers["content-type"] == NDJSON
        assert ("content-length" in reply.headers) == (framing == "length")
        town.answer = Response(200, b"next")
        assert visitor.ask(get()).body == b"next"
    assert source.closed == 1 and town.notes[0] == (200, "ok")


def test_head_goes_out_with_the_first_bytes(town: Town) -> None:
    town.answer = Streamed(200, Source(b"", b"a", UpstreamBroken("cut")), "plain")
    with town.visit() as visitor:
        visitor.send_raw(get())
        assert not visitor.reply().complete


@pytest.mark.parametrize("error", [UpstreamBroken("cut"), UpstreamFailed("it said so")])
@pytest.mark.parametrize("framing", ["plain", "length", "chunked"])
def test_failure_before_the_first_byte_is_a_proper_error(town: Town, error: HermesError, framing: str) -> None:
    source = Source(error)
    town.answer = Streamed(200, source, framing, 5, (("Content-Type", NDJSON),), DIALECT.in_band(NDJSON))
    with town.visit() as visitor:
        reply = visitor.ask(get())
        assert (reply.status, reply.complete, reply.json()) == (502, True, {"error": error.text})
        town.answer = Response(200, b"next")
        assert visitor.ask(get()).body == b"next"
    assert source.closed == 1
    assert town.notes == [(502, error.code), (200, "ok")], "what is logged is what the client was told"


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("kind", [NDJSON, SSE, "application/json"])
@pytest.mark.parametrize(("framing", "version"), [("plain", "1.1"), ("length", "1.1"), ("chunked", "1.1"), ("plain", "1.0"), ("length", "1.0")])
def test_failure_after_the_first_byte_is_never_a_clean_end(town: Town, framing: str, kind: str, version: str, told: bool) -> None:
    error = UpstreamBroken("cut")
    error.told = told
    part = b'{"a":1}\n' if kind == NDJSON else b"data: 1\n\n"
    source = Source(chunk(part) if framing == "chunked" else part, error)
    town.answer = Streamed(200, source, framing, 100, (("Content-Type", kind),), DIALECT.in_band(kind))
    with town.visit() as visitor:
        visitor.send_raw(get("/x", "Connection: keep-alive", version=version) + get())
        reply = visitor.reply()
        assert reply.status == 200 and visitor.at_end(), "nothing more comes on this connection"
        record = {NDJSON: b'{"error":"cut"}\n', SSE: b'event: error\ndata: {"error":"cut"}\n\n'}.get(kind, b"")
        assert reply.body == part + (record if framing != "length" and not told else b"")
        assert not reply.complete or "content-length" not in reply.headers and version == "1.0"
    assert town.notes == [(200, "upstream_broken")] and source.closed == 1


@pytest.mark.parametrize("framing", ["plain", "length", "chunked"])
def test_client_that_leaves_inside_a_stream(town: Town, framing: str) -> None:
    source = Source(b"1\r\na\r\n", ClientGone())
    town.answer = Streamed(200, source, framing, 100)
    with town.visit() as visitor:
        visitor.send_raw(get())
        assert not visitor.reply().complete and visitor.at_end()
    assert town.notes == [(200, "cancelled")] and source.closed == 1


def test_client_that_does_not_read(start) -> None:
    """One write waits for send_timeout; then the worker is let go."""
    town = Town(start, heartbeat=float("inf"), heartbeat_plain=float("inf"), send_timeout=0.05)
    source = Source(*[b"x" * (1 << 20)] * 64)
    town.answer = Streamed(200, source, "plain")
    with town.visit() as visitor:
        visitor.send_raw(get())
        visitor.served.result(20)
    assert town.notes == [(200, "cancelled")] and source.closed == 1 and source.steps


@pytest.mark.parametrize("error", [RuntimeError("a defect"), Streamed(200, Source(b"x"), "plain", 0, (("A", "b\r\nC: d"),)), Streamed(200, Source(KeyError("x")), "plain")],
                         ids=["endpoint", "header", "source"])
def test_a_defect_of_ours_is_still_an_answer(town: Town, caplog, error) -> None:
    town.answer = error
    with town.visit() as visitor:
        reply = visitor.ask(get())
        assert (reply.status, reply.complete, reply.json()) == (500, True, {"error": "internal error"}) and "c" not in reply.headers
    assert [outcome for _, outcome in town.notes] == ["internal_error"] and any(record.exc_info for record in caplog.records)


def test_lingering_reads_what_is_left(town: Town) -> None:
    """A refused upload is read on for a moment, or the reset would eat the answer."""
    with town.visit() as visitor:
        visitor.send_raw(get("/echo", "Content-Length: 500000", method="POST"))
        for _ in range(5):
            visitor.send_raw(b"x" * 100_000)
        assert visitor.reply().status == 413 and visitor.at_end()


def test_largest_head(town: Town) -> None:
    """HEAD_MAX is allowed; nothing above it."""
    for extra, status in ((0, 200), (1, 431)):
        fields = ["A: " + "b" * 8000] * 4
        raw = get("/x", *fields, CLOSE)
        pad = HEAD_MAX + 4 - len(raw) - len("B: \r\n") + extra
        assert town.talk(get("/x", *fields, "B: " + "c" * pad, CLOSE)).startswith(b"HTTP/1.1 %d " % status)
    assert json.dumps(town.notes) == '[[200, "ok"], [431, "refused"]]'


# -- bodies that are not read in advance ---------------------------------------------------------------------------


def chunked(*chunks: bytes, path: str = "/upload") -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return get(path, "Transfer-Encoding: chunked", method="POST", body=body)


def test_a_streamed_body_is_read_by_its_endpoint(town: Town) -> None:
    """Whatever its size: the limit is for bodies that are kept in memory."""
    town.answer = 1 << 30
    with town.visit() as visitor:
        for body in (b"", b"x", b"x" * 5000):
            assert visitor.ask(post(body, path="/upload")).body == body
            assert visitor.ask(chunked(body) if body else chunked()).body.count(b"x") == len(body)


def test_the_next_request_behind_a_streamed_body(town: Town) -> None:
    town.answer = 1 << 30
    raw = post(b"abc", path="/upload") + chunked(b"de") + post(b"f") + post(b"", path="/upload") + post(b"g", CLOSE)
    with town.visit() as visitor:
        visitor.send_raw(raw)
        assert [visitor.reply().body for _ in range(5)] == [b"abc", b"2\r\nde\r\n0\r\n\r\n", b"f", b"", b"g"]
        assert visitor.at_end()


@pytest.mark.parametrize("raw", [post(b"x" * (SPARE + 1), path="/upload"), chunked(b"x" * SPARE)[:-1], get("/upload", "Content-Length: 5", "Expect: 100-continue", method="POST")])
def test_what_is_left_of_a_streamed_body_is_no_request(town: Town, raw: bytes) -> None:
    town.answer = 0
    with town.visit() as visitor:
        reply = visitor.ask(raw)
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        visitor.send_raw(get())
        assert visitor.at_end()
    assert len(town.calls) == 1


@pytest.mark.parametrize(("error", "read", "kept"), [(QueueFull("full"), 0, True), (QueueFull("full"), 1 << 30, True), (RequestTimeout("late"), 0, False)])
def test_an_error_behind_a_streamed_body(town: Town, error: HermesError, read: int, kept: bool) -> None:
    town.answer, town.refusal_behind = read, error
    with town.visit() as visitor:
        reply = visitor.ask(post(b"abc", path="/upload"))
        assert reply.status == error.status and (reply.headers.get("connection") != "close") is kept
        if kept:
            assert visitor.ask(post(b"next")).body == b"next"
        else:
            assert visitor.at_end()


def test_100_continue_is_the_endpoints_to_say(town: Town) -> None:
    town.answer = 0
    with town.visit() as visitor:
        reply = visitor.ask(get("/upload", "Content-Length: 5", "Expect: 100-continue", method="POST"))
        assert reply.status == 200 and b"100 Continue" not in reply.raw


# -- bodies of refused requests ------------------------------------------------------------------------------------


BAIT = get("/x")                # in a body: were it taken for a request, it would be answered
COMPRESSED = "Content-Encoding: gzip"


@pytest.mark.parametrize("size", [len(BAIT), SPARE // len(BAIT) * len(BAIT)])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("path", "fields", "refusal", "status"), [
    ("/nothing", [], None, 404), ("/echo", [COMPRESSED], None, 415), ("/echo", [], Unauthorized(), 401), ("/echo", [], Forbidden("no"), 403),
    ("/echo", [], RateLimited("slowly"), 429), ("/echo", [], Draining("over"), 503), ("/x", [], None, 413), ("/upload", [], None, 200)],
    ids=["404", "415", "401", "403", "429", "503", "413", "200"])
def test_a_short_body_that_nobody_wants_is_read_for_nothing(start, path: str, fields: list[str], refusal, status: int, late: bool, size: int) -> None:
    """The answer comes first, and does not wait for it; the next request follows."""
    town = Town(start, max_body=len(BAIT) - 1)
    town.refusal, town.answer = refusal, 0
    raw = get(path, f"Content-Length: {size}", *fields, method="POST")
    with town.visit() as visitor:
        visitor.send_raw(raw if late else raw + BAIT * (size // len(BAIT)))
        reply = visitor.reply()
        assert (reply.status, reply.complete, "connection" in reply.headers) == (status, True, False)
        town.refusal, town.answer = None, Response(200, b"x")
        assert visitor.send_raw((BAIT * (size // len(BAIT)) if late else b"") + post(b"next")).reply().body == b"next"
    assert len(town.notes) == 2


@pytest.mark.parametrize("framing", ["counted", "chunks", "invited"])
def test_nothing_is_kept_for_whom_nobody_has_asked_who_he_is(start, framing: str) -> None:
    """/livez and a preflight take no key: else whoever has none could fill the memory for everybody's bodies."""
    fields, body = {"counted": ([f"Content-Length: {SPARE}"], bytes(SPARE)), "chunks": (["Transfer-Encoding: chunked"], b"%x\r\n%b\r\n0\r\n\r\n" % (len(BAIT), BAIT)),
                    "invited": (["Content-Length: 9", "Expect: 100-continue"], bytes(9))}[framing]
    town = Town(start, max_body=SPARE + 1, max_parked=SPARE + 1)
    town.principal = NOBODY
    with town.visit() as visitor:
        visitor.send_raw(get("/x", *fields))
        if framing == "invited":
            assert visitor.reply("HEAD").status == 100
        visitor.send_raw(body[:-1])
        assert town.house.parking.size == 0 and not town.calls, "not answered before it is known to be a request"
        visitor.send_raw(body[-1:])
        assert (visitor.reply().status, town.calls[0].body, town.house.parking.size) == (200, b"", 0)
        assert visitor.ask(get("/x")).status == 200, "and the connection lives on"
    eventually(lambda: len(town.notes) == 2)


@pytest.mark.parametrize(("fields", "body", "status"), [
    ([f"Content-Length: {SPARE + 1}"], b"", 413),
    ([f"Content-Length: {SPARE + 1}", "Expect: 100-continue"], b"", 413),
    (["Transfer-Encoding: chunked"], b"%x\r\n%b\r\n" % (SPARE + 1, bytes(SPARE + 1)), 413),
    (["Transfer-Encoding: chunked"], b"%x\r\n" % (SPARE + 1), 413),
    (["Transfer-Encoding: chunked"], b"5\r\nhello\r\n%x\r\n" % SPARE, 413),
    (["Transfer-Encoding: chunked"], b"0_9\r\n" + BAIT, 400),
    (["Transfer-Encoding: chunked"], b"5\r\nhello", 400),
    (["Content-Length: 9"], b"hello", 400),
], ids=["long", "long, invited", "long, chunks", "long chunk", "long with what came", "malformed", "chunks cut", "cut"])
def test_a_bad_body_is_refused_also_where_nobody_wants_one(start, fields: list[str], body: bytes, status: int) -> None:
    town = Town(start, max_body=SPARE + 1, max_parked=SPARE + 1)
    town.principal = NOBODY
    with town.visit() as visitor:
        visitor.send_raw(get("/x", *fields) + body).sock.shutdown(socket.SHUT_WR)
        reply = visitor.reply()
        assert (reply.status, reply.headers["connection"], town.calls) == (status, "close", []) and visitor.at_end()


def test_who_sends_nothing_of_an_unwanted_body_is_told_so(start) -> None:
    town = Town(start, body_timeout=0.05)
    town.principal = NOBODY
    with town.visit() as visitor:
        assert visitor.ask(get("/x", "Content-Length: 9")).status == 408 and visitor.at_end()


def test_of_chunks_only_what_is_here_is_read_for_nothing(town: Town) -> None:
    """Whoever sends chunks may send them for ever."""
    raw = get("/nothing", "Transfer-Encoding: chunked", method="POST")
    whole = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BAIT), BAIT)
    with town.visit() as visitor:
        assert visitor.ask(raw + whole + BAIT).status == 404 and visitor.reply().status == 200
        for rest in (whole[:-1], b"", b"x\r\n" + whole):
            with town.visit() as another:
                reply = another.ask(raw + rest)
                assert (reply.status, reply.headers["connection"]) == (404, "close")
                assert another.send_raw(BAIT).at_end()
    eventually(lambda: sorted(status for status, _ in town.notes) == [200, 404, 404, 404, 404])


@pytest.mark.parametrize("field", ["Expect: 100-continue", CLOSE, f"Content-Length: {SPARE + 1}"])
def test_a_body_that_may_not_come_or_is_long_is_not_read_for_nothing(town: Town, field: str) -> None:
    """The answer can be read all the same: nothing that the client goes on to send is met with a reset."""
    length = [] if "Length" in field else [f"Content-Length: {len(BAIT)}"]
    with town.visit() as visitor:
        reply = visitor.ask(get("/nothing", field, *length, method="POST"))
        assert (reply.status, reply.headers["connection"]) == (404, "close")
        visitor.send_raw(BAIT)
        assert visitor.at_end()
    assert len(town.notes) == 1


@pytest.mark.parametrize("how", ["stops", "leaves", "is evicted", "server stops"])
def test_a_body_that_nobody_wants_and_that_does_not_come(start, how: str) -> None:
    town = Town(start, body_timeout=0.05 if how == "stops" else LONG)
    with town.visit() as visitor:
        assert visitor.ask(get("/nothing", "Content-Length: 9", method="POST", body=b"half")).status == 404
        if how == "leaves":
            visitor.sock.shutdown(socket.SHUT_WR)
        if how == "is evicted":
            assert eventually(town.house.waiting.evict)
        if how == "server stops":
            eventually(lambda: visitor.connection.idle)
            visitor.connection.hang_up()
        assert visitor.at_end()
    assert len(town.notes) == 1


@pytest.mark.parametrize("length", [str(10 << 20), None])
def test_who_is_cancelled_in_the_middle_of_his_body_can_read_so(town: Town, length: str | None) -> None:
    """Hanging up is how his thread is woken; what he sends from then on must not be met with a reset, at least for a moment."""
    began = threading.Event()

    def give(call: Call):
        call.pending = object()
        call.upload.read()
        began.set()
        while True:
            call.upload.read()

    town.house.router = Router([Route("POST", "/x", DIALECT, give, streams_body=True)], [("", DIALECT)])
    with town.visit() as visitor:
        framing = f"Content-Length: {length}" if length else "Transfer-Encoding: chunked"
        visitor.send_raw(get("/x", "X-Request-ID: r", framing, method="POST", body=b"" if length else b"a00000\r\n"))
        visitor.send_raw(b"x" * 1000)
        assert began.wait(10) and town.house.live.cancel("r", lambda call: True) == 1
        eventually(lambda: select.select([visitor.sock], [], [], 0)[0])
        for _ in range(50):
            visitor.send_raw(b"x" * 10_000)
        reply = visitor.reply()
        assert (reply.status, reply.complete, reply.headers["connection"]) == (499, True, "close") and visitor.at_end()
        visitor.served.result(10)


# -- calls that somebody ends --------------------------------------------------------------------------------------


class Until(Source):
    """Gives its steps and then waits for the client's leaving, as a lease does."""

    def __init__(self, *steps: bytes):
        super().__init__(*steps)
        self.client: ClientConnection | None = None

    def read(self) -> bytes:
        if self.steps:
            return self.steps.pop(0)
        poll = select.poll()
        poll.register(self.client, select.POLLRDHUP)
        assert poll.poll(10_000), "nobody left"
        raise ClientGone


@pytest.mark.parametrize("before", [b"", b"record\n"])
@pytest.mark.parametrize("answer", ["plain", "stream", "no answer yet"])
def test_a_call_that_is_ended_is_told_so(start, answer: str, before: bytes) -> None:
    town = Town(start)
    source = Until(*[before] if before else [])

    def give(call: Call):
        call.pending, source.client = object(), call.client
        if answer == "stream":
            return Streamed(200, source, "plain", headers=(("Content-Type", NDJSON),), in_band=DIALECT.in_band(NDJSON))
        if answer == "plain":
            return Streamed(200, source, "length", 100)
        source.steps.clear()
        return source.read()

    town.house.router = Router([Route("GET", "/x", DIALECT, give)], [("", DIALECT)])
    with town.visit() as visitor:
        visitor.send_raw(get("/x", "X-Request-ID: r"))
        began = before and answer != "no answer yet"
        if began:
            visitor.read_until(b"record")
        assert eventually(lambda: source.client and town.house.live.cancel("r", lambda call: True)) == 1
        reply = visitor.reply()
        assert visitor.at_end() and town.notes == [(200 if began else 499, "cancelled")]
        if not began:
            assert (reply.status, reply.complete, reply.headers["connection"]) == (499, True, "close") and "cancelled" in reply.json()["error"]
        else:
            assert not reply.complete and (b"cancelled" in reply.body) == (answer == "stream")
        assert source.closed == (answer != "no answer yet") and town.house.live.cancel("r", lambda call: True) == 0


def test_whoever_ends_a_call_whose_client_does_not_read_waits_for_him_once(start) -> None:
    town, told = Town(start, send_timeout=0.05), []
    town.answer = Streamed(200, Source(*[b"x" * 1_000_000] * 100), "plain", in_band=lambda error: told.append(error) or b"never")
    sending = town.answer.source

    def give(call: Call):
        call.pending = object()
        call.cancelled = Cancelled("over")      # while it is sent: only the sending notices anything
        return town.answer

    town.house.router = Router([Route("GET", "/x", DIALECT, give)], [("", DIALECT)])
    with town.visit() as visitor:
        visitor.send_raw(get())
        eventually(lambda: town.notes)
        assert town.notes == [(200, "cancelled")] and sending.closed == 1 and told == []


class Trickle:
    """A socket whose client takes ten bytes at a time."""

    def __init__(self, sock: socket.socket):
        self._sock = sock

    def send(self, data: memoryview) -> int:
        return self._sock.send(data[:10])

    def __getattr__(self, name: str):
        return getattr(self._sock, name)


@pytest.mark.parametrize("patience", [5, 1000])
@pytest.mark.parametrize("framing", ["plain", "chunked", "length"])
def test_who_reads_a_little_now_and_then_keeps_no_worker_beyond_its_time(town: Town, framing: str, patience: int) -> None:
    """A send that gets on is never late by itself. `patience`: so many times the worker has time left."""
    looks = iter([False] * patience)
    source, whole = Source(b"1e\r\n" + b"x" * 30 + b"\r\n" if framing == "chunked" else b"x" * 30, empty_end=True), patience > 5
    town.answer = Streamed(200, source, framing, 30)

    def give(call: Call):
        call.leases.append(SimpleNamespace(overdue=lambda: next(looks, True)))
        return town.answer

    town.house.router = Router([Route("GET", "/x", DIALECT, give)], [("", DIALECT)])
    with town.visit() as visitor:
        visitor.connection._sock = Trickle(visitor.connection._sock)
        visitor.send_raw(get())
        if whole:
            assert visitor.reply().body == b"x" * 30
        else:
            while visitor.more():
                pass
            assert len(visitor.buffer) == 10 * patience and b"200 OK" in visitor.buffer
    assert town.notes == [(200, "ok" if whole else "cancelled")] and source.closed == 1


def answers() -> tuple[Response | Streamed, ...]:
    return Response(200, b"x"), Streamed(200, Source(b"x", empty_end=True), "plain"), Streamed(200, Source(b"x"), "length", 1)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("kind", range(3))
def test_a_call_whose_answer_is_out_cannot_be_ended(town: Town, kind: int, method: str) -> None:
    """Ending is done by hanging up, which would be done to the next request on the connection."""
    ended = []

    def note(call: Call, status: int, outcome: str) -> None:
        call.pending = SimpleNamespace(model="m")
        ended.append(town.house.live.cancel(call.request_id, lambda _: True))

    town.house.note = note
    with town.visit() as visitor:
        for _ in range(2):
            town.answer = answers()[kind]
            assert visitor.ask(get(method=method)).status == 200
    assert ended == [0, 0]


def test_a_call_that_is_ended_too_late_is_the_last_of_its_connection(town: Town) -> None:
    """Its answer was there already, and nothing more can be read."""
    def give(call: Call) -> Response:
        call.pending = SimpleNamespace(model="m")
        threading.Thread(target=town.house.live.cancel, args=(call.request_id, lambda _: True), daemon=True).start()
        eventually(lambda: call.cancelled)
        return Response(200, b"x")

    town.house.router = Router([Route("GET", "/x", DIALECT, give)], [("", DIALECT)])
    with town.visit() as visitor:
        reply = visitor.ask(get())
        assert reply.status == 200 and reply.headers["connection"] == "close" and visitor.at_end()


@pytest.mark.parametrize("begun", [False, True], ids=["nothing sent", "begun"])
@pytest.mark.parametrize("framing", ["plain", "length"])
def test_a_stream_that_is_ended_with_its_last_read_does_not_promise_that_the_connection_stays(town: Town, framing: str, begun: bool) -> None:
    """Its head says so, and the next request would go into nothing."""
    def give(call: Call) -> Streamed:
        call.pending = SimpleNamespace(model="m")
        source = Source(*[b"record\n"] * begun, b"last\n")
        read = source.read

        def read_and_be_ended() -> bytes:
            data = read()
            if source.ended:
                town.start(town.house.live.cancel, call.request_id, lambda _: True)
                eventually(lambda: call.cancelled)
            return data

        source.read = read_and_be_ended
        return Streamed(200, source, framing, 12 if begun else 5, (("Content-Type", NDJSON),), DIALECT.in_band(NDJSON))

    town.house.router = Router([Route("GET", "/x", DIALECT, give)], [("", DIALECT)])
    with town.visit() as visitor:
        reply = visitor.ask(get())
        if begun:
            assert reply.status == 200 and not reply.complete and (b"cancelled" in reply.body) == (framing == "plain")
        else:
            assert (reply.status, reply.complete, reply.headers["connection"]) == (499, True, "close")
        assert visitor.at_end() and eventually(lambda: town.notes) == [(200 if begun else 499, "cancelled")]
