"""What comes at the edge of what is allowed: clients that leave, bodies that hurt, every refusal there is, and a log that nothing spoils
(reliability.md §5.B, rows 10, 14, 15, 17, 18 and 20). What a client may take is in test_greedy.

`make faults` runs the random bodies in full.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace

import pytest

from hermes.application import Application
from hermes.frontend.router import Route, Router
from hermes.simulator import Simulator
from tests.bench.fronts import free_port, listens
from tests.harness import FAULTS, ROOT, SLOW, Client, Hermes, Reply, eventually, get, post
from tests.process.test_cancel import leave

MODEL = "smollm2:135m"
CONFIG = f'manage = true\n[defaults]\nqueue_timeout = "20s"\n[log]\nlevel = "debug"\n[models.m]\nmodel = "{MODEL}"\nmax_concurrency = 2\n[models.single]\nmodel = "gemma3:270m"\nmax_concurrency = 1\n'
ROUTER: Router = Application._router(SimpleNamespace(dispatcher=None, live=None, _whose=None))
MARK = "zqxjkvb"                # what is sent must not come back, and a prompt not go into the log
SECRET = "sk-hermes-wvutsrq"


@pytest.fixture(scope="module")
def ollama():
    with Simulator(parallel=16, tokens=3) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def hermes(ollama: Simulator):
    with Hermes(ollama.url, CONFIG) as gateway:
        for model in ("m", "single"):
            eventually(lambda: gateway.staffed(model))
        yield gateway


# -- B10: clients that leave ---------------------------------------------------------------------------------------

LONG = "@@tokens=100000,interval=0.02@@"
BEHIND = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n" + json.dumps({"model": "m", "prompt": "behind"}).encode().ljust(40)


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
@pytest.mark.parametrize("pipelined", [b"", BEHIND[:70], BEHIND], ids=["", "half a request behind", "a request behind"])
class TestB10:
    """In whatever way, and whatever stands behind the request in the connection: it is not executed."""

    def test_while_queued(self, hermes: Hermes, ollama: Simulator, how: str, pipelined: bytes) -> None:
        seen = len(ollama.requests)
        with Client(hermes.port) as first, Client(hermes.port) as waiting:
            first.send("POST", "/api/generate", {"model": "single", "prompt": f"first {LONG}"}).read_until(b'"done":false')
            waiting.send("POST", "/api/generate", {"model": "single", "prompt": "queued"}).send_raw(pipelined)
            eventually(lambda: hermes.model("single")["queue"]["depth"] == 1)
            left = time.monotonic()
            leave(waiting, how)
            eventually(lambda: hermes.model("single")["queue"]["depth"] == 0)
            assert time.monotonic() - left <= 0.5 * SLOW
            if how == "half":
                assert not waiting.more(), "nobody is left to be told"
        eventually(lambda: hermes.model("single")["workers"]["idle"] == 1)
        assert [request.prompt[:5] for request in ollama.requests[seen:] if request.inference] == ["first"]

    @pytest.mark.parametrize(("phase", "marks"), [("prefill", "@@prompt_time=60@@"), ("streaming", LONG)])
    def test_later(self, hermes: Hermes, ollama: Simulator, how: str, pipelined: bytes, phase: str, marks: str) -> None:
        seen, pids = len(ollama.requests), hermes.workers("m")
        with Client(hermes.port) as client:
            client.send("POST", "/api/generate", {"model": "m", "prompt": f"it {marks}"}).send_raw(pipelined)
            request = eventually(lambda: next((each for each in ollama.requests[seen:] if each.inference and each.phase == phase), None), what=phase)
            if phase == "streaming":
                client.read_until(b'"done":false')
            left = time.monotonic()
            leave(client, how)
            eventually(lambda: request.client_left, what="Ollama's side closed")
            assert request.client_left_at - left <= 1.0 * SLOW
        eventually(lambda: hermes.model("m")["workers"]["idle"] == 2)
        assert hermes.workers("m") == pids and len([each for each in ollama.requests[seen:] if each.inference]) == 1


# -- B14: bodies that hurt -----------------------------------------------------------------------------------------

DEEP, MB = b"[" * 200_000, 1 << 20
HURTING = {
    "16 MB of lists": b'{"model":"m","a":[' + b"[]," * (16 * MB // 3) + b"0]}", "16 MB of lists alone": b"[" + b"[]," * (16 * MB // 3), "16 MB of objects": b'{"model":"m","a":[' + b"{}," * (16 * MB // 3) + b"0]}",
    "16 MB of numbers": b'{"model":"m","a":[' + b"0," * (8 * MB), "16 MB of strings": b'{"model":"m","a":[' + b'"",' * (16 * MB // 3), "deep lists": b'{"model":"m","a":' + DEEP, "deep objects": b'{"model":"m","a":' + b'{"a":' * 200_000,
    "deep and whole": b'{"model":"m","a":' + DEEP + b"]" * 200_000 + b"}", "a million digits for a name": b'{"model":' + b"9" * 10**6 + b"}", "NaN": b'{"model":"m","options":{"seed":NaN}}',
    "infinity": b'{"model":"m","options":{"seed":-Infinity}}', "UTF-16": '{"model":"m"}'.encode("utf-16"), "UTF-16 without a mark": '{"model":"m"}'.encode("utf-16-le"), "UTF-32": '{"model":"m"}'.encode("utf-32"),
    "a mark": b'\xef\xbb\xbf{"model":"m"}', "a lone surrogate for a name": b'{"model":"\\ud800","prompt":"x","messages":[{"role":"user","content":"x"}]}', "a member a byte": b'{"model":"m",' + b'"":0,' * (2 * MB) + b'"a":0}',
    "NUL": b'{"model":"m\x00"}', "nothing but spaces": b" " * (16 * MB),
}


def test_b14_bodies_that_hurt(hermes: Hermes) -> None:
    """Each is refused, by Hermes or, where nothing in it is of interest here, by Ollama; and a stream beside it runs on."""
    gaps, over = [0.0], threading.Event()
    with Client(hermes.port) as stream:
        stream.send("POST", "/api/generate", {"model": "single", "prompt": "x @@tokens=1000000,interval=0.005@@"}).read_until(b'"done":false')

        def watch() -> None:
            while not over.is_set():
                began, stream.buffer = time.monotonic(), b""
                stream.more()
                gaps.append(time.monotonic() - began)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for name, body in HURTING.items():
                for path in ("/api/chat", "/v1/llm/m", "/v1/chat/completions")[:3 if FAULTS or len(body) < MB else 1]:
                    reply = post(hermes.port, path, body)
                    assert reply.complete and reply.status in (400, 413) or (reply.status, "name" in name) == (404, True), (name, path, reply)
                    assert len(reply.body) < 300 and check(path, reply), (name, path)
        finally:
            over.set()
            watcher.join()
    assert max(gaps) <= 0.1 * SLOW and len(gaps) > 50


# -- B15: every refusal --------------------------------------------------------------------------------------------


def check(path: str, reply: Reply, method: str = "POST", mark: str = MARK) -> bool:
    """A refusal as it has to be, whatever it says: in the shape of its family, with a fixed phrase, nothing of the request and nothing of who made it."""
    assert reply.complete and reply.status >= 400, reply
    phrase = HTTPStatus(reply.status).phrase if reply.status != 499 else "Status"
    assert reply.raw.split(b"\r\n")[0] == f"HTTP/1.1 {reply.status} {phrase}".encode()
    assert mark.encode() not in reply.raw + reply.body and "server" not in reply.headers and "x-powered-by" not in reply.headers
    assert b"python" not in (reply.raw + reply.body).lower() and b"traceback" not in reply.body.lower()
    assert re.fullmatch(r"[\x21-\x7e]{1,128}", reply.headers["x-request-id"]) and "content-length" in reply.headers and "date" in reply.headers
    if reply.status in (429, 503):
        assert 1 <= int(reply.headers["retry-after"]) <= 59
    assert ("allow" in reply.headers) == (reply.status == 405) and ("www-authenticate" in reply.headers) == (reply.status == 401)
    if method == "HEAD":
        assert reply.body == b"" and int(reply.headers["content-length"]) > 0
        return True
    assert int(reply.headers["content-length"]) == len(reply.body)
    if reply.headers["content-type"] == "text/plain":
        assert reply.status in (404, 405) and reply.body in (b"404 page not found", b"405 method not allowed")
        return True
    assert re.fullmatch(r"application/json(; charset=utf-8)?", reply.headers["content-type"])
    shape, name = reply.json(), ROUTER.dialect(path).name
    if name == "anthropic":
        assert set(shape) == {"type", "error", "request_id"} and set(shape["error"]) == {"type", "message"} and shape["type"] == "error"
    elif name.startswith("openai"):
        assert set(shape) == {"error"} and set(shape["error"]) == {"message", "type", "param", "code"}
    else:
        assert set(shape) == {"error"} and isinstance(shape["error"], str)
    return True


def path_of(route: Route) -> str:
    return re.sub(r"\{[a-z]+\}", "sha256:" + "0" * 64 if "digest" in route.path else "nothere", route.path)


def wrong_with(route: Route) -> Iterator[tuple[str, bytes, dict[str, str], int]]:
    """Method, body, fields, and the status; what can be done wrong on every route there is, with the mark wherever something may be written."""
    method, marked = route.method, {"X_Mark": MARK, "User_Agent": MARK, "Cookie": MARK}
    yield "PATCH", b"", marked, 405
    yield method, b"", {**marked, "Origin": f"http://{MARK}.example"}, 403
    yield method, b"", {**marked, "Sec_Fetch_Site": "cross-site"}, 403
    yield method, b"", {**marked, "Host": f"{MARK}.example"}, 403
    yield method, b"", {**marked, "Expect": MARK}, 417
    yield method, MARK.encode(), {**marked, "Content_Length": f"{len(MARK)}, {len(MARK)}"}, 400
    yield "BREW", b"", marked, 501
    if not route.streams_body:
        yield method, MARK.encode(), {**marked, "Content_Encoding": MARK}, 415
        yield method, b"", {**marked, "Content_Length": "999999999999"}, 413
    if method == "POST" and not route.streams_body and route.path not in ("/api/me", "/v1/audio/transcriptions") and not route.path.endswith(("pause", "resume")):
        yield method, b'{"model":"m","' + MARK.encode() + b'":' + MARK.encode()[:1] + b"}", marked, 400
        yield method, b'{"model":{"a":"' + MARK.encode() + b'"},"name":7,"MODEL":"' + MARK.encode() + b'"}', marked, 400


@pytest.mark.parametrize("route", ROUTER.routes, ids=lambda route: f"{route.method} {route.path}")
def test_b15_every_refusal_of_every_route(hermes: Hermes, ollama: Simulator, route: Route) -> None:
    path, seen = path_of(route), len(ollama.requests)
    for method, body, fields, status in wrong_with(route):
        with Client(hermes.port) as client:
            reply = client.send(method, f"{path}?{MARK}={MARK}", body, **{"Content_Length": str(len(body)), **fields}).reply(method)
            assert reply.status == status, (method, body, fields, reply)
            check("-" if method == "BREW" else path, reply, method)
            if reply.headers.get("connection") != "close":
                assert client.send("GET", "/livez").reply().body == b"ok\n", "nothing of the refusal is left in the connection"
            else:
                assert client.buffer == b"" and not client.more()
    assert not [request for request in ollama.requests[seen:] if request.inference], "none of it is Ollama's business"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"])
def test_b15_what_is_no_route(hermes: Hermes, method: str) -> None:
    for path in (f"/{MARK}", f"/api/{MARK}", f"/v1/{MARK}", f"/v1/messages/{MARK}", f"/v1/llm/m/{MARK}/x", f"/api/blobs/{MARK}", "/v1/llm/%ff", f"/v1/llm/{MARK}%00", f"/%2e%2e/{MARK}"):
        reply = get(hermes.port, f"{path}?{MARK}", method)
        if reply.status not in (200, 301, 307):
            assert reply.status in (400, 404, 405), (path, reply)
            assert ROUTER.dialect(path).name == "own" and MARK in path or check(path, reply, method)


def test_b15_keys() -> None:
    """Without one, with a wrong one, and with one that may not: the same on every route that needs one."""
    config = f'[clients.alice]\nkey_sha256 = "{"0" * 64}"\n'
    with Simulator() as ollama, Hermes(ollama.url, config) as hermes:
        for route in ROUTER.routes:
            path, method = path_of(route), route.method
            if path in ("/livez", "/readyz"):
                continue
            reply = get(hermes.port, path, method)
            assert reply.status == 401 and check(path, reply, method)
        reply = get(hermes.port, "/api/tags", Authorization=f"Bearer {MARK}")
        assert reply.status == 401 and check("/api/tags", reply)
        assert ollama.requests == []


# -- B17: what the log bears ---------------------------------------------------------------------------------------

STAMP = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=(debug|info|warning|error) \S")
NASTY = ["\x1b[2J\x1b]0;evil\x07", "a\r\nlevel=error forged", "\x85", "\u2028\u2029", "\x00", "\x7f", "\u202egnp.exe", "\ufeff", "\ud800", "x" * 100_000, "\"'\\=", "%s %d {}", "é日本😀"]


def test_b17_every_event_is_one_line() -> None:
    with Simulator(tokens=2) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        keyed, sent = {"Authorization": f"Bearer {SECRET}", "X_Api_Key": SECRET}, 0

        def say(raw: bytes) -> None:
            nonlocal sent
            sent += 1
            with Client(hermes.port) as client:
                assert client.send_raw(raw.replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode(), 1)).reply().status, raw

        head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%b\r\n"
        for nasty in NASTY:
            data = nasty.encode("utf-8", "surrogatepass")
            for part in (data, data.replace(b"\n", b"").replace(b"\r", b"\x85"), b"".join(b"%%%02x" % byte for byte in data[:3000])):
                say(head % (b"/" + part, b""))
                say(head % (b"/v1/models/" + part, b""))
                say(head % (b"/nope?" + part, b""))
                say(head % (b"/nope", b"User-Agent: " + part + b"\r\n"))
                say(head % (b"/nope", b"X-Request-ID: " + part + b"\r\n"))
            for path in ("/api/generate", "/v1/chat/completions", "/v1/messages", "/api/show", "/api/pull"):
                post(hermes.port, path, {"model": nasty, "prompt": MARK, "messages": [{"role": "user", "content": MARK}], "stream": False}, **keyed)
                post(hermes.port, path, b'{"prompt":"' + MARK.encode() + b'","model":"' + data.replace(b'"', b"") + b'\xff\xc0"}', **keyed)
                sent += 2
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": MARK}, **keyed).complete
        eventually(lambda: sum(" request method=" in line for line in list(hermes.lines)) == sent + 1, what=f"{sent + 1} lines")
        get(hermes.port, "/nope", X_Request_ID="last")
        eventually(lambda: hermes.line("request_id=last"))
        assert sum(" request method=" in line for line in hermes.lines) == sent + 2, "an event more than there were requests is a forged one"
        for line in hermes.lines:
            assert line.startswith("listening on ") or STAMP.match(line), line
            assert line.isprintable() and len(line.encode()) < 4096 and not re.search("forged$", line), line
            assert SECRET not in line and MARK not in line, line


# -- B18: a log that cannot be written -----------------------------------------------------------------------------


@contextmanager
def unheard(upstream: str, redirection: str = "", stderr: int | None = None) -> Iterator[SimpleNamespace]:
    """A Hermes whose stderr is what the shell makes of it, or this descriptor; it must end well."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "hermes.toml")
        config.write_text(f'[server]\nlisten = "127.0.0.1:{port}"\n[ollama]\nurl = "{upstream}"\n[models.m]\nmodel = "{MODEL}"\n', encoding="utf-8")
        command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "hermes", "serve", "--config", str(config)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True)
        try:
            eventually(lambda: process.poll() is not None or listens(port), what="listening")
            assert process.poll() is None, process.returncode
            yield SimpleNamespace(port=port, pid=process.pid)
            process.terminate()
            assert process.wait(20) == 0 and process.stdout.read() == b""
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            process.stdout.close()


def dropped(port: int) -> int:
    return get(port, "/v1/status").json()["log"]["dropped"]


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "<&- >&- 2>&-"], ids=["full", "closed", "all closed"])
def test_b18_the_log_cannot_be_written(ollama: Simulator, redirection: str) -> None:
    """Every request is answered, as fast as ever. Where there is no stderr nothing is missing either."""
    with unheard(ollama.url, redirection) as hermes, Client(hermes.port) as client:
        took = []
        for _ in range(1000):
            began = time.monotonic()
            assert client.send("GET", "/nope").reply().status == 404
            took.append(time.monotonic() - began)
        assert sorted(took)[990] <= 0.01 * SLOW
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).records()[-1]["done"], "workers live with it too"
        for number in (0, 1, 2):
            assert not os.readlink(f"/proc/{hermes.pid}/fd/{number}").startswith("socket:"), "what is meant for a terminal would go to a client"
        if redirection == "2>/dev/full":
            eventually(lambda: dropped(hermes.port) >= 1000)
        else:
            assert dropped(hermes.port) == 0


def test_b18_the_reader_of_the_log_goes_away(ollama: Simulator) -> None:
    reader, writer = os.pipe()
    try:
        with unheard(ollama.url, stderr=writer) as hermes:
            assert os.read(reader, 4096).startswith(b"listening on ")
            os.close(reader)
            os.close(writer)
            reader = writer = -1
            for _ in range(10):
                assert get(hermes.port, "/nope").status == 404
            eventually(lambda: dropped(hermes.port) >= 10)
    finally:
        if reader >= 0:
            os.close(reader)
            os.close(writer)


# -- B20: random bodies --------------------------------------------------------------------------------------------

COUNT = 2000 if FAULTS else 300
ROUTES = [route for route in ROUTER.routes if route.method in ("POST", "DELETE")]
NAMES = ["m", "single", MODEL, "nothere", "M", "m:latest", "no name", "", "../x", "a" * 300, "x:cloud", "é", "\u2028", "hf.co/a/b:c"]
TURNS = [{"role": "user", "content": "x"}, {"role": "system", "content": [{"type": "text", "text": "x"}]}, {"role": "tool", "content": "", "tool_call_id": "1"}, {"role": "assistant", "tool_calls": []}]
WELL_TYPED = {   # what the routes know, each with values that are right for one of them
    "model": NAMES, "name": NAMES, "source": NAMES, "destination": NAMES, "from": NAMES, "prompt": ["x", "", "\ud800", "x" * 10_000], "input": ["x", ["x", "y"], [], [1, 2]],
    "messages": [TURNS[:1], TURNS, [], [TURNS[1]]], "stream": [True, False], "system": ["x"], "images": [[], ["QUJD"]], "format": ["json", {"type": "object"}], "think": [True, "high"], "raw": [True],
    "options": [{}, {"seed": 1}, {"num_ctx": 2048, "temperature": 0.5}, {"stop": ["x"]}], "keep_alive": ["5m", 0, 60, -1], "max_tokens": [1, 100], "temperature": [0.5], "tools": [[]], "truncate": [True], "dimensions": [8],
    "encoding_format": ["float", "base64"], "instructions": ["x"], "stream_options": [{"include_usage": True}], "files": [{}], "modelfile": ["FROM m"], "verbose": [True], "insecure": [False], "suffix": ["x"],
}


def anything(draw: random.Random, depth: int = 3) -> object:
    kind = draw.randrange(7 if depth else 5)
    if kind < 5:
        return draw.choice([None, True, False, 0, -1, 1.5, 1e308, 2**70, -(2**70), "", "x", "5m", "\x00\x1b", "\ud800", "é\u2028", "9" * 400])
    if kind == 5:
        return [anything(draw, depth - 1) for _ in range(draw.randrange(4))]
    return {draw.choice([*WELL_TYPED, "x", "", "role", "content"]): anything(draw, depth - 1) for _ in range(draw.randrange(4))}


def spoiled(draw: random.Random, body: bytes) -> bytes:
    """With a few bytes changed, left out or put in, so that it is no JSON, or other JSON."""
    data = bytearray(body)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(data) + 1)
        data[at:at + draw.randrange(3)] = draw.choice([b"", b"\x00", b"\xff", b'"', b"\\", b"{", b"]", b",", b"NaN", b"\xef\xbb\xbf", b"1e999", b"\\ud800", b"//"])
    return bytes(data)


def random_body(draw: random.Random) -> bytes:
    keys = draw.sample(list(WELL_TYPED), draw.randrange(1, 8))
    if draw.random() < 0.8:
        keys += ["model", "prompt", "messages", "input"]
    ill = draw.choice((0.0, 0.1, 1.0))
    body = {draw.choice((key, key, key, key.upper())): anything(draw) if draw.random() < ill else draw.choice(WELL_TYPED[key]) for key in keys}
    data = json.dumps(body, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    return draw.choice((data, data, data, spoiled(draw, data), json.dumps(anything(draw)).encode(), b""))


def test_b20_random_bodies() -> None:
    """No crash, no hang, no answer that is not one; and at the end everything is as it was."""
    draw = random.Random(20)
    with Simulator(parallel=8, tokens=2, pull_steps=2, remember=100) as ollama, Hermes(ollama.url, CONFIG.replace("20s", "500ms")) as hermes:
        eventually(lambda: hermes.staffed("m") and hermes.staffed("single"))
        pids, statuses = hermes.workers("m"), set()
        for _ in range(COUNT):
            route, body = draw.choice(ROUTES), random_body(draw)
            path = re.sub(r"\{[a-z]+\}", lambda place: draw.choice(("m", "single", "nothere", "sha256:" + "0" * 64)), route.path)
            with Client(hermes.port, timeout=20) as client:
                reply = client.send(route.method, path, body, **draw.choice(({}, {}, {"Content_Type": "application/json"}, {"Accept": "text/event-stream"}, {"Content_Type": "multipart/form-data; boundary=x"}))).reply()
                # Ollama's own 500 and 501 are passed on; of those that are Hermes's, the log would have another word.
                assert reply.status < 500 or reply.status in (502, 503, 504) or "x-hermes-queue-wait" in reply.headers, (path, body, reply)
                assert reply.complete or reply.status == 200 and b'"error"' in reply.body, (path, body, reply)
                if reply.headers.get("connection") != "close" and reply.complete:
                    assert client.send("GET", "/livez").reply().body == b"ok\n", (path, body)
            statuses.add(reply.status)
            if path.endswith("/pause"):
                post(hermes.port, path.replace("/pause", "/resume"), b"")
        assert statuses >= {200, 400, 404} and not [line for line in hermes.lines if "internal_error" in line or "level=error" in line]
        assert hermes.workers("m") == pids and hermes.model("m")["workers"]["idle"] == 2
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
