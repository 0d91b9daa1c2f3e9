"""An answer's body, whole or cut, as its clients read it. Pure."""

import json
from dataclasses import dataclass, field

from tests.chaos.plan import EMBEDDING_ROUTES


class NotAnAnswer(Exception):
    """The bytes are no answer of this route."""


@dataclass
class Told:
    """What a body says: `done` if its last record says so, `error` the text of a notice that it ends with. `strays` are lines that cannot be
    read, each with whether a notice stands right behind it or nothing does."""

    text: str = ""
    done: bool = False
    error: str | None = None
    strays: list[tuple[bytes, bool]] = field(default_factory=list)

    def take(self, record: dict, ending: bool, words: str) -> None:
        if self.done or self.error is not None:
            raise NotAnAnswer("it goes on behind its end")
        self.text += words
        self.done = ending

    def fail(self, text: str) -> None:
        if self.done or self.error is not None:
            raise NotAnAnswer("an error stands behind its end")
        self.error = text

    def stray(self, line: bytes) -> None:
        self.strays.append((line, False))

    def settle_strays(self, pieces: list[bytes]) -> None:
        """The last piece that says something, but for the notice, may be cut in two."""
        last = pieces[-2 if self.error is not None else -1] if len(pieces) > (self.error is not None) else None
        self.strays = [(line, line is last) for line, _ in self.strays]


def native_error(shape: object) -> str | None:
    return shape["error"] if isinstance(shape, dict) and list(shape) == ["error"] and isinstance(shape["error"], str) else None


def openai_error(shape: object) -> str | None:
    error = shape.get("error") if isinstance(shape, dict) else None
    fits = list(shape) == ["error"] and set(error) == {"message", "type", "param", "code"} if isinstance(error, dict) else False
    return error["message"] if fits and isinstance(error["message"], str) else None


def anthropic_error(shape: object) -> str | None:
    if not isinstance(shape, dict) or set(shape) != {"type", "error", "request_id"} or shape["type"] != "error":
        return None
    error = shape["error"]
    return error["message"] if isinstance(error, dict) and set(error) == {"type", "message"} and isinstance(error["message"], str) else None


def error_of(route: str, body: bytes) -> str:
    """The text of a whole error. Raises NotAnAnswer if it has not the shape of the route's family."""
    reader = anthropic_error if route == "/v1/messages" else native_error if route.startswith(("/api/", "/v1/llm/")) else openai_error
    try:
        text = reader(json.loads(body))
    except ValueError:
        text = None
    if text is None:
        raise NotAnAnswer(f"an error of another shape: {body[:300]!r}")
    return text


def read_stream(route: str, body: bytes) -> Told:
    """Raises NotAnAnswer."""
    return _read_lines(route, body) if route.startswith(("/api/", "/v1/llm/")) else _read_events(route, body)


def _read_lines(route: str, body: bytes) -> Told:
    told = Told()
    lines = [line.strip(b" ") for line in body.split(b"\n")]
    pieces = [line for line in lines if line]
    for line in pieces:
        try:
            record = json.loads(line)
        except ValueError:
            told.stray(line)
            continue
        if not isinstance(record, dict):
            raise NotAnAnswer(f"a record that is no object: {line[:200]!r}")
        if "error" in record:
            if (text := native_error(record)) is None:
                raise NotAnAnswer(f"an error of another shape: {line[:300]!r}")
            told.fail(text)
        else:
            told.take(record, record.get("done") is True, _words(route, record))
    told.settle_strays(pieces)
    return told


def _words(route: str, record: dict) -> str:
    try:
        return {"/api/chat": lambda: record["message"]["content"], "/api/generate": lambda: record["response"], "/v1/llm/": lambda: record["text"]}[route]()
    except (KeyError, TypeError):
        raise NotAnAnswer(f"a record without words: {record}") from None


def _read_events(route: str, body: bytes) -> Told:
    told = Told()
    pieces = [event for event in (event.strip(b"\n") for event in body.split(b"\n\n")) if event and not event.startswith(b":")]
    for event in pieces:
        data = b"".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if data == b"[DONE]":
            told.take({}, True, "")
            continue
        try:
            record = json.loads(data)
        except ValueError:
            told.stray(event)
            continue
        if "error" in record:
            text = anthropic_error(record) if route == "/v1/messages" else openai_error(record)
            if text is None or route == "/v1/messages" and not event.startswith(b"event: error\n"):
                raise NotAnAnswer(f"an error of another shape: {event[:300]!r}")
            told.fail(text)
        elif route == "/v1/messages":
            told.take(record, record["type"] == "message_stop", record.get("delta", {}).get("text", ""))
        else:
            told.take(record, False, "".join(choice["delta"].get("content", "") for choice in record["choices"]))
    told.settle_strays(pieces)
    return told


def read_whole(route: str, body: bytes) -> str | list[float]:
    """The words, or the numbers, of a whole plain answer. Raises NotAnAnswer."""
    try:
        shape = json.loads(body)
        if route in EMBEDDING_ROUTES:
            return shape["embeddings"][0] if route == "/api/embed" else shape["data"][0]["embedding"]
        if route == "/v1/messages":
            return "".join(part["text"] for part in shape["content"])
        if route == "/v1/chat/completions":
            return shape["choices"][0]["message"]["content"]
        return _words(route, shape)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise NotAnAnswer(f"not the answer of {route}: {body[:300]!r} ({type(error).__name__})") from None
