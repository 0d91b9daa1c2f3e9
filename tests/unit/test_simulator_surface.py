"""What the stand-in does on request in every dialect: tool calls, thinking, images, JSON; and the dialects of others."""

import base64
import json
from collections.abc import Iterator

import pytest

from hermes.simulator import Fault, SimModel, Simulator, expected_text, expected_thinking
from hermes.simulator.images import corrupt_at
from hermes.simulator.wishes import calls, example
from tests.harness import Reply, post

MODEL = "able"
ABLE = SimModel("able:latest", capabilities=("completion", "tools", "vision"))
THINKER = SimModel("thinker:latest", capabilities=("completion", "tools", "thinking"))
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
ARGUMENTS = {"city": "Paris", "days": 7}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
ASK = [{"role": "user", "content": "please @@tool@@"}]


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator([ABLE, SimModel("plain:latest"), THINKER], tokens=3, keep_bodies=True) as simulator:
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
    body = {"model": MODEL, "input": [{"role": "user", "content": "@@tool@@"}], "tools": [{"type": "function", "name": "get_weather", "parameters": CITY}]}
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


def test_the_runner_dies_in_a_tool_call(sim: Simulator) -> None:
    body = {"model": MODEL, "messages": ASK, "tools": [TOOL], "stream": True}
    sim.script(Fault(error_line=True), times=2)
    assert post(sim.port, "/api/chat", body).records() == [{"error": "an error was encountered while running the model: unexpected EOF"}]
    odd, = events(post(sim.port, "/v1/chat/completions", body))
    assert (odd["model"], odd["choices"][0]["delta"]) == ("", {"content": ""})


def test_json_obeys_a_limit(sim: Simulator) -> None:
    body = {"model": MODEL, "prompt": "x", "format": CITY, "stream": False, "options": {"num_predict": 2}}
    last = post(sim.port, "/api/generate", body).json()
    assert (last["response"], last["done_reason"], last["eval_count"]) == ('{"city":', "length", 2)


@pytest.mark.parametrize(("schema", "value"), [
    ({"enum": ["b", "a"]}, "b"), ({"const": 3}, 3), ({"type": "boolean"}, True), ({"type": "null"}, None), ({}, "Paris"),
    ({"type": "array", "items": {"type": "number"}, "minItems": 2}, [1.5, 1.5]), ({"type": "array"}, []),
    ({"properties": {"a": {"type": "object", "properties": {"b": {"type": "integer"}}}}}, {"a": {"b": 7}}),
])
def test_values_that_schemas_allow(schema: dict, value: object) -> None:
    assert example(schema) == value


# -- tools in conversation, and thinking ---------------------------------------------------------------------------


def test_several_tools_are_called_in_order() -> None:
    made = calls("do @@tool=2,tokens=3@@", [{"name": "a"}, {"name": "b", "input_schema": CITY}, {"name": "c"}])
    assert [(call.name, call.arguments, call.index) for call in made] == [("a", {}, 0), ("b", ARGUMENTS, 1)]
    assert len({call.id for call in made}) == 2 and all(len(call.id) == 13 for call in made)
    assert calls("@@tool@@", []) == calls("@@tool@@", None) == calls("tool", [TOOL]) == calls("@@tool=x@@", [TOOL]) == ()


def test_the_turn_after_a_call_is_an_answer(sim: Simulator) -> None:
    native = [*ASK, {"role": "assistant", "content": "", "tool_calls": []}, {"role": "tool", "content": "sunny"}]
    whole = post(sim.port, "/api/chat", {"model": MODEL, "messages": native, "tools": [TOOL], "stream": False}).json()
    assert whole["message"] == {"role": "assistant", "content": expected_text("sunny", 3)}
    result = [{"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "sunny"}]}]
    body = {"model": MODEL, "max_tokens": 3, "messages": [*ASK, {"role": "user", "content": result}], "tools": [{"name": "x"}]}
    assert post(sim.port, "/v1/messages", body).json()["content"] == [{"type": "text", "text": expected_text("sunny", 3)}]


# Marks, and what comes of them: thinking, text, how many calls.
PARTS = [("@@thoughts=2@@", 2, 3, 0), ("@@thoughts=2,tool@@", 2, 0, 1), ("@@thoughts=1,tool=2,tokens=2@@", 1, 2, 2), ("@@thoughts=0,tool@@", 0, 0, 1)]
parts = pytest.mark.parametrize(("mark", "thoughts", "tokens", "count"), PARTS, ids=[mark for mark, *_ in PARTS])


def conversation(mark: str, tools: list, **fields: object) -> dict:
    return {"model": "thinker", "messages": [{"role": "user", "content": mark}], "tools": tools, **fields}


@parts
def test_thinking_natively(sim: Simulator, mark: str, thoughts: int, tokens: int, count: int) -> None:
    *lines, last = post(sim.port, "/api/chat", conversation(mark, [TOOL, TOOL])).records()
    assert "".join(line["message"].get("thinking", "") for line in lines) == expected_thinking(mark, thoughts)
    assert "".join(line["message"]["content"] for line in lines) == expected_text(mark, tokens) and len(lines) == thoughts + tokens
    assert len(last["message"].get("tool_calls", ())) == count and "thinking" not in last["message"]
    assert last["eval_count"] - thoughts - tokens == 12 * count
    whole = post(sim.port, "/api/chat", conversation(mark, [TOOL, TOOL], stream=False)).json()["message"]
    assert (whole.get("thinking", ""), whole["content"]) == (expected_thinking(mark, thoughts), expected_text(mark, tokens))
    assert [call["function"]["index"] for call in whole.get("tool_calls", ())] == list(range(count))


def test_thinking_in_generate(sim: Simulator) -> None:
    body = {"model": "thinker", "prompt": "why", "think": "low"}
    *lines, last = post(sim.port, "/api/generate", body).records()
    assert "".join(line.get("thinking", "") for line in lines) == expected_thinking("why") and "thinking" not in last
    whole = post(sim.port, "/api/generate", body | {"stream": False}).json()
    assert (whole["thinking"], whole["response"]) == (expected_thinking("why"), expected_text("why", 3))


@parts
def test_thinking_in_openai(sim: Simulator, mark: str, thoughts: int, tokens: int, count: int) -> None:
    reply = post(sim.port, "/v1/chat/completions", conversation(mark, [TOOL, TOOL], stream=True))
    *deltas, finish = [event["choices"][0] for event in events(reply)]
    deltas = [each["delta"] for each in deltas]
    assert ["role" in delta for delta in deltas] == [True] + [False] * (len(deltas) - 1) and all("content" in delta for delta in deltas)
    assert "".join(delta.get("reasoning", "") for delta in deltas) == expected_thinking(mark, thoughts)
    assert "".join(delta["content"] for delta in deltas) == expected_text(mark, tokens)
    assert [call["index"] for delta in deltas for call in delta.get("tool_calls", ())] == list(range(count))
    assert finish == {"index": 0, "delta": {}, "finish_reason": "tool_calls" if count else "stop"}
    message = post(sim.port, "/v1/chat/completions", conversation(mark, [TOOL, TOOL])).json()["choices"][0]["message"]
    assert (message.get("reasoning", ""), len(message.get("tool_calls", ()))) == (expected_thinking(mark, thoughts), count)


@parts
def test_thinking_in_anthropic(sim: Simulator, mark: str, thoughts: int, tokens: int, count: int) -> None:
    body = conversation(mark, [{"name": "a"}, {"name": "b"}], max_tokens=99)
    kinds = ["thinking"] * (thoughts > 0) + ["text"] * (tokens > 0) + ["tool_use"] * count
    content = post(sim.port, "/v1/messages", body).json()["content"]
    assert [block["type"] for block in content] == kinds
    first, *streamed, delta, stop = events(post(sim.port, "/v1/messages", body | {"stream": True}))
    assert (first["type"], delta["type"], stop["type"]) == ("message_start", "message_delta", "message_stop")
    blocks: list[dict] = []
    for event in streamed:
        if event["type"] == "content_block_start":
            blocks.append(event["content_block"])
        assert event["index"] == len(blocks) - 1
        for name in ("thinking", "text"):
            blocks[-1] |= {name: blocks[-1][name] + event["delta"][name]} if name in event.get("delta", {}) else {}
    assert blocks == content
    assert sum(event["type"] == "content_block_stop" for event in streamed) == len(kinds)


@parts
def test_thinking_in_responses(sim: Simulator, mark: str, thoughts: int, tokens: int, count: int) -> None:
    tools = [{"type": "function", "name": name, "parameters": CITY} for name in "ab"]
    body = {"model": "thinker", "input": [{"role": "user", "content": [{"type": "input_text", "text": mark}]}], "tools": tools}
    kinds = ["reasoning"] * (thoughts > 0) + ["message"] * (tokens > 0) + ["function_call"] * count
    output = post(sim.port, "/v1/responses", body).json()["output"]
    assert [item["type"] for item in output] == kinds
    streamed = events(post(sim.port, "/v1/responses", body | {"stream": True}))
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))
    assert streamed[-1]["response"]["output"] == output
    assert [event["item"] for event in streamed if event["type"] == "response.output_item.done"] == output
    assert [event["output_index"] for event in streamed if event["type"] == "response.output_item.added"] == list(range(len(kinds)))
    deltas = {kind: "".join(event["delta"] for event in streamed if event["type"] == f"response.{kind}.delta")
              for kind in ("reasoning_summary_text", "output_text")}
    assert deltas == {"reasoning_summary_text": expected_thinking(mark, thoughts), "output_text": expected_text(mark, tokens)}


@pytest.mark.parametrize(("path", "off"), [
    ("/api/chat", {"think": False}), ("/v1/chat/completions", {"reasoning_effort": "none"}),
    ("/v1/chat/completions", {"reasoning": {"effort": "none"}}), ("/v1/responses", {"reasoning": {"effort": "none"}}),
    ("/v1/messages", {"thinking": {"type": "disabled"}}),
])
def test_thinking_is_on_until_it_is_switched_off(sim: Simulator, path: str, off: dict) -> None:
    body = {"model": "thinker", "max_tokens": 9, "messages": [{"role": "user", "content": "why"}], "input": "why", "stream": False}
    for body, there in ((body, True), (body | off, False), (body | {"model": MODEL}, False)):
        assert (json.dumps(expected_thinking("why", 4))[1:-1].encode() in post(sim.port, path, body).body) is there


def test_a_limit_counts_thoughts(sim: Simulator) -> None:
    body = {"model": "thinker", "max_tokens": 3, "messages": [{"role": "user", "content": "why"}]}
    whole = post(sim.port, "/v1/messages", body).json()
    assert (whole["content"], whole["stop_reason"]) == ([{"type": "thinking", "thinking": expected_thinking("why", 3)}], "max_tokens")
    assert [event["type"] for event in events(post(sim.port, "/v1/messages", body | {"stream": True}))][-3:] == ["content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize(("limit", "reason", "said"), [(5, "length", 3), (6, "length", 4), (7, "stop", 4), (0, "stop", 4)])
def test_a_limit_and_a_length_of_ones_own(sim: Simulator, limit: int, reason: str, said: int) -> None:
    prompt = "x @@tokens=4,thoughts=2@@"
    whole = post(sim.port, "/api/generate", {"model": "thinker", "prompt": prompt, "stream": False, "options": {"num_predict": limit}}).json()
    assert (whole["done_reason"], whole["response"], whole["thinking"]) == (reason, expected_text(prompt, said), expected_thinking(prompt, 2))


# -- images --------------------------------------------------------------------------------------------------------

GOOD = base64.b64encode(b"\x89PNG picture").decode()


@pytest.mark.parametrize(("text", "at"), [
    ("", None), (GOOD, None), ("cG5n", None), ("cG5=", None), ("cG==", None), ("c\nG5=\n", None), ("cG=\r\n=", None),
    ("cG5", 0), ("cG5ncG", 4), ("cG5n*", 4), ("*", 0), ("cé5n", 1), ("cG=", 3), ("cG=x", 2), ("cG==x", 4), ("cG5=x", 4), ("c===", 1), ("=", 0), ("cG5n=", 4),
])
def test_base64_as_go_reads_it(text: str, at: int | None) -> None:
    assert corrupt_at(text) == at


def in_native(image: str) -> tuple[str, dict]:
    return "/api/chat", {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "x", "images": [GOOD, image]}]}


def in_generate(image: str) -> tuple[str, dict]:
    return "/api/generate", {"prompt": "x", "images": [GOOD, image]}


def in_openai(image: str) -> tuple[str, dict]:
    content = [{"type": "text", "text": "x"}] + [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{each}"}} for each in (GOOD, image)]
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": content}]}


def in_responses(image: str) -> tuple[str, dict]:
    content = [{"type": "input_text", "text": "x"}] + [{"type": "input_image", "image_url": f"data:;base64,{each}"} for each in (GOOD, image)]
    return "/v1/responses", {"input": [{"type": "message", "role": "user", "content": content}]}


def in_anthropic(image: str) -> tuple[str, dict]:
    first, second = ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": each}} for each in (GOOD, image))
    content = [first, {"type": "tool_result", "tool_use_id": "x", "content": [second, {"type": "text", "text": "x"}]}]
    return "/v1/messages", {"max_tokens": 1, "messages": [{"role": "user", "content": content}]}


@pytest.mark.parametrize("put", [in_native, in_generate, in_openai, in_responses, in_anthropic])
def test_images_are_counted_and_their_base64_is_read(sim: Simulator, put) -> None:
    path, body = put(GOOD)
    assert post(sim.port, path, {"model": MODEL, "stream": False, **body}).status == 200 and sim.requests[-1].images == 2
    path, body = put("cG5n*")
    reply = post(sim.port, path, {"model": MODEL, "stream": False, **body})
    assert (reply.status, sim.requests[-1].images) == (400, 0) and b"illegal base64 data at input byte 4" in reply.body


@pytest.mark.parametrize(("url", "text"), [("https://x.example/a.png", "image URLs are not currently supported"), ("data:image/gif;base64,", "invalid image input")])
def test_images_that_are_no_data_are_refused(sim: Simulator, url: str, text: str) -> None:
    content = [{"type": "image_url", "image_url": {"url": url}}]
    reply = post(sim.port, "/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": content}]})
    assert reply.status == 400 and text in reply.json()["error"]["message"]
    content = [{"type": "image", "source": {"type": "url", "url": url}}]
    reply = post(sim.port, "/v1/messages", {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": content}]})
    assert reply.status == 400 and reply.json()["request_id"].startswith("req_")


# -- streams of events ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "special"), [("/v1/messages", True), ("/v1/responses", True), ("/v1/chat/completions", False)])
def test_the_headers_of_streams_of_events(sim: Simulator, path: str, special: bool) -> None:
    body = {"model": MODEL, "max_tokens": 2, "messages": ASK, "input": "x", "stream": True}
    found = [post(sim.port, path, body | {"model": name}).headers for name in (MODEL, "nothere")]
    assert [(headers.get("cache-control"), headers.get("connection")) for headers in found] == [("no-cache", "keep-alive") if special else (None, None)] * 2
    for fields, headers in (({"stream": False}, {}), ({}, {"Connection": "close"}), ({"max_tokens": 0, "input": [{"type": "x"}]}, {})):
        assert post(sim.port, path, body | fields, **headers).headers.get("connection") == headers.get("Connection")


def test_an_unknown_item_is_refused(sim: Simulator) -> None:
    assert b"unknown input item type: x" in post(sim.port, "/v1/responses", {"model": MODEL, "input": [{"type": "x"}]}).body


@pytest.mark.parametrize("by", ["fin", "rst"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_cuts_and_rubbish_on_the_newer_streams(sim: Simulator, path: str, by: str) -> None:
    body = {"model": MODEL, "max_tokens": 9, "messages": ASK, "input": "x", "stream": True}
    sim.script(Fault(cut_body=300, by=by))
    cut = post(sim.port, path, body)
    assert cut.status == 200 and not cut.complete and len(sim.requests[-1].sent) < 300
    sim.script(Fault(no_done=True))
    ended = post(sim.port, path, body)
    assert ended.complete and b"message_stop" not in ended.body and b"response.completed" not in ended.body
    sim.script(Fault(garbage=True))
    assert b"data: this event is no JSON\n\n" in post(sim.port, path, body).body


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_the_runner_dies_in_silence(sim: Simulator, path: str) -> None:
    sim.script(Fault(error_line=True))
    reply = post(sim.port, path, {"model": MODEL, "max_tokens": 9, "messages": ASK, "input": "x", "stream": True})
    assert reply.complete and b"error_" not in reply.body and not reply.body.endswith((b'"message_stop"}\n\n', b'"response.completed"}\n\n'))


@pytest.mark.parametrize(("prompt", "tokens"), [("Say hello.", 3), ("Write a very long story about a dragon.", 10), ("", 1)])
def test_the_estimate_at_the_start_of_a_message(sim: Simulator, prompt: str, tokens: int) -> None:
    body = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": prompt}], "stream": True}
    assert events(post(sim.port, "/v1/messages", body))[0]["message"]["usage"] == {"input_tokens": tokens, "output_tokens": 0}


@pytest.mark.parametrize(("status", "kind"), [
    (400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"), (404, "not_found_error"),
    (429, "rate_limit_error"), (500, "api_error"), (503, "overloaded_error"), (529, "overloaded_error"),
])
def test_the_kinds_of_errors_in_anthropic(sim: Simulator, status: int, kind: str) -> None:
    sim.script(Fault(status=status))
    error = post(sim.port, "/v1/messages", {"model": MODEL}).json()
    assert (error["type"], error["error"]) == ("error", {"type": kind, "message": "simulated failure"}) and len(error["request_id"]) == 28


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
    sim.script(Fault(error_line=True))
    body, kind = form(model=MODEL, file="RIFF")
    assert post(sim.port, "/v1/audio/transcriptions", body, Content_Type=kind).json()["error"]["type"] == "api_error"


def test_what_came_is_written_down(sim: Simulator) -> None:
    body = {"model": MODEL, "max_tokens": 2, "messages": ASK, "Extra": [1]}
    post(sim.port, "/v1/messages?beta=true", body, Anthropic_Version="2023-06-01", X_API_Key="k")
    seen = sim.requests[-1]
    assert (seen.method, seen.path, seen.query, seen.json()) == ("POST", "/v1/messages", "beta=true", body)
    assert (seen.headers["anthropic-version"], seen.headers["x-api-key"]) == ("2023-06-01", "k")
