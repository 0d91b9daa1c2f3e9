"""A request's body that comes in pieces, and goes out to Ollama as it comes. Runs in a worker's one thread.

    pipe ──BODY, BODY_END──▶ Upload ──bytes──▶ Ollama
         ◀──────MORE────────        ◀── an early answer

Each piece is asked for, so no more than WINDOW of them are ever here; the pipe and Ollama's socket are waited for in one poll, so a CANCEL
is heard while Ollama takes nothing. Without BODY_END the connection is closed short of the body's end: half a body never looks whole.
"""

import math
import select

from hermes.workers.messages import WINDOW, Kind, Timeouts
from hermes.workers.watch import Watch


class Upload:
    """`send` once. `whole`: Ollama has the body to its end."""

    def __init__(self, watch: Watch, timeouts: Timeouts):
        self.whole = False
        self._watch = watch
        self._timeouts = timeouts

    def send(self, sock) -> bytes | None:
        """Pass the body on until it is whole, or Ollama speaks first: the beginning of its answer, b"" if it closed the connection.

        `sock` is a WatchedSocket. Raises Cancelled, ParentGone, UpstreamTimeout, OSError.
        """
        self._watch.ask_for(WINDOW)
        view = memoryview(b"")
        while True:
            if not view and self._watch.pieces:
                kind, payload = self._watch.pieces.pop(0)
                if kind == Kind.BODY_END:
                    break
                view = memoryview(payload)
            # It is the client who is slow while there is nothing to send; the parent sees to that.
            self._watch.phase("Ollama took nothing of the body for longer than idle_timeout", self._timeouts.idle if view else math.inf, each=True)
            events = sock.wait(select.POLLIN | (select.POLLOUT if view else 0))
            if events & ~select.POLLOUT and (answer := sock.take()) is not None:
                return answer
            if view and events & select.POLLOUT:
                view = view[sock.give(view):]
                if not view:
                    self._watch.ask_for(1)
        self.whole = True
        self._watch.phase("Ollama sent nothing within first_byte_timeout", self._timeouts.first_byte)
        return None
