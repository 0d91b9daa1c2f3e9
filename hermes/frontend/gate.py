"""Who may come in, who that is, and whether he has asked too often.

First, no page on another site and no rebound name; then the key, and then the client's own rate; all before a byte of the body is read.
"""

import ipaddress
import logging
from dataclasses import replace
from typing import Literal

from hermes.config import Config
from hermes.dispatch.limits import Lockout, Rates
from hermes.errors import ClientForbidden, LockedOut, RateLimited, Unauthorized
from hermes.frontend import health, principal
from hermes.frontend.exchange import Call
from hermes.frontend.http1 import Request
from hermes.frontend.principal import Keys, Principal
from hermes.frontend.sites import Origins, Sites

log = logging.getLogger("hermes.gate")
Door = Literal["one", "front", "admin"]                 # the only one; or the one for requests, and the one for managing
OWNER = Principal("@unix", manage=True, pull=True)      # no client has such a name
KEYLESS = frozenset({"/livez", "/readyz"})              # whoever starts and stops processes has no key


class Gate:
    """`admit` from any thread; `apply` from the main thread, which replaces the rules in one assignment each."""

    def __init__(self, config: Config, on_loopback: bool, door: Door = "one", other: "Gate | None" = None):
        """`other`: the gate of the other door, whose clients and guessers are the same."""
        self._on_loopback = on_loopback
        self._door = door
        self._rates, self._lockout = (other._rates, other._lockout) if other else (Rates(), Lockout())
        self.apply(config)

    def apply(self, config: Config) -> None:
        if self._door == "front":               # nobody manages here, whoever he is
            self._keys = Keys(tuple(replace(client, manage=False) for client in config.clients), manage=False, pull=False)
        else:
            # Without clients a pull works out of the box for this machine; the network needs leave.
            self._keys = Keys(config.clients, config.server.manage, pull=self._on_loopback)
        self._rates.keep(self._keys.names)
        self._sites = Sites(Origins(config.server.origins), frozenset(config.server.hosts))

    def admit(self, call: Call) -> None:
        """Fills in who asks, and what every answer to the call has to say. Raises Forbidden, Unauthorized, LockedOut, RateLimited."""
        request = call.request
        call.headers += self._sites.admit(request, call.client.reached)
        if request.path in KEYLESS or request.method == "OPTIONS":      # a browser sends no key with its preflight
            return
        call.principal = self._identify(request, call.client.address)
        if self._door == "admin" and not call.principal.pull:           # a client without `manage`
            raise ClientForbidden
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


class OwnersGate:
    """Of a Unix socket: who may open it may do everything, and no page can."""

    def apply(self, config: Config) -> None:
        """Nothing of it concerns who may open a file."""

    def admit(self, call: Call) -> None:
        call.principal = OWNER


def _network(address: str) -> str:
    """What one guesser has: an IPv4 address, or the 64 bits that an IPv6 network is given."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network((address.partition("%")[0], 64), strict=False))
    except ValueError:
        return address
