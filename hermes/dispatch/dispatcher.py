"""Job → lease: which pool, under whose patience. Called by handler threads."""

import json
from typing import NamedTuple

from hermes.dispatch.derivatives import Derivatives, original
from hermes.dispatch.lease import Lease
from hermes.dispatch.pending import Asker, Pending
from hermes.dispatch.registry import Place, Registry
from hermes.errors import BadRequest, CloudRefused, ModelNotFound, UpstreamError
from hermes.names import canonical, is_cloud
from hermes.workers.messages import Job, Timeouts

SMALL = 8 << 20             # bytes of a control answer that Hermes reads itself


class Upstream(NamedTuple):
    """Where Ollama is, how patient to be with it, and whether requests may go on to ollama.com from there."""

    url: str
    timeouts: Timeouts
    allow_cloud: bool = False


class Dispatcher:
    """Has no state but the immutable `upstream`, which a reload replaces, and the second names of models."""

    def __init__(self, registry: Registry, upstream: Upstream):
        self.registry = registry
        self.upstream = upstream
        self.derivatives = Derivatives(self.ask)

    def job(self, method: str, path: str, **fields) -> Job:
        return Job(self.upstream.url, method, path, timeouts=self.upstream.timeouts, **fields)

    def place(self, name: str, client) -> Place:
        """The pool for `name`, made now if Ollama has the model.

        Raises BadRequest, CloudRefused, ModelNotFound, UpstreamError, ClientGone.
        """
        return self.known(name) or self._discover(name, client)

    def known(self, name: str) -> Place | None:
        """The pool for `name` if there is one; Ollama is not asked. Raises BadRequest, CloudRefused."""
        try:
            key = canonical(name)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        place = self.registry.find(key)
        if place is None or place.pool.on_demand:       # which it may have been before the configuration named the model
            place = original(key, self.registry.places) or place
        if not self.upstream.allow_cloud and (place.cloud if place else is_cloud(key)):
            raise CloudRefused(name)
        return place

    def name_of(self, place: Place, name: str) -> str:
        """What to call a place's model towards Ollama: as the client does, unless only the configuration knows it by that name."""
        return name if canonical(name) == canonical(place.model) else place.model

    def alias_of(self, name: str) -> str | None:
        """Ollama's name for a model if `name` is one of the configuration's own; None if it is not."""
        try:
            place = self.registry.find(canonical(name))
        except ValueError:
            return None
        model = self.name_of(place, name) if place else name
        return model if model != name else None

    def admit(self, place: Place, job: Job, asker: Asker) -> Pending:
        """Take a job in. Raises QueueFull, PoolDown."""
        return Pending(place, job, asker)

    def open(self, place: Place, job: Job, client) -> Lease:
        """Take a job in and wait for the head of its answer. Raises QueueFull, QueueTimeout, PoolDown, UpstreamError, ClientGone."""
        return self.admit(place, job, Asker(client)).wait()

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
        status, answer = self.ask("POST", "/api/show", client, json.dumps({"model": name}).encode())
        if status == 200:
            remote = _is_stub(answer)
            if remote and not self.upstream.allow_cloud:
                raise CloudRefused(name)
            return self.registry.adopt(name, remote)
        if status == 404:
            raise ModelNotFound(f"model '{name}' not found")
        if status == 400:
            raise BadRequest("invalid model name")
        raise UpstreamError(f"Ollama could not say whether it has the model (status {status})")


def _is_stub(answer: bytes) -> bool:
    """Is a model that /api/show describes only a name for one at ollama.com (ollama-api.md §3.7)?"""
    try:
        shown = json.loads(answer)
    except ValueError:
        raise UpstreamError("Ollama's description of the model is not JSON") from None
    return isinstance(shown, dict) and bool(shown.get("remote_host") or shown.get("remote_model"))
