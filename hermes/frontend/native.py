"""Ollama's native dialect: /api/… and /. Errors are {"error": text}, in a stream as a line (ollama-api.md §2.1)."""

from typing import NamedTuple

from hermes.dispatch.dispatcher import Dispatcher
from hermes.dispatch.registry import Place
from hermes.errors import BadRequest, HermesError, ModelNotFound, NotFound
from hermes.frontend import guards, loading
from hermes.frontend.exchange import JSON, NDJSON, Call, Dialect, Streamed, error_event, error_line
from hermes.frontend.jsonbody import Member, Members, read_members, replace, replacing, setting, splice
from hermes.frontend.relay import Errand, find_place, make_job, permit, relay
from hermes.frontend.router import Route
from hermes.workers.messages import Bytes, Job, Rename


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
           ("GET", "/"), ("HEAD", "/"), ("GET", "/api/status"), ("POST", "/api/me"))
GREETINGS = ("/", "/api/version")       # what Ollama's own command asks first, whatever it is to do


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
        return ([Route("POST", path, DIALECT, self.generate, infers=True) for path in GENERATING]
                + [Route("POST", "/api/show", DIALECT, self.show)]
                + [Route(method, path, DIALECT, self.read, admin="too" if path in GREETINGS else "not") for method, path in READING])

    def generate(self, call: Call) -> Streamed:
        return infer(self._dispatcher, call, GENERATING[call.request.path], DIALECT)

    def read(self, call: Call) -> Streamed:
        """Calls that need no running model never wait behind generation: they have workers of their own."""
        return self._control(call, make_job(self._dispatcher, call, call.body, ""))

    def show(self, call: Call) -> Streamed:
        """A name of the configuration's own is shown as the model behind it, and no other is touched: cloud models are shown as well."""
        body, rename, named = call.body, None, named_members(call)
        for member in named:
            permit(self._dispatcher, call, member.value)
        if named:
            call.model = named[0].value
            if (model := self._dispatcher.alias_of(call.model)) is not None:
                body, rename = replace(body, named[0], model), Rename("model", model, call.model)
        return self._control(call, make_job(self._dispatcher, call, body, "")._replace(rename=rename))

    def _control(self, call: Call, job: Job) -> Streamed:
        return relay(self._dispatcher, call, Errand(self._dispatcher.registry.control, job, DIALECT))


def named_members(call: Call) -> list[Member]:
    """The members that can say which model to show, the one that does first: `model`, or `name` where that is empty (ollama-api.md §0.13).

    None of them, if the body cannot be read: Ollama will say why. Raises BadRequest if the client may not use every model.
    """
    try:
        members = read_members(call.body)
    except BadRequest:
        if call.principal.may_use(()):
            return []
        raise
    return [members[key] for key in ("model", "name") if key in members and members[key].kind == "string" and not members[key].empty]


def infer(dispatcher: Dispatcher, call: Call, rules: Rules, dialect: Dialect) -> Streamed:
    """Send a call that names its model in the body to that model's pool."""
    members = rules.members(call.body)
    member = model_member(members, rules)
    call.model = member.value
    try:
        place = find_place(dispatcher, call)
    except ModelNotFound:
        if call.request.path in EMBEDDING:
            raise ModelNotFound(f'model "{call.model}" not found, try pulling it first') from None
        raise
    native = dialect is DIALECT
    change = guards.check(members, place, call.request.path, rules.struct)
    edits = loading.edits(members, place, change) if native else setting(members, change.fields)
    name = spoken_name(dispatcher, call, place, native=native)
    if name != call.model:
        edits.append(replacing(member, name))
    body = splice(call.body, edits) if edits else call.body     # pieces, of which the large ones are the client's own bytes
    job = spoken_as(make_job(dispatcher, call, body, rules.ending), call, name)
    if not native:
        job = job._replace(prelude=loading.prelude(place, name, call.request.path))
    kind = rules.kind(members["stream"].value if "stream" in members else None)
    rank = dispatcher.registry.embedding_rank if call.request.path in EMBEDDING else 0
    return send(dispatcher, call, Errand(place, job, dialect, kind, rank))


def spoken_name(dispatcher: Dispatcher, call: Call, place: Place, *, native: bool) -> str:
    """What the call's model is called towards Ollama. Raises what Derivatives.of does."""
    if place.num_ctx and not native:
        return dispatcher.derivatives.of(place, call.client)
    return dispatcher.name_of(place, call.model)


def spoken_as(job: Job, call: Call, name: str) -> Job:
    """A job about `name` whose answer has the client's own name in its place."""
    return job if name == call.model else job._replace(rename=Rename("model", name, call.model))


def send(dispatcher: Dispatcher, call: Call, errand: Errand) -> Streamed:
    answer = relay(dispatcher, call, errand._replace(job=guards.timed(errand.job, errand.place)))
    if answer.status == 404:
        dispatcher.derivatives.forget(errand.place.pool)        # somebody has deleted the second name
    return answer
