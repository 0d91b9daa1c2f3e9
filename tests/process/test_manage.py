"""Models are pulled, copied and deleted through Hermes as without it, and nobody waits for that who wants something else."""

import pytest

from hermes.simulator import Fault, Simulator
from tests.harness import Client, Hermes, eventually, get, post

CONFIG = 'manage = true\n[models.m]\nmodel = "smollm2:135m"\n'


def delete(port: int, body: dict):
    with Client(port) as client:
        return client.send("DELETE", "/api/delete", body).reply()


def show(port: int, name: str) -> int:
    return post(port, "/api/show", {"name": name}).status


def test_pull_copy_delete() -> None:
    with Simulator(pull_steps=3) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        assert show(hermes.port, "new:1b") == 404
        reply = post(hermes.port, "/api/pull", {"model": "", "name": "new:1b"})
        assert reply.complete and reply.headers["content-type"] == "application/x-ndjson" and reply.headers["x-accel-buffering"] == "no"
        assert reply.records()[0] == {"status": "pulling manifest"} and reply.records()[-1] == {"status": "success"}
        assert post(hermes.port, "/api/pull", {"name": "new:1b", "stream": False}).json() == {"status": "success"}
        assert post(hermes.port, "/api/copy", {"source": "new:1b", "destination": "newer"}).status == 200
        assert delete(hermes.port, {"model": "new:1b"}).status == 200
        assert (show(hermes.port, "new:1b"), show(hermes.port, "newer")) == (404, 200)
        assert delete(hermes.port, {"name": "new:1b"}).json() == {"error": "model 'new:1b' not found"}
        assert hermes.line("path=/api/copy client=127.0.0.1 model=new:1b") and hermes.line("path=/api/delete client=127.0.0.1 model=new:1b")


def test_they_speak_ollamas_names() -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        assert delete(hermes.port, {"model": "m"}).status == 404 and show(hermes.port, "smollm2:135m") == 200


@pytest.mark.parametrize("name", ["nothere", "new:1b"])
@pytest.mark.parametrize("fault", [Fault(no_done=True), Fault(error_line=True), Fault(cut_body=150), Fault(cut_body=150, by="rst")])
def test_a_pull_that_does_not_say_success_has_failed(name: str, fault: Fault) -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        ollama.script(fault, path="/api/pull")
        reply = post(hermes.port, "/api/pull", {"model": name})
        assert reply.status == 200 and not reply.complete, "no clean end"
        assert list(reply.records()[-1]) == ["error"]
        assert sum("error" in record for record in reply.records()) == 1, "it is said once"


def test_a_failure_without_a_stream_has_ollamas_status() -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        reply = post(hermes.port, "/api/pull", {"model": "nothere", "stream": False})
        assert (reply.status, reply.json()) == (500, {"error": "pull model manifest: file does not exist"})
        assert post(hermes.port, "/api/pull", {"model": "no name"}).json() == {"error": "invalid model name"}


@pytest.mark.parametrize("stream", [True, False])
def test_silence_is_no_failure_of_a_pull(stream: bool) -> None:
    config = CONFIG.replace("[models", '[ollama]\nfirst_byte_timeout = "100ms"\nidle_timeout = "100ms"\ntotal_timeout = "200ms"\n[models')
    with Simulator(pull_steps=3, pull_interval=0.3) as ollama, Hermes(ollama.url, config) as hermes:
        reply = post(hermes.port, "/api/pull", {"model": "new", "stream": stream})
        assert reply.complete and reply.records()[-1] == {"status": "success"}


def test_pulls_take_nobodys_place() -> None:
    """Four at once have workers of their own; a fifth waits for one of them and for nothing else."""
    with Simulator(pull_steps=1000, pull_interval=0.02) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        pulls = [Client(hermes.port).send("POST", "/api/pull", {"model": f"new{number}"}) for number in range(5)]
        eventually(lambda: sum(request.path == "/api/pull" for request in ollama.requests) == 4)
        assert get(hermes.port, "/api/tags").status == 200
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x", "stream": False}).status == 200
        assert delete(hermes.port, {"model": "gemma3:270m"}).status == 200
        first = next(pull for pull in pulls if pull.sock.recv(1))
        first.close()
        eventually(lambda: sum(request.path == "/api/pull" for request in ollama.requests) == 5, what="the fifth")
        for pull in pulls:
            pull.close()
        eventually(lambda: all(request.client_left for request in ollama.requests if request.path == "/api/pull"), what="their ends")


def test_what_only_reads() -> None:
    with Simulator() as ollama, Hermes(ollama.url) as hermes:
        assert "cloud" in get(hermes.port, "/api/status").json()
        post(hermes.port, "/api/me", b"")
        assert ollama.requests[-1].path == "/api/me", "whatever this Ollama says to it"
        for method, path in (("POST", "/api/signout"), ("POST", "/api/experimental/web_search"), ("GET", "/api/blobs/")):
            with Client(hermes.port) as client:
                assert client.send(method, path).reply().status == 404
        assert get(hermes.port, "/api/blobs/sha256:x").headers["allow"] == "HEAD, POST"
