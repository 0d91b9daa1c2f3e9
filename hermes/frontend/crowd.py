"""What all clients together may take: places at the door, and memory for bodies. Any thread."""

import threading
from collections import OrderedDict
from typing import Protocol

from hermes.errors import BodiesParked


class Guest(Protocol):
    def evict(self) -> None: ...


class Waiting:
    """The connections of which no whole request is known: idle, in the middle of a head, or refused and still talking. They cost Hermes a
    thread and a descriptor and nobody an answer, so that the oldest of them makes room where there is none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._guests: OrderedDict[Guest, None] = OrderedDict()

    def enter(self, guest: Guest) -> None:
        with self._lock:
            self._guests[guest] = None

    def leave(self, guest: Guest) -> bool:
        """False: it was not there, because it has been evicted."""
        with self._lock:
            return self._guests.pop(guest, self) is None

    def evict(self) -> bool:
        """Send the one away that has waited for longest. False: there is none."""
        with self._lock:
            if not self._guests:
                return False
            guest, _ = self._guests.popitem(last=False)
        guest.evict()
        return True


class Parking:
    """The bytes of request bodies that are held in memory, by clients still sending and by calls that wait or run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.size = 0

    def check(self, claimed: int, limit: int) -> None:
        """Nothing is reserved: who claims much and sends nothing must not keep others out. Raises BodiesParked."""
        if self.size + claimed > limit:
            raise BodiesParked("the bodies of other requests take all the memory there is for bodies")

    def take(self, size: int, limit: int) -> None:
        """Raises BodiesParked."""
        with self._lock:
            self.check(size, limit)
            self.size += size

    def give(self, size: int) -> None:
        with self._lock:
            self.size -= size
