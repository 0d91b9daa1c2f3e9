"""A request's body on its way from its client to the worker that has the job. Runs in the client's handler thread.

    client ──bytes──▶ Body.read ──BODY, BODY_END──▶ worker ──▶ Ollama
                                ◀──────MORE────────

The worker asks for each piece, so a client is read only as fast as Ollama takes what he sends, and nothing but the piece at hand is in
memory. Client and pipe are waited for in one poll: nobody waits to write to somebody who waits to write (reliability.md §1.5).
"""

import select
import time
from typing import Protocol

from hermes.dispatch.bell import GONE
from hermes.errors import ClientGone, RequestTimeout
from hermes.workers.child import Child
from hermes.workers.messages import Kind, frame


class Body(Protocol):
    """What a client has yet to send. `ready`: something of it has been read from the socket already. `patience`: seconds he may pause."""

    ended: bool
    ready: bool
    patience: float

    def invite(self) -> None:
        """Tell a client who waits for it that his body is wanted. Raises ClientGone."""

    def read(self) -> bytes | bytearray:
        """What one read gives, as it is to go out; perhaps nothing. Raises BadRequest, ClientGone."""


class Feed:
    """`run` once, after the job has been handed over."""

    def __init__(self, child: Child, client_fd: int, body: Body, worker_patience: float):
        """`worker_patience`: seconds without a word from a worker whose turn it is."""
        self._child = child
        self._client_fd = client_fd
        self._body = body
        self._worker_patience = worker_patience
        self._wanted = 0                    # pieces that the worker has asked for and not got
        self._invited = False
        self._ended = False                 # BODY_END has been pushed
        self._since = time.monotonic()      # when whoever's turn it is got it, or last moved
        self._frames: list[tuple[int, bytes]] = []
        self._poll = select.poll()

    def run(self) -> list[tuple[int, bytes]]:
        """Until the worker has the whole body, or has a word to say to it: its frames.

        Raises ClientGone, RequestTimeout and whatever else `Body.read` does; of the worker TimeoutError, EOFError, OSError, ProtocolError.
        """
        while not self._frames and not (self._ended and not self._child.unsent):
            if self._clients_turn and (self._body.ready or self._body.ended):
                self._pass()
            else:
                self._wait()
        return self._frames

    @property
    def _clients_turn(self) -> bool:
        return self._wanted > 0 and not self._child.unsent and not self._ended

    def _wait(self) -> None:
        """Until somebody moves whose move is of use."""
        clients_turn = self._clients_turn
        self._poll.register(self._child.fd, select.POLLIN | (select.POLLOUT if self._child.unsent else 0))
        self._poll.register(self._client_fd, GONE | (select.POLLIN if clients_turn else 0))
        left = self._since + (self._body.patience if clients_turn else self._worker_patience) - time.monotonic()
        ready = dict(self._poll.poll(None if left == float("inf") else max(0.0, min(left * 1000, 1 << 30))))
        if not ready and clients_turn:
            raise RequestTimeout("the request did not arrive in time")
        if not ready:
            raise TimeoutError
        if ready.get(self._client_fd, 0) & ~select.POLLIN:
            raise ClientGone
        if self._child.fd in ready:
            self._hear(ready[self._child.fd])
        elif self._client_fd in ready:
            self._pass()
        if not clients_turn:
            self._since = time.monotonic()

    def _hear(self, events: int) -> None:
        if events & select.POLLOUT:
            self._child.flush()
        if not events & ~select.POLLOUT:
            return
        for kind, payload in self._child.receive():
            if kind == Kind.MORE and not self._frames:
                self._wanted += 1
            else:
                self._frames.append((kind, payload))
        if self._wanted and not self._invited and not self._frames:
            self._invited = True
            self._body.invite()

    def _pass(self) -> None:
        """Hand on what one read gives, and the end with the last of it."""
        piece = b"" if self._body.ended else self._body.read()
        self._since = time.monotonic()
        self._ended = self._body.ended
        self._wanted -= bool(piece)
        frames = (frame(Kind.BODY, piece) if piece else b"") + (frame(Kind.BODY_END) if self._ended else b"")
        if frames:
            self._child.push(frames)
