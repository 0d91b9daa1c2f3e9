"""A client that leaves costs nothing from then on, in whatever phase he leaves; and the worker serves on."""

import socket
import struct
import time

import pytest

from hermes.simulator import Simulator
from tests.harness import SLOW, Client, Hermes, eventually, post

CONFIG = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 1\n'
MODEL = "smollm2:135m"
NOTICED = 1.0 * SLOW            # seconds until Ollama's side is closed


def leave(client: Client, how: str) -> None:
    if how == "rst":
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if how == "half":
        client.sock.shutdown(socket.SHUT_WR)
    else:
        client.close()


@pytest.mark.parametrize("how", ["fin", "rst", "half"])
@pytest.mark.parametrize("path", ["/api/generate", "/v1/llm/m"])
@pytest.mark.parametrize(("phase", "marks"), [("loading", "@@load_time=60@@"), ("prefill", "@@prompt_time=60@@"),
                                              ("streaming", "@@tokens=100000,interval=0.02@@")])
def test_leaving_closes_ollamas_side(phase: str, marks: str, path: str, how: str) -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        before = hermes.workers("m")
        client = Client(hermes.port)
        client.send("POST", path, {"prompt": f"p {marks}", "stream": True, **({"model": "m"} if path != "/v1/llm/m" else {})})
        eventually(lambda: ollama.requests and ollama.requests[-1].phase == phase, what=phase)
        if phase == "streaming":
            client.read_until(b'"done":false')
        left = time.monotonic()
        leave(client, how)
        eventually(lambda: ollama.requests[-1].client_left, what="Ollama's side closed")
        assert ollama.requests[-1].client_left_at - left < NOTICED
        client.close()
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "next", "stream": False}).status == 200
        assert hermes.workers("m") == before


def test_leaving_the_queue_never_reaches_ollama() -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        with Client(hermes.port) as first:
            first.send("POST", "/api/generate", {"model": "m", "prompt": "first @@tokens=100000,interval=0.02@@"}).read_until(b'"done":false')
            waiting = [Client(hermes.port).send("POST", "/api/generate", {"model": "m", "prompt": f"queued {n}"}) for n in range(3)]
            eventually(lambda: hermes.model("m")["queue"]["depth"] == 3)
            leave(waiting[0], "fin")
            leave(waiting[1], "rst")
            eventually(lambda: hermes.model("m")["queue"]["depth"] == 1)
        reply = waiting[2].reply()
        assert reply.complete
        waiting[2].close()
        assert sorted(request.prompt[:8] for request in ollama.requests if request.inference) == ["first @@", "queued 2"]
        assert hermes.status()["totals"]["cancelled"] >= 2


def test_a_client_that_does_not_read_loses_its_worker_after_send_timeout() -> None:
    config = 'send_timeout = "500ms"\n' + CONFIG
    with Simulator() as ollama, Hermes(ollama.url, config) as hermes:
        client = Client(hermes.port)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send("POST", "/api/generate", {"model": "m", "prompt": "p @@tokens=1000000@@"})
        eventually(lambda: ollama.requests and ollama.requests[-1].client_left, timeout=30, what="the reader's end")
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "next", "stream": False}).status == 200
        client.close()


def test_two_callers_share_a_pull_and_it_ends_with_the_last() -> None:
    with Simulator(pull_steps=200, pull_interval=0.02) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        def pulls() -> list:
            return [request for request in ollama.requests if request.path == "/api/pull"]

        first = Client(hermes.port).send("POST", "/v1/llm/llama3.2%3A1b/pull")
        first.read_until(b"digest")
        second = Client(hermes.port).send("POST", "/v1/llm/LLAMA3.2:1b/pull")
        second.read_until(b"digest")
        first.close()
        second.read_until(b'"completed"')
        assert len(pulls()) == 1 and not pulls()[0].client_left
        second.close()
        eventually(lambda: pulls()[0].client_left, what="the pull's end")


def test_a_pull_loads_the_model_and_its_pool_is_up() -> None:
    with Simulator(pull_steps=3) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        reply = post(hermes.port, "/v1/llm/llama3.2:1b/pull", b"", Accept="text/event-stream")
        assert reply.complete and reply.headers["content-type"] == "text/event-stream"
        events = [event for event in reply.body.decode().split("\n\n") if event]
        assert events[-3:] == ['data: {"status":"success"}', 'data: {"status":"loading model"}', 'data: {"status":"ready"}']
        assert "llama3.2:1b" in ollama.loaded()
        assert hermes.staffed("llama3.2:1b")
        again = post(hermes.port, "/v1/llm/llama3.2:1b/pull", {"stream": False})
        assert again.status == 200 and again.json() == {"status": "ready"}


def test_a_pull_that_fails_inside_ollamas_200_is_an_error() -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        for body in (b"", b'{"stream":false}'):
            reply = post(hermes.port, "/v1/llm/nothere/pull", body)
            assert reply.status == 502 and reply.json() == {"error": "pull model manifest: file does not exist"}
        assert post(hermes.port, "/v1/llm/no%20name/pull", b"").status == 400
        assert post(hermes.port, "/v1/llm/m/pull", b"[1]").status == 400
        assert not [request for request in ollama.requests if request.inference]


def test_a_pull_by_a_configured_name_fetches_the_model_behind_it() -> None:
    config = '[models.small]\nmodel = "llama3.2:1b"\n'
    with Simulator(pull_steps=2) as ollama, Hermes(ollama.url, config) as hermes:
        assert post(hermes.port, "/v1/llm/small/pull", {"stream": False}).json() == {"status": "ready"}
        assert [request.body for request in ollama.requests if request.path == "/api/pull"] == [b'{"model": "llama3.2:1b"}']
        assert ollama.loaded() == ["llama3.2:1b"]
