"""How often a client may ask, and how often an address may be wrong. Pure but for one small lock in each; the clock comes in.

Both count exactly: a window holds the time of every request it let through, so that no 60 seconds ever hold one more than is allowed,
which counters by the calendar's minute, or a bucket that has filled up, do not keep.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

MINUTE = 60.0               # seconds
WRONG_KEYS = 10             # in a minute, from one address
ADDRESSES = 4096            # remembered at once; 300 bytes each

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a client has left. `granted`: this request is within it; `reset`: seconds until one more comes free."""

    limit: int
    left: int
    reset: float
    granted: bool

    def fields(self) -> tuple[tuple[str, str], ...]:
        """The response fields of draft-ietf-httpapi-ratelimit-headers: what is left, and the rule."""
        return (("RateLimit", f'"default";r={self.left};t={math.ceil(self.reset)}'),
                ("RateLimit-Policy", f'"default";q={self.limit};w={MINUTE:.0f}'))


class Rates:
    """The requests of each client in the last minute. Any thread; the lock is inside, and so is the look at the clock: a time read before
    the lock could be old by the time it counts."""

    def __init__(self, clock: Clock = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._times: dict[str, deque[float]] = {}

    def take(self, name: str, limit: int) -> Allowance:
        """One request of a client that may make `limit` a minute. One that is not granted does not count."""
        with self._lock:
            now = self._clock()
            times = self._times.setdefault(name, deque())
            while times and now - times[0] >= MINUTE:
                times.popleft()
            granted = len(times) < limit
            if granted:
                times.append(now)
            return Allowance(limit, max(0, limit - len(times)), times[max(0, len(times) - limit)] + MINUTE - now, granted)

    def keep(self, names: Collection[str]) -> None:
        """Forget everybody else."""
        with self._lock:
            self._times = {name: times for name, times in self._times.items() if name in names}


class Lockout:
    """Addresses that sent wrong keys. Ten in the minute that the first one began lock the address out for the rest of it.
    Any thread; the lock is inside. Of more than 4,096 addresses those whose minute began first are forgotten."""

    def __init__(self, clock: Clock = time.monotonic):
        self._clock = clock
        self._lock = threading.Lock()
        self._wrong: dict[str, tuple[float, int]] = {}      # address → when its minute began, wrong keys in it; the oldest minute first

    def left(self, address: str) -> float:
        """Seconds that the address is locked out for; 0 = it is not."""
        if not self._wrong:
            return 0.0
        with self._lock:
            began, count = self._wrong.get(address, (0.0, 0))
            return max(0.0, began + MINUTE - self._clock()) if count >= WRONG_KEYS else 0.0

    def wrong(self, address: str) -> bool:
        """One more wrong key. True for the one that locks the address out."""
        with self._lock:
            now = self._clock()
            began, count = self._wrong.get(address, (now, 0))
            if now - began >= MINUTE:
                del self._wrong[address]
                began, count = now, 0
            self._wrong[address] = began, count + 1
            while len(self._wrong) > ADDRESSES:
                del self._wrong[next(iter(self._wrong))]
            return count + 1 == WRONG_KEYS
