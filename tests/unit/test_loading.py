"""How a model is loaded, said in every dialect, without touching a byte that need not be."""

import json

import pytest

from hermes.dispatch.registry import Place
from hermes.errors import BadRequest
from hermes.frontend import loading
from hermes.frontend.jsonbody import read_members, splice
from hermes.workers.messages import Prelude


def place(num_ctx: int = 0, keep_alive: str | float = "") -> Place:
    return Place(None, "m", 1.0, num_ctx, keep_alive)


def with_loading(body: bytes, where: Place) -> bytes:
    return b"".join(splice(body, loading.edits(read_members(body), where)))


@pytest.mark.parametrize("options", ['{"num_ctx":1}', '{"num_ctx":1,"num_ctx":2}', '{"NUM_CTX":3,"num_ctx":1}', '{"num_ctx":null}', "null", "{}"])
def test_the_operators_context_wins(options: str) -> None:
    body = with_loading(b'{"model":"m","options":%b}' % options.encode(), place(num_ctx=8192))
    assert json.loads(body)["options"]["num_ctx"] == 8192, "of two, Ollama and Python take the last"


def test_two_options_would_be_two_opinions() -> None:
    with pytest.raises(BadRequest, match="given twice"):
        with_loading(b'{"model":"m","options":{},"OPTIONS":{"num_ctx":1}}', place(num_ctx=8192))


@pytest.mark.parametrize("given", ["0", '"1h"', "-1", '""', "false"])
def test_the_clients_keep_alive_wins(given: str) -> None:
    body = b'{"model":"m","keep_alive":%b}' % given.encode()
    assert with_loading(body, place(keep_alive="5m")) == body


@pytest.mark.parametrize("keep_alive", ["5m", 300, 1.5, -1])
def test_a_keep_alive_where_there_is_none(keep_alive: str | float) -> None:
    for body in (b'{"model":"m"}', b'{"keep_alive":null,"model":"m"}'):
        found = with_loading(body, place(keep_alive=keep_alive))
        assert json.loads(found) == {"model": "m", "keep_alive": keep_alive} and found.count(b"keep_alive") == 1


def test_all_at_once_and_no_other_byte() -> None:
    body = '{ "é":1.50, "options" : { "seed":1.0 } ,"model":"m" } trailing'.encode()
    found = with_loading(body, place(8192, -1)).decode()
    assert json.JSONDecoder().raw_decode(found)[0] == {"keep_alive": -1, "é": 1.5, "options": {"seed": 1.0, "num_ctx": 8192}, "model": "m"}
    for added in ('"keep_alive": -1,', '"num_ctx": 8192,'):
        assert found.count(added) == 1
        found = found.replace(added, "")
    assert found.encode() == body


def test_nothing_configured_nothing_touched() -> None:
    body = b'{"options":{"num_ctx":1},"keep_alive":null} trailing'
    assert loading.edits(read_members(body), place()) == []
    assert added(body, place()) == json.loads(body.removesuffix(b" trailing"))
    assert loading.prelude(place(num_ctx=8192), "m", "/v1/chat/completions") is None


def added(body: bytes, where: Place) -> dict:
    """The fields of a body of Hermes's own, written as JSON and read again."""
    asked = read_members(body)
    loading.add(asked, where)
    return {key: json.loads(member.body[member.start:member.end]) for key, member in asked.items()}


def test_a_body_of_our_own() -> None:
    assert added(b'{"prompt":"x","options":{"seed":1,"num_ctx":1}}', place(8192, -1)) == {"prompt": "x", "options": {"seed": 1, "num_ctx": 8192}, "keep_alive": -1}
    assert added(b'{"keep_alive":0}', place(8192, -1)) == {"keep_alive": 0, "options": {"num_ctx": 8192}}


def test_loading_alone() -> None:
    assert place().loading() == {"model": "m"}
    assert place(8192, "5m").loading() == {"model": "m", "options": {"num_ctx": 8192}, "keep_alive": "5m"}
    assert place(keep_alive=-1).loading() == {"model": "m", "keep_alive": -1}


@pytest.mark.parametrize(("path", "loader"), [("/v1/chat/completions", "/api/generate"), ("/v1/completions", "/api/generate"),
                                              ("/v1/messages", "/api/generate"), ("/v1/embeddings", "/api/embed")])
def test_prelude(path: str, loader: str) -> None:
    found = loading.prelude(place(8192, "5m"), "hermes/m:latest-ctx8192", path)
    assert isinstance(found, Prelude) and found.path == loader
    assert json.loads(found.body) == {"model": "hermes/m:latest-ctx8192", "keep_alive": "5m"}
