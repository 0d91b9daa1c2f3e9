"""What an event says, taken apart: its words, and its fields. Pure.

A log call is `"words key=%s key=%d", value, …`. It is its template that is taken apart, which is ours, and never the text that it becomes: nothing that
a client sends can be a field, or a second one of the same key (tests/unit/test_fields.py holds every log call to it).
"""

import json
import logging
import math
import re
from bisect import bisect_right
from functools import lru_cache

CUT = " ... "
OWN = ("time", "level", "message", "exception")     # what an event has beside its fields

_FIELD = re.compile(r" ([a-z_]+)=(%(?:s|d|g|\.[0-9]f))")
_ONE_WORD = re.compile(r'[^ "=]+')
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


def word(text: str) -> str:
    """A value for key=value: quoted where it would not be one word."""
    return text if _ONE_WORD.fullmatch(text) else json.dumps(text)


def unword(said: str) -> str:
    """What `word` has been given: of what it returns, only what it has quoted begins with a quote."""
    try:
        return json.loads(said) if said.startswith('"') else said
    except ValueError:
        return said                                 # it has not come from there: the text of an error


@lru_cache(maxsize=256)
def parts(template: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The words of a template, and its fields: each a key and how its value is written, such as "%d"."""
    return _FIELD.sub("", template), tuple(_FIELD.findall(template))


def members(record: logging.LogRecord, time: str, exception: str = "") -> dict[str, object]:
    """Of the object that an event is in JSON; `time` and `exception` are texts."""
    words, fields = parts(str(record.msg))
    values = tuple(record.args or ())
    first = len(values) - len(fields)
    event: dict[str, object] = {"time": time, "level": record.levelname.lower(), "message": words % values[:first] if first else words}
    for (key, form), value in zip(fields, values[first:]):
        event[key] = _value(form, value)
    if exception:
        event["exception"] = exception
    return event


def _value(form: str, value: object) -> str | int | float:
    """A number as it would be written, so that both formats say the same."""
    said = form % (value,)
    if form == "%s":
        return unword(said)
    number = float(said)
    return int(said) if form == "%d" else number if math.isfinite(number) else said


def as_json(event: dict[str, object], most: int) -> str:
    """One line of ASCII without anything that a terminal obeys, of at most so many bytes: the longest texts are cut in the middle."""
    event = {key: _whole(value) if isinstance(value, str) else value for key, value in event.items()}
    while len(line := _encode(event)) > most:
        key = max(event, key=lambda key: _size(event[key]))
        size = _size(event[key])
        event[key] = _cut(str(event[key]), max(size - (len(line) - most), size // 2))      # by half at most: there may be two such
    return line


def _size(value: object) -> int:
    """Bytes between the quotes."""
    return len(_encode(value)) - 2


def _whole(text: str) -> str:
    """Half of a surrogate pair is no character, and JSON that has one is none for some readers."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(text: str, room: int) -> str:
    """Its beginning and its end, in so many bytes between the quotes."""
    half = max(0, (room - len(CUT)) // 2)
    return _beginning(text, half) + CUT + _beginning(text[::-1], half)[::-1]


def _beginning(text: str, room: int) -> str:
    """As much of it as goes into so many bytes, of which a character takes between one and twelve."""
    lengths = range(min(len(text), room) + 1)
    return text[:bisect_right(lengths, room, key=lambda length: _size(text[:length])) - 1]
