"""Signs of life for a streaming call that waits: in the queue, while its model loads, while it reads a long prompt.

Ollama sends nothing before the first token, and proxies and clients give up after a minute or five of silence (conventions.md §1.6). So
after `heartbeat` seconds the answer is begun: a 200 and a sign that every client ignores. From then on a failure can only be told inside
the stream. A call that is answered sooner keeps its proper status.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from hermes.dispatch.lease import Lease
from hermes.dispatch.pending import Pending
from hermes.frontend.exchange import SSE, Source

# No newline in NDJSON, which ollama-python would take for a record; never `: ping` in SSE, which Continue takes for the end (conventions.md §0).
_SPACE = b" "


def beat(content_type: str, position: int, waiting: int) -> bytes:
    """A sign of life in a stream of this type; in SSE it tells the place in the queue, if there is one."""
    if content_type != SSE:
        return _SPACE
    return b": queued %d/%d\n\n" % (position, waiting) if position else b": keep-alive\n\n"


class Beats(NamedTuple):
    """How to show life: every `interval` seconds, in a stream of `content_type`, coded as the rest of the body is."""

    interval: float
    content_type: str
    encode: Callable[[bytes], bytes] = bytes


class Late:
    """A Source for an answer whose head has not come yet: heartbeats until it has, then what `source_of` makes of the lease."""

    def __init__(self, pending: Pending, beats: Beats, source_of: Callable[[Lease], Source]):
        self.ended = False
        self._pending = pending
        self._beats = beats
        self._due = time.monotonic()            # the first one goes out with the head
        self._source_of = source_of
        self._source: Source | None = None

    def read(self) -> bytes:
        """Raises HermesError, ClientGone."""
        if self._source is None:
            lease = self._pending.wait(self._due)
            if lease is None:
                self._due = time.monotonic() + self._beats.interval
                return self._beats.encode(beat(self._beats.content_type, *self._pending.position()))
            self._source = self._source_of(lease)
        data = self._source.read()
        self.ended = self._source.ended
        return data

    def close(self) -> None:
        self._pending.close()
        if self._source is not None:
            self._source.close()
