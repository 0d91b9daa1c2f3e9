"""How many calls each client may have running at once, all models together.

The one thing that pools share. Its lock is taken inside a pool's lock and takes no other; nothing is called while it is held. Without a
limited client nothing is counted.
"""

import threading
from collections import Counter
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


class Caps(Generic[P]):
    """`with caps:` around a choice, so that two pools cannot both give a client his last place. `P` is a pool."""

    def __init__(self, limits: Mapping[str, int] | None = None):
        self._limits = dict(limits or {})
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()
        self._blocked: dict[str, set[P]] = {}       # which pools have passed a client over

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def free(self, client: str, pool: P) -> bool:
        """May one more of his calls start? If not, `pool` is told by `give` when it may. Only under the lock."""
        limit = self._limits.get(client)
        if limit is None or self._running[client] < limit:
            return True
        self._blocked.setdefault(client, set()).add(pool)
        return False

    def take(self, client: str) -> None:
        """One of his calls starts. Only under the lock, after `free`."""
        self._running[client] += 1

    def give(self, client: str) -> set[P]:
        """One of his calls has ended: the pools that should choose again, now that he has a place."""
        with self._lock:
            self._running[client] -= 1
            if self._running[client] <= 0:
                del self._running[client]
            return self._blocked.pop(client, set())

    def apply(self, limits: Mapping[str, int]) -> set[P]:
        """Other limits from now on; what runs is not touched. The pools that should choose again."""
        with self._lock:
            self._limits = dict(limits)
            blocked = set().union(*self._blocked.values()) if self._blocked else set()
            self._blocked.clear()
            return blocked
