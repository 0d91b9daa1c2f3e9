"""The client's own spelling of a model's name in Ollama's answer; the bytes around the name stay as they are. All but RenamingRelay is pure.

Ollama echoes the name it was asked by (ollama-api.md §1.2) in each record: a line of NDJSON, a data line of SSE, or a whole JSON answer. What
is looked for is the member with its quotes, `"model":"gemma3:270m"`, as Go writes it. Inside a JSON string the quotes would be escaped,
so a match is a member and never text. Only the first one of a record is replaced: it stands in front of everything nested that could
have a member of that kind as well, such as a tool call's arguments.
"""

import json
import re
from collections.abc import Callable

from hermes.names import canonical
from hermes.workers.messages import Head, Job, Kind, Rename, frame, pack
from hermes.workers.relay import HOLD_BODY, Relay
from hermes.workers.reply import Reply
from hermes.workers.watch import Watch


class RenamingRelay(Relay):
    """Puts the client's spelling of the model's name into the answer. That changes its length, so the answer loses its framing: it goes on
    as bare bytes, or with a length of its own if it was held until it was whole."""

    def __init__(self, job: Job, reply: Reply, watch: Watch, send: Callable[[bytes], None]):
        super().__init__(job._replace(decode=True), reply, watch, send)
        self._rename = job.rename
        self._renamer = Renamer(job.rename)

    def _make_head(self, job: Job) -> Head:
        head = super()._make_head(job)
        return head if self._reply.bodyless else head._replace(framing="plain", length=0)

    def _pass(self, data: bytes, last: bool = False) -> None:
        super()._pass(self._renamer.feed(data), last)

    def _finish(self) -> None:
        super()._pass(self._renamer.end(), last=True)
        if not self._stream and 0 < self._held <= HOLD_BODY:    # nothing has gone out, not even the head
            body = b"".join(self._body)
            if self._head.status >= 400:
                body = in_error(body, self._rename)
            self._body = [body]
            self._outbox = [pack(self._head._replace(framing="length", length=len(body))), frame(Kind.DATA, body)]


class Renamer:
    """`feed` returns what may be handed on; what could be the beginning of a match is held back until more has come."""

    def __init__(self, rename: Rename):
        key, ollamas, clients = map(_quoted, rename)
        self._old = key + b":" + ollamas
        self._new = key + b":" + clients
        self._held = b""
        self._done = False          # this record has its name

    def feed(self, data: bytes) -> bytes:
        """Each byte is looked at twice at most, however long the record is and however many the read holds."""
        buffer = self._held + data if self._held else data
        old, new, pieces, at = self._old, self._new, [], 0
        while True:
            if self._done:
                line_end = buffer.find(b"\n", at)
                if line_end < 0:
                    self._held = b""
                    pieces.append(buffer[at:])
                    return b"".join(pieces)
                self._done = False
                pieces.append(buffer[at:line_end])
                at = line_end
            found = buffer.find(old, at)
            if found < 0:
                break
            pieces += (buffer[at:found], new)
            at = found + len(old)
            self._done = True
        keep = self._begun(buffer, at)
        self._held = buffer[len(buffer) - keep:] if keep else b""
        pieces.append(buffer[at:len(buffer) - keep])
        return b"".join(pieces)

    def end(self) -> bytes:
        """What was held back: nothing more comes."""
        held, self._held = self._held, b""
        return held

    def _begun(self, buffer: bytes, at: int) -> int:
        """How many bytes at the end could be the beginning of a match."""
        if buffer.endswith(b"\n"):
            return 0                # nearly always
        longest = min(len(self._old) - 1, len(buffer) - at)
        return next((size for size in range(longest, 0, -1) if buffer.endswith(self._old[:size])), 0)


def in_error(body: bytes, rename: Rename) -> bytes:
    """The body of an error, JSON or text, with the client's spelling where Ollama names the model: in quotes, which are escaped inside a
    JSON string, with or without the tag that it fills in, or by its full name (ollama-api.md §2.2)."""
    model, clients = rename.old.encode(), _quoted(rename.new)[1:-1]
    short = re.escape(model) + (b"" if b":" in model.rpartition(b"/")[2] else b"(?::latest)?")
    full = re.escape(canonical(rename.old).encode())
    pattern = rb"(?P<quote>'|\\?\")(?:%b|%b)(?P=quote)|(?<![\w./:-])%b(?!\.?[\w/:-])" % (short, full, full)
    return re.sub(pattern, lambda match: (quote := match["quote"] or b"") + clients + quote, body, flags=re.IGNORECASE)


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()
