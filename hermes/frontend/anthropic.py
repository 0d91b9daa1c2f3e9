"""Anthropic's dialect: POST /v1/messages. Errors are {"type":"error","error":{type, message},"request_id"} (ollama-api.md §2.1); inside a
stream the same object is an event named `error`, from which the SDKs raise. They know events by their names only, so the name is a must."""

from hermes.dispatch.dispatcher import Dispatcher
from hermes.errors import BadRequest, HermesError
from hermes.frontend.exchange import SSE, Call, Dialect, Streamed, encode
from hermes.frontend.native import Rules, infer
from hermes.frontend.router import Route

PATH = "/v1/messages"

# Ollama's list, and from Anthropic's own what Ollama never answers: 413 and 504. Anthropic: invalid_request_error is for other 4xx as well.
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
          503: "overloaded_error", 504: "timeout_error"}


def _error_body(error: HermesError, request_id: str = "") -> bytes:
    kind = _TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    shape = {"type": "error", "error": {"type": kind, "message": error.text}, "request_id": request_id}
    return encode(shape)


def _sse_error(error: HermesError, request_id: str = "") -> bytes:
    return b"event: error\ndata: " + _error_body(error, request_id) + b"\n\n"


DIALECT = Dialect("anthropic", _error_body, _sse_error, ("X-Request-ID", "request-id"), translated=True)
RULES = Rules("MessagesRequest", BadRequest, "message_stop", SSE, package="anthropic", empty="EOF")


class Anthropic:
    """The endpoint; runs in its client's handler thread."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher

    def routes(self) -> list[Route]:
        return [Route("POST", PATH, DIALECT, self.generate, infers=True)]

    def generate(self, call: Call) -> Streamed:
        return infer(self._dispatcher, call, RULES, DIALECT)
