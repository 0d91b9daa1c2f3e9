"""Which endpoint answers which path, and what a request is about before anybody checks it (ollama-api.md §1.1)."""

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from hermes.simulator import anthropic, catalog, management, native, openai, responses, speech
from hermes.simulator.exchange import Exchange
from hermes.simulator.models import canonical
from hermes.simulator.reading import Request

Endpoint = Callable[[Exchange], None]


@dataclass(frozen=True)
class Route:
    """One path. `inference` routes run a model and are counted."""

    methods: tuple[str, ...]
    endpoint: Endpoint
    inference: bool = False


_READ, _GET, _POST = ("GET", "HEAD"), ("GET",), ("POST",)
_MODEL_PREFIX = "/v1/models/"

ROUTES = {
    "/": Route(_READ, catalog.root),
    "/api/version": Route(_READ, catalog.version),
    "/api/tags": Route(_READ, catalog.tags),
    "/api/ps": Route(_GET, catalog.ps),
    "/api/status": Route(_GET, catalog.status),
    "/api/show": Route(_POST, catalog.show),
    "/api/pull": Route(_POST, catalog.pull),
    "/api/copy": Route(_POST, catalog.copy),
    "/api/delete": Route(("DELETE",), catalog.delete),
    "/api/generate": Route(_POST, native.generate_text, inference=True),
    "/api/chat": Route(_POST, native.chat, inference=True),
    "/api/embed": Route(_POST, native.embed, inference=True),
    "/api/embeddings": Route(_POST, native.embed_one, inference=True),
    "/v1/chat/completions": Route(_POST, openai.chat, inference=True),
    "/v1/completions": Route(_POST, openai.complete, inference=True),
    "/v1/embeddings": Route(_POST, openai.embed, inference=True),
    "/v1/messages": Route(_POST, anthropic.messages, inference=True),
    "/v1/responses": Route(_POST, responses.responses, inference=True),
    "/v1/audio/transcriptions": Route(_POST, speech.transcribe, inference=True),
    "/v1/models": Route(_GET, catalog.models),
    "/api/create": Route(_POST, management.create),
    "/api/push": Route(_POST, management.push),
    "/api/me": Route(_POST, management.me),
}
_RETRIEVE = Route(_GET, catalog.model)
_BLOB = Route(("HEAD", "POST"), management.blob)


def find(path: str) -> Route | None:
    """The route of a path, whatever the method."""
    if path.startswith(_MODEL_PREFIX) and path.count("/") == 3 and "%2f" not in path.lower() and path != _MODEL_PREFIX:
        return _RETRIEVE
    if path.startswith(management.BLOBS) and path.count("/") == 3:
        return _BLOB
    return ROUTES.get(path)


def dispatch(x: Exchange) -> None:
    """Answers a request: by its endpoint, or as the router does that has none for it."""
    request = x.request
    route = find(request.path)
    if route is None:
        return _no_route(x)
    if request.method not in route.methods:
        allow = f"Allow: {', '.join(route.methods)}\r\n".encode("ascii")
        return x.wire.answer(405, "text/plain", b"405 method not allowed", allow)
    route.endpoint(x)


def _no_route(x: Exchange) -> None:
    bare = x.request.path.removesuffix("/")
    route = find(bare)
    if route is None or x.request.method not in route.methods:
        return x.wire.answer(404, "text/plain", b"404 page not found")
    location = f"Location: {bare}\r\n".encode("utf-8")
    if x.request.method == "GET":
        body = f'<a href="{bare}">Moved Permanently</a>.\n\n'.encode("utf-8")
        return x.wire.answer(301, "text/html; charset=utf-8", body, location)
    x.wire.answer(307, "", b"", location)


def about(request: Request, parsed: object) -> tuple[str, str]:
    """The model, canonically, and the prompt of a request; empty where there is none or it cannot be read."""
    if request.path.startswith(_MODEL_PREFIX):
        return canonical(unquote(request.path.removeprefix(_MODEL_PREFIX))), ""
    if request.path == "/v1/audio/transcriptions":
        model = speech.read_form(request.headers.get("content-type", ""), request.body).get("model", b"").decode("utf-8", "replace")
        return canonical(model), ""
    if not isinstance(parsed, dict):
        return "", ""
    model = parsed.get("model") or parsed.get("name")
    return canonical(model) if isinstance(model, str) else "", _prompt(parsed)


def _prompt(fields: dict[str, object]) -> str:
    messages = fields.get("messages")
    if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
        return _text(messages[-1].get("content"))
    return _text(fields.get("prompt") or fields.get("input"))


def _text(content: object) -> str:
    """A string, the text parts of a message joined, or the last of several inputs."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return ""
    if isinstance(content[-1], str):
        return content[-1]
    if isinstance(content[-1], dict) and "content" in content[-1]:
        return _text(content[-1]["content"])  # An item of /v1/responses.
    parts = (part.get("text") for part in content if isinstance(part, dict))
    return "".join(part for part in parts if isinstance(part, str))
