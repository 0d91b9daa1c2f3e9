"""Everything that crosses the pipe between the parent and a worker, and its framing.

    byte 0   bytes 1-4           then
    kind     length, big endian  payload of that length

    down (parent → worker)   JOB      4 bytes length of the order, the order (JSON), the request body
                             BODY     bytes of a request body that follows its job, to be sent on as they are
                             BODY_END nothing: that body is whole
                             CANCEL   nothing: stop the job at hand; ignored when there is none
    up (worker → parent)     READY    nothing: the process stands and waits for a job
                             MORE     nothing: one more BODY is welcome
                             HEAD     the head of Ollama's answer (JSON)
                             DATA     bytes of the answer's body, to be sent on as they are
                             END      the answer is whole and said so itself; its figures (JSON)
                             FAILURE  the answer failed (JSON); nothing more comes for this job

A job is answered by HEAD, DATA…, END or by a FAILURE at any point. Nothing is ever unpickled. Each side feeds what it reads
into a FrameReader, so that half a frame never blocks anybody; what is too long or of an unknown kind is a ProtocolError,
and the only answer to that is to give the other side up.

A body that follows its job is asked for: there is never more of it on the pipe than MORE allowed, WINDOW pieces of 64 KiB, which a pipe holds.
So a CANCEL always finds room behind it, and nobody waits to write to somebody who waits to write. The first word of an answer ends the
body, whole or not; pieces that crossed it are dropped.

The messages are named tuples: they are JSON arrays as they stand. They are made by `collections`, because `dataclasses` would cost every
worker a megabyte for its imports, and `typing` half of one; so the fields' types stand in comments.
"""

import json
import math
import struct
from collections import namedtuple
from enum import IntEnum
from functools import lru_cache

_HEADER = struct.Struct(">BI")
_LENGTH = struct.Struct(">I")

DATA_MAX = 1 << 20          # an honest worker sends what one read returned: 64 KiB and a held-back piece
ALIKE = 64                  # orders and heads that are known again; each at most as long as a request's head
WINDOW = 2                  # BODY frames under way: one on the pipe while the other goes out; Linux's socket pair holds 176 KiB


Bytes = bytes | bytearray | memoryview
Body = Bytes | tuple[Bytes, ...]


class Kind(IntEnum):
    JOB, CANCEL, READY, HEAD, DATA, END, FAILURE, BODY, BODY_END, MORE = range(1, 11)


class ProtocolError(Exception):
    """The other side of the pipe does not speak our language: give it up."""


class Timeouts(namedtuple("Timeouts", ("connect", "first_byte", "idle", "total", "run"), defaults=(2.0, 600.0, 120.0, 3600.0, math.inf))):   # all float
    """Seconds; inf = no limit. `connect` per attempt, `first_byte` from the request's last byte to the answer's first,
    `idle` between two bytes of the answer, `total` for everything, and `run` too, which is the model's own limit."""

    __slots__ = ()

    def endless(self) -> "Timeouts":
        """For what takes hours, minutes of them without a byte. Only a connection is still made in time."""
        return Timeouts(self.connect, math.inf, math.inf, math.inf)


class Rename(namedtuple("Rename", ("key", "old", "new"))):      # all str
    """In each record of the answer the member `key` says `new`, the client's spelling, where Ollama says `old`."""

    __slots__ = ()


class Prelude(namedtuple("Prelude", ("path", "body"))):         # both str
    """A POST that goes to Ollama before the job's own request, and whose answer is dropped, whatever its status."""

    __slots__ = ()


_JOB = {                    # what may be left out, and what it is then
    "headers": (),          # tuple[tuple[str, str], ...]
    "body": b"",            # Body
    "ending": "",           # str
    "decode": False,        # bool
    "timeouts": Timeouts(),
    "rename": None,         # Rename | None
    "prelude": None,        # Prelude | None
    "follows": False,       # bool
}


class Job(namedtuple("Job", ("url", "method", "path", *_JOB), defaults=_JOB.values())):     # the first three are str
    """What is asked of a worker: one HTTP request to Ollama.

    `ending` names the record a stream must end with to have succeeded: "done" (native), "success" (pull), "[DONE]" (OpenAI), "message_stop"
    (Anthropic), "response.completed" (OpenAI's Responses), "" (whatever ends properly). `decode`: strip the chunked coding, because the parent
    reads the body or its client is too old for it. `rename`: answer the client in his own spelling of the model's name. `prelude`: what
    Ollama has to be told before. The parent may give the `body` in pieces; the worker gets a view of what came. `follows`: the body comes
    behind the job, in BODY frames, framed as `headers` say.
    """

    __slots__ = ()


class Head(namedtuple("Head", ("status", "headers", "framing", "length"), defaults=(0,))):  # int, tuple[tuple[str, str], ...], str, int
    """Ollama's status and headers, and how the DATA that follows is framed:
    "chunked" = DATA is chunk-coded already, without the last chunk; "length" = `length` bytes; "plain" = bare bytes, end unknown."""

    __slots__ = ()


class End(namedtuple("End", ("input_tokens", "output_tokens", "load"), defaults=(None,) * 3)):      # int, int, float, or None
    """Figures the last record gave, in tokens and seconds; None where it did not say."""

    __slots__ = ()


class Failure(namedtuple("Failure", ("error", "text", "told"), defaults=(False,))):     # str, str, bool
    """`error` is the name of a class in hermes.errors; `told`: Ollama's own error record is already in the DATA."""

    __slots__ = ()


def frame(kind: int, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


def pack_job(job: Job) -> list[Bytes]:
    """The JOB frame, in pieces if the body is large, so that it is not copied."""
    order = _pack_order(job[:4] + job[5:])
    body = job.body if isinstance(job.body, tuple) else (job.body,)
    size = sum(map(len, body))
    start = _HEADER.pack(Kind.JOB, len(order) + size) + order
    return [b"".join((start, *body))] if size <= DATA_MAX else [start, *body]


def unpack_job(payload: bytes) -> Job:
    try:
        (size,) = _LENGTH.unpack_from(payload)
        start = _LENGTH.size + size
        return _unpack_order(payload[_LENGTH.size:start])._replace(body=memoryview(payload)[start:])
    except (ValueError, TypeError, RecursionError, struct.error) as error:
        raise ProtocolError(f"not a job: {error}") from None


def pack(message: Head | End | Failure) -> bytes:
    return _pack_head(message) if type(message) is Head else _pack(message)


def unpack(kind: int, payload: bytes) -> Head | End | Failure:
    try:
        return _unpack_head(payload) if kind == Kind.HEAD else _CLASSES[kind](*json.loads(payload))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ProtocolError(f"not a message of kind {kind}: {error}") from None


# A client's orders are alike but for their bodies, and so are the heads of the answers to them: to know one again costs less than JSON.


@lru_cache(maxsize=ALIKE)
def _pack_order(fields: tuple) -> bytes:
    order = json.dumps(fields).encode()
    return _LENGTH.pack(len(order)) + order


@lru_cache(maxsize=ALIKE)
def _unpack_order(order: bytes) -> Job:
    url, method, path, headers, ending, decode, timeouts, rename, prelude, follows = json.loads(order)
    return Job(url, method, path, _pairs(headers), b"", ending, decode, Timeouts(*timeouts), rename and Rename(*rename), prelude and Prelude(*prelude), follows)


def _pack(message: Head | End | Failure) -> bytes:
    return frame(_KINDS[type(message)], json.dumps(message).encode())


_pack_head = lru_cache(maxsize=ALIKE)(_pack)


@lru_cache(maxsize=ALIKE)
def _unpack_head(payload: bytes) -> Head:
    status, headers, framing, length = json.loads(payload)
    return Head(status, _pairs(headers), framing, length)


def _pairs(headers: list) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in headers)


_KINDS = {Head: Kind.HEAD, End: Kind.END, Failure: Kind.FAILURE}
_CLASSES = {kind: cls for cls, kind in _KINDS.items()}


class FrameReader:
    """Bytes in, whole frames out. Pure; keeps what is not a whole frame yet."""

    def __init__(self, longest: int = DATA_MAX):
        self._longest = longest
        self._parts: list[bytes] = []
        self._have = 0
        self._need = _HEADER.size

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The frames that `data` completes, as (kind, payload). Raises ProtocolError."""
        if not self._have and len(data) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(data)
            if length == len(data) - _HEADER.size and 1 <= kind <= 10 and length <= self._longest:
                return [(kind, data[_HEADER.size:])]        # exactly one frame: what nearly every read returns
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return []
        buffer = data if len(self._parts) == 1 else b"".join(self._parts)
        self._parts = []                        # a job may be large: never three of it at once
        frames, at = [], 0
        while True:
            self._need = _HEADER.size
            if len(buffer) - at < _HEADER.size:
                break
            kind, length = _HEADER.unpack_from(buffer, at)
            if not 1 <= kind <= 10 or length > self._longest:
                raise ProtocolError(f"frame of kind {kind}, {length} bytes")
            self._need += length
            if len(buffer) - at < self._need:
                break
            end = at + self._need
            frames.append((kind, buffer[at + _HEADER.size:end]))
            at = end
        rest = buffer[at:]
        self._parts, self._have = ([rest] if rest else []), len(rest)
        return frames

    @property
    def partial(self) -> bool:
        """Has a frame begun that has not ended?"""
        return self._have > 0
