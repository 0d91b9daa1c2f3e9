"""Where Hermes listens: the one door for everything, or one for requests and one for managing, each with its routes and its gate.

    [admin] listen = ""      every route at [server] listen
    [admin] listen = "…"     at [server] listen all but those that manage; at [admin] listen those, and how Hermes is
"""

import logging
from collections.abc import Callable

from hermes.config import Config, ServerSettings
from hermes.frontend.exchange import Call
from hermes.frontend.gate import Gate, OwnersGate
from hermes.frontend.house import House, Limits
from hermes.frontend.router import Router
from hermes.frontend.server import Server

log = logging.getLogger("hermes.server")


class Listeners:
    """Built, started, reloaded and stopped from the main thread. `front` is the server of requests, `admin` that of managing, if it is another."""

    def __init__(self, config: Config, router: Router, make_house: Callable[[Router, Callable[[Call], None]], House]):
        """`make_house(router, admit)`: what the connections of a listener need. Raises OSError."""
        self._certificate = _certificate(config.server)
        apart = bool(config.admin.listen)
        house = make_house(router.without("only") if apart else router, lambda call: self.gate.admit(call))
        self.front = self._serve((config.server.host, config.server.port), house, config.server)
        self.gate = Gate(config, self.front.on_loopback, "front" if apart else "one")
        self.admin: Server | None = None
        self._admin_gate: Gate | OwnersGate | None = None
        if apart:
            try:
                self._open_admin(config, make_house(router.without("not"), lambda call: self._admin_gate.admit(call)))
            except OSError:
                self.front.server_close()
                raise

    def _open_admin(self, config: Config, house: House) -> None:
        if path := config.admin.path:
            from hermes.frontend.unixserver import UnixServer
            self.admin, self._admin_gate = UnixServer(path, house, config.server.max_connections), OwnersGate()
        else:
            self.admin = self._serve(config.admin.listen, house, config.server)
            self._admin_gate = Gate(config, self.admin.on_loopback, "admin", self.gate)

    def _serve(self, address: tuple[str, int], house: House, settings: ServerSettings) -> Server:
        if self._certificate is None:
            return Server(address, house, settings.max_connections)
        from hermes.frontend.tls import TlsServer
        return TlsServer(address, house, settings.max_connections, self._certificate)

    @property
    def _servers(self) -> tuple[Server, ...]:
        return (self.front,) if self.admin is None else (self.front, self.admin)

    @property
    def open(self) -> int:
        """Connections."""
        return sum(server.open for server in self._servers)

    def start(self) -> None:
        for server in self._servers:
            server.start()

    def stop_accepting(self) -> None:
        for server in self._servers:
            server.stop_accepting()

    def refusal(self, new: Config) -> str | None:
        """Why a new configuration must not be applied: the file may say loopback by now, and this process still listens where it did."""
        if not (self.front.on_loopback or new.clients or new.server.open):
            return f"{self.front.url} is open to the network, and without clients [server] open must be true"
        if self.admin is not None and not (self.admin.on_loopback or new.clients):
            return f"{self.admin.url} is open to the network, and that takes clients"
        return None

    def apply(self, old: Config, new: Config) -> None:
        """What of a reload concerns listeners. What cannot be had without a restart is said."""
        for server in self._servers:
            server.house.limits = Limits(new.server)
        self.gate.apply(new)
        if self._admin_gate is not None:
            self._admin_gate.apply(new)
        self._show(new.server)
        for key in ("listen", "max_connections", "state_dir"):
            if getattr(old.server, key) != getattr(new.server, key):
                log.warning("[server] %s has changed; that takes a restart", key)
        if old.admin != new.admin:
            log.warning("[admin] listen has changed; that takes a restart")

    def _show(self, settings: ServerSettings) -> None:
        """The certificate anew, whether or not its name has changed: it is what SIGHUP is sent for when it has been renewed."""
        if bool(settings.tls_cert) != (self._certificate is not None):
            log.warning("[server] tls_cert has been %s; that takes a restart", "added" if settings.tls_cert else "removed")
        elif self._certificate is not None:
            try:
                self._certificate.load(settings.tls_cert, settings.tls_key)
            except OSError as error:            # it has changed since the configuration was checked
                log.error("certificate not reloaded: %s", error)


def _certificate(settings: ServerSettings):
    """None without one: then OpenSSL is not needed. Raises OSError."""
    if not settings.tls_cert:
        return None
    from hermes.frontend.tls import Certificate
    return Certificate(settings.tls_cert, settings.tls_key)
