"""keep_alive, checked as Ollama reads it: a number of seconds, or text as for Go's time.ParseDuration (ollama-api.md §3.4). Pure."""

import math
import re
from types import MappingProxyType

LARGEST = (2**63 - 1) / 1e9  # seconds, 292 years: Go counts nanoseconds in 64 bits
SHORTEST = 1.0  # seconds; a shorter one would unload the model between the request that says it and the next

_UNITS = MappingProxyType({"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0})
_PART = re.compile(rf"([0-9]+\.?[0-9]*|\.[0-9]+)({'|'.join(_UNITS)})")
_DURATION = re.compile(rf"[+-]?(?:0|(?:{_PART.pattern})+)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?")


def read(value: object) -> str | int | float:
    """The value as it was given, for Ollama to read it again. Raises ValueError: what is wanted instead."""
    if isinstance(value, str) and _NUMBER.fullmatch(value) and float(value):
        raise ValueError(f'it has no unit, so Ollama would refuse it; wanted is "{value}s" or a number without quotes (seconds)')
    total = seconds(value)
    if not -LARGEST <= total <= LARGEST:  # nan is in no range
        raise ValueError('wanted is a time such as "5m" or "1h30m", a number of seconds, -1 for ever, or "ollama"')
    if 0 <= total < SHORTEST:
        raise ValueError("shorter than 1s, so the model would be loaded again for every request; wanted is more, or -1 for ever")
    return value


def seconds(value: object) -> float:
    """Of what a request or the configuration says, below zero for ever; nan for what is no time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        return math.nan
    total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(value))
    return -total if value.startswith("-") else total
