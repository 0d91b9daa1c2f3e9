"""One place in a backlog, and how its thread waits for its turn."""

import select
import threading

from hermes.dispatch.bell import GONE, Bell
from hermes.dispatch.shares import Claim
from hermes.errors import HermesError
from hermes.workers.child import Child

BRIEF = 0.2                 # seconds a ticket waits for a lock before it waits for a bell and watches its client
LONG = 1e6                  # seconds; more is for ever, because poll takes 24 days at most, and a client may ask for a million hours


class Ticket:
    """One place in the backlog. `child` or `error` is set under the pool's lock before `ring`.

    Who waits briefly waits for a lock: making, ringing and closing a bell are system calls, each of which hands the interpreter to
    another thread, and under load most waits are brief. Who waits longer waits for a bell, and for his client's leaving.
    """

    __slots__ = ("since", "claim", "child", "error", "_bell", "_rung")

    def __init__(self, since: float, claim: Claim):
        """`since` is monotonic, and so is the claim's deadline."""
        self.since = since
        self.claim = claim
        self.child: Child | None = None
        self.error: HermesError | None = None
        self._bell: Bell | None = None
        self._rung = threading.Lock()
        self._rung.acquire()

    def ring(self) -> None:
        """Any thread, once. First the lock, then the bell: whoever makes a bell looks at the lock again before he waits for it."""
        self._rung.release()
        if bell := self._bell:
            bell.ring()

    def wait(self, client, patience: float) -> tuple[bool, bool]:
        """Wait `patience` seconds at most: whether it has been rung, and whether the client has gone."""
        poll = select.poll()
        poll.register(client, GONE)
        if self._rung.acquire(timeout=min(BRIEF, patience)):
            return True, bool(poll.poll(0))
        bell = Bell()
        try:
            self._bell = bell
            if self._rung.acquire(blocking=False):
                return True, bool(poll.poll(0))
            poll.register(bell, select.POLLIN)
            left = patience - BRIEF
            ready = dict(poll.poll(None if left > LONG else max(0.0, left) * 1000))
            return bell.fileno() in ready, client.fileno() in ready
        finally:
            self._bell = None
            bell.close()
