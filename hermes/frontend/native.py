"""Ollama's native dialect: /api/… and /. Errors are {"error": text}, in a stream as a line (ollama-api.md §2.1)."""

from typing import NamedTuple

from hermes.dispatch.dispatcher import Dispatcher
from hermes.errors import BadRequest, HermesError, ModelNotFound, NotFound
from hermes.frontend.exchange import JSON, NDJSON, Call, Dialect, Streamed, error_event, error_line
from hermes.frontend.jsonbody import Member, Members, read_members, replace
from hermes.frontend.relay import Errand, find_place, make_job, permit, relay
from hermes.frontend.router import Route
from hermes.workers.messages import Bytes


DIALECT = Dialect("native", error_line, error_event)


class Rules(NamedTuple):
    """What differs between routes that name their model in the body: the Go struct, and its package, that Ollama names in its type errors,
    what it answers to a missing model and to an empty body (ollama-api.md §2.2), how a stream must end, and its content type: "" where
    nothing is streamed; and the array that Ollama misses before it misses the model."""

    struct: str
    missing: type[HermesError]
    ending: str
    stream_type: str = ""
    streams_unasked: bool = False
    package: str = "api"
    empty: str = "missing request body"
    first: str = ""

    def kind(self, stream: object) -> str:
        """The content type of a good answer to a request whose `stream` says so."""
        streams = self.streams_unasked if stream is None else stream is True
        return self.stream_type if streams and self.stream_type else JSON

    def no_model(self, members: Members) -> HermesError:
        if self.first and (self.first not in members or members[self.first].empty):
            return BadRequest(f"[] is too short - '{self.first}'")
        return self.missing("model '' not found" if self.missing is NotFound else "model is required")

    def members(self, body: Bytes) -> Members:
        """What the body says. Raises BadRequest, in Ollama's words, and BodyTooLarge."""
        return read_members(body, self.empty, f"json: cannot unmarshal {{kind}} into Go value of type {self.package}.{self.struct}")


GENERATING = {"/api/generate": Rules("GenerateRequest", NotFound, "done", NDJSON, True),
              "/api/chat": Rules("ChatRequest", BadRequest, "done", NDJSON, True),
              "/api/embed": Rules("EmbedRequest", NotFound, "done"), "/api/embeddings": Rules("EmbeddingRequest", BadRequest, "done")}
EMBEDDING = ("/api/embed", "/api/embeddings", "/v1/embeddings")
READING = (("GET", "/api/tags"), ("HEAD", "/api/tags"), ("GET", "/api/ps"), ("GET", "/api/version"), ("HEAD", "/api/version"),
           ("GET", "/"), ("HEAD", "/"), ("POST", "/api/show"), ("GET", "/api/status"), ("POST", "/api/me"))


def model_member(members: Members, rules: Rules) -> Member:
    """The member that names the model. Raises what Ollama answers when there is none, or none that can be a name."""
    member = members.get("model")
    if member is None or member.kind in ("string", "null") and member.empty:
        raise rules.no_model(members)
    if member.kind != "string":
        raise BadRequest(f"json: cannot unmarshal {member.kind} into Go struct field {rules.struct}.model of type string")
    return member


class Native:
    """The endpoints; each runs in its client's handler thread."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher

    def routes(self) -> list[Route]:
        return ([Route("POST", path, DIALECT, self.generate) for path in GENERATING]
                + [Route(method, path, DIALECT, self.read) for method, path in READING])

    def generate(self, call: Call) -> Streamed:
        return infer(self._dispatcher, call, GENERATING[call.request.path], DIALECT)

    def read(self, call: Call) -> Streamed:
        """Calls that need no running model never wait behind generation: they have workers of their own."""
        if call.request.path == "/api/show" and not call.principal.may_use(()):
            members = read_members(call.body)
            for key in ("model", "name"):       # Ollama takes either
                if key in members and members[key].kind == "string":
                    permit(self._dispatcher, call, members[key].value)
        job = make_job(self._dispatcher, call, call.body, "")
        return relay(self._dispatcher, call, Errand(self._dispatcher.registry.control, job, DIALECT))


def infer(dispatcher: Dispatcher, call: Call, rules: Rules, dialect: Dialect) -> Streamed:
    """Send a call that names its model in the body to that model's pool."""
    body = call.body
    members = rules.members(body)
    member = model_member(members, rules)
    call.model = member.value
    try:
        place = find_place(dispatcher, call)
    except ModelNotFound:
        if call.request.path in EMBEDDING:
            raise ModelNotFound(f'model "{call.model}" not found, try pulling it first') from None
        raise
    if dispatcher.renamed(call.model, place):
        body = replace(body, member, place.model)           # pieces now, of which the large ones are the client's own bytes
    kind = rules.kind(members["stream"].value if "stream" in members else None)
    return relay(dispatcher, call, Errand(place, make_job(dispatcher, call, body, rules.ending), dialect, kind))
