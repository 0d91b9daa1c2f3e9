"""One answer on its way from Ollama's socket to the pipe. Runs in a worker's one thread.

A streamed answer is passed on read by read, chunk-coded as it came. Any other answer is held until it is whole, up to HOLD_BODY:
the client cannot use half a JSON object, and a cut can then still become a proper 502.
"""

import time
from collections.abc import Callable
from functools import lru_cache

from hermes.workers.chunks import ChunkWalker, payload
from hermes.workers.endings import BLANK, LastRecord, figures_of, judge
from hermes.workers.messages import End, Failure, Head, Job, Kind, frame, pack
from hermes.workers.reply import READ, Reply
from hermes.workers.watch import Watch

HOLD_BODY = 256 * 1024
BURST = 0.0002              # seconds: a read that waited less was behind; no model speaks 5,000 tokens a second, a burst does
REST = 0.00025              # seconds of the first rest in a burst; each is twice the one before, up to
REST_MAX = 0.001            # … this
STREAMS = ("application/x-ndjson", "text/event-stream")
FORWARDED = ("content-type", "cache-control", "allow", "location")


class Relay:
    """`run` once."""

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
        self._may_be_brisk = self._stream and self._walker is not None and not job.decode
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
        self._finish()
        closing = judge(self._ending, self._record.payload()) if self._ending else self._figures()
        if isinstance(closing, Failure):
            self._reply.last = True
        self._outbox.append(pack(closing))
        return b"".join(self._outbox)

    def _chunked(self) -> None:
        walker = self._walker
        while not walker.ended:
            brisk = self._may_be_brisk and not (self._rest or self._outbox or self._reply.first) and walker.at_boundary and self._record.at_line_start
            data = self._token_by_token() if brisk else self._read()
            if not data:
                raise EOFError
            self._pass(walker.feed(data), last=walker.ended)
        if walker.rest:
            self._reply.last = True

    def _token_by_token(self) -> bytes:
        """The path of nearly every token: each comes alone, a chunk and a line of its own, and goes out as it came.

        Everything is in one place because 64 workers that take turns find their code out of the caches: each function that need not be
        entered is a few microseconds. Returns the first read that is anything else, for the general path; what came before it is noted.
        """
        watch, send, sock, kind, monotonic = self._watch, self._send, self._reply.sock, Kind.DATA, time.monotonic
        before = last = b""
        try:
            while True:
                data = sock.recv(READ)
                if monotonic() - watch.asked < BURST:
                    self._rest = REST
                    return data
                end = data.find(b"\r\n", 0, 8)
                if end < 1 or len(data) <= BLANK or plain_size(data[:end]) != len(data) - end - 4 or data[-3:] != b"\n\r\n":
                    return data
                send(frame(kind, data))
                before, last = last, data
        finally:
            for data in (before, last):
                if data and self._ending:
                    self._record.note(data)

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

    def _pass(self, data: bytes, last: bool = False) -> None:
        """Send on what has come: at once in a stream, else when the answer is whole or too large to hold. What is `last` goes out with
        the closing frame: one write here, one read there, and the client has its last chunk in the same packet."""
        if data:
            if self._ending:
                self._record.note(data)
            if self._stream and not self._outbox and not last:
                self._send(frame(Kind.DATA, data))
                return
            self._outbox.append(frame(Kind.DATA, data))
            self._held += len(data)
            if last or not self._stream and self._held <= HOLD_BODY:
                self._body.append(data)
                return
            self._body = []
            self._send(b"".join(self._outbox))
            self._outbox.clear()

    def _finish(self) -> None:
        """The body is whole."""

    def _figures(self) -> End:
        """A plain JSON answer tells its figures as well, if it was small enough to be held."""
        if not self._body or not self._wants_figures:
            return End()
        body = b"".join(self._body)
        return figures_of(payload(body) if self._head.framing == "chunked" else body)


@lru_cache(maxsize=4096)
def plain_size(line: bytes) -> int:
    """The size of a chunk whose first line is nothing but its size; -1 for everything else, the last chunk among it."""
    return int(line, 16) or -1 if line.isalnum() and not line.strip(b"0123456789abcdefABCDEF") else -1
