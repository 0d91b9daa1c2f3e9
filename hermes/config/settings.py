"""Every setting of hermes.toml, in one table, and how its value is read. Pure.

The table drives the parser, the checks, the shipped hermes.toml and the README; tests hold the last two to it.
A reader takes what tomllib made of a value and returns the value Hermes uses, or raises ValueError with a text that
continues "'key' in [section] is VALUE: ", so that every message says what was found and what is wanted.
"""

import difflib
import math
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeGuard

from hermes.config.addresses import base_url, listen_address
from hermes.names import canonical

SHORTEST = 0.001  # seconds
LONGEST = 168 * 3600.0  # seconds. Not for ever: poll() counts milliseconds in a C int, which is full after 24 days
TIB = 2**40  # bytes

SECTIONS = ("server", "ollama", "defaults", "log", "models")
LEVELS = ("debug", "info", "warning", "error")
COSTS = ("low", "medium", "high")

_SECONDS = MappingProxyType({"ms": 0.001, "s": 1, "m": 60, "h": 3600})
_BYTES = MappingProxyType(
    {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    | {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": TIB}
)
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,18})?"
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_SIZE = re.compile(rf"({_NUMBER})({'|'.join(_BYTES)})")


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of one section. `default` is TOML text; "" where a model's table falls back to something else."""

    section: str
    key: str
    kind: str  # "address", "url", "folder", "duration", "duration or off", "size", "count", "level", "name" or "cost"
    default: str
    doc: str  # one line; it opens the key's comment in hermes.toml and fills its row in the README
    low: float = 0
    high: float = math.inf
    fallback: str = ""  # a foreign variable that is read when neither the file nor HERMES_… says anything

    @property
    def variable(self) -> str | None:
        """The environment variable that overrides it; None for a model's table, whose key is the user's own."""
        return None if self.section == "models" else f"HERMES_{self.section}_{self.key}".upper()


def _time(section: str, key: str, default: str, doc: str) -> Setting:
    return Setting(section, key, "duration", f'"{default}"', doc, SHORTEST, LONGEST)


def _limit(key: str, default: str, doc: str) -> Setting:
    return Setting("ollama", key, "duration or off", f'"{default}"', doc, SHORTEST, LONGEST)


SETTINGS: tuple[Setting, ...] = (
    Setting("server", "listen", "address", '"127.0.0.1:11435"', "Where Hermes listens, as host:port."),
    Setting("server", "drain_timeout", "duration", '"8s"', "How long a stop waits for running requests.", 0, LONGEST),
    Setting("server", "max_body", "size", '"64MiB"', "The largest request body that is read.", 1, TIB),
    Setting("server", "max_connections", "count", "2048", "How many clients may be connected at once.", 1, 100_000),
    _time("server", "head_timeout", "5s", "How long a client may take to send a whole request head."),
    _time("server", "body_timeout", "60s", "How long a client may take to send a whole request body."),
    _time("server", "keepalive_timeout", "75s", "How long a connection may idle between two requests."),
    _time("server", "send_timeout", "30s", "How long one write may wait for a client that does not read."),
    Setting("server", "heartbeat", "duration or off", '"15s"', "After how long a waiting stream shows signs of life.", SHORTEST, LONGEST),
    Setting("server", "heartbeat_plain", "duration or off", '"off"', "The same for an answer that is not streamed.", SHORTEST, LONGEST),
    Setting("server", "state_dir", "folder", '""', "The folder that keeps the usage over a restart; none keeps it in memory."),
    Setting("ollama", "url", "url", '"http://127.0.0.1:11434"', "Where Ollama is.", fallback="OLLAMA_HOST"),
    _time("ollama", "connect_timeout", "2s", "How long one attempt to connect to Ollama may take."),
    _limit("first_byte_timeout", "10m", "How long Ollama may take to begin an answer; a load is part of it."),
    _limit("idle_timeout", "2m", "How long an answer that has begun may fall silent."),
    _limit("total_timeout", "1h", "How long one call to Ollama may take altogether."),
    Setting("defaults", "max_concurrency", "count", "1", "Calls at Ollama at once, for each model.", 1, 256),
    Setting("defaults", "max_queue", "count", "64", "Requests that may wait, for each model.", 0, 100_000),
    _time("defaults", "queue_timeout", "60s", "How long a request may wait for its turn."),
    _time("defaults", "dismiss_after", "5m", "After how long the idle workers of an unlisted model leave."),
    Setting("log", "level", "level", '"info"', "The least serious event that is logged."),
    Setting("models", "model", "name", "", "Ollama's name for the model; left out, the table's own name."),
    Setting("models", "max_concurrency", "count", "", "Calls at Ollama at once; else as in [defaults].", 1, 256),
    Setting("models", "max_queue", "count", "", "Requests that may wait; else as in [defaults].", 0, 100_000),
    Setting(
        "models", "queue_timeout", "duration", "", "How long one may wait; else as in [defaults].", SHORTEST, LONGEST
    ),
    Setting("models", "memory_cost", "cost", "", "The memory it needs: low, medium, high or a size.", 1, 1024 * TIB),
)

def read(setting: Setting, value: object) -> object:
    """The value Hermes uses for what the file holds. Raises ValueError: what is wanted instead.

    Seconds as float ("off" is math.inf), bytes and counts as int, an address as (host, port), all else as text.
    """
    match setting.kind:
        case "duration" | "duration or off":
            return _duration(setting, value)
        case "size":
            return _size(setting, value)
        case "count":
            return _count(setting, value)
        case "cost":
            return value if value in COSTS and isinstance(value, str) else _size(setting, value)
    return _text(setting, value)


def from_text(setting: Setting, text: str) -> object:
    """What an environment variable's text would be in TOML: a bare number where a number may stand, else text."""
    text = text.strip()
    if setting.kind in ("count", "size") and re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if setting.kind in ("duration", "duration or off") and re.fullmatch(rf"[+-]?{_NUMBER}", text):
        return float(text)
    return text


def nearest(word: str, known: tuple[str, ...]) -> str | None:
    """The known word that was most likely meant, if any comes near."""
    return next(iter(difflib.get_close_matches(word.lower(), known, n=1)), None)


def _duration(setting: Setting, value: object) -> float:
    """Seconds."""
    may_be_off = setting.kind == "duration or off"
    if may_be_off and value == "off":
        return math.inf
    if isinstance(value, str) and re.fullmatch(_NUMBER, value):
        raise ValueError(f'it has no unit; wanted is "{value}s", "{value}ms" or a number without quotes (seconds)')
    seconds = math.nan
    if isinstance(value, str) and _DURATION.fullmatch(value):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    elif _is_number(value):
        seconds = float(value)
    if not setting.low <= seconds <= setting.high:  # nan is in no range
        limits = f"{setting.low * 1000:g}ms to {setting.high / 3600:g}h" + (', or "off"' if may_be_off else "")
        raise ValueError(f'wanted is a time such as "250ms", "30s" or "1m30s", {limits}')
    return seconds


def _size(setting: Setting, value: object) -> int:
    """Bytes."""
    size = -1
    if isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        size = round(float(match[1]) * _BYTES[match[2]])
    elif _is_number(value) and isinstance(value, int):
        size = value
    if not setting.low <= size <= setting.high:
        words = "low, medium, high or " if setting.kind == "cost" else ""
        limits = f"{setting.low:g} byte to {setting.high / TIB:g}TiB"
        raise ValueError(f'wanted is {words}a size such as "64MiB", "2.5GB" or a number of bytes, {limits}')
    return size


def _count(setting: Setting, value: object) -> int:
    if not (_is_number(value) and isinstance(value, int) and setting.low <= value <= setting.high):
        raise ValueError(f"wanted is a whole number, {setting.low:.0f} to {setting.high:.0f}")
    return value


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a TOML number; Python takes true for 1, TOML does not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(setting: Setting, value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("wanted is text in quotes")
    match setting.kind:
        case "address":
            return listen_address(value)
        case "url":
            return base_url(value)
        case "name":
            return _model_name(value)
        case "folder":
            return _folder(value)
    return _level(value)


def _level(value: str) -> str:
    level = value.lower()  # LOG_LEVEL=INFO is how most people write it
    if level not in LEVELS:
        near = nearest(level, LEVELS)
        meant = f' (did you mean "{near}"?)' if near else ""
        raise ValueError(f"wanted is one of {', '.join(LEVELS)}{meant}")
    return level


def _folder(value: str) -> str:
    if not value.isprintable():
        raise ValueError("wanted is the path of a folder")
    return value


def _model_name(value: str) -> str:
    try:
        canonical(value)
    except ValueError:
        raise ValueError('not a model name; wanted is one such as "gemma3:270m" or "hf.co/user/repo:Q4_K_M"') from None
    return value.strip(" ")
