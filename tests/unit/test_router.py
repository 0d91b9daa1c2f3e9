"""The route table: raw paths, one {model} of any number of segments, names decoded after the split."""

import pytest

from hermes.errors import BadRequest, MethodNotAllowed, NotFound
from hermes.frontend.exchange import Call, Dialect, Response
from hermes.frontend.http1 import parse_head
from hermes.frontend.router import Route, Router

DIALECTS = {name: Dialect(name, lambda error, _: b"{}", lambda error, _: b"", ollamas=name != "own") for name in ("own", "openai", "native")}
TABLE = [("POST", "/v1/llm/{model}/pull"), ("POST", "/v1/llm/{model}"), ("GET", "/v1/models"), ("GET", "/v1/models/{model}"),
         ("GET", "/api/tags"), ("HEAD", "/api/tags"), ("GET", "/"), ("POST", "/v1/llm/exact"), ("POST", "/api/show"), ("POST", "/api/blobs/{digest}")]
FAMILIES = [("/v1/llm/", DIALECTS["own"]), ("/v1/", DIALECTS["openai"]), ("/api/", DIALECTS["native"]), ("", DIALECTS["native"])]
ROUTER = Router([Route(method, path, next(dialect for prefix, dialect in FAMILIES if path.startswith(prefix)), lambda call: None) for method, path in TABLE], FAMILIES)


def ask(method: str, path: str, *fields: str) -> Response:
    """The answer of a route that was made for the occasion."""
    call = Call(parse_head("\r\n".join([f"{method} {path} HTTP/1.1", *(fields or ["Host: localhost"])]).encode()), None)
    route, model = ROUTER.match(method, call.request.path)
    assert (route.method, model) == (method, "") and route not in ROUTER.routes
    return route.endpoint(call)


@pytest.mark.parametrize(("method", "path", "route", "model"), [
    ("GET", "/", "/", ""), ("GET", "/api/tags", "/api/tags", ""), ("HEAD", "/api/tags", "/api/tags", ""),
    ("POST", "/v1/llm/m", "/v1/llm/{model}", "m"),
    ("POST", "/v1/llm/m:7b", "/v1/llm/{model}", "m:7b"), ("POST", "/v1/llm/m%3A7b", "/v1/llm/{model}", "m:7b"),
    ("POST", "/v1/llm/hf.co/user/repo:Q4", "/v1/llm/{model}", "hf.co/user/repo:Q4"),
    ("POST", "/v1/llm/hf.co%2Fuser%2frepo:Q4", "/v1/llm/{model}", "hf.co/user/repo:Q4"),
    ("POST", "/v1/llm/m/pull", "/v1/llm/{model}/pull", "m"), ("POST", "/v1/llm/hf.co/u/r:Q4/pull", "/v1/llm/{model}/pull", "hf.co/u/r:Q4"),
    ("POST", "/v1/llm/pull", "/v1/llm/{model}", "pull"), ("POST", "/v1/llm/pull/pull", "/v1/llm/{model}/pull", "pull"),
    ("POST", "/v1/llm/x%2Fpull", "/v1/llm/{model}", "x/pull"), ("POST", "/v1/llm/x/pull:latest", "/v1/llm/{model}", "x/pull:latest"),
    ("POST", "/v1/llm/m%2Fpull/pull", "/v1/llm/{model}/pull", "m/pull"), ("POST", "/v1/llm/%2Fpull", "/v1/llm/{model}", "/pull"),
    ("POST", "/v1/llm/m%2F", "/v1/llm/{model}", "m/"), ("POST", "/v1/llm/a%2F%2Fb", "/v1/llm/{model}", "a//b"), ("POST", "/v1/llm/.../..a", "/v1/llm/{model}", ".../..a"),
    ("POST", "/v1/llm/%2525", "/v1/llm/{model}", "%25"), ("POST", "/v1/llm/%zz", "/v1/llm/{model}", "%zz"),
    ("POST", "/v1/llm/%C3%A9", "/v1/llm/{model}", "é"), ("POST", "/v1/llm/m+x", "/v1/llm/{model}", "m+x"),
    ("POST", "/api/blobs/sha256:0a", "/api/blobs/{digest}", "sha256:0a"), ("POST", "/api/blobs/sha256%3A0a", "/api/blobs/{digest}", "sha256:0a"),
    ("GET", "/v1/models", "/v1/models", ""), ("GET", "/v1/models/m", "/v1/models/{model}", "m"), ("POST", "/v1/llm/exact", "/v1/llm/exact", ""),
])
def test_match(method: str, path: str, route: str, model: str) -> None:
    found, name = ROUTER.match(method, path)
    assert (found.method, found.path, name) == (method, route, model)


@pytest.mark.parametrize("path", ["", "*", "/api", "/API/tags", "/api%2Ftags", "/%2e", "/v1/llm/", "/v1/llm", "/v1/status", "/api/blobs", "/api/blobs/", "/api/tags;x", "/\u00e9", "/nope", "/nope/", "//nope",
                                  "/api/./nope", "//evil.com/api/tags", "/api/tags/x/", "/api/%2e%2e/api/tags", "/v1/", "//v1/llm//", "/..//x", "api/tags/"])
def test_not_found(path: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        with pytest.raises(NotFound, match="^404 page not found$") as caught:
            ROUTER.match(method, path)
        answer = ROUTER.dialect(path).error(caught.value)
        assert (answer.content_type, answer.body) == (("application/json; charset=utf-8", b"{}") if path.startswith(("/api/", "/v1/")) else ("text/plain", b"404 page not found"))


@pytest.mark.parametrize(("method", "path", "status", "location"), [
    ("GET", "/api/tags/", 301, "/api/tags"), ("HEAD", "/api/tags/", 307, "/api/tags"), ("GET", "/v1/models/", 301, "/v1/models"), ("POST", "/api/show/?a=1", 307, "/api/show?a=1"),
    ("GET", "/api/tags/?q=%22", 301, "/api/tags?q=%22"), ("GET", "//api/tags", 307, "/api/tags"), ("POST", "//api/tags", 307, "/api/tags"), ("GET", "/api/../api/tags", 307, "/api/tags"),
    ("GET", "/api//tags/", 307, "/api/tags/"), ("GET", "/api/tags//", 307, "/api/tags/"), ("GET", "/./api/tags", 307, "/api/tags"), ("GET", "//", 307, "/"), ("GET", "/api/..", 307, "/"),
    ("GET", "/../../api/tags", 307, "/api/tags"), ("GET", "/api/tags/.", 307, "/api/tags"), ("POST", "/v1//llm/m?x=1", 307, "/v1/llm/m?x=1"), ("GET", "///v1/models/a%2Fb", 307, "/v1/models/a%2Fb"),
    ("GET", "/v1/models/m:7b/", 301, "/v1/models/m:7b"), ("GET", "/v1/models//m", 307, "/v1/models/m"), ("GET", "/v1/models/a//b", 307, "/v1/models/a/b"), ("GET", "/v1/models/../models", 307, "/v1/models"),
    ("GET", "/v1/models/a%2F/", 301, "/v1/models/a%2F"), ("GET", "/v1/models/./m", 307, "/v1/models/m"), ("POST", "/v1/models/../llm/m", 307, "/v1/llm/m"), ("POST", "/v1/llm/m/", 307, "/v1/llm/m"),
    ("POST", "/v1/llm/m/pull/", 307, "/v1/llm/m/pull"), ("POST", "/v1/llm//pull", 307, "/v1/llm/pull"), ("POST", "/api/blobs/sha256:0a/", 307, "/api/blobs/sha256:0a"),
])
def test_redirects(method: str, path: str, status: int, location: str) -> None:
    answer = ask(method, path)
    assert (answer.status, answer.headers) == (status, (("Location", location),))
    if method == "POST":
        assert (answer.content_type, answer.body) == ("", b"")
    else:
        words = "Moved Permanently" if status == 301 else "Temporary Redirect"
        assert (answer.content_type, answer.body.decode()) == ("text/html; charset=utf-8", f'<a href="{location}">{words}</a>.\n\n')


def test_nothing_of_a_path_becomes_markup() -> None:
    """As much of it as a request line may have: brackets and double quotes are refused there."""
    answer = ask("GET", "//v1/models/&lt;script&gt;'?'&quot;")
    assert dict(answer.headers)["Location"] == "/v1/models/&lt;script&gt;'?'&quot;"
    assert answer.body == b'<a href="/v1/models/&amp;lt;script&amp;gt;&#x27;?&#x27;&amp;quot;">Temporary Redirect</a>.\n\n'


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/tags/"), ("DELETE", "/v1/models/"), ("OPTIONS", "/api/tags/"), ("POST", "/v1/models/m/"), ("GET", "/v1/llm/m/")])
def test_a_trailing_slash_and_the_wrong_method_are_too_much(method: str, path: str) -> None:
    with pytest.raises(NotFound):
        ROUTER.match(method, path)


PREFLIGHT = (("Access-Control-Allow-Origin", "app://x"),)


@pytest.mark.parametrize("path", ["/", "/api/tags", "/v1/models", "/v1/models/m", "/v1/llm/m", "/v1/llm/m/pull"])
@pytest.mark.parametrize(("host", "headers", "answered"), [("localhost", (), True), ("box.local:80", (), True), ("", (), True), ("127.0.0.1:11435", (), False), ("[::1]", (), False),
                                                           ("127.0.0.1", PREFLIGHT, True), ("localhost", PREFLIGHT, True), ("[::1]", (("X-Request-ID", "1"),), False)])
def test_options(path: str, host: str, headers: tuple, answered: bool) -> None:
    route, model = ROUTER.match("OPTIONS", path)
    call = Call(parse_head(f"OPTIONS {path} HTTP/1.1\r\nHost: {host}".encode()), None, headers=headers)
    if answered:
        assert route.endpoint(call) == Response(204, b"", "")
    else:
        with pytest.raises(MethodNotAllowed):
            route.endpoint(call)


@pytest.mark.parametrize(("method", "path", "allow"), [
    ("POST", "/", "GET"), ("DELETE", "/api/tags", "HEAD, GET"), ("GET", "/v1/llm/m", "POST"), ("GET", "/v1/llm/m/pull", "POST"),
    ("PUT", "/v1/models/m", "GET"), ("HEAD", "/v1/models", "GET"), ("TRACE", "/v1/llm/exact", "POST"),
])
def test_method_not_allowed(method: str, path: str, allow: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        ROUTER.match(method, path)
    assert caught.value.allow == allow
    answer = ROUTER.dialect(path).error(caught.value)
    assert answer.headers == (("Allow", allow),)
    assert (answer.content_type, answer.body) == (("application/json; charset=utf-8", b"{}") if path.startswith("/v1/llm/") else ("text/plain", b"405 method not allowed"))


def test_methods_are_named_in_ollamas_order() -> None:
    """Its router goes through its trees as they came to be: HEAD, GET, POST, DELETE."""
    router = Router([Route(method, "/x", DIALECTS["native"], lambda call: None) for method in ("DELETE", "POST", "GET", "HEAD")], FAMILIES)
    with pytest.raises(MethodNotAllowed) as caught:
        router.match("PUT", "/x")
    assert caught.value.allow == "HEAD, GET, POST, DELETE"


@pytest.mark.parametrize("name", ["%FF", "%C3", "%00", "%0A", "%0d%0a", "%1b", "%7f", "%C2%85", "%E2%80%A8", "%ED%A0%80", "a%E2%80%AEb",
                                  "%2e", "%2E%2e", ".%2e", "m%2f..", "%2e%2e%2f%2e%2e%2fapi%2ftags", "a%2F.%2Fb", "a/%2e%2e", "m%2F%2e"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ROUTER.match("POST", f"/v1/llm/{name}")
    assert name not in caught.value.text


@pytest.mark.parametrize(("path", "name"), [("/v1/llm/m", "own"), ("/v1/llm", "openai"), ("/v1/x", "openai"), ("/api/chat", "native"), ("/", "native"), ("*", "native"), ("", "native")])
def test_dialect(path: str, name: str) -> None:
    assert ROUTER.dialect(path).name == name
