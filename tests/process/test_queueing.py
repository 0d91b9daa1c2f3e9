"""A queue that can be looked at and managed: requests ended in every phase, models at rest, and the commands that do it."""

import json
import re
import socket
import time
from contextlib import ExitStack, nullcontext

import pytest

from hermes.simulator import Simulator
from tests.harness import Client, Hermes, eventually, get, in_threads, post
from tests.process.test_fair import ENDLESS, ask, blocker, calls, config, depth, key, model, staffed
from tests.process.test_keys import run

SECRET = "a-secret-prompt"
MODEL = {"m": "smollm2:135m", "b": "gemma3:270m"}
PATHS = ("/api/generate", "/v1/chat/completions", "/v1/messages", "/v1/llm/")
PHASES = {"queued": ("m", ""), "loading": ("b", "@@load_time=60@@"), "prefill": ("m", "@@prompt_time=60@@"), "streaming": ("m", ENDLESS)}


@pytest.fixture(scope="module")
def ollama():
    with Simulator(tokens=1, parallel=8) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def hermes(ollama: Simulator):
    with Hermes(ollama.url, config(server='[defaults]\nembedding_class = "background"\n', ann="", stranger="", boss="manage = true\n")) as gateway:
        staffed(gateway, "boss")
        yield gateway


def send(hermes: Hermes, stack: ExitStack, path: str, prompt: str, name: str = "m", **fields: str) -> Client:
    """A streaming call of ann's."""
    said = {"prompt": prompt} if path in ("/api/generate", "/v1/llm/") else {"messages": [{"role": "user", "content": prompt}]}
    body = {"stream": True, "max_tokens": 100_000, **said} if path.startswith("/v1/") else {"stream": True, **said}
    if path == "/v1/llm/":
        path, body = path + name, {"stream": True, **said}
    else:
        body["model"] = name
    return stack.enter_context(Client(hermes.port)).send("POST", path, body, **key("ann") | fields)


def end(hermes: Hermes, request_id: str, name: str = "ann") -> tuple[int, dict]:
    reply = get(hermes.port, f"/v1/requests/{request_id}", "DELETE", **key(name))
    return reply.status, reply.json()


def requests(hermes: Hermes, name: str) -> list[dict]:
    reply = get(hermes.port, "/v1/status", **key(name))
    assert SECRET.encode() not in reply.body
    return reply.json()["requests"]


def rests(hermes: Hermes) -> None:
    for name in "mb":
        eventually(lambda: model(hermes, name, "boss")["workers"]["idle"] == 1)


NOT_FOUND = (404, {"error": "no such request is waiting or running"})


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("phase", PHASES)
def test_ended_by_its_own_client_in_every_phase(ollama: Simulator, hermes: Hermes, phase: str, path: str) -> None:
    rests(hermes)
    name, mark = PHASES[phase]
    request_id, before, workers = f"{phase}-{path.strip('/').replace('/', '-')}", len(calls(ollama)), model(hermes, name, "boss")["workers"]["pids"]
    with ExitStack() as stack:
        if phase == "queued":
            blocker(hermes, "boss", stack)
            before += 1
        mine = send(hermes, stack, path, f"{SECRET} {mark}", name, X_Request_ID=request_id)
        if phase == "queued":
            depth(hermes, "boss", 1)
        else:
            eventually(lambda: len(calls(ollama)) > before and calls(ollama)[before].phase == phase, what=phase)
        if phase == "streaming":
            mine.read_until(b"data:" if path.startswith("/v1/c") or path == "/v1/messages" else b'"done":false')
            eventually(lambda: requests(hermes, "ann")[0]["phase"] == "streaming")
        assert end(hermes, request_id, "stranger") == end(hermes, "no-such-id") == end(hermes, request_id[:-1]) == NOT_FOUND
        assert end(hermes, request_id) == (200, {"status": "cancelled"})
        reply = mine.reply()
        if phase == "streaming":
            assert (reply.status, reply.complete) == (200, False) and b"this request was cancelled" in reply.body.rstrip().splitlines()[-1]
            assert ("event: error" in reply.body.decode()) == (path == "/v1/messages")
        else:
            assert (reply.status, reply.complete, reply.headers["connection"]) == (499, True, "close")
            error = reply.json()["error"]
            assert (error if isinstance(error, str) else error["message"]) == "this request was cancelled by another one"
            assert path != "/v1/messages" or reply.json()["type"] == "error"
            assert path != "/v1/chat/completions" or error["code"] == "cancelled"
        assert reply.headers["x-request-id"] == request_id and not mine.more(), "the connection has ended"
        if phase == "queued":
            assert len(calls(ollama)) == before, "Ollama never heard of it"
        else:
            eventually(lambda: calls(ollama)[before].client_left, what="Ollama's side closed")
        assert end(hermes, request_id) == NOT_FOUND, "it is over"
        line = eventually(lambda: hermes.line(f"request_id={request_id}"))
        assert "outcome=cancelled" in line and f"status={200 if phase == 'streaming' else 499} " in line and "client=ann " in line
    rests(hermes)
    assert ask(hermes, "ann", "next").status == 200 and model(hermes, name, "boss")["workers"]["pids"] == workers


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_ended_though_its_client_does_not_read(ollama: Simulator, hermes: Hermes, version: str) -> None:
    """And what he reads later does not look whole: it has no last chunk, or the connection ends in a reset where its end would be the answer's."""
    rests(hermes)
    before, body = len(calls(ollama)), json.dumps({"model": "m", "prompt": "stuck @@tokens=1000000,interval=0@@"}).encode()
    with Client(hermes.port) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        client.send_raw(f"POST /api/generate HTTP/{version}\r\nHost: localhost\r\nAuthorization: {key('ann')['Authorization']}\r\nX-Request-ID: stuck\r\n"
                        f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        seen = [-1, -2]
        while seen[-1] != seen[-2] or not seen[-1]:     # until nothing moves any more
            time.sleep(0.2)
            seen.append(next((one["tokens"] for one in requests(hermes, "ann")), 0))
        assert end(hermes, "stuck") == (200, {"status": "cancelled"})
        eventually(lambda: calls(ollama)[before].client_left, timeout=5)
        rests(hermes)
        assert ask(hermes, "ann", "next").status == 200
        with pytest.raises(ConnectionResetError) if version == "1.0" else nullcontext():
            while data := client.sock.recv(65536):
                client.buffer += data
        assert not client.buffer.endswith(b"0\r\n\r\n") and b'"done":true' not in client.buffer


def test_a_pull_is_ended_by_its_id_and_goes_on_for_who_shares_it() -> None:
    with Simulator(pull_steps=2000, pull_interval=0.02) as ollama, Hermes(ollama.url, config(ann="manage = true\n")) as hermes:
        def pulls() -> list:
            return [request for request in ollama.requests if request.path == "/api/pull"]

        callers = {}
        for name, body in (("streamed", {}), ("shared", {}), ("whole", {"stream": False})):
            callers[name] = Client(hermes.port).send("POST", "/v1/llm/llama3.2%3A1b/pull", body, X_Request_ID=name, **key("ann"))
            if name != "whole":
                callers[name].read_until(b"pulling")
        eventually(lambda: end(hermes, "whole") == (200, {"status": "cancelled"}))
        whole = callers["whole"].reply()
        assert (whole.status, whole.json()) == (499, {"error": "this request was cancelled by another one"})
        assert end(hermes, "streamed")[0] == 200
        reply = callers["streamed"].reply()
        assert (reply.status, reply.complete) == (200, False) and b"this request was cancelled" in reply.body.splitlines()[-1]
        assert len(pulls()) == 1 and not pulls()[0].client_left
        assert end(hermes, "shared")[0] == 200
        eventually(lambda: pulls()[0].client_left, what="the pull's end")
        for client in callers.values():
            client.close()


@pytest.mark.parametrize("phase", ["queued", "prefill"])
@pytest.mark.parametrize("path", PATHS)
def test_ended_behind_signs_of_life(ollama: Simulator, lively: Hermes, phase: str, path: str) -> None:
    rests(lively)
    with ExitStack() as stack:
        if phase == "queued":
            blocker(lively, "boss", stack)
        mine = send(lively, stack, path, f"{SECRET} {PHASES[phase][1]}", X_Request_ID="late")
        mine.read_until(b"queued 1/1" if path.startswith("/v1/c") and phase == "queued" else b": keep-alive" if "/v1/c" in path else b"\r\n\r\n")
        assert end(lively, "late")[0] == 200
        reply = mine.reply()
        assert (reply.status, reply.complete) == (200, False) and b"this request was cancelled by another one" in reply.body
    rests(lively)
    assert ask(lively, "ann", "next").status == 200


@pytest.fixture(scope="module")
def lively(ollama: Simulator):
    with Hermes(ollama.url, config(server='[server]\nheartbeat = "20ms"\n', ann="", boss="manage = true\n")) as gateway:
        staffed(gateway, "boss")
        yield gateway


def test_whoever_manages_may_end_everybodys_and_all_of_one_name(ollama: Simulator, hermes: Hermes) -> None:
    rests(hermes)
    with ExitStack() as stack:
        block = blocker(hermes, "stranger", stack)
        same = [send(hermes, stack, "/api/generate", SECRET, X_Request_ID="a/b?c") for _ in range(3)]
        depth(hermes, "boss", 3)
        assert end(hermes, "a%2Fb%3Fc", "stranger") == NOT_FOUND and end(hermes, "a%2Fb%3Fc", "boss")[0] == 200
        assert [client.reply().status for client in same] == [499] * 3
        depth(hermes, "boss", 0)
        assert block.more(), "it goes on"
        block_id = next(one["id"] for one in requests(hermes, "boss") if one["phase"] == "streaming")
        assert end(hermes, block_id, "boss")[0] == 200
        assert not block.reply().complete


def test_an_answer_that_is_no_stream_is_ended_as_well(ollama: Simulator, hermes: Hermes) -> None:
    rests(hermes)
    before = len(calls(ollama))
    for path, body in (("/api/generate", {"model": "m"}), ("/v1/llm/m", {})):
        with Client(hermes.port) as client:
            client.send("POST", path, {**body, "prompt": ENDLESS, "stream": False}, X_Request_ID="whole", **key("ann"))
            eventually(lambda: len(calls(ollama)) > before and calls(ollama)[-1].phase in ("prefill", "streaming"))
            before = len(calls(ollama))
            assert end(hermes, "whole")[0] == 200 and client.reply().status == 499
            eventually(lambda: calls(ollama)[-1].client_left)


def test_a_connection_that_serves_the_next_call_is_not_hit(ollama: Simulator, hermes: Hermes) -> None:
    with Client(hermes.port) as client:
        for number in range(3):
            assert client.send("POST", "/api/generate", {"model": "m", "prompt": "x", "stream": False}, X_Request_ID=f"k{number}", **key("ann")).reply().status == 200
            eventually(lambda: hermes.line(f"request_id=k{number}"))
            eventually(lambda: not requests(hermes, "boss"))
            assert end(hermes, f"k{number}") == NOT_FOUND


# -- rest ----------------------------------------------------------------------------------------------------------


def rest(hermes: Hermes, what: str, client: str, name: str = "m") -> tuple[int, dict]:
    reply = post(hermes.port, f"/v1/llm/{name}/{what}", b"", **key(client))
    return reply.status, reply.json()


def test_a_model_rests_and_goes_on(ollama: Simulator, hermes: Hermes) -> None:
    rests(hermes)
    for what in ("pause", "resume"):
        assert rest(hermes, what, "ann")[0] == rest(hermes, what, "stranger", "no-such-model")[0] == 403
        assert rest(hermes, what, "boss", "no-such-model")[0] == 404
    with ExitStack() as stack:
        block = blocker(hermes, "ann", stack)
        assert rest(hermes, "pause", "boss", MODEL["m"]) == (200, {"status": "paused"}) and model(hermes, "m", "ann")["paused"]
        assert block.more(), "who runs goes on"
        waiting = send(hermes, stack, "/api/generate", "rested")
        depth(hermes, "ann", 1)
        block.close()
        eventually(lambda: model(hermes, "m", "ann")["workers"]["idle"] == 1)
        assert model(hermes, "m", "ann")["queue"]["depth"] == 1 and not calls(ollama, "rested")
        assert ask(hermes, "ann", "other", "b").status == 200, "the other model does not rest"
        late = ask(hermes, "ann", "late", X_Hermes_Deadline="10ms")
        assert late.status == 504
        assert "paused" in run("status", "--url", f"http://127.0.0.1:{hermes.port}", HERMES_KEY=key("ann")["Authorization"][7:]).stdout
        assert rest(hermes, "resume", "boss") == (200, {"status": "running"}) and waiting.reply().complete
    assert not model(hermes, "m", "ann")["paused"] and ask(hermes, "ann", "after").status == 200


@pytest.mark.parametrize(("manage", "status"), [("false", 403), ("true", 200)])
def test_where_there_are_no_clients(ollama: Simulator, manage: str, status: int) -> None:
    """All are one: each may end what another asks. A model rests only where managing is allowed."""
    with Hermes(ollama.url, f'manage = {manage}\n[models.m]\nmodel = "smollm2:135m"\n') as hermes:
        assert post(hermes.port, "/v1/llm/m/pause", b"").status == post(hermes.port, "/v1/llm/m/resume", b"").status == status
        with Client(hermes.port) as client:
            client.send("POST", "/api/generate", {"model": "m", "prompt": ENDLESS}, X_Request_ID="r").read_until(b'"done":false')
            seen = hermes.status()["requests"]
            assert [(one["id"], one["client"], one["phase"]) for one in seen] == [("r", "127.0.0.1", "streaming")]
            assert get(hermes.port, "/v1/requests/r", "DELETE").status == 200 and not client.reply().complete


# -- looking -------------------------------------------------------------------------------------------------------


def test_who_sees_what(ollama: Simulator, hermes: Hermes) -> None:
    rests(hermes)
    with ExitStack() as stack:
        blocker(hermes, "boss", stack)
        for number, wish in enumerate(("normal", "background", "interactive"), 1):
            send(hermes, stack, "/api/generate", SECRET, X_Request_ID=f"secret-{wish}", X_Hermes_Class=wish)
            depth(hermes, "boss", number)
        stack.enter_context(Client(hermes.port)).send("POST", "/api/embed", {"model": "m", "input": SECRET}, X_Request_ID="secret-embed", **key("stranger"))
        depth(hermes, "boss", 4)
        seen = requests(hermes, "boss")
        assert [(one["client"], one["class"], one["phase"], one["position"], one["model"]) for one in seen] == [
            ("boss", "normal", "streaming", 0, "m"), ("ann", "interactive", "queued", 1, "m"), ("ann", "normal", "queued", 2, "m"),
            ("ann", "background", "queued", 3, "m"), ("stranger", "background", "queued", 4, "m")]
        assert [one["id"] for one in seen[1:]] == ["secret-interactive", "secret-normal", "secret-background", "secret-embed"] and seen[0]["id"].startswith("req_")
        assert seen[0]["tokens"] > 0 and all(one["seconds"] >= 0.0 for one in seen)
        for name in ("ann", "stranger"):
            for full, one in zip(seen, requests(hermes, name)):
                mine = full["client"] == name
                assert (one["id"], one["client"]) == ((full["id"], name) if mine else (None, None))
                assert all(one[field] == full[field] for field in ("class", "model", "phase", "position"))
            page = get(hermes.port, "/v1/status", **key(name)).body
            assert name == "ann" or b"secret" not in page.replace(b"secret-embed", b"") and b'"ann"' not in page
    rests(hermes)
    assert requests(hermes, "boss") == []


@pytest.mark.parametrize(("phase", "name"), [("prefill", "m"), ("loading", "b")])
def test_waiting_for_the_load_or_for_the_prompt(ollama: Simulator, hermes: Hermes, phase: str, name: str) -> None:
    rests(hermes)
    if phase == "loading":
        assert ask(hermes, "ann", "", "b").status == 200
        assert post(hermes.port, "/api/generate", {"model": "b", "keep_alive": 0}, **key("ann")).status == 200
        eventually(lambda: MODEL["b"] not in ollama.loaded())
    else:
        assert ask(hermes, "ann", "x").status == 200
    with ExitStack() as stack:
        send(hermes, stack, "/api/generate", f"{SECRET} @@load_time=60@@ @@prompt_time=60@@", name)
        eventually(lambda: [one["phase"] for one in requests(hermes, "ann")] == [phase])


# -- the commands --------------------------------------------------------------------------------------------------


def test_the_commands(ollama: Simulator, hermes: Hermes) -> None:
    rests(hermes)
    url = f"http://127.0.0.1:{hermes.port}"

    def command(*words: str, name: str = "ann"):
        return run(*words, HERMES_KEY=key(name)["Authorization"][7:])

    with ExitStack() as stack:
        block = blocker(hermes, "boss", stack)
        mine = send(hermes, stack, "/api/generate", SECRET, X_Request_ID="mine\x7e1")
        depth(hermes, "ann", 1)
        status = command("status", "--url", url)
        assert (status.returncode, status.stderr) == (0, "") and re.search(r"^m +1/1 +1/64 +yes$", status.stdout, re.MULTILINE)
        queue = command("queue", "--url", url)
        titles, first, second = queue.stdout.splitlines()
        assert titles.split() == ["ID", "CLIENT", "CLASS", "MODEL", "PHASE", "POSITION", "TIME", "TOKENS"]
        assert first.split()[:6] == ["-", "-", "normal", "m", "streaming", "-"] and second.split()[:6] == ["mine~1", "ann", "normal", "m", "queued", "1"]
        assert command("queue", "--url", url, name="boss").stdout.splitlines()[1].split()[1] == "boss"
        stranger = command("cancel", "--url", url, "mine~1", name="stranger")
        assert (stranger.returncode, stranger.stdout, stranger.stderr) == (1, "", "hermes: no such request is waiting or running\n")
        cancelled = command("cancel", "--url", url, "mine~1")
        assert (cancelled.returncode, cancelled.stdout, cancelled.stderr) == (0, "cancelled mine~1\n", "") and mine.reply().status == 499
        assert command("cancel", "--url", url, "mine~1").returncode == 1 and block.more()
    for refused in (run("queue", "--url", url), command("status", "--url", url, name="nobody")):
        assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", "hermes: a valid key is needed\n")
    listen = run("queue", HERMES_SERVER_LISTEN=f"127.0.0.1:{hermes.port}", HERMES_KEY=key("ann")["Authorization"][7:])
    assert listen.returncode == 0
    assert run("queue", "--url", f"{ollama.url}").returncode == 1, "Ollama is no Hermes"
    assert not [line for line in hermes.lines if SECRET in line]


def test_many_ends_at_once(ollama: Simulator, hermes: Hermes) -> None:
    """Each call is ended once or answered, and every worker serves on."""
    rests(hermes)

    def work(number: int) -> int:
        if number % 2:
            return 200 if end(hermes, f"many-{number - 1}")[0] in (200, 404) else 0
        return ask(hermes, "ann", "x @@prompt_time=0.005@@", "mb"[number // 2 % 2], X_Request_ID=f"many-{number}").status

    assert set(in_threads(40, work)) <= {200, 499}
    rests(hermes)
    assert requests(hermes, "boss") == [] and ask(hermes, "ann", "next").status == 200
