"""The client's own names on every route: what he calls a model, where it may run, and how it is loaded."""

import json
import signal
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hermes.simulator import SimModel, Simulator
from tests.harness import Client, Hermes, Reply, eventually, get, in_threads, post

CHAT = [{"role": "user", "content": "hello"}]
ALIASES = '[models.Mine]\nmodel = "smollm2:135m"\n[models.vectors]\nmodel = "all-minilm"\n'


# -- aliases -------------------------------------------------------------------------------------------------------

GENERATING = [("/api/generate", {"prompt": "x"}), ("/api/generate", {"prompt": "x", "stream": False}), ("/api/generate", {}),
              ("/api/chat", {"messages": CHAT}), ("/api/chat", {"messages": CHAT, "stream": False}),
              ("/v1/chat/completions", {"messages": CHAT}), ("/v1/chat/completions", {"messages": CHAT, "stream": True}),
              ("/v1/completions", {"prompt": "x"}), ("/v1/completions", {"prompt": "x", "stream": True}),
              ("/v1/messages", {"messages": CHAT, "max_tokens": 16}), ("/v1/messages", {"messages": CHAT, "max_tokens": 16, "stream": True}),
              ("/v1/responses", {"input": "x"}), ("/v1/responses", {"input": "x", "stream": True})]
VECTORS = [("/api/embed", {"input": ["a", "b"]}), ("/v1/embeddings", {"input": "a"})]


@pytest.mark.parametrize("name", ["Mine", "MINE:latest"])
def test_the_answer_has_the_clients_spelling(name: str) -> None:
    with Simulator(keep_bodies=True) as ollama, Hermes(ollama.url, ALIASES) as hermes:
        calls = [(path, {"model": name, **body}) for path, body in GENERATING] + [(path, {"model": "vectors:LATEST", **body}) for path, body in VECTORS]
        for path, body in calls:
            reply = post(hermes.port, path, body)
            asked, theirs = ollama.requests[-1], "smollm2:135m" if body["model"] == name else "all-minilm"
            old, new = (f'"model":"{one}"'.encode() for one in (theirs, body["model"]))
            assert json.loads(asked.body) == {**body, "model": theirs}
            assert (reply.status, reply.complete) == (200, True)
            assert reply.body == asked.sent.replace(old, new) and new in reply.body and old not in reply.body, path


def test_a_spelling_that_ollama_knows_goes_through_untouched() -> None:
    with Simulator(keep_bodies=True) as ollama, Hermes(ollama.url, ALIASES) as hermes:
        for name in ("SMOLLM2:135M", "library/smollm2:135m", "registry.ollama.ai/library/SmolLM2:135M"):
            reply = post(hermes.port, "/api/generate", {"model": name, "prompt": "x"})
            assert json.loads(ollama.requests[-1].body)["model"] == name and reply.body == ollama.requests[-1].sent
            assert reply.records()[0]["model"] == name
        assert {model["name"] for model in hermes.status()["models"]} == {"Mine", "vectors"}, "they all share a pool"


def test_an_old_client_gets_his_spelling_too() -> None:
    with Simulator() as ollama, Hermes(ollama.url, ALIASES) as hermes, Client(hermes.port) as client:
        body = b'{"model":"Mine","prompt":"x"}'
        client.send_raw(b"POST /api/generate HTTP/1.0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        records = client.reply().records()
        assert records[-1]["done"] and {record["model"] for record in records} == {"Mine"}


def test_show_and_retrieve_know_the_name() -> None:
    with Simulator(keep_bodies=True) as ollama, Hermes(ollama.url, ALIASES + '[models.gone]\nmodel = "nothere"\n') as hermes:
        for body in ({"model": "mine"}, {"name": "MINE:latest"}, {"model": "", "name": "mine", "verbose": True}, {"model": None, "name": "mine"}):
            assert post(hermes.port, "/api/show", body).body == ollama.requests[-1].sent
            assert json.loads(ollama.requests[-1].body) == {**body, "model" if body.get("model") else "name": "smollm2:135m"}
        odd = b'{ "name" : "Smollm2:135m", "x":1.50 } more'
        assert post(hermes.port, "/api/show", odd).status == 200 and ollama.requests[-1].body == odd
        direct = post(ollama.port, "/api/show", b"{")
        assert (post(hermes.port, "/api/show", b"{").body, post(hermes.port, "/api/show", {"model": 3}).status) == (direct.body, 400)
        assert post(hermes.port, "/api/show", {"model": "Gone"}).json() == {"error": "model 'Gone' not found"}
        for name in ("Mine", "mine:latest", "mine%3ALATEST", "smollm2:135m", "SMOLLM2:135M"):
            reply = get(hermes.port, f"/v1/models/{name}")
            assert (reply.status, reply.json()["id"]) == (200, name.replace("%3A", ":")), name
        gone = get(hermes.port, "/v1/models/gone")
        assert gone.status == 404 and "'gone'" in gone.json()["error"]["message"] and "nothere" not in gone.body.decode()
        assert [model["name"] for model in get(hermes.port, "/api/tags").json()["models"]] == [model["name"] for model in get(ollama.port, "/api/tags").json()["models"]]


def test_errors_speak_of_the_clients_name() -> None:
    with Simulator() as ollama, Hermes(ollama.url, ALIASES + '[models.gone]\nmodel = "nothere"\n') as hermes:
        for path, body in [*GENERATING, *VECTORS]:
            text = json.dumps(post(hermes.port, path, {"model": "Gone", **body}).json())
            assert "Gone" in text and "nothere" not in text, path
        own = post(hermes.port, "/v1/llm/Gone", {"prompt": "x"})
        assert (own.status, own.json()) == (404, {"error": "model 'Gone' not found"})
        assert post(hermes.port, "/api/generate", {"model": "Vectors", "prompt": "x"}).json() == {"error": '"Vectors" does not support generate'}
        tools = post(hermes.port, "/api/chat", {"model": "mine", "messages": CHAT, "tools": [{}]})
        assert tools.status == 400 and tools.json() == {"error": "mine does not support tools"}


def test_names_with_slashes_on_every_route() -> None:
    """As they are, and percent-encoded in a path; any letter case, one pool."""
    name = "hf.co/user/Repo:Q4_K_M"
    models = (SimModel(name, capabilities=("completion", "embedding")),)
    with Simulator(models=models) as ollama, Hermes(ollama.url, f'[models."{name}"]\nmax_concurrency = 2\n') as hermes:
        for spelling in (name, name.upper()):
            for path, body in [*GENERATING, *VECTORS]:
                reply = post(hermes.port, path, {"model": spelling, **body})
                assert reply.status == 200 and f'"model":"{spelling}"'.encode() in reply.body, path
            assert post(hermes.port, "/api/show", {"model": spelling}).status == 200
            for raw in (spelling, spelling.replace("/", "%2F")):
                found = get(hermes.port, f"/v1/models/{raw}")
                assert (found.status, found.json()["id"], found.json()["object"]) == (200, spelling, "model"), "Ollama has no path for it"
            for raw in (spelling, spelling.replace("/", "%2F"), spelling.replace("/", "%2f").replace(":", "%3A")):
                own = post(hermes.port, f"/v1/llm/{raw}", {"prompt": "x"})
                assert (own.status, own.json()["model"]) == (200, spelling)
                pulled = post(hermes.port, f"/v1/llm/{raw}/pull", {"stream": False})
                assert (pulled.status, pulled.json()) == (200, {"status": "ready"})
        for raw in ("hf.co/user/other", "hf.co%2Fuser%2Frepo", "a/b/c/d", "x%20y/z"):
            missing = get(hermes.port, f"/v1/models/{raw}")
            assert missing.status == 404 and missing.json()["error"]["type"] == "not_found_error", raw
        assert [model["name"] for model in hermes.status()["models"]] == [name]
        assert {request.model for request in ollama.requests if request.model} == {name.lower()}


def test_two_sources() -> None:
    text = 'use either :local or :cloud, not both: "x:local:cloud"'
    with Simulator() as ollama, Hermes(ollama.url) as hermes:
        for path in ("/api/generate", "/api/chat"):
            reply = post(hermes.port, path, {"model": "x:local:cloud", "prompt": "x", "messages": CHAT})
            assert (reply.status, reply.json()) == (400, {"error": text})
        assert post(hermes.port, "/v1/chat/completions", {"model": "x:local:cloud", "messages": CHAT}).json()["error"]["message"] == text
        for path in ("/v1/llm/x:local:cloud", "/v1/llm/x:local:cloud/pull"):
            reply = post(hermes.port, path, {"prompt": "x"})
            assert (reply.status, reply.json()) == (400, {"error": text})


# -- where a model may run -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["gpt-oss:cloud", "GPT-OSS:120b-cloud", "mine"])
def test_no_request_leaves_the_machine(name: str) -> None:
    config = '[models.mine]\nmodel = "gpt-oss:20b:cloud"\n'
    with Simulator() as ollama, Hermes(ollama.url, config) as hermes:
        for path, body in [*GENERATING, *VECTORS, (f"/v1/llm/{name}", {"prompt": "x"}), (f"/v1/llm/{name}/pull", {})]:
            body = body if "/llm/" in path else {"model": name, **body}
            reply = post(hermes.port, path, body)
            assert reply.status == 403 and b"allow_cloud" in reply.body and name.encode() in reply.body, path
        assert isinstance(post(hermes.port, "/v1/completions", {"model": name}).json()["error"], dict)
        seen = [request.path for request in ollama.requests]
        assert not {path for path in seen if path.startswith(("/api/show", "/api/generate", "/api/chat", "/api/embed", "/api/pull", "/v1/"))}
        direct = post(ollama.port, "/api/show", {"model": "gpt-oss:cloud"})
        assert post(hermes.port, "/api/show", {"model": "gpt-oss:cloud"}).status == direct.status, "looking is allowed"


def test_requests_leave_if_they_may() -> None:
    with Simulator() as ollama, Hermes(ollama.url, "[ollama]\nallow_cloud = true\n[models.mine]\nmodel = \"gpt-oss:cloud\"\n") as hermes:
        reply, direct = (post(port, "/api/generate", {"model": model, "prompt": "x"}) for port, model in ((hermes.port, "mine"), (ollama.port, "gpt-oss:cloud")))
        assert (reply.status, reply.body) == (direct.status, direct.body.replace(b"gpt-oss:cloud", b"mine"))


# -- how it is loaded ----------------------------------------------------------------------------------------------

def test_keep_alive_on_every_route() -> None:
    config = '[defaults]\nkeep_alive = -1\n[models.brief]\nmodel = "gemma3:270m"\nkeep_alive = "1h"\n'
    with Simulator(keep_alive=5.0) as ollama, Hermes(ollama.url, config) as hermes:
        def stays(name: str) -> bool:
            [found] = [model for model in get(hermes.port, "/api/ps").json()["models"] if model["name"] == name]
            return int(found["expires_at"][:4]) > 2300

        for path, body in [(path, {"model": "smollm2:135m", **body}) for path, body in GENERATING] + [("/v1/llm/smollm2:135m", {"prompt": "x"})]:
            assert post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": "x", "keep_alive": "10m"}).status == 200
            assert not stays("smollm2:135m"), "the client's own holds for its request"
            assert post(hermes.port, path, body).status == 200
            assert stays("smollm2:135m"), path
        for path, body in VECTORS:
            assert post(hermes.port, "/api/embed", {"model": "all-minilm", "input": "x", "keep_alive": 60}).status == 200
            assert not stays("all-minilm:latest")
            assert post(hermes.port, path, {"model": "all-minilm", **body}).status == 200 and stays("all-minilm:latest"), path
        assert post(hermes.port, "/v1/chat/completions", {"model": "brief", "messages": CHAT}).json()["model"] == "brief"
        assert not stays("gemma3:270m")
        [*_, ahead, said] = [request for request in ollama.requests if request.model == "gemma3:270m" and request.path != "/api/show"]
        assert said.path == "/v1/chat/completions" and (ahead.path, json.loads(ahead.body)) == ("/api/generate", {"model": "gemma3:270m", "keep_alive": "1h"})
        assert post(hermes.port, "/api/generate", {"model": "brief", "keep_alive": 0}).json()["done_reason"] == "unload"
        assert ollama.loads["smollm2:135m"] == ollama.loads["gemma3:270m"] == 1


def test_what_goes_ahead_may_be_refused_cancelled_or_cut() -> None:
    config = '[defaults]\nkeep_alive = "5m"\n[models.all-minilm]\n[ollama]\nfirst_byte_timeout = "60s"\n'
    with Simulator(load_time=0.0) as ollama, Hermes(ollama.url, config) as hermes:
        refused = post(hermes.port, "/v1/chat/completions", {"model": "all-minilm", "messages": CHAT})
        direct = post(ollama.port, "/v1/chat/completions", {"model": "all-minilm", "messages": CHAT})
        assert (refused.status, refused.json()) == (direct.status, direct.json())
    with Simulator(load_time=60.0) as ollama, Hermes(ollama.url, config) as hermes, Client(hermes.port) as client:
        client.send("POST", "/v1/chat/completions", {"model": "smollm2:135m", "messages": CHAT})
        eventually(lambda: ollama.load_starts.get("smollm2:135m"))
        client.close()
        eventually(lambda: hermes.model("smollm2:135m")["workers"]["idle"] == 1, what="the worker's return")
        assert not [request for request in ollama.requests if request.path.startswith("/v1/chat")]
    with Hermes("http://127.0.0.1:1", config) as hermes:
        assert post(hermes.port, "/v1/embeddings", {"model": "all-minilm", "input": "x"}).json()["error"]["code"] == "upstream_unreachable"


class Ollama(ThreadingHTTPServer):
    """An Ollama of one model file and its names, which loads it anew when the context changes (ollama-api.md §0.11, §3.1)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.names = {"gemma3:270m": None}
        self.requests: list[tuple[str, dict]] = []
        self.fault = ""
        self.loads: Counter[int] = Counter()
        self.context = 0
        self.lock = threading.Lock()

    def answer(self, path: str, asked: dict) -> tuple[int, dict]:
        name = asked.get("model", "")
        if path == "/api/create":
            if self.fault:
                return 500, {"error": self.fault}
            self.names[name] = asked["parameters"]["num_ctx"]
            return 200, {"status": "success"}
        if path == "/api/pull":
            return 200, {"status": "success"}
        if path not in ("/api/show", "/api/generate", "/api/chat", "/v1/chat/completions", "/v1/completions"):
            return 404, {"error": "404 page not found"}
        if name not in self.names:
            return 404, {"error": f"model '{name}' not found"}
        if path != "/api/show":
            context = asked.get("options", {}).get("num_ctx") if path.startswith("/api/") else None
            context = context or self.names[name] or 4096
            self.loads[context] += context != self.context
            self.context = context
        return 200, {"model": name, "done": True, "response": "", "choices": []}

    def __enter__(self) -> "Ollama":
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc) -> None:
        self.shutdown()
        self.server_close()

    def creates(self) -> list[dict]:
        return [asked for path, asked in self.requests if path == "/api/create"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, asked))
            status, record = self.server.answer(self.path, asked)
        body = json.dumps(record, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


CONTEXT = '[models.gemma]\nmodel = "gemma3:270m"\nnum_ctx = 8192\nmax_concurrency = 2\n'
DERIVED = "hermes/gemma3:270m-ctx8192"


def call(port: int, number: int, name: str = "gemma") -> Reply:
    path, body = [("/api/chat", {"messages": CHAT, "stream": False}), ("/v1/chat/completions", {"messages": CHAT}),
                  ("/api/generate", {"prompt": "x", "stream": False, "options": {"num_ctx": 2048, "seed": 1}}), ("/v1/completions", {"prompt": "x"})][number % 4]
    return post(port, path, {"model": name, **body})


def test_one_context_on_every_route_is_one_load() -> None:
    with Ollama() as ollama, Hermes(ollama.url, CONTEXT) as hermes:
        for number in range(12):
            for name in ("gemma", "gemma3:270m"):
                reply = call(hermes.port, number, name)
                assert (reply.status, reply.json()["model"]) == (200, name)
        assert post(hermes.port, "/v1/llm/gemma", {"prompt": "x", "options": {"seed": 1}}).status == 200
        assert ollama.loads == {8192: 1}
        assert ollama.creates() == [{"model": DERIVED, "from": "gemma3:270m", "parameters": {"num_ctx": 8192}, "stream": False}]
        models = {path: {asked["model"] for sent, asked in ollama.requests if sent == path} for path in ("/api/chat", "/v1/chat/completions", "/v1/completions")}
        assert models == {"/api/chat": {"gemma3:270m"}, "/v1/chat/completions": {DERIVED}, "/v1/completions": {DERIVED}}
        assert [asked["options"] for path, asked in ollama.requests if path == "/api/generate"][0] == {"num_ctx": 8192, "seed": 1}


def test_the_stand_in_agrees() -> None:
    """Native, OpenAI's and Anthropic's routes in turn: one load, and everybody reads his own name."""
    config = '[models.Mine]\nmodel = "smollm2:135m"\nnum_ctx = 2048\nkeep_alive = -1\n[models.vectors]\nmodel = "all-minilm"\nnum_ctx = 256\n'
    with Simulator(keep_bodies=True) as ollama, Hermes(ollama.url, config) as hermes:
        calls = [("mine", path, body) for path, body in GENERATING] + [("Vectors", path, body) for path, body in VECTORS]
        for number in range(2 * len(calls)):
            name, path, body = calls[7 * number % len(calls)]
            reply = post(hermes.port, path, {"model": name, **body})
            assert (reply.status, reply.complete) == (200, True), path
            assert f'"model":"{name}"'.encode() in reply.body and b"ctx" not in reply.body, path
            assert post(hermes.port, "/v1/llm/mine", {"prompt": "x"}).status == 200
        assert sum(ollama.loads.values()) == 2, ollama.loads
        [found] = [model for model in get(hermes.port, "/api/ps").json()["models"] if model["context_length"] == 2048]
        assert found["name"] in ("smollm2:135m", "hermes/smollm2:135m-ctx2048") and int(found["expires_at"][:4]) > 2300
        assert len([request for request in ollama.requests if request.path == "/api/create"]) == 2


def test_many_first_calls_make_one_second_name() -> None:
    with Ollama() as ollama, Hermes(ollama.url, CONTEXT) as hermes:
        assert {reply.status for reply in in_threads(16, lambda _: call(hermes.port, 1))} == {200}
        assert len(ollama.creates()) == 1 and ollama.loads == {8192: 1}


def test_a_second_name_that_cannot_be_made_is_an_error_and_no_other_context() -> None:
    with Ollama() as ollama, Hermes(ollama.url, CONTEXT) as hermes:
        ollama.fault = "no space left on device"
        reply = call(hermes.port, 1)
        assert reply.status == 502 and "no space left on device" in reply.json()["error"]["message"]
        assert call(hermes.port, 0).status == 200, "native calls need none"
        ollama.fault = ""
        assert call(hermes.port, 1).status == 200 and ollama.loads == {8192: 1}
        del ollama.names[DERIVED]
        missing = call(hermes.port, 1)
        assert missing.status == 404 and "'gemma'" in missing.json()["error"]
        assert call(hermes.port, 1).status == 200, "somebody had deleted it; it is made again"
        del ollama.names[DERIVED], ollama.names["gemma3:270m"]
        assert [call(hermes.port, 1).status for _ in range(3)] == [404] * 3
        assert len(ollama.creates()) == 3, "create would pull a model that is not there"


def test_a_reload_makes_it_anew() -> None:
    with Ollama() as ollama, Hermes(ollama.url, CONTEXT) as hermes:
        for times in (1, 2):
            assert call(hermes.port, 1).status == call(hermes.port, 1).status == 200
            assert len(ollama.creates()) == times
            hermes.signal(signal.SIGHUP)
            eventually(lambda: len([line for line in hermes.lines if "configuration reloaded" in line]) == times)
        ollama.requests.clear()
        assert call(hermes.port, 1).status == 200
        hermes.write_config(CONTEXT.replace("8192", "4096"))
        hermes.signal(signal.SIGHUP)
        eventually(lambda: len([line for line in hermes.lines if "configuration reloaded" in line]) == 3)
        assert call(hermes.port, 1).status == call(hermes.port, 0).status == 200
        assert [order["model"] for order in ollama.creates()] == [DERIVED, "hermes/gemma3:270m-ctx4096"]
        assert ollama.loads == {8192: 1, 4096: 1}


def test_a_pull_makes_it_anew_and_loads_as_configured() -> None:
    with Ollama() as ollama, Hermes(ollama.url, CONTEXT + 'keep_alive = "1h"\n') as hermes:
        assert call(hermes.port, 1).status == 200 and len(ollama.creates()) == 1
        assert post(hermes.port, "/v1/llm/gemma/pull", {"stream": False}).json() == {"status": "ready"}
        assert ollama.requests[-1] == ("/api/generate", {"model": "gemma3:270m", "options": {"num_ctx": 8192}, "keep_alive": "1h"})
        assert call(hermes.port, 1).status == 200 and len(ollama.creates()) == 2
        assert ollama.requests[-2:-1] == [("/api/generate", {"model": DERIVED, "keep_alive": "1h"})]
        assert ollama.loads == {8192: 1}


def test_nothing_is_made_where_no_context_is_configured() -> None:
    with Ollama() as ollama, Hermes(ollama.url, '[models.gemma]\nmodel = "gemma3:270m"\nkeep_alive = "5m"\n') as hermes:
        for number in range(4):
            assert call(hermes.port, number).json()["model"] == "gemma"
        assert not ollama.creates() and {asked["model"] for path, asked in ollama.requests} == {"gemma3:270m"}
