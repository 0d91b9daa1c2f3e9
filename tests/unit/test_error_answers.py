"""Every error there is, in every family's shape, as its bytes go out (reliability.md §5, B15). A new class, route or family is covered by itself."""

import inspect
import json
import re
from http import HTTPStatus
from types import SimpleNamespace

import pytest

from hermes import errors
from hermes.application import Application
from hermes.errors import HermesError, RequestTimeout, UpstreamFailed
from hermes.frontend.exchange import NDJSON, SSE, Dialect
from hermes.frontend.router import Route, Router
from tests.unit.test_connection import Town, get

ROUTER: Router = Application._router(SimpleNamespace(dispatcher=None, live=None, _whose=None))
CLASSES = [thing for thing in vars(errors).values() if inspect.isclass(thing) and issubclass(thing, HermesError)]
DIALECTS = list({id(dialect): dialect for dialect in [route.dialect for route in ROUTER.routes] + [family[1] for family in ROUTER._families]}.values())
NAMED = [f"{dialect.name} {number}" for number, dialect in enumerate(DIALECTS)]
NASTY = "a\r\n\r\ndata: {\"error\":1}\n\x00\x1b\x85\u2028\ud800é</script>"


def made(cls: type[HermesError], text: str = "what is wrong") -> HermesError:
    """One of this class: whatever it wants to be made of, it gets."""
    wanted = [each for each in inspect.signature(cls).parameters.values() if each.default is each.empty and each.name != "self"]
    return cls(*[text for each in wanted if each.kind is not each.KEYWORD_ONLY], **{each.name: True for each in wanted if each.kind is each.KEYWORD_ONLY})


def shape_of(value: object) -> object:
    return {key: shape_of(each) for key, each in value.items()} if isinstance(value, dict) else "…"


def test_there_is_something_to_test() -> None:
    assert {cls.__name__ for cls in CLASSES} == set(errors.__all__) - {"ClientGone"} and len(CLASSES) > 30
    assert {dialect.name for dialect in DIALECTS} >= {"native", "openai", "anthropic", "own"}


@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMED)
def test_every_error_before_the_head(start, dialect: Dialect) -> None:
    town, shapes = Town(start), set()
    town.house.router = Router([Route(method, "/x", dialect, town.give) for method in ("GET", "HEAD")], [("", dialect)])
    for cls in CLASSES:
        with town.visit() as visitor:
            heads = []
            for method in ("GET", "HEAD"):
                town.answer = error = made(cls)
                if cls is RequestTimeout and method == "HEAD":
                    continue                    # the connection is closed
                reply = visitor.ask(get(method=method))
                phrase = HTTPStatus(error.status).phrase if error.status != 499 else "Status"
                assert reply.complete and reply.raw.startswith(f"HTTP/1.1 {error.status} {phrase}\r\n".encode())
                assert int(reply.headers["content-length"]) == len(heads[0] if heads else reply.body) > 0 and (method == "GET" or reply.body == b"")
                assert set(reply.headers) <= {"content-type", "date", "content-length", "retry-after", "allow", "www-authenticate", "x-should-retry", "connection",
                                              *(name.lower() for name, _ in dialect.ids("r"))}, "nothing that says who made it, or with what"
                assert re.fullmatch(r"application/json(; charset=utf-8)?", reply.headers["content-type"])
                retry = reply.headers.get("retry-after")
                assert (retry is not None) >= (error.status in (429, 503)) and (retry is None or 1 <= int(retry) <= 59)
                assert ("x-should-retry" in reply.headers) == error.futile
                heads.append(reply.body)
            assert error.text in str(json.loads(heads[0])).replace("\\'", "'")
            shapes.add(json.dumps(shape_of(json.loads(heads[0]))))
    assert len(shapes) == 1, "one shape for a family"


@pytest.mark.parametrize("kind", [NDJSON, SSE])
@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMED)
def test_every_error_inside_a_stream_is_one_record(dialect: Dialect, kind: str) -> None:
    """Whatever its text is made of, of which Ollama's may be anything."""
    say = dialect.in_band(kind, "r")
    for error in [*map(made, CLASSES), UpstreamFailed(NASTY)]:
        record = say(error)
        lines = record.decode().splitlines()        # as httpx and others see them, to whom more than a line feed ends a line
        if kind == NDJSON:
            assert record.endswith(b"}\n") and len(lines) == 1 and list(json.loads(record)) == ["error"]
        else:
            assert record.endswith(b"}\n\n") and lines[:-2] in ([], ["event: error"]) and lines[-1] == "" and lines[-2].startswith("data: {")
            record = lines[-2].removeprefix("data: ")
        assert error.text.encode("utf-8", "replace").decode() in texts(json.loads(record))


def texts(value: object) -> list:
    return [text for each in value.values() for text in texts(each)] if isinstance(value, dict) else [value]


@pytest.mark.parametrize("dialect", DIALECTS, ids=NAMED)
def test_a_nasty_text_splits_nothing(start, dialect: Dialect) -> None:
    town = Town(start)
    town.answer = UpstreamFailed(NASTY)
    town.house.router = Router([Route("GET", "/x", dialect, town.give)], [("", dialect)])
    with town.visit() as visitor:
        reply = visitor.ask(get())
        assert (reply.status, reply.complete) == (502, True) and NASTY.encode("utf-8", "replace").decode() in texts(reply.json())
        assert len(reply.body.decode().splitlines()) == 1 and visitor.ask(get()).status == 502
