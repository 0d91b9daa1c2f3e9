"""What happened: one record a request, the counts, and the condition that tells of every change.

The ledger's condition is the simulator's only lock besides the script's; the scheduler works under it too. Nothing is
sent, received or waited for while it is held, but for a look at sockets that does not block.
"""

import json
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hermes.simulator.client import GONE, Client

_LOOK_AGAIN = 0.05  # A keep-alive that runs out changes what is loaded without anybody telling.


@dataclass
class Upload:
    """A body that is not kept. Written by its handler thread, under the ledger's condition."""

    size: int = 0
    """Bytes read so far."""
    sha256: str = ""
    """Of all of them, in hex, when the last was read."""


@dataclass(eq=False)
class SimRequest:
    """One request as the stand-in saw it. Written by its handler thread, under the ledger's condition."""

    method: str
    path: str
    model: str
    prompt: str
    body: bytes
    connection: int
    arrived: float
    first_byte: float | None = None
    ended: float | None = None
    client_left: bool = False
    client_left_at: float | None = None
    phase: str = "queued"
    """queued, loading, prefill (at work, nothing sent yet), streaming, done; where it was if the client left."""
    chunks: int = 0
    """Pieces of the answer handed to the socket."""
    sent: bytes = b""
    inference: bool = field(default=False, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    """By lower-case name."""
    query: str = ""
    upload: Upload | None = None
    """Of a blob; None also where its body was not read."""
    images: int = 0
    """Pictures in the body, all of whose base64 could be read."""

    def json(self) -> Any:
        """What the body says. Raises ValueError if it is no JSON."""
        return json.loads(self.body)


class Ledger:
    """The records and counts of a simulator. Any thread may call."""

    def __init__(self, keep_bodies: bool, remember: int | None) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.requests: deque[SimRequest] = deque(maxlen=remember)
        self.connections = 0
        self.open: set[Client] = set()
        self.high_water: Counter[str] = Counter()
        self.blobs: set[str] = set()
        """Digests of the blobs that are here."""
        self._active: dict[SimRequest, Client] = {}
        self._keep_bodies = keep_bodies

    def wait_for(self, predicate: Callable[[], object], timeout: float) -> bool:
        """Blocks until the predicate holds; False if it took too long.

        It is asked at every change, under the condition: it may look at anything here, and must not wait for anything.
        """
        deadline = time.monotonic() + timeout
        with self.changed:
            while not predicate():
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self.changed.wait(min(remaining, _LOOK_AGAIN))
            return True

    def connected(self, client: Client) -> None:
        """A connection was accepted."""
        with self.changed:
            self.connections += 1
            client.number = self.connections
            self.open.add(client)
            self.changed.notify_all()

    def disconnected(self, client: Client) -> None:
        """A connection is being closed by its handler."""
        with self.changed:
            self.open.discard(client)
            self.changed.notify_all()

    def arrive(self, record: SimRequest, client: Client) -> None:
        """A request was read. Those whose client has gone, perhaps itself too, are dropped before it is counted.

        So the high water is exact even if one caller is killed while the next one calls.
        """
        with self.changed:
            self.requests.append(record)
            self._active[record] = client
            self._sweep()
            if record.inference:
                count = self.running(record.model)
                self.high_water[record.model] = max(self.high_water[record.model], count)
            self.changed.notify_all()

    def running(self, model: str) -> int:
        """How many inference calls of a model are here now, waiting ones included."""
        with self.changed:
            return sum(record.inference and record.model == model for record in self._active)

    def reset_high_water(self) -> None:
        """Starts the high water from what is here now."""
        with self.changed:
            self._sweep()
            self.high_water = Counter(record.model for record in self._active if record.inference)

    def enter(self, record: SimRequest, phase: str) -> None:
        """A request moved on."""
        with self.changed:
            record.phase = phase
            self.changed.notify_all()

    def uploaded(self, record: SimRequest, size: int, sha256: str = "") -> None:
        """A piece of a body that is not kept was read, or its end."""
        with self.changed:
            record.upload = record.upload or Upload()
            record.upload.size += size
            record.upload.sha256 = sha256
            self.changed.notify_all()

    def sending(self, record: SimRequest, body: bytes) -> None:
        """A piece of the answer is about to go out; `body` is without chunk framing."""
        with self.changed:
            if record.first_byte is None:
                record.first_byte = time.monotonic()
            record.phase = "streaming"
            record.chunks += 1
            if self._keep_bodies:
                record.sent += body
            self.changed.notify_all()

    def finish(self, record: SimRequest) -> None:
        """The answer is about to end. Called before the last byte: whoever has read that finds the counts right."""
        with self.changed:
            if self._active.pop(record, None) is not None:
                record.phase = "done"
                record.ended = time.monotonic()
                self.changed.notify_all()

    def leave(self, record: SimRequest) -> None:
        """The client of a request has gone before its end."""
        with self.changed:
            if self._active.pop(record, None) is not None or record.phase == "done":
                self._mark_left(record)
                self.changed.notify_all()

    def _mark_left(self, record: SimRequest) -> None:
        if not record.client_left:
            record.client_left = True
            record.client_left_at = record.ended = time.monotonic()

    def _sweep(self) -> None:
        """Drops the active requests whose peer has closed: on loopback a close is visible at once."""
        poller = select.poll()
        by_fd = {client.fileno(): record for record, client in self._active.items()}
        for descriptor in by_fd:
            poller.register(descriptor, GONE)
        for descriptor, _ in poller.poll(0):
            record = by_fd[descriptor]
            del self._active[record]
            self._mark_left(record)
