"""Models that are made and pushed, blobs that are sent, and runners that two names share or that options divide."""

import datetime
import hashlib
from collections.abc import Iterator

import pytest

from hermes.simulator import Fault, SimModel, Simulator
from tests.harness import Client, get, post

MODEL = "able"
ABLE = SimModel("able:latest", capabilities=("completion", "tools"))
ASK = [{"role": "user", "content": "hi"}]
DATA = b"abc" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
LONG = 60.0  # Longer than any test takes.
BLOB = f"/api/blobs/sha256:{DIGEST}"


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator([ABLE, SimModel("plain:latest")], tokens=3, keep_bodies=True) as simulator:
        yield simulator


def generate(sim: Simulator, model: str, **fields: object) -> None:
    assert post(sim.port, "/api/generate", {"model": model, "prompt": "x", **fields}).complete


def test_other_load_options_make_another_runner(sim: Simulator) -> None:
    alike = ({}, {"temperature": 1}, {"num_gpu": -1, "main_gpu": 0, "num_thread": 0.0}, {"num_ctx": 4096, "seed": 3},
             {"num_ctx": None, "num_gpu": None, "num_predict": None})
    for options in alike:
        generate(sim, MODEL, options=options)
    assert sim.loads == {"able:latest": 1}
    others = ({"num_ctx": 8192}, {"num_batch": 64}, {"num_gpu": 0}, {"main_gpu": 1}, {"use_mmap": False}, {"num_thread": 2})
    for count, options in enumerate(others, 1):
        for sent in (options, options | {"seed": 1}, {}):
            generate(sim, MODEL, options=sent)
        assert sim.loads == {"able:latest": 1 + 2 * count}, options


def context(sim: Simulator) -> int:
    return get(sim.port, "/api/ps").json()["models"][0]["context_length"]


@pytest.mark.parametrize(("asked", "effective"), [(100_000, 8192), (1, 4), (2048.9, 2048)])
def test_a_context_has_its_bounds(sim: Simulator, asked: float, effective: int) -> None:
    assert post(sim.port, "/api/generate", {"model": MODEL, "options": {"num_ctx": asked}}).status == 200
    assert context(sim) == effective


def test_models_with_vision_have_a_context_for_pictures() -> None:
    with Simulator([SimModel("eyes:latest", capabilities=("completion", "vision"))]) as sim:
        generate(sim, "eyes", options={"num_ctx": 512})
        assert context(sim) == 2048


def test_a_model_has_options_of_its_own_that_a_request_overrides(sim: Simulator) -> None:
    post(sim.port, "/api/create", {"model": "mine", "from": MODEL, "parameters": {"num_ctx": 8192, "num_gpu": 0}})
    assert "num_ctx                        8192" in post(sim.port, "/api/show", {"model": "mine"}).json()["parameters"].split("\n")
    for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
        assert post(sim.port, path, {"model": "mine", "max_tokens": 1, "messages": ASK}).complete and context(sim) == 8192
    generate(sim, "mine", options={"num_gpu": 0, "num_ctx": 8192})
    assert sim.loads == {"able:latest": 1}
    generate(sim, "mine", options={"num_ctx": 2048})
    assert sim.loads == {"able:latest": 2} and context(sim) == 2048
    post(sim.port, "/api/create", {"model": "grandchild", "from": "mine", "parameters": {"num_ctx": 2048}})
    generate(sim, "grandchild")
    assert sim.loads == {"able:latest": 2} and sim.loaded() == ["mine:latest"]
    post(sim.port, "/api/create", {"model": "wrong", "from": MODEL, "parameters": {"num_ctx": "big"}})
    assert post(sim.port, "/v1/completions", {"model": "wrong", "prompt": "x"}).status == 500


def test_a_copy_shares_the_runner(sim: Simulator) -> None:
    assert post(sim.port, "/api/copy", {"source": MODEL, "destination": "second"}).status == 200
    for name in (MODEL, "second", MODEL):
        generate(sim, name)
    assert sim.loads == {"able:latest": 1} and sim.loaded() == ["able:latest"]


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


@pytest.mark.parametrize(("files", "text"), [({"/a.gguf": f"sha256:{DIGEST}"}, "file path must be relative"), ({"a.gguf": ""}, "invalid digest format"),
                                             (["a"], "json: cannot unmarshal array into Go struct field CreateRequest.files of type map[string]string")])
def test_create_checks_files_at_once(sim: Simulator, files: object, text: str) -> None:
    reply = post(sim.port, "/api/create", {"model": "new", "files": files})
    assert (reply.status, reply.json()) == (400, {"error": text})


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


@pytest.mark.parametrize("headers", ["", "Connection: close\r\n"])
def test_a_blob_that_is_here_is_not_read(sim: Simulator, monkeypatch: pytest.MonkeyPatch, headers: str) -> None:
    monkeypatch.setattr("hermes.simulator.conversation._LINGER", LONG)
    assert post(sim.port, BLOB, DATA).status == 201
    with Client(sim.port) as client:
        client.send_raw(f"POST {BLOB} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: 999999\r\n\r\nGET / HTTP/1.1\r\n\r\n".encode())
        reply = client.reply()
        assert reply.status == 200 and reply.raw.lower().count(b"connection: close") == 1 and client.sock.recv(1) == b""
        for _ in range(3):
            client.send_raw(b"and more")  # There is no reset while the client may still be reading its answer.
    assert sim.wait_for(lambda: sim.open_connections == 0)
    assert [request.path for request in sim.requests] == [BLOB, BLOB] and sim.requests[1].upload is None


def test_what_is_no_blob(sim: Simulator) -> None:
    assert post(sim.port, "/api/blobs/sha256:123", b"").json() == {"error": "invalid digest format"}
    assert get(sim.port, BLOB).status == 405


@pytest.mark.parametrize("fault", [Fault(status=507), Fault(refuse=True), Fault(raw=b"HTTP/1.1 507 x\r\nContent-Length: 0\r\n\r\n")])
def test_a_fault_comes_before_the_body_is_read(sim: Simulator, fault: Fault) -> None:
    sim.script(fault, path=BLOB)
    with Client(sim.port) as client:
        reply = client.send_raw(f"POST {BLOB} HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n".encode()).reply()
        assert reply.status == (0 if fault.refuse else 507) and not client.more()
    assert sim.requests[-1].upload is None and get(sim.port, BLOB, "HEAD").status == 404


def test_who_leaves_in_an_upload_is_written_down_with_what_came(sim: Simulator) -> None:
    with Client(sim.port) as client:
        client.send_raw(f"POST {BLOB} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n".encode())
        assert sim.wait_for(lambda: sim.requests and sim.requests[0].upload and sim.requests[0].upload.size == 3)
    assert sim.wait_for(lambda: sim.requests[0].client_left)
    assert (sim.requests[0].upload.size, sim.requests[0].upload.sha256) == (3, "") and get(sim.port, BLOB, "HEAD").status == 404


def test_an_upload_with_bad_framing_is_a_400(sim: Simulator) -> None:
    with Client(sim.port) as client:
        reply = client.send_raw(f"POST {BLOB} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".encode()).reply()
        assert reply.status == 400 and not client.more()


def left(sim: Simulator) -> float:
    """Seconds until the only runner expires, as ps tells."""
    expires = get(sim.port, "/api/ps").json()["models"][0]["expires_at"]
    moment = datetime.datetime.fromisoformat(expires[:19] + "+00:00")
    return (moment - datetime.datetime.now(datetime.timezone.utc)).total_seconds()


@pytest.mark.parametrize(("keep_alive", "seconds"), [("2h", 7200), (900, 900), (None, 300), (-1, 292 * 365 * 86400)])
def test_a_keep_alive_sticks_and_ps_tells_it(sim: Simulator, keep_alive: object, seconds: float) -> None:
    generate(sim, MODEL, keep_alive=keep_alive)
    assert post(sim.port, "/v1/messages", {"model": MODEL, "max_tokens": 1, "messages": ASK}).status == 200
    assert seconds - 60 < left(sim) <= seconds
    generate(sim, MODEL, keep_alive="30m")
    assert 1740 < left(sim) <= 1800
    generate(sim, MODEL, keep_alive=0)
    assert sim.loaded() == []
