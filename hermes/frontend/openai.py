"""OpenAI's dialect: /v1/chat/completions and its kin. Errors are {"error": {message, type, param, code}} (ollama-api.md §2.1);
inside a stream the same object is an SSE event, from which the SDKs raise."""

import json

from hermes.dispatch.dispatcher import Dispatcher
from hermes.errors import BadRequest, CallerError, HermesError, NotFound
from hermes.frontend.exchange import SSE, Call, Dialect, Streamed
from hermes.frontend.native import Rules, infer
from hermes.frontend.relay import Errand, make_job, permit, relay
from hermes.frontend.router import Route

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def _error_body(error: HermesError) -> bytes:
    """`code` is Hermes's own word where Hermes itself says no; where it speaks for Ollama it is null, as Ollama's is."""
    code = None if isinstance(error, CallerError) else error.code
    shape = {"error": {"message": error.text, "type": _TYPES.get(error.status, "api_error"), "param": None, "code": code}}
    return json.dumps(shape, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _sse_error(error: HermesError) -> bytes:
    return b"data: " + _error_body(error) + b"\n\n"


DIALECT = Dialect("openai", _error_body, _sse_error)
GENERATING = {"/v1/chat/completions": Rules("ChatCompletionRequest", BadRequest, "[DONE]", SSE, package="openai", empty="EOF"),
              "/v1/completions": Rules("CompletionRequest", NotFound, "[DONE]", SSE, package="openai", empty="EOF"),
              "/v1/embeddings": Rules("EmbedRequest", BadRequest, "[DONE]", package="openai", empty="EOF")}


class OpenAI:
    """The endpoints; each runs in its client's handler thread."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher

    def routes(self) -> list[Route]:
        return ([Route("POST", path, DIALECT, self.generate) for path in GENERATING]
                + [Route("GET", "/v1/models", DIALECT, self.read), Route("GET", "/v1/models/{model}", DIALECT, self.read)])

    def generate(self, call: Call) -> Streamed:
        return infer(self._dispatcher, call, GENERATING[call.request.path], DIALECT)

    def read(self, call: Call) -> Streamed:
        if call.model:
            permit(self._dispatcher, call, call.model)
        job = make_job(self._dispatcher, call, b"", "")
        return relay(self._dispatcher, call, Errand(self._dispatcher.registry.control, job, DIALECT))
