"""OpenAI's dialect: /v1/chat/completions and its kin. Errors are {"error": {message, type, param, code}} (ollama-api.md §2.1);
inside a stream the same object is an SSE event, from which the SDKs raise.

/v1/responses has named events. Its `response.failed` would need the response's own id and would raise nothing: the SDKs hand it on like any
event, and a loop that waits for text just ends. So a failure is its `error` event, with OpenAI's fields beside Ollama's object:
openai-python and openai-js raise from a truthy `error` whatever the event is called (tried with 3.57 and 7.57), others look at `type`.
"""

import json
from functools import partial
from urllib.parse import quote

from hermes.dispatch.dispatcher import Dispatcher
from hermes.errors import BadRequest, CallerError, HermesError, ModelNotFound, NotFound
from hermes.frontend import loading, multipart
from hermes.frontend.exchange import SSE, Call, Dialect, Response, Streamed, encode
from hermes.frontend.native import Rules, infer, send, spoken_as, spoken_name
from hermes.frontend.relay import Errand, find_place, make_job, permit, relay
from hermes.frontend.router import Route
from hermes.names import same
from hermes.workers.messages import Job, Rename

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}


def _error_object(error: HermesError) -> dict[str, str | None]:
    """`code` is Hermes's own word where Hermes itself says no; where it speaks for Ollama it is null, as Ollama's is."""
    code = None if isinstance(error, CallerError) else error.code
    return {"message": error.text, "type": _TYPES.get(error.status, "api_error"), "param": None, "code": code}


def _error_body(error: HermesError, request_id: str = "") -> bytes:
    return encode({"error": _error_object(error)})


def _sse_error(error: HermesError, request_id: str = "") -> bytes:
    return b"data: " + _error_body(error) + b"\n\n"


def _responses_error(error: HermesError, request_id: str = "") -> bytes:
    """`sequence_number` is there because the AI SDK knows no error event without a number; nobody counted the events before it."""
    shape = _error_object(error)
    event = {"type": "error", "sequence_number": 0, "code": shape["code"], "message": shape["message"], "param": None, "error": shape}
    return b"event: error\ndata: " + encode(event) + b"\n\n"


DIALECT = Dialect("openai", _error_body, _sse_error, translated=True)
RESPONSES = Dialect("openai", _error_body, _responses_error, translated=True)
_rules = partial(Rules, package="openai", empty="EOF")
GENERATING = {"/v1/chat/completions": (DIALECT, _rules("ChatCompletionRequest", BadRequest, "[DONE]", SSE, first="messages")),
              "/v1/completions": (DIALECT, _rules("CompletionRequest", NotFound, "[DONE]", SSE)),
              "/v1/embeddings": (DIALECT, _rules("EmbedRequest", BadRequest, "[DONE]")),
              "/v1/responses": (RESPONSES, _rules("ResponsesRequest", BadRequest, "response.completed", SSE))}


class OpenAI:
    """The endpoints; each runs in its client's handler thread."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher

    def routes(self) -> list[Route]:
        return ([Route("POST", path, dialect, self.generate, infers=True) for path, (dialect, _) in GENERATING.items()]
                + [Route("POST", "/v1/audio/transcriptions", DIALECT, self.transcribe, infers=True),
                   Route("GET", "/v1/models", DIALECT, self.read), Route("GET", "/v1/models/{model}", DIALECT, self.retrieve)])

    def generate(self, call: Call) -> Streamed:
        dialect, rules = GENERATING[call.request.path]
        return infer(self._dispatcher, call, rules, dialect)

    def transcribe(self, call: Call) -> Streamed:
        """The one route whose model stands in a form (ollama-api.md §1.15). Its answer is whole: there is nothing to stream."""
        body = call.body
        field = multipart.find_field(body, call.request.headers.get("content-type", ""))
        if field is None or not field.value:
            raise BadRequest("model is required")
        call.model = field.value
        place = find_place(self._dispatcher, call)
        name = spoken_name(self._dispatcher, call, place, native=False)
        if name != call.model:
            body = multipart.replace(body, field, name)
        job = spoken_as(make_job(self._dispatcher, call, body, ""), call, name)
        job = job._replace(prelude=loading.prelude(place, name, call.request.path))
        return send(self._dispatcher, call, Errand(place, job, DIALECT))

    def read(self, call: Call) -> Streamed:
        return self._control(call, make_job(self._dispatcher, call, b"", ""))

    def retrieve(self, call: Call) -> Streamed | Response:
        """A name of the configuration's own is answered as the model behind it, under the name that was asked for."""
        permit(self._dispatcher, call, call.model)
        model = self._dispatcher.alias_of(call.model)
        if "/" in (model or call.model):
            return self._listed(call, model or call.model)
        job = make_job(self._dispatcher, call, b"", "")
        if model is not None:
            job = job._replace(path="/v1/models/" + quote(model, safe=":"), rename=Rename("id", model, call.model))
        return self._control(call, job)

    def _control(self, call: Call, job: Job) -> Streamed:
        return relay(self._dispatcher, call, Errand(self._dispatcher.registry.control, job, DIALECT))

    def _listed(self, call: Call, name: str) -> Response:
        """A name with a slash has no path at Ollama (ollama-api.md §1.1), but it is in the list."""
        status, body = self._dispatcher.ask("GET", "/v1/models", call.client)
        try:
            models = json.loads(body)["data"] or () if status == 200 else ()
            found = next((model for model in models if same(model["id"], name)), None)
        except (ValueError, KeyError, TypeError):
            found = None
        if found is None:
            raise ModelNotFound(f"model '{call.model}' not found")
        return Response(200, json.dumps({**found, "id": call.model}, separators=(",", ":")).encode())
