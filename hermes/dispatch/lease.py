"""One job's conversation with one worker: exclusive use of its pipe, from the job's first byte to END, FAILURE or the worker's end.

Runs in the handler thread of the job's client. It waits for the worker and for the client in one poll: a client that leaves
cancels the job in every phase, and a worker that says nothing past its own deadlines is killed.

    begin, wait ──HEAD──▶ read … read ──END──▶ read returns b""     the worker goes back to its pool
      │               │                                     (a body that follows the job is fed to it by begin: hermes.dispatch.feed)
      └───────────────┴── FAILURE: the error is raised         the worker goes back as well
                      └── client gone, close(): CANCEL, a second's grace, then back, or SIGKILL
                      └── end of file, rubbish, silence: WorkerLost; the worker is given up
"""

import math
import select
import time

from hermes import errors
from hermes.dispatch.bell import GONE
from hermes.dispatch.feed import Body, Feed
from hermes.dispatch.pool import Pool
from hermes.errors import ClientGone, HermesError, UpstreamError, WorkerLost
from hermes.workers.child import Child
from hermes.workers.messages import End, Failure, Head, Job, Kind, ProtocolError, unpack

GRACE = 1.0                 # seconds a worker has to answer a CANCEL
HUNG_MARGIN = 5.0           # seconds beyond the worker's own deadlines before it is taken for hung
HAND_OVER = 10.0            # seconds for a worker to make room on its pipe for a job
TAKEN = 3.0                 # seconds for it to take the whole job off: an idle one waits for nothing else


class Lease:
    """Use it as a context manager, or call `close`. `head` is set by `wait`, `end` by the last `read`, `held` when the worker has
    gone back."""

    def __init__(self, pool: Pool, child: Child, client):
        self.head: Head | None = None
        self.end: End | None = None
        self.ended = False              # the answer is whole: what `read` returned last was the last
        self.queued = 0.0               # seconds its ticket waited
        self.held = 0.0                 # seconds it had the worker
        self.size = 0                   # bytes of body that `read` has returned
        self.records = 0                # JSON records among them, in NDJSON and SSE; one whose line end came in the next read is missed
        self.model = pool.name if pool.model else ""
        self._pool = pool
        self._child: Child | None = child
        self._client_fd = client.fileno()
        self._began = time.monotonic()
        self._frames: list[tuple[int, bytes]] = []
        self._failure: HermesError | None = None
        self._last = self._silent_until = self._silence = self._taken_by = math.inf
        self._poll = select.poll()
        self._poll.register(child.fd, select.POLLIN)
        self._poll.register(self._client_fd, GONE)

    def begin(self, job: Job, body: Body | None = None) -> None:
        """Hand the job over, and the body that follows it. Raises UpstreamError (WorkerLost among them), ClientGone, and what is wrong
        with the body."""
        try:
            self._child.send_job(job, self._began + HAND_OVER)
        except OSError as error:
            self._child.kill()              # a stopped one never reads the end of file
            self._give_up()
            raise WorkerLost(f"the worker was lost before it had the request ({type(error).__name__})", started=False) from None
        times = job.timeouts
        self._last = self._began + min(times.total, times.run) + HUNG_MARGIN
        self._silence = times.idle + HUNG_MARGIN
        if body is not None:
            self._feed(Feed(self._child, self._client_fd, body, 3 * times.connect + times.idle + HUNG_MARGIN))
        requests = 2 if job.prelude else 1
        self._silent_until = time.monotonic() + requests * (3 * times.connect + times.first_byte + times.idle) + HUNG_MARGIN      # a head waits for its first bytes
        if body is None:
            self._taken_by = time.monotonic() + TAKEN

    def wait(self, until: float = math.inf) -> Head | None:
        """The head of the answer; None = it has not come at the monotonic time `until`. Raises UpstreamError, ClientGone."""
        while self.head is None:
            if not self._frames:
                if not self._receive(min(until, self._taken_by)):
                    if time.monotonic() >= self._taken_by:
                        self._has_taken()
                    elif time.monotonic() >= until:
                        return None
            elif self._frames[0][0] == Kind.HEAD:
                self.head = self._unpack(*self._frames.pop(0))
            elif self._frames[0][0] == Kind.FAILURE:
                self.read()                 # raises it
            elif self._frames[0][0] == Kind.MORE:
                self._frames.pop(0)         # it has the whole body already
            else:
                self._child.kill()
                self._lost("the worker answered without a head")
        return self.head

    def _has_taken(self) -> None:
        """Has the worker its job? One that was stopped while it was idle never will. Raises WorkerLost."""
        self._taken_by = math.inf
        if self._child.untaken():
            self._child.kill()
            self._give_up()
            raise WorkerLost("the worker did not take the request and was killed", started=False)

    def read(self) -> bytes:
        """The next bytes of the body, all that have come; b"" at its end. Raises UpstreamError, ClientGone."""
        while True:
            if self._failure:
                raise self._failure
            if self.ended:
                return b""
            if not self._frames:
                self._receive()
            frames = self._take()
            if len(frames) == 1 and frames[0][0] == Kind.DATA:
                data = frames[0][1]         # a token at leisure
                self.size += len(data)
                self.records += data.count(b"}\n")
                return data
            if any(kind in (Kind.END, Kind.FAILURE) for kind, _ in frames[:-1]):
                self._child.kill()
                self._lost("the worker spoke on after its last word and was killed")
            pieces = [payload for kind, payload in frames if self._is_data(kind, payload)]
            if pieces:
                data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
                self.size += len(data)
                self.records += data.count(b"}\n")
                return data

    def overdue(self) -> bool:
        """Has it still its worker, at the end of all the time that the job may take?"""
        return self._child is not None and time.monotonic() >= self._last

    def close(self) -> None:
        """The client needs no more. Idempotent."""
        if self._child is not None:
            self._cancel()

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def _take(self) -> list[tuple[int, bytes]]:
        frames, self._frames = self._frames, []
        return frames

    def _is_data(self, kind: int, payload: bytes) -> bool:
        """True for DATA; END and FAILURE end the lease at once, whatever the client still has to be sent."""
        if kind == Kind.DATA:
            return True
        message = self._unpack(kind, payload)
        if isinstance(message, End):
            self.end, self.ended = message, True
        elif isinstance(message, Failure):
            self._failure = _error(message)
        else:
            self._lost("the worker sent a head twice")
        self._hand_back(answered=self.ended)
        return False

    def _receive(self, until: float = math.inf) -> bool:
        """Wait for the worker or the client, whichever moves first; then read once. False: neither has moved at `until`."""
        now = time.monotonic()
        hung = min(self._last, self._silent_until if self.head is None else now + self._silence)
        end = min(hung, until)
        ready = self._poll.poll(None if end == math.inf else max(0.0, min((end - now) * 1000, 1 << 30)))
        if not ready and end < hung:
            return False
        if not ready:
            self._child.kill()
            self._lost("the worker hung and was killed")
        if len(ready) > 1 or ready[0][0] == self._client_fd:
            self._cancel()
            raise ClientGone
        try:
            self._frames += self._child.receive()
        except (EOFError, OSError):
            self._lost("the worker died")
        except ProtocolError:
            self._child.kill()
            self._lost("the worker spoke gibberish and was killed")
        return True

    def _feed(self, feed: Feed) -> None:
        try:
            self._frames += feed.run()
        except TimeoutError:
            self._child.kill()
            self._lost("the worker hung and was killed")
        except (EOFError, OSError):
            self._lost("the worker died")
        except ProtocolError:
            self._child.kill()
            self._lost("the worker spoke gibberish and was killed")
        except (ClientGone, HermesError):
            self._cancel()
            raise

    def _unpack(self, kind: int, payload: bytes) -> Head | End | Failure:
        try:
            return unpack(kind, payload)
        except ProtocolError:
            self._child.kill()
            self._lost("the worker spoke gibberish and was killed")

    def _cancel(self) -> None:
        """Ask the worker to stop, and read on until it says that it has, because it may be waiting to write."""
        if any(kind in (Kind.END, Kind.FAILURE) for kind, _ in self._frames):
            self._hand_back()
            return
        deadline = time.monotonic() + GRACE
        poll = select.poll()
        poll.register(self._child.fd, select.POLLIN)
        try:
            self._child.cancel()
            while (left := deadline - time.monotonic()) > 0:
                if poll.poll(left * 1000) and any(kind in (Kind.END, Kind.FAILURE) for kind, _ in self._child.receive()):
                    self._hand_back()
                    return
        except (EOFError, OSError, ProtocolError):
            pass
        self._get_rid()

    def _get_rid(self) -> None:
        """It is our doing: not a death to count."""
        self._child.unwanted = True
        self._child.kill()
        self._give_up()

    def _lost(self, text: str) -> None:
        self._give_up()
        if self._pool.refusal:                  # we are stopping, and it is not the worker's fault
            raise self._pool.refusal.with_traceback(None)
        raise WorkerLost(text, started=True)

    def _hand_back(self, answered: bool = False) -> None:
        if self._child.unsent:                  # half a frame is on its pipe: nothing can follow it
            self._get_rid()
            return
        child, self._child = self._child, None
        self.held = time.monotonic() - self._began
        self._pool.release(child, reusable=True, answered=answered, took=self.held)

    def _give_up(self) -> None:
        child, self._child = self._child, None
        self.held = time.monotonic() - self._began
        child.close()
        self._pool.release(child, reusable=False)


def _error(failure: Failure) -> HermesError:
    """The error a FAILURE frame names. `told`: Ollama's own error record has gone out already."""
    cls = getattr(errors, failure.error, UpstreamError)
    error = cls(failure.text) if isinstance(cls, type) and issubclass(cls, UpstreamError) else UpstreamError(failure.text)
    error.told = failure.told
    return error
