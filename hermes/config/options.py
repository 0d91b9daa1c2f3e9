"""Ollama's model options: which there are, of what type, and what a number may be at all (ollama-api.md §1.13). Pure.

Types are in the words of Ollama's own refusals. An integer may be written with a fraction, which Ollama cuts off. The limits are no taste:
beyond them a number cannot be passed on to the runner, or asks for memory and threads that no machine has.
"""

import difflib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

INT32, INT64 = 2**31 - 1, 2**63 - 1
FLOAT32 = 3.4e38  # the runner's floats are short; a larger number would be infinite there
CONTEXT_MAX = 2**24  # tokens; no model has been trained for as many


class Option(NamedTuple):
    """`low` and `high` are of a number."""

    type: str
    low: int | float = -FLOAT32
    high: int | float = FLOAT32


class Bound(NamedTuple):
    """What the operator lets requests say for an option; either end may be infinite."""

    name: str
    low: int | float
    high: int | float


Bounds = tuple[Bound, ...]

_FLOAT = Option("float32")
OPTIONS: Mapping[str, Option] = MappingProxyType({
    "num_keep": Option("integer", -1, INT32),
    "seed": Option("integer", -INT64, INT64),
    "num_predict": Option("integer", -INT64, INT64),
    "top_k": Option("integer", -INT32, INT32),
    "top_p": _FLOAT,
    "min_p": _FLOAT,
    "typical_p": _FLOAT,
    "repeat_last_n": Option("integer", -1, INT32),
    "temperature": _FLOAT,
    "repeat_penalty": _FLOAT,
    "presence_penalty": _FLOAT,
    "frequency_penalty": _FLOAT,
    "stop": Option("array"),
    "num_ctx": Option("integer", 0, CONTEXT_MAX),
    "num_batch": Option("integer", 0, CONTEXT_MAX),
    "num_gpu": Option("integer", -1, 65536),
    "main_gpu": Option("integer", -1, 1024),
    "use_mmap": Option("boolean"),
    "num_thread": Option("integer", 0, 4096),
    "draft_num_predict": Option("integer", 0, 65536),
})
NUMBERS = tuple(name for name, option in OPTIONS.items() if option.type in ("integer", "float32"))


def read(value: object) -> Bounds:
    """A table of bounds, in its order. Raises ValueError: what is wanted instead."""
    if not isinstance(value, dict):
        raise ValueError("wanted is a table such as { num_ctx = [0, 8192], temperature = [0, 2] }")
    return tuple(_bound(name, ends) for name, ends in value.items())


def _bound(name: str, ends: object) -> Bound:
    if name == "num_predict":
        raise ValueError("num_predict in it: what limits that, on every route, is max_output_tokens")
    if name not in NUMBERS:
        near = difflib.get_close_matches(name.lower(), NUMBERS, n=1)
        meant = f" (did you mean {near[0]}?)" if near else f"; those are {', '.join(NUMBERS)}"
        raise ValueError(f"{json.dumps(name)[:60]} in it is none of Ollama's options with a number{meant}")
    if not (isinstance(ends, list) and len(ends) == 2 and all(type(end) in (int, float) for end in ends) and ends[0] <= ends[1]):
        raise ValueError(f"{name} in it: wanted is [LEAST, GREATEST], such as [0, 8192] or [0, inf]")
    return Bound(name, *ends)


def between(low: float, high: float) -> str:
    """A range in words."""
    if high == float("inf"):
        return f"at least {low}"
    if low == -float("inf"):
        return f"at most {high}"
    return f"from {low} to {high}"
