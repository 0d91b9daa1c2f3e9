"""What the stand-in says: the same words for the same prompt, in tokens; and JSON as Go writes it."""

import json
import math
import random
import time
from functools import lru_cache
from zlib import crc32

# A few words need escaping in JSON or several bytes in UTF-8, so that every answer exercises both.
WORDS = (
    " the", " a", " of", " river", " light", " and", " stone", " under", " quiet", " café", " hand", " over",
    " seven", " winds", " carry", " old", " letters", " to", " <b>", " Zürich", " \"home\"", " again", " 🌍", " slow",
    " bread", " &", " salt", " before", " morning", " it", " was", " said",
)

_GO_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(value: object) -> bytes:
    """JSON as Go's encoder writes it: compact, raw UTF-8, HTML characters escaped (ollama-api.md §1.2)."""
    return _encode(value).translate(_GO_ESCAPES).encode("utf-8", "replace")


_FRAGMENTS = tuple(encode(word)[1:-1] for word in WORDS)


def _pick(seed: int, index: int) -> int:
    return crc32(b"%d" % index, seed) % len(WORDS)


def expected_text(prompt: str, tokens: int) -> str:
    """The whole answer to a prompt, `tokens` tokens long."""
    seed = crc32(prompt.encode("utf-8", "replace"))
    return "".join(WORDS[_pick(seed, index)] for index in range(tokens)).removeprefix(" ")


def expected_thinking(prompt: str, tokens: int = 4) -> str:
    """What a model that can think says before its answer to a prompt, `tokens` tokens long."""
    return expected_text(thinking_of(prompt), tokens)


def thinking_of(prompt: str) -> str:
    """What the thoughts depend on instead of the prompt, so that they are other words than the answer's."""
    return f"thinking of {prompt}"


class Tokens:
    """The tokens of one answer, escaped to be put between the quotes of a JSON string. Token 0 has no leading space."""

    def __init__(self, prompt: str) -> None:
        self._seed = crc32(prompt.encode("utf-8", "replace"))

    def fragment(self, index: int) -> bytes:
        """Token `index`, escaped for JSON."""
        fragment = _FRAGMENTS[_pick(self._seed, index)]
        return fragment if index else fragment.removeprefix(b" ")


def prompt_tokens(prompt: str) -> int:
    """How many tokens a prompt counts for: about one in five characters, and the template's own."""
    return 10 + len(prompt) // 5


def vector(text: str, size: int) -> list[float]:
    """A repeatable embedding of length 1."""
    source = random.Random(crc32(text.encode("utf-8", "replace")))
    return normalise([source.uniform(-1, 1) for _ in range(size)])


def normalise(values: list[float]) -> list[float]:
    """The same direction with length 1, in about the digits of a float32."""
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return [float(f"{value / length:.8g}") for value in values]


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def timestamp(nanoseconds: int) -> str:
    """RFC 3339 with up to nine fraction digits, trailing zeros trimmed (ollama-api.md §1.2)."""
    second, fraction = divmod(nanoseconds, 1_000_000_000)
    digits = f".{fraction:09d}".rstrip("0").rstrip(".")
    return f"{_second(second)}{digits}Z"


@lru_cache(maxsize=8)
def http_date(second: int) -> bytes:
    """The value of a Date header."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(second)).encode("ascii")
