"""Who is next among those who wait: bounded, fair, by class and deadline. Pure; the pool guards it with its lock.

A better class goes first, except that nobody waits for ever: a ticket that would else wait longer than `max_starvation` is over age and goes
before the better classes. If that were all, a flood over age would take every second call, and whoever keeps the workers busy for more than
half of the time would have a queue without end. So going ahead has three bounds, and a better class pays no more than they allow:

- never twice in a row, so that a call of a better class waits for one of a worse at most;
- an eighth of the workers' time (SHARE), saved up for a tenth of `max_starvation` (SAVED), which is what a few at once may need;
- of more than one that waits, only if the better class has left them nothing for all of `max_starvation`.

Inside a class the clients share by weight (shares.py), and age changes nothing: a client who has a hundred tickets waiting has no
right to overtake one who has a single one.

A ticket leaves once, by one of pop, remove, expire, clear, or a push that returned it.
"""

import itertools
import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from hermes.config.settings import CLASSES
from hermes.dispatch.shares import RECENT, Claim, Entry, Shares

__all__ = ["RANKS", "Backlog", "Claim"]

T = TypeVar("T")
RANKS = CLASSES
FIRST_GUESS = 1.0           # seconds a call takes, as long as none has ended
SHARE = 1 / 8               # of the workers' time, for those who go ahead because they are over age
SAVED = 1 / 10              # of max_starvation: seconds of it that are saved up while nobody goes ahead


def everybody(_client: str) -> bool:
    return True


def retry_after(depth: int, slots: int, service: float) -> float:
    """Seconds after which a client whom a full queue turned away should come again: `depth` wait for `slots` workers, which take `service`
    seconds for a call.

    That is when half of those who wait will have had their turn. When one place is likely to be free, after service / slots, would be too soon:
    of a burst that was turned away together, all would come back together for that one place, and the client libraries give up after
    three attempts. When the queue has run empty would be too late: workers would stand idle until they come.
    """
    return service * max(1.0, depth / 2) / max(1, slots)


class Backlog(Generic[T]):
    """Tickets, and accounts of who has had how much. `now` is monotonic; `limit` and `max_starvation` (seconds) may be changed."""

    def __init__(self, limit: int, max_starvation: float = 30.0):
        self.limit = limit
        self.max_starvation = max_starvation
        self._entries: dict[T, Entry] = {}
        self._late: dict[T, Entry] = {}         # whose time is up; they hold their places until somebody takes them out
        self._deadlines: list[tuple[float, int, Entry]] = []    # sorted; of those in _entries that have one
        self._held: dict[str, tuple[int, float]] = {}           # tickets in _entries and weight, by client
        self._classes = [Shares() for _ in RANKS]
        self._turn = [True for _ in RANKS]          # has this class had a call since the last of a worse one?
        self._left = [-math.inf for _ in RANKS]     # when a worse one started last because nobody of this class could
        self._saved = SAVED * max_starvation        # seconds of worker time for those over age; less than 0 = they have had more
        self._mean: float | None = None         # seconds a call has taken of late
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._entries) + len(self._late)

    def push(self, ticket: T, claim: Claim, now: float) -> T | None:
        """Who has to go: None = nobody; `ticket` = it is refused; another = that one was pushed out for it.

        When it is full, the first to go is one whose time is up. Then one of the client who holds the most for his weight, if that is
        more than the newcomer's client would hold: the newest of his worst class. Then, because a client's flood must not
        shut out what is more urgent to himself, the newest of the newcomer's own client in a worse class. Else the newcomer.
        """
        out = None
        if len(self) >= self.limit:
            out = self._one_to_go(claim, now) if self.limit > 0 else None
            if out is None:
                return ticket
            self.remove(out)
        entry = Entry(ticket, claim, now, next(self._numbers))
        self._entries[ticket] = entry
        self._held[claim.client] = self._held.get(claim.client, (0, 0.0))[0] + 1, claim.weight
        if claim.deadline < math.inf:
            insort(self._deadlines, (claim.deadline, entry.number, entry))
        self._classes[claim.rank].add(entry)
        return out

    def pop(self, now: float, may_run: Callable[[str], bool] = everybody) -> T | None:
        """The next one whose client may run, and its call has started."""
        self._set_aside(now)
        entry, passed = self._next(now, may_run)
        if entry is None:
            return None
        self._begin(entry.claim, now, passed)
        self._take(entry)
        return entry.ticket

    def remove(self, ticket: T) -> bool:
        """False when it is not waiting (any more)."""
        if self._late.pop(ticket, None) is not None:
            return True
        entry = self._entries.get(ticket)
        if entry is not None:
            self._take(entry)
        return entry is not None

    def expire(self, now: float) -> list[T]:
        """Take out everyone whose deadline has come."""
        self._set_aside(now)
        late, self._late = list(self._late), {}
        return late

    def next_deadline(self) -> float:
        """The earliest; inf if nobody who waits has one."""
        first = self._deadlines[0][0] if self._deadlines else math.inf
        return min([first, *(entry.claim.deadline for entry in self._late.values())])

    def position(self, ticket: T) -> int:
        """1 = next; 0 = it does not wait, or its time is up. Its place in `waiting`, of which it goes through clients, not tickets."""
        entry = self._entries.get(ticket)
        if entry is None:
            return 0
        better = sum(len(shares) for shares in self._classes[:entry.claim.rank])
        return better + self._classes[entry.claim.rank].before(entry, self._guess()) + 1

    def started(self, claim: Claim, now: float) -> None:
        """A call that has not had to wait counts like one that has."""
        self._begin(claim, now, claim.rank)

    def ended(self, claim: Claim, seconds: float, now: float) -> None:
        """A call that started has used `seconds` of a worker's time. Raises KeyError for one that has not started or has ended."""
        self._classes[claim.rank].end(claim, seconds)
        self._saved = min(self._saved + seconds * SHARE, self.max_starvation * SAVED)
        if seconds > 0.0:
            self._mean = seconds if self._mean is None else self._mean + (seconds - self._mean) * RECENT

    def oldest_since(self) -> float | None:
        """When the longest-waiting came."""
        late = min((entry.since for entry in self._late.values()), default=math.inf)
        oldest = min(late, *(shares.oldest() for shares in self._classes))
        return oldest if oldest < math.inf else None

    def clear(self) -> list[T]:
        """Everybody, in order of arrival; then nobody waits. The accounts of calls that run are kept."""
        entries = sorted([*self._entries.values(), *self._late.values()], key=lambda entry: entry.number)
        for entry in list(self._entries.values()):
            self._take(entry)
        self._late.clear()
        return [entry.ticket for entry in entries]

    def waiting(self) -> Iterator[tuple[T, Claim, float]]:
        """Ticket, claim and arrival in the order of service, if nobody else comes or leaves, each call takes as long as its client's
        of late, no client is at his cap and nobody gets over age. Nothing may change meanwhile."""
        for shares in self._classes:
            yield from ((entry.ticket, entry.claim, entry.since) for entry in shares.waiting(self._guess()))

    def _begin(self, claim: Claim, now: float, passed: int) -> None:
        """`passed`: the best class that somebody waits in who could have gone instead."""
        expected = self._classes[claim.rank].begin(claim, self._guess())
        if passed < claim.rank:
            self._saved = max(self._saved, 0.0) - expected
        self._turn[claim.rank] = True
        self._turn[:claim.rank] = [False] * claim.rank
        self._left[:passed] = [now] * passed

    def _next(self, now: float, may_run: Callable[[str], bool]) -> tuple[Entry | None, int]:
        """Who, and the best class that he goes before, or else his own."""
        passed, came_by = len(RANKS), math.inf
        for rank, shares in enumerate(self._classes):
            entry = shares.next(may_run, came_by)
            if entry is not None:
                passed = min(passed, rank)
                if not self._must_stand_back(rank, now, may_run):
                    return entry, passed
                came_by = self._overdue_since(now)      # from here on only who is over age: nobody else may go before this class
        return None, passed

    def _must_stand_back(self, rank: int, now: float, may_run: Callable[[str], bool]) -> bool:
        """Does somebody over age in a worse class go before this one?"""
        overdue, worse = self._overdue_since(now), self._classes[rank + 1:]
        if not self._turn[rank] or not any(shares.next(may_run, overdue) for shares in worse):
            return False
        if self._saved >= 0.0 and now - self._left[rank] >= self.max_starvation:
            return True
        return sum(shares.tickets(may_run) for shares in worse) == 1        # no flood, however long its call

    def _overdue_since(self, now: float) -> float:
        """Who came by then goes before the better classes: early enough for the call that runs to end and, because it is not twice
        in a row, for one more; but not in the first half of `max_starvation`, however long the calls."""
        return now - max(self.max_starvation / 2, self.max_starvation - 2 * self._guess())

    def _guess(self) -> float:
        return FIRST_GUESS if self._mean is None else self._mean

    def _one_to_go(self, claim: Claim, now: float) -> T | None:
        self._set_aside(now)
        if self._late:
            return next(iter(self._late))
        if not self._held:
            return None
        # Goes through the clients, but only when it is full.
        share, greediest = max((held / weight, client) for client, (held, weight) in self._held.items())
        own = (self._held.get(claim.client, (0, 0.0))[0] + 1) / claim.weight
        if greediest != claim.client and share > own:
            return self._newest(greediest, 0)
        return self._newest(claim.client, claim.rank + 1)

    def _newest(self, client: str, best: int) -> T | None:
        """The client's newest ticket in his worst class; not in one better than `best`."""
        for shares in reversed(self._classes[best:]):
            if entry := shares.newest_of(client):
                return entry.ticket
        return None

    def _set_aside(self, now: float) -> None:
        """Out of the order with whose time is up."""
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = self._deadlines[0][2]
            self._take(entry)
            self._late[entry.ticket] = entry

    def _take(self, entry: Entry) -> None:
        claim = entry.claim
        del self._entries[entry.ticket]
        held, weight = self._held.pop(claim.client)
        if held > 1:
            self._held[claim.client] = held - 1, weight
        if claim.deadline < math.inf:
            del self._deadlines[bisect_left(self._deadlines, (claim.deadline, entry.number))]
        self._classes[claim.rank].take(entry)
