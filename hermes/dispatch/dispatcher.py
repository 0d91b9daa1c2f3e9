"""Job → lease: which pool, under whose patience. Called by handler threads."""

import json
from typing import NamedTuple

from hermes.dispatch.feed import Body
from hermes.dispatch.lease import Lease
from hermes.dispatch.pending import Pending
from hermes.dispatch.registry import Place, Registry
from hermes.errors import BadRequest, ModelNotFound, UpstreamError
from hermes.names import canonical
from hermes.workers.messages import Job, Timeouts

SMALL = 8 << 20             # bytes of a control answer that Hermes reads itself


class Upstream(NamedTuple):
    """Where Ollama is, and how patient to be with it."""

    url: str
    timeouts: Timeouts


class Dispatcher:
    """Has no state but the immutable `upstream`, which a reload replaces."""

    def __init__(self, registry: Registry, upstream: Upstream):
        self.registry = registry
        self.upstream = upstream

    def job(self, method: str, path: str, **fields) -> Job:
        return Job(self.upstream.url, method, path, timeouts=self.upstream.timeouts, **fields)

    def place(self, name: str, client) -> Place:
        """The pool for `name`, made now if Ollama has the model. Raises BadRequest, ModelNotFound, UpstreamError, ClientGone."""
        try:
            key = canonical(name)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        return self.registry.find(key) or self._discover(name, client)

    def renamed(self, name: str, place: Place) -> bool:
        """Does Ollama know the model by another name than the client does?"""
        return canonical(name) != canonical(place.model)

    def admit(self, place: Place, job: Job, client, leases: list[Lease] | None = None, body: Body | None = None) -> Pending:
        """Take a job in. `client` has a fileno() that shows when he leaves. `leases` gets every lease that is taken for it, also those
        that come to nothing: each costs a worker its time. `body`: what follows the job. Raises QueueFull, PoolDown."""
        return Pending(place, job, client, [] if leases is None else leases, body)

    def open(self, place: Place, job: Job, client, body: Body | None = None) -> Lease:
        """Take a job in and wait for the head of its answer. Raises QueueFull, QueueTimeout, PoolDown, UpstreamError, ClientGone, and what is
        wrong with the body."""
        return self.admit(place, job, client, body=body).wait()

    def ask(self, method: str, path: str, client, body: bytes = b"", place: Place | None = None) -> tuple[int, bytes]:
        """A call whose answer Hermes reads itself: status and body. By default through the control pool."""
        job = self.job(method, path, body=body, decode=True, headers=(("Content-Type", "application/json"),) if body else ())
        with self.open(place or self.registry.control, job, client) as lease:
            pieces, size = [], 0
            while piece := lease.read():
                pieces.append(piece)
                size += len(piece)
                if size > SMALL:
                    raise UpstreamError("Ollama's answer is too long")
            return lease.head.status, b"".join(pieces)

    def _discover(self, name: str, client) -> Place:
        """Ask Ollama, which knows best what a name means. Its answer is not kept: a name it lacks leaves no trace."""
        status, _ = self.ask("POST", "/api/show", client, json.dumps({"model": name}).encode())
        if status == 200:
            return self.registry.adopt(name)
        if status == 404:
            raise ModelNotFound(f"model '{name}' not found")
        if status == 400:
            raise BadRequest("invalid model name")
        raise UpstreamError(f"Ollama could not say whether it has the model (status {status})")
