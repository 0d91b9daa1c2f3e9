"""Every error in every family's shape, before the head and inside a stream, with the request's id and the word on retries."""

import inspect
import json
import re

import pytest

from hermes import errors
from hermes.errors import CallerError, HermesError
from hermes.frontend import anthropic, native, openai, own
from hermes.frontend.exchange import NDJSON, SSE, Dialect, apart, id_of, new_request_id
from hermes.frontend.http1 import Request
from hermes.frontend.router import decode
from hermes.remote import cancel_path


def kinds(cls: type[HermesError]) -> set[type[HermesError]]:
    return {cls}.union(*map(kinds, cls.__subclasses__()))


def example(cls: type[HermesError]) -> HermesError:
    if cls is errors.MethodNotAllowed:
        return cls("POST")
    if cls is errors.WorkerLost:
        return cls("gone", started=True)
    if cls is errors.CloudRefused:
        return cls("x:cloud")
    return cls() if "text" not in inspect.signature(cls).parameters else cls("gone wrong: \u00e9 \u2028")


ERRORS = [example(cls) for cls in sorted((cls for cls in kinds(HermesError) if cls.__module__ == errors.__name__), key=lambda cls: cls.__name__)]
ID = "req_0123456789abcdef01234567"

# ollama-api.md §2.1, and what Anthropic's own list adds; a status that is not here is "invalid_request_error" below 500, else "api_error".
ANTHROPIC = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
             503: "overloaded_error", 504: "timeout_error"}


def each_error(test):
    return pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)(test)


@each_error
@pytest.mark.parametrize("dialect", [native.DIALECT, own.DIALECT], ids=["native", "own"])
def test_native_shape(dialect: Dialect, error: HermesError) -> None:
    answer = dialect.error(error, ID)
    assert (answer.status, json.loads(answer.body)) == (error.status, {"error": error.text})
    assert json.loads(dialect.in_band(NDJSON, ID)(error)) == {"error": error.text}
    event = dialect.in_band(SSE, ID)(error)
    assert event.startswith(b'event: error\ndata: {"error":') and event.endswith(b"}\n\n") and event.count(b"\n") == 3


@each_error
@pytest.mark.parametrize("dialect", [openai.DIALECT, openai.RESPONSES], ids=["openai", "responses"])
def test_openai_shape(dialect: Dialect, error: HermesError) -> None:
    answer = dialect.error(error, ID)
    body = json.loads(answer.body)
    assert answer.status == error.status and list(body) == ["error"] and list(body["error"]) == ["message", "type", "param", "code"]
    assert body["error"]["message"] == error.text and body["error"]["param"] is None
    assert body["error"]["code"] == (None if isinstance(error, CallerError) else error.code)
    if error.status in (400, 404) or error.status >= 500:
        assert body["error"]["type"] == {400: "invalid_request_error", 404: "not_found_error"}.get(error.status, "api_error")
    event = dialect.in_band(SSE, ID)(error)
    name, data = re.fullmatch(rb"(?:event: (\w+)\n)?data: (.*)\n\n", event).groups()
    told = json.loads(data)
    assert told["error"] == body["error"], "from a truthy `error` the SDKs raise"
    if dialect is openai.RESPONSES:
        assert (name, told["type"], told["message"], told["param"]) == (b"error", "error", error.text, None)
        assert told["code"] == body["error"]["code"] and isinstance(told["sequence_number"], int)
    else:
        assert name is None and list(told) == ["error"]


@each_error
def test_anthropic_shape(error: HermesError) -> None:
    answer = anthropic.DIALECT.error(error, ID)
    kind = ANTHROPIC.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    expected = {"type": "error", "error": {"type": kind, "message": error.text}, "request_id": ID}
    assert (answer.status, json.loads(answer.body)) == (error.status, expected)
    event = anthropic.DIALECT.in_band(SSE, ID)(error)
    assert event.startswith(b"event: error\ndata: ") and event.endswith(b"\n\n") and event.count(b"\n") == 3, "the SDK knows events by name only"
    assert json.loads(event.split(b"data: ")[1]) == expected


@each_error
def test_headers_of_an_error(error: HermesError) -> None:
    for dialect in (native.DIALECT, openai.DIALECT, anthropic.DIALECT):
        headers = dict(dialect.error(error, ID).headers)
        assert headers.get("Retry-After") == (str(error.retry_after) if error.retry_after else None)
        assert headers.get("x-should-retry") == ("false" if error.futile else None)
        assert headers.get("Allow") == getattr(error, "allow", None)


def test_only_what_is_repeated_by_itself_is_told_not_to_be() -> None:
    """openai's and anthropic's libraries repeat 408, 409, 429 and every 5xx (conventions.md §1.1)."""
    futile = {error.code for error in ERRORS if error.futile}
    assert {"queue_timeout", "upstream_timeout", "draining"} <= futile and not {"queue_full", "pool_down", "worker_lost", "upstream_unreachable"} & futile
    assert all(error.status in (408, 409, 429) or error.status >= 500 for error in ERRORS if error.futile)
    assert not any(error.status == 409 for error in ERRORS), "never on a path of theirs"


@pytest.mark.parametrize("kind", ["application/json", "text/plain", ""])
def test_an_answer_without_records_has_no_error_in_it(kind: str) -> None:
    assert all(dialect.in_band(kind, ID) is None for dialect in (native.DIALECT, own.DIALECT, openai.DIALECT, openai.RESPONSES, anthropic.DIALECT))


def test_where_the_id_is_looked_for() -> None:
    assert anthropic.DIALECT.ids(ID) == (("X-Request-ID", ID), ("request-id", ID))
    assert native.DIALECT.ids(ID) == openai.DIALECT.ids(ID) == openai.RESPONSES.ids(ID) == own.DIALECT.ids(ID) == (("X-Request-ID", ID),)


def request(**headers: str) -> Request:
    return Request("GET", "/", "", headers)


@pytest.mark.parametrize("given", ["a", "x" * 128, "!~", '"quoted"', "4bf92f3577b34da6a3ce929d0e0e4736", "a/b", "a//b/", "...", "a.b/..c", "%2e%2e"])
def test_a_good_id_is_kept(given: str) -> None:
    assert id_of(request(**{"x-request-id": given})) == given
    assert decode(cancel_path(given).removeprefix("/v1/requests/")) == given, "and the request can be ended by it"


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a, b", "a\tb", "\u00e9", "a\x7f", "a\n", ".", "..", "a/../b", "../a", "a/."])
def test_any_other_id_is_replaced(given: str) -> None:
    made = id_of(request(**{"x-request-id": given}))
    assert re.fullmatch(r"req_[0-9a-f]{24}", made)


def test_made_ids_differ() -> None:
    assert len({new_request_id() for _ in range(1000)} | {id_of(request()) for _ in range(1000)}) == 2000


@pytest.mark.parametrize(("before", "record", "between"), [
    (b"", b'{"error":""}\n', b""), (b'{"a":1}\n', b'{"error":""}\n', b""), (b'{"a', b'{"error":""}\n', b"\n"), (b" ", b'{"error":""}\n', b""), (b'{"a":1}\n{', b'{"error":""}\n', b"\n"),
    (b"", b"data: {}\n\n", b""), (b"data: {}\n\n", b"data: {}\n\n", b""), (b"data: {}\r\n\r\n", b"data: {}\n\n", b""), (b": keep-alive\n\n", b"event: error\n\n", b""),
    (b"data: {}\n", b"event: error\n\n", b"\n\n"), (b'data: {"a', b"data: {}\n\n", b"\n\n"), (b"event: x\n", b"event: error\n\n", b"\n\n"),
])
def test_apart(before: bytes, record: bytes, between: bytes) -> None:
    assert apart(before, record) == between + record
