"""Who is next among those who wait: bounded, first come, first served. Pure; the pool guards it with its lock."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


def retry_after(depth: int, slots: int, service: float) -> float:
    """Seconds after which a client whom a full queue turned away should come again: `depth` wait for `slots` workers, which take `service`
    seconds for a call.

    That is when half of those who wait will have had their turn. When one place is likely to be free, after service / slots, would be too soon:
    of a burst that was turned away together, all would come back together for that one place, and the client libraries give up after
    three attempts. When the queue has run empty would be too late: workers would stand idle until they come.
    """
    return service * max(1.0, depth / 2) / max(1, slots)


class Backlog(Generic[T]):
    """Tickets in order. Every operation takes the same time however many wait."""

    def __init__(self, limit: int):
        self.limit = limit
        self._waiting: OrderedDict[T, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, ticket: T) -> bool:
        """False when it is full."""
        if len(self._waiting) >= self.limit:
            return False
        self._waiting[ticket] = None
        return True

    def pop(self) -> T:
        """The next one. Raises KeyError when nobody waits."""
        return self._waiting.popitem(last=False)[0]

    def remove(self, ticket: T) -> bool:
        """False when it is not waiting (any more)."""
        return self._waiting.pop(ticket, self) is None

    def oldest(self) -> T | None:
        return next(iter(self._waiting), None)

    def position(self, ticket: T) -> int:
        """1 = next; 0 = it does not wait. Takes longer the more wait; asked for once in a heartbeat."""
        return next((place for place, other in enumerate(self._waiting, 1) if other is ticket), 0)

    def clear(self) -> list[T]:
        """Everybody, in order; then nobody waits."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return waiting
