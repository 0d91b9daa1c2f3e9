"""The one place where a worker waits: for Ollama's socket, for the pipe and for the clock, in a single poll.

So a worker needs no thread, no signal and no socket timeout: a Cancel or the parent's death wakes it in every phase, also while Ollama
loads a model in silence, and the deadlines are exact although the answer drips (a socket's own timeout starts anew at each byte).
"""

import os
import select
import socket
import time

from hermes.errors import RunTimeExceeded, UpstreamTimeout
from hermes.workers.messages import FrameReader, Kind, ProtocolError, frame

POLL_MAX = 1 << 30          # milliseconds; poll takes no more than an int
_LONGEST_JOB = (1 << 32) - 1
READ = 64 * 1024            # from 128 KiB on each read would map and unmap its buffer


class Cancelled(Exception):
    """The parent has no use for the answer any more."""


class ParentGone(Exception):
    """End of file on the pipe, or rubbish in it: there is nobody to work for."""


class Pipe:
    """The worker's end of its pipe. Blocking writes: a client that does not read slows down his own worker only."""

    def __init__(self, fd: int):
        self.fd = fd
        self._reader = FrameReader(_LONGEST_JOB)
        self._frames: list[tuple[int, bytes]] = []
        self.pieces: list[tuple[int, bytes]] = []       # BODY and BODY_END that have come during the job

    def send(self, data: bytes) -> None:
        try:
            sent = os.write(self.fd, data)
            while sent < len(data):
                sent += os.write(self.fd, memoryview(data)[sent:])
        except OSError:
            raise ParentGone from None

    def receive(self) -> tuple[int, bytes]:
        """The next frame; waits for it."""
        while not self._frames:
            self.fill()
        return self._frames.pop(0)

    def fill(self) -> None:
        """Read once. Raises ParentGone."""
        try:
            data = os.read(self.fd, READ)
        except OSError:
            data = b""
        if not data:
            raise ParentGone
        try:
            self._frames += self._reader.feed(data)
        except ProtocolError:
            raise ParentGone from None

    def heed(self) -> None:
        """Called when the pipe is readable during a job: a Cancel may have come, or pieces of the request's body. Raises Cancelled, ParentGone."""
        self.fill()
        while self._frames:
            kind, payload = self._frames.pop(0)
            if kind == Kind.CANCEL:
                raise Cancelled
            if kind not in (Kind.BODY, Kind.BODY_END):
                raise ParentGone
            self.pieces.append((kind, payload))


class Watch:
    """Waits for one socket at a time on behalf of the job at hand. Seconds; inf = no limit."""

    def __init__(self, pipe: Pipe):
        self._pipe = pipe
        self._poll = select.poll()
        self._poll.register(pipe.fd, select.POLLIN)
        self._watched = (-1, 0)
        self._end = self._run_end = float("inf")
        self._phase_end = float("inf")
        self._phase = ""
        self._limit: float | None = None    # each wait has so many seconds of its own
        self.asked = 0.0                    # when the last wait began

    def begin(self, total: float, run: float = float("inf")) -> None:
        """A job starts: it may take `total` seconds altogether, and `run`."""
        now = time.monotonic()
        self._run_end = now + run
        self._end = min(now + total, self._run_end)
        self._pipe.pieces.clear()           # of a body that the last answer did not wait for

    @property
    def pieces(self) -> list[tuple[int, bytes]]:
        """What has come of the request's body, and is the caller's to take: BODY and BODY_END frames."""
        return self._pipe.pieces

    def ask_for(self, pieces: int) -> None:
        """Tell the parent that so many more are welcome."""
        self._pipe.send(frame(Kind.MORE) * pieces)

    def phase(self, name: str, limit: float, *, each: bool = False) -> None:
        """From now on `limit` seconds altogether, or for each wait; `name` says in the error what took too long."""
        self._phase, self._phase_end = name, time.monotonic() + limit
        self._limit = limit if each else None

    def wait(self, sock: socket.socket, events: int, *, or_piece: bool = False) -> int:
        """Until `sock` is ready: its events; with `or_piece` also until a piece of the request's body has come: 0.

        Raises Cancelled, ParentGone, UpstreamTimeout; when the time of the job or of the phase is up, also if the socket is always ready.
        """
        fd = sock.fileno()
        if self._watched != (fd, events):
            self._watch(fd, events)
        now = self.asked = time.monotonic()
        if self._limit is not None:
            self._phase_end = now + self._limit
        elif now >= self._phase_end:
            raise UpstreamTimeout(self._phase)      # what comes without end, such as interim answers, is no sign of life
        if now >= self._end:
            raise self._over()
        end = self._end if self._end < self._phase_end else self._phase_end
        while True:
            left = end - now
            ready = self._poll.poll(min(max(0.0, left) * 1000 + 1, POLL_MAX))
            if not ready:
                if (now := time.monotonic()) >= end:
                    raise UpstreamTimeout(self._phase) if self._phase_end < self._end else self._over()
                continue
            if len(ready) == 1 and ready[0][0] == fd:
                return ready[0][1]
            self._pipe.heed()
            if or_piece:
                return 0

    def _over(self) -> UpstreamTimeout:
        if self._end == self._run_end:
            return RunTimeExceeded("the answer was not finished within max_run_time")
        return UpstreamTimeout("Ollama took longer than total_timeout")

    def forget(self, sock: socket.socket) -> None:
        """`sock` is about to be closed."""
        if sock.fileno() == self._watched[0]:
            self._watch(-1, 0)

    def _watch(self, fd: int, events: int) -> None:
        if self._watched[0] not in (-1, fd):
            self._poll.unregister(self._watched[0])
        if fd != -1:
            self._poll.register(fd, events)
        self._watched = (fd, events)
