"""What may be made to go wrong, and how a test or a request asks for it.

A test scripts faults on the simulator. A request may carry one in its own text, so that it travels through a gateway
that forwards bodies untouched, and so that anybody with curl can try:

    {"model": "smollm2:135m", "prompt": "hello @@cut=400,by=rst@@"}

So may what it wants of its answer: its pace, and a call of its first tool (`@@tool@@`) or of the first few (`@@tool=2@@`).
"""

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

_MARK = re.compile(rb"@@([a-z_]+(?:=[^@,]*)?(?:,[a-z_]+(?:=[^@,]*)?)*)@@")


@dataclass(frozen=True)
class Fault:
    """One way to misbehave. Fields combine; counts are of bytes on the wire, chunk framing included."""

    delay: float = 0.0
    """Seconds before the first byte."""
    status: int | None = None
    """Answer with this status, and with `body` or an error in the dialect's shape."""
    body: bytes | None = None
    refuse: bool = False
    """Close at once without a byte."""
    cut: int | None = None
    """Close after so many bytes, head included."""
    cut_body: int | None = None
    """Close after so many bytes behind the head."""
    by: str = "fin"
    """How to close: "fin" or "rst"."""
    stall: int | None = None
    """After so many bytes send no more until the client leaves."""
    drip: float | None = None
    """Send byte by byte, so many seconds apart."""
    garbage: bool = False
    """A line that is no JSON, in the middle."""
    no_done: bool = False
    """A stream that ends properly but without its final record (ollama-api.md §0.7)."""
    error_line: bool = False
    """The model runner dies in the middle (ollama-api.md §2.3)."""
    raw: bytes | None = None
    """Send this instead of an answer, head included, and close."""
    keep: bool = False
    """Do not close after `raw`."""
    pause: float = 0.0
    """Seconds of rest after each chunk."""


@dataclass(frozen=True)
class Pace:
    """How long an answer is and how long its parts take; a request may ask for its own. `tokens` None: not asked."""

    tokens: int | None
    interval: float
    prompt_time: float
    load_time: float | None = None
    thoughts: int = 4
    """Tokens of thinking before the answer, if the model thinks."""


class BadMark(ValueError):
    """A request carried an @@…@@ that cannot be read."""


_CONVERTERS: dict[str, Callable[[str], Any]] = {
    "delay": float, "status": int, "body": str.encode, "cut": int, "cut_body": int, "by": str, "stall": int,
    "drip": float, "raw": str.encode, "pause": float, "tokens": int, "interval": float, "prompt_time": float,
    "load_time": float, "thoughts": int,
}
_FLAGS = ("refuse", "garbage", "no_done", "error_line", "keep")
_PACE = tuple(field.name for field in fields(Pace))
_TOOL = "tool"


def read_marks(body: bytes, fault: Fault, pace: Pace) -> tuple[Fault, Pace]:
    """The fault and the pace of a request, with what its own body asks for laid over."""
    values = dict(_value(item) for item in _items(body) if item.partition("=")[0] != _TOOL)
    if not values:
        return fault, pace
    if values.get("by", "fin") not in ("fin", "rst"):
        raise BadMark("simulator: by is fin or rst")
    timing = {name: values.pop(name) for name in _PACE if name in values}
    return replace(fault, **values), replace(pace, **timing)


def tools_wanted(prompt: str) -> int:
    """How many tools a prompt asks to be called. Its own marks alone count: what a chat brings along was answered before."""
    texts = [text for name, _, text in (item.partition("=") for item in _items(prompt.encode("utf-8", "replace"))) if name == _TOOL]
    return int(texts[-1] or 1) if texts and texts[-1].isdecimal() | (texts[-1] == "") else 0


def _items(text: bytes) -> Iterator[str]:
    """What stands between the @@, one by one."""
    if b"@@" in text:
        for mark in _MARK.findall(text):
            yield from mark.decode("utf-8", "replace").split(",")


def _value(item: str) -> tuple[str, Any]:
    name, _, text = item.partition("=")
    if name in _FLAGS:
        return name, text not in ("0", "false")
    if name not in _CONVERTERS:
        raise BadMark(f"simulator: unknown fault {name!r}")
    try:
        return name, _CONVERTERS[name](text)
    except ValueError:
        raise BadMark(f"simulator: bad value in {item!r}") from None


@dataclass
class _Entry:
    fault: Fault
    path: str | None
    prompt: str | None
    model: str | None
    times: int | None

    def matches(self, path: str, prompt: str, model: str) -> bool:
        wanted = ((self.path, path), (self.prompt, prompt), (self.model, model))
        return self.times != 0 and all(want is None or want == is_ for want, is_ in wanted)


class Script:
    """The faults that tests asked for. Its lock is its own; any thread may call."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault, path: str | None, prompt: str | None, model: str | None, times: int | None) -> None:
        """Remembers a fault for the next `times` requests that match; None means for ever."""
        with self._lock:
            self._entries.append(_Entry(fault, path, prompt, model, times))

    def take(self, path: str, prompt: str, model: str) -> Fault:
        """The fault for a request that has just arrived: the oldest that matches."""
        with self._lock:
            for entry in self._entries:
                if entry.matches(path, prompt, model):
                    if entry.times is not None:
                        entry.times -= 1
                    return entry.fault
        return Fault()
