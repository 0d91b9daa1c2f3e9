"""The top level of a JSON request body, with the place of each value: enough to route by it and to replace the model's name
without touching another byte (design rule 12). Pure.

Ollama decodes JSON as Go does (ollama-api.md §0.14): keys match in any letter case, trailing bytes are ignored, the last of two equal keys
wins. Where that would let two readers see two different models, the request is refused.
"""

import json
import re
from typing import NamedTuple

from hermes.errors import BadRequest

ROUTING_KEYS = frozenset({"model", "name", "stream"})
_SPACE = re.compile(r"[ \t\n\r]*")


class Member(NamedTuple):
    """A value and where it stands in the body, in bytes."""

    value: object
    start: int
    end: int


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_no_constant)


def read_members(body: bytes) -> dict[str, Member]:
    """The members of the object in `body`, by folded key. Raises BadRequest.

    The text is read as Latin-1, so that a place in it is a place in the bytes; strings that are not ASCII come out undecoded.
    """
    text = body.decode("latin-1")
    try:
        return _members(text)
    except IndexError:
        raise BadRequest("unexpected EOF" if text.strip() else "missing request body") from None
    except RecursionError:
        raise BadRequest("the request body is nested too deeply") from None
    except ValueError:
        raise BadRequest("the request body is not valid JSON") from None


def _members(text: str) -> dict[str, Member]:
    at = _skip(text, 0)
    if text[at] != "{":
        value, _ = _decoder.raw_decode(text, at)
        if value is None:
            return {}                           # Go takes null for an empty object
        raise BadRequest(f"the request body must be a JSON object, not {_kind(value)}")
    members: dict[str, Member] = {}
    at = _skip(text, at + 1)
    while text[at] != "}" or members:
        if text[at] != '"':
            raise ValueError("a key must be a string")
        key, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at] != ":":
            raise ValueError("a colon is missing")
        start = _skip(text, at + 1)
        text[start]
        value, at = _decoder.raw_decode(text, start)
        _add(members, fold(key), Member(value, start, at))
        at = _skip(text, at)
        if text[at] == "}":
            break
        if text[at] != ",":
            raise ValueError("a comma is missing")
        at = _skip(text, at + 1)
    return members


def _add(members: dict[str, Member], key: str, member: Member) -> None:
    if key in members and key in ROUTING_KEYS:
        raise BadRequest(f"'{key}' is given twice; whoever reads the first and whoever reads the last would disagree")
    members[key] = member


def fold(key: str) -> str:
    """A key as Go's decoder compares it: letter case, the Kelvin sign and the long s do not count."""
    if not key.isascii():
        key = text_of(key)
    return key.casefold()


def text_of(value: str) -> str:
    """A string of `read_members`, decoded."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return value                            # it was written with \\u escapes


def replace(body: bytes, member: Member, value: str) -> bytes:
    """`body` with another string in the place of `member`."""
    return body[:member.start] + json.dumps(value).encode() + body[member.end:]


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _kind(value: object) -> str:
    for kind, name in ((bool, "bool"), ((int, float), "number"), (str, "string"), (list, "array")):
        if isinstance(value, kind):
            return name
    return "object"
