"""Who may look at the queue, and what may be done to it: end a request, let a model rest."""

from hermes.dispatch.dispatcher import Dispatcher
from hermes.errors import NotFound
from hermes.frontend.exchange import Call, Response
from hermes.frontend.live import Live
from hermes.frontend.manage import may_manage
from hermes.frontend.own import DIALECT
from hermes.frontend.relay import find_place
from hermes.frontend.router import Route


class Queueing:
    """The endpoints; each runs in its client's handler thread."""

    def __init__(self, dispatcher: Dispatcher, live: Live):
        self._dispatcher = dispatcher
        self._live = live

    def routes(self) -> list[Route]:
        return [Route("DELETE", "/v1/requests/{id}", DIALECT, self.cancel, admin="too"),
                Route("POST", "/v1/llm/{model}/pause", DIALECT, self.pause, admin="only"),
                Route("POST", "/v1/llm/{model}/resume", DIALECT, self.resume, admin="only")]

    def cancel(self, call: Call) -> Response:
        """One's own requests, or with `manage` anybody's. Somebody else's is not found: who guesses ids learns nothing."""
        request_id, call.model = call.model, ""
        if not self._live.cancel(request_id, lambda other: sees(call, other.principal.name)):
            raise NotFound("no such request is waiting or running")
        return Response(200, b'{"status":"cancelled"}')

    def pause(self, call: Call) -> Response:
        return self._rest(call, True)

    def resume(self, call: Call) -> Response:
        return self._rest(call, False)

    def _rest(self, call: Call, paused: bool) -> Response:
        may_manage(call)
        find_place(self._dispatcher, call).pool.pause(paused)
        return Response(200, b'{"status":"paused"}' if paused else b'{"status":"running"}')


def sees(call: Call, client: str) -> bool:
    """May the caller know about, and end, what this client asks?"""
    return call.principal.manage or call.principal.name == client
