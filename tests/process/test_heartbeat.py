"""A stream that waits shows signs of life, in the queue and while its model loads; what fails then is told inside it."""

import json
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from hermes.simulator import Fault, Simulator
from tests.bench.fronts import free_port, listens
from tests.harness import Client, Hermes, eventually, first_free, post

MODEL = "smollm2:135m"
CONFIG = f'heartbeat = "50ms"\n[models.m]\nmodel = "{MODEL}"\nmax_concurrency = 1\n'
LOADING = 0.4               # seconds of silence from the stand-in; several heartbeats long
STREAMS = {
    "/api/chat": {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]},
    "/api/generate": {"model": MODEL, "prompt": "hi"},
    "/v1/chat/completions": {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True},
    "/v1/completions": {"model": MODEL, "prompt": "hi", "stream": True},
    "/v1/responses": {"model": MODEL, "input": "hi", "stream": True},
    "/v1/messages": {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": True},
    f"/v1/llm/{MODEL}": {"prompt": "hi", "stream": True},
}


def signs(path: str, body: bytes) -> tuple[int, bytes]:
    """How many signs of life an answer began with, and the rest."""
    sign = b" " if path.startswith(("/api/", "/v1/llm/")) else b": keep-alive\n\n"
    count = 0
    while body.startswith(sign):
        body, count = body[len(sign):], count + 1
    return count, body


@pytest.fixture(scope="module")
def ollama():
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(scope="module")
def hermes(ollama: Simulator):
    with Hermes(ollama.url, CONFIG) as gateway:
        eventually(lambda: gateway.staffed("m"))
        yield gateway


@pytest.mark.parametrize("path", STREAMS)
def test_signs_of_life_and_then_the_same_answer(ollama: Simulator, hermes: Hermes, path: str) -> None:
    plain = post(hermes.port, path, STREAMS[path])
    assert plain.status == 200 and signs(path, plain.body)[0] == 0
    ollama.script(Fault(delay=LOADING))
    late = post(hermes.port, path, STREAMS[path])
    count, body = signs(path, late.body)
    assert count >= 2 and late.status == 200 and late.complete
    assert late.headers["content-type"] == plain.headers["content-type"]
    assert len(body.splitlines()) == len(plain.body.splitlines())


@pytest.mark.parametrize("path", STREAMS)
def test_a_refusal_after_the_200_is_told_inside(ollama: Simulator, hermes: Hermes, path: str) -> None:
    ollama.script(Fault(delay=LOADING, status=500, body=b'{"error":"out of memory"}'))
    late = post(hermes.port, path, STREAMS[path])
    count, body = signs(path, late.body)
    assert late.status == 200 and not late.complete and count >= 2
    opening, shape = told_in(path, late.headers["x-request-id"])
    assert body == opening + json.dumps(shape, separators=(",", ":")).encode() + (b"\n\n" if opening else b"\n")


def told_in(path: str, request_id: str) -> tuple[bytes, dict]:
    """How each family's clients are told inside a stream: what stands in front of the object, and the object."""
    if path.startswith(("/api/", "/v1/llm/")):
        return b"", {"error": "out of memory"}
    if path == "/v1/messages":
        return b"event: error\ndata: ", {"type": "error", "error": {"type": "api_error", "message": "out of memory"}, "request_id": request_id}
    error = {"message": "out of memory", "type": "api_error", "param": None, "code": "upstream_failed"}
    if path == "/v1/responses":
        return b"event: error\ndata: ", {"type": "error", "sequence_number": 0, "code": "upstream_failed", "message": "out of memory", "param": None, "error": error}
    return b"data: ", {"error": error}


def test_a_cut_after_heartbeats_is_told_inside(ollama: Simulator, hermes: Hermes) -> None:
    ollama.script(Fault(delay=LOADING, cut=20))
    late = post(hermes.port, "/api/chat", STREAMS["/api/chat"])
    assert late.status == 200 and not late.complete and b'{"error":"' in late.body


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions", "/v1/messages"])
def test_no_descriptor_for_the_next_heartbeat_is_told_inside(ollama: Simulator, path: str) -> None:
    with Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        ollama.script(Fault(stall=0))
        with Client(hermes.port) as first, Client(hermes.port) as second:
            first.send("POST", path, STREAMS[path])
            eventually(lambda: ollama.running(MODEL) == 1)
            second.send("POST", path, STREAMS[path])
            second.read_until(b"\r\n\r\n")
            soft, hard = resource.prlimit(hermes.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(hermes.pid, resource.RLIMIT_NOFILE, (first_free(hermes.pid), hard))
            reply = second.reply()
            resource.prlimit(hermes.pid, resource.RLIMIT_NOFILE, (soft, hard))
            assert (reply.status, reply.complete) == (200, False) and signs(path, reply.body)[1]
            told = reply.body.partition(b"{")[1:]
            assert "descriptor" in str(json.loads(b"".join(told))["error"])
            assert eventually(lambda: hermes.line("outcome=busy"))


def test_the_place_in_the_queue_is_told(ollama: Simulator, hermes: Hermes) -> None:
    path = "/v1/chat/completions"
    ollama.script(Fault(stall=0))
    with Client(hermes.port) as first, Client(hermes.port) as second, Client(hermes.port) as third:
        first.send("POST", path, STREAMS[path])
        eventually(lambda: ollama.running(MODEL) == 1)
        second.send("POST", path, STREAMS[path])
        second.read_until(b": queued 1/1\n\n")
        third.send("POST", path, STREAMS[path])
        third.read_until(b": queued 2/2\n\n")
        second.close()
        third.read_until(b": queued 1/1\n\n")
        first.close()
        assert third.reply().complete
    eventually(lambda: hermes.model("m")["workers"]["idle"] == 1)


def test_a_wait_too_long_is_told_inside(ollama: Simulator) -> None:
    with Hermes(ollama.url, CONFIG + 'queue_timeout = "300ms"\n') as hermes:
        eventually(lambda: hermes.staffed("m"))
        ollama.script(Fault(stall=0))
        with Client(hermes.port) as first:
            first.send("POST", "/api/chat", STREAMS["/api/chat"])
            eventually(lambda: ollama.running(MODEL) == 1)
            late = post(hermes.port, "/api/chat", STREAMS["/api/chat"])
            assert late.status == 200 and not late.complete and b"without getting a turn" in late.body
            assert eventually(lambda: hermes.line("outcome=queue_timeout"))


def test_answers_that_are_no_streams_wait_in_silence(ollama: Simulator, hermes: Hermes) -> None:
    ollama.script(Fault(delay=LOADING), times=2)
    plain = post(hermes.port, "/api/generate", {"model": MODEL, "prompt": "hi", "stream": False})
    assert plain.body.startswith(b"{") and "content-length" in plain.headers
    assert post(hermes.port, f"/v1/llm/{MODEL}", {"prompt": "hi"}).body.startswith(b"{")
    ollama.script(Fault(delay=LOADING, status=500, body=b'{"error":"x"}'))
    assert post(hermes.port, "/api/generate", {"model": MODEL, "prompt": "hi", "stream": False}).status == 500


def test_spaces_in_front_of_json_if_wished(ollama: Simulator) -> None:
    with Hermes(ollama.url, CONFIG.replace("\n", '\nheartbeat_plain = "50ms"\n', 1)) as hermes:
        eventually(lambda: hermes.staffed("m"))
        for path, body in (("/v1/chat/completions", STREAMS["/v1/chat/completions"] | {"stream": False}), (f"/v1/llm/{MODEL}", {"prompt": "hi"})):
            ollama.script(Fault(delay=LOADING))
            late = post(hermes.port, path, body)
            assert late.body.startswith(b"  ") and late.complete and late.json()["model"] == MODEL
            ollama.script(Fault(delay=LOADING, status=500, body=b'{"error":"out of memory"}'))
            late = post(hermes.port, path, body)
            assert late.body.startswith(b"  ") and not late.complete and "out of memory" in str(late.json()["error"])


def test_http_1_0_gets_them_without_coding(ollama: Simulator, hermes: Hermes) -> None:
    ollama.script(Fault(delay=LOADING))
    with Client(hermes.port) as client:
        client.send_raw(b'POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n{"model":"%b","prompt":"hi"}' % (26 + len(MODEL), MODEL.encode()))
        reply = client.reply()
    assert reply.body.startswith(b"  ") and reply.body.lstrip().startswith(b'{"model"') and b'"done":true' in reply.body


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_a_proxy_that_gives_up_on_silence_does_not() -> None:
    """60 s to load, 20 s of patience, at a hundredth of the scale: nginx's clock has whole seconds, so 3 s to load and 1 s of patience."""
    port = free_port()
    with Simulator() as ollama, Hermes(ollama.url, CONFIG.replace("50ms", "700ms")) as hermes, tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        temps = "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        Path(folder, "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{ }} http {{ access_log off; {temps}"
            f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{hermes.port}; proxy_http_version 1.1; "
            f"proxy_read_timeout 1s; }} }} }}", encoding="utf-8")
        proxy = subprocess.Popen(["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"])
        try:
            eventually(lambda: listens(port))
            ollama.script(Fault(delay=3.0), times=1)
            assert post(port, "/api/chat", STREAMS["/api/chat"] | {"stream": False}).status == 504, "the proxy's patience is real"
            eventually(lambda: hermes.model("m")["workers"]["idle"] == 1)
            ollama.script(Fault(delay=3.0), times=1)
            start = time.monotonic()
            reply = post(port, "/api/chat", STREAMS["/api/chat"])
            assert reply.complete and b'"done":true' in reply.body and time.monotonic() - start > 2.9
        finally:
            proxy.terminate()
            proxy.wait()
