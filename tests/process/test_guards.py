"""What a request may ask of a model: runaway answers ended by their length and by their time on every route, and bad options (reliability.md §5.E5).

One Hermes for all of it. A runaway is an answer of the stand-in that would take hours; its record of requests shows what reached it.
"""

import json
import signal
import time
from collections.abc import Iterator

import pytest

from hermes.simulator import SimModel, Simulator, expected_text
from tests.harness import SLOW, Client, Hermes, Reply, eventually, in_threads, post

RUN = 0.4                       # seconds: max_run_time of "brief"
CONFIG = f"""
[server]
heartbeat = "150ms"
[models.short]
max_output_tokens = 5
max_concurrency = 4
[models.brief]
max_run_time = {RUN}
max_concurrency = 4
[models.single]
max_run_time = {RUN}
[models.bounded]
max_keep_alive = "10m"
options = {{ num_ctx = [0, 8192], temperature = [0, 1] }}
[models.vectors]
max_output_tokens = 5
max_keep_alive = "10m"
options = {{ num_ctx = [0, 8192] }}
[models.plain]
"""
ENDLESS = "@@tokens=1000000,interval=0.01@@"
FAST = "@@tokens=100000000,interval=0@@"
MODELS = [SimModel(name, load_time=0.0) for name in ("short", "brief", "single", "bounded", "plain", "unlisted")] + [SimModel("vectors", capabilities=("embedding",))]

# Path, and what a request needs beside the model, around the text {}.
ROUTES = [("/api/generate", {"prompt": "{}"}), ("/api/chat", {"messages": [{"role": "user", "content": "{}"}]}), ("/v1/completions", {"prompt": "{}"}),
          ("/v1/chat/completions", {"messages": [{"role": "user", "content": "{}"}]}), ("/v1/messages", {"max_tokens": 10**9, "messages": [{"role": "user", "content": "{}"}]}),
          ("/v1/responses", {"input": "{}"}), ("/v1/llm/{}", {"prompt": "{}"})]
CASES = [(path, body, stream) for path, body in ROUTES for stream in (True, False)]
NATIVE = [route for route in ROUTES if route[0].startswith("/api/")]


@pytest.fixture(scope="module")
def ollama() -> Iterator[Simulator]:
    with Simulator(MODELS, parallel=8, max_loaded=9, keep_bodies=True) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def hermes(ollama: Simulator) -> Iterator[Hermes]:
    with Hermes(ollama.url, CONFIG) as gateway:
        eventually(lambda: all(gateway.staffed(model["name"]) for model in gateway.status()["models"]))
        yield gateway


def request(path: str, body: dict, model: str, text: str) -> tuple[str, dict]:
    """The path and the body of a request that says `text`."""
    filled = json.loads(json.dumps(body).replace("{}", text))
    return path.replace("{}", model), filled if path.startswith("/v1/llm/") else {"model": model, **filled}


def last_of(ollama: Simulator, text: str):
    """The stand-in's record of the request that says `text`."""
    return next(one for one in reversed(ollama.requests) if text.encode() in one.body)


def events(reply: Reply) -> list[dict]:
    """The data of a stream, NDJSON or SSE."""
    lines = [line.strip().removeprefix(b"data: ") for line in reply.body.split(b"\n")]
    return [json.loads(line) for line in lines if line.startswith(b"{")]


def reason(records: list[dict]) -> object:
    """Why an answer ended, in the words of its route."""
    for one in reversed(records):
        found = one.get("done_reason") or one.get("stop_reason") or one.get("delta", {}).get("stop_reason")
        if found or (found := (one.get("choices") or [{}])[0].get("finish_reason")):
            return found
    return None


def idle(hermes: Hermes, name: str) -> bool:
    workers = hermes.model(name)["workers"]
    return workers["idle"] == workers["max"]


# -- the length of an answer ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("said", [None, -1, 10**6, 3])
def test_a_runaway_ends_by_its_length(hermes: Hermes, ollama: Simulator, said: int | None) -> None:
    """`said`: the request's own limit, which counts if it is lower."""
    def ask(number: int) -> tuple[Reply, object]:
        (path, body, stream), text = CASES[number], f"length {number} {said} {ENDLESS}"
        path, body = request(path, body, "short", text)
        if said is not None:
            body |= {"options": {"num_predict": said}} if path.startswith(("/api", "/v1/llm")) else {"max_output_tokens" if "responses" in path else "max_tokens": said}
        reply = post(hermes.port, path, body | {"stream": stream})
        return reply, last_of(ollama, f"length {number} {said} ")

    replies, most = in_threads(len(CASES), ask), min(5, said) if said and said > 0 else 5
    for (path, _, stream), (reply, asked) in zip(CASES, replies, strict=True):
        if path == "/v1/messages" and said == -1:
            assert reply.status == 400 and "max_tokens" in reply.json()["error"]["message"], "Ollama itself wants a limit there"
            continue
        assert (reply.status, reply.complete) == (200, True), path
        sent = asked.json()
        assert (sent["options"]["num_predict"] if asked.path.startswith("/api") else sent["max_output_tokens" if "responses" in path else "max_tokens"]) == most
        assert expected_text(asked.prompt, most) in text_of(reply, stream)
        if "responses" not in path:             # which says "completed" even then
            assert reason(events(reply) if stream else [reply.json()]) == ("max_tokens" if path == "/v1/messages" else "length"), path
    assert idle(hermes, "short")


def text_of(reply: Reply, stream: bool) -> str:
    """All the text of an answer, whatever its route."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in ("response", "content", "text", "delta", "output_text") and isinstance(inner, str):
                    found.append(inner)
                else:
                    walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(events(reply) if stream else reply.json())
    return "".join(found)


def test_what_writes_nothing_is_untouched(hermes: Hermes, ollama: Simulator) -> None:
    for path, body in (("/api/embed", b'{"model":"vectors", "input":"x","options":{"num_predict":-1}}'), ("/api/embeddings", b'{"model":"vectors","prompt":"x"}'),
                       ("/v1/embeddings", b'{"model":"vectors","input":"x","max_tokens":-1}')):
        assert post(hermes.port, path, body).status == 200 and ollama.requests[-1].body == body


def test_no_limit_no_change(hermes: Hermes, ollama: Simulator) -> None:
    body = b'{ "model":"plain",\n"prompt":"as it is" ,"options":{"num_predict" : -1, "seed":1.0},"max_tokens":3,"keep_alive":"999h", "unknown":[1e400] }'
    assert post(hermes.port, "/api/generate", body).status == 200 and ollama.requests[-1].body == body
    body = b'{"model":"plain", "messages":[{"role":"user","content":"as it is"}], "temperature" : 1.50,"max_completion_tokens":9}'
    assert post(hermes.port, "/v1/chat/completions", body).status == 200 and ollama.requests[-1].body == body


# -- the time of a call --------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("name", "pace"), [("steady", ENDLESS), ("fast", FAST)])
def test_a_runaway_ends_by_its_time(hermes: Hermes, ollama: Simulator, name: str, pace: str) -> None:
    """Streams by an error in their route's shape and without a clean end, plain answers by 504; who runs beside them is not disturbed."""
    cases = CASES if pace == ENDLESS else CASES[:1]        # one alone is fast, and a plain one would never fit into the stand-in's memory
    with Client(hermes.port) as other:
        other.send("POST", "/api/generate", {"model": "plain", "prompt": f"beside {name} @@tokens=100,interval=0.02@@"}).read_until(b'"done":false')

        def ask(number: int) -> tuple[Reply, object, float]:
            (path, body, stream), text = cases[number], f"{name} {number} {pace}"
            path, body = request(path, body, "brief", text)
            began = time.monotonic()
            reply = post(hermes.port, path, body | {"stream": stream})
            return reply, last_of(ollama, f"{name} {number} {pace}"), time.monotonic() - began

        replies = in_threads(len(cases), ask)
        eventually(lambda: idle(hermes, "brief"), 1.0 * SLOW, "being free again")
        for (path, _, stream), (reply, asked, took) in zip(cases, replies, strict=True):
            assert eventually(lambda asked=asked: asked.client_left_at), "Ollama's connection is closed"
            assert RUN <= took and asked.client_left_at - asked.arrived < (RUN + 1.0) * SLOW, "it has its time, and no second more"
            if stream:
                check_cut(path, reply)
            else:
                assert (reply.status, reply.complete, reply.headers.get("x-should-retry")) == (504, True, "false"), path
                check_error(path, reply.json())
        whole = other.reply()
        assert whole.complete and len(whole.records()) == 101 and whole.body == last_of(ollama, f"beside {name}").sent
    assert not ollama.running("brief") and hermes.model("brief")["restarts"] == 0, "the workers live on"
    for status in {200 if stream else 504 for _, _, stream in cases}:
        assert hermes.line(f"status={status} outcome=run_time_exceeded")


def check_cut(path: str, reply: Reply) -> None:
    assert (reply.status, reply.complete) == (200, False), path
    records = events(reply)
    assert len(records) > 1 and "error" not in records[0], "what had come until then was handed on"
    assert not any(word in reply.body for word in (b"[DONE]", b"message_stop", b"response.completed", b'"done":true'))
    check_error(path, records[-1])


def check_error(path: str, record: dict) -> None:
    """An error of this route's family that names the key."""
    error = record["error"]
    if path in ("/v1/messages", "/v1/responses") and "sequence_number" not in record:
        assert record["type"] == "error" if path == "/v1/messages" else "code" in error
    if path == "/v1/messages":
        assert error["type"] == "timeout_error"
    elif path.startswith("/v1/") and not path.startswith("/v1/llm"):
        assert error["code"] == "run_time_exceeded"
    assert "max_run_time" in (error["message"] if isinstance(error, dict) else error)


@pytest.mark.parametrize("slow", ["prompt_time=60", "delay=60", "load_time=60,prompt_time=60"])
def test_an_answer_that_has_not_begun(hermes: Hermes, ollama: Simulator, slow: str) -> None:
    reply = post(hermes.port, "/api/generate", {"model": "brief", "prompt": f"@@{slow}@@", "stream": False})
    assert reply.status == 504 and "max_run_time" in reply.json()["error"]
    reply = post(hermes.port, "/api/generate", {"model": "brief", "prompt": f"@@{slow}@@"})
    assert (reply.status, reply.complete) == (200, False) and reply.body.startswith(b" ") and "max_run_time" in reply.records()[-1]["error"], "it had shown signs of life"


def test_the_wait_for_a_turn_is_not_counted(hermes: Hermes) -> None:
    with Client(hermes.port) as first:
        first.send("POST", "/api/generate", {"model": "single", "prompt": f"first {ENDLESS}"}).read_until(b'"done":false')
        began = time.monotonic()
        with Client(hermes.port) as second, Client(hermes.port) as third:
            second.send("POST", "/api/generate", {"model": "single", "prompt": f"second {ENDLESS}", "stream": False})
            eventually(lambda: hermes.model("single")["queue"]["depth"] == 1)
            third.send("POST", "/api/generate", {"model": "single", "prompt": "third", "stream": False})
            assert second.reply().status == 504
            assert third.reply().status == 200 and time.monotonic() - began > RUN, "it was served, and had waited for longer than it may run"
        assert not first.reply().complete


# -- options -------------------------------------------------------------------------------------------------------

REFUSED = [
    ('"options":[]', "json: cannot unmarshal array into Go struct field"), ('"options":"x"', "json: cannot unmarshal string"), ('"options":1', "json: cannot unmarshal number"),
    ('"options":{"num_ctx":1000000000}', 'option "num_ctx" must be from 0 to 16777216'), ('"options":{"num_ctx":-1}', 'option "num_ctx" must be from 0'),
    ('"options":{"num_ctx":"8192"}', 'option "num_ctx" must be of type integer'), ('"options":{"num_ctx":true}', "of type integer"), ('"options":{"num_ctx":[1]}', "of type integer"),
    ('"options":{"num_ctx":1e400}', 'option "num_ctx" must be from'), ('"options":{"temperature":1e400}', 'option "temperature" must be from'),
    ('"options":{"temperature":-1e400}', 'option "temperature" must be from'), ('"options":{"temperature":NaN}', "not valid JSON"),
    ('"options":{"temperature":Infinity}', "not valid JSON"), ('"options":{"temperature":"hot"}', "of type float32"), ('"options":{"use_mmap":1}', "of type boolean"),
    ('"options":{"stop":"x"}', "of type array"), ('"options":{"stop":[1]}', "of an array of strings"), ('"options":{"num_batch":-1}', "num_batch"),
    ('"options":{"num_thread":-1}', "num_thread"), ('"options":{"num_gpu":-2}', "num_gpu"), ('"options":{"num_predict":"all"}', "of type integer"),
    ('"options":{"seed":1},"OPTIONS":{}', "twice"), ('"keep_alive":true', "Unsupported type: 'bool'"), ('"keep_alive":{}', "Unsupported type: 'map[string]interface {}'"),
    ('"keep_alive":1e400', "keep_alive must be"), ('"keep_alive":"99999999999h"', "keep_alive must be")]
TARGETS = [("/api/generate", '"prompt":"e5"', "plain"), ("/api/chat", '"messages":[{"role":"user","content":"e5"}]', "plain"), ("/api/embed", '"input":"e5"', "vectors"),
           ("/api/embeddings", '"prompt":"e5"', "vectors"), ("/v1/llm/plain", '"prompt":"e5"', "")]


@pytest.mark.parametrize(("path", "text", "model"), TARGETS)
def test_bad_options_are_refused_and_reach_nobody(hermes: Hermes, ollama: Simulator, path: str, text: str, model: str) -> None:
    before, named = len(ollama.requests), f'"model":"{model}",' if model else ""
    for wrong, words in REFUSED:
        if not model and words.startswith(("json:", "Unsupported")):
            words = "must be"                   # Hermes's own route has Hermes's own words
        reply = post(hermes.port, path, f"{{{named}{text},{wrong}}}".encode())
        assert reply.status == 400 and words in reply.json()["error"], (wrong, reply.body)
    assert not [one for one in list(ollama.requests)[before:] if one.inference]


@pytest.mark.parametrize(("path", "text", "model"), TARGETS)
def test_what_ollama_does_not_know_does_not_reach_it(hermes: Hermes, ollama: Simulator, path: str, text: str, model: str) -> None:
    named = f'"model":"{model}",' if model else ""
    reply = post(hermes.port, path, f'{{{named}{text},"options":{{"n_discard":-1,"NUM_CTX":1,"seed":1.50,"mirostat":1e400,"num_predict":7}}}}'.encode())
    assert reply.status == 200
    assert last_of(ollama, '"seed":1.50').json()["options"] == {"seed": 1.5, "num_predict": 7} and b"n_discard" not in ollama.requests[-1].body


def test_what_ollama_takes_is_taken(hermes: Hermes, ollama: Simulator) -> None:
    for path, text, model in TARGETS[:4]:
        for options in ('{"num_ctx":4096.9,"seed":-1,"stop":[],"top_p":1e0,"use_mmap":false,"num_gpu":null}', "null", "{}"):
            body = f'{{"model":"{model}",{text},"options":{options}}}'.encode()
            if model == "vectors":
                body = body.replace(b"4096.9", b"512")
            assert post(hermes.port, path, body).status == 200 and ollama.requests[-1].body == body


def test_a_keep_alive_that_ollama_cannot_read_is_ollamas_to_refuse(hermes: Hermes) -> None:
    reply = post(hermes.port, "/api/generate", {"model": "plain", "prompt": "x", "keep_alive": "-1"})
    assert (reply.status, reply.json()["error"]) == (400, 'time: missing unit in duration "-1"')


@pytest.mark.parametrize(("path", "body"), NATIVE)
def test_bounds_and_the_cap(hermes: Hermes, ollama: Simulator, path: str, body: dict) -> None:
    before = len(ollama.requests)
    for options, words in (({"num_ctx": 8193}, 'option "num_ctx" must be from 0 to 8192 for this model'), ({"temperature": 1.1}, 'option "temperature" must be from 0 to 1 for this model')):
        reply = post(hermes.port, *request(path, body | {"options": options}, "bounded", "x"))
        assert (reply.status, reply.json()["error"]) == (400, words)
    assert len(ollama.requests) == before
    for given, kept in (("999h", 600), (-1, 600), ("-1s", 600), (3600, 600), ("5m", "5m"), (0.5, 0.5)):
        assert post(hermes.port, *request(path, body | {"keep_alive": given, "options": {"num_ctx": 8192, "temperature": 1}}, "bounded", "x")).status == 200
        assert ollama.requests[-1].json()["keep_alive"] == kept
    assert post(hermes.port, *request(path, body | {"keep_alive": "forever"}, "bounded", "x")).status == 400


@pytest.mark.parametrize(("path", "body"), [route for route in ROUTES if route[0].startswith("/v1/") and "llm" not in route[0]])
def test_bounds_on_the_v1_routes(hermes: Hermes, ollama: Simulator, path: str, body: dict) -> None:
    before = len(ollama.requests)
    for given in ("1.1", "1e400", "-1"):
        path_, body_ = request(path, body, "bounded", "x")
        reply = post(hermes.port, path_, json.dumps(body_)[:-1].encode() + b',"temperature":%b}' % given.encode())
        error = reply.json()["error"]
        assert reply.status == 400 and 'option "temperature" must be from' in error["message"] and error["type"] == "invalid_request_error"
    assert len(ollama.requests) == before
    shorter = {"max_tokens": 5} if "max_tokens" in body else {}         # which the stand-in takes for a wish
    assert post(hermes.port, *request(path, body | shorter | {"temperature": 1}, "bounded", "x")).status == 200


def test_a_reload_brings_limits(hermes: Hermes, ollama: Simulator) -> None:
    """Those of [defaults] are an unlisted model's as well; what runs already runs under the old ones."""
    with Client(hermes.port) as client:
        client.send("POST", "/api/generate", {"model": "unlisted", "prompt": "before @@tokens=60,interval=0.02@@"}).read_until(b'"done":false')
        hermes.write_config(CONFIG + '[defaults]\nmax_output_tokens = 3\nmax_run_time = "300ms"\n')
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert len(client.reply().records()) == 61
    reply = post(hermes.port, "/api/generate", {"model": "unlisted", "prompt": "after @@prompt_time=5@@", "stream": False})
    assert reply.status == 504 and last_of(ollama, "after @@").json()["options"] == {"num_predict": 3}
