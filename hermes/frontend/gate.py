"""Who may come in, who that is, and whether he has asked too often.

First, no page on another site and no rebound name. A browser on the same host is the danger of a service on loopback (reliability.md §2.4):
a foreign page may post to it without asking, and DNS rebinding lets it read the answers. The rules are Ollama's (ollama-api.md §4.3).
Then the key, and then the client's own rate; all before a byte of the body is read.
"""

import ipaddress
import logging
import re
import socket
from functools import lru_cache

from hermes.config import Config
from hermes.dispatch.limits import Lockout, Rates
from hermes.errors import Forbidden, LockedOut, RateLimited, Unauthorized
from hermes.frontend import health, principal
from hermes.frontend.exchange import Call
from hermes.frontend.http1 import Request
from hermes.frontend.principal import Keys

log = logging.getLogger("hermes.gate")
KEYLESS = frozenset({"/livez", "/readyz"})              # whoever starts and stops processes has no key

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.\-]*)(?::[0-9]{1,5})?\Z")
_ORIGIN = re.compile(r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:[0-9]{1,5})?\Z", re.IGNORECASE)
_APPS = ("app://", "file://", "tauri://", "vscode-webview://", "vscode-file://")
_LOCAL_NAMES = (".localhost", ".local", ".internal")


class Gate:
    """`admit` from any thread; `apply` from the main thread, which replaces the keys in one assignment."""

    def __init__(self, config: Config, on_loopback: bool):
        self._on_loopback = on_loopback
        self._rates = Rates()
        self._lockout = Lockout()
        self.apply(config)

    def apply(self, config: Config) -> None:
        # Without clients a pull works out of the box for this machine; the network needs leave.
        self._keys = Keys(config.clients, config.server.manage, pull=self._on_loopback)
        self._rates.keep(self._keys.names)

    def admit(self, call: Call) -> None:
        """Fills in who asks. Raises Forbidden, Unauthorized, LockedOut, RateLimited."""
        request = call.request
        refuse_strangers(request, self._on_loopback)
        if request.path in KEYLESS:
            return
        call.principal = self._identify(request, call.client.address)
        limit = call.principal.requests_per_minute
        if limit is None or request.path in health.PATHS:
            return
        allowance = self._rates.take(call.principal.name, limit)
        call.headers += allowance.fields()
        if not allowance.granted:
            raise RateLimited(f"this client may make {limit} requests a minute", retry_after=allowance.reset)

    def _identify(self, request: Request, address: str) -> principal.Principal:
        """A locked-out address is not even compared: the right key must not tell itself from a wrong one."""
        if left := self._lockout.left(_network(address)):
            raise LockedOut("too many wrong keys from this address", retry_after=left)
        try:
            return self._keys.identify(request.headers, address)
        except Unauthorized:
            # Who brings no key has not guessed one: a browser that is refused its icon must not lock its machine out.
            if any(name in request.headers for name in principal.HEADERS) and self._lockout.wrong(_network(address)):
                log.warning("too many wrong keys, locked out for the rest of the minute address=%s", address)
            raise


def _network(address: str) -> str:
    """What one guesser has: an IPv4 address, or the 64 bits that an IPv6 network is given."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address


def refuse_strangers(request: Request, listens_on_loopback: bool) -> None:
    """Raises Forbidden. Pure."""
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
