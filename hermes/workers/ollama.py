"""The only module that speaks to Ollama. Runs in a worker's one thread.

    Job ──▶ ask: connect, send, wait for the head (retried here and nowhere else, only while nothing has come)
         ◀── relay: HEAD, DATA…, then END if the answer is whole and said so, else FAILURE

A streamed answer is passed on read by read, chunk-coded as it came. Any other answer is held until it is whole, up to HOLD_BODY:
the client cannot use half a JSON object, and a cut can then still become a proper 502.
"""

import random
import time
import urllib.request
from collections.abc import Callable
from functools import lru_cache

from hermes.errors import UpstreamBroken, UpstreamError, UpstreamUnreachable
from hermes.workers.chunks import ChunkWalker, payload
from hermes.workers.connection import KeptConnectionHandler, broken, build_opener
from hermes.workers.endings import LastRecord, figures_of, judge
from hermes.workers.messages import End, Failure, Head, Job, Kind, frame, pack
from hermes.workers.reply import Reply
from hermes.workers.watch import Cancelled, Watch

HOLD_BODY = 256 * 1024
CONNECT_ATTEMPTS = 3        # with the pauses below a refused connection is reported within 200 ms
CONNECT_PAUSE = 0.03        # seconds, doubled each time, with jitter down to its half
BURST = 0.0002              # seconds: a read that waited less was behind; no model speaks 5,000 tokens a second, a burst does
REST = 0.00025              # seconds of the first rest in a burst; each is twice the one before, up to
REST_MAX = 0.001            # … this
STREAMS = ("application/x-ndjson", "text/event-stream")
FORWARDED = ("content-type", "cache-control", "allow", "location")


class Ollama:
    """One conversation at a time, over one kept connection."""

    def __init__(self, watch: Watch, send: Callable[[bytes], None]):
        self._watch = watch
        self._send = send
        self._handler = KeptConnectionHandler(watch)
        self._opener = build_opener(self._handler)
        self._request = lru_cache(maxsize=64)(_request)     # the same client asks for the same path again and again

    def serve(self, job: Job) -> None:
        """Answer `job` with frames, the last of which is END or FAILURE. Raises only what `send` raises, and ParentGone."""
        self._watch.begin(job.timeouts.total)
        try:
            reply = self._ask(job)
            if 300 <= reply.status < 400:
                raise UpstreamBroken(f"Ollama answered with a redirect ({reply.status})")
            closing = Relay(job, reply, self._watch, self._send).run()
            self._handler.keep(reply)
        except Cancelled:
            self._handler.drop()
            closing = pack(Failure("ClientGone", "cancelled"))
        except UpstreamError as error:
            self._handler.drop()
            closing = pack(Failure(type(error).__name__, error.text))
        except (OSError, EOFError, ValueError) as error:
            self._handler.drop()
            closing = pack(Failure("UpstreamBroken", broken(error).text))
        self._send(closing)

    def _ask(self, job: Job) -> Reply:
        """The head of the answer. Two things are tried again: a connection that could not be made, and one that had gone stale."""
        data = None if job.method in ("GET", "HEAD") else job.body
        attempt = 0
        while True:
            request = self._request(job.url + job.path, job.method, job.headers)
            request.data = data
            self._watch.phase("cannot connect to Ollama: timed out", job.timeouts.connect)
            try:
                self._handler.connect(request)
                self._watch.phase("Ollama sent nothing within first_byte_timeout", job.timeouts.first_byte)
                return self._opener.open(request)
            except UpstreamUnreachable:
                attempt += 1
                if attempt == CONNECT_ATTEMPTS:
                    raise
                time.sleep(CONNECT_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
            except (EOFError, ConnectionResetError):
                stale = self._handler.used
                self._handler.drop()
                if not stale:
                    raise
            finally:
                request.data = None             # it may be large, and the request is kept


def _request(url: str, method: str, headers: tuple[tuple[str, str], ...]) -> urllib.request.Request:
    return urllib.request.Request(url, headers=dict(headers), method=method)


class Relay:
    """One answer on its way from Ollama's socket to the pipe."""

    def __init__(self, job: Job, reply: Reply, watch: Watch, send: Callable[[bytes], None]):
        self._reply = reply
        self._send = send
        self._watch = watch
        self._idle = job.timeouts.idle
        self._stream = reply.headers.get("content-type", "").partition(";")[0].strip().lower() in STREAMS
        self._ending = job.ending if self._stream and reply.status == 200 else ""
        self._rest = 0.0
        self._wants_figures = bool(job.ending) and not self._stream and reply.status == 200
        self._walker = ChunkWalker(job.decode) if reply.framing == "chunked" else None
        self._record = LastRecord(coded=self._walker is not None and not job.decode)
        self._head = self._make_head(job)
        self._outbox: list[bytes] = [pack(self._head)]
        self._held = 0
        self._body: list[bytes] = []

    def _make_head(self, job: Job) -> Head:
        reply = self._reply
        headers = tuple((name, reply.headers[name]) for name in FORWARDED if name in reply.headers)
        framing = {"chunked": "plain" if job.decode else "chunked", "length": "length", "close": "plain"}[reply.framing]
        return Head(reply.status, headers, framing, reply.length)

    def run(self) -> bytes:
        """Relay the body; return the closing frame, with what was held in front of it. Raises UpstreamError, OSError."""
        self._watch.phase("Ollama stopped sending for longer than idle_timeout", self._idle, each=True)
        if self._reply.bodyless:
            pass
        elif self._walker:
            self._chunked()
        elif self._reply.framing == "length":
            self._counted()
        else:
            self._until_close()
        closing = judge(self._ending, self._record.payload()) if self._ending else self._figures()
        if isinstance(closing, Failure):
            self._reply.last = True
        self._outbox.append(pack(closing))
        return b"".join(self._outbox)

    def _chunked(self) -> None:
        walker = self._walker
        while not walker.ended:
            data = self._read()
            if not data:
                raise EOFError
            self._pass(walker.feed(data))
        if walker.rest:
            self._reply.last = True

    def _counted(self) -> None:
        left = self._reply.length
        while left:
            data = self._read()
            if not data:
                raise EOFError
            if len(data) > left:
                data, self._reply.last = data[:left], True
            left -= len(data)
            self._pass(data)
        if self._reply.first:
            self._reply.last = True

    def _until_close(self) -> None:
        while data := self._read():
            self._pass(data)

    def _read(self) -> bytes:
        """One read. After one that did not have to wait, rest a moment: then the next takes many tokens, and each of them costs less."""
        if self._rest:
            time.sleep(self._rest)
        data = self._reply.read()
        self._rest = min(max(REST, 2 * self._rest), REST_MAX) if time.monotonic() - self._watch.asked < BURST else 0.0
        return data

    def _pass(self, data: bytes) -> None:
        """Send on what has come: at once in a stream, else when the answer is whole or too large to hold."""
        if data:
            if self._ending:
                self._record.note(data)
            if self._stream and not self._outbox:
                self._send(frame(Kind.DATA, data))
                return
            self._outbox.append(frame(Kind.DATA, data))
            self._held += len(data)
            if not self._stream and self._held <= HOLD_BODY:
                self._body.append(data)
                return
            self._body = []
            self._send(b"".join(self._outbox))
            self._outbox.clear()

    def _figures(self) -> End:
        """A plain JSON answer tells its figures as well, if it was small enough to be held."""
        if not self._body or not self._wants_figures:
            return End()
        body = b"".join(self._body)
        return figures_of(payload(body) if self._head.framing == "chunked" else body)
