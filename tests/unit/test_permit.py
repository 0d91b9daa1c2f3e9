"""The model allow-list at the place where a model is looked for: by every name it has here, and before Ollama is asked."""

from types import SimpleNamespace

import pytest

from hermes.errors import ClientForbidden
from hermes.frontend import native, openai, pull
from hermes.frontend.exchange import Call
from hermes.frontend.http1 import Request
from hermes.frontend.principal import NOBODY, Principal
from hermes.frontend.relay import find_place, permit
from hermes.names import canonical, canonical_pattern


class Registry:
    """[models.fast] model = "gemma3:270m"."""

    place = SimpleNamespace(pool=SimpleNamespace(name="fast"), model="gemma3:270m")

    def find(self, key: str):
        return self.place if key in (canonical("fast"), canonical("gemma3:270m")) else None


class Dispatcher:
    registry = Registry()

    def __init__(self) -> None:
        self.asked: list[str] = []

    def place(self, name: str, client):
        self.asked.append(name)
        return "a place"

    def job(self, *_, **__):
        raise AssertionError("a job for a model that he may not use")


def call(*models: str, model: str = "", path: str = "/", method: str = "POST", body: bytes = b"", **rights: bool) -> Call:
    who = Principal("x", models=tuple(map(canonical_pattern, models)), **rights)
    return Call(Request(method, path, "", {}), None, body=body, model=model, principal=who)


@pytest.mark.parametrize("pattern", ["fast", "gemma3:270m", "gemma*", "f*", "*"])
@pytest.mark.parametrize("name", ["fast", "FAST:latest", "gemma3:270m", "Library/Gemma3:270m"])
def test_any_of_its_names_will_do(pattern: str, name: str) -> None:
    dispatcher = Dispatcher()
    assert find_place(dispatcher, call(pattern, model=name)) == "a place" and dispatcher.asked == [name]


@pytest.mark.parametrize("name", ["fast", "gemma3:270m", "nothing", "no name at all", ""])
def test_what_is_not_allowed_is_not_looked_for(name: str) -> None:
    dispatcher = Dispatcher()
    with pytest.raises(ClientForbidden):
        find_place(dispatcher, call("other", model=name))
    assert dispatcher.asked == []


def test_nobody_has_no_model() -> None:
    with pytest.raises(ClientForbidden):
        permit(Dispatcher(), Call(Request("POST", "/", "", {}), None), "fast")
    assert Call(Request("POST", "/", "", {}), None).principal is NOBODY


def test_who_may_use_everything_is_answered_by_ollama() -> None:
    permit(Dispatcher(), call("*"), "no name at all")


@pytest.mark.parametrize("body", [b'{"model":"fast"}', b'{"name":"fast"}', b'{"MODEL":"fast"}', b'{"model":"","name":"fast"}', b'{"model":"other","name":"fast"}'])
def test_show(body: bytes) -> None:
    with pytest.raises(ClientForbidden):
        native.Native(Dispatcher()).show(call("other", path="/api/show", body=body))


def test_one_model_of_openai() -> None:
    with pytest.raises(ClientForbidden):
        openai.OpenAI(Dispatcher()).retrieve(call("other", model="fast", method="GET"))


class Pulls:
    def join(self, name: str, client):
        raise LookupError(name)


@pytest.mark.parametrize(("models", "may", "error"), [("*", True, LookupError), ("*", False, ClientForbidden), ("other", True, ClientForbidden), ("fast", True, LookupError)])
def test_pulling_takes_leave_and_the_model(models: str, may: bool, error: type[Exception]) -> None:
    with pytest.raises(error):
        pull.PullEndpoint(Dispatcher(), Pulls()).pull(call(models, model="fast", pull=may))
