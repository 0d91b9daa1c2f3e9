"""Who may come in at all: no page on another site, no rebound name. Pure.

A browser on the same host is the danger of a service on loopback (reliability.md §2.4): a foreign page may post to it without
asking, and DNS rebinding lets it read the answers. The rules are Ollama's (ollama-api.md §4.3).
"""

import ipaddress
import re
import socket
from functools import lru_cache

from hermes.errors import Forbidden
from hermes.frontend.http1 import Request

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]*)(?::[0-9]{1,5})?\Z")
_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:[0-9]{1,5})?\Z", re.IGNORECASE)
_APPS = ("app://", "file://", "tauri://", "vscode-webview://", "vscode-file://")
_LOCAL_NAMES = (".localhost", ".local", ".internal")


def admit(request: Request, listens_on_loopback: bool) -> None:
    """Raises Forbidden."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Forbidden("requests from other sites are refused")
    origin = request.headers.get("origin")
    if origin is not None and not _ORIGIN.match(origin) and not origin.startswith(_APPS):
        raise Forbidden("this Origin is not allowed")
    if listens_on_loopback and not is_local(request.headers.get("host", "")):
        raise Forbidden("this Host is not allowed")


@lru_cache(maxsize=256)
def is_local(host: str) -> bool:
    """Does a Host header name this machine or its network? Empty is allowed, as Ollama does."""
    match = _HOST.match(host)
    if not match:
        return False
    name = match[1].strip("[]").lower()
    try:
        address = ipaddress.ip_address(name)
        return address.is_loopback or address.is_private or address.is_unspecified
    except ValueError:
        return name in ("", "localhost", socket.gethostname().lower()) or name.endswith(_LOCAL_NAMES)
