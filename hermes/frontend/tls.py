"""HTTPS: the server that speaks TLS, and a client's connection inside it. Chosen once for each connection; plain ones know nothing of it.

How a TLS socket differs from a plain one, and what is made of it here:

- Its handshake waits for the client: it runs in the connection's own thread, with a deadline as a whole, and the connection can be sent away
  meanwhile like any other that has not asked for anything yet.
- The kernel's own timeouts do not reach it. Python's do, and each is a deadline for one call, however its record drips.
- What is decrypted and not yet read no poll shows. Each read takes a whole record (READ is larger than any), so nothing is ever left.
- How its client leaves (FIN, a FIN behind a close_notify, a reset, a half-close) shows on the descriptor below it as on any other, and so
  hermes.dispatch waits for that one.
- `close_notify` says that nothing is missing. It is said at the end of what is whole, and never behind an answer that broke off.
"""

import logging
import select
import socket
import ssl
import threading
import time

from hermes.config.certificates import server_context
from hermes.errors import ClientGone, HermesBusy, RequestTimeout
from hermes.frontend.connection import READ, ClientConnection
from hermes.frontend.house import House
from hermes.frontend.server import SELDOM, Server, plain_address
from hermes.frontend.upload import Upload
from hermes.observe.logs import Seldom

log = logging.getLogger("hermes.tls")


class Certificate:
    """What new connections are shown; `load` replaces it in one assignment, running ones go on with what they have. Any thread."""

    def __init__(self, cert: str, key: str):
        """Raises CertificateUnusable."""
        self._context = server_context(cert, key)
        self._lock = threading.Lock()
        self._failures = Seldom(SELDOM)

    def load(self, cert: str, key: str) -> None:
        """Raises CertificateUnusable; then the old one stays."""
        self._context = server_context(cert, key)

    def wrap(self, sock: socket.socket) -> ssl.SSLSocket:
        """Takes the descriptor over. Raises OSError if the client has left already."""
        return self._context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)

    def failed(self, address: str, error: OSError) -> None:
        """A handshake came to nothing: one line in a while, for scanners and health checks do it all day."""
        with self._lock:
            count = self._failures.count(time.monotonic())
        if count:
            log.info("TLS handshake failed reason=%s address=%s count=%d", reason(error), address, count)


def reason(error: OSError) -> str:
    """In a word: OpenSSL's own where it has one."""
    if isinstance(error, TimeoutError):
        return "timeout"
    word = getattr(error, "reason", None)
    return "closed" if word is None or isinstance(error, ssl.SSLEOFError) else word.lower()


class TlsServer(Server):
    """The same over TLS."""

    scheme = "https"

    def __init__(self, address: tuple[str, int], house: House, max_connections: int, certificate: Certificate):
        self.certificate = certificate
        super().__init__(address, house, max_connections)

    def connection(self, request: socket.socket, client_address) -> ClientConnection:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TlsConnection(self.certificate, request, self.house, plain_address(client_address))

    def say(self, request: socket.socket, error: HermesBusy, request_id: str) -> None:
        """Nothing: it would take a handshake, and the accept thread waits for nobody."""


class TlsUpload(Upload):
    def read(self) -> bytes:
        """As for a plain socket, but that half a record is nothing yet."""
        if not self.rest:
            patience = self._sock.gettimeout()
            self._sock.settimeout(0)
            try:
                self.rest = self._sock.recv(READ)
            except ssl.SSLWantReadError:
                return b""
            except OSError:
                raise ClientGone from None
            finally:
                self._sock.settimeout(patience)
            if not self.rest:
                raise ClientGone
        return super().read()


class TlsConnection(ClientConnection):
    """Between two calls its timeout is that of a write."""

    upload = TlsUpload

    def __init__(self, certificate: Certificate, sock: socket.socket, house: House, address: str = ""):
        """Takes the socket over. Raises OSError."""
        super().__init__(certificate.wrap(sock), house, address)
        self._certificate = certificate
        self._shaken = False

    def serve(self) -> None:
        try:
            super().serve()
        finally:
            self._sock.close()

    def _shake_hands(self) -> bool:
        """False: it came to nothing, and the client needs no word about it, nor could it read one."""
        self._sock.settimeout(self._limits.head)
        try:
            self._sock.do_handshake()
        except OSError as error:
            self._certificate.failed(self.address, error)
            return False
        self._shaken = True
        return True

    def _receive(self, seconds: float) -> bytes:
        """Some bytes, or b"" at the end. Raises TimeoutError, OSError."""
        self._sock.settimeout(seconds)
        try:
            return self._sock.recv(READ)
        finally:
            self._sock.settimeout(self._limits.send)

    def _await_request(self) -> bool:
        if not self._shaken and not self._shake_hands():
            return False
        try:
            self._buffer = self._receive(self._limits.idle)
        except TimeoutError:
            return False
        return bool(self._buffer)

    def _read(self, deadline: float) -> bytes:
        left = deadline - time.monotonic()
        try:
            if left > 0:
                return self._receive(left)
        except TimeoutError:
            pass
        raise RequestTimeout("the request did not arrive in time")

    def _part(self) -> None:
        if self._shaken and not self._cut:
            self._say_goodbye()
        self._sock = socket.socket(fileno=self._sock.detach())          # what he goes on to say is thrown away as it comes
        super()._part()

    def _say_goodbye(self) -> None:
        """close_notify, behind whatever the client has yet to take, without waiting for his."""
        room = select.poll()
        room.register(self._sock, select.POLLOUT)
        try:
            if room.poll(0 if self._evicted else self._limits.send * 1000):
                self._sock.settimeout(0)
                self._sock.unwrap()
        except (OSError, ValueError):
            pass                                # SSLWantReadError: it has gone out, and his is not there
