"""Whatever Hermes itself says no to: Ollama's status and words, in the shape of the route's family, on every surface (ollama-api.md §2.2)."""

import json
import os
import re
import signal
from contextlib import ExitStack, contextmanager

import pytest

from hermes.simulator import Fault, Simulator
from tests.bench.fronts import free_port
from tests.harness import Client, Hermes, Reply, eventually, get, in_threads, post

MODEL = "smollm2:135m"
CONFIG = f'max_body = "20KB"\n[models.m]\nmodel = "{MODEL}"\nmax_concurrency = 1\n'
FORM = {"Content_Type": "multipart/form-data; boundary=XX"}
CHAT = [{"role": "user", "content": "{}"}]
SURFACES = {     # what is asked, with "{}" for the prompt
    "/api/generate": {"prompt": "{}"}, "/api/chat": {"messages": CHAT}, "/api/embed": {"input": "{}"}, "/api/embeddings": {"prompt": "{}"},
    "/v1/chat/completions": {"messages": CHAT}, "/v1/completions": {"prompt": "{}"}, "/v1/embeddings": {"input": "{}"},
    "/v1/responses": {"input": "{}"}, "/v1/messages": {"messages": CHAT, "max_tokens": 9}, "/v1/audio/transcriptions": None,
}
JSON_SURFACES = [path for path, body in SURFACES.items() if body]
ANTHROPIC = {400: "invalid_request_error", 404: "not_found_error", 413: "request_too_large", 415: "invalid_request_error", 502: "api_error",
             503: "overloaded_error", 504: "timeout_error"}
UNREADABLE = [  # a body, and Ollama's words natively and under /v1; {} is the Go type of the route
    (b"", "missing request body", "EOF"),
    (b"{bad", "invalid character 'b' looking for beginning of object key string", None),
    (b'{"model":', "unexpected EOF", None),
    (b"[1]", "json: cannot unmarshal array into Go value of type {}", None),
    (b'"x"', "json: cannot unmarshal string into Go value of type {}", None),
]
GO_TYPES = {"/api/generate": "api.GenerateRequest", "/api/chat": "api.ChatRequest", "/api/embed": "api.EmbedRequest", "/api/embeddings": "api.EmbeddingRequest",
            "/v1/chat/completions": "openai.ChatCompletionRequest", "/v1/completions": "openai.CompletionRequest", "/v1/embeddings": "openai.EmbedRequest",
            "/v1/responses": "openai.ResponsesRequest", "/v1/messages": "anthropic.MessagesRequest"}


def body_of(path: str, model: str | None, prompt: str = "x") -> bytes:
    if path == "/v1/audio/transcriptions":
        file = f'--XX\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n{prompt}\r\n'
        name = "" if model is None else f'--XX\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n'
        return f"{file}{name}--XX--\r\n".encode()
    body = json.dumps(SURFACES[path] | ({} if model is None else {"model": model}))
    return body.replace("{}", prompt).encode()


def send(client: Client, path: str, model: str | None, prompt: str = "x", **headers: str) -> Client:
    return client.send("POST", path, body_of(path, model, prompt), **(FORM if "audio" in path else {}), **headers)


def ask(hermes: Hermes, path: str, model: str | None, prompt: str = "x", **headers: str) -> Reply:
    with Client(hermes.port) as client:
        return send(client, path, model, prompt, **headers).reply()


def check(path: str, reply: Reply, status: int, code: str | None = None) -> str:
    """The error's text. Fails unless status, shape and ids are those of the path's family; `code`: the word for programs, where there is one."""
    assert (reply.status, reply.complete) == (status, True) and reply.headers["content-type"].startswith("application/json")
    body, request_id = reply.json(), reply.headers["x-request-id"]
    assert reply.headers.get("request-id") == (request_id if path.startswith("/v1/messages") else None)
    if path.startswith("/v1/messages"):
        assert body == {"type": "error", "error": {"type": ANTHROPIC[status], "message": body["error"]["message"]}, "request_id": request_id}
        return body["error"]["message"]
    if path.startswith("/v1/"):
        kind = {400: "invalid_request_error", 404: "not_found_error"}.get(status, "api_error")
        assert body == {"error": {"message": body["error"]["message"], "type": kind, "param": None, "code": code}}
        return body["error"]["message"]
    assert list(body) == ["error"]
    return body["error"]


@pytest.fixture(scope="module")
def hermes():
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as gateway:
        gateway.ollama = ollama
        eventually(lambda: gateway.staffed("m"))
        yield gateway


# -- the request's fault -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", JSON_SURFACES)
@pytest.mark.parametrize(("body", "native", "other"), UNREADABLE)
def test_body_that_cannot_be_read(hermes: Hermes, path: str, body: bytes, native: str, other: str | None) -> None:
    text = native if path.startswith("/api/") else other or native
    assert check(path, post(hermes.port, path, body), 400) == text.format(GO_TYPES[path])


@pytest.mark.parametrize("path", JSON_SURFACES)
def test_null_is_an_empty_object(hermes: Hermes, path: str) -> None:
    assert post(hermes.port, path, b"null").body.split(b"req_")[0] == post(hermes.port, path, b"{}").body.split(b"req_")[0]


@pytest.mark.parametrize("path", JSON_SURFACES)
@pytest.mark.parametrize(("value", "kind"), [("7", "number"), ("[]", "array"), ("{}", "object"), ("true", "bool")])
def test_model_of_a_wrong_type(hermes: Hermes, path: str, value: str, kind: str) -> None:
    text = check(path, post(hermes.port, path, f'{{"model":{value}}}'.encode()), 400)
    assert text == f"json: cannot unmarshal {kind} into Go struct field {GO_TYPES[path].partition('.')[2]}.model of type string"


@pytest.mark.parametrize("missing", [None, ""])
@pytest.mark.parametrize("path", SURFACES)
def test_missing_model(hermes: Hermes, path: str, missing: str | None) -> None:
    reply = ask(hermes, path, missing)
    if path in ("/api/generate", "/api/embed", "/v1/completions"):
        assert check(path, reply, 404) == "model '' not found"
    else:
        assert check(path, reply, 400) == "model is required"


@pytest.mark.parametrize("rest", ["", ',"messages":[]', ',"messages":null'])
def test_openais_chat_misses_the_messages_first(hermes: Hermes, rest: str) -> None:
    reply = post(hermes.port, "/v1/chat/completions", f'{{"model":""{rest}}}'.encode())
    assert check("/v1/chat/completions", reply, 400) == "[] is too short - 'messages'"


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize(("name", "text"), [("no there", "invalid model name"), ("x:local:cloud", 'use either :local or :cloud, not both: "x:local:cloud"')])
def test_malformed_name(hermes: Hermes, path: str, name: str, text: str) -> None:
    assert check(path, ask(hermes, path, name), 400) == text


@pytest.mark.parametrize("path", SURFACES)
def test_unknown_model(hermes: Hermes, path: str) -> None:
    expected = 'model "nothere" not found, try pulling it first' if "embed" in path else "model 'nothere' not found"
    assert check(path, ask(hermes, path, "nothere"), 404) == expected


@pytest.mark.parametrize("path", SURFACES)
def test_too_large(hermes: Hermes, path: str) -> None:
    with Client(hermes.port) as client:
        client.send_raw(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20001\r\n\r\n".encode())
        assert "20000" in check(path, client.reply(), 413)


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize("coding", ["zstd", "gzip"])
def test_compressed_body(hermes: Hermes, path: str, coding: str) -> None:
    """Codex compresses; what it is told names the setting."""
    assert "enable_request_compression = false" in check(path, ask(hermes, path, "m", Content_Encoding=coding), 415)


@pytest.mark.parametrize("path", ["/v1/messages/count_tokens", "/v1/messages/batches", "/v1/moderations", "/v1/files", "/v1/images/generations", "/v1/responses/resp_1"])
def test_routes_that_ollama_does_not_have(hermes: Hermes, path: str) -> None:
    assert check(path, post(hermes.port, path, {"model": "m"}), 404)


# -- Hermes's own limits -------------------------------------------------------------------------------------------


@contextmanager
def occupied(size: int = 1, queue: int = 0, **sections: str):
    """A Hermes all of whose workers are at work for as long as the test takes, and `queue` more calls wait."""
    config = f'drain_timeout = "300ms"\n[models.m]\nmodel = "{MODEL}"\nmax_concurrency = {size}\n' + "".join(f"{key} = {value}\n" for key, value in sections.items())
    with Simulator() as ollama, Hermes(ollama.url, config) as hermes, ExitStack() as stack:
        eventually(lambda: hermes.staffed("m"))
        for number in range(size + queue):
            send(stack.enter_context(Client(hermes.port)), "/api/generate", "m", "@@delay=600@@")
            eventually(lambda: sum(hermes.model("m")[key][part] for key, part in (("workers", "busy"), ("queue", "depth"))) == number + 1)
        yield hermes


def test_queue_full() -> None:
    """No SDK is told to give up: it is worth coming again, and Retry-After says when."""
    with occupied(queue=4, max_queue="4") as hermes:
        for path in SURFACES:
            reply = ask(hermes, path, "m")
            assert check(path, reply, 503, "queue_full").startswith("server busy, please try again."), "Ollama's own beginning, for whoever matches it"
            assert reply.headers["retry-after"] == "2" and "x-should-retry" not in reply.headers, "nothing has ended yet, so a call counts as a second"


def test_a_busy_ollama_says_when_as_well() -> None:
    """Its own words and status; it never says when (ollama-api.md §0.20), and the SDKs' own guess is half a second."""
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        for status in (503, 429, 500):
            for path in [*SURFACES, "/api/show", "/v1/models", "/v1/llm/m"]:
                ollama.script(Fault(status=status, body=b'{"error":"server busy, please try again."}'), path=path.replace("/v1/llm/m", "/api/generate"), times=1)
                reply = get(hermes.port, path) if path == "/v1/models" else post(hermes.port, path, {"prompt": "x"}) if "llm" in path else \
                    post(hermes.port, path, {"model": "m"}) if "show" in path else ask(hermes, path, "m")
                assert (reply.status, reply.body) == (status, b'{"error":"server busy, please try again."}'), path
                assert reply.headers.get("retry-after") == (None if status == 500 else "5"), path


def test_waited_too_long() -> None:
    with occupied(queue_timeout='"20ms"') as hermes:
        for path in SURFACES:
            reply = ask(hermes, path, "m")
            assert "without getting a turn" in check(path, reply, 504, "queue_timeout")
            assert reply.headers["x-should-retry"] == "false" and "retry-after" not in reply.headers


def test_draining() -> None:
    """What waits when a stop runs out of time is told so."""
    with occupied() as hermes, ExitStack() as stack:
        clients = {path: send(stack.enter_context(Client(hermes.port)), path, "m") for path in SURFACES}
        eventually(lambda: hermes.model("m")["queue"]["depth"] == len(SURFACES))
        hermes.signal(signal.SIGTERM)
        for path, client in clients.items():
            reply = client.reply()
            assert check(path, reply, 503, "draining") == "Hermes is stopping"
            assert (reply.headers["x-should-retry"], reply.headers["connection"]) == ("false", "close") and 1 <= int(reply.headers["retry-after"]) <= 59


def test_too_many_connections() -> None:
    """Turned away before a word is read: Ollama's shape, and an id that the log knows."""
    with Simulator() as ollama, Hermes(ollama.url, "max_connections = 1\n") as hermes, Client(hermes.port) as kept:
        # An idle connection would make room; one whose request has arrived does not.
        kept.send_raw(b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").read_until(b"100 Continue")
        with Client(hermes.port) as other:
            reply = other.reply()
        assert check("/", reply, 503) == "too many connections" and reply.headers["retry-after"] == "1"
        assert eventually(lambda: hermes.line(f"turned away reason=too_many_connections request_id={reply.headers['x-request-id']}"))


# -- the other side ------------------------------------------------------------------------------------------------


def test_ollama_is_down() -> None:
    with Hermes(f"http://127.0.0.1:{free_port()}", CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        for path in SURFACES:
            reply = ask(hermes, path, "m")
            assert check(path, reply, 502, "upstream_unreachable") and "x-should-retry" not in reply.headers


@pytest.mark.parametrize(("fault", "code"), [(Fault(refuse=True), "upstream_broken"), (Fault(cut=0), "upstream_broken"), (Fault(raw=b"hello\r\n\r\n"), "upstream_broken")])
def test_ollama_answers_rubbish_or_nothing(hermes: Hermes, fault: Fault, code: str) -> None:
    for path in SURFACES:
        hermes.ollama.script(fault, path=path, times=1)
        reply = ask(hermes, path, "m")
        assert check(path, reply, 502, code) and "x-should-retry" not in reply.headers


def test_ollama_is_silent() -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG + '[ollama]\nfirst_byte_timeout = "50ms"\n') as hermes:
        for path in SURFACES:
            reply = ask(hermes, path, "m", "@@delay=600@@")
            assert check(path, reply, 504, "upstream_timeout") == "Ollama sent nothing within first_byte_timeout"
            assert reply.headers["x-should-retry"] == "false", "an SDK would start the same work twice more"


def test_worker_lost() -> None:
    """Twice: the first time the job goes to another worker."""
    with Simulator() as ollama, Hermes(ollama.url, f'[models.m]\nmodel = "{MODEL}"\nmax_concurrency = {len(SURFACES)}\n') as hermes, ExitStack() as stack:
        eventually(lambda: hermes.staffed("m"))
        clients = {path: send(stack.enter_context(Client(hermes.port)), path, "m", "@@delay=600@@") for path in SURFACES}
        for attempt in (1, 2):
            eventually(lambda: sum(request.path in SURFACES for request in list(ollama.requests)) == attempt * len(SURFACES))
            for pid in hermes.workers("m"):
                os.kill(pid, signal.SIGKILL)
        for path, client in clients.items():
            reply = client.reply()
            assert check(path, reply, 502, "worker_lost") == "the worker died" and "x-should-retry" not in reply.headers


# -- ids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["mine", "x" * 128, 'a"b=c'])
def test_the_clients_own_id(hermes: Hermes, given: str) -> None:
    for path in SURFACES:
        reply = ask(hermes, path, "nothere", X_Request_ID=given)
        assert check(path, reply, 404) and reply.headers["x-request-id"] == given
    word = json.dumps(given) if '"' in given else given
    eventually(lambda: sum(line.endswith(f" request_id={word}") for line in list(hermes.lines)) == len(SURFACES))


@pytest.mark.parametrize("given", ["two words", "x" * 129, ""])
def test_a_bad_id_is_replaced(hermes: Hermes, given: str) -> None:
    reply = get(hermes.port, "/api/version", X_Request_ID=given)
    assert reply.status == 200 and re.fullmatch(r"req_[0-9a-f]{24}", reply.headers["x-request-id"])
    eventually(lambda: hermes.line(f"request_id={reply.headers['x-request-id']}"))


def test_what_cannot_be_read_has_an_id_too(hermes: Hermes) -> None:
    with Client(hermes.port) as client:
        reply = client.send_raw(b"nonsense\r\n\r\n").reply()
    assert reply.status == 400
    line = eventually(lambda: hermes.line(f"request_id={reply.headers['x-request-id']}"))
    assert "method=- path=- client=127.0.0.1 " in line and " status=400 outcome=refused " in line


def test_ids_differ(hermes: Hermes) -> None:
    assert len(set(in_threads(20, lambda _: get(hermes.port, "/livez").headers["x-request-id"]))) == 20
