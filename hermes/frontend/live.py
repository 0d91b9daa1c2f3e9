"""The calls that are with a model now, for whoever wants to see or to end them. Handler threads add and take out their own.

Ending somebody's call is done as if he had left: his handler thread waits for that in every phase, and then tells him why. So there is one
way out of a call, not two. Only where he is waited for because he does not read, his connection is cut off.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

from hermes.errors import Cancelled
from hermes.frontend.exchange import Call


PATIENCE = 2.0              # seconds for a call that is ended to end: its worker has one to stop, and its client is told then


class Picture(NamedTuple):
    """One call as it was when it was looked at; never what it asks. `phase`: "queued", "waiting" for the first token, "streaming"."""

    id: str
    client: str
    rank: int
    model: str
    upstream: str               # what Ollama calls it
    phase: str
    position: int               # in the queue, 1 = next; 0 = it has its turn
    seconds: float              # since it arrived
    tokens: int                 # records of the answer so far

    def disguised(self) -> "Picture":
        """For those whom it is no business of: that somebody is there, and not who."""
        return self._replace(id="", client="")


class Live:
    """Any thread."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._fewer = threading.Condition(self._lock)
        self._calls: dict[Hashable, Call] = {}

    def add(self, connection: Hashable, call: Call) -> None:
        """Each connection has one call at a time."""
        with self._lock:
            self._calls[connection] = call

    def remove(self, connection: Hashable) -> None:
        """Afterwards nobody can end its call any more: it may be serving the next one."""
        with self._lock:
            call = self._calls.pop(connection, None)
            if call is not None and call.cancelled is not None:
                self._fewer.notify_all()

    def pictures(self, now: float) -> list[Picture]:
        """Who is with a model: who runs, then who waits, in the order of service."""
        with self._lock:
            calls = list(self._calls.values())
        return sorted((picture(call, now) for call in calls if call.pending is not None and call.pending.model), key=lambda seen: (seen.position, -seen.seconds))

    def cancel(self, request_id: str, may: Callable[[Call], bool]) -> int:
        """End every call of this id that `may` allows: how many. An id is a client's own choice, so there may be several.

        When it returns they have ended, but for those whose clients do not read: these are woken with a broken pipe."""
        with self._lock:
            found = {connection: call for connection, call in self._calls.items() if call.request_id == request_id and call.pending is not None and may(call)}
            for call in found.values():
                call.cancelled = Cancelled("this request was cancelled by another one")
                call.client.hang_up()
            until = time.monotonic() + self._patience
            while stuck := [call for connection, call in found.items() if self._calls.get(connection) is call]:
                if not self._fewer.wait(until - time.monotonic()):
                    break
        for call in stuck:
            call.client.cut_off()
        return len(found)


def picture(call: Call, now: float) -> Picture:
    position, _ = call.pending.position()
    lease = call.leases[-1] if call.leases else None
    phase = "queued" if call.pending.queued else "waiting" if lease is None or lease.head is None else "streaming"
    return Picture(call.request_id, call.principal.name, call.rank, call.model, call.pending.model, phase, position if phase == "queued" else 0, now - call.arrived,
                   lease.records if lease is not None else 0)
