"""Bad input: a clear error in the family's shape, the right status, no HTML, no traceback, and nobody else notices."""

import json

import pytest

from hermes.simulator import Simulator
from tests.harness import Client, Hermes, eventually, get, in_threads, post

CONFIG = 'max_body = "100KB"\nhead_timeout = "400ms"\nbody_timeout = "400ms"\n[models.m]\nmodel = "smollm2:135m"\n'


@pytest.fixture(scope="module")
def hermes():
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as gateway:
        gateway.ollama = ollama
        yield gateway


def text_of(path: str, reply) -> str:
    """The error's text, in the shape of the path's family; anything else fails the test."""
    assert reply.headers["content-type"].startswith("application/json") and b"<" not in reply.body
    body = reply.json()
    if path.startswith("/v1/") and not path.startswith(("/v1/llm", "/v1/status")):
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return body["error"]["message"]
    assert set(body) == {"error"}
    return body["error"]


FAMILIES = ["/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
BODIES = [(b"{bad", 400, "invalid character 'b' looking for beginning of object key string"), (b"[1]", 400, "cannot unmarshal array into Go value of type"),
          (b'"x"', 400, "cannot unmarshal string into Go value of type"), (b'{"model":7}', 400, "cannot unmarshal number"),
          (b'{"model":["m"]}', 400, "cannot unmarshal array"), (b'{"model":"m","MODEL":"x"}', 400, "twice"),
          (b'{"model":"nothere","prompt":"x"}', 404, "not found"), (b'{"model":"no name"}', 400, "invalid model name"),
          (b"[" * 100_000, 400, ""), (b'{"model":"m","x":NaN}', 400, "invalid character 'N' looking for beginning of value"), (b'{"model":', 400, "EOF")]


@pytest.mark.parametrize("path", FAMILIES)
@pytest.mark.parametrize(("body", "status", "words"), BODIES)
def test_bodies(hermes: Hermes, path: str, body: bytes, status: int, words: str) -> None:
    before = len(hermes.ollama.requests)
    reply = post(hermes.port, path, body)
    assert reply.status == status and reply.complete and words in text_of(path, reply)
    assert not [request for request in hermes.ollama.requests[before:] if request.inference]


@pytest.mark.parametrize("path", FAMILIES)
def test_no_body_and_no_object_are_what_ollama_says(hermes: Hermes, path: str) -> None:
    """The stand-in decodes as Ollama does; it is asked itself."""
    for body in (b"", b" \n", b"[]", b"7", b"true"):
        ours, theirs = post(hermes.port, path, body), post(hermes.ollama.port, path, body)
        assert (ours.status, text_of(path, ours)) == (theirs.status, text_of(path, theirs))


@pytest.mark.parametrize("path", FAMILIES)
def test_a_missing_model_is_what_ollama_says(hermes: Hermes, path: str) -> None:
    reply = post(hermes.port, path, b"{}")
    if path in ("/api/generate", "/api/embed", "/v1/completions"):
        assert (reply.status, text_of(path, reply)) == (404, "model '' not found")
    elif path == "/v1/chat/completions":
        assert (reply.status, text_of(path, reply)) == (400, "[] is too short - 'messages'")
    else:
        assert (reply.status, text_of(path, reply)) == (400, "model is required")


@pytest.mark.parametrize(("body", "words"), [
    (b"", "missing"), (b"{", "EOF"), (b"[]", "object"), (b"{}", "either"), (b'{"prompt":1}', "'prompt' must be a string"),
    (b'{"prompt":"x","messages":[]}', "either"), (b'{"promt":"x"}', "did you mean 'prompt'"), (b'{"messages":[1]}', "object"),
    (b'{"prompt":"x","stream":"yes"}', "boolean"), (b'{"prompt":"x","options":[]}', "object"), (b'{"prompt":"x","tools":[]}', "messages"),
    (b'{"prompt":"x","keep_alive":true}', "keep_alive")])
def test_hermes_own_route(hermes: Hermes, body: bytes, words: str) -> None:
    reply = post(hermes.port, "/v1/llm/m", body)
    assert reply.status == 400 and words in text_of("/v1/llm/m", reply)


@pytest.mark.parametrize("path", ["/v1/llm/nothere", "/v1/llm/no%20name", "/v1/llm/%ff", "/v1/llm/", "/v1/llm/a%00b"])
def test_names_in_a_path(hermes: Hermes, path: str) -> None:
    reply = post(hermes.port, path, {"prompt": "x"})
    assert reply.status in (400, 404) and text_of(path, reply)


@pytest.mark.parametrize(("raw", "status"), [
    (b"GET /\r\n\r\n", 400), (b"GET / HTTP/2.0\r\n\r\n", 505), (b"\x16\x03\x01\x02\x00\r\n\r\n", 400), (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", 400), (b"GET / HTTP/1.1\nHost: localhost\n\n\r\n\r\n", 400),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\nhello", 400),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5_0\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00\r\n\r\n", 400),
    (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403), (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", 403),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n", 403),
    (b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501), (b"GET /api/chat HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
    (b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n", 404), (b"GET /api/nope HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n\r\n", 413),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n", 413),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nExpect: 200-ok\r\n\r\n", 417),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf", 408), (b"GET / HTTP/1.1\r\nHos", 408)])
def test_malformed_http(hermes: Hermes, raw: bytes, status: int) -> None:
    with Client(hermes.port) as client:
        reply = client.send_raw(raw).reply()
        assert (reply.status, reply.complete) == (status, True)
        if status == 405 or b" /nope " in raw:
            assert (reply.headers["content-type"], reply.body) == ("text/plain", b"404 page not found" if status == 404 else b"405 method not allowed")
            assert reply.headers.get("allow") == ("POST" if status == 405 else None)
        else:
            assert text_of("/", reply)
        if status not in (403, 404, 405):
            assert reply.headers["connection"] == "close" and client.more() is False


def test_a_body_that_stops_is_told_so(hermes: Hermes) -> None:
    with Client(hermes.port) as client:
        client.send_raw(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
        client.sock.shutdown(1)
        reply = client.reply()
        assert reply.status == 400 and "early" in reply.json()["error"]


def test_expect_is_answered_only_when_the_body_is_wanted(hermes: Hermes) -> None:
    body = json.dumps({"model": "m", "prompt": "x", "stream": False}).encode()
    with Client(hermes.port) as client:
        client.send_raw(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.buffer = b""
        assert client.send_raw(body).reply().status == 200
    with Client(hermes.port) as client:
        client.send_raw(b"POST /nope HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert client.reply().status == 404


def test_chunked_bodies_pipelining_and_keep_alive(hermes: Hermes) -> None:
    body = json.dumps({"model": "m", "prompt": "x", "stream": False}).encode()
    chunked = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in body) + b"0\r\n\r\n"
    with Client(hermes.port) as client:
        request = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked
        client.send_raw(request + b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n" + request)
        assert [client.reply().status for _ in range(3)] == [200, 200, 200]


def test_none_of_it_disturbs_a_running_stream(hermes: Hermes) -> None:
    eventually(lambda: hermes.staffed("m"))
    with Client(hermes.port) as stream:
        stream.send("POST", "/api/generate", {"model": "m", "prompt": "x @@tokens=60,interval=0.02@@"}).read_until(b'"done":false')
        in_threads(8, lambda n: [post(hermes.port, FAMILIES[n % 7], body).status for body, _, _ in BODIES])
        reply = stream.reply()
        assert reply.complete and len(reply.records()) == 61


def test_two_hundred_at_once_are_all_let_in(hermes: Hermes) -> None:
    assert in_threads(200, lambda _: get(hermes.port, "/livez").status) == [200] * 200
