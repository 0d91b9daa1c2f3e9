"""The routes that manage models: who may, whose workers, how patient, and what goes to Ollama."""

import math
from types import SimpleNamespace

import pytest

from hermes.errors import BadRequest, ClientForbidden, Forbidden
from hermes.frontend.exchange import Call
from hermes.frontend.http1 import Request
from hermes.frontend.manage import Manage, named
from hermes.frontend.principal import Principal
from hermes.frontend.router import Router
from hermes.workers.messages import Head, Job, Timeouts

TIMES = Timeouts(1.0, 2.0, 3.0, 4.0)
DIGEST = "sha256:" + "0123456789abcdef" * 4
ALL = [("POST", "/api/pull"), ("POST", "/api/push"), ("POST", "/api/create"), ("POST", "/api/copy"), ("DELETE", "/api/delete"),
       ("HEAD", "/api/blobs/" + DIGEST), ("POST", "/api/blobs/" + DIGEST)]


class House:
    """A dispatcher that only writes down what it is asked for."""

    def __init__(self, switched_on: bool = True, models: tuple[str, ...] = ("*",)):
        self.opened: list[tuple[str, Job, object]] = []
        self.registry = SimpleNamespace(control="control", puller=lambda: "puller", find=lambda key: None)
        self.principal = Principal("ann", manage=switched_on, models=models)
        self.router = Router(Manage(self).routes(), [])

    def job(self, method: str, path: str, **fields) -> Job:
        return Job("http://u", method, path, timeouts=TIMES, **fields)

    def admit(self, place, job: Job, asker):
        self.opened.append((place, job, asker.body))
        return SimpleNamespace(wait=lambda until: SimpleNamespace(head=Head(200, (), "length"), queued=0.0), first_position=0)

    def ask(self, method: str, path: str, body: bytes = b"{}") -> Call:
        call = Call(Request(method, path, "", {"content-type": "application/json", "authorization": "Bearer x"}), None, body, principal=self.principal)
        route, call.model = self.router.match(method, path)
        if route.streams_body:
            call.upload = SimpleNamespace(headers=(("Content-Length", "5"),))
        route.endpoint(call)
        return call


@pytest.mark.parametrize(("method", "path"), ALL)
def test_switched_off(method: str, path: str) -> None:
    house = House(switched_on=False)
    with pytest.raises(Forbidden, match=r"manage = true under \[server\] in hermes.toml"):
        house.ask(method, path, b"not even JSON")
    assert house.opened == []


@pytest.mark.parametrize("path", ["/api/pull", "/api/push", "/api/create"])
def test_what_takes_hours(path: str) -> None:
    house, body = House(), b'{"name":"m:7b", "stream": false}'
    assert house.ask("POST", path, body).model == "m:7b"
    (place, job, upload), = house.opened
    assert (place, upload, job.method, job.path, job.body, job.ending, job.follows) == ("puller", None, "POST", path, body, "success", False)
    assert job.timeouts == Timeouts(TIMES.connect, math.inf, math.inf, math.inf)
    assert job.headers == (("Content-Type", "application/json"),)


@pytest.mark.parametrize(("method", "path", "body", "model"), [("POST", "/api/copy", b'{"source":"a","destination":"b"}', "a"),
                                                               ("DELETE", "/api/delete", b'{"model":"a"}', "a")])
def test_what_is_done_at_once(method: str, path: str, body: bytes, model: str) -> None:
    house = House()
    assert house.ask(method, path, body).model == model
    (place, job, _), = house.opened
    assert (place, job.method, job.path, job.body, job.timeouts) == ("control", method, path, body, TIMES)


def test_a_blob_is_looked_for() -> None:
    house = House()
    assert house.ask("HEAD", "/api/blobs/" + DIGEST).model == ""
    (place, job, upload), = house.opened
    assert (place, job.method, job.body, job.follows, upload) == ("control", "HEAD", b"", False, None)


def test_a_blob_goes_up() -> None:
    house = House()
    call = house.ask("POST", "/api/blobs/" + DIGEST)
    (place, job, upload), = house.opened
    assert (place, job.method, job.path, job.follows, upload) == ("puller", "POST", "/api/blobs/" + DIGEST, True, call.upload)
    assert job.headers == (("Content-Type", "application/json"), ("Content-Length", "5"))
    assert job.timeouts == TIMES._replace(total=math.inf), "each piece has its limit, the whole has none"


@pytest.mark.parametrize("digest", [DIGEST, DIGEST.replace(":", "-"), DIGEST.replace(":", "%3A"), DIGEST.replace(":", "%3a")])
def test_digests(digest: str) -> None:
    house = House()
    for method in ("HEAD", "POST"):
        house.ask(method, "/api/blobs/" + digest)
    assert [job.path for _, job, _ in house.opened] == ["/api/blobs/" + digest] * 2


@pytest.mark.parametrize("digest", ["x", DIGEST[:-1], DIGEST + "0", DIGEST.upper(), DIGEST.replace("sha256", "sha512"), DIGEST.replace(":", ""), DIGEST.replace("f", "g"),
                                    "%2F" + DIGEST, DIGEST + "%2F", DIGEST + "%20", "..%2F" + DIGEST, DIGEST.replace(":", "%253A"), DIGEST.replace(":", "%EF%BC%9A")])
def test_wrong_digests(digest: str) -> None:
    house = House()
    for method in ("HEAD", "POST"):
        with pytest.raises(BadRequest, match="^malformed name in the path$" if ".." in digest else "^invalid digest format$"):
            house.ask(method, "/api/blobs/" + digest)
    assert house.opened == []


@pytest.mark.parametrize(("body", "name"), [
    (b'{"model":"a"}', "a"), (b'{"name":"b"}', "b"), (b'{"model":"","name":"b"}', "b"), (b'{"name":"","model":"a"}', "a"),
    (b'{"name":"b","model":"a"}', "a"), (b'{"NAME":"b"}', "b"), (b"{}", ""), (b'{"model":null}', ""), (b'{"model":7}', ""), ('{"model":"ä"}'.encode(), "ä"),
])
def test_names(body: bytes, name: str) -> None:
    """As Ollama reads them: an empty one counts as none, and `model` goes before `name`. What is wrong is for Ollama to refuse."""
    assert named(body)[:1] == ([name] if name else [])


@pytest.mark.parametrize(("method", "path", "body"), [
    ("POST", "/api/pull", b'{"name":"other"}'), ("POST", "/api/create", b'{"model":"mine","from":"other"}'), ("DELETE", "/api/delete", b'{"model":"other"}'),
    ("POST", "/api/copy", b'{"source":"mine","destination":"other"}'), ("POST", "/api/copy", b'{"source":"other","destination":"mine"}')])
def test_a_model_that_the_client_may_not_use(method: str, path: str, body: bytes) -> None:
    house = House(models=("registry.ollama.ai/library/mine:*",))
    with pytest.raises(ClientForbidden):
        house.ask(method, path, body)
    assert house.opened == []
    house.ask(method, path, body.replace(b"other", b"mine"))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model":"a","MODEL":"b"}', b'{"name":"a","Name":"b"}'])
def test_bodies_that_two_would_read_in_two_ways(body: bytes) -> None:
    for method, path in ALL[:5]:
        house = House()
        with pytest.raises(BadRequest):
            house.ask(method, path, body)
        assert house.opened == []
