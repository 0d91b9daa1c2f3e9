"""Pages in browsers, through a whole Hermes: preflights, answers, streams and errors; what a reload changes."""

import signal
from collections.abc import Iterator

import pytest

from hermes.simulator import Simulator
from tests.harness import Hermes, Reply, eventually, get, post

PAGE = "https://app.example.com"
CONFIG = f'origins = ["{PAGE}"]\nhosts = ["hermes.example.com"]\n[models.m]\nmodel = "smollm2:135m"\n'


@pytest.fixture(scope="module")
def hermes() -> Iterator[Hermes]:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as gateway:
        gateway.ollama = ollama
        yield gateway


def told(reply: Reply) -> str | None:
    assert "access-control-allow-credentials" not in reply.headers
    return reply.headers.get("access-control-allow-origin")


def preflight(hermes: Hermes, path: str, origin: str = PAGE, method: str = "OPTIONS") -> Reply:
    return get(hermes.port, path, method, Origin=origin, **{"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"})


@pytest.mark.parametrize("path", ["/", "/api/chat", "/api/tags", "/v1/chat/completions", "/v1/models/a", "/v1/llm/m", "/v1/llm/m/pull", "/v1/status", "/livez"])
def test_preflights(hermes: Hermes, path: str) -> None:
    before = len(hermes.ollama.requests)
    reply = preflight(hermes, path)
    assert (reply.status, reply.body, told(reply)) == (204, b"", PAGE) and "content-length" not in reply.headers
    assert "X-Api-Key" in reply.headers["access-control-allow-headers"] and reply.headers["access-control-max-age"] == "43200"
    foreign = preflight(hermes, path, "https://evil.example")
    assert (foreign.status, told(foreign)) == (403, None)
    assert len(hermes.ollama.requests) == before


def test_a_preflight_of_no_route(hermes: Hermes) -> None:
    reply = preflight(hermes, "/nope")
    assert (reply.status, told(reply)) == (404, PAGE)


@pytest.mark.parametrize(("host", "status"), [("localhost", 204), ("hermes.example.com", 204), ("127.0.0.1", 405)])
def test_options_that_are_no_preflight(hermes: Hermes, host: str, status: int) -> None:
    reply = get(hermes.port, "/api/tags", "OPTIONS", Host=host)
    assert (reply.status, told(reply), reply.headers.get("allow")) == (status, None, "HEAD, GET" if status == 405 else None)


def test_every_answer_may_be_read(hermes: Hermes) -> None:
    prompt = {"model": "m", "prompt": "x"}
    replies = [post(hermes.port, "/api/generate", prompt, Origin=PAGE), post(hermes.port, "/v1/llm/m", {"prompt": "x", "stream": True}, Origin=PAGE),
               get(hermes.port, "/v1/models", Origin=PAGE), post(hermes.port, "/api/generate", b"{bad", Origin=PAGE), post(hermes.port, "/api/chat", {"model": "nothere"}, Origin=PAGE),
               get(hermes.port, "/nope", Origin=PAGE), get(hermes.port, "/api/chat", Origin=PAGE), get(hermes.port, "/api/tags/", Origin=PAGE)]
    assert [reply.status for reply in replies] == [200, 200, 200, 400, 404, 404, 405, 301]
    for reply in replies:
        assert (told(reply), reply.headers["vary"]) == (PAGE, "Origin") and "Retry-After" in reply.headers["access-control-expose-headers"]


def test_foreign_pages_and_foreign_names(hermes: Hermes) -> None:
    """E2 of the acceptance table (reliability.md §5); what a form sends is in test_doors.py."""
    for fields in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"}, {"Host": "evil.example", "Origin": "http://evil.example"},
                   {"Host": "evil.example", "Origin": PAGE}, {"Sec-Fetch-Site": "cross-site"}):
        reply = get(hermes.port, "/v1/models", **fields)
        assert (reply.status, told(reply), list(reply.json()["error"])) == (403, None, ["message", "type", "param", "code"])
    same = get(hermes.port, "/v1/models", Host="hermes.example.com", Origin="https://hermes.example.com")
    assert (same.status, told(same)) == (200, None)
    assert get(hermes.port, "/v1/models", Origin=PAGE, **{"Sec-Fetch-Site": "cross-site"}).status == 200


def test_reload() -> None:
    """What a reload lists counts at once."""
    with Simulator() as ollama, Hermes(ollama.url) as hermes:
        assert preflight(hermes, "/api/chat").status == 403
        hermes.write_config(CONFIG)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert preflight(hermes, "/api/chat").status == 204
