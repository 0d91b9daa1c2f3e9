"""Ollama's own routes: the client's request goes to the same path, Ollama's status, content type and body come back."""

from hermes.dispatch.dispatcher import Dispatcher
from hermes.dispatch.lease import Lease
from hermes.dispatch.registry import Place
from hermes.frontend.exchange import NDJSON, SSE, Call, Dialect, Streamed
from hermes.workers.messages import Job

# What goes to Ollama of the client's headers. Never a key or a cookie: for cloud models Ollama passes headers on (ollama-api.md §0.19).
FORWARDED = {"content-type": "Content-Type", "accept": "Accept", "user-agent": "User-Agent"}

_NAMES = {"content-type": "Content-Type", "cache-control": "Cache-Control", "allow": "Allow", "location": "Location"}


def make_job(dispatcher: Dispatcher, call: Call, body: bytes, ending: str) -> Job:
    request = call.request
    path = request.path + ("?" + request.query if request.query else "")
    headers = tuple((name, request.headers[key]) for key, name in FORWARDED.items() if key in request.headers)
    return dispatcher.job(request.method, path, headers=headers, body=body, ending=ending, decode=not request.http11)


def relay(dispatcher: Dispatcher, call: Call, place: Place, job: Job, dialect: Dialect) -> Streamed:
    """Run the job and hand its answer on as it comes."""
    lease: Lease = dispatcher.open(place, job, call.client)
    call.queued = lease.queued
    head = lease.head
    kind = dict(head.headers).get("content-type", "")
    headers = tuple((_NAMES.get(name, name), value) for name, value in head.headers)
    if kind.partition(";")[0] in (NDJSON, SSE):
        headers += (("X-Accel-Buffering", "no"),)       # nginx would collect the stream otherwise
        if kind.startswith(SSE) and "Cache-Control" not in dict(headers):
            headers += (("Cache-Control", "no-cache"),)
    return Streamed(head.status, lease, head.framing, head.length, headers, dialect.in_band(kind))
