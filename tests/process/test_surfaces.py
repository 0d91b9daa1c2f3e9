"""Anthropic's messages, OpenAI's responses and transcriptions: to the model's pool, under Ollama's name for it, and back as they came."""

import json

import pytest

from hermes.simulator import Fault, Simulator
from tests.harness import Client, Hermes, eventually, get, post
from tests.process.test_cuts import dechunk, recording

CONFIG = 'heartbeat = "50ms"\n[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 1\n'
MESSAGES = {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "Say hello."}]}
RESPONSES = {"model": "m", "input": "Say hello.", "max_output_tokens": 8}
FORM = (b'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF\x00\xff\r\n'
        b'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\n%b\r\n--XX--\r\n')
REFUSED = b'HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b'


@pytest.fixture(scope="module")
def hermes():
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as gateway:
        gateway.ollama = ollama
        eventually(lambda: gateway.staffed("m"))
        yield gateway


@pytest.mark.parametrize(("name", "path", "body"), [
    ("messages", "/v1/messages", MESSAGES), ("messages_stream", "/v1/messages", MESSAGES | {"stream": True}),
    ("openai_responses", "/v1/responses", RESPONSES), ("openai_responses_stream", "/v1/responses", RESPONSES | {"stream": True})])
def test_recorded_answers_come_as_they_are(hermes: Hermes, name: str, path: str, body: dict) -> None:
    head, coded = recording(name)
    hermes.ollama.script(Fault(raw=head + coded), path=path, times=1)
    reply = post(hermes.port, path, body, X_Request_ID="mine")
    assert (reply.status, reply.complete) == (200, True)
    recorded = dechunk(coded) if b"chunked" in head else coded
    assert reply.body == recorded.replace(b'"model":"smollm2:135m"', b'"model":"m"') != recorded
    assert reply.headers["x-request-id"] == "mine" and reply.headers.get("request-id") == ("mine" if path == "/v1/messages" else None)
    assert json.loads(hermes.ollama.requests[-1].body) == body | {"model": "smollm2:135m"}
    used = eventually(lambda: [row for row in get(hermes.port, "/v1/usage").json()["days"] if row["model"] == "m"])
    assert not used[0]["estimated"], "the tokens are those that the answer told"


def test_a_transcription_is_asked_for_in_a_form(hermes: Hermes) -> None:
    whole = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"text":"hello"}'
    hermes.ollama.script(Fault(raw=whole), path="/v1/audio/transcriptions", times=1)
    reply = post(hermes.port, "/v1/audio/transcriptions", FORM % b"m", Content_Type="multipart/form-data; boundary=XX")
    assert (reply.status, reply.json()) == (200, {"text": "hello"})
    assert hermes.ollama.requests[-1].body == FORM % b"smollm2:135m"


@pytest.mark.parametrize(("path", "body", "refusal"), [
    ("/v1/messages", MESSAGES, {"type": "error", "error": {"type": "invalid_request_error", "message": "no tools"}, "request_id": "req_1"}),
    ("/v1/responses", RESPONSES, {"error": {"message": "no tools", "type": "invalid_request_error", "param": None, "code": None}})])
def test_what_ollama_says_late_is_told_inside_the_stream(hermes: Hermes, path: str, body: dict, refusal: dict) -> None:
    """A stream that has shown signs of life has its 200 already; before that Ollama's own status and body come through."""
    raw = json.dumps(refusal).encode()
    for delay in (0.0, 0.3):
        hermes.ollama.script(Fault(raw=REFUSED % (len(raw), raw), delay=delay), path=path, times=1)
        with Client(hermes.port) as client:
            reply = client.send("POST", path, body | {"stream": True}).reply()
        if not delay:
            assert (reply.status, reply.body) == (400, raw)
            continue
        assert reply.status == 200 and not reply.complete and reply.body.startswith(b": keep-alive\n\n")
        name, data = reply.body.removesuffix(b"\n\n").rpartition(b"\n\n")[2].split(b"\n")
        told = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: error" and told["error"]["message"] == "no tools" and told["type"] == "error"
        assert told.get("request_id", reply.headers["x-request-id"]) == reply.headers["x-request-id"]
