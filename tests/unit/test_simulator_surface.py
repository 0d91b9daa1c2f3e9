"""The stand-in's newer surface: tools, images and JSON on request, other dialects, models made and blobs sent, runners shared."""

import base64
import hashlib
import json
from collections.abc import Iterator

import pytest

from hermes.simulator import Fault, SimModel, Simulator
from tests.harness import Client, Reply, get, post

MODEL = "able"
ABLE = SimModel("able:latest", capabilities=("completion", "tools", "vision"))
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
ARGUMENTS = {"city": "Paris", "days": 7}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
ASK = [{"role": "user", "content": "please use the tool"}]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator([ABLE, SimModel("plain:latest")], tokens=3, keep_bodies=True) as simulator:
        yield simulator


def events(reply: Reply) -> list[dict]:
    return [json.loads(line[6:]) for line in reply.body.decode().split("\n") if line.startswith("data: {")]


def test_a_tool_call_natively(sim: Simulator) -> None:
    body = {"model": MODEL, "messages": ASK, "tools": [TOOL]}
    last = post(sim.port, "/api/chat", body).records()[-1]
    whole = post(sim.port, "/api/chat", body | {"stream": False}).json()
    for record in (last, whole):
        assert record["done"] and record["message"]["tool_calls"][0]["function"] == {"index": 0, "name": "get_weather", "arguments": ARGUMENTS}


def test_a_tool_call_in_openai(sim: Simulator) -> None:
    body = {"model": MODEL, "messages": ASK, "tools": [TOOL]}
    choice = post(sim.port, "/v1/chat/completions", body).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == ARGUMENTS
    call, finish = events(post(sim.port, "/v1/chat/completions", body | {"stream": True}))
    assert call["choices"][0]["delta"]["tool_calls"][0]["id"] and finish["choices"][0]["finish_reason"] == "tool_calls"


def test_a_tool_call_in_anthropic(sim: Simulator) -> None:
    body = {"model": MODEL, "max_tokens": 50, "messages": ASK, "tools": [{"name": "get_weather", "input_schema": CITY}]}
    whole = post(sim.port, "/v1/messages", body).json()
    assert whole["stop_reason"] == "tool_use" and whole["content"][0]["input"] == ARGUMENTS
    streamed = events(post(sim.port, "/v1/messages?beta=true", body | {"stream": True}))
    assert [event["delta"]["partial_json"] for event in streamed if "partial_json" in event.get("delta", {})] == [json.dumps(ARGUMENTS, separators=(",", ":"))]
    assert streamed[-1] == {"type": "message_stop"} and streamed[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_tool_call_in_responses(sim: Simulator) -> None:
    body = {"model": MODEL, "input": [{"role": "user", "content": "use the tool"}], "tools": [{"type": "function", "name": "get_weather", "parameters": CITY}]}
    whole = post(sim.port, "/v1/responses", body).json()
    assert json.loads(whole["output"][0]["arguments"]) == ARGUMENTS
    streamed = events(post(sim.port, "/v1/responses", body | {"stream": True}))
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))
    assert streamed[-1]["response"]["output"][0]["name"] == "get_weather"


@pytest.mark.parametrize(("path", "tools"), [("/api/chat", [TOOL]), ("/v1/chat/completions", [TOOL]), ("/v1/messages", [{"name": "x"}])])
def test_tools_for_a_model_without(sim: Simulator, path: str, tools: list) -> None:
    reply = post(sim.port, path, {"model": "plain", "max_tokens": 1, "messages": ASK, "tools": tools})
    assert reply.status == 400 and b"registry.ollama.ai/library/plain:latest does not support tools" in reply.body


@pytest.mark.parametrize("stream", [False, True])
def test_json_on_request(sim: Simulator, stream: bool) -> None:
    ask = [{"role": "user", "content": "hi"}]
    native = post(sim.port, "/api/chat", {"model": MODEL, "messages": ask, "format": CITY, "stream": stream}).records()
    assert json.loads("".join(record["message"]["content"] for record in native)) == ARGUMENTS
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}
    reply = post(sim.port, "/v1/chat/completions", {"model": MODEL, "messages": ask, "response_format": wanted, "stream": stream})
    if stream:
        assert json.loads("".join(event["choices"][0]["delta"].get("content", "") for event in events(reply))) == ARGUMENTS
    else:
        assert json.loads(reply.json()["choices"][0]["message"]["content"]) == ARGUMENTS
    assert json.loads(post(sim.port, "/api/generate", {"model": MODEL, "prompt": "x", "format": "json", "stream": False}).json()["response"])


@pytest.mark.parametrize(("image", "status"), [(base64.b64encode(b"png").decode(), 200), ("cG5n*", 400), ("cG5", 400)])
def test_images_are_base64(sim: Simulator, image: str, status: int) -> None:
    assert post(sim.port, "/api/generate", {"model": MODEL, "prompt": "x", "images": [image]}).status == status
    message = {"role": "user", "content": "x", "images": [image]}
    reply = post(sim.port, "/api/chat", {"model": MODEL, "messages": [message]})
    assert reply.status == status and (status == 200 or b"illegal base64 data at input byte" in reply.body)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_the_runner_dies_in_silence(sim: Simulator, path: str) -> None:
    sim.script(Fault(error_line=True))
    reply = post(sim.port, path, {"model": MODEL, "max_tokens": 9, "messages": ASK, "input": "x", "stream": True})
    assert reply.complete and b"error_" not in reply.body and not reply.body.endswith((b'"message_stop"}\n\n', b'"response.completed"}\n\n'))


@pytest.mark.parametrize(("body", "text"), [({"max_tokens": 5, "messages": ASK}, "model is required"), ({"model": MODEL, "messages": ASK}, "max_tokens"),
                                            ({"model": MODEL, "max_tokens": 5}, "messages is required")])
def test_bad_messages(sim: Simulator, body: dict, text: str) -> None:
    error = post(sim.port, "/v1/messages", body)
    assert error.status == 400 and error.json()["error"]["type"] == "invalid_request_error" and text in error.json()["error"]["message"]


def form(**fields: str) -> tuple[bytes, str]:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{name}"{"; filename=a.wav" if name == "file" else ""}\r\n\r\n{value}\r\n'
             for name, value in fields.items()]
    return ("".join(parts) + "--b--\r\n").encode(), "multipart/form-data; boundary=b"


def test_speech(sim: Simulator) -> None:
    body, kind = form(model=MODEL, file="RIFF", response_format="json")
    assert post(sim.port, "/v1/audio/transcriptions", body, Content_Type=kind).json()["text"]
    assert sim.requests[-1].model == "able:latest" and sim.requests[-1].headers["content-type"] == kind
    text, kind = form(file="RIFF", model=MODEL, response_format="text")
    assert post(sim.port, "/v1/audio/transcriptions", text, Content_Type=kind).headers["content-type"] == "text/plain; charset=utf-8"
    for missing in ({"file": "x"}, {"model": MODEL}, {"model": "nothere", "file": "x"}):
        body, kind = form(**missing)
        assert post(sim.port, "/v1/audio/transcriptions", body, Content_Type=kind).status == (404 if len(missing) == 2 else 400)


# -- models made, runners shared -----------------------------------------------------------------------------------


def generate(sim: Simulator, model: str, **fields: object) -> None:
    assert post(sim.port, "/api/generate", {"model": model, "prompt": "x", **fields}).complete


def test_other_load_options_make_another_runner(sim: Simulator) -> None:
    for options in ({}, {"temperature": 1}, {"num_ctx": 8192}, {"num_ctx": 8192, "seed": 3}, {"num_batch": 64}, {}):
        generate(sim, MODEL, options=options)
    assert sim.loads == {"able:latest": 4}


def test_a_derived_model_shares_the_runner_if_it_is_loaded_alike(sim: Simulator) -> None:
    made = post(sim.port, "/api/create", {"model": "hermes/able:8k", "from": MODEL, "parameters": {"num_ctx": 8192}})
    assert made.records()[-1] == {"status": "success"}
    generate(sim, MODEL, options={"num_ctx": 8192})
    assert post(sim.port, "/v1/chat/completions", {"model": "hermes/able:8k", "messages": ASK}).json()["model"] == "hermes/able:8k"
    assert sim.loads == {"able:latest": 1} and sim.loaded() == ["able:latest"]
    generate(sim, MODEL)
    assert sim.loads == {"able:latest": 2}
    post(sim.port, "/api/generate", {"model": "hermes/able:8k", "keep_alive": 0})
    assert sim.loaded() == []


def test_create_and_push_say_what_is_wrong(sim: Simulator) -> None:
    assert post(sim.port, "/api/create", {"model": "a b"}).status == 400
    assert post(sim.port, "/api/create", {"model": "new"}).json() == {"error": "neither 'from' or 'files' was specified"}
    assert "error" in post(sim.port, "/api/create", {"model": "new", "from": "nothere"}).records()[-1]
    assert post(sim.port, "/api/create", {"model": "new", "from": "nothere", "stream": False}).status == 500
    assert "does not exist" in post(sim.port, "/api/create", {"model": "new", "files": {"a": "sha256:" + "0" * 64}}).records()[-1]["error"]
    assert post(sim.port, "/api/push", {"model": MODEL}).records()[-1] == {"status": "success"}
    assert post(sim.port, "/api/push", {"model": "no there"}).records() == [{"error": "unqualified name: no there"}]
    assert post(sim.port, "/api/push", {"name": ""}).status == 400
    assert post(sim.port, "/api/me", {}).json()["signin_url"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 65_536, 200_001])
def test_blobs(sim: Simulator, size: int, chunked: bool) -> None:
    data = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    digest = hashlib.sha256(data).hexdigest()
    path = f"/api/blobs/sha256:{digest}"
    assert get(sim.port, path, "HEAD").status == 404
    assert post(sim.port, f"/api/blobs/sha256:{'0' * 64}", data).status == 400
    with Client(sim.port) as client:
        coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:7], data[7:]) if part) + b"0\r\n\r\n"
        head = f"POST {path.replace(':', '-')} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        framing = "Transfer-Encoding: chunked\r\n" if chunked else f"Content-Length: {size}\r\n"
        client.send_raw(head.encode() + framing.encode() + b"\r\n")
        client.buffer = client.read_until(b"HTTP/1.1 100 Continue\r\n\r\n").partition(b"\r\n\r\n")[2]
        assert client.send_raw(coded if chunked else data).reply().status == 201
    assert (sim.requests[-1].upload.size, sim.requests[-1].upload.sha256) == (size, digest)
    assert get(sim.port, path, "HEAD").status == 200
    assert post(sim.port, "/api/create", {"model": "mine", "files": {"a.gguf": f"sha256:{digest}"}}).records()[-1] == {"status": "success"}


def test_a_blob_that_is_here_is_not_read(sim: Simulator) -> None:
    digest = hashlib.sha256(b"abc").hexdigest()
    assert post(sim.port, f"/api/blobs/sha256:{digest}", b"abc").status == 201
    with Client(sim.port) as client:
        reply = client.send_raw(f"POST /api/blobs/sha256:{digest} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n".encode()).reply()
        assert reply.status == 200 and reply.headers["connection"] == "close" and not client.more()
    assert sim.requests[-1].upload is None
    assert post(sim.port, "/api/blobs/sha256:123", b"").json() == {"error": "invalid digest format"}
    assert get(sim.port, f"/api/blobs/sha256:{digest}").status == 405


def test_keep_alive_sticks(sim: Simulator) -> None:
    generate(sim, MODEL, keep_alive="2h")
    post(sim.port, "/v1/messages", {"model": MODEL, "max_tokens": 1, "messages": ASK})
    assert len(sim.loaded()) == 1
    generate(sim, MODEL, keep_alive=0)
    assert sim.loaded() == []
