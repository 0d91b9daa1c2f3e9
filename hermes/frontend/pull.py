"""POST /v1/llm/{model}/pull: fetch a model, load it, say how far it is. Callers who want the same model share one pull."""

from hermes.dispatch.dispatcher import Dispatcher
from hermes.dispatch.pulls import Pulls, Subscription
from hermes.errors import BadRequest, ClientForbidden
from hermes.frontend.exchange import NDJSON, SSE, Call, Response, Streamed
from hermes.frontend.jsonbody import read_members
from hermes.frontend.own import DIALECT
from hermes.frontend.relay import permit
from hermes.frontend.router import Route


class PullEndpoint:
    """Runs in its client's handler thread."""

    def __init__(self, dispatcher: Dispatcher, pulls: Pulls):
        self._dispatcher = dispatcher
        self._pulls = pulls

    def routes(self) -> list[Route]:
        return [Route("POST", "/v1/llm/{model}/pull", DIALECT, self.pull, admin="only")]

    def pull(self, call: Call) -> Response | Streamed:
        if not call.principal.pull:
            raise ClientForbidden
        permit(self._dispatcher, call, call.model)
        stream = _wants_stream(call.body)
        progress = call.pending = self._pulls.join(call.model, call.client)
        try:
            first = progress.events()
            while stream and sum(map(bool, first)) < 2 and (more := progress.events()):
                first += more           # a pull that fails at once is then an error with a status, not inside a 200
            if not stream:
                return _whole(progress, first)
        except BaseException:
            progress.close()
            raise
        sse = call.wants_sse()
        headers = (("Content-Type", SSE if sse else NDJSON), ("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no"))
        return Streamed(200, Progress(progress, first, sse), "plain", headers=headers, in_band=DIALECT.in_band(SSE if sse else NDJSON, call.request_id))


def _wants_stream(body: bytes | bytearray) -> bool:
    """The body is optional: {"stream": false} asks for the end only."""
    stream = read_members(body).get("stream") if body and not body.isspace() else None
    if stream is None or stream.kind == "null":
        return True
    if stream.kind != "bool":
        raise BadRequest("'stream' must be a boolean")
    return stream.value


def _whole(progress: Subscription, events: list[bytes]) -> Response:
    while more := progress.events():
        events = more
    progress.close()
    return Response(200, events[-1])


class Progress:
    """The lines of a pull as they come. A Source."""

    def __init__(self, progress: Subscription, first: list[bytes], sse: bool):
        self.ended = False
        self._progress = progress
        self._first = first
        self._frame = b"data: %b\n\n" if sse else b"%b\n"

    def read(self) -> bytes:
        events, self._first = self._first or self._progress.events(), []
        self.ended = not events
        return b"".join(self._frame % event for event in events)

    def close(self) -> None:
        self._progress.close()
