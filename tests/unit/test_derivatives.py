"""Second names: legal, readable, one for each model; and made once, when they are needed, and again when they may be stale."""

import json
import re
import threading

import pytest

from hermes.dispatch.derivatives import Derivatives, derived_name
from hermes.dispatch.pool import Pool
from hermes.dispatch.registry import Place
from hermes.errors import ClientGone, ModelNotFound, QueueTimeout, UpstreamFailed
from hermes.names import canonical, is_cloud


@pytest.mark.parametrize(("model", "name"), [
    ("gemma3:270m", "hermes/gemma3:270m-ctx8192"),
    ("Gemma3:270M", "hermes/gemma3:270m-ctx8192"),
    ("registry.ollama.ai/library/plain", "hermes/plain:latest-ctx8192"),
    ("plain:local", "hermes/plain:latest-ctx8192"),
])
def test_a_readable_name(model: str, name: str) -> None:
    assert derived_name(model, 8192) == name


def test_names_are_legal_and_all_different() -> None:
    models = ["m", "m:t", "me/m", "you/m", "h.io/me/m", "h.io/you/m", "localhost:5000/me/m", "hf.co/bartowski/Llama-3.2-3B:Q4_K_M", "hermes/m:latest-ctx8",
              "m:latest-ctx8", "m:latest-ctx81", "m:" + "t" * 80, "m:" + "t" * 79, "m:" + "t" * 79 + "u", "m" * 80 + ":" + "t" * 70, "m" * 80 + ":" + "t" * 71]
    names = [derived_name(model, size) for model in models for size in (8, 81, 16_777_216)]
    assert len(set(map(canonical, names))) == len(names), "canonical raises on an illegal one"
    assert all(name.startswith("hermes/") and not is_cloud(canonical(name)) for name in names)
    assert all(re.search(r"-ctx(8|81|16777216)(-[0-9a-f]{12})?$", name) for name in names)


class Upstream:
    """An Ollama that has `models`; `asked` is what came."""

    def __init__(self, *models: str):
        self.models = set(models)
        self.asked: list[tuple[str, dict]] = []
        self.creates: tuple[int, dict] = (200, {"status": "success"})
        self.meanwhile = lambda: None

    def ask(self, method: str, path: str, client: object, body: bytes) -> tuple[int, bytes]:
        assert (method, client) == ("POST", "client")
        order = json.loads(body)
        self.asked.append((path, order))
        self.meanwhile()
        status, answer = ((200, {}) if order["model"] in self.models else (404, {"error": "no"})) if path == "/api/show" else self.creates
        return status, json.dumps(answer).encode()

    def created(self) -> list[str]:
        return [order["model"] for path, order in self.asked if path == "/api/create"]


def place(model: str = "gemma3:270m", num_ctx: int = 8192, patience: float = 5.0) -> Place:
    return Place(Pool("mine", model, 1, 1, lambda: None), model, patience, num_ctx)


def test_made_once_for_a_pool() -> None:
    ollama = Upstream("gemma3:270m", "b")
    derivatives, one = Derivatives(ollama.ask), place()
    assert [derivatives.of(one, "client") for _ in range(3)] == ["hermes/gemma3:270m-ctx8192"] * 3
    assert ollama.asked == [("/api/show", {"model": "gemma3:270m"}),
                            ("/api/create", {"model": "hermes/gemma3:270m-ctx8192", "from": "gemma3:270m", "parameters": {"num_ctx": 8192}, "stream": False})]
    derivatives.of(place("b"), "client")
    derivatives.of(one, "client")
    assert ollama.created() == ["hermes/gemma3:270m-ctx8192", "hermes/b:latest-ctx8192"]


def test_made_anew_for_a_new_pool_another_size_and_when_forgotten() -> None:
    ollama = Upstream("gemma3:270m")
    derivatives, one, other = Derivatives(ollama.ask), place(), place()
    for where in (one, other, Place(one.pool, one.model, 1.0, 4096)):
        derivatives.of(where, "client")
        derivatives.of(where, "client")
    assert len(ollama.created()) == 3
    derivatives.forget(other.pool)
    derivatives.forget(place().pool)
    derivatives.of(Place(one.pool, one.model, 1.0, 4096), "client")
    assert len(ollama.created()) == 3
    derivatives.of(other, "client")
    derivatives.forget()
    derivatives.of(other, "client")
    assert len(ollama.created()) == 5


def test_forgotten_while_it_is_made() -> None:
    ollama = Upstream("gemma3:270m")
    derivatives, one = Derivatives(ollama.ask), place()
    ollama.meanwhile = derivatives.forget
    derivatives.of(one, "client")
    ollama.meanwhile = lambda: None
    derivatives.of(one, "client")
    assert len(ollama.created()) == 2, "it may be of the old files"


def test_a_model_that_is_not_there_is_not_created() -> None:
    """Ollama's create would pull it."""
    ollama = Upstream()
    with pytest.raises(ModelNotFound, match="model 'mine' not found"):
        Derivatives(ollama.ask).of(place(), "client")
    assert not ollama.created()


@pytest.mark.parametrize("answer", [(200, {"error": "disk full"}), (500, {"error": "disk full"}), (400, {"error": "disk full"})])
def test_what_ollama_says_when_it_cannot(answer: tuple[int, dict]) -> None:
    ollama = Upstream("gemma3:270m")
    derivatives, one = Derivatives(ollama.ask), place()
    ollama.creates = answer
    for _ in range(2):
        with pytest.raises(UpstreamFailed, match="8192 tokens.*disk full"):
            derivatives.of(one, "client")
    ollama.creates = (200, {"status": "success"})
    assert derivatives.of(one, "client")


@pytest.mark.parametrize("answer", [(200, {"status": "writing manifest"}), (200, {}), (200, []), (503, {})])
def test_a_creation_that_did_not_say_success_has_failed(answer: tuple[int, dict]) -> None:
    ollama = Upstream("gemma3:270m")
    ollama.creates = answer
    with pytest.raises(UpstreamFailed, match=f"status {answer[0]}"):
        Derivatives(ollama.ask).of(place(), "client")


def test_one_thread_makes_it_and_the_others_wait(start) -> None:
    ollama, entered, go = Upstream("gemma3:270m"), threading.Event(), threading.Event()
    derivatives, one = Derivatives(ollama.ask), place(patience=30.0)

    def hold() -> None:
        entered.set()
        assert go.wait(30)

    ollama.meanwhile = hold
    first = start(derivatives.of, one, "client")
    assert entered.wait(30)
    others = [start(derivatives.of, one, "client") for _ in range(4)]
    with pytest.raises(QueueTimeout):
        derivatives.of(Place(one.pool, one.model, 0.0, 8192), "client")
    go.set()
    assert {call.result(30) for call in (first, *others)} == {"hermes/gemma3:270m-ctx8192"}
    assert len(ollama.created()) == 1


def test_a_client_who_leaves_leaves_it_to_the_next(start) -> None:
    ollama = Upstream("gemma3:270m")
    derivatives, one = Derivatives(ollama.ask), place(patience=float("inf"))

    def gone() -> None:
        raise ClientGone

    ollama.meanwhile = gone
    with pytest.raises(ClientGone):
        derivatives.of(one, "client")
    ollama.meanwhile = lambda: None
    assert start(derivatives.of, one, "client").result(30)
