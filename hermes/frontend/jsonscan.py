"""Where the parts of a JSON text stand: an object's members, an array's elements, without making their values. Pure.

Strings are passed over by looking for the next quote, nested values by counting brackets, all in windows, so that no call keeps the
interpreter from other threads for more than a few milliseconds, whatever the body holds.

What is wrong is said as Go's decoder says it (encoding/json/scanner.go; ollama-api.md §2.2). Inside strings and nested values only that is
noticed which moves their end: such a body goes on to Ollama, which refuses it. So the promise is: where Go takes a text, its parts
stand where they are found here.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from hermes.errors import BadRequest, BodyTooLarge
from hermes.workers.messages import Bytes

WINDOW = 1 << 20            # bytes that one call of a regular expression looks at: 4 ms at the slowest
DEPTH_MAX = 10_000          # Go's own limit
TOKENS_MAX = 1_000_000      # strings and brackets; each costs a quarter of a microsecond
NUMBER_MAX = WINDOW         # bytes

_SPACE = re.compile(rb"[ \t\n\r]*+")
_NEXT_QUOTE = re.compile(rb'"')
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
# It begins with a set of characters, because `re` then looks for one of them first: twenty times as fast as trying at each byte.
_TOKEN = re.compile(rb'[\[{\]}"](?:(?<=[\[{])()|(?<=[\]}])()|[^"\\]*+(?:\\.[^"\\]*+)*+"|())', re.DOTALL)
_OPENING, _CLOSING, _LONG_STRING = 1, 2, 3                  # groups of _TOKEN; a string that ends in the window has none
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*+)(\.[0-9]++)?+([eE][+-]?[0-9]++)?+")
_WORDS = {word[0]: word for word in (b"true", b"false", b"null")}
_KINDS = {ord("{"): "object", ord("["): "array", ord("t"): "bool", ord("f"): "bool", ord("n"): "null"}
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", "'": "\\'"}
_BLANK, _QUOTE, _COMMA, _MINUS, _ZERO, _NINE, _COLON, _BRACKET, _BACKSLASH, _END_BRACKET, _BRACE, _END_BRACE = b' ",-09:[\\]{}'


class Span(NamedTuple):
    """A value's place in the body, in bytes, and its kind in Go's words: string, number, bool, null, object, array."""

    kind: str
    start: int
    end: int


class Scanner:
    """One pass over one body. Every method raises BadRequest, and BodyTooLarge when there is too much in it."""

    def __init__(self, body: Bytes):
        self._body = body
        self._size = len(body)
        self._left = TOKENS_MAX
        self._depth = 0                         # brackets open around the place we are at

    def space(self, at: int) -> int:
        """The first byte from `at` on that is not white space."""
        if at + 1 < self._size:                 # nearly always none or one, and the expression below costs more than all the rest
            if self._body[at] > _BLANK:
                return at
            if self._body[at] == _BLANK and self._body[at + 1] > _BLANK:
                return at + 1
        while True:
            end = _SPACE.match(self._body, at, at + WINDOW).end()
            if end < at + WINDOW:
                break
            at = end
        if end >= self._size:
            raise self._wrong(end, "")
        return end

    def value(self, at: int) -> Span:
        """The value that begins at `at`."""
        code = self._body[at]
        if code == _QUOTE:
            self._left -= 1
            if self._left < 0:
                raise _too_many()
            return Span("string", at, self._string(at + 1))
        if code == _BRACE or code == _BRACKET:
            return Span(_KINDS[code], at, self._nested(at))
        if code in _WORDS:
            return Span(_KINDS[code], at, self._word(at, _WORDS[code]))
        if code == _MINUS or _ZERO <= code <= _NINE:
            return Span("number", at, self._number(at))
        raise self._wrong(at, "looking for beginning of value")

    def members(self, at: int) -> Iterator[tuple[Span, Span]]:
        """Key and value of each member of the object that begins at `at`."""
        body, self._depth = self._body, self._depth + 1
        at = self.space(at + 1)
        while body[at] != _END_BRACE:
            if body[at] != _QUOTE:
                raise self._wrong(at, "looking for beginning of object key string")
            key = self.value(at)
            at = self.space(key.end)
            if body[at] != _COLON:
                raise self._wrong(at, "after object key")
            value = self.value(self.space(at + 1))
            yield key, value
            at = self.space(value.end)
            if body[at] == _COMMA:
                at = self.space(at + 1)
                if body[at] == _END_BRACE:
                    raise self._wrong(at, "looking for beginning of object key string")
            elif body[at] != _END_BRACE:
                raise self._wrong(at, "after object key:value pair")
        self._depth -= 1

    def elements(self, at: int) -> Iterator[Span]:
        """The elements of the array that begins at `at`."""
        body, self._depth = self._body, self._depth + 1
        at = self.space(at + 1)
        while body[at] != _END_BRACKET:
            value = self.value(at)
            yield value
            at = self.space(value.end)
            if body[at] == _COMMA:
                at = self.space(at + 1)
                if body[at] == _END_BRACKET:
                    raise self._wrong(at, "looking for beginning of value")
            elif body[at] != _END_BRACKET:
                raise self._wrong(at, "after array element")
        self._depth -= 1

    def _string(self, at: int) -> int:
        """The place behind the quote that ends the string `at` is in."""
        body = self._body
        while True:
            edge = at + WINDOW if at + WINDOW < self._size else self._size
            quote = _NEXT_QUOTE.search(body, at, edge)
            end = quote.start() if quote else edge
            if end == at or body[end - 1] != _BACKSLASH:
                if quote:
                    return end + 1
                at = end
            else:                               # only reading on from `at` tells if the backslash is itself escaped
                at = _IN_STRING.match(body, at, edge).end()
            if edge == self._size and not quote:
                raise self._wrong(edge, "")

    def _nested(self, at: int) -> int:
        """The place behind the bracket that closes the one at `at`. Which kind of bracket it is does not matter: Go refuses a wrong one."""
        body, depth, room = self._body, 0, DEPTH_MAX - self._depth
        while at < self._size:
            for token in _TOKEN.finditer(body, at, at + WINDOW):
                self._left -= 1
                if self._left < 0:
                    raise _too_many()
                kind = token.lastindex
                if kind == _OPENING:
                    depth += 1
                    if depth > room:
                        raise self._wrong(token.start(), "exceeded max depth")
                elif kind == _CLOSING:
                    depth -= 1
                    if not depth:
                        return token.end()
                elif kind == _LONG_STRING:
                    at = self._string(token.end())
                    break
            else:
                at += WINDOW
        raise self._wrong(self._size, "")

    def _word(self, at: int, word: bytes) -> int:
        if self._body[at:at + len(word)] == word:
            return at + len(word)
        for place, wanted in enumerate(word, at):
            if place >= self._size or self._body[place] != wanted:
                break
        raise self._wrong(place, f"in literal {word.decode()} (expecting '{chr(wanted)}')")

    def _number(self, at: int) -> int:
        match = _NUMBER.match(self._body, at, at + NUMBER_MAX)
        if not match:
            raise self._wrong(at + 1, "in numeric literal")
        end = match.end()
        if end - at >= NUMBER_MAX - 2:          # a point, or an exponent's beginning, may have been cut off
            raise BadRequest("a number in the request body is too long")
        follows = bytes(self._body[end:end + 2])
        if follows[:1] == b"." and not match[1] and not match[2]:
            raise self._wrong(end + 1, "after decimal point in numeric literal")
        if follows[:1] in (b"e", b"E") and not match[2]:
            raise self._wrong(end + 1 + (follows[1:] in (b"+", b"-")), "in exponent of numeric literal")
        return end

    def _wrong(self, at: int, context: str) -> BadRequest:
        if at >= self._size:
            return BadRequest("unexpected EOF")
        return BadRequest(f"invalid character {quoted(self._body[at])} {context}")


def quoted(code: int) -> str:
    """A byte as Go's errors show it."""
    char = chr(code)
    if char in _ESCAPES or char.isprintable():
        return f"'{_ESCAPES.get(char, char)}'"
    return f"'\\x{code:02x}'" if code < 0x80 else f"'\\u{code:04x}'"


def _too_many() -> BodyTooLarge:
    return BodyTooLarge(f"the request body has more than {TOKENS_MAX} strings and brackets")
