"""The route table: raw paths, one {model} of any number of segments, names decoded after the split."""

import pytest

from hermes.errors import BadRequest, MethodNotAllowed, NotFound
from hermes.frontend.exchange import Dialect
from hermes.frontend.router import Route, Router

DIALECTS = {name: Dialect(name, lambda error, _: b"", lambda error, _: b"") for name in ("own", "openai", "native")}
TABLE = [("POST", "/v1/llm/{model}/pull"), ("POST", "/v1/llm/{model}"), ("GET", "/v1/models"), ("GET", "/v1/models/{model}"),
         ("GET", "/api/tags"), ("HEAD", "/api/tags"), ("GET", "/"), ("POST", "/v1/llm/exact")]
ROUTER = Router([Route(method, path, DIALECTS["own"], lambda call: None) for method, path in TABLE],
                [("/v1/llm/", DIALECTS["own"]), ("/v1/", DIALECTS["openai"]), ("", DIALECTS["native"])])


@pytest.mark.parametrize(("method", "path", "route", "model"), [
    ("GET", "/", "/", ""), ("GET", "/api/tags", "/api/tags", ""), ("HEAD", "/api/tags", "/api/tags", ""),
    ("POST", "/v1/llm/m", "/v1/llm/{model}", "m"),
    ("POST", "/v1/llm/m:7b", "/v1/llm/{model}", "m:7b"), ("POST", "/v1/llm/m%3A7b", "/v1/llm/{model}", "m:7b"),
    ("POST", "/v1/llm/hf.co/user/repo:Q4", "/v1/llm/{model}", "hf.co/user/repo:Q4"),
    ("POST", "/v1/llm/hf.co%2Fuser%2frepo:Q4", "/v1/llm/{model}", "hf.co/user/repo:Q4"),
    ("POST", "/v1/llm/m/pull", "/v1/llm/{model}/pull", "m"), ("POST", "/v1/llm/hf.co/u/r:Q4/pull", "/v1/llm/{model}/pull", "hf.co/u/r:Q4"),
    ("POST", "/v1/llm/pull", "/v1/llm/{model}", "pull"), ("POST", "/v1/llm/pull/pull", "/v1/llm/{model}/pull", "pull"),
    ("POST", "/v1/llm/x%2Fpull", "/v1/llm/{model}", "x/pull"), ("POST", "/v1/llm/x/pull:latest", "/v1/llm/{model}", "x/pull:latest"),
    ("POST", "/v1/llm/m%2Fpull/pull", "/v1/llm/{model}/pull", "m/pull"), ("POST", "/v1/llm//pull", "/v1/llm/{model}", "/pull"),
    ("POST", "/v1/llm/m/", "/v1/llm/{model}", "m/"), ("POST", "/v1/llm/m/pull/", "/v1/llm/{model}", "m/pull/"),
    ("POST", "/v1/llm/%2525", "/v1/llm/{model}", "%25"), ("POST", "/v1/llm/%zz", "/v1/llm/{model}", "%zz"),
    ("POST", "/v1/llm/%C3%A9", "/v1/llm/{model}", "é"), ("POST", "/v1/llm/m+x", "/v1/llm/{model}", "m+x"),
    ("GET", "/v1/models", "/v1/models", ""), ("GET", "/v1/models/m", "/v1/models/{model}", "m"), ("POST", "/v1/llm/exact", "/v1/llm/exact", ""),
])
def test_match(method: str, path: str, route: str, model: str) -> None:
    found, name = ROUTER.match(method, path)
    assert (found.method, found.path, name) == (method, route, model)


@pytest.mark.parametrize("path", ["", "*", "/api", "/api/tags/", "//api/tags", "/API/tags", "/api%2Ftags", "/api/../api/tags", "/%2e", "/v1/llm/",
                                  "/v1/llm", "/v1/models/", "/v1/status", "/v1//llm/m", "/api/tags;x", "/\u00e9"])
def test_not_found(path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        with pytest.raises(NotFound, match="^404 page not found$"):
            ROUTER.match(method, path)


@pytest.mark.parametrize(("method", "path", "allow"), [
    ("POST", "/", "GET"), ("DELETE", "/api/tags", "GET, HEAD"), ("GET", "/v1/llm/m", "POST"), ("GET", "/v1/llm/m/pull", "POST"),
    ("OPTIONS", "/v1/models/m", "GET"), ("TRACE", "/v1/llm/exact", "POST"),
])
def test_method_not_allowed(method: str, path: str, allow: str) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        ROUTER.match(method, path)
    assert caught.value.allow == allow
    assert DIALECTS["own"].error(caught.value).headers == (("Allow", allow),)


@pytest.mark.parametrize("name", ["%FF", "%C3", "%00", "%0A", "%0d%0a", "%1b", "%7f", "%C2%85", "%E2%80%A8", "%ED%A0%80", "a%E2%80%AEb"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ROUTER.match("POST", f"/v1/llm/{name}")
    assert name not in caught.value.text


@pytest.mark.parametrize(("path", "name"), [("/v1/llm/m", "own"), ("/v1/llm", "openai"), ("/v1/x", "openai"), ("/api/chat", "native"), ("/", "native"), ("*", "native"), ("", "native")])
def test_dialect(path: str, name: str) -> None:
    assert ROUTER.dialect(path).name == name
