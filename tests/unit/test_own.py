"""Hermes's own answers: the records of a stream."""

import json
from types import SimpleNamespace

import pytest

from hermes.frontend import own


class Told:
    """A lease as far as records need it."""

    def __init__(self, *records: dict):
        self.steps = [json.dumps(record).encode() + b"\n" for record in records]

    def read(self) -> bytes:
        return self.steps.pop(0) if self.steps else b""


@pytest.mark.parametrize("sse", [False, True])
def test_a_record_is_one_line_for_every_reader(sse: bool) -> None:
    """Also for Python's splitlines, and so for httpx. Ollama escapes what is a line's end to JavaScript; anything can stand in a model's answer."""
    text = "a\u2028b\u2029c\x85d\x0b\x0c\x1c\r\n é日😀\ud800"
    records = own.Records(own.Answer(SimpleNamespace(model="m\u2028", arrived=0.0), Told({"response": text}, {"message": {"content": text}})), sse)
    for _ in range(2):
        lines = records.read().decode().splitlines()
        assert lines[1:] == ([""] if sse else [])
        told = json.loads(lines[0].removeprefix("data: "))
        assert (told.get("text") or told["message"]["content"]) == text.replace("\ud800", "?") and "é日😀" in lines[0]
