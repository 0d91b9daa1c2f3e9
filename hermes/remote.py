"""What `status`, `queue` and `cancel` do: ask a running Hermes over HTTP, HTTPS or a Unix socket, as any other client would, and show the answer.

The key comes from HERMES_KEY: a command line can be read by every user of the machine.
"""

import http.client
import json
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import closing
from urllib.parse import quote, urlsplit

from hermes import config

TIMEOUT = 10.0              # seconds
NOTHING = "-"
UNIX = "unix:"


class Refused(Exception):
    """No answer, or one that says no; the text says why."""

    def __init__(self, text: str):
        super().__init__(shown(text))


def shown(text: str) -> str:
    """Without control characters: what came from outside must not steer the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def base_url(given: str | None, environ: Mapping[str, str]) -> str:
    """`given`, or where the configuration says that Hermes listens, for managing if that is somewhere else. Raises ConfigError."""
    if given:
        return given if "://" in given or given.startswith(UNIX) else f"http://{given}"
    settings = config.load(config.find(environ), environ)
    if settings.admin.path:
        return UNIX + settings.admin.path
    host, port = settings.admin.listen or (settings.server.host, settings.server.port)
    scheme = "https" if settings.server.tls_cert else "http"
    host = host if host not in ("", "0.0.0.0", "::") else "127.0.0.1"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str):
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT)
        self.sock.connect(self._path)


def connect(url: str, ca: str = "") -> tuple[http.client.HTTPConnection, str]:
    """A connection that is not open yet, and what stands in front of every path. `ca`: a file of the certificates that are trusted, in place of
    this machine's. Raises Refused, OSError, ValueError."""
    if url.startswith(UNIX):
        return UnixConnection(url.removeprefix(UNIX)), ""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Refused(f"not the URL of a Hermes: {url}: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Refused(f"not the URL of a Hermes: {url}")
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT), parts.path.rstrip("/")
    import ssl
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise Refused(f"no answer from {url}: no certificates can be read from {ca}: {error.strerror or error}") from None
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=TIMEOUT, context=context), parts.path.rstrip("/")


def ask(method: str, path: str, url: str, key: str = "", *, ca: str = "") -> dict:
    """The JSON of an answer; {} if it has none. Raises Refused."""
    if not (key.isascii() and key.isprintable()):
        raise Refused("HERMES_KEY holds something that no key is made of")      # http.client's own error would show it
    try:
        connection, prefix = connect(url, ca)
        with closing(connection):
            connection.request(method, prefix + path, headers={"Authorization": f"Bearer {key}"} if key else {})
            answer = connection.getresponse()
            body = answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Refused(f"no answer from {url}: {error}") from None
    try:
        said = json.loads(body) if body.strip() else {}
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise _strange(url, answer.status)
    if answer.status >= 400:
        error = said.get("error", answer.status)
        raise Refused(str(error.get("message", error) if isinstance(error, dict) else error))
    return said


def _strange(url: str, status: int) -> Refused:
    return Refused(f"{url} does not answer as a Hermes does (status {status})")


def cancel_path(request_id: str) -> str:
    return "/v1/requests/" + quote(request_id, safe="")


def status_lines(status: dict) -> Iterable[str]:
    """What runs where, one line a model."""
    upstream, totals = status["upstream"], status["totals"]
    yield (f"{status['status']}  hermes {status['version']}  up {duration(status['uptime'])}  "
           f"running {totals['running']}  queued {totals['queued']}  answered {totals['ok']}")
    yield f"ollama {upstream['url']}  " + (f"up, {upstream['version']}" if upstream["up"] else f"down: {upstream['error']}")
    rows = [(model["name"], f"{model['workers']['busy']}/{model['workers']['max']}", f"{model['queue']['depth']}/{model['queue']['limit']}",
             {True: "yes", False: "no", None: "?"}[model["loaded"]], model["closed"] or ("paused" if model["paused"] else ""))
            for model in status["models"]]
    yield from table(("MODEL", "RUNNING", "QUEUED", "LOADED", ""), rows)


def queue_lines(status: dict) -> Iterable[str]:
    """Who waits and who runs, in the order of service."""
    rows = [tuple(NOTHING if value in (None, "") else str(value) for value in
                  (one["id"], one["client"], one["class"], one["model"], one["phase"], one["position"] or None, duration(one["seconds"]), one["tokens"]))
            for one in status["requests"]]
    yield from table(("ID", "CLIENT", "CLASS", "MODEL", "PHASE", "POSITION", "TIME", "TOKENS"), rows)


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterable[str]:
    """Columns as wide as they need to be."""
    cells = [titles, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()


def duration(seconds: float) -> str:
    """"3.2s", "5m12s", "2h05m", "3d04h"."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"


def run(command: str, url: str, request_id: str = "", environ: Mapping[str, str] = os.environ, *, ca: str = "") -> Iterable[str]:
    """The lines to print. Raises Refused."""
    key = environ.get("HERMES_KEY", "")
    if command == "cancel":
        ask("DELETE", cancel_path(request_id), url, key, ca=ca)
        return [shown(f"cancelled {request_id}")]
    status = ask("GET", "/v1/status", url, key, ca=ca)
    try:
        return [shown(line) for line in (status_lines(status) if command == "status" else queue_lines(status))]
    except (LookupError, TypeError, ValueError):        # JSON, but of another program
        raise _strange(url, 200) from None
