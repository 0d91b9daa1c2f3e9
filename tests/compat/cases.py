"""What every client has to be able to do through Hermes. A test module drives one library; the cases are the same for all.

A driver's method takes the base URL of Hermes and does what its name says, with the library's own ordinary call, and returns plain values. A
case that a library does not have is None in its class, and so is not a test.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from hermes.simulator import SimRequest, Simulator, expected_text
from hermes.simulator.text import vector
from tests.harness import Client, Hermes, eventually

MODEL = "llama3.2"
EMBEDDER = "all-minilm"
TOKENS = 16                 # of each answer of the stand-in
DIMENSIONS = 384
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"capital": {"type": "string"}}, "required": ["capital"], "additionalProperties": False}
WEATHER = {"name": "weather", "description": "The weather in a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "Its name"}}, "required": ["city"]}}
LONG = "@@interval=0.05,tokens=600@@"       # read by the stand-in: half a minute, unless somebody leaves
FAILURES = {"the runner dies": "@@error_line@@", "the connection is cut": "@@tokens=100,cut_body=4000@@"}
RETRY_AFTER = 1.0           # seconds; the least that Hermes says, and what it says of a queue that has been quick


class Full:
    """A Hermes of its own with one call at work, one that waits, and no room for another. `free()` makes room."""

    def __init__(self, hermes: Hermes):
        self.url = f"http://127.0.0.1:{hermes.port}"
        self._hermes = hermes
        self._held: list[Client] = []
        for place in ("busy", "depth"):
            body = {"model": MODEL, "prompt": "held @@stall=0@@"}
            self._held.append(Client(hermes.port).send("POST", "/api/generate", body))
            eventually(lambda: {**hermes.model(MODEL)["workers"], **hermes.model(MODEL)["queue"]}[place] == 1)

    @property
    def rejected(self) -> int:
        """How many requests have been answered 503."""
        return self._hermes.status()["totals"]["rejected"]

    def free(self) -> None:
        for client in self._held:
            client.close()


class Cases:
    """The cases. `attempts`: requests that a full queue costs. The exceptions' names, or those of a class above them: `raises` in mid stream,
    where `words` are in its text, `missing_raises` for a model that is not there, `busy_raises` for a full queue."""

    attempts = 1
    raises = missing_raises = busy_raises = ""
    words = "Ollama|an error was encountered while running the model"

    def chat(self, url: str, prompt: str, model: str = MODEL) -> str:
        raise NotImplementedError

    def stream(self, url: str, prompt: str) -> Iterator[str]:
        raise NotImplementedError

    def embed(self, url: str, text: str) -> list[float]:
        raise NotImplementedError

    def call_tool(self, url: str, prompt: str) -> tuple[str, dict]:
        raise NotImplementedError

    def look(self, url: str, prompt: str) -> str:
        raise NotImplementedError

    def fill_in(self, url: str, prompt: str) -> dict:
        raise NotImplementedError

    def models(self, url: str) -> list[str]:
        raise NotImplementedError

    def left(self, url: str, prompt: str) -> AbstractContextManager[None]:
        """Inside of it, a stream has begun, and the client, which lives on, has left it in the library's way."""
        return left(self.stream(url, prompt))

    # -- the cases ---------------------------------------------------------------------------------------------------

    def test_chat(self, url: str) -> None:
        assert self.chat(url, "hi") == expected_text("hi", TOKENS)

    def test_stream(self, url: str) -> None:
        pieces = list(self.stream(url, "hi"))
        assert "".join(pieces) == expected_text("hi", TOKENS) and len([piece for piece in pieces if piece]) == TOKENS

    def test_embeddings(self, url: str) -> None:
        assert self.embed(url, "hello") == pytest.approx(vector("hello", DIMENSIONS), abs=1e-6)

    def test_tool_call(self, url: str) -> None:
        assert self.call_tool(url, "@@tool@@ please") == ("weather", {"city": "Paris"})

    def test_image(self, url: str, ollama: Simulator) -> None:
        prompt = f"what is on it, asks {type(self).__name__}?"
        said = self.look(url, prompt)
        request = heard(ollama, prompt)
        assert PIXEL.encode() in request.body and said == expected_text(request.prompt, TOKENS)

    def test_structured_output(self, url: str) -> None:
        assert self.fill_in(url, "the capital of France") == {"capital": "Paris"}

    def test_models(self, url: str) -> None:
        assert {f"{MODEL}:latest", f"{EMBEDDER}:latest"} <= set(self.models(url))

    def test_missing_model(self, url: str) -> None:
        error = failure(lambda: self.chat(url, "hi", "nothere"))
        assert self.missing_raises in names(error) and "'nothere' not found" in str(error), repr(error)

    def test_full_queue(self, full: Full) -> None:
        """The error says so; a library that tries again waits as long as Hermes asked it to."""
        start = time.monotonic()
        error = failure(lambda: self.chat(full.url, "hi"))
        took = time.monotonic() - start
        assert self.busy_raises in names(error) and "server busy" in str(error), repr(error)
        assert full.rejected == self.attempts
        assert took >= (self.attempts - 1) * RETRY_AFTER

    @pytest.mark.parametrize("kind", FAILURES)
    def test_failure_in_mid_stream(self, url: str, kind: str) -> None:
        """The caller gets what there was, and then an exception: never a short answer that looks whole."""
        pieces: list[str] = []
        error = failure(lambda: pieces.extend(self.stream(url, f"hi {FAILURES[kind]}")))
        assert self.raises in names(error) and re.search(self.words, str(error)), repr(error)
        assert any(pieces), "it was in mid stream"

    def test_leaving(self, url: str, ollama: Simulator) -> None:
        """The first piece comes while the rest is still being made; Ollama hears within a second that nobody wants it."""
        prompt = f"{type(self).__name__} leaves {LONG}"
        with self.left(url, prompt):
            request = heard(ollama, prompt)
            assert ollama.wait_for(lambda: request.client_left, 1.0)
            assert request.phase == "streaming" and request.chunks < 300


class Retrying(Cases):
    """The cases of a library that asks again by itself."""

    attempts = 3

    def test_full_queue_that_gets_room(self, full: Full) -> None:
        """Whoever tries again does not notice that there was none."""
        waiter = threading.Thread(target=lambda: (eventually(lambda: full.rejected), full.free()))
        waiter.start()
        assert self.chat(full.url, "hi") == expected_text("hi", TOKENS)
        waiter.join()
        assert 1 <= full.rejected < self.attempts


@contextmanager
def left(pieces: Iterator[str]) -> Iterator[None]:
    next(pieces)
    pieces.close()
    yield


def failure(work) -> BaseException:
    """The exception that `work` ends with."""
    with pytest.raises(Exception) as caught:
        work()
    return caught.value


def names(error: BaseException) -> set[str]:
    """Its class and those above, or what it was called on the other side of a pipe."""
    return {cls.__name__ for cls in type(error).__mro__} | {getattr(error, "name", "")}


def heard(ollama: Simulator, prompt: str) -> SimRequest:
    """The request with this prompt, as the stand-in has it."""
    return next(request for request in reversed(ollama.requests) if request.prompt.strip() == prompt)
