"""Large bodies: they arrive whole, cost the parent themselves once and no more, and hurt nobody."""

import threading
import time

import pytest

from hermes.simulator import Simulator
from tests.harness import SLOW, Client, Hermes, eventually, get, post, status_field

MB = 1 << 20
CONFIG = '[models.m]\nmodel = "smollm2:135m"\n[models.renamed]\nmodel = "gemma3:270m"\nmax_concurrency = 2\n'


@pytest.fixture
def hermes():
    with Simulator(tokens=3, remember=3, keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG, measured=True) as gateway:
        gateway.ollama = ollama
        for model in ("m", "renamed"):
            eventually(lambda: gateway.staffed(model))
            assert post(gateway.port, "/api/generate", {"model": model, "prompt": "x"}).status == 200
        yield gateway


def peak(hermes: Hermes) -> int:
    """The parent's highest memory so far, in bytes."""
    return int(status_field(hermes.pid, "VmHWM")) * 1024


def image_body(model: str, size: int) -> bytes:
    return b'{"model":"%b","messages":[{"role":"user","content":"x","images":["%b"]}],"stream":false}' % (model.encode(), b"QUJD" * (size // 4))


def chunked(body: bytes, size: int) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (body[at:at + size] for at in range(0, len(body), size))) + b"0\r\n\r\n"


@pytest.mark.parametrize("model", ["m", "renamed"])
@pytest.mark.parametrize("coding", ["length", "one chunk", "chunks of 100 KB"])
def test_a_large_image_costs_itself_once(hermes: Hermes, model: str, coding: str) -> None:
    """Also under another name for the model, which is changed in place."""
    body = image_body(model, 60 * MB)
    before = peak(hermes)
    with Client(hermes.port) as client:
        if coding == "length":
            client.send("POST", "/api/chat", body)
        else:
            client.send_raw(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.send_raw(chunked(body, len(body) if coding == "one chunk" else 100_000))
        reply = client.reply()
        assert reply.status == 200, reply.body
        assert client.send("GET", "/livez").reply("GET").status == 200, "nothing of the body is left in the connection"
    assert peak(hermes) - before <= (64 + 8) * MB
    assert hermes.ollama.requests[-1].body == body.replace(b'"m"', b'"smollm2:135m"').replace(b'"renamed"', b'"gemma3:270m"')


def test_hermes_own_route_costs_no_more(hermes: Hermes) -> None:
    body, before = b'{"messages":[{"role":"user","content":"x"}],"images":["%b"]}' % (b"QUJD" * (15 * MB)), peak(hermes)
    reply = post(hermes.port, "/v1/llm/m", body)
    assert reply.status == 200, reply.body
    assert peak(hermes) - before <= (64 + 8) * MB
    assert len(hermes.ollama.requests[-1].body) > len(body)


def test_one_after_the_other_costs_no_more(hermes: Hermes) -> None:
    body, before = image_body("m", 60 * MB), peak(hermes)
    for _ in range(4):
        assert post(hermes.port, "/api/chat", body).status == 200
    assert peak(hermes) - before <= (64 + 8) * MB
    eventually(lambda: int(status_field(hermes.pid, "VmRSS")) * 1024 - before <= 8 * MB, what="giving the memory back")


def test_a_claim_alone_costs_nothing(hermes: Hermes) -> None:
    before = peak(hermes)
    clients = [Client(hermes.port) for _ in range(20)]
    for client in clients:
        client.send_raw(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n{" % (64 * MB))
    eventually(lambda: int(status_field(hermes.pid, "Threads")) >= 20)
    assert get(hermes.port, "/livez").status == 200
    assert peak(hermes) - before <= 8 * MB
    for client in clients:
        client.close()


def test_bodies_that_hurt_are_refused_and_a_stream_runs_on(hermes: Hermes) -> None:
    bodies = [b"[" + b"[]," * (16 * MB // 3), b'{"model":"m","a":[' + b"[]," * (16 * MB // 3) + b"0]}", b'{"model":"m","a":' + b"[" * 200_000, b'{"model":' + b"9" * (16 * MB) + b"}"]
    gaps: list[float] = []
    with Client(hermes.port) as stream:
        stream.send("POST", "/api/generate", {"model": "m", "prompt": "x @@tokens=100000,interval=0.005@@"}).read_until(b'"done":false')
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                began = time.monotonic()
                stream.buffer = b""
                stream.more()
                gaps.append(time.monotonic() - began)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for path in ("/api/chat", "/v1/llm/m"):
                for body in bodies:
                    reply = post(hermes.port, path, body)
                    assert reply.status in (400, 413) and len(reply.body) < 300, reply.body
        finally:
            over.set()
            watcher.join()
    assert max(gaps) < 0.1 * SLOW, max(gaps)
