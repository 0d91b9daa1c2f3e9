"""What an upstream can do to Hermes, from being away to being malicious, as reliability.md §5.C has it (C5: test_cuts.py).

The upstream is `Raw`, which sends exact bytes, wherever the stand-in Ollama is too honest. One Hermes serves many cases.
"""

import gzip
import json
import os
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from hermes.simulator import Simulator
from tests.harness import FAULTS, SLOW, Client, Hermes, Reply, descriptors, eventually, get, post, status_field

MB = 1 << 20
CONFIG = '[models.m]\nmodel = "smollm2:135m"\n'
NAMES = ["smollm2:135m", "m"]           # Ollama's for the model, and the configuration's own, which takes another way through the worker
NDJSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'{"model":"smollm2:135m","response":"x","done":false}\n'
LAST = b'{"model":"smollm2:135m","response":"","done":true,"done_reason":"stop"}\n'
TRAILER = b"X-More: of the same\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
Say = Callable[[socket.socket], None]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


END = chunk(LAST) + b"0\r\n\r\n"


class Raw(socketserver.ThreadingTCPServer):
    """Answers a POST by `say`, which writes what it likes to the socket, and closes; a GET with an empty object. `before_body` is called with
    its length before the body of a POST is read."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Speaker)
        self.url = "http://127.0.0.1:%d" % self.server_address[1]
        self.say: Say = lambda sock: None
        self.before_body: Callable[[int], None] = lambda length: None
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __exit__(self, *exc) -> None:
        self.shutdown()
        self._thread.join()
        super().__exit__(*exc)


class _Speaker(socketserver.StreamRequestHandler):
    """One connection; more than one request only behind a GET."""

    disable_nagle_algorithm = True

    def handle(self) -> None:
        while line := self.rfile.readline():
            fields = list(iter(self.rfile.readline, b"\r\n"))
            length = next((int(field.partition(b":")[2]) for field in fields if field.lower().startswith(b"content-length:")), 0)
            if line.startswith(b"POST "):
                self.server.before_body(length)
            try:
                self.rfile.read(length)
                if line.startswith(b"POST "):
                    return self.server.say(self.connection)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            except OSError:
                return                              # Hermes has heard enough


def says(*pieces: bytes) -> Say:
    return lambda sock: [sock.sendall(piece) for piece in pieces] and None


def again_and_again(first: bytes, more: bytes, pause: float) -> Say:
    """`first`, then `more` until nobody listens. `pause` 0: as fast as it goes."""
    def say(sock: socket.socket) -> None:
        sock.sendall(first)
        enough = threading.Event()
        while not enough.wait(pause) if pause else True:
            sock.sendall(more)
    return say


def silence(sock: socket.socket) -> None:
    sock.recv(1)


@pytest.fixture(scope="module")
def raw() -> Iterator[Raw]:
    with Raw() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def hermes(raw: Raw) -> Iterator[Hermes]:
    with Hermes(raw.url, CONFIG, measured=True, HERMES_LOG_LEVEL="warning") as gateway:
        eventually(lambda: gateway.staffed("m"))
        yield gateway


@pytest.fixture
def decoy() -> Iterator[list]:
    """An address where nobody must ever call; who did."""
    callers: list = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def answer() -> None:
            while True:
                try:
                    sock, address = listener.accept()
                except OSError:
                    return
                callers.append(address)
                sock.close()
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        callers_url = "http://127.0.0.1:%d" % listener.getsockname()[1]
        yield [callers_url, callers]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def generate(hermes: Hermes, model: str = "m", **more: object) -> Reply:
    return post(hermes.port, "/api/generate", {"model": model, "prompt": "x", **more})


def failed(reply: Reply) -> bool:
    """A proper error, or a stream that says so and does not end as a whole one does."""
    if reply.status == 200:
        return not reply.complete and "error" in json.loads(reply.body.rstrip(b"\n").rpartition(b"\n")[2])
    return reply.complete and reply.status in (502, 504) and bool(reply.json()["error"])


def test_c1_no_proxy_is_used(decoy: list) -> None:
    """C1. The environment names one in every spelling; it is for others."""
    names = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    with Simulator(keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG, **dict.fromkeys(names, decoy[0]), no_proxy="", NO_PROXY="") as hermes:
        for model in NAMES:
            assert generate(hermes, model).status == 200
        assert get(hermes.port, "/api/tags").status == get(hermes.port, "/readyz").status == 200
        assert len([request for request in ollama.requests if request.path == "/api/generate"]) == 2 and decoy[1] == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_c2_no_redirect_is_followed(raw: Raw, hermes: Hermes, decoy: list, status: int) -> None:
    """C2."""
    raw.say = says(b"HTTP/1.1 %d Moved\r\nLocation: %b/api/generate\r\nContent-Length: 0\r\n\r\n" % (status, decoy[0].encode()))
    replies = [generate(hermes, NAMES[0]), generate(hermes, stream=False), post(hermes.port, "/v1/llm/m", {"prompt": "x"}),
               post(hermes.port, "/api/show", {"model": "m"})]
    for reply in replies:
        assert (reply.status, reply.complete) == (502, True) and "redirect" in reply.json()["error"] and "location" not in reply.headers
    assert decoy[1] == []


class TestC3NobodyThere:
    def test_refused(self) -> None:
        """C3. 502 at once, though it is tried three times."""
        with socket.create_server(("127.0.0.1", 0)) as gone:
            url = "http://127.0.0.1:%d" % gone.getsockname()[1]
        with Hermes(url, CONFIG) as hermes:
            eventually(lambda: hermes.staffed("m"))
            began = time.monotonic()
            reply = generate(hermes)
            assert reply.status == 502 and "connect" in reply.json()["error"]
            assert time.monotonic() - began <= 0.2 * SLOW

    def test_black_hole(self) -> None:
        """C3. A listener whose queue is full drops every SYN: 504, and not tried again."""
        with blackhole() as url, Hermes(url, f'[ollama]\nconnect_timeout = "400ms"\n{CONFIG}') as hermes:
            began = time.monotonic()
            reply = generate(hermes)
            took = time.monotonic() - began
            assert reply.status == 504 and reply.json() == {"error": "cannot connect to Ollama: timed out"}
            assert 0.4 <= took <= 0.4 + 0.5 * SLOW


@contextmanager
def blackhole() -> Iterator[str]:
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        while True:
            sock = waiting.enter_context(socket.socket())
            sock.settimeout(0.3)
            try:
                sock.connect(listener.getsockname())
            except TimeoutError:
                break
        yield "http://127.0.0.1:%d" % listener.getsockname()[1]


TOTAL = 1.0 if FAULTS else 0.3        # seconds
SLOWLY = {
    "silence": silence,
    "silence in the head": lambda sock: (sock.sendall(b"HTTP/1.1 200 OK\r\nX: "), silence(sock)),
    "dripped header": again_and_again(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.01),
    "1xx, dripped": again_and_again(b"", CONTINUE, 0.01),
    "1xx, a flood": again_and_again(b"", CONTINUE * 1000, 0),
    "trailer, dripped": again_and_again(PLAIN + chunk(LAST) + b"0\r\n", TRAILER, 0.01),
    "trailer, a flood": again_and_again(PLAIN + chunk(LAST) + b"0\r\n", TRAILER * 1000, 0),
    "trailer of a stream": again_and_again(NDJSON + chunk(TOKEN) + chunk(LAST) + b"0\r\n", TRAILER, 0.01),
    "body": again_and_again(PLAIN, chunk(b" "), 0.01),
    "stream": again_and_again(NDJSON, chunk(TOKEN), 0.01),
    "stream, half a chunk": again_and_again(NDJSON + b"ffff\r\n", b"x", 0.01),
    "stream, a flood": again_and_again(NDJSON, chunk(TOKEN) * 1000, 0),
    "stream that ends with the connection": again_and_again(b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n", TOKEN, 0.01),
}


@pytest.fixture(scope="module")
def hasty(raw: Raw) -> Iterator[Hermes]:
    with Hermes(raw.url, f'[ollama]\ntotal_timeout = "{TOTAL}s"\n{CONFIG}', HERMES_LOG_LEVEL="warning") as gateway:
        eventually(lambda: gateway.staffed("m"))
        yield gateway


@pytest.mark.parametrize(("how", "model"), [(how, model) for how in SLOWLY for model in NAMES if FAULTS or model == "m" or "stream" in how])
def test_c4_there_is_an_end_to_everything(raw: Raw, hasty: Hermes, how: str, model: str) -> None:
    """C4. Whatever trickles or floods, at total_timeout it is over; only then, and with a word. The worker serves on."""
    raw.say, workers = SLOWLY[how], hasty.workers("m")
    began = time.monotonic()
    reply = generate(hasty, model)
    took = time.monotonic() - began
    assert failed(reply) and reply.status in (200, 504), reply
    assert b"total_timeout" in reply.body
    assert TOTAL - 0.05 <= took <= TOTAL + 0.1 * SLOW
    assert reply.status == (200 if "stream" in how and "half" not in how else 504)
    raw.say = says(NDJSON + END)
    assert generate(hasty, model).complete and hasty.workers("m") == workers


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("body", [LAST[:-1].replace(b"true", b"false") + b"\n", b"", b"\n", TOKEN, b'{"done":"true"}\n', b"[true]\n", b'x{"done":true}\n'])
def test_c6_a_clean_end_is_not_enough(raw: Raw, hermes: Hermes, body: bytes, model: str) -> None:
    """C6. A stream in perfect framing whose last record does not say that it is the last."""
    for end in (chunk(body) if body else b"") + b"0\r\n\r\n", chunk(TOKEN) + (chunk(body) if body else b"") + b"0\r\n\r\n":
        raw.say = says(NDJSON + end)
        reply = generate(hermes, model)
        assert failed(reply) and b"without its final record" in reply.body, reply


class TestC7Rubbish:
    """C7. Bytes go on as they are or there is a clean error, and a worker's memory stays small."""

    @pytest.mark.parametrize("model", NAMES)
    @pytest.mark.parametrize("body", [b"garbage, no JSON\n", b'{"response":"\xff\xfe\xc3"}\n', b"\x00\x01\x02\n", b"{" * 5000 + b"\n", b"\r\n\r\n0\r\n\r\n\n"],
                             ids=["no JSON", "not UTF-8", "control characters", "deep", "looks like an end"])
    def test_a_line_that_is_none(self, raw: Raw, hermes: Hermes, body: bytes, model: str) -> None:
        raw.say = says(NDJSON + chunk(TOKEN) + chunk(body) + END)
        reply = generate(hermes, "smollm2:135m")
        assert reply.complete and reply.body == TOKEN + body + LAST
        raw.say = says(NDJSON + chunk(TOKEN) + chunk(body) + b"0\r\n\r\n")
        reply = generate(hermes, model)
        assert reply.status == 200 and failed(reply), "and as the last one it is no end"

    @pytest.mark.parametrize(("kind", "coding", "model"), [
        ("rubbish", "one chunk", "m"), ("rubbish", "chunks", "smollm2:135m"), ("rubbish", "length", "smollm2:135m"), ("rubbish", "close", "m"),
        ("text", "one chunk", "smollm2:135m"), ("text", "chunks", "m"), ("text", "close", "smollm2:135m"), ("numbers", "one chunk", "smollm2:135m"),
        ("plain", "one chunk", "m"), ("plain", "chunks", "smollm2:135m"), ("plain", "length", "m"), ("plain", "close", "smollm2:135m")])
    def test_much(self, raw: Raw, hermes: Hermes, kind: str, coding: str, model: str) -> None:
        """An endless line that is no JSON; a final record with an endless text, or with an endless list of numbers; an endless answer that is no stream."""
        size = (100 if kind == "plain" else 64) if FAULTS else 24
        first, piece, last = {
            "rubbish": (b"", b"x" * MB, b"\n" + LAST), "text": (b'{"done":true,"response":"', "\u00fc\\n".encode() * (MB // 4), b'"}\n'),
            "numbers": (b'{"done":true,"context":[', b"12345," * (MB // 6), b"0]}\n"), "plain": (b'{"embedding":[', b"0.25," * (MB // 5), b"0]}"),
        }[kind]
        raw.say = says(NDJSON + END)
        assert generate(hermes, model).complete
        worker, = hermes.workers("m")
        before = rested(worker)
        raw.say = much(b"application/json" if kind == "plain" else b"application/x-ndjson", coding, [first, *[piece] * size, last])
        reply = generate(hermes, model)
        if kind == "rubbish":
            # Behind a length there is no room for a word: the body ends short of it.
            assert not reply.complete if coding == "length" else failed(reply) and b"endless line" in reply.body
        else:
            assert (reply.status, reply.complete) == (200, True) and reply.body == first + piece * size + last
        assert rise(worker, before) <= 8 * MB and hermes.workers("m") == [worker]


def much(kind: bytes, coding: str, pieces: list[bytes]) -> Say:
    """An answer in these pieces, in one of the four ways to frame it."""
    def say(sock: socket.socket) -> None:
        size = sum(map(len, pieces))
        framing = {"length": b"Content-Length: %d\r\n" % size, "close": b""}.get(coding, b"Transfer-Encoding: chunked\r\n")
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\n%b\r\n" % (kind, framing) + (b"%x\r\n" % size if coding == "one chunk" else b""))
        for piece in filter(None, pieces):
            sock.sendall(chunk(piece) if coding == "chunks" else piece)
        sock.sendall({"one chunk": b"\r\n0\r\n\r\n", "chunks": b"0\r\n\r\n"}.get(coding, b""))
    return say


def rested(worker: int) -> int:
    """A process's memory in bytes; from now on its peak is counted anew."""
    Path(f"/proc/{worker}/clear_refs").write_text("5", encoding="ascii")
    return int(status_field(worker, "VmRSS")) * 1024


def rise(worker: int, before: int) -> int:
    """How far above `before` its memory has been, in bytes."""
    return int(status_field(worker, "VmHWM")) * 1024 - before


class TestC8Errors:
    """C8. Ollama's errors are the client's, with Retry-After where he may come again; and a hundred of them leave nothing open."""

    ERROR = b'{"error":"out of order"}'

    @pytest.mark.parametrize("model", NAMES)
    @pytest.mark.parametrize(("status", "again"), [(400, False), (404, False), (429, True), (500, False), (503, True)])
    def test_status_and_body(self, raw: Raw, hermes: Hermes, status: int, again: bool, model: str) -> None:
        for fields in (b"", b"Retry-After: 7\r\n"):
            for framing in (b"Content-Length: %d\r\n%b\r\n%b" % (len(self.ERROR), fields, self.ERROR),
                            b"Transfer-Encoding: chunked\r\n%b\r\n%b0\r\n\r\n" % (fields, chunk(self.ERROR))):
                raw.say = says(b"HTTP/1.1 %d Sorry\r\nContent-Type: application/json\r\n%b" % (status, framing))
                reply = generate(hermes, model)
                assert (reply.status, reply.complete, reply.body) == (status, True, self.ERROR)
                assert ("retry-after" in reply.headers) == again
                assert not again or 1 <= int(reply.headers["retry-after"]) <= 59

    @pytest.mark.parametrize("model", NAMES)
    def test_inside_a_stream(self, raw: Raw, hermes: Hermes, model: str) -> None:
        raw.say = says(NDJSON + chunk(TOKEN) + chunk(self.ERROR + b"\n") + b"0\r\n\r\n")
        reply = generate(hermes, model)
        assert reply.status == 200 and not reply.complete
        assert reply.body == TOKEN.replace(b"smollm2:135m", model.encode()) + self.ERROR + b"\n", "and no second one from Hermes"

    def test_a_hundred_leave_nothing_open(self, raw: Raw, hermes: Hermes) -> None:
        worker, = hermes.workers("m")
        kinds = [says(b"HTTP/1.1 %d Sorry\r\nContent-Length: %d\r\n\r\n%b" % (status, len(self.ERROR), self.ERROR)) for status in (400, 404, 500, 503)]
        kinds.append(says(NDJSON + chunk(TOKEN) + chunk(self.ERROR + b"\n") + b"0\r\n\r\n"))

        def some(number: int) -> None:
            for turn in range(number):
                raw.say = kinds[turn % len(kinds)]
                assert not (reply := generate(hermes)).complete or reply.status >= 400

        def open_files() -> tuple[int, int]:
            return descriptors(worker), descriptors(hermes.pid)

        some(len(kinds))
        before = min(open_files() for _ in range(200))      # the last connection may still be closing
        some(100)
        eventually(lambda: open_files() <= before, what="everything closed")
        assert hermes.workers("m") == [worker]


@pytest.mark.parametrize("answer", [
    b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/3 200 OK\r\n\r\n", b"ICY 200 OK\r\n\r\n", b"\r\n\r\n", b"\x00" * 500,
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 150 + b"Content-Length: 2\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\nContent-Length: 2\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * (20 * MB),
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(gzip.compress(LAST, mtime=0)), gzip.compress(LAST, mtime=0)),
    NDJSON[:-2] + b"Content-Encoding: gzip\r\n\r\n" + chunk(gzip.compress(LAST, mtime=0)) + b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3000000000\r\n\r\n{}",
    b'{"model":"smollm2:135m","response":"HTTP/0.9","done":true}\n',
], ids=["2 digits", "4 digits", "letters", "HTTP/3", "not HTTP", "empty lines", "zeros", "150 headers", "70 KB header", "20 MB header", "gzip", "gzip in a stream",
        "3 GB announced", "HTTP/0.9"])
@pytest.mark.parametrize("model", NAMES)
def test_c9_what_is_no_answer_is_a_502_at_once(raw: Raw, hermes: Hermes, answer: bytes, model: str) -> None:
    """C9. And costs no memory, however much is announced."""
    worker, = hermes.workers("m")
    before, raw.say = rested(worker), says(answer)
    began = time.monotonic()
    reply = generate(hermes, model)
    took = time.monotonic() - began
    assert (reply.status, reply.complete) == (502, True) and reply.json()["error"]
    assert took <= 0.2 * SLOW
    assert rise(worker, before) <= 8 * MB and hermes.workers("m") == [worker]


def test_c10_ollama_is_away_and_comes_back() -> None:
    """C10. Under load: what runs is told, what comes is refused, and once it is back everything is answered. The workers stay."""
    config = f'{CONFIG}max_concurrency = 4\nmax_queue = 100\n'
    with Simulator(parallel=4, tokens=8, token_interval=0.005, keep_bodies=True) as ollama, Hermes(ollama.url, config) as hermes:
        eventually(lambda: hermes.staffed("m"))
        workers, over, answers = hermes.workers("m"), threading.Event(), []

        def load(number: int) -> None:
            turn = 0
            while not over.is_set():
                began = time.monotonic()
                reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": f"{number} {turn}"})
                answers.append((began, time.monotonic(), reply))
                turn += 1

        clients = [threading.Thread(target=load, args=(number,)) for number in range(8)]
        for client in clients:
            client.start()
        try:
            eventually(lambda: len(answers) > 50)
            running = [Client(hermes.port).send("POST", "/api/generate", {"model": "m", "prompt": "long @@tokens=100000,interval=0.01@@"}) for _ in range(3)]
            for client in running:
                client.read_until(b'"done":false')
            leaving = time.monotonic()
            ollama.stop()
            for client in running:
                assert failed(client.reply())
                client.close()
            left, before = time.monotonic(), len(answers)
            eventually(lambda: len(answers) > before + 50 and time.monotonic() - left >= (2.0 if FAULTS else 0.0))
            ollama.start()
            back = time.monotonic()
            eventually(lambda: all(began > back and reply.status == 200 and reply.complete for began, _, reply in answers[-50:]), what="full service")
        finally:
            over.set()
            for client in clients:
                client.join()
        assert {reply.status for _, _, reply in answers} <= {200, 502} and hermes.workers("m") == workers
        lost = [(began, ended) for began, ended, reply in answers if failed(reply)]
        assert all(reply.complete and b'"done":true' in reply.body for _, _, reply in answers if not failed(reply))
        assert len(lost) >= 50 and min(ended for _, ended in lost) >= leaving and max(began for began, _ in lost) <= back + 1.0 * SLOW


class TestC11:
    """C11. A worker dies while the parent is still writing a large body to it."""

    BODY = b'{"model":"m","stream":false,"prompt":"x","ignored":"%b"}' % (b"x" * (60 * MB))

    def test_before_it_has_all_of_it(self) -> None:
        """Ollama has heard nothing: the next worker gets it."""
        with Simulator(keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG, measured=True) as hermes:
            eventually(lambda: hermes.staffed("m"))
            threads = int(status_field(hermes.pid, "Threads"))
            worker, = hermes.workers("m")
            os.kill(worker, signal.SIGSTOP)
            with Client(hermes.port) as client:
                client.send("POST", "/api/generate", self.BODY)
                eventually(lambda: hermes.model("m")["workers"]["busy"] == 1)
                killed = time.monotonic()
                os.kill(worker, signal.SIGKILL)
                reply = client.reply()
                assert (reply.status, reply.complete) == (200, True), reply.body
                assert time.monotonic() - killed <= 1.0 * SLOW
            assert [len(request.body) for request in ollama.requests if request.inference] == [len(self.BODY) - len("m") + len("smollm2:135m")]
            eventually(lambda: int(status_field(hermes.pid, "Threads")) <= threads, what="the end of the connection's thread")

    def test_while_ollama_has_half_of_it(self, raw: Raw, hermes: Hermes) -> None:
        """Then the one after it gets it whole; where that dies as well, the client is told."""
        half = threading.Semaphore(0)
        started = threading.Semaphore(0)

        def taken(length: int) -> None:
            started.release()
            half.acquire(timeout=30)

        raw.before_body = taken
        try:
            with Client(hermes.port) as client:
                client.send("POST", "/api/generate", self.BODY)
                for _ in range(2):
                    assert started.acquire(timeout=30)
                    killed = time.monotonic()
                    os.kill(hermes.workers("m")[0], signal.SIGKILL)
                    half.release()
                reply = client.reply()
                assert (reply.status, reply.json()) == (502, {"error": "the worker died"})
                assert time.monotonic() - killed <= 1.0 * SLOW
        finally:
            raw.before_body = lambda length: None
        eventually(lambda: hermes.staffed("m"))
        raw.say = says(NDJSON + END)
        assert generate(hermes).complete
