"""What the libraries really send, byte for byte, through Hermes: each gets the answer that Ollama would have given it itself.

`client-requests.jsonl` holds the first requests of eighteen clients, recorded from the libraries: headers in their order and spelling, bodies in
their own spacing. The libraries themselves are driven by tests/compat, where they are installed.
"""

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from hermes.simulator import Fault, SimModel, Simulator, expected_text
from tests.harness import Client, Hermes, Reply, eventually

RECORDED = Path(__file__).parent.parent / "recordings" / "client-requests.jsonl"
MODEL = "llama3.2"
CONFIG = f'[models."{MODEL}"]\nmax_concurrency = 1\nmax_queue = 1\n'
TOKENS = 16
STREAM_TYPES = {"/api/chat": "application/x-ndjson", "/v1/chat/completions": "text/event-stream", "/v1/messages": "text/event-stream"}
WHOLE_TYPES = {"/v1/chat/completions": "application/json"}      # what Ollama translates has no charset
TIMES = re.compile(rb'"(?:created_at":"[^"]*"|(?:created|\w+_duration)":\d+)')
FAILURES = {"the runner dies": Fault(error_line=True), "the connection is cut": Fault(cut_body=350)}


class Recorded(NamedTuple):
    """A client's request. `headers` in their order and spelling, without Host."""

    client: str
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    stream: bool

    @property
    def generates(self) -> bool:
        return self.path in STREAM_TYPES

    def raw(self, port: int) -> bytes:
        head = f"{self.method} {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return head.encode("ascii") + b"\r\n" + self.body


def read(line: str) -> Recorded:
    """One recording. Keys were not kept. Of the two ways to write JSON, the body's is the one that has the recorded length."""
    record = json.loads(line)
    headers = {name: value.replace("<set>", "Bearer sk-none") for name, value in record["headers"].items()}
    body, stated = b"", next((int(value) for name, value in headers.items() if name.lower() == "content-length"), 0)
    if record["body"] is not None:
        ways = (json.dumps(record["body"], separators=separators).encode() for separators in ((",", ":"), None))
        body = next(way for way in ways if len(way) == stated)
    return Recorded(record["client"], record["method"], record["path"], headers, body, (record["body"] or {}).get("stream", False))


REQUESTS = [read(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]


def each(requests: list[Recorded]):
    names = [f"{number}-{request.client.split()[0]}-{request.path}" for number, request in enumerate(requests)]
    return pytest.mark.parametrize("request_", requests, ids=names)


GENERATING = [request for request in REQUESTS if request.generates]
READING = [request for request in REQUESTS if not request.generates]


@pytest.fixture(scope="module")
def ollama():
    with Simulator([SimModel(f"{MODEL}:latest")], tokens=TOKENS) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def hermes(ollama: Simulator):
    with Hermes(ollama.url, CONFIG) as gateway:
        eventually(lambda: gateway.staffed(MODEL))
        yield gateway


def ask(port: int, request: Recorded) -> Reply:
    with Client(port) as client:
        return client.send_raw(request.raw(port)).reply()


def events(body: bytes) -> list[tuple[str, object]]:
    """The events of SSE: name and data, the latter read where it is JSON."""
    found = []
    for event in body.removesuffix(b"\n\n").split(b"\n\n"):
        fields = dict(line.split(b": ", 1) for line in event.split(b"\n"))
        data = fields[b"data"]
        found.append((fields.get(b"event", b"").decode(), data.decode() if data == b"[DONE]" else json.loads(data)))
    return found


def text_of(request: Recorded, reply: Reply) -> str:
    """What the model said; fails where the answer has no proper last record."""
    if request.path == "/api/chat":
        records = reply.records()
        assert [record["done"] for record in records] == [False] * TOKENS + [True] and records[-1]["eval_count"] == TOKENS
        return "".join(record["message"]["content"] for record in records)
    if not request.stream:
        [choice] = reply.json()["choices"]
        assert choice["finish_reason"] == "stop"
        return choice["message"]["content"]
    named = events(reply.body)
    if request.path == "/v1/messages":
        assert named[-1] == ("message_stop", {"type": "message_stop"}) and named[-2][1]["delta"] == {"stop_reason": "max_tokens"}
        return "".join(data["delta"]["text"] for name, data in named if name == "content_block_delta")
    assert named[-1] == ("", "[DONE]")
    chunks = [data for _, data in named[:-1]]
    asked = b"include_usage" in request.body
    assert [chunk["usage"]["completion_tokens"] for chunk in chunks if "usage" in chunk] == [TOKENS] * asked
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def error_of(request: Recorded, record: dict) -> str:
    """The text of an error; fails where it has not the shape of the route's family."""
    if request.path == "/api/chat":
        assert list(record) == ["error"]
        return record["error"]
    if request.path == "/v1/messages":
        assert record["type"] == "error" and set(record) == {"type", "error", "request_id"} and record["request_id"]
        assert set(record["error"]) == {"type", "message"}
        return record["error"]["message"]
    assert list(record) == ["error"] and set(record["error"]) == {"message", "type", "param", "code"}
    return record["error"]["message"]


def check_ids(request: Recorded, reply: Reply) -> None:
    assert re.fullmatch(r"\S{8,}", reply.headers["x-request-id"])
    assert reply.headers.get("request-id") == (reply.headers["x-request-id"] if request.path == "/v1/messages" else None)


def test_the_recordings_are_the_whole_of_them() -> None:
    assert (len(REQUESTS), len(GENERATING), len(READING)) == (18, 15, 3)
    assert {request.path for request in GENERATING} == set(STREAM_TYPES)


@each(REQUESTS)
def test_the_answer_is_ollamas_own(ollama: Simulator, hermes: Hermes, request_: Recorded) -> None:
    """Twice on one connection, as the libraries keep theirs."""
    direct = ask(ollama.port, request_)
    assert direct.status == 200 and direct.complete
    with Client(hermes.port) as client:
        for _ in range(2):
            reply = client.send_raw(request_.raw(hermes.port)).reply()
            assert (reply.status, reply.complete) == (200, True) and "content-encoding" not in reply.headers
            assert reply.headers["content-type"] == direct.headers["content-type"]
            assert TIMES.sub(b"", reply.body) == TIMES.sub(b"", direct.body)
            check_ids(request_, reply)
            heard = ollama.requests[-1]
            assert (heard.method, heard.path, heard.body) == (request_.method, request_.path, request_.body)
            sent = {name.lower(): value for name, value in request_.headers.items()}
            assert all(heard.headers.get(name) == sent.get(name) for name in ("content-type", "accept", "user-agent")), heard.headers
            assert "authorization" not in heard.headers and heard.headers.get("accept-encoding", "identity") == "identity"
            if request_.generates:
                assert reply.headers["content-type"] == (STREAM_TYPES if request_.stream else WHOLE_TYPES)[request_.path]
                assert text_of(request_, reply) == expected_text("hi", json.loads(request_.body).get("max_tokens", TOKENS))


@pytest.fixture
def full(ollama: Simulator, hermes: Hermes):
    """One call is at work, one waits, and there is no room for another."""
    stalled = json.dumps({"model": MODEL, "prompt": "stalled"}).encode()
    ollama.script(Fault(stall=0), prompt="stalled", times=None)
    with ExitStack() as held:
        for place in ("busy", "depth"):
            held.enter_context(Client(hermes.port)).send("POST", "/api/generate", stalled)
            eventually(lambda: {**hermes.model(MODEL)["workers"], **hermes.model(MODEL)["queue"]}[place] == 1)
        yield
    eventually(lambda: hermes.model(MODEL)["workers"]["idle"] == 1)


@each(GENERATING)
def test_a_full_queue_is_told_as_the_family_tells_it(full: None, ollama: Simulator, hermes: Hermes, request_: Recorded) -> None:
    before = len(ollama.requests)
    reply = ask(hermes.port, request_)
    assert (reply.status, reply.complete, reply.headers["content-type"].partition(";")[0]) == (503, True, "application/json")
    assert 1 <= int(reply.headers["retry-after"]) <= 59 and "x-should-retry" not in reply.headers
    text = error_of(request_, reply.json())
    assert text.startswith("server busy, please try again.")
    check_ids(request_, reply)
    assert len(ollama.requests) == before, "Ollama hears nothing of it"


@each(READING)
def test_lists_answer_while_the_queue_is_full(full: None, hermes: Hermes, request_: Recorded) -> None:
    reply = ask(hermes.port, request_)
    assert (reply.status, reply.complete) == (200, True) and {"models", "capabilities"} & set(reply.json())


@pytest.mark.parametrize("failure", FAILURES)
@each(GENERATING)
def test_a_failure_in_mid_stream_is_told(ollama: Simulator, hermes: Hermes, request_: Recorded, failure: str) -> None:
    """In the stream, in the family's shape, and without the end that HTTP prescribes; where nothing has gone out yet, by a status."""
    ollama.script(FAILURES[failure], path=request_.path)
    reply = ask(hermes.port, request_)
    check_ids(request_, reply)
    if not request_.stream:
        assert reply.status in (500, 502) and reply.complete and error_of(request_, reply.json())
        return
    assert (reply.status, reply.complete) == (200, False) and reply.headers["content-type"] == STREAM_TYPES[request_.path]
    if request_.path == "/api/chat":
        *before, last = reply.records()
        assert before and not any(record["done"] for record in before)
    else:
        *before, (name, last) = events(reply.body)
        assert before and name == ("error" if request_.path == "/v1/messages" else "")
        assert not {"[DONE]", "message_stop"} & {data if isinstance(data, str) else data.get("type") for _, data in before}
    assert error_of(request_, last)
