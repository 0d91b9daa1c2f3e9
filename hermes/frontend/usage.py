"""What a call took of its model's workers, and GET /v1/usage: the totals of it by day, client and model."""

import json
import re
from collections.abc import Callable
from datetime import date
from typing import Protocol
from urllib.parse import parse_qsl

from hermes.dispatch.lease import Lease
from hermes.errors import BadRequest
from hermes.frontend.exchange import NDJSON, SSE, Call, Response
from hermes.frontend.native import EMBEDDING
from hermes.frontend.own import DIALECT
from hermes.frontend.router import Route
from hermes.observe.usage import KEPT, Spent, Usage

TOKEN = 4                   # bytes of text for a token: Ollama's own guess where it guesses (ollama-api.md §1.16)
MOST = 1 << 32              # tokens of one call; more is nonsense from upstream, which no file could hold
IMAGE = 1024                # bytes of base64 without an end: no text
QUOTES = 100_000            # looked at in one body
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_NUMBER = re.compile(r"[1-9][0-9]{0,2}")


def spent(call: Call, status: int, outcome: str) -> Spent | None:
    """What an ended call took; None if no worker of a model had it. `status` and `outcome` as in House.note."""
    if not call.leases or not call.leases[-1].model:
        return None
    last = call.leases[-1]
    told = _told(last)
    tokens = told or _guess(call, last)
    failed = outcome not in ("ok", "refused", "cancelled") or status >= 500
    return Spent(call.principal.name, last.model, outcome == "ok", failed, *tokens, estimated=told is None and any(tokens),
                 seconds=sum(lease.held for lease in call.leases))


def _told(lease: Lease) -> tuple[int, int] | None:
    """Input and output tokens as the answer said them."""
    if lease.end is None or lease.end.input_tokens is None and lease.end.output_tokens is None:
        return None
    return tuple(min(max(0, tokens or 0), MOST) for tokens in lease.end[:2])


def _guess(call: Call, lease: Lease) -> tuple[int, int]:
    """For an answer that did not say: it was cut off, its client left or never asked, or it was too large to be looked at. A quota that one
    could evade in these ways would be none. A record is a token on Ollama's wire. Without an answer nobody knows anything: 0."""
    if lease.head is None or lease.head.status != 200:
        return 0, 0
    kind = dict(lease.head.headers).get("content-type", "").partition(";")[0]
    if kind in (NDJSON, SSE):
        return guess_tokens(call.body), lease.records
    return guess_tokens(call.body), 0 if call.request.path in EMBEDDING else lease.size // TOKEN


def guess_tokens(body: bytes | bytearray) -> int:
    """Tokens of a request: its bytes over 4, without its images. Nothing of it is copied, and behind very many quotes all is text."""
    size, at = len(body), 0
    for _ in range(QUOTES):
        end = body.find(b'"', at)
        last = end < 0
        end = len(body) if last else end
        if end - at > IMAGE and not body[end - IMAGE:end].translate(None, _BASE64):
            size -= end - at
        if last:
            break
        size, at = size - 1, end + 1
    return size // TOKEN


class Views(Protocol):
    usage: Usage


class UsagePage:
    """The endpoint; runs in its client's handler thread. `visible_to(call)`: whose usage it may see, None = everybody's."""

    def __init__(self, views: Views, visible_to: Callable[[Call], str | None] = lambda call: None):
        self._views = views
        self._visible_to = visible_to

    def routes(self) -> list[Route]:
        return [Route(method, "/v1/usage", DIALECT, self.usage, admin="too") for method in ("GET", "HEAD")]

    def usage(self, call: Call) -> Response:
        usage = self._views.usage
        first, last = read_query(call.request.query, usage)
        rows = [row._asdict() | {"worker_seconds": round(row.worker_seconds, 3)} for row in usage.rows(first, last, self._visible_to(call))]
        body = json.dumps({"days": rows}, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        return Response(200, body + b"\n", headers=(("Cache-Control", "no-store"),))


def read_query(query: str, usage: Usage) -> tuple[str, str]:
    """First and last day: ?day=YYYY-MM-DD, or ?days=N, today among them. Raises BadRequest."""
    try:
        given = parse_qsl(query, keep_blank_values=True, strict_parsing=True, errors="strict") if query else [("days", "1")]
    except ValueError:
        given = []
    match given:
        case [("day", day)] if _DAY.fullmatch(day) and _is_date(day):
            return day, day
        case [("days", number)] if _NUMBER.fullmatch(number) and int(number) <= KEPT:
            return usage.day_before(int(number) - 1), usage.day()
    raise BadRequest(f"give one of ?day=YYYY-MM-DD and ?days=N, 1 to {KEPT}")


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
