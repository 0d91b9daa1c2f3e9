"""How the value of a setting is read, by its kind. Pure.

A reader takes what tomllib made of a value and returns the value Hermes uses, or raises ValueError with a text that
continues "'key' in [section] is VALUE: ", so that every message says what was found and what is wanted.
"""

import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Callable
from types import MappingProxyType
from typing import TypeGuard

from hermes.config import keepalive, options
from hermes.config.addresses import admin_address, base_url, host_name, listen_address
from hermes.config.settings import CLASSES, COSTS, FORMATS, KEY_PREFIX, LEVELS, OFF, OLLAMAS, TIB, Setting
from hermes.names import canonical, canonical_pattern

_SECONDS = MappingProxyType({"ms": 0.001, "s": 1, "m": 60, "h": 3600})
_BYTES = MappingProxyType(
    {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    | {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": TIB}
)
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,18})?"
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_SIZE = re.compile(rf"({_NUMBER})({'|'.join(_BYTES)})")
_ORIGIN = re.compile(r"\*|(?:[a-z*][a-z0-9+.*-]*://|\*)[^\s/,?#@]+|file://", re.IGNORECASE)


def read(setting: Setting, value: object) -> object:
    """The value Hermes uses for what the file holds. Raises ValueError: what is wanted instead.

    Seconds as float ("off" is math.inf), bytes and counts as int, an address as (host, port), lists as tuples, of names canonical
    patterns, keep_alive as it is given, an admin address as in addresses.admin_address, all else as text. "ollama" is 0 for num_ctx and "" for
    keep_alive, and "off" is 0 for a count.
    """
    match setting.kind:
        case "hosts":
            return _several(value, host_name, 'a list of names or addresses such as ["hermes.example.com", "192.0.2.7"]')
        case "origins":
            return _several(value, _origin, 'a list of origins such as ["https://app.example.com", "https://*.example.org", "http://10.0.0.5:*"]')
        case "bool":
            return _bool(value)
        case "number":
            return _number(setting, value)
        case "names":
            return _patterns(value)
        case "duration" | "duration or off":
            return _duration(setting, value)
        case "size":
            return _size(setting, value)
        case "count":
            return _count(setting, value)
        case "count or off":
            return 0 if value == OFF else _count(setting, value, f', or "{OFF}"')
        case "bounds":
            return options.read(value)
        case "context":
            return 0 if value == OLLAMAS else _count(setting, value, f', or "{OLLAMAS}"')
        case "keep_alive":
            return "" if value == OLLAMAS else keepalive.read(value)
        case "cost":
            return value if value in COSTS and isinstance(value, str) else _size(setting, value)
    return _text(setting, value)


def from_text(setting: Setting, text: str) -> object:
    """What an environment variable's text would be in TOML: a bare number where a number may stand, else text."""
    text = text.strip()
    if setting.kind == "bool" and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if setting.kind in ("hosts", "origins"):
        return [item for part in text.strip("\"'").split(",") if (item := part.strip())]
    if setting.kind == "bounds":
        return _inline_table(text)
    if setting.kind in ("count", "count or off", "size", "context") and re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        return int(text)
    if setting.kind in ("duration", "duration or off", "keep_alive") and re.fullmatch(rf"[+-]?{_NUMBER}", text):
        return float(text)
    return text


def nearest(word: str, known: tuple[str, ...]) -> str | None:
    """The known word that was most likely meant, if any comes near: one that looks like it, or the only one it begins."""
    begun = [one for one in known if len(word) > 2 and one.startswith(f"{word.lower()}_")]
    return next(iter(difflib.get_close_matches(word.lower(), known, n=1)), begun[0] if len(begun) == 1 else None)


def _duration(setting: Setting, value: object) -> float:
    """Seconds."""
    may_be_off = setting.kind == "duration or off"
    if may_be_off and value == OFF:
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


def _count(setting: Setting, value: object, more: str = "") -> int:
    if not (_is_number(value) and isinstance(value, int) and setting.low <= value <= setting.high):
        raise ValueError(f"wanted is a whole number, {setting.low:.0f} to {setting.high:.0f}{more}")
    return value


def _number(setting: Setting, value: object) -> float:
    if not (_is_number(value) and setting.low <= value <= setting.high):
        raise ValueError(f"wanted is a number, {setting.low:g} to {setting.high:g}")
    return float(value)


def _bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("wanted is true or false")
    return value


def _inline_table(text: str) -> object:
    """What an environment variable's text would be as the value of a key; the text itself, if it would be nothing."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text


def _is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is a TOML number; Python takes true for 1, TOML does not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _several(value: object, read_one: Callable[[str], str], wanted: str) -> tuple[str, ...]:
    """Each of a list, read; the message names the one that is wrong."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"wanted is {wanted}")
    read_ones = []
    for one in value:
        try:
            read_ones.append(read_one(one))
        except ValueError as error:
            raise ValueError(f"{json.dumps(one)[:60]} in it: {error}") from None
    return tuple(read_ones)


def _origin(value: str) -> str:
    """As a browser says it, in lower case: scheme://host, with :port unless it is the scheme's own. One * stands for anything."""
    if value.count("*") > 1:
        raise ValueError("only one * may stand in an origin")
    if value.endswith("/") and _ORIGIN.fullmatch(value[:-1]):
        raise ValueError("an origin has no path; leave out the / at its end")
    if not _ORIGIN.fullmatch(value):
        raise ValueError('wanted is scheme://host or scheme://host:port, one * in it, or "*" alone for every page there is')
    return value.lower()


def _text(setting: Setting, value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("wanted is text in quotes")
    match setting.kind:
        case "address":
            return listen_address(value)
        case "admin address":
            return admin_address(value)
        case "url":
            return base_url(value)
        case "name":
            return _model_name(value)
        case "key":
            return _key_hash(value)
        case "class":
            return _one_of(CLASSES, value)
        case "format":
            return _one_of(FORMATS, value.lower())
        case "folder":
            return _folder(value)
        case "file":
            return _file_name(value)
    return _one_of(LEVELS, value.lower())  # LOG_LEVEL=INFO is how most people write it


def _one_of(words: tuple[str, ...], value: str) -> str:
    if value not in words:
        near = nearest(value, words)
        meant = f' (did you mean "{near}"?)' if near else ""
        raise ValueError(f"wanted is one of {', '.join(words)}{meant}")
    return value


def _key_hash(value: str) -> str:
    """In lower case. The message never has the value: some paste the key itself."""
    if value.startswith(KEY_PREFIX):
        raise ValueError("that is the key itself; wanted is its SHA-256, which was printed with it")
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", value):
        raise ValueError("wanted is a SHA-256 as 64 hex digits; `python -m hermes key NAME` makes a key and says it")
    if value.lower() == hashlib.sha256().hexdigest():
        raise ValueError("that is the SHA-256 of nothing; `python -m hermes key NAME` makes a key and says its own")
    return value.lower()


def _file_name(value: str) -> str:
    if "\0" in value:
        raise ValueError("wanted is the name of a file")
    return value


def _patterns(value: object) -> tuple[str, ...]:
    wanted = 'wanted is a list of model names such as ["gemma3:270m", "llama3*"]'
    if not isinstance(value, list) or not value:
        raise ValueError(f"{wanted}; left out, it is every model")
    for name in value:
        try:
            canonical_pattern(name if isinstance(name, str) else "")
        except ValueError:
            raise ValueError(f"{wanted}, and {json.dumps(name, default=str)[:60]} cannot be one") from None
    return tuple(map(canonical_pattern, value))


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
