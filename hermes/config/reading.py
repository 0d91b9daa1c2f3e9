"""One configuration file and one environment while they are read: checked values out, every problem collected.

What the values mean together is the package's business; what one value may be is values.py's.
"""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hermes.config import trust
from hermes.config.settings import NAMED, SECTIONS, SETTINGS, Setting
from hermes.config.tomllines import Path, line_of, scan
from hermes.config.values import from_text, nearest, read
from hermes.names import canonical

ENVIRONMENT = "environment"  # the "file" of a problem that a variable caused
LARGEST_FILE = 2**20  # bytes; no configuration is that long, and /dev/zero is longer
LONGEST_SHOWN = 60  # characters of a wrong value in a message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `key` is a dotted key of the file, or the name of a variable."""

    file: str
    line: int | None
    key: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.text}" if self.line else f"{self.file}: {self.text}"


class ConfigError(Exception):
    """Everything that is wrong with a configuration; as text, one line a problem."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Given:
    """One value as it was given, and where: `at` is a problem that lacks its text."""

    value: Any
    at: Problem
    label: str
    is_default: bool = False
    is_secret: bool = False

    def problem(self, text: str) -> Problem:
        value = "***" if self.is_secret else shown(self.value)
        return Problem(self.at.file, self.at.line, self.at.key, f"{self.label} is {value}: {text}")


class Reading:
    """The problems found so far, and where each value of the fixed sections was given (by "section.key").

    `sections` are those that the file may have.
    """

    def __init__(self, file: str, environ: Mapping[str, str], sections: tuple[str, ...] = SECTIONS) -> None:
        self.file = file
        self.environ = environ
        self._sections = sections
        self.problems: list[Problem] = []
        self.given: dict[str, Given] = {}
        self._data: dict[str, Any] = {}
        self._lines: dict[Path, int] = {}

    def finish(self) -> None:
        """Raise ConfigError if anything was wrong: each file's problems from top to bottom, then the environment's."""
        if self.problems:
            files = list(dict.fromkeys((self.file, *(problem.file for problem in self.problems))))
            raise ConfigError(tuple(sorted(self.problems, key=lambda p: (p.file == ENVIRONMENT, files.index(p.file), p.line or 0))))

    def file_text(self) -> str | None:
        """The text of the file, or None and a problem."""
        try:
            with open(self.file, "rb") as stream:
                if reason := trust.fault_of(self.file, stream.fileno()):
                    self.problem((), reason)
                    return None
                content = stream.read(LARGEST_FILE + 1)
            if len(content) > LARGEST_FILE:
                raise ValueError(f"larger than {LARGEST_FILE} bytes")
            return content.decode("utf-8-sig")  # Windows editors begin a file with a byte order mark
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self.problem((), f"not UTF-8 text (byte {error.start})", line)
        except (OSError, ValueError) as error:
            self.problem((), f"cannot read the file: {getattr(error, 'strerror', None) or error}")
        return None

    def document(self, text: str) -> dict[str, Any] | None:
        """The tables of a TOML text, or None and a problem; the sections are read from it afterwards."""
        try:
            self._data = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError is also a number of 5,000 digits
            self.problem((), *_not_toml(error, text))
            return None
        self._lines = scan(text)
        self._refuse_unknown((), self._data, self._sections)
        return self._data

    def section(self, name: str) -> dict[str, Any]:
        """Every value of a fixed section, by key; the default where there is none, or a wrong one."""
        table = self._table((name,), self._data.get(name, {}))
        values = {}
        for setting in _settings(name):
            given = self.given[f"{name}.{setting.key}"] = self._given(setting, (name,), table)
            value = self._read(setting, given)
            values[setting.key] = read(setting, _default(setting)) if value is None else value
        return values

    def models(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, the values that were given and are right) for each [models.NAME] with a possible name."""
        return ((name, values) for name, values in self.tables("models") if self._is_model_name(("models", name)))

    def tables(self, section: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name, values) for each [section.NAME]: what was given and is right, else the default if there is one."""
        for name, value in self._table((section,), self._data.get(section, {})).items():
            path = (section, name)
            table = self._table(path, value)
            values = {setting.key: read(setting, _default(setting)) for setting in _settings(section) if setting.default}
            given = {s: self._given(s, path, table) for s in _settings(section) if s.key in table}
            read_now = {setting.key: self._read(setting, one) for setting, one in given.items()}
            yield name, values | {key: value for key, value in read_now.items() if value is not None}

    def has(self, *path: str) -> bool:
        """Whether the file has this key of a table, right or wrong."""
        *tables, key = path
        data: Any = self._data
        for table in tables:
            data = data.get(table) if isinstance(data, dict) else None
        return isinstance(data, dict) and key in data

    def clash(self, section: str, name: str, other: str, text: str) -> None:
        """Two tables that cannot both be; the message names the lines of both."""
        line = line_of(self._lines, (section, other))
        path = (section, name)
        self.problem(path, f"{heading(path)} and {heading((section, other))} (line {line}) {text}")

    def where(self, *path: str) -> str:
        """ "file:line" of a key, for the message about another one."""
        return f"{self.file}:{line_of(self._lines, path)}"

    def _given(self, setting: Setting, path: Path, table: Mapping[str, Any]) -> Given:
        for variable in filter(None, (setting.variable, "" if setting.key in table else setting.fallback)):
            text = self.environ.get(variable, "")
            if text.strip(" \t\"'"):
                return Given(from_text(setting, text), Problem(ENVIRONMENT, None, variable, ""), variable)
        keys = (*path, setting.key)
        at = Problem(self.file, line_of(self._lines, keys), dotted(keys), "")
        label = f"{setting.key!r} in {heading(path)}"
        if setting.key in table:
            return Given(table[setting.key], at, label, is_secret=setting.kind == "key")
        return Given(_default(setting), at, label, is_default=True)

    def _read(self, setting: Setting, given: Given) -> Any:
        """The checked value, or None and a problem."""
        try:
            return read(setting, given.value)
        except ValueError as error:
            self.problems.append(given.problem(str(error)))
            return None

    def _table(self, path: Path, value: object) -> dict[str, Any]:
        """The value as a table with known keys only; whatever it is instead is a problem."""
        if not isinstance(value, dict):
            self.problem(path, f"{dotted(path)!r} is {shown(value)}: wanted is a table, {heading(path)}")
            return {}
        if path not in [(section,) for section in NAMED]:
            self._refuse_unknown(path, value, tuple(setting.key for setting in _settings(path[0])))
        return value

    def _refuse_unknown(self, path: Path, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
        for key, value in table.items():
            if key not in known:
                self.problem((*path, key), _unknown((*path, key), value, known))

    def _is_model_name(self, path: Path) -> bool:
        try:
            canonical(path[-1])
        except ValueError:
            self.problem(path, f"{heading(path)}: {quoted(path[-1])} is not a model name")
            return False
        return True

    def problem(self, path: Path, text: str, line: int | None = None) -> None:
        """One more thing that is wrong, with a key or table of this file."""
        self.problems.append(Problem(self.file, line or line_of(self._lines, path), dotted(path), text))


def _settings(section: str) -> Iterator[Setting]:
    return (setting for setting in SETTINGS if setting.section == section)


def _default(setting: Setting) -> Any:
    return tomllib.loads(f"default = {setting.default}")["default"]


def _unknown(path: Path, value: object, known: tuple[str, ...]) -> str:
    """What to say of a key nobody knows: the section it belongs in, else the known key that comes nearest."""
    key = path[-1]
    is_table = isinstance(value, dict | list)
    homes = [setting.section for setting in SETTINGS if setting.key == key]
    near = nearest(key, known)
    if path[0] in NAMED and isinstance(value, dict):
        hint = f" (a name with a dot needs quotes: {heading((path[0], '.'.join(path[1:])))})"
    elif homes and not is_table and not (near and path[0] == "clients"):
        hint = f" (it belongs in [{homes[0]}])"
    else:
        hint = f" (did you mean {heading((near,)) if len(path) == 1 else repr(near)}?)" if near else ""
    if len(path) == 1:
        return f"unknown section {heading(path)}{hint}" if is_table else f"unknown key {key!r} outside a section{hint}"
    return f"unknown key {key!r} in {heading(path[:-1])}{hint}"


def _not_toml(error: Exception, text: str) -> tuple[str, int | None]:
    """Text and line of a problem, from tomllib's message: before 3.14 its error has no other trace of the line."""
    if isinstance(error, RecursionError):
        return "not valid TOML: nested too deeply", None
    at = re.search(r"\(at line ([0-9]+), column [0-9]+\)$", str(error))
    end = text.rstrip().count("\n") + 1 if str(error).endswith("(at end of document)") else None
    twice = ": is the key there twice?" if "overwrite" in str(error) else ""
    return f"not valid TOML: {error}{twice}", int(at[1]) if at else end


def dotted(path: Path) -> str:
    """A key as TOML writes it: models."llama3.2".max_queue."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else quoted(part) for part in path)


def heading(path: Path) -> str:
    """A table as TOML opens it: [models."llama3.2"]."""
    return f"[{dotted(path)}]"


def quoted(text: str) -> str:
    """Text in double quotes, with everything escaped that could disturb a terminal or a log."""
    return json.dumps(text)


def shown(value: object) -> str:
    """A value for a message: as TOML has it, short, and without the password of an address."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "an array"
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    text = re.sub(r"(?<=://).*@|^[^@]*:.*@", "***@", value, flags=re.DOTALL)
    return quoted(text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "...")
