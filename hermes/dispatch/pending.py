"""A call on its way to the head of its answer: first a ticket, then a lease. Runs in the handler thread of the call's client.

        queued ──turn──▶ asked ──HEAD──▶ `wait` returns the lease, which is the caller's from then on
          ▲                │
          └── WorkerLost ──┘   nothing has been sent on, so it costs the client nothing

The one retry above the worker is here: a job whose worker died before the head goes to another one, once if Ollama may have seen it, and
as often as it takes within the queue's patience if it cannot have.
"""

import math
import time

from hermes.dispatch.feed import Body
from hermes.dispatch.lease import Lease
from hermes.dispatch.registry import Place
from hermes.dispatch.ticket import Ticket
from hermes.errors import HermesError, QueueTimeout, WorkerLost
from hermes.workers.messages import Job


class Pending:
    """`wait` until it returns a lease or raises, or `close` it. `client` has a fileno() that shows when he leaves."""

    def __init__(self, place: Place, job: Job, client, leases: list[Lease], body: Body | None = None):
        """`leases` gets every lease that is taken. A `body` that follows the job is read once, by whichever worker has the job first: there
        is no second chance then. Takes its place in the queue, or a worker. Raises QueueFull, PoolDown."""
        self._pool, self._patience = place.pool, place.patience
        self._job = job
        self._client = client
        self._leases = leases
        self._arrived = time.monotonic()
        self._body = body
        self._second_chance = body is None
        self._lease: Lease | None = None
        self._ticket: Ticket | None = self._pool.enter(self._patience)

    def wait(self, until: float = math.inf) -> Lease | None:
        """The lease, when the answer's head has come; None = it has not at the monotonic time `until`.

        Raises QueueTimeout, PoolDown, UpstreamError, ClientGone; the error knows how long the call had waited for its turn.
        """
        try:
            while True:
                if self._lease is None and not self._take_turn(until):
                    return None
                try:
                    if self._lease.wait(until) is None:
                        return None
                    lease, self._lease = self._lease, None
                    return lease
                except WorkerLost as lost:
                    self._try_again(lost)
        except HermesError as error:
            if self._ticket is not None:
                error.waited = time.monotonic() - self._arrived
            self._ticket = None
            raise
        except BaseException:
            self.close()
            raise

    def _take_turn(self, until: float) -> bool:
        """From queued to asked. False: not before `until`."""
        while True:
            child = self._pool.wait(self._ticket, self._client, until)
            if child is None:
                return False
            lease = Lease(self._pool, child, self._client)
            lease.queued = time.monotonic() - self._arrived
            self._ticket = None
            self._leases.append(lease)
            try:
                lease.begin(self._job, self._body)
                self._lease = lease
                return True
            except WorkerLost as lost:
                self._try_again(lost)

    def _try_again(self, lost: WorkerLost) -> None:
        """Back to queued, if that is fair; else raises what is to be said."""
        self._lease = None
        late = time.monotonic() - self._arrived > self._patience
        if lost.started and not self._second_chance:
            raise lost
        if not lost.started and late:
            raise QueueTimeout(f"no worker of {self._pool.label} could take the request") from None
        self._second_chance = self._second_chance and not lost.started
        self._ticket = self._pool.enter(max(0.0, self._patience - (time.monotonic() - self._arrived)))

    def position(self) -> tuple[int, int]:
        """Its place in the queue, 1 = next, 0 = it has its turn; and how many wait."""
        return self._pool.position(self._ticket) if self._ticket is not None else (0, 0)

    def close(self) -> None:
        """The client needs no answer any more. Idempotent."""
        ticket, self._ticket = self._ticket, None
        lease, self._lease = self._lease, None
        if ticket is not None:
            self._pool.leave(ticket)
        if lease is not None:
            lease.close()
