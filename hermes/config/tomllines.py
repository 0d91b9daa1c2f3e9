"""Line numbers for a TOML text that tomllib has already accepted; tomllib itself gives none. Pure.

It only finds where keys stand, and trusts the text to be valid: it skips values without understanding them.
"""

import re
import tomllib
from collections.abc import Mapping

Path = tuple[str, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')[ \t]*(\.?)""")
_HEADER = re.compile(r"\[\[?")
# What a value is made of. The order counts: three quotes before one. The three that close a string may have up to
# two more of their kind before them, which belong to it.
_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:[^"\\]|\\.)*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|(?P<open>[\[{])"
    r"|(?P<close>[\]}])"
    r"|(?P<end>\n)"
    r"|[^\"'#\[\]{}\n]+",
    re.DOTALL,
)


def scan(text: str) -> dict[Path, int]:
    """The line (from 1) where each table and key first appears; keys of an inline table are not among them."""
    lines: dict[Path, int] = {}
    header: Path = ()
    line, counted, position = 1, 0, _match(_BLANK, text, 0).end()
    while position < len(text):
        line, counted = line + text.count("\n", counted, position), position
        opening = _HEADER.match(text, position)
        path, position = _key(text, opening.end() if opening else position)
        if opening:
            header, path = path, ()
        for length in range(1, len(header + path) + 1):
            lines.setdefault((header + path)[:length], line)
        position = _match(_BLANK, text, _after_value(text, position)).end()
    return lines


def line_of(lines: Mapping[Path, int], path: Path) -> int | None:
    """The line of a key, or of the nearest thing around it (an inline table, a header) that has one."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path)


def _key(text: str, position: int) -> tuple[Path, int]:
    """The parts of the key at a position, and where it ends."""
    parts: list[str] = []
    more = "."
    while more:
        match = _match(_PART, text, position)
        token, more, position = match[1], match[2], match.end()
        parts.append(tomllib.loads(f"key = {token}")["key"] if token[0] in "\"'" else token)
    return tuple(parts), position


def _after_value(text: str, position: int) -> int:
    """Where the statement ends: the first line end outside every string and bracket."""
    depth = 0
    for token in _TOKEN.finditer(text, position):
        if token["end"] and depth <= 0:
            return token.end()
        depth += bool(token["open"]) - bool(token["close"])
    return len(text)


def _match(pattern: re.Pattern[str], text: str, position: int) -> re.Match[str]:
    match = pattern.match(text, position)
    assert match is not None, f"tomllib would not have accepted this at {position}"
    return match
