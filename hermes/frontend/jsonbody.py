"""The top level of a JSON request body: what it says, decoded only where somebody asks, and changes to it that touch no other byte
(design rule 12). Pure.

Ollama decodes JSON as Go does (ollama-api.md §0.14): keys match in any letter case, trailing bytes are ignored, the last of two equal keys
wins. Where that would let two readers see two different models, the request is refused.
"""

import json
import re
from collections.abc import Container, Iterable
from typing import NamedTuple

from hermes.errors import BadRequest
from hermes.frontend.jsonscan import Scanner, Span
from hermes.workers.messages import Bytes

# Never twice: what Hermes goes by, or what it may have to lower or refuse (hermes.frontend.guards).
ROUTING_KEYS = frozenset({"model", "name", "stream", "options", "keep_alive", "prompt", "messages", "input", "max_tokens", "max_output_tokens",
                          "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty"})
MEMBERS_MAX = 10_000        # of one object; each that is kept costs some 300 bytes
KEY_MAX = 128               # bytes of a key that is read: the longest we know takes 104, if every letter of it is escaped
VALUE_MAX = 64 * 1024       # bytes of a value that is decoded

Pieces = tuple[Bytes, ...]

_SURROGATE = re.compile("[\ud800-\udfff]")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_no_constant)
_pairs_decoder = json.JSONDecoder(parse_constant=_no_constant, object_pairs_hook=tuple)


class Member(NamedTuple):
    """A value in a body: where it stands, in bytes, and its kind as in Span."""

    body: Bytes
    kind: str
    start: int
    end: int

    @property
    def value(self) -> object:
        """Decoded now, each time. Raises BadRequest, also if it is longer than VALUE_MAX."""
        if self.end - self.start > VALUE_MAX:
            raise BadRequest(f"a {self.kind} in the request body is too long")
        return _decode(self.body, self.start, self.end)

    @property
    def pairs(self) -> tuple[tuple[str, object], ...]:
        """The members of an object as they stand, decoded now; an object inside is such a tuple as well. Raises BadRequest as `value` does."""
        if self.end - self.start > VALUE_MAX:
            raise BadRequest("an object in the request body is too long")
        return _decode(self.body, self.start, self.end, _pairs_decoder)

    @property
    def empty(self) -> bool:
        """Is it null, "", [] or {}? Never costs more than a look at the first bytes."""
        if self.kind in ("array", "object"):
            return self.body[Scanner(self.body).space(self.start + 1)] in b"]}"
        return self.kind == "null" or self.kind == "string" and self.end - self.start == 2


class Members(dict[str, Member]):
    """The members of an object, by folded key. `start`: where its opening brace stands, or its null."""

    def __init__(self, body: Bytes, start: int):
        super().__init__()
        self.body, self.start = body, start


def read_members(body: Bytes, empty: str = "missing request body",
                 other: str = "the request body must be a JSON object, not {kind}") -> Members:
    """The members of the object in `body`. `empty` and `other` are what is said to a body with nothing in it, or another `kind` of value.

    Raises BadRequest, and BodyTooLarge for one that is small but full. Costs one pass over the bytes and copies none.
    """
    scanner = Scanner(body)
    try:
        start = scanner.space(0)
    except BadRequest:
        raise BadRequest(empty) from None
    if body[start] == ord("{"):
        return _members(scanner, body, start)
    kind = scanner.value(start).kind
    if kind != "null":
        raise BadRequest(other.format(kind=kind))
    return Members(body, start)                 # Go takes null for an empty object


def _members(scanner: Scanner, body: Bytes, start: int) -> Members:
    members = Members(body, start)
    for count, (key, value) in enumerate(scanner.members(start)):
        if count == MEMBERS_MAX:
            raise BadRequest(f"the request body has more than {MEMBERS_MAX} members")
        name = fold(text_of(body, key))
        if name in members and name in ROUTING_KEYS:
            raise BadRequest(f"'{name}' is given twice; whoever reads the first and whoever reads the last would disagree")
        members[name] = Member(body, *value)
    return members


def text_of(body: Bytes, key: Span) -> str:
    """A key, decoded; of one that is too long to be known, the beginning."""
    if key.end - key.start > KEY_MAX:
        return str(body[key.start + 1:key.start + KEY_MAX], "utf-8", "replace") + "…"
    return _decode(body, key.start, key.end)


def _decode(body: Bytes, start: int, end: int, decoder: json.JSONDecoder = _decoder) -> object:
    """As Go does: what is not UTF-8, and a lone surrogate, is U+FFFD, one for each byte or escape."""
    text = str(body[start:end], "utf-8", "surrogateescape")
    if text[0] == '"' and "\\" not in text and text.isprintable():
        return text[1:-1]                       # nearly always, and a quarter of the cost
    try:
        value = decoder.decode(text)
    except (ValueError, RecursionError):
        raise BadRequest("the request body is not valid JSON") from None
    return _SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


def fold(key: str) -> str:
    """A key as Go's decoder compares it with a known one: letter case, the Kelvin sign and the long s do not count."""
    return key.lower().replace("ſ", "s")


# -- changes -------------------------------------------------------------------------------------------------------

class Edit(NamedTuple):
    """`text` instead of the bytes from `start` to `end`. Several at one place stand in the order they are given in."""

    start: int
    end: int
    text: Bytes


def splice(body: Bytes, edits: Iterable[Edit]) -> Pieces:
    """`body` with the changes, of which no two overlap; its own bytes are not copied."""
    view, at, pieces = memoryview(body), 0, []
    for start, end, text in sorted(edits, key=lambda edit: edit.start):
        pieces += [view[at:start], text]
        at = end
    return tuple(filter(None, [*pieces, view[at:]]))


def replacing(member: Member, value: object) -> Edit:
    """Another value in the place of `member`."""
    return Edit(member.start, member.end, json.dumps(value).encode())


def inserting(members: Members, values: dict[str, object]) -> Edit:
    """More members in front of those that are there. Of two with one key Go takes the last: make sure that there is none yet, and
    if there are no members at all, insert once."""
    if members.body[members.start] != ord("{"):
        return Edit(members.start, members.start + len("null"), json.dumps(values).encode())
    return _insertion(members.start, values, alone=not members)


def _insertion(start: int, values: dict[str, object], alone: bool) -> Edit:
    """`values` behind the brace at `start`."""
    return Edit(start + 1, start + 1, (json.dumps(values)[1:-1] + ("" if alone else ",")).encode())


def setting(members: Members, values: dict[str, object]) -> list[Edit]:
    """`values` set at the top level, whether they are there or not."""
    found = [replacing(members[key], value) for key, value in values.items() if key in members]
    missing = {key: value for key, value in values.items() if key not in members}
    return [*found, inserting(members, missing)] if missing else found


def setting_inside(members: Members, outer: str, values: dict[str, object], known: Container[str] | None = None) -> list[Edit]:
    """`values` set in the object `outer`, which is made if it is not there. Nothing, if it is something else: Ollama will say so. What is in there
    and not `known` goes.

    Ollama compares the keys of `options` letter by letter (api/types.go, Options.FromMap), so that only the exact key counts; those that
    differ from it in letter case alone are set all the same, lest anybody count them.
    """
    member = members.get(outer)
    if member is None:
        return [inserting(members, {outer: values})]
    if member.kind == "null":
        return [replacing(member, values)]
    if member.kind != "object":
        return []
    if known is not None:
        return [_written_anew(member, values, known)]
    body, edits, missing, alone = members.body, [], dict(values), True
    for name, span in Scanner(body).members(member.start):
        alone = False
        text = text_of(body, name)
        if (key := fold(text)) in values:       # whose keys are folded already
            edits.append(replacing(Member(body, *span), values[key]))
            missing.pop(text, None)
    return [_insertion(member.start, missing, alone), *edits] if missing else edits


def _written_anew(member: Member, values: dict[str, object], known: Container[str]) -> Edit:
    """An object with `values` and with those of its members that are `known`, as they stood."""
    body, pieces = member.body, [json.dumps(values)[1:-1].encode()] if values else []
    for name, span in Scanner(body).members(member.start):
        if (key := text_of(body, name)) in known and key not in values:
            pieces.append(bytes(memoryview(body)[name.start:span.end]))
    return Edit(member.start, member.end, b"{%b}" % b",".join(pieces))


def replace(body: Bytes, member: Member, value: object) -> Pieces:
    """`body` with another value in the place of `member`."""
    return splice(body, [replacing(member, value)])


def insert(body: Bytes, values: dict[str, object]) -> Pieces:
    """`body` with more members at its top level; see `inserting`. Reads it anew. Raises BadRequest."""
    return splice(body, [inserting(read_members(body), values)])


def set_inside(body: Bytes, outer: str, values: dict[str, object], known: Container[str] | None = None) -> Pieces:
    """`body` with `values` set in its member `outer`; see `setting_inside`. Reads it anew. Raises BadRequest."""
    return splice(body, setting_inside(read_members(body), outer, values, known))
