"""Recordings of a real Ollama, replayed behind a real Hermes: the client gets the status, the type and the bytes that Ollama sent.

Where Hermes answers by itself, the answer is the recorded one and Ollama hears nothing. Where Ollama's stream was cut, the same bytes come
up to the cut, then the family's error record, and never a clean end.
"""

import json
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness import Client, Hermes, Reply

RECORDINGS = Path(__file__).parent.parent / "recordings"
MANAGE = "manage = true\n[ollama]\nallow_cloud = true\n"

OWN = {"err_path", "err_method", "slash", "err_json", "err_empty", "err_type", "err_no_model", "err_model", "err_model_chat", "err_model_openai", "err_model_messages"}
UNKNOWN = "nothere"             # the one model in the recordings that Ollama does not have

# What Hermes adds to a stream that Ollama ended too early; on its native routes Ollama has said it already.
ADDED = {"/api/chat": rb"", "/api/generate": rb"", "/api/pull": rb"",
         "/v1/chat/completions": rb'data: \{"error":\{"message":.*\}\}\n\n', "/v1/completions": rb'data: \{"error":\{"message":.*\}\}\n\n',
         "/v1/messages": rb'event: error\ndata: \{"type":"error","error":\{.*\}\n\n', "/v1/responses": rb'event: (error|response\.failed)\ndata: \{.*\}\n\n'}


class Recording(NamedTuple):
    """A recorded exchange. `reads` are what came off Ollama's socket behind the head, framing included."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    head: bytes
    reads: list[bytes]

    def answer(self) -> Reply:
        """The answer as a client sees it that reads it straight from Ollama."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            sender = threading.Thread(target=self.send, args=(theirs,))
            sender.start()
            reader = Client.__new__(Client)
            reader.sock, reader.buffer = ours, b""
            reply = reader.reply(self.method)
            sender.join()
        assert reply.complete and not reader.buffer
        return reply

    def send(self, sock: socket.socket) -> None:
        for piece in (self.head, *self.reads):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)


def load(name: str) -> Recording:
    recording = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    request, response = recording["request"], recording["response"]
    body = request["body"].encode("latin-1")
    if name == "err_too_long":                      # too long for the recording, which only tells its length
        body = json.dumps({"model": "smollm2:135m", "truncate": False, "messages": [{"role": "user", "content": "word " * 9000}]}).encode()
    assert len(body) == int(request["headers"]["Content-Length"])
    return Recording(request["method"], request["path"], request["headers"], body, response["raw_head"].encode("latin-1"),
                     [read.encode("latin-1") for _, read in response["reads"]])


class Replay(socketserver.ThreadingTCPServer):
    """Answers the present recording's request as recorded, and the look-up of a model as Ollama does. `heard`: heads of the former."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Player)
        self.url = "http://127.0.0.1:%d" % self.server_address[1]
        self.heard: list[bytes] = []
        self.recording: Recording | None = None
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def play(self, recording: Recording) -> None:
        self.recording, self.heard = recording, []

    def __exit__(self, *exc) -> None:
        self.shutdown()
        self._thread.join()
        super().__exit__(*exc)


class Player(socketserver.StreamRequestHandler):
    """One connection, one request."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        lines = list(iter(self.rfile.readline, b"\r\n"))
        if not lines[-1]:
            return                                  # the client has left
        method, path, _ = lines[0].decode("ascii").split(" ")
        length = next((int(line.partition(b":")[2]) for line in lines if line.lower().startswith(b"content-length:")), 0)
        body, recording = self.rfile.read(length), self.server.recording
        if (method, path, body) == (recording.method, recording.path, recording.body):
            self.server.heard.append(b"".join(lines))
            recording.send(self.connection)
            self.rfile.read()
        elif path == "/api/show":
            status = b"404 Not Found" if json.loads(body)["model"] == UNKNOWN else b"200 OK"
            self.wfile.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}" % status)
        else:
            self.wfile.write(b"HTTP/1.1 418 Not Recorded\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    with Replay() as server:
        yield server


@pytest.fixture(scope="module")
def hermes(replay: Replay) -> Iterator[Hermes]:
    with Hermes(replay.url, MANAGE) as gateway:
        yield gateway


def ask(hermes: Hermes, recording: Recording, **more: str) -> Reply:
    """Send the recorded request to Hermes, whose address is the only difference."""
    headers = {**recording.headers, "Host": f"127.0.0.1:{hermes.port}", **more}
    head = f"{recording.method} {recording.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with Client(hermes.port) as client:
        reply = client.send_raw(head.encode("latin-1") + b"\r\n" + recording.body).reply(recording.method)
        assert not client.buffer and not client.more(), "one answer, and then the end of the connection"
        return reply


NAMES = sorted(path.stem for path in RECORDINGS.glob("*.json"))


def test_the_tables_name_recordings() -> None:
    assert len(NAMES) == 70 and OWN <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_client_gets_what_ollama_said(hermes: Hermes, replay: Replay, name: str) -> None:
    recording = load(name)
    replay.play(recording)
    reply, recorded = ask(hermes, recording), recording.answer()
    assert len(replay.heard) == (name not in OWN), replay.heard
    assert reply.status == recorded.status
    for header in ("content-type", "location", "allow"):
        assert reply.headers.get(header) == recorded.headers.get(header)
    if re.search(rb'"error":(?!null)', recorded.body) and recorded.status == 200 or name.startswith("cut_") and recorded.status == 200:
        assert reply.body.startswith(recorded.body) and not reply.complete
        assert re.fullmatch(ADDED[recording.path], reply.body[len(recorded.body):], re.DOTALL)
    else:
        assert reply.complete and without_id(reply.body) == without_id(recorded.body)


def without_id(body: bytes) -> bytes:
    """Each request has an id of its own, which Anthropic's errors tell."""
    return re.sub(rb"req_[0-9a-f]{24}", b"req", body)


@pytest.mark.parametrize("name", ["chat_stream", "openai_chat", "tags"])
def test_neither_origin_nor_referer_goes_to_ollama(hermes: Hermes, replay: Replay, name: str) -> None:
    """The page is told what it may read, and Ollama, which would judge it again, hears nothing of it."""
    recording = load(name)
    replay.play(recording)
    reply = ask(hermes, recording, Origin="http://localhost:3000", Referer="http://localhost:3000/x", Cookie="a=b", Authorization="Bearer x")
    assert (reply.status, reply.headers["access-control-allow-origin"], reply.headers["vary"]) == (200, "http://localhost:3000", "Origin")
    [heard] = replay.heard
    assert not re.search(rb"(?im)^(origin|referer|cookie|authorization|x-forwarded-\w+):|localhost:3000", heard)


def test_a_redirect_of_ollamas_own_is_no_answer(hermes: Hermes, replay: Replay) -> None:
    recording = load("tags")
    replay.play(recording._replace(head=b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://evil.example/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", reads=[]))
    reply = ask(hermes, recording)
    assert (reply.status, reply.complete, "location" in reply.headers) == (502, True, False) and "redirect" in reply.json()["error"]
    assert len(replay.heard) == 1
