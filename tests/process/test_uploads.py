"""Model files go up through Hermes: any size, flat memory, whole or not at all."""

import hashlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness import SLOW, Client, Hermes, eventually, status_field

CONFIG = "manage = true\n"
PIECE = bytes(range(256)) * 256         # 64 KiB
MB = 1 << 20
LARGE = 2048 if os.environ.get("HERMES_TEST_LARGE") else 256        # MiB; `make soak` sets it
SIZES = [0, 1, 64 * 1024 - 1, 64 * 1024, 64 * 1024 + 1, 10 * MB]


class Upload:
    """One POST of a blob, as far as it came. `whole`: its framing ended as it should."""

    def __init__(self, headers: dict[str, str], peer: tuple):
        self.headers = headers
        self.peer = peer
        self.size = 0
        self.digest = hashlib.sha256()
        self.whole = self.closed = False


class Blobs:
    """A stand-in for Ollama's store of blobs. `answer_after`: bytes of body after which it answers unasked and closes, as Ollama does for
    a blob that it has; `die_after`: or drops the connection; `stall_after`: or reads no more until `go_on` is set. `keep`: connections."""

    def __init__(self, answer_after: int | None = None, die_after: int | None = None, stall_after: int | None = None, keep: bool = True):
        self.answer_after, self.die_after, self.stall_after, self.keep = answer_after, die_after, stall_after, keep
        self.go_on = threading.Event()
        self.uploads: list[Upload] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Blobs":
        return self

    def __exit__(self, *exc) -> None:
        self.go_on.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, sock.makefile("rb") as stream:
            try:
                while line := stream.readline():
                    fields = [field.decode("latin-1").rstrip().partition(": ") for field in iter(stream.readline, b"\r\n")]
                    if not self._one(sock, stream, line, {name.lower(): value for name, _, value in fields}):
                        return
            except (OSError, ValueError):
                return

    def _one(self, sock: socket.socket, stream, line: bytes, headers: dict[str, str]) -> bool:
        if not line.startswith(b"POST /api/blobs/"):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")
            return True
        upload = Upload(headers, sock.getpeername())
        self.uploads.append(upload)
        try:
            for piece in self._body(stream, headers):
                upload.digest.update(piece)
                upload.size += len(piece)
                if upload.size >= (self.answer_after or 1 << 62):
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return False
                if upload.size >= (self.die_after or 1 << 62):
                    return False
                if upload.size >= (self.stall_after or 1 << 62):
                    self.go_on.wait(60)
            upload.whole = True
        except (OSError, ValueError):
            return False
        finally:
            upload.closed = not upload.whole
        sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n%b\r\n" % (b"" if self.keep else b"Connection: close\r\n"))
        return self.keep

    @staticmethod
    def _body(stream, headers: dict[str, str]) -> Iterator[bytes]:
        chunked = "transfer-encoding" in headers
        while True:
            left = int(stream.readline(), 16) if chunked else int(headers["content-length"])
            last = not chunked or left == 0
            while left:
                piece = stream.read1(min(left, 1 << 16))
                if not piece:
                    raise ValueError
                left -= len(piece)
                yield piece
            if chunked and stream.readline() != b"\r\n":
                raise ValueError
            if last:
                return


def path(digest: str = "0" * 64) -> str:
    return f"/api/blobs/sha256:{digest}"


def head(length: int | None, *fields: str) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return "\r\n".join([f"POST {path()} HTTP/1.1", "Host: localhost", framing, "Content-Type: application/json", *fields, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextmanager
def both(config: str = CONFIG, **behaviour) -> Iterator[tuple[Blobs, Hermes, Client]]:
    with Blobs(**behaviour) as ollama, Hermes(ollama.url, config, measured=True) as hermes, Client(hermes.port) as client:
        yield ollama, hermes, client


def works_on(ollama: Blobs, hermes: Hermes, workers: list[int]) -> None:
    """The workers are the same as before, and the next upload goes through."""
    assert hermes.children() == workers
    ollama.answer_after = ollama.die_after = ollama.stall_after = None
    ollama.go_on.set()
    with Client(hermes.port) as client:
        assert client.send_raw(head(5) + b"hello").reply().status == 201
    assert ollama.uploads[-1].whole and ollama.uploads[-1].size == 5
    assert hermes.children() == workers


def staffed(hermes: Hermes) -> list[int]:
    """All workers, those for uploads among them, which come with the first."""
    with Client(hermes.port) as client:
        assert client.send_raw(head(1) + b"x").reply().status == 201
    return eventually(lambda: len(hermes.children()) == 6 and hermes.children(), what="a full pool")


@pytest.mark.parametrize("chunked", [False, True])
def test_what_arrives_is_what_was_sent(chunked: bool) -> None:
    with both() as (ollama, hermes, client):
        for size in SIZES:
            body = (PIECE * (size // len(PIECE) + 1))[:size]
            if chunked:
                sent = b"".join(chunk(body[at:at + 99_999]) for at in range(0, size, 99_999)) + b"0\r\n\r\n"
            else:
                sent = body
            reply = client.send_raw(head(None if chunked else size) + sent).reply()
            assert (reply.status, reply.complete, reply.headers.get("connection")) == (201, True, None), "and the connection is kept"
            upload = ollama.uploads[-1]
            assert upload.whole and upload.size == size and upload.digest.digest() == hashlib.sha256(body).digest()
            assert upload.headers.get("content-length") == (None if chunked else str(size))
            assert upload.headers.get("transfer-encoding") == ("chunked" if chunked else None)
            assert upload.headers["content-type"] == "application/json"
        assert len({upload.peer for upload in ollama.uploads}) == len(SIZES), "a kept connection may be stale, and a body comes once"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_larger_than_memory(chunked: bool) -> None:
    with both() as (ollama, hermes, client):
        staffed(hermes)
        before, size, block = int(status_field(hermes.pid, "VmHWM")), LARGE * MB, PIECE * 16
        expected = hashlib.sha256()
        client.send_raw(head(None if chunked else size))
        began = time.monotonic()
        for _ in range(LARGE):
            expected.update(block)
            client.send_raw(chunk(block) if chunked else block)
        reply = (client.send_raw(b"0\r\n\r\n") if chunked else client).reply()
        print(f"{LARGE / (time.monotonic() - began):.0f} MiB/s")
        assert reply.status == 201
        assert ollama.uploads[-1].size == size and ollama.uploads[-1].digest.digest() == expected.digest()
        assert int(status_field(hermes.pid, "VmHWM")) - before <= 8 * 1024
        for worker in hermes.children():
            assert int(status_field(worker, "VmHWM")) < 40 * 1024


# -- ends before the end -------------------------------------------------------------------------------------------


def flood(client: Client, size: int) -> None:
    """Send `size` bytes, or as many as the other side takes before it closes."""
    try:
        for _ in range(size // len(PIECE)):
            client.send_raw(PIECE)
    except (ConnectionResetError, BrokenPipeError):
        pass


@pytest.mark.parametrize("after", [1, 5 * MB])
@pytest.mark.parametrize("chunked", [False, True])
def test_an_answer_that_does_not_wait_for_the_body(chunked: bool, after: int) -> None:
    with both() as (ollama, hermes, client):
        workers = staffed(hermes)
        ollama.answer_after = after
        client.send_raw(head(None if chunked else 64 * MB))
        if chunked:
            client.send_raw(b"%x\r\n" % (64 * MB))
        flood(client, 64 * MB)
        reply = client.reply()
        assert (reply.status, reply.complete, reply.headers["connection"]) == (200, True, "close")
        assert after <= ollama.uploads[-1].size < 64 * MB and not ollama.uploads[-1].whole
        works_on(ollama, hermes, workers)


def test_a_small_body_that_is_not_waited_for_either() -> None:
    """It may have gone out by then, or not: the answer is the same."""
    with both(answer_after=1) as (ollama, hermes, client):
        for _ in range(50):
            with Client(hermes.port) as one:
                assert one.send_raw(head(200_000) + PIECE * 3 + PIECE[:200_000 - 3 * len(PIECE)]).reply().status == 200


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_who_leaves_has_sent_nothing_whole(chunked: bool, how: str) -> None:
    with both() as (ollama, hermes, client):
        workers = staffed(hermes)
        client.send_raw(head(None if chunked else 64 * MB) + (chunk(PIECE) if chunked else PIECE) * 20)
        eventually(lambda: ollama.uploads[-1].size == 20 * len(PIECE), what="the first part")
        left = time.monotonic()
        leave(client, how)
        eventually(lambda: ollama.uploads[-1].closed, what="Ollama's side closed")
        assert time.monotonic() - left < 1.0 * SLOW and not ollama.uploads[-1].whole
        works_on(ollama, hermes, workers)
        assert hermes.status()["totals"]["cancelled"] == 1


def leave(client: Client, how: str) -> None:
    if how == "rst":
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half":
        client.sock.shutdown(socket.SHUT_WR)
    else:
        client.close()


def test_a_client_who_leaves_while_ollama_takes_nothing() -> None:
    """Everything between them is full, and the worker hears of it all the same. (Behind a full window only a reset is heard, no end.)"""
    with both(stall_after=1) as (ollama, hermes, client):
        workers = staffed_while_stalling(ollama, hermes)
        client.send_raw(head(64 * MB))
        client.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            while True:
                client.send_raw(PIECE)
        leave(client, "rst")
        eventually(lambda: hermes.status()["totals"]["cancelled"] == 1)
        works_on(ollama, hermes, workers)


def staffed_while_stalling(ollama: Blobs, hermes: Hermes) -> list[int]:
    stall, ollama.stall_after = ollama.stall_after, None
    workers = staffed(hermes)
    ollama.stall_after = stall
    return workers


@pytest.mark.parametrize(("config", "sent", "status", "text"), [
    ('body_timeout = "300ms"\n', head(64 * MB) + PIECE, 408, "the request did not arrive in time"),
    ('body_timeout = "300ms"\n', head(None) + chunk(PIECE), 408, "the request did not arrive in time"),
    ('body_timeout = "300ms"\n', head(5), 408, "the request did not arrive in time"),
    ("", head(None) + chunk(PIECE) + b"rubbish\r\n", 400, "malformed chunk size"),
    ("", head(None) + chunk(PIECE)[:-2] + b"xx0\r\n\r\n", 400, "a chunk does not end where it should"),
])
def test_a_body_that_stops_or_is_malformed(config: str, sent: bytes, status: int, text: str) -> None:
    with both(config + CONFIG) as (ollama, hermes, client):
        workers = staffed(hermes)
        reply = client.send_raw(sent).reply()
        assert (reply.status, reply.json(), reply.headers["connection"]) == (status, {"error": text}, "close")
        eventually(lambda: ollama.uploads[-1].closed, what="Ollama's side closed")
        assert not ollama.uploads[-1].whole
        works_on(ollama, hermes, workers)


def test_a_pause_is_no_stop() -> None:
    """The limit is for each pause, not for the whole."""
    with both('body_timeout = "500ms"\n' + CONFIG) as (ollama, hermes, client):
        client.send_raw(head(None))
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < 0.8:
            client.send_raw(chunk(b"x"))
            sent += 1
            eventually(lambda: ollama.uploads and ollama.uploads[-1].size == sent)
        assert client.send_raw(b"0\r\n\r\n").reply().status == 201


@pytest.mark.parametrize("after", [1, 5 * MB])
def test_ollama_dies_in_the_middle(after: int) -> None:
    with both() as (ollama, hermes, client):
        workers = staffed(hermes)
        ollama.die_after = after
        client.send_raw(head(64 * MB))
        flood(client, 64 * MB)
        reply = client.reply()
        assert (reply.status, reply.complete, reply.headers["connection"]) == (502, True, "close")
        assert "Ollama" in reply.json()["error"]
        works_on(ollama, hermes, workers)


def test_ollama_takes_nothing_for_too_long() -> None:
    with both('[server]\nmanage = true\n[ollama]\nidle_timeout = "300ms"\n', stall_after=1) as (ollama, hermes, client):
        workers = staffed_while_stalling(ollama, hermes)
        client.send_raw(head(64 * MB))
        flood(client, 64 * MB)
        reply = client.reply()
        assert (reply.status, reply.json()) == (504, {"error": "Ollama took nothing of the body for longer than idle_timeout"})
        works_on(ollama, hermes, workers)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with Hermes(url, CONFIG) as hermes, Client(hermes.port) as client:
        reply = client.send_raw(head(64 * MB, "Expect: 100-continue")).reply()
        assert reply.status == 502, "and the body was never asked for"


def test_a_worker_is_killed_in_the_middle() -> None:
    with both(keep=False) as (ollama, hermes, client):
        workers = staffed(hermes)
        client.send_raw(head(64 * MB) + PIECE * 20)
        eventually(lambda: ollama.uploads[-1].size == 20 * len(PIECE), what="the first part")
        busy, = {*workers} - {*idle_workers(workers)}
        began = time.monotonic()
        os.kill(busy, signal.SIGKILL)
        reply = client.reply()
        assert (reply.status, reply.json()) == (502, {"error": "the worker died"})
        assert time.monotonic() - began < 1.0 * SLOW
        assert len(ollama.uploads) == 2, "it is not tried again"
        eventually(lambda: len(hermes.children()) == 6, what="its replacement")
        works_on(ollama, hermes, hermes.children())


def idle_workers(workers: list[int]) -> list[int]:
    """Those without a connection to Ollama: their only sockets are pipes."""
    return [pid for pid in workers if len(sockets(pid)) < 2]


def sockets(pid: int) -> list[str]:
    links = [os.path.join(f"/proc/{pid}/fd", name) for name in os.listdir(f"/proc/{pid}/fd")]
    return [link for link in links if os.readlink(link).startswith("socket:")]


# -- who may, and how it begins ------------------------------------------------------------------------------------


def test_100_continue() -> None:
    with both() as (ollama, hermes, client):
        client.send_raw(head(5, "Expect: 100-continue"))
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.buffer = b""
        assert eventually(lambda: ollama.uploads)[-1].size == 0, "Ollama has the head without a byte of the body"
        assert client.send_raw(b"hello").reply().status == 201
        assert client.send_raw(head(0, "Expect: 100-continue")).reply().status == 201
        assert client.send_raw(head(5, "Expect: 100-continue") + b"hello").reply().status == 201


def test_the_next_request_behind_the_body() -> None:
    with both() as (ollama, hermes, client):
        client.send_raw(head(5) + b"hello" + head(None) + chunk(b"world") + b"0\r\n\r\n" + b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert [client.reply().status for _ in range(3)] == [201, 201, 200]
        assert [upload.digest.hexdigest() for upload in ollama.uploads] == [hashlib.sha256(word).hexdigest() for word in (b"hello", b"world")]


def test_max_body_is_not_for_blobs() -> None:
    with both("max_body = 1000\n" + CONFIG) as (ollama, hermes, client):
        assert client.send_raw(head(len(PIECE)) + PIECE).reply().status == 201
        assert client.send("POST", "/api/create", {"model": "m", "system": "x" * 1000}).reply().status == 413


def test_switched_off_nothing_reaches_ollama() -> None:
    with both("") as (ollama, hermes, client):
        for request in (head(64 * MB, "Expect: 100-continue"), head(None), head(0), f"HEAD {path()} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()):
            with Client(hermes.port) as one:
                reply = one.send_raw(request).reply(request.split()[0].decode())
                assert reply.status == 403
                assert request[:4] == b"HEAD" or "manage = true under [server]" in reply.json()["error"]
        for method, route in (("POST", "/api/pull"), ("POST", "/api/push"), ("POST", "/api/create"), ("POST", "/api/copy"), ("DELETE", "/api/delete")):
            assert client.send(method, route, {"model": "m"}).reply().status == 403
        assert ollama.uploads == []
        hermes.write_config(CONFIG)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert client.send_raw(head(5) + b"hello").reply().status == 201


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 63, "sha256:" + "0" * 65, "sha256:" + "A" * 64, "sha1:" + "0" * 64, "0" * 64, "sha256:" + "0" * 64 + "%0a",
                                    "sha256:" + "0" * 64 + "/x", "sha256%3A" + "g" * 64])
def test_a_digest_is_checked(digest: str) -> None:
    with both() as (ollama, hermes, client):
        for method in ("POST", "HEAD"):
            reply = client.send(method, f"/api/blobs/{digest}").reply(method)
            assert reply.status == 400 and (method == "HEAD" or "invalid digest format" in reply.json()["error"] or "%0a" in digest)
        assert ollama.uploads == []
