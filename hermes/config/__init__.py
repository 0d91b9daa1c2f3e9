"""hermes.toml → frozen settings; every mistake with its file, line, key and a suggestion.

Precedence: HERMES_<SECTION>_<KEY> in the environment, then the file, then the default; an empty variable counts as
unset. Nothing starts on a bad file: `load` answers with a whole Config or raises every problem at once.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from hermes.config import addresses
from hermes.config.clients import ClientSettings, is_client_name, read_clients
from hermes.config.options import Bounds
from hermes.config.reading import ConfigError, Problem, Reading, heading, quoted
from hermes.config.refusals import refuse_bad_certificate, refuse_bad_folder, refuse_open_admin, refuse_open_door, refuse_own_address
from hermes.config.settings import CLASSES, KEY_PREFIX, SETTINGS
from hermes.names import canonical

__all__ = [
    "CLASSES",
    "KEY_PREFIX",
    "SETTINGS",
    "AdminSettings",
    "ClientSettings",
    "Config",
    "ConfigError",
    "DefaultSettings",
    "LogSettings",
    "ModelSettings",
    "OllamaSettings",
    "Problem",
    "ServerSettings",
    "find",
    "heading",
    "is_client_name",
    "load",
    "loads",
]

NOTHING: Mapping[str, str] = MappingProxyType({})
# What a [models.NAME] table leaves out.
AS_IN_DEFAULTS = ("max_concurrency", "max_queue", "queue_timeout", "num_ctx", "keep_alive", "max_output_tokens", "max_run_time", "max_keep_alive")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """[server]. Times in seconds, sizes in bytes."""

    host: str  # "" is every address
    port: int  # 0 is any free one
    hosts: tuple[str, ...]  # lower case, IPv6 addresses without brackets
    origins: tuple[str, ...]  # lower case; each may have one *
    drain_timeout: float
    max_body: int
    max_parked: int  # of all requests together
    max_connections: int
    head_timeout: float
    body_timeout: float
    keepalive_timeout: float
    send_timeout: float
    heartbeat: float  # math.inf where the file says "off", as below
    heartbeat_plain: float
    state_dir: str  # "" is none
    open: bool  # may anybody come in from the network?
    manage: bool  # may everybody manage models, where no clients are configured?
    clients_file: str  # beside the file it is named in, unless its path is absolute; "" is none
    tls_cert: str  # these two as they can be opened; "" where Hermes speaks no TLS
    tls_key: str

    @property
    def listen(self) -> str:
        """ "host:port", as a file would say it."""
        return addresses.join(self.host, self.port)


@dataclass(frozen=True, slots=True)
class AdminSettings:
    """[admin]."""

    listen: tuple[str, int] | str  # (host, port), the path of a Unix socket, or "" for none of its own

    @property
    def path(self) -> str:
        """Of the Unix socket; "" where there is none."""
        return self.listen if isinstance(self.listen, str) else ""


@dataclass(frozen=True, slots=True)
class OllamaSettings:
    """[ollama]. Times in seconds; math.inf where the file says "off"."""

    url: str  # scheme://host:port/prefix, no slash at the end
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float
    total_timeout: float
    allow_cloud: bool


@dataclass(frozen=True, slots=True)
class DefaultSettings:
    """[defaults], for every model, listed or not. Times in seconds."""

    max_concurrency: int
    max_queue: int
    queue_timeout: float
    max_starvation: float
    embedding_class: str  # one of CLASSES
    dismiss_after: float
    num_ctx: int  # tokens; 0 leaves it to Ollama
    keep_alive: str | int | float  # as Ollama takes it; "" leaves it to Ollama
    max_output_tokens: int  # 0 where the file says "off"
    max_run_time: float
    max_keep_alive: float
    options: Bounds  # what requests may say for options


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One [models.NAME] table, with [defaults] filled in."""

    name: str  # what clients call it: the table's key
    model: str  # what Ollama calls it
    max_concurrency: int
    max_queue: int
    queue_timeout: float  # seconds
    memory_cost: str | int | None  # "low", "medium", "high", bytes, or not said
    num_ctx: int = 0  # as in [defaults]
    keep_alive: str | int | float = ""  # as in [defaults]
    max_output_tokens: int = 0  # as in [defaults]
    max_run_time: float = math.inf
    max_keep_alive: float = math.inf
    options: Bounds = ()  # those of [defaults] among them


@dataclass(frozen=True, slots=True)
class LogSettings:
    """[log]."""

    level: str  # "debug", "info", "warning" or "error"
    format: str  # "logfmt", "json" or "auto"


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration. `path` is the file it came from, None when there was none."""

    server: ServerSettings
    admin: AdminSettings
    ollama: OllamaSettings
    defaults: DefaultSettings
    log: LogSettings
    models: tuple[ModelSettings, ...]
    clients: tuple[ClientSettings, ...]  # none: nobody is asked for a key
    path: str | None


def find(environ: Mapping[str, str], cwd: str = ".") -> str | None:
    """The file to load when the command line names none; None for the built-in settings.

    HERMES_CONFIG is taken at its word. The others count as soon as anything has that name: Docker makes a directory
    of a bind mount whose source is missing, and `load` should say so rather than start with other settings.
    """
    if named := environ.get("HERMES_CONFIG"):
        return named
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME", ""), ".config")
    folders = [cwd, *([os.path.join(home, "hermes-gateway")] if os.path.isabs(home) else []), "/etc/hermes"]
    paths = (os.path.normpath(os.path.join(folder, "hermes.toml")) for folder in folders)
    return next(filter(os.path.lexists, paths), None)


def load(path: str | None = None, environ: Mapping[str, str] = NOTHING) -> Config:
    """The configuration of a file, or with None the built-in one. Raises ConfigError with every problem."""
    reading = Reading("built-in" if path is None else path, environ)
    return _config(reading, "" if path is None else reading.file_text(), path)


def loads(text: str, file: str = "hermes.toml", environ: Mapping[str, str] = NOTHING) -> Config:
    """The configuration of a text; `file` is what its problems name. Raises ConfigError with every problem."""
    return _config(Reading(file, environ), text, file)


def _config(reading: Reading, text: str | None, path: str | None) -> Config:
    document = None if text is None else reading.document(text)
    values = {name: reading.section(name) for name in ("server", "admin", "ollama", "defaults", "log")}
    for key in ("tls_cert", "tls_key"):
        values["server"][key] = _beside(reading, values["server"][key])
    host, port = values["server"].pop("listen")
    server, ollama = ServerSettings(host=host, port=port, **values["server"]), OllamaSettings(**values["ollama"])
    admin, defaults = AdminSettings(**values["admin"]), DefaultSettings(**values["defaults"])
    models = tuple(_models(reading, defaults))
    so_far = len(reading.problems)
    clients = read_clients(reading, _more_clients(reading, server.clients_file))
    has_clients = bool(clients) or len(reading.problems) > so_far  # clients that are all wrong are a problem already
    if document is not None:  # a file that could not be read might have said otherwise
        refuse_own_address(reading, ollama.url, {"server.listen": (server.host, server.port), "admin.listen": admin.listen})
        refuse_bad_folder(reading, server.state_dir)
        refuse_open_door(reading, server.host, server.open or has_clients)
        refuse_open_admin(reading, admin.listen, has_clients)
        refuse_bad_certificate(reading, server.tls_cert, server.tls_key)
    reading.finish()
    return Config(server, admin, ollama, defaults, LogSettings(**values["log"]), models, clients, path)


def _beside(reading: Reading, name: str) -> str:
    """A file named in this one: in its folder, unless the path is absolute."""
    return os.path.join(os.path.dirname(reading.file), name) if name else ""


def _more_clients(reading: Reading, name: str) -> Reading | None:
    """The file that `clients_file` names, read; its problems are the whole configuration's."""
    if not name:
        return None
    more = Reading(_beside(reading, name), NOTHING, ("clients",))
    more.problems = reading.problems
    text = more.file_text()
    if text is not None:
        more.document(text)
    return more


def _models(reading: Reading, defaults: DefaultSettings) -> Iterator[ModelSettings]:
    """The models that can be told apart; whatever is wrong with the others is a problem by then."""
    seen: list[ModelSettings] = []
    for name, values in reading.models():
        values.setdefault("model", name)
        values.setdefault("memory_cost", None)
        for key in AS_IN_DEFAULTS:
            values.setdefault(key, getattr(defaults, key))
        own = values.get("options", ())
        named = {bound.name for bound in own}
        values["options"] = (*own, *(bound for bound in defaults.options if bound.name not in named))
        model = ModelSettings(name=name, **values)
        for other in seen:
            if clash := _clash(model, other):
                reading.clash("models", name, other.name, clash)
        seen.append(model)
        yield model


def _clash(one: ModelSettings, other: ModelSettings) -> str | None:
    """Why two tables cannot stand side by side: a name must lead to one pool, and a model must have one pool."""
    if canonical(one.model) == canonical(other.model):
        return f"are both for Ollama's {quoted(one.model)}: a model has one pool, keep one of the tables"
    shared = {canonical(one.name), canonical(one.model)} & {canonical(other.name), canonical(other.model)}
    if not shared:
        return None
    name = one.name if canonical(one.name) in shared else one.model
    return f"would both answer to {quoted(name)}: rename one of the tables"
