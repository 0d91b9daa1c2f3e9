"""Every setting of hermes.toml, in one table. How its value is read is in values.py. Pure.

The table drives the parser, the checks, the shipped hermes.toml and the README; tests hold the last two to it.
"""

import math
from dataclasses import dataclass

from hermes.config import options

SHORTEST = 0.001  # seconds
LONGEST = 168 * 3600.0  # seconds. Not for ever: poll() counts milliseconds in a C int, which is full after 24 days
TIB = 2**40  # bytes
OLLAMAS = "ollama"  # as a value: what Ollama itself would take

SECTIONS = ("server", "admin", "ollama", "defaults", "log", "models", "clients")
NAMED = ("models", "clients")  # their tables have names of the user's own
CONTEXTS = (4, options.CONTEXT_MAX)  # tokens; Ollama takes no less
OFF = "off"  # as a value: no limit
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("logfmt", "json", "auto")  # of the log
COSTS = ("low", "medium", "high")
CLASSES = ("interactive", "normal", "background")  # the best first
KEY_PREFIX = "hk-"  # of the keys that `hermes key` makes


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of one section. `default` is TOML text; "" where a named table falls back to something else."""

    section: str
    key: str
    # "address", "hosts", "origins", "url", "duration", "duration or off", "size", "count", "count or off", "number", "bool", "level", "format", "name", "names", "cost",
    # "context", "keep_alive", "bounds", "class", "file", "folder", "admin address" or "key", which is the SHA-256 of one
    kind: str
    default: str
    doc: str  # one line; it opens the key's comment in hermes.toml and fills its row in the README
    low: float = 0
    high: float = math.inf
    fallback: str = ""  # a foreign variable that is read when neither the file nor HERMES_… says anything

    @property
    def variable(self) -> str | None:
        """The environment variable that overrides it; None for a table whose name is the user's own."""
        return None if self.section in NAMED else f"HERMES_{self.section}_{self.key}".upper()


def _time(section: str, key: str, default: str, doc: str) -> Setting:
    return Setting(section, key, "duration", f'"{default}"', doc, SHORTEST, LONGEST)


def _limit(key: str, default: str, doc: str) -> Setting:
    return Setting("ollama", key, "duration or off", f'"{default}"', doc, SHORTEST, LONGEST)


SETTINGS: tuple[Setting, ...] = (
    Setting("server", "listen", "address", '"127.0.0.1:11435"', "Where Hermes listens, as host:port."),
    Setting("server", "hosts", "hosts", "[]", "More names that Hermes is called by, for the check of the Host header."),
    Setting("server", "origins", "origins", "[]", "More origins whose pages may call, beside Ollama's own list.", fallback="OLLAMA_ORIGINS"),
    Setting("server", "drain_timeout", "duration", '"8s"', "How long a stop waits for running requests.", 0, LONGEST),
    Setting("server", "max_body", "size", '"64MiB"', "The largest request body that is read.", 1, TIB),
    Setting("server", "max_parked", "size", '"256MiB"', "How much memory the bodies of all requests together may take.", 1, TIB),
    Setting("server", "max_connections", "count", "2048", "How many clients may be connected at once.", 1, 100_000),
    _time("server", "head_timeout", "5s", "How long a client may take to send a whole request head."),
    _time("server", "body_timeout", "60s", "How long a request body may take, and a second more for each 50 kB of it."),
    _time("server", "keepalive_timeout", "75s", "How long a connection may idle between two requests."),
    _time("server", "send_timeout", "30s", "How long one write may wait for a client that does not read."),
    Setting("server", "heartbeat", "duration or off", '"15s"', "After how long a waiting stream shows signs of life.", SHORTEST, LONGEST),
    Setting("server", "heartbeat_plain", "duration or off", '"off"', "The same for an answer that is not streamed.", SHORTEST, LONGEST),
    Setting("server", "state_dir", "folder", '""', "The folder that keeps the usage over a restart; none keeps it in memory."),
    Setting("server", "open", "bool", "false", "Whether anybody may come in from the network, without a key."),
    Setting("server", "manage", "bool", "false", "Whether everybody may manage models, where no clients are configured."),
    Setting("server", "clients_file", "file", '""', "A file with more [clients.NAME] tables; its folder is this file's."),
    Setting("server", "tls_cert", "file", '""', "The certificate that makes it HTTPS, a PEM file with its whole chain."),
    Setting("server", "tls_key", "file", '""', "The certificate's private key, a PEM file that nobody else may read."),
    Setting("admin", "listen", "admin address", '""', "Where managing is done, and nowhere else: host:port, or unix:/path."),
    Setting("ollama", "url", "url", '"http://127.0.0.1:11434"', "Where Ollama is.", fallback="OLLAMA_HOST"),
    _time("ollama", "connect_timeout", "2s", "How long one attempt to connect to Ollama may take."),
    _limit("first_byte_timeout", "10m", "How long Ollama may take to begin an answer; a load is part of it."),
    _limit("idle_timeout", "2m", "How long an answer that has begun may fall silent."),
    _limit("total_timeout", "1h", "How long one call to Ollama may take altogether."),
    Setting("ollama", "allow_cloud", "bool", "false", "Whether requests may go on to models at ollama.com."),
    Setting("defaults", "max_concurrency", "count", "1", "Calls at Ollama at once, for each model.", 1, 256),
    Setting("defaults", "max_queue", "count", "64", "Requests that may wait, for each model.", 0, 100_000),
    _time("defaults", "queue_timeout", "60s", "How long a request may wait for its turn."),
    _time("defaults", "max_starvation", "30s", "How long the worse classes may wait for the better ones."),
    Setting("defaults", "embedding_class", "class", '"normal"', "The class of embeddings that do not ask for one."),
    _time("defaults", "dismiss_after", "5m", "After how long the idle workers of an unlisted model leave."),
    Setting("defaults", "num_ctx", "context", '"ollama"', "Tokens of context a model is loaded with, on every route.", *CONTEXTS),
    Setting("defaults", "keep_alive", "keep_alive", '"ollama"', "How long an idle model stays loaded, on every route."),
    Setting("defaults", "max_output_tokens", "count or off", '"off"', "How long an answer may be, in tokens.", 1, 2**31 - 1),
    Setting("defaults", "max_run_time", "duration or off", '"off"', "How long one call may have a worker.", SHORTEST, LONGEST),
    Setting("defaults", "max_keep_alive", "duration or off", '"off"', "How long a request may keep a model loaded.", 1, LONGEST),
    Setting("defaults", "options", "bounds", "{}", "What requests may say for Ollama's options, least and greatest."),
    Setting("log", "level", "level", '"info"', "The least serious event that is logged."),
    Setting("log", "format", "format", '"logfmt"', "How an event is written: key=value, JSON, or what suits stderr."),
    Setting("models", "model", "name", "", "Ollama's name for the model; left out, the table's own name."),
    Setting("models", "max_concurrency", "count", "", "Calls at Ollama at once; else as in [defaults].", 1, 256),
    Setting("models", "max_queue", "count", "", "Requests that may wait; else as in [defaults].", 0, 100_000),
    Setting(
        "models", "queue_timeout", "duration", "", "How long one may wait; else as in [defaults].", SHORTEST, LONGEST
    ),
    Setting("models", "memory_cost", "cost", "", "The memory it needs: low, medium, high or a size.", 1, 1024 * TIB),
    Setting("models", "num_ctx", "context", "", "Tokens of context it is loaded with; else as in [defaults].", *CONTEXTS),
    Setting("models", "keep_alive", "keep_alive", "", "How long it stays loaded when idle; else as in [defaults]."),
    Setting("models", "max_output_tokens", "count or off", "", "How long an answer may be; else as in [defaults].", 1, 2**31 - 1),
    Setting("models", "max_run_time", "duration or off", "", "How long one call may take; else as in [defaults].", SHORTEST, LONGEST),
    Setting("models", "max_keep_alive", "duration or off", "", "How long a request may keep it loaded; else as in [defaults].", 1, LONGEST),
    Setting("models", "options", "bounds", "", "What requests may say for options; what is missing, as in [defaults]."),
    Setting("clients", "key_sha256", "key", "", "The SHA-256 of the client's key, 64 hex digits."),
    Setting("clients", "weight", "number", "1", "The client's share beside the others' in its class.", 0.001, 1000),
    Setting("clients", "max_class", "class", '"interactive"', "The best class the client may ask for."),
    Setting("clients", "default_class", "class", "", "The class of a call that asks for none; else normal, or max_class."),
    Setting("clients", "max_concurrency", "count", "", "Calls running at once, all models together.", 1, 100_000),
    Setting("clients", "requests_per_minute", "count", "", "Requests in any 60 seconds.", 1, 100_000),
    Setting("clients", "tokens_per_day", "count", "", "Tokens in a day, read and written.", 1, 10**15),
    Setting("clients", "models", "names", '["*"]', "The models the client may use; * stands for any characters."),
    Setting("clients", "manage", "bool", "false", "Whether the client may manage models."),
)
