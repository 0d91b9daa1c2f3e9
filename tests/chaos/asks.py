"""What a request is on the wire, and what the stand-in says to it. Pure."""

import json

from hermes.simulator import expected_text
from hermes.simulator.text import vector
from tests.chaos.plan import EMBEDDING_ROUTES, NAMES, Ask

KEYS = {name: f"hk-chaos-{name}-0123456789" for name in ("alice", "bob", "carol", "dave")}
DIMENSIONS = 384            # of the stand-in's model for embeddings


def request_id(seed: int, number: int) -> str:
    return f"chaos-{seed}-{number}"


def prompt(ask: Ask) -> str:
    """No two asks have the same, so that no answer can be taken for another's."""
    marks = [f"tokens={ask.tokens},interval={ask.interval}", *filter(None, [ask.wish])]
    return f"chaos {ask.number} of {ask.who} @@{','.join(marks)}@@"


def number_of(text: str) -> int | None:
    """Which ask a prompt belongs to; None if it is nobody's here."""
    words = text.split()
    return int(words[1]) if len(words) > 2 and words[0] == "chaos" and words[1].isdecimal() else None


def path(ask: Ask) -> str:
    return ask.route + ask.model if ask.route == "/v1/llm/" else ask.route


def body(ask: Ask) -> bytes:
    text = prompt(ask)
    said: dict[str, object] = {"stream": ask.stream} if ask.route not in EMBEDDING_ROUTES else {}
    if ask.route != "/v1/llm/":
        said["model"] = ask.model
    if ask.route in EMBEDDING_ROUTES:
        said["input"] = text
    elif ask.route in ("/api/generate", "/v1/llm/"):
        said["prompt"] = text
    else:
        said["messages"] = [{"role": "user", "content": text}]
    if ask.route == "/v1/messages":
        said["max_tokens"] = 1_000_000
    return json.dumps(said).encode()


def message(ask: Ask, seed: int) -> tuple[bytes, bytes]:
    """Head and body of the whole request."""
    said = body(ask)
    rank = f"X-Hermes-Class: {ask.rank}\r\n" if ask.rank else ""
    head = (f"POST {path(ask)} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEYS[ask.who]}\r\nContent-Type: application/json\r\n"
            f"X-Request-ID: {request_id(seed, ask.number)}\r\n{rank}Content-Length: {len(said)}\r\n\r\n")
    return head.encode(), said


def text_of(ask: Ask) -> str:
    """The whole answer in words."""
    return expected_text(prompt(ask), ask.tokens)


def numbers_of(ask: Ask) -> list[float]:
    """The whole answer to a request for an embedding."""
    return vector(prompt(ask), DIMENSIONS)


def model_of(ask: Ask) -> str:
    """What Ollama calls it."""
    return NAMES.get(ask.model, ask.model)
