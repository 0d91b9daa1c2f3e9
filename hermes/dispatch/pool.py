"""The workers of one model and the tickets waiting for them, under the one lock that handler threads and the supervisor share.

Decide under the lock, act outside it: `_match` pairs idle workers with tickets and returns whom to ring; nothing is
read, written, closed or rung while the lock is held.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass

from hermes.dispatch.backlog import Backlog, Claim, retry_after
from hermes.dispatch.caps import Caps
from hermes.dispatch.ticket import Ticket
from hermes.errors import ClientGone, HermesError, PoolDown, QueueFull, QueueTimeout
from hermes.workers.child import Child


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """A picture of a pool: numbers of workers and tickets, seconds."""

    name: str
    model: str
    size: int
    idle: int
    busy: int
    queued: int
    queue_limit: int
    oldest: float               # seconds the longest-waiting ticket has waited; 0 if nobody waits
    answered: int
    restarts: int
    closed: str | None          # why it is closed, or None
    pids: tuple[int, ...]
    idle_since: float | None    # monotonic time since when nothing has been running or waiting
    paused: bool = False


class Pool:
    """`enter`, `wait`, `leave` and `release` are for handler threads; offer, discard, surplus, close, reopen for the supervisor."""

    def __init__(self, name: str, model: str, size: int, limit: int, wake: Callable[[], None] = lambda: None, caps: Caps | None = None):
        """`caps`: what clients may have running in all pools that share it."""
        self.name = name
        self.model = model          # what Ollama calls it; "" for pools without a model
        self._size = size
        self.answered = 0
        self.on_demand = False
        self._wake = wake
        self._caps = Caps() if caps is None else caps
        self._paused = False
        self._lock = threading.Lock()
        self._idle: list[Child] = []
        self._leased: dict[Child, tuple[Claim, float]] = {}      # and since when
        self._surplus: list[Child] = []
        self._backlog: Backlog[Ticket] = Backlog(limit)
        self._closed: tuple[str, float] | None = None
        self._over = False          # retired and ended, for good
        self.refusal: HermesError | None = None      # set once, for good
        self._service = 1.0         # seconds a call has taken of late, for Retry-After
        self._restarts = 0
        self._quiet_since: float = time.monotonic()

    @property
    def label(self) -> str:
        """What to call it in an error."""
        return f"model '{self.name}'" if self.model else f"the {self.name} pool"

    # -- handler threads -------------------------------------------------------------------------------------------

    def enter(self, claim: Claim, patience: float) -> Ticket:
        """A ticket that has its worker already, or that waits for one up to `patience` seconds. Raises QueueFull, PoolDown, or what
        `refuse` was given. The pipe of a ticket's worker belongs to whoever holds the ticket, until `release`."""
        now = time.monotonic()
        claim, rung = claim._replace(deadline=min(claim.deadline, now + patience)), []
        ticket = Ticket(now, claim)
        with self._lock:
            self._check_open()
            if self._may_start(claim):
                self._backlog.started(claim, now)
                self._lease(ticket, now)
            elif out := self._backlog.push(ticket, claim, now):
                error = QueueFull(f"server busy, please try again. The queue of {self.label} is full ({self._backlog.limit} waiting)",
                                  retry_after=retry_after(len(self._backlog), self.size, self._service))
                if out is ticket:
                    raise error
                out.error = error
                rung.append(out)
            rung += self._match()       # a worker may be idle if all who wait are late
        self._ring(rung)
        self._wake_if_retiring()
        return ticket

    def wait(self, ticket: Ticket, client, until: float = math.inf) -> Child | None:
        """The ticket's worker; None = it still waits at the monotonic time `until`. Raises QueueTimeout, PoolDown, ClientGone, or what
        `refuse` was given; then the ticket is void."""
        if ticket.child is not None:
            return ticket.child
        deadline = ticket.claim.deadline
        end = min(until, deadline)
        rung, gone = ticket.wait(client, max(0.0, end - time.monotonic()))
        if gone or not rung and end == deadline:
            with self._lock:
                # Matched at the very moment its time ran out: it has a child, and is served.
                self._backlog.remove(ticket)
                self._note_quiet()
            self._wake_if_retiring()
        if gone:
            self._give_back(ticket)
            raise ClientGone
        if ticket.child is not None:
            return ticket.child
        if ticket.error:
            raise copy(ticket.error)    # others may have the same, and each notes in it how long he has waited
        if end < deadline:
            return None
        raise QueueTimeout(f"waited {deadline - ticket.since:.3g} s for {self.label} without getting a turn")

    def leave(self, ticket: Ticket) -> None:
        """The client needs no turn any more. Its worker, if it has one by now, goes back unused."""
        with self._lock:
            self._backlog.remove(ticket)
            self._note_quiet()
        self._wake_if_retiring()
        self._give_back(ticket)

    def _give_back(self, ticket: Ticket) -> None:
        child, ticket.child = ticket.child, None
        if child is not None:
            self.release(child, reusable=True)

    def position(self, ticket: Ticket) -> tuple[int, int]:
        """Its place among those who wait, 1 = next, 0 = it waits no more; and how many wait."""
        with self._lock:
            return self._backlog.position(ticket), len(self._backlog)

    def release(self, child: Child, *, reusable: bool, answered: bool = False, took: float | None = None) -> None:
        """The lease is over. A worker that is not reusable has been given up by the caller, who closes its pipe himself."""
        with self._lock:
            others = self._settle(child, unused=reusable and took is None)
            buried = others is None             # it died behind its last frame, and the supervisor was quicker
            self.answered += answered
            if took is not None:
                self._service += (took - self._service) * 0.2
            if reusable and not buried:         # else the supervisor learns of its end and discards it
                self._place(child)
            rung = self._match()
            surplus = bool(self._surplus)
        if reusable and buried:
            child.close()
        self._ring(rung)
        _match_again(others)
        if surplus:
            self._wake()

    def match(self) -> None:
        """Choose again: somebody who was at his limit is not any more."""
        with self._lock:
            rung = self._match()
        self._ring(rung)

    # -- supervisor ------------------------------------------------------------------------------------------------

    def offer(self, child: Child) -> None:
        """A worker is ready. Its pipe is the pool's now."""
        with self._lock:
            self._place(child)
            rung = self._match()
            surplus = bool(self._surplus)
        self._ring(rung)
        if surplus:
            self._wake()

    def discard(self, child: Child) -> bool:
        """The worker is dead. True: it was idle, and its pipe is the caller's now; False: a lease has it and will notice.

        A leased one no longer takes up a place, so that its replacement is welcome before its lease has ended.
        """
        with self._lock:
            self._restarts += not child.unwanted
            others = self._settle(child)
            was_idle = child in self._idle
            if was_idle:
                self._idle.remove(child)
        _match_again(others)
        return was_idle

    def dismiss(self, child: Child) -> bool:
        """Take an idle worker out. True: its pipe is the caller's now; False: it is at work."""
        with self._lock:
            if child in self._idle:
                self._idle.remove(child)
                return True
            return False

    def surplus(self) -> list[Child]:
        """Workers beyond `size`; their pipes are the caller's now."""
        with self._lock:
            extra = max(0, len(self._idle) + len(self._leased) - self.size)
            over, self._surplus = self._surplus, []
            for _ in range(min(extra, len(self._idle))):
                over.append(self._idle.pop(0))
            return over

    def ended(self) -> bool:
        """Is it retired, with nobody at work or waiting? Then nobody can come any more either: no worker would ever be there for him."""
        with self._lock:
            self._over = self._over or not self.size and not self._leased
            if self._over:
                self._closed = "it is not wanted any more", time.monotonic()
            return self._over

    def close(self, reason: str, reopens: float) -> None:
        """Answer everybody with PoolDown until `reopen`."""
        with self._lock:
            self._closed = (reason, reopens)
            rung = self._fail_waiting(self._down())
        self._ring(rung)

    def reopen(self) -> None:
        with self._lock:
            self._closed = None

    # -- Application -----------------------------------------------------------------------------------------------

    def resize(self, size: int, limit: int) -> None:
        """From now on `size` workers and `limit` tickets; who runs or waits already is not touched. A pool that is being retired does not
        rest: nobody could find it to wake it."""
        with self._lock:
            self._size, self._backlog.limit = size, limit
            self._paused = self._paused and size > 0
            rung = self._match()
        self._ring(rung)
        self._wake()

    def revive(self, name: str, size: int, limit: int) -> bool:
        """It was retired and is wanted again, under this name, with who runs and waits there. False: it has ended, or is no longer retired."""
        with self._lock:
            if self._over or self._size:
                return False
            self.name, self._size, self._backlog.limit = name, size, limit
        self._wake()
        return True

    def bound_starvation(self, seconds: float) -> None:
        """From now on nobody of a worse class waits longer than that for better ones, as far as there are workers."""
        with self._lock:
            self._backlog.max_starvation = seconds

    @property
    def size(self) -> int:
        """Workers wanted. A pool that is being retired keeps one as long as anybody waits."""
        return self._size or min(1, len(self._backlog))

    def _wake_if_retiring(self) -> None:
        """The size goes by who waits then."""
        if not self._size:
            self._wake()

    def pause(self, paused: bool) -> None:
        """While it is paused nobody gets a turn; who runs goes on, and who comes waits. One that has been retired since its caller found it does not
        rest: see `resize`."""
        with self._lock:
            self._paused = paused and self._size > 0
            rung = self._match()
        self._ring(rung)

    def refuse(self, error: HermesError) -> None:
        """Everybody who waits or comes from now on gets `error`."""
        with self._lock:
            self.refusal = error
            rung = self._fail_waiting(error)
        self._ring(rung)

    def leased(self) -> list[Child]:
        with self._lock:
            return list(self._leased)

    def snapshot(self) -> PoolSnapshot:
        now = time.monotonic()
        with self._lock:
            oldest = self._backlog.oldest_since()
            quiet = not self._leased and not self._backlog
            pids = tuple(sorted(child.pid for child in [*self._idle, *self._leased]))
            return PoolSnapshot(self.name, self.model, self.size, len(self._idle), len(self._leased), len(self._backlog),
                                self._backlog.limit, 0.0 if oldest is None else now - oldest, self.answered, self._restarts,
                                self._closed[0] if self._closed else None, pids, self._quiet_since if quiet else None, self._paused)

    # -- under the lock --------------------------------------------------------------------------------------------

    def _place(self, child: Child) -> None:
        (self._surplus if len(self._idle) + len(self._leased) >= self.size else self._idle).append(child)

    def _match(self) -> list[Ticket]:
        rung = []
        while self._idle and not self._paused and len(self._backlog):
            now = time.monotonic()
            with self._caps:
                ticket = self._backlog.pop(now, self._is_free)
                if ticket is None:
                    break
                self._caps.take(ticket.claim.client)
            self._lease(ticket, now)
            rung.append(ticket)
        self._note_quiet()
        return rung

    def _may_start(self, claim: Claim) -> bool:
        """At once, without waiting. While a worker is idle, whoever waits is at his own limit or late, and is not overtaken by this."""
        if not self._idle or self._paused:
            return False
        with self._caps:
            free = self._is_free(claim.client)
            if free:
                self._caps.take(claim.client)
        return free

    def _is_free(self, client: str) -> bool:
        return self._caps.free(client, self)

    def _lease(self, ticket: Ticket, now: float) -> None:
        ticket.child = self._idle.pop()
        self._leased[ticket.child] = ticket.claim, now

    def _settle(self, child: Child, unused: bool = False) -> Iterable["Pool"] | None:
        """Its lease is over, or it has died, whichever is first: the pools that should choose again. None for the second."""
        if child not in self._leased:
            return None
        claim, since = self._leased.pop(child)
        now = time.monotonic()
        self._backlog.ended(claim, 0.0 if unused else now - since, now)
        return self._caps.give(claim.client)

    def _note_quiet(self) -> None:
        if not self._leased and not self._backlog:
            self._quiet_since = time.monotonic()

    def _fail_waiting(self, error: HermesError) -> list[Ticket]:
        tickets = self._backlog.clear()
        for ticket in tickets:
            ticket.error = error
        return tickets

    def _check_open(self) -> None:
        if self.refusal:
            raise self.refusal.with_traceback(None)        # raised many times: it must not collect frames
        if self._closed:
            raise self._down()

    def _down(self) -> PoolDown:
        reason, reopens = self._closed
        return PoolDown(f"{self.label} is out of service: {reason}", retry_after=reopens - time.monotonic())

    @staticmethod
    def _ring(tickets: list[Ticket]) -> None:
        for ticket in tickets:
            ticket.ring()


def _match_again(pools: Iterable[Pool] | None) -> None:
    """Outside of every lock."""
    for pool in pools or ():
        pool.match()
