"""Ollama's routes that change which models there are: pull, push, create, copy, delete, and the blobs that creating begins with.

Each goes to Ollama as it came, if managing is allowed. They speak Ollama's names only: what a [models.NAME] table calls a model is known
where text is generated, and a name that is to be created, deleted or sent away must not be mistaken for another.
"""

import math
import re

from hermes.dispatch.dispatcher import Dispatcher
from hermes.errors import BadRequest, Forbidden
from hermes.frontend.exchange import Call, Streamed
from hermes.frontend.jsonbody import read_members
from hermes.frontend.native import DIALECT
from hermes.frontend.relay import Errand, make_job, permit, relay
from hermes.frontend.router import Route
from hermes.workers.messages import Bytes

MOVING = ("/api/pull", "/api/push", "/api/create")
EDITING = (("POST", "/api/copy"), ("DELETE", "/api/delete"))
BLOBS = "/api/blobs/"
NAMING = ("model", "name", "source", "destination", "from")
_DIGEST = re.compile(r"sha256[:-][0-9a-f]{64}\Z")


class Manage:
    """The endpoints; each runs in its client's handler thread."""

    def __init__(self, dispatcher: Dispatcher):
        self._dispatcher = dispatcher

    def routes(self) -> list[Route]:
        blob = BLOBS + "{digest}"
        return ([Route("POST", path, DIALECT, self.move, admin="only") for path in MOVING]
                + [Route(method, path, DIALECT, self.edit, admin="only") for method, path in EDITING]
                + [Route("HEAD", blob, DIALECT, self.look, admin="only"), Route("POST", blob, DIALECT, self.upload, streams_body=True, admin="only")])

    def move(self, call: Call) -> Streamed:
        """Minutes of silence and hours of work are normal here; the client's leaving is what ends them."""
        self._check(call)
        job = make_job(self._dispatcher, call, call.body, "success")
        job = job._replace(timeouts=job.timeouts.endless())
        return relay(self._dispatcher, call, Errand(self._dispatcher.registry.puller(), job, DIALECT))

    def edit(self, call: Call) -> Streamed:
        self._check(call)
        return relay(self._dispatcher, call, Errand(self._dispatcher.registry.control, make_job(self._dispatcher, call, call.body, ""), DIALECT))

    def look(self, call: Call) -> Streamed:
        self._check_blob(call)
        return relay(self._dispatcher, call, Errand(self._dispatcher.registry.control, make_job(self._dispatcher, call, b"", ""), DIALECT))

    def upload(self, call: Call) -> Streamed:
        """The body goes through piece by piece. However long it takes altogether, no piece may take longer than its limit."""
        self._check_blob(call)
        job = make_job(self._dispatcher, call, b"", "")
        job = job._replace(follows=True, headers=job.headers + call.upload.headers, timeouts=job.timeouts._replace(total=math.inf))
        return relay(self._dispatcher, call, Errand(self._dispatcher.registry.puller(), job, DIALECT))

    def _check(self, call: Call) -> None:
        """What the client may not use he may not make, move or remove either, by whatever key of the body it is named."""
        may_manage(call)
        names = named(call.body)
        call.model = names[0] if names else ""
        for name in names:
            permit(self._dispatcher, call, name)

    def _check_blob(self, call: Call) -> None:
        digest, call.model = call.model, ""
        may_manage(call)
        if not _DIGEST.match(digest):
            raise BadRequest("invalid digest format")


def may_manage(call: Call) -> None:
    """The one place that decides it. Raises Forbidden."""
    if not call.principal.manage:
        raise Forbidden("managing models is switched off here; manage = true under [server] in hermes.toml switches it on, "
                        "or, where there are clients, under [clients.NAME]")


def named(body: Bytes) -> list[str]:
    """The models that a body names, what it is about first; none is for Ollama to refuse. Raises BadRequest where two readers could
    read two names."""
    members = read_members(body)
    values = (members[key].value for key in NAMING if key in members and members[key].kind == "string")
    return [value for value in values if value]
