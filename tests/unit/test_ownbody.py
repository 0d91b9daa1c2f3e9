"""Hermes's own requests: their fields, and what Ollama is asked for them."""

import json

import pytest

from hermes.errors import BadRequest
from hermes.frontend import ownbody
from hermes.frontend.ownbody import read_request, to_native


def native(**asked) -> tuple[str, dict]:
    path, pieces = to_native(read_request(json.dumps(asked).encode()), "m")
    return path, json.loads(b"".join(pieces))


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(("asked", "path", "body"), [
    ({"prompt": "x"}, "/api/generate", {"prompt": "x"}),
    ({"prompt": "", "system": "s", "images": ["i"]}, "/api/generate", {"prompt": "", "system": "s", "images": ["i"]}),
    ({"prompt": "x", "format": "json", "think": True, "options": {"seed": 1}, "keep_alive": 0, "stream": False}, "/api/generate",
     {"prompt": "x", "format": "json", "think": True, "options": {"seed": 1}, "keep_alive": 0}),
    ({"prompt": "x", "format": {"type": "object"}, "think": "high", "keep_alive": "5m"}, "/api/generate",
     {"prompt": "x", "format": {"type": "object"}, "think": "high", "keep_alive": "5m"}),
    ({"prompt": "x", "system": None, "stream": None}, "/api/generate", {"prompt": "x"}),
    ({"messages": [USER]}, "/api/chat", {"messages": [USER]}),
    ({"messages": []}, "/api/chat", {"messages": []}),
    ({"messages": [USER], "system": "s", "tools": []}, "/api/chat", {"messages": [{"role": "system", "content": "s"}, USER], "tools": []}),
    ({"messages": [{"role": "assistant"}, USER], "images": ["i"]}, "/api/chat", {"messages": [{"role": "assistant"}, {**USER, "images": ["i"]}]}),
    ({"messages": [{**USER, "images": ["a"]}], "images": ["b"]}, "/api/chat", {"messages": [{**USER, "images": ["a", "b"]}]}),
    ({"messages": [USER], "prompt": None}, "/api/chat", {"messages": [USER]}), ({"messages": [], "system": "s"}, "/api/chat", {"messages": [{"role": "system", "content": "s"}]}),
    ({"messages": [USER, {}], "images": ["i", "j"]}, "/api/chat", {"messages": [USER, {"images": ["i", "j"]}]}), ({"prompt": "x", "Stream": True, "OPTIONS": {}}, "/api/generate", {"prompt": "x", "options": {}}),
    ({"messages": [{"images": []}], "images": ["i"]}, "/api/chat", {"messages": [{"images": ["i"]}]}), ({"messages": [{"images": ["a"]}], "images": []}, "/api/chat", {"messages": [{"images": ["a"]}]}),
    ({"messages": [USER], "images": [], "system": ""}, "/api/chat", {"messages": [{"role": "system", "content": ""}, {**USER, "images": []}]}),
])
def test_to_native(asked: dict, path: str, body: dict) -> None:
    before = json.dumps(asked)
    assert native(**asked) == (path, {"model": "m", "stream": True, **body})
    assert json.dumps(asked) == before


@pytest.mark.parametrize("asked", [
    {}, {"prompt": None}, {"prompt": "x", "messages": []}, {"prompt": 1}, {"prompt": ["x"]}, {"messages": "x"}, {"messages": {}}, {"messages": ["x"]}, {"messages": [[]]},
    {"messages": [None]}, {"prompt": "x", "tools": []}, {"prompt": "x", "options": []}, {"prompt": "x", "think": 1}, {"prompt": "x", "think": None, "format": 1},
    {"prompt": "x", "keep_alive": True}, {"prompt": "x", "stream": "true"}, {"prompt": "x", "stream": 1}, {"prompt": "x", "images": "i"}, {"prompt": "x", "system": 1},
    {"messages": [], "images": ["i"]}, {"prompt": "x", "format": True}, {"prompt": "x", "model": "m"}, {"prompt": True},
    {"messages": [{**USER, "images": None}], "images": ["i"]}, {"messages": [{**USER, "images": 5}], "images": ["i"]}, {"messages": [{**USER, "images": "abc"}], "images": ["i"]}, {"messages": [{**USER, "images": {"a": 1}}], "images": ["i"]},
], ids=lambda asked: json.dumps(asked)[:60])
def test_refused(asked: dict) -> None:
    with pytest.raises(BadRequest):
        native(**asked)


@pytest.mark.parametrize(("body", "text"), [
    (b"", "missing request body"), (b" \n", "missing request body"), (b"{", "unexpected EOF"), (b"[]", "must be a JSON object"), (b"null", "give either"),
    (b"\xff", "invalid character 'ÿ'"), (b"[" * 100_000, "max depth"), (b'{"prompt":"x","keep_alive":NaN}', "invalid character 'N'"), (b'{"prompt":"x","prompt":"y"}', "twice"),
    (b'{"promt":"x"}', "did you mean 'prompt'"), (b'{"zzz":"x"}', "unknown field 'zzz'; known: prompt, "), (b'{"prompt":1}', "'prompt' must be a string"),
])
def test_texts(body: bytes, text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        read_request(body)


def test_a_field_with_an_endless_name_is_refused_quickly(monkeypatch) -> None:
    """difflib makes a table of the whole word: of a body of 64 MiB it would take gigabytes."""
    looked_up: list[str] = []
    monkeypatch.setattr(ownbody.difflib, "get_close_matches", lambda word, *_: looked_up.append(word) or [])
    with pytest.raises(BadRequest) as caught:
        read_request(b'{"' + b"a" * 100_000 + b'":1}')
    assert len(caught.value.text) < 300
    assert all(len(word) < 1000 for word in looked_up)


@pytest.mark.parametrize(("images", "expected"), [
    (b'"images":["a"],"images":[ ]', b'"images":["a"],"images":[ "i"]'), (b'"IMAGES":["a" ]', b'"IMAGES":["a" ,"i"]'), (b'"\\u0069mages":[]', b'"\\u0069mages":["i"]'),
])
def test_images_join_those_that_go_would_read(images: bytes, expected: bytes) -> None:
    _, pieces = to_native(read_request(b'{"messages":[{%b}],"images":["i"]}' % images), "m")
    assert b"".join(pieces) == b'{"model": "m", "stream": true,"messages":[{%b}]}' % expected


def test_values_go_as_they_were_written_and_large_ones_are_not_copied() -> None:
    image = b"A" * 1_000_000
    body = bytearray(b'{"messages" : [{"n":1.50, "content":"\\u00e9"} ], "images":["%b"],"options":{"seed":1e0}}' % image)
    _, pieces = to_native(read_request(body), "m")
    assert b"".join(pieces) == (b'{"model": "m", "stream": true,"options":{"seed":1e0},"messages":[{"images":["%b"],"n":1.50, "content":"\\u00e9"} ]}' % image)
    assert [piece.obj is body for piece in pieces if len(piece) > 1000] == [True]
