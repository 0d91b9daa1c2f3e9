"""A call on its way to the head of its answer: first a ticket, then a lease. Runs in the handler thread of the call's client.

        queued ──turn──▶ asked ──HEAD──▶ `wait` returns the lease, which is the caller's from then on
          ▲                │
          └── WorkerLost ──┘   nothing has been sent on, so it costs the client nothing

The one retry above the worker is here: a job whose worker died before the head goes to another one, once if Ollama may have seen it, and
as often as it takes within the queue's patience if it cannot have.
"""

import math
import time
from dataclasses import dataclass, field

from hermes.dispatch.backlog import Claim
from hermes.dispatch.feed import Body
from hermes.dispatch.lease import Lease
from hermes.dispatch.registry import Place
from hermes.dispatch.ticket import Ticket
from hermes.errors import HermesError, QueueTimeout, WorkerLost
from hermes.workers.messages import Job


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf a job is done. `client` has a fileno() that shows when he leaves; `claim` is his place among the others, and
    `patience` his own limit of seconds for it. `leases` gets every lease that is taken for him, also those that come to nothing: each
    costs a worker its time. A `body` that follows the job is read once, by whichever worker has the job first."""

    client: object
    claim: Claim = Claim()
    patience: float = math.inf
    leases: list[Lease] = field(default_factory=list)
    body: Body | None = None


class Pending:
    """`wait` until it returns a lease or raises, or `close` it. Others may look at `queued` and `position`."""

    def __init__(self, place: Place, job: Job, asker: Asker):
        """Takes its place in the queue, or a worker. Raises QueueFull, PoolDown."""
        self._pool, self._patience = place.pool, min(place.patience, asker.patience)
        self._job = job
        self._asker = asker
        self._arrived = time.monotonic()
        self._second_chance = asker.body is None
        self._lease: Lease | None = None
        self._ticket: Ticket | None = self._pool.enter(asker.claim, self._patience)
        self.first_position = self.position()[0]

    @property
    def queued(self) -> bool:
        return self._ticket is not None

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
            child = self._pool.wait(self._ticket, self._asker.client, until)
            if child is None:
                return False
            lease = Lease(self._pool, child, self._asker.client)
            lease.queued = time.monotonic() - self._arrived
            self._ticket, self._lease = None, lease
            self._asker.leases.append(lease)
            try:
                lease.begin(self._job, self._asker.body)
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
        self._ticket = self._pool.enter(self._asker.claim, max(0.0, self._patience - (time.monotonic() - self._arrived)))

    @property
    def model(self) -> str:
        """What Ollama calls the model; "" if there is none."""
        return self._pool.model

    def position(self) -> tuple[int, int]:
        """Its place in the queue, 1 = next, 0 = it has its turn; and how many wait."""
        ticket = self._ticket
        return (0, 0) if ticket is None or ticket.child is not None else self._pool.position(ticket)

    def close(self) -> None:
        """The client needs no answer any more. Idempotent."""
        ticket, self._ticket = self._ticket, None
        lease, self._lease = self._lease, None
        if ticket is not None:
            self._pool.leave(ticket)
        if lease is not None:
            lease.close()
