"""What a call took, from its leases; and the page that shows the totals."""

import json
import time
from types import SimpleNamespace

import pytest

from hermes.errors import BadRequest
from hermes.frontend.exchange import NDJSON, SSE, Call
from hermes.frontend.principal import Principal
from hermes.frontend.usage import MOST, UsagePage, guess_tokens, read_query, spent
from hermes.observe.usage import Spent, Usage
from hermes.workers.messages import End, Head
from tests.unit.test_usage import DAY, Clock
from tests.unit.test_usage import call as taken

BODY = b"x" * 40
GUESSED = 10                    # tokens of BODY


def lease(end: End | None = None, kind: str = NDJSON, status: int = 200, **fields) -> SimpleNamespace:
    head = Head(status, (("content-type", kind),), "plain")
    return SimpleNamespace(**{"model": "gemma", "head": head, "end": end, "held": 0.5, "size": 400, "records": 7, **fields})


def request(*leases: SimpleNamespace, path: str = "/api/chat", query: str = "") -> Call:
    return Call(SimpleNamespace(path=path, query=query), None, BODY, leases=list(leases), principal=Principal("ann"))


def tokens(*leases: SimpleNamespace, path: str = "/api/chat") -> tuple[int, int, bool]:
    used = spent(request(*leases, path=path), 200, "ok")
    return used.input_tokens, used.output_tokens, used.estimated


@pytest.mark.parametrize(("one", "path", "expected"), [
    (lease(End(5, 6)), "/api/chat", (5, 6, False)),
    (lease(End(5, None), "application/json"), "/v1/embeddings", (5, 0, False)),
    (lease(End(0, 0), "application/json"), "/api/generate", (0, 0, False)),
    (lease(End(-5, 10**400)), "/api/chat", (0, MOST, False)),
    (lease(None), "/api/chat", (GUESSED, 7, True)),
    (lease(End()), "/api/chat", (GUESSED, 7, True)),
    (lease(End(), SSE), "/v1/chat/completions", (GUESSED, 7, True)),
    (lease(End(), SSE + "; charset=utf-8"), "/v1/chat/completions", (GUESSED, 7, True)),
    (lease(End(), "application/json"), "/v1/chat/completions", (GUESSED, 100, True)),
    (lease(End(), "application/json"), "/api/embeddings", (GUESSED, 0, True)),
    (lease(None, status=400), "/api/chat", (0, 0, False)),
    (lease(End(), "application/json", status=404), "/api/chat", (0, 0, False)),
    (lease(None, head=None), "/api/chat", (0, 0, False)),
])
def test_tokens(one: SimpleNamespace, path: str, expected: tuple[int, int, bool]) -> None:
    assert tokens(one, path=path) == expected


def test_every_lease_has_cost_its_time_and_the_last_has_the_answer() -> None:
    lost = lease(None, head=None, held=2.0)
    assert spent(request(lost, lease(End(1, 2))), 200, "ok") == Spent("ann", "gemma", True, False, 1, 2, False, 2.5)


@pytest.mark.parametrize(("status", "outcome", "ok", "error"), [
    (200, "ok", True, False), (400, "refused", False, False), (500, "refused", False, True), (200, "cancelled", False, False),
    (499, "cancelled", False, False), (200, "upstream_broken", False, True), (504, "upstream_timeout", False, True), (500, "internal_error", False, True)])
def test_outcomes(status: int, outcome: str, ok: bool, error: bool) -> None:
    used = spent(request(lease(End(1, 2))), status, outcome)
    assert (used.ok, used.error) == (ok, error)


def test_calls_without_a_model_are_no_usage() -> None:
    assert spent(request(), 404, "refused") is None
    assert spent(request(lease(End(), model="")), 200, "ok") is None


@pytest.mark.parametrize(("body", "guess"), [
    (b"", 0), (b'{"prompt":"four"}', 3), (b'{"images":["' + b"iVBORw0K" * 10_000 + b'="]}', 2), (b'{"prompt":"' + b"a word " * 1000 + b'"}', 1752),
    ('{"prompt":"'.encode() + "長い文章".encode() * 1000 + b'"}', 3002), (b'{"url":"data:image/png;base64,' + b"A" * 5000 + b'"}', 1),
    (b'{"prompt":"' + b"\\u957f" * 1000 + b'"}', 1502), (b"A" * 1024, 256), (b"A" * 1025, 0)])
def test_guess(body: bytes, guess: int) -> None:
    assert guess_tokens(body) == guess_tokens(bytearray(body)) == guess


def test_a_guess_at_a_body_of_quotes_is_quick() -> None:
    """Split at each, they would be a gigabyte of pieces."""
    began = time.process_time()
    assert abs(guess_tokens(b'"' * (32 << 20)) - (8 << 20)) < 30_000
    assert time.process_time() - began < 1.0


# -- the page ------------------------------------------------------------------------------------------------------


@pytest.fixture
def usage() -> Usage:
    clock = Clock()
    usage = Usage(clock)
    clock.now -= DAY
    usage.add(taken("ann"))
    clock.now += DAY
    usage.add(taken("ann", seconds=1 / 3))
    usage.add(taken("bob"))
    return usage


def shown(usage: Usage, query: str, **hook) -> list[tuple[str, str]]:
    answer = UsagePage(SimpleNamespace(usage=usage), **hook).usage(request(query=query))
    assert answer.status == 200 and dict(answer.headers) == {"Cache-Control": "no-store"}
    return [(row["day"], row["client"]) for row in json.loads(answer.body)["days"]]


@pytest.mark.parametrize(("query", "expected"), [
    ("", [("2026-11-27", "ann"), ("2026-11-27", "bob")]), ("days=1", [("2026-11-27", "ann"), ("2026-11-27", "bob")]),
    ("days=2", [("2026-11-26", "ann"), ("2026-11-27", "ann"), ("2026-11-27", "bob")]), ("days=400", [("2026-11-26", "ann"), ("2026-11-27", "ann"), ("2026-11-27", "bob")]),
    ("day=2026-11-26", [("2026-11-26", "ann")]), ("day=2020-02-29", []), ("day=2026%2D11-26", [("2026-11-26", "ann")])])
def test_days(usage: Usage, query: str, expected: list[tuple[str, str]]) -> None:
    assert shown(usage, query) == expected


def test_fields(usage: Usage) -> None:
    body = UsagePage(SimpleNamespace(usage=usage)).usage(request()).body
    assert json.loads(body)["days"][0] == {"day": "2026-11-27", "client": "ann", "model": "gemma", "requests": 1, "ok": 1, "errors": 0, "estimated": 0,
                                           "input_tokens": 10, "output_tokens": 5, "worker_seconds": 0.333}
    assert body.endswith(b"}\n")


def test_who_sees_what(usage: Usage) -> None:
    assert shown(usage, "", visible_to=lambda call: "bob") == [("2026-11-27", "bob")]
    assert shown(usage, "", visible_to=lambda call: "eve") == []


@pytest.mark.parametrize("query", [
    "days=0", "days=401", "days=-1", "days=+1", "days=01", "days=1.0", "days=", "days", "days=%D9%A1", "days=1&days=2", "days=1&day=2026-11-27", "day=2026-11-27&day=2026-11-27",
    "day=", "day=today", "day=20261127", "day=2026-02-29", "day=2026-13-01", "day=2026-W48-5", "day=0000-01-01", "day=2026-11-27x", "Day=2026-11-27", "x=1", "=", "&", "day=%ff"])
def test_bad_queries(usage: Usage, query: str) -> None:
    with pytest.raises(BadRequest, match="days=N"):
        read_query(query, usage)
