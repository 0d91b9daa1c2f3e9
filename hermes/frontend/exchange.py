"""What passes between a client's connection and an endpoint: the call, and the two kinds of answer."""

import json
import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hermes.dispatch.lease import Lease
from hermes.dispatch.pending import Pending
from hermes.dispatch.pulls import Subscription
from hermes.errors import HermesError
from hermes.frontend.http1 import Request
from hermes.frontend.principal import NOBODY, Principal
from hermes.frontend.upload import Upload
from hermes.workers.messages import Bytes

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
JSON = "application/json; charset=utf-8"
_LINE_ENDS = re.compile("[\x85\u2028\u2029]")
# No segment of it is a dot or two: no path can name such a one (hermes.frontend.router.decode), and what cannot be named cannot be ended.
_GIVEN_ID = re.compile(r"(?!(?:.*/)?\.\.?(?:/|\Z))[\x21-\x7e]{1,128}\Z")


@dataclass(slots=True)
class Call:
    """One request on its way through. `client` has a fileno() that shows when he leaves, and an address; `arrived` is monotonic.
    `principal` is filled in by the gate, and `headers` with what every answer to the call has to say; `model` is what the path named,
    decoded, or what the endpoint found; `queued` is filled in by the endpoint, in seconds; `leases`: what it had of the workers, the last
    of them for the answer. `heartbeat`: after how many seconds of waiting a stream shows signs of life; `heartbeat_plain` the same for
    an answer that is none. `request_id` as in `id_of`. On a route that streams its body that is not in `body` but comes from `upload`.
    `rank`: the class it waits in; `reserved`: it counts against its client's tokens already; `pending` and `cancelled` are for those who look on, and for those who end it.
    `error`: what Hermes has refused it with, or what it has failed with."""

    request: Request
    client: object
    body: Bytes = b""
    arrived: float = field(default_factory=time.monotonic)
    model: str = ""
    queued: float = 0.0
    leases: list[Lease] = field(default_factory=list)
    heartbeat: float = math.inf
    heartbeat_plain: float = math.inf
    principal: Principal = NOBODY
    headers: tuple[tuple[str, str], ...] = ()
    request_id: str = ""
    upload: Upload | None = None
    rank: int = 1
    reserved: bool = False
    pending: Pending | Subscription | None = None
    cancelled: HermesError | None = None
    error: HermesError | None = None

    def wants_sse(self) -> bool:
        return SSE in self.request.headers.get("accept", "").lower()


def new_request_id() -> str:
    """In Anthropic's form, which is as good as any. It need not be a secret, and `secrets` would be a system call for each request."""
    return f"req_{random.getrandbits(96):024x}"


def id_of(request: Request) -> str:
    """The client's own id for the request, if it gave a good one, else one of ours."""
    given = request.headers.get("x-request-id", "")
    return given if _GIVEN_ID.match(given) else new_request_id()


@dataclass(frozen=True, slots=True)
class Response:
    """An answer that is whole. `content_type` is "" where there is nothing to have one."""

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


class Source(Protocol):
    """Where a streamed body comes from. `ended` turns true with the read that returns the last bytes, or with the empty one."""

    ended: bool

    def read(self) -> bytes: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer that comes bit by bit. `framing` as in messages.Head: "chunked" = the source's bytes are chunk-coded already,
    "length" = exactly `length` bytes, "plain" = bare bytes, to be coded. `in_band` makes the record that tells of an error
    after the head has gone out; None where the answer has no records."""

    status: int
    source: Source
    framing: str
    length: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    in_band: Callable[[HermesError], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a family of routes says that something went wrong: before the head, and inside an SSE stream; both may name the request's id.
    Inside NDJSON every family says it as Ollama does. `id_headers`: where the family's clients look for the id. `ollamas`: its routes are
    Ollama's, whose router has its own way to refuse a method. `translated`: but for what is found while a body is read, Ollama
    makes its errors from native ones, which shows in the content type and a line end (ollama-api.md §2.1)."""

    name: str
    error_body: Callable[[HermesError, str], bytes]
    sse_error: Callable[[HermesError, str], bytes]
    id_headers: tuple[str, ...] = ("X-Request-ID",)
    ollamas: bool = True
    translated: bool = False

    def ids(self, request_id: str) -> tuple[tuple[str, str], ...]:
        return tuple((name, request_id) for name in self.id_headers)

    def error(self, error: HermesError, request_id: str = "") -> Response:
        headers = [*error.headers]
        if error.retry_after:
            headers.append(("Retry-After", str(error.retry_after)))
        if allow := getattr(error, "allow", None):
            headers.append(("Allow", allow))
        if error.futile:
            headers.append(("x-should-retry", "false"))         # openai's and anthropic's libraries obey it (conventions.md §1.2)
        if error.plain:
            return Response(error.status, error.text.encode("ascii"), "text/plain", tuple(headers))
        body = self.error_body(error, request_id)
        if self.translated and error.status != 400:
            return Response(error.status, body + b"\n", "application/json", tuple(headers))
        return Response(error.status, body, headers=tuple(headers))

    def in_band(self, content_type: str, request_id: str = "") -> Callable[[HermesError], bytes] | None:
        """What makes the record of an error in a stream of this type; None where a stream of it has no records."""
        say = {NDJSON: ndjson_error, SSE: self.sse_error}.get(content_type.partition(";")[0].strip().lower())
        return say and (lambda error: say(error, request_id))


def encode(value: object) -> bytes:
    """JSON that is one line for every reader. Python's splitlines, and so httpx and ollama-python, also ends a line at three characters that JSON
    lets stand; Go escapes two of them, too."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return (text if text.isascii() else _LINE_ENDS.sub(_escaped, text)).encode("utf-8", "replace")


def _escaped(character: re.Match[str]) -> str:
    return f"\\u{ord(character[0]):04x}"


def error_line(error: HermesError, request_id: str = "") -> bytes:
    """{"error": text}: Ollama's shape, and that of Hermes's own routes (ollama-api.md §2.1)."""
    return encode({"error": error.text})


def ndjson_error(error: HermesError, request_id: str = "") -> bytes:
    return error_line(error) + b"\n"


def error_event(error: HermesError, request_id: str = "") -> bytes:
    """The same as an SSE event: native routes have none in Ollama, so this is ours."""
    return b"event: error\ndata: " + error_line(error) + b"\n\n"


def apart(before: bytes, record: bytes) -> bytes:
    """`record` on a line of its own behind `before`, which may be half a record: Ollama's chunks and records need not coincide. In NDJSON there is
    no empty line, which would break ollama-python, and the space of a sign of life may stand in front; an SSE event wants an empty one."""
    if not record.startswith(b"{"):
        return record if before.endswith((b"\n\n", b"\n\r\n")) or not before else b"\n\n" + record
    return record if before.endswith((b"\n", b" ")) or not before else b"\n" + record
