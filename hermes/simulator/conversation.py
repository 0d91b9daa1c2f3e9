"""One connection, from its first request to its close. Runs in the handler thread that owns it."""

import time
from contextlib import suppress

from hermes.simulator.client import Client, ClientGone
from hermes.simulator.exchange import ApiError, Exchange, House
from hermes.simulator.faults import BadMark, Fault, Pace, Script, read_marks
from hermes.simulator.ledger import SimRequest
from hermes.simulator.reading import BadRequest, DecodeError, Request, parse, read_request
from hermes.simulator.routes import about, dispatch, find
from hermes.simulator.wire import Closed, Wire

_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request"
)
_LINGER = 0.5  # Seconds that Go waits, when it answers unread bytes, for a peer that is still sending to read the answer.


class Conversation:
    """The requests of one connection, one after another."""

    def __init__(self, client: Client, house: House, script: Script, pace: Pace) -> None:
        self._client = client
        self._house = house
        self._script = script
        self._pace = pace

    def run(self) -> None:
        """Until the peer leaves, asks for no more, or a fault ends it."""
        try:
            while request := read_request(self._client):
                self._serve(request)
                if request.close:
                    return
        except BadRequest:
            with suppress(ClientGone):
                self._client.send(_BAD_REQUEST)
        except (ClientGone, Closed):
            pass  # Written down already, by whoever noticed.

    def _serve(self, request: Request) -> None:
        ledger = self._house.ledger
        parsed = _parse(request)
        record = self._record(request, parsed)
        ledger.arrive(record, self._client)
        try:
            self._answer(request, record, parsed)
            if request.uploads and not (record.upload and record.upload.sha256):
                self._client.linger(_LINGER)
                raise Closed
        except ClientGone:
            ledger.leave(record)
            raise
        finally:
            ledger.finish(record)

    def _record(self, request: Request, parsed: object) -> SimRequest:
        model, prompt = about(request, parsed)
        route = find(request.path)
        inference = route is not None and route.inference and request.method in route.methods
        return SimRequest(request.method, request.path, model, prompt, request.body, self._client.number,
                          time.monotonic(), inference=inference, headers=request.headers, query=request.query)

    def _answer(self, request: Request, record: SimRequest, parsed: object) -> None:
        fault, pace, complaint = self._script.take(record.path, record.prompt, record.model), self._pace, None
        try:
            fault, pace = read_marks(request.body, fault, pace)
        except BadMark as error:
            complaint = ApiError(400, str(error))
        wire = Wire(self._client, self._house.ledger, record, request, fault)
        x = Exchange(self._house, self._client, request, record, parsed, pace, wire)
        try:
            if complaint:
                raise complaint
            _act(x, fault)
        except ApiError as error:
            x.fail(error)


def _act(x: Exchange, fault: Fault) -> None:
    if fault.refuse:
        x.client.pause(fault.delay)
        x.wire.hang_up()
    if fault.raw is not None:
        return x.wire.raw(fault.raw)
    if fault.status is None:
        return dispatch(x)
    if fault.body is None:
        raise ApiError(fault.status, "simulated failure")
    x.wire.answer(fault.status, "application/json", fault.body)


def _parse(request: Request) -> object:
    """The body's JSON, or the error that its endpoint will answer with."""
    try:
        return parse(request.body)
    except DecodeError as error:
        return error
