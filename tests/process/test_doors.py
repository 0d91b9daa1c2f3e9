"""Nobody gets in where he does not belong: section E of the acceptance table (reliability.md §5), with a real Hermes and what its Ollama saw.

What other files test of it: keys and secrets test_keys.py (E7, E9), pages test_pages.py (E2), static rules tests/unit/test_architecture.py (E11).
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from hermes.simulator import Simulator
from hermes.simulator.ledger import SimRequest
from tests.harness import FAULTS, ROOT, Client, Hermes, Reply, eventually, get, post

CONFIG = 'manage = true\nopen = true\nhosts = ["hermes.example.com"]\n[log]\nlevel = "warning"\n[models.m]\nmodel = "smollm2:135m"\n'
BINDS = ("127.0.0.1", "0.0.0.0")        # what listens on 0.0.0.0 does so on a free port, for as long as these tests take
PROMPT = b'{"model":"smollm2:135m","prompt":"x","stream":false}'


@pytest.fixture(scope="module")
def ollama() -> Iterator[Simulator]:
    with Simulator(tokens=2) as upstream:
        yield upstream


@pytest.fixture(scope="module")
def houses(ollama: Simulator) -> Iterator[dict[str, Hermes]]:
    """One on loopback, one on every address, in front of the same Ollama."""
    with Hermes(ollama.url, CONFIG) as inner, Hermes(ollama.url, CONFIG, HERMES_SERVER_LISTEN="0.0.0.0:0") as outer:
        yield dict(zip(BINDS, (inner, outer)))


@pytest.fixture(scope="module")
def hermes(houses: dict[str, Hermes]) -> Hermes:
    return houses["127.0.0.1"]


def raw(port: int, method: str, path: str, lines: Iterable[str], body: bytes = b"", version: str = "1.1") -> Reply:
    """A request with these header lines and no other but its length."""
    head = "".join(f"{line}\r\n" for line in (f"{method} {path} HTTP/{version}", *lines, f"Content-Length: {len(body)}", ""))
    with Client(port) as client:
        return client.send_raw(head.encode("latin-1") + body).reply(method)


def told(reply: Reply) -> set[str]:
    """What an answer says to a browser."""
    return {name for name in reply.headers if name.startswith("access-control-")}


# -- E1: whose name a request bears --------------------------------------------------------------------------------

REFUSED = ["evil.com", "evil.com:11434", "127.0.0.1.evil.com", "localhost.", "127.1", "0x7f000001", "2130706433", "", ":80", "box.local", "hermes.internal", "a.localhost",
           "localhost.evil.com", "8.8.8.8", "169.254.169.254", "[2001:4860::8888]", "hermes.example.com.", "xhermes.example.com"]
MALFORMED = [["Host: localhost:4000/#@x"], ["Host: localhost:80@x"], ["Host: a,b"], ["Host: localhost, localhost"], [], ["Host: localhost", "Host: evil.com"],
             ["Host: localhost", "Host: localhost"], ["Host: http://localhost"], ["Host: localhost:"], ["Host: ::1"], ["Host: user@localhost"]]
ALLOWED = ["localhost", "LOCALHOST", "LocalHost:1", "[::1]", "[::1]:4000", "127.0.0.1", "127.0.0.1:65535", "10.0.0.5", "0.0.0.0", "host.docker.internal", "HERMES.Example.COM:443",
           socket.gethostname()]


@pytest.mark.parametrize("bind", BINDS)
def test_only_our_own_names_are_served(houses: dict[str, Hermes], ollama: Simulator, bind: str) -> None:
    """E1: one status before routing, whatever the path and wherever Hermes listens; Ollama hears of nothing."""
    port, before = houses[bind].port, len(ollama.requests)
    for host in REFUSED:
        for method, path, body in (("GET", "/api/version", b""), ("POST", "/api/generate", PROMPT), ("GET", "/nope", b""), ("PUT", "/api/chat", b""), ("GET", "/livez", b"")):
            assert raw(port, method, path, [f"Host: {host}"], body).status == 403, (host, path)
    for lines in MALFORMED:
        for method, path, body in (("GET", "/api/version", b""), ("POST", "/api/generate", PROMPT), ("GET", "/nope", b"")):
            assert raw(port, method, path, lines, body).status == 400, (lines, path)
    assert len(ollama.requests) == before
    for host in ALLOWED:
        assert raw(port, "GET", "/api/version", [f"Host: {host}"]).status == 200, host
    assert len(ollama.requests) == before + len(ALLOWED)


@pytest.mark.parametrize("bind", BINDS)
def test_the_request_target_has_a_host_too(houses: dict[str, Hermes], ollama: Simulator, bind: str) -> None:
    """E1: of the absolute form the same holds, and the two must be one."""
    port, before = houses[bind].port, len(ollama.requests)
    for target, lines, status in (("http://evil.com/api/version", ["Host: evil.com"], 403), ("http://evil.com/api/version", ["Host: localhost"], 400),
                                  ("http://localhost/api/version", ["Host: evil.com"], 400), ("http://localhost@evil.com/api/version", ["Host: localhost"], 400),
                                  ("http:///api/version", ["Host: localhost"], 400), ("//evil.com/api/version", ["Host: localhost"], 404)):
        assert raw(port, "GET", target, lines).status == status, target
    assert raw(port, "GET", "http://evil.com/api/version", [], version="1.0").status == 403
    assert len(ollama.requests) == before
    assert raw(port, "GET", "http://localhost/api/version", ["Host: localhost"]).status == 200


@pytest.mark.parametrize("bind", BINDS)
def test_an_old_client_names_nobody(houses: dict[str, Hermes], bind: str) -> None:
    """E1, absent and empty: only where the protocol knows no Host."""
    port = houses[bind].port
    assert raw(port, "GET", "/api/version", [], version="1.0").status == raw(port, "GET", "/livez", ["Host:"], version="1.0").status == 200
    assert raw(port, "GET", "/api/version", ["Host: evil.com"], version="1.0").status == 403
    assert raw(port, "GET", "/api/version", []).status == 400 and raw(port, "GET", "/api/version", ["Host:"]).status == 403


# -- E2: whose pages call ------------------------------------------------------------------------------------------

FORMS = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", ""]


@pytest.mark.parametrize("bind", BINDS)
def test_what_a_page_can_send_without_asking(houses: dict[str, Hermes], ollama: Simulator, bind: str) -> None:
    """E2: the types of a form need no preflight, and are what `curl -d` sends as well; so it is the page that is refused and not the type."""
    port, before = houses[bind].port, len(ollama.requests)
    rebound = "evil.com:11435"
    pages = [["Host: localhost", "Origin: http://evil.com"], ["Host: localhost", "Origin: null"], ["Host: localhost", "Origin: "], ["Host: 127.0.0.1", "Origin: http://127.0.0.1.evil.com"],
             [f"Host: {rebound}", f"Origin: http://{rebound}"], [f"Host: {rebound}", "Origin: http://localhost"], [f"Host: {rebound}"], ["Host: localhost", "Sec-Fetch-Site: cross-site"]]
    for kind in FORMS:
        for lines in pages:
            reply = raw(port, "POST", "/api/generate", [*lines, f"Content-Type: {kind}"], PROMPT)
            assert (reply.status, told(reply)) == (403, set()), (kind, lines)
    assert len(ollama.requests) == before
    for kind in FORMS:
        reply = raw(port, "POST", "/api/generate", ["Host: localhost", *([f"Content-Type: {kind}"] if kind else [])], PROMPT)
        assert (reply.status, told(reply), ollama.requests[-1].body) == (200, set(), PROMPT), kind


@pytest.mark.parametrize("bind", BINDS)
def test_a_foreign_page_that_asks_first(houses: dict[str, Hermes], ollama: Simulator, bind: str) -> None:
    """E2: no preflight of another's is granted, on a route or off it, and none goes on to Ollama."""
    before = len(ollama.requests)
    for path in ("/api/chat", "/v1/messages", "/v1/llm/m", "/livez", "/nope", "*"):
        for lines in (["Host: localhost", "Origin: http://evil.com"], ["Host: localhost", "Origin: null"], ["Host: evil.com", "Origin: http://evil.com"]):
            reply = raw(houses[bind].port, "OPTIONS", path, [*lines, "Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"])
            assert (reply.status, told(reply)) == (403, set())
    assert len(ollama.requests) == before


# -- E3: which requests go on to Ollama ----------------------------------------------------------------------------

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
DIGEST = f"sha256:{'0a' * 32}"
# Ollama's routes (ollama-api.md §1.1) and those it once had, or others have.
PATHS = ["/", "/api/version", "/api/status", "/api/tags", "/api/ps", "/api/show", "/api/generate", "/api/chat", "/api/embed", "/api/embeddings", "/api/pull", "/api/push", "/api/create",
         "/api/copy", "/api/delete", f"/api/blobs/{DIGEST}", "/api/me", "/api/signout", "/api/user/keys/abc", "/api/experimental/web_search", "/api/experimental/web_fetch",
         "/api/experimental/model-recommendations", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/m", "/v1/responses", "/v1/audio/transcriptions",
         "/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches", "/v1/responses/resp_1", "/v1/images/generations", "/v1/images/edits", "/v1/moderations", "/v1/files", "/metrics", "/health",
         "/debug/pprof/"]
# What may be done to a path in the hope that one program reads it as another does.
VARIANTS = {"doubled slash": "/{}", "inner doubled slash": "{head}//{tail}", "slash behind": "{}/", "two slashes behind": "{}//", "dots": "/x/..{}", "dots of nowhere": "/../..{}", "encoded dots": "/x/%2e%2e{}",
            "dot behind": "{}/.", "dots behind": "{}/x/..", "encoded slash": "{head}%2f{tail}", "NUL": "{}%00", "line end": "{}%0d%0aX:y", "parameter": "{};x", "upper case": "{upper}",
            "encoded letter": "{head}/%{hex}{rest}", "encoded": "/%2F{tail}", "backslash": "{head}%5c{tail}", "space": "{}%20", "dot": "{}.", "encoded question": "{}%3Fx", "prefix": "/api{}", "below": "{}/x"}
SAME = {"exact": "{}", "query": "{}?x=/api/delete&model=y", "absolute": "http://localhost{}"}      # these are the path itself
BODY = {"model": "nothere", "source": "nothere", "destination": "there", "stream": False}
INFERRING = {**BODY, "model": "m", "prompt": "x", "input": "x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 4}


def table() -> set[tuple[str, str]]:
    """(method, path) of every route that README.md says is Ollama's."""
    text = re.search(r"^## Ollama's routes, passed through$(.*?)^## ", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[1]
    rows = re.findall(r"^\| ((?:`[A-Z]+` ?)+) \| `([^`]+)` \|", text, re.MULTILINE)
    return {(method, path) for methods, path in rows for method in re.findall("[A-Z]+", methods)}


TABLE = table()


def methods_of(path: str) -> set[str]:
    """The methods that the table has for a raw path; a name in it is any segments but empty ones and dots."""
    found = set()
    for method, pattern in TABLE:
        before, place, _ = pattern.partition("{")
        fits = path == pattern if not place else path.startswith(before) and {"", ".", ".."}.isdisjoint(path.removeprefix(before).split("/"))
        found |= {method} if fits else set()
    return found


def change(path: str, variant: str) -> str:
    head, _, tail = path.rpartition("/")
    return variant.format(path, head=head, tail=tail, upper=path.upper(), hex=f"{ord(tail[0]):02x}" if tail else "2f", rest=tail[1:])


def ask_all(port: int, targets: list[tuple[str, str]]) -> list[Reply]:
    """The answers to many requests without bodies, over one connection, a hundred on their way at a time."""
    replies = []
    with Client(port) as client:
        for start in range(0, len(targets), 100):
            some = targets[start:start + 100]
            client.send_raw(b"".join(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for method, target in some))
            replies += [client.reply(method) for method, _ in some]
    assert not [(target, reply.status, reply.raw) for target, reply in zip(targets, replies) if not reply.complete][:3]
    return replies


def test_the_table_is_read() -> None:
    """E3 is no better than what it is compared with."""
    assert len(TABLE) == 29 and {("HEAD", "/"), ("DELETE", "/api/delete"), ("GET", "/v1/models/{model}"), ("POST", "/api/blobs/{digest}")} <= TABLE
    assert methods_of("/api/tags") == {"GET", "HEAD"} and not methods_of("/api/tags/") and methods_of("/v1/models/a/b") == {"GET"} and not methods_of("/v1/models/../x")
    assert [path for path in PATHS if not methods_of(path)] == ["/api/signout", "/api/user/keys/abc", *PATHS[19:22], *PATHS[30:]]


def test_nothing_else_reaches_ollama(hermes: Hermes, ollama: Simulator) -> None:
    """E3: every path of Ollama's, every method, and every variant that is not the path itself; a redirect leads to a path of the same host."""
    cases = [(method, changed) for path in PATHS for variant in (*SAME.values(), *VARIANTS.values()) for changed in [change(path, variant)] for method in METHODS
             if changed.startswith(("/", "http")) and method not in methods_of(changed.removeprefix("http://localhost").partition("?")[0])]
    assert len(cases) > 6000
    before = len(ollama.requests)
    for (method, target), reply in zip(cases, ask_all(hermes.port, cases)):
        path = target.removeprefix("http://localhost").partition("?")[0]
        there = bool(methods_of(path))
        if there and "%0" in path:
            assert reply.status == 400, (method, target)
        elif there:
            assert (reply.status, "allow" in reply.headers) == ((204, False) if method == "OPTIONS" else (405, True)), (method, target)
        elif reply.status in (301, 307):
            assert re.fullmatch(r"/(?![/\\])[^\r\n]*", reply.headers["location"]) and ("//" in path or "/." in path or path.endswith("/")), (method, target, reply.headers["location"])
        else:
            assert reply.status == 404 or reply.status == 204 and path == "*", (method, target, reply.status)
    assert [(request.method, request.path) for request in ollama.requests[before:]] == []


@pytest.mark.parametrize("target", ["/api/tags#", "/api/tags#/../../x", "#", "/api/ta gs", "/api/tags\t", "/api/tags\x00", "/api/tags\x7f", "/api/t\xe4gs", "api/tags", "", "*", "localhost:80", "%2fapi/tags",
                                    "ftp://localhost/api/tags", "file:///api/tags", "http://localhost:x/api/tags", "/api/tags\"", "/api/<tags>", "/api\\tags", "/api/{tags}", "/api/^"])
def test_targets_that_are_none(hermes: Hermes, ollama: Simulator, target: str) -> None:
    """E3: what is no request target is refused as such, whatever the method."""
    before = len(ollama.requests)
    assert [raw(hermes.port, method, target, ["Host: localhost"]).status for method in METHODS] == [404 if (method, target) == ("OPTIONS", "*") else 400 for method in METHODS]
    assert len(ollama.requests) == before


def test_names_in_a_path_lead_to_no_other(hermes: Hermes, ollama: Simulator) -> None:
    """E3: what stands where a name may stand is a name, or a path below its own at Ollama, however it is decoded there."""
    before = len(ollama.requests)
    for name in ("%2e%2e", "%2e", ".%2e", "m%2f..", "%2e%2e%2f%2e%2e%2fapi%2fdelete", "a%2f%2e%2e%2fb", "%00", "m%0d%0aX:%20y", "%ff"):
        for method, place in (("GET", "/v1/models/"), ("POST", "/v1/llm/"), ("POST", "/api/blobs/"), ("HEAD", "/api/blobs/")):
            assert get(hermes.port, place + name, method).status == 400, (method, name)
    for name in ("sha256:0a", "sha1:" + "0" * 40, "x", DIGEST.upper(), DIGEST + "0", DIGEST + "%2f..%2fx", DIGEST + "/x", DIGEST + "%20", "latest"):
        assert get(hermes.port, "/api/blobs/" + name, "POST").status == get(hermes.port, "/api/blobs/" + name, "HEAD").status == 400, name
    assert len(ollama.requests) == before
    for name in ("m;x", "m%3Fx", "m%23x", "m%5c..", "m%252f..", "m%252e", "...", "m:..", "%2e%2e%2e"):
        assert get(hermes.port, "/v1/models/" + name).status in (400, 404), name
    for request in ollama.requests[before:]:
        assert request.method == "GET" and re.fullmatch(r"/v1/models/[^/?#]+", request.path) and not {".", ".."} & set(unquote(request.path).split("/"))


@pytest.mark.parametrize(("method", "pattern"), sorted(TABLE))
def test_what_the_table_has_reaches_ollama(hermes: Hermes, ollama: Simulator, method: str, pattern: str) -> None:
    """E3: once, by the same method and the same path, with its query, which Ollama does not look at, and nothing beside it."""
    path = pattern.replace("{model}", "smollm2:135m").replace("{digest}", DIGEST)
    infers = pattern.startswith(("/v1/", "/api/gen", "/api/chat", "/api/embed"))
    body = b"" if method in ("GET", "HEAD") else json.dumps(INFERRING if infers else BODY).encode()
    kind = "application/json"
    if pattern == "/v1/audio/transcriptions":
        body, kind = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n', "multipart/form-data; boundary=x"
    for variant in SAME.values():
        before = len(ollama.requests)
        raw(hermes.port, method, change(path, variant), ["Host: localhost", f"Content-Type: {kind}"], body)
        query = variant.partition("?")[2]
        assert [(request.method, request.path, request.query) for request in ollama.requests[before:]] == [(method, path, query)], variant


# -- E4: which model a body names ----------------------------------------------------------------------------------

KELVIN, LONG_S = "\u212a", "\u017f"
NAMES = [("nothere", 404), ("evil.example/library/smollm2:135m", 404), ("evil.example:5000/a/b:c", 404), ("http://evil.example/a/b", 404), ("../../etc/passwd", 400), ("..", 400), ("a/../b", 400), ("/etc/passwd", 400),
         ("x" * 10_000, 400), ("m\0", 400), ("m\n", 400), ("m\u2028", 400), ("m@sha256:" + "0" * 64, 400), ("\u212a", 400), ("smollm2:135m?x", 400), ("smollm2:135m#", 400), ("%6d", 400)]
TWICE = ['{"model":"m","model":"gemma3:270m"}', '{"model":"m","MODEL":"gemma3:270m"}', '{"Model":"gemma3:270m","model":"m"}', r'{"model":"m","\u006dodel":"gemma3:270m"}', r'{"model":"m","mod\u0045l":"x"}',
         f'{{"model":"m","messages":[],"me{LONG_S}{LONG_S}ages":[]}}', f'{{"model":"m","keep_alive":1,"{KELVIN}eep_alive":2}}', f'{{"model":"m","{LONG_S}tream":false,"stream":true}}',
         r'{"model":"m","keep_alive":1,"\u212aeep_alive":2}', '{"model":"m","options":{},"Options":{"num_ctx":9}}', '{"model":"m","model":"m"}']
ONCE = ['{"MODEL":"smollm2:135m","prompt":"x","stream":false}', r'{"\u006dodel":"smollm2:135m","prompt":"x","stream":false}', '{"model":"smollm2:135m","prompt":"x","stream":false,"other":{"model":"gemma3:270m","MODEL":"y"}}',
        '{"model":"smollm2:135m","prompt":"{\\"model\\":\\"gemma3:270m\\"}","stream":false}', f'{{"model":"smollm2:135m","prompt":"x","{LONG_S}tream":false}}', '{"model":"smollm2:135m","prompt":"x","stream":false}{"model":"gemma3:270m"}',
        '{"prompt":[{"model":"gemma3:270m"}],"prompt2":"x","model":"smollm2:135m","stream":false}', '{ "model" : "SMOLLM2:135M" , "prompt":1.50e3 }']


def inferred(ollama: Simulator, before: int) -> list[SimRequest]:
    return [request for request in ollama.requests[before:] if request.inference]


@pytest.mark.parametrize("path", ["/api/generate", "/api/chat", "/api/embed", "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages"])
def test_names_that_lead_nowhere(hermes: Hermes, ollama: Simulator, path: str) -> None:
    """E4: a name that Ollama has not, or nobody can have, makes no model work, wherever it points."""
    before = len(ollama.requests)
    for name, status in NAMES:
        reply = post(hermes.port, path, {**INFERRING, "model": name})
        assert (reply.status, reply.complete) == (status, True) and (len(name) < 99 or name.encode() not in reply.body), name
    for body in TWICE:
        reply = post(hermes.port, path, body.encode())
        assert reply.status == 400 and b"twice" in reply.body, body
    assert not inferred(ollama, before)
    assert {request.path for request in ollama.requests[before:]} <= {"/api/show"}, "asked whether it is there, and nothing else"


@pytest.mark.parametrize("body", ONCE)
def test_ollama_reads_the_very_bytes_that_were_read_here(hermes: Hermes, ollama: Simulator, body: str) -> None:
    """E4: what goes on is what came, and none of its keys is there twice to a reader who folds them as Go does."""
    before = len(ollama.requests)
    post(hermes.port, "/api/generate", body.encode())
    [request] = inferred(ollama, before)
    assert request.body == body.encode() and not duplicates(body), body
    assert all(duplicates(body) for body in TWICE), "the scan finds what there is"


def duplicates(body: str) -> list[str]:
    """The keys of the outermost object that come twice; Python's casefold knows the Kelvin sign and the long s."""
    pairs: list = []
    json.JSONDecoder(object_pairs_hook=lambda found: pairs.append([key.casefold() for key, _ in found])).raw_decode(body)
    return [key for key in pairs[-1] if pairs[-1].count(key) > 1]


# -- E6: where a request goes, and what goes with it ---------------------------------------------------------------

ALLOW_LISTED = {"host", "content-length", "content-type", "accept", "user-agent"}
SECRET = "hk-nobody-may-see-this"
HEADERS = ["Host: localhost", f"Authorization: Bearer {SECRET}", f"Cookie: session={SECRET}", f"X-Api-Key: {SECRET}", f"Proxy-Authorization: Basic {SECRET}", "X-Forwarded-For: 8.8.8.8", "X-Forwarded-Host: evil.com",
           "X-Forwarded-Proto: https", "Forwarded: for=8.8.8.8;host=evil.com", "X-Real-IP: 8.8.8.8", "X-Original-URL: /api/delete", "X-Rewrite-URL: /api/delete", "X-HTTP-Method-Override: DELETE", "X-Host: evil.com",
           "Via: 1.1 evil", "Referer: http://localhost/secret", "Origin: http://localhost", "Connection: keep-alive, Content-Type", "Keep-Alive: 9", "TE: trailers", "Upgrade: h2c", "HTTP2-Settings: AAMA", "Accept-Encoding: gzip", "Range: bytes=0-1",
           "If-None-Match: x", "X-Ollama-Host: evil.com", "Accept: application/json", "User-Agent: mine/1"]
REDIRECTING = ("api_base", "base_url", "host", "url", "remote_host", "upstream", "proxy", "api_key", "ollama_url")


def test_what_ollama_is_told(hermes: Hermes, ollama: Simulator) -> None:
    """E6: of the headers three, its own Host, and of the client's secrets nothing, on every route that goes on."""
    before = len(ollama.requests)
    for method, path, body in [("GET", "/api/version", b""), ("GET", "/api/tags", b""), ("GET", "/v1/models/smollm2:135m", b""), ("POST", "/api/show", PROMPT), ("POST", "/api/generate", PROMPT),
                               ("POST", "/v1/llm/m", b'{"prompt":"x"}'), ("DELETE", "/api/delete", b'{"model":"nothere"}'), ("POST", f"/api/blobs/{DIGEST}", b"x"), ("HEAD", f"/api/blobs/{DIGEST}", b""),
                               *((("POST", path, json.dumps(INFERRING).encode()) for path in ("/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings")))]:
        raw(hermes.port, method, path, [*HEADERS, "Content-Type: text/x-mine"], body)
    seen = ollama.requests[before:]
    assert len(seen) == 14
    for request in seen:
        assert set(request.headers) <= ALLOW_LISTED, (request.path, set(request.headers) - ALLOW_LISTED)
        assert request.headers["host"] == f"127.0.0.1:{ollama.port}"
        assert SECRET not in f"{request.path}{request.query}{request.headers}{request.body}" and b"evil" not in request.body


def test_no_body_says_where_to_go(hermes: Hermes, ollama: Simulator) -> None:
    """E6: a field that other gateways take for an address is Ollama's to overlook, and nobody's at Hermes's own route."""
    with socket.create_server(("127.0.0.1", 0)) as decoy:
        decoy.setblocking(False)
        there = f"http://127.0.0.1:{decoy.getsockname()[1]}"
        before = len(ollama.requests)
        for path in ("/api/generate", "/api/chat", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/completions"):
            assert post(hermes.port, path, {**INFERRING, **dict.fromkeys(REDIRECTING, there), "options": {"host": there}}).status == 200
        for field in REDIRECTING:
            reply = post(hermes.port, "/v1/llm/m", {"prompt": "x", field: there})
            assert reply.status == 400 and there.encode() not in reply.body
        assert len(ollama.requests) == before + 6
        with pytest.raises(BlockingIOError):
            decoy.accept()


@pytest.mark.parametrize("line", ["X: a\0b", "X: a\rb", "X\0: a", "X y: a", "Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity", "Transfer-Encoding: chunked", "Transfer-Encoding:\x0bchunked", "User-Agent: a\x1bb", "User-Agent: a\x7f"])
def test_headers_that_are_none(hermes: Hermes, ollama: Simulator, line: str) -> None:
    """E6: refused before anything goes on; a coding beside the length that `raw` sends as well."""
    before = len(ollama.requests)
    assert raw(hermes.port, "POST", "/api/generate", ["Host: localhost", line], PROMPT).status == 400
    assert len(ollama.requests) == before


# -- E7: keys ------------------------------------------------------------------------------------------------------

GUESSES = 10_000 if FAULTS else 1_000


def test_guessing_gets_nowhere(ollama: Simulator) -> None:
    """E7: ten wrong keys, then no more for a minute; two answers in all, one line about it, and Ollama hears nothing."""
    config = f'[log]\nlevel = "warning"\n[models.m]\nmodel = "smollm2:135m"\n[clients.alice]\nkey_sha256 = "{"ab" * 32}"\n'
    with Hermes(ollama.url, config) as hermes, Client(hermes.port) as client:
        before, answers = len(ollama.requests), []
        for number in range(0, GUESSES, 50):
            client.send_raw(b"".join(f"GET /api/tags HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer hk-{guess}\r\n\r\n".encode() for guess in range(number, number + 50)))
            answers += [client.reply() for _ in range(50)]
        assert [reply.status for reply in answers] == [401] * 10 + [429] * (GUESSES - 10)
        assert len({reply.body for reply in answers[:10]}) == len({reply.body for reply in answers[10:]}) == 1
        assert all(1 <= int(reply.headers["retry-after"]) <= 59 for reply in answers[10:])
        assert len(ollama.requests) == before
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0
        about = [line for line in hermes.lines if "wrong keys" in line]
        assert len(about) == 1 and "address=127.0.0.1" in about[0] and not [line for line in hermes.lines if "hk-" in line]


# -- E9: what other users of the machine can read ------------------------------------------------------------------


def test_workers_do_not_inherit_keys(ollama: Simulator) -> None:
    """E9: who runs `serve` in the shell of his `status` has its key in the environment; no worker needs it."""
    with Hermes(ollama.url, '[models.m]\nmodel = "smollm2:135m"\n', HERMES_KEY=SECRET, OLLAMA_API_KEY=SECRET) as hermes:
        eventually(lambda: hermes.staffed("m"))
        for pid in eventually(hermes.children, what="workers"):
            assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert get(hermes.port, "/api/version").status == 200


# -- E10: what does not start --------------------------------------------------------------------------------------


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("HERMES_", "OLLAMA_"))}
    return subprocess.run([sys.executable, "-m", "hermes", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=30, env=clean | environ, check=False)


@pytest.mark.parametrize(("text", "line", "words"), [
    ("[server]\nmax_boddy = 1\n", 2, "unknown key 'max_boddy' in [server] (did you mean 'max_body'?)"), ("[sever]\n", 1, "unknown section [sever]"), ("[models.m]\nmax_que = 1\n", 2, "'max_queue'"),
    ('[ollama]\nurl = "file:///etc/passwd"\n', 2, "'url' in [ollama]"), ('[ollama]\nurl = "gopher://127.0.0.1:1"\n', 2, "wanted is http:// or https://"),
    ('[ollama]\nurl = "http://me:secret@127.0.0.1:1"\n', 2, "without user and password"), ('[server]\nlisten = "0.0.0.0:0"\n', 2, "'listen' in [server]"), ('[server]\nlisten = ":0"\n', 2, "[clients.NAME]"),
    ('[server]\nlisten = "[::]:0"\nmanage = true\n', 2, "'listen' in [server]"), ("[server\n", 1, "not valid TOML")])
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    """E10: a bad file starts nothing, and the line says which line and which key."""
    path = tmp_path / "hermes.toml"
    path.write_text(text, encoding="utf-8")
    refused = run("check", "--config", str(path))
    [said] = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (78, "") and said.startswith(f"{path}:{line}: ") and words in said and "secret" not in said


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_file_that_others_can_write_starts_nothing(command: str, tmp_path: Path) -> None:
    """E10: whoever can write it could send every prompt to himself."""
    path, clients = tmp_path / "hermes.toml", tmp_path / "clients.toml"
    path.write_text('[server]\nlisten = "127.0.0.1:0"\nclients_file = "clients.toml"\n', encoding="utf-8")
    clients.write_text(f'[clients.a]\nkey_sha256 = "{"ab" * 32}"\n', encoding="utf-8")
    for bad, mode in ((path, 0o666), (path, 0o606), (clients, 0o646)):
        bad.chmod(mode)
        refused = run(command, "--config", str(path))
        assert (refused.returncode, refused.stdout, refused.stderr) == (78, "", f"{bad}: others may write to it (mode {mode:04o}): chmod go-w\n")
        bad.chmod(0o644)
    assert run("check", "--config", str(path)).returncode == 0


def test_a_reload_does_not_read_it_either(ollama: Simulator) -> None:
    """E10: the old configuration stays, one line is logged, and when the mode is right the new one is taken."""
    with Hermes(ollama.url, 'hosts = ["one.example"]\n') as hermes:
        hermes.write_config('hosts = ["two.example"]\n')
        hermes.config.chmod(0o666)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("not reloaded"))
        assert [get(hermes.port, "/livez", Host=host).status for host in ("one.example", "two.example")] == [200, 403]
        hermes.config.chmod(0o600)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert [get(hermes.port, "/livez", Host=host).status for host in ("one.example", "two.example")] == [403, 200]
        [line] = [line for line in hermes.lines if "not reloaded" in line]
        assert f"{hermes.config}: others may write to it (mode 0666)" in line and "level=error" in line.lower()


@pytest.mark.parametrize("environ", [{"OLLAMA_HOST": "192.0.2.7"}, {"OLLAMA_HOST": "https://ollama.example.com"}, {"HERMES_OLLAMA_URL": "http://gpu-box:11434"}])
def test_an_ollama_elsewhere_needs_no_leave(environ: dict[str, str], tmp_path: Path) -> None:
    """E10: who names another machine has chosen it; a gateway on one and Ollama on another is what containers are."""
    assert run("check", "--config", "/dev/null", **environ).returncode == 0
