"""Ollama's own routes: the client's request goes to the same path, Ollama's status, content type and body come back."""

import json
import math
from typing import NamedTuple

from hermes.dispatch.dispatcher import Dispatcher
from hermes.dispatch.lease import Lease
from hermes.dispatch.pending import Pending
from hermes.dispatch.registry import Place
from hermes.errors import ClientForbidden, UpstreamFailed
from hermes.frontend.exchange import JSON, NDJSON, SSE, Call, Dialect, Source, Streamed
from hermes.frontend.heartbeat import Beats, Late
from hermes.frontend.http1 import chunk
from hermes.frontend.wishes import asker_of, told
from hermes.names import canonical
from hermes.workers.chunks import payload
from hermes.workers.messages import Body, Job

# What goes to Ollama of the client's headers. Never a key or a cookie: for cloud models Ollama passes headers on (ollama-api.md §0.19).
FORWARDED = {"content-type": "Content-Type", "accept": "Accept", "user-agent": "User-Agent"}

BUSY = "5"                  # seconds: Ollama's queue of loads is full, and a load takes as long at the least
_NAMES = {"content-type": "Content-Type", "cache-control": "Cache-Control", "allow": "Allow", "location": "Location"}


def permit(dispatcher: Dispatcher, call: Call, name: str) -> None:
    """Raises ClientForbidden if the client may not use the model, by whatever name it has here. Ollama is not asked: the answer must not
    tell which models there are."""
    if call.principal.may_use(()):
        return
    try:
        key = canonical(name)
    except ValueError:
        names = ()                              # no model has such a name
    else:
        place = dispatcher.registry.find(key)
        names = (key, canonical(place.pool.name), canonical(place.model)) if place else (key,)
    if not call.principal.may_use(names):
        raise ClientForbidden


def find_place(dispatcher: Dispatcher, call: Call) -> Place:
    """Where the call's model runs. Raises ClientForbidden, and whatever `Dispatcher.place` does."""
    permit(dispatcher, call, call.model)
    return dispatcher.place(call.model, call.client)


def make_job(dispatcher: Dispatcher, call: Call, body: Body, ending: str) -> Job:
    request = call.request
    path = request.path + ("?" + request.query if request.query else "")
    headers = tuple((name, request.headers[key]) for key, name in FORWARDED.items() if key in request.headers)
    return dispatcher.job(request.method, path, headers=headers, body=body, ending=ending, decode=not request.http11)


class Errand(NamedTuple):
    """What is to be relayed: `kind` is the content type the answer will have if all goes well and it may begin late; "" = it may not. `rank`: the best class it
    has if nobody asks for one."""

    place: Place
    job: Job
    dialect: Dialect
    kind: str = ""
    rank: int = 0


def relay(dispatcher: Dispatcher, call: Call, errand: Errand) -> Streamed:
    """Run the job and hand its answer on as it comes; if it is long in coming, begin it with heartbeats."""
    pending = call.pending = dispatcher.admit(errand.place, errand.job, asker_of(call, errand.rank))
    patience = {"": math.inf, JSON: call.heartbeat_plain}.get(errand.kind, call.heartbeat)
    lease = pending.wait(call.arrived + patience)
    if lease is None:
        return _late(call, errand, pending)
    call.queued = lease.queued
    call.headers += told(pending, lease.queued)
    head = lease.head
    kind = dict(head.headers).get("content-type", "")
    headers = tuple((_NAMES.get(name, name), value) for name, value in head.headers)
    return Streamed(head.status, lease, head.framing, head.length, headers + _for_proxies(kind, headers) + come_again(head.status),
                    errand.dialect.in_band(kind, call.request_id))


def come_again(status: int) -> tuple[tuple[str, str], ...]:
    """When to come again, where Ollama itself says that it is busy: it never says when (ollama-api.md §0.20)."""
    return (("Retry-After", BUSY),) if status in (429, 503) else ()


def _for_proxies(kind: str, headers: tuple[tuple[str, str], ...] = ()) -> tuple[tuple[str, str], ...]:
    """What keeps a proxy from collecting a stream (conventions.md §1.3)."""
    if kind.partition(";")[0] not in (NDJSON, SSE):
        return ()
    cache = (("Cache-Control", "no-cache"),) if kind.startswith(SSE) and "Cache-Control" not in dict(headers) else ()
    return (("X-Accel-Buffering", "no"), *cache)


def _late(call: Call, errand: Errand, pending: Pending) -> Streamed:
    """An answer that begins before Ollama's does: a 200 of the expected kind, chunk-coded by us until the lease's own coding takes over."""
    coded, kind = call.request.http11, errand.kind

    def source_of(lease: Lease) -> Source:
        call.queued = lease.queued
        if lease.head.status != 200:
            raise refusal(lease)
        return Coded(lease) if coded and lease.head.framing != "chunked" else lease

    beats = Beats(call.heartbeat_plain if kind == JSON else call.heartbeat, kind, chunk if coded else bytes)
    headers = (("Content-Type", kind), *_for_proxies(kind))
    # Behind spaces an error object is a whole JSON answer.
    in_band = errand.dialect.in_band(kind, call.request_id) or (lambda error: errand.dialect.error_body(error, call.request_id))
    return Streamed(200, Late(pending, beats, source_of), "chunked" if coded else "plain", headers=headers, in_band=in_band)


class Coded:
    """A Source whose bare bytes are chunk-coded on the way."""

    def __init__(self, source: Source):
        self.ended = False
        self._source = source
        self.close = source.close

    def read(self) -> bytes:
        data = chunk(self._source.read())
        self.ended = self._source.ended
        return data


def refusal(lease: Lease) -> UpstreamFailed:
    """Ollama's own refusal of a call whose 200 is out already, to be told inside the stream; its text is read from whatever shape it has."""
    with lease:
        pieces = []
        while piece := lease.read():
            pieces.append(piece)
    body = b"".join(pieces)
    return UpstreamFailed(error_text(payload(body) if lease.head.framing == "chunked" else body, lease.head.status))


def error_text(body: bytes, status: int) -> str:
    """The words of an error in any dialect: {"error": text} or {"error": {"message": text}}."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return f"Ollama answered with status {status}"
