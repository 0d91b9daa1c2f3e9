"""[clients.NAME] tables → frozen settings: who may ask, for what and how much. They stand in hermes.toml, or in the file
that `[server] clients_file` names; a mistake in either is said with its file and line.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hermes.config.reading import Reading, heading, quoted
from hermes.config.settings import CLASSES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}")


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """One [clients.NAME] table. None where nothing limits."""

    name: str
    key_sha256: str  # 64 hex digits in lower case
    weight: float
    max_class: str  # the best class it may ask for
    default_class: str  # the class of a call that asks for none; never better than max_class
    max_concurrency: int | None  # calls running at once, all models together
    requests_per_minute: int | None  # in any 60 seconds
    tokens_per_day: int | None
    models: tuple[str, ...]  # canonical patterns; ("*",) is every model
    manage: bool


def is_client_name(name: str) -> bool:
    """Names go into log lines, so they are one plain word."""
    return bool(_NAME.fullmatch(name))


def read_clients(*files: Reading | None) -> tuple[ClientSettings, ...]:
    """The clients of every file that can be told apart; whatever is wrong with the others is a problem by then."""
    seen: dict[str, tuple[Reading, ClientSettings]] = {}  # by key
    names: dict[str, Reading] = {}
    for reading in filter(None, files):
        for name, values in reading.tables("clients"):
            path = ("clients", name)
            if name in names:
                reading.problem(path, f"{heading(path)} is in {names[name].where(*path)} as well: keep one of the tables")
                continue
            names[name] = reading
            client = _client(reading, name, values)
            if client is None:
                continue
            if other := seen.get(client.key_sha256):
                there = other[0].where("clients", other[1].name, "key_sha256")
                reading.problem(
                    (*path, "key_sha256"),
                    f"{heading(path)} has the key of {heading(('clients', other[1].name))} ({there}): "
                    f"make another with `python -m hermes key {name}`",
                )
            else:
                seen[client.key_sha256] = reading, client
    return tuple(client for _, client in seen.values())


def _client(reading: Reading, name: str, values: dict[str, Any]) -> ClientSettings | None:
    """The client, or None and a problem."""
    path = ("clients", name)
    problems = tuple(_problems(name, values, reading.has(*path, "key_sha256"), reading.has(*path, "default_class")))
    for key, text in problems:
        reading.problem((*path, key) if key else path, text)
    if problems or "key_sha256" not in values:
        return None
    for key in ("max_concurrency", "requests_per_minute", "tokens_per_day"):
        values.setdefault(key, None)
    values.setdefault("default_class", max("normal", values["max_class"], key=CLASSES.index))
    return ClientSettings(name=name, **values)


def _problems(name: str, values: dict[str, Any], has_key: bool, has_class: bool) -> Iterator[tuple[str, str]]:
    """(key, text) for what is wrong with a table although each of its values is right."""
    where = heading(("clients", name))
    if not is_client_name(name):
        yield "", f"{where}: wanted is a name of letters, digits and any of _ . @ + -, at most 64 of them"
    elif not has_key:
        yield "", f"{where} has no key_sha256; `python -m hermes key {name}` makes a key and says what to write"
    best, default = values["max_class"], values.get("default_class", "background")
    if has_class and CLASSES.index(default) < CLASSES.index(best):
        yield "default_class", (
            f"'default_class' in {where} is {quoted(default)}, which is better than its max_class, {quoted(best)}: "
            "make it the same, or leave it out"
        )
