"""The kept connection to Ollama, as an http.client connection behind a urllib handler that is built by hand.

Only an HTTP(S) handler is in the opener: no proxies from the environment, no redirects, no file: (design rule 11). The socket is ours
from connect() on, never blocks, and every wait goes through the Watch, so a Cancel is heard in each phase.
"""

import errno
import http.client
import os
import select
import socket
import urllib.request

from hermes.errors import UpstreamBroken, UpstreamUnreachable
from hermes.workers.reply import Reply
from hermes.workers.watch import Watch

_COALESCE = 256 * 1024      # a head and a body up to this size go out in one send


class WatchedSocket:
    """A non-blocking socket whose waits go through the Watch; as much of a socket as http.client touches."""

    def __init__(self, sock: socket.socket, watch: Watch):
        self._sock = sock
        self._watch = watch
        self._pending = getattr(sock, "pending", lambda: 0)     # bytes that TLS has already decrypted

    def recv(self, size: int) -> bytes:
        while True:
            if not self._pending():
                self._watch.wait(self._sock, select.POLLIN)
            try:
                return self._sock.recv(size)
            except (BlockingIOError, *_tls_waits(self._sock)):
                continue

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view):]
            except (BlockingIOError, *_tls_waits(self._sock)):
                self._watch.wait(self._sock, select.POLLOUT)

    def stale(self) -> bool:
        """Between two requests an honest server sends nothing: readable means closed, or worse."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        self._watch.forget(self._sock)
        self._sock.close()


def _tls_waits(sock: socket.socket) -> tuple:
    if not hasattr(sock, "pending"):
        return ()
    import ssl
    return (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection(http.client.HTTPConnection):
    """http.client over a WatchedSocket; one request goes out in one send where it is small."""

    response_class = Reply

    def __init__(self, host: str, port: int, tls: bool, watch: Watch):
        super().__init__(host, port)
        self._tls = tls
        self._watch = watch
        self._outbox: list[bytes] = []
        self.used = False               # has it carried a whole answer? Then it may be stale

    def connect(self) -> None:
        """Raises UpstreamUnreachable: nothing has been sent, trying again is safe."""
        try:
            addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UpstreamUnreachable(f"cannot resolve Ollama's address: {error.strerror}") from None
        failure = None
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            failure = self._finish_connect(sock, address)
            if failure is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sock = WatchedSocket(self._encrypt(sock) if self._tls else sock, self._watch)
                return
        raise UpstreamUnreachable(f"cannot connect to Ollama: {os.strerror(failure or errno.EHOSTUNREACH)}")

    def _finish_connect(self, sock: socket.socket, address: tuple) -> int | None:
        """None, or the error number. The socket is closed unless it is connected, whatever interrupts."""
        done = False
        try:
            code = sock.connect_ex(address)
            if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
                self._watch.wait(sock, select.POLLOUT)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            done = not code
            return code or None
        finally:
            if not done:
                self._watch.forget(sock)
                sock.close()

    def _encrypt(self, sock: socket.socket) -> socket.socket:
        import ssl
        sock.settimeout(10)
        try:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.host)
        except (OSError, ValueError) as error:
            sock.close()
            raise UpstreamUnreachable(f"no TLS with Ollama: {error}") from None
        sock.setblocking(False)
        return sock

    def send(self, data: bytes) -> None:
        self._outbox.append(data)

    def flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if sum(map(len, outbox)) <= _COALESCE:
            outbox = [b"".join(outbox)]
        for data in outbox:
            self.sock.sendall(data)

    def close(self) -> None:
        self._outbox = []
        self.used = False
        super().close()


class KeptConnectionHandler(urllib.request.AbstractHTTPHandler):
    """One connection for one address; the next request goes over it again."""

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch
        self._address: tuple[str, str] = ("", "")
        self._connection: Connection | None = None

    def connection(self, scheme: str, host: str) -> Connection:
        if self._connection is None or self._address != (scheme, host):
            self.drop()
            name, _, port = host.rpartition(":")
            self._address = (scheme, host)
            self._connection = Connection(name.strip("[]"), int(port), scheme == "https", self._watch)
        elif self._connection.sock is not None and self._connection.sock.stale():
            self._connection.close()
        return self._connection

    def connected(self, request: urllib.request.Request) -> None:
        """Make sure of a connection before the request begins. Raises UpstreamUnreachable."""
        connection = self.connection(request.type, request.host)
        if connection.sock is None:
            connection.connect()

    def http_open(self, request: urllib.request.Request) -> Reply:
        connection = self._connection
        headers = dict(request.unredirected_hdrs)
        headers.update(request.headers)
        connection.request(request.get_method(), request.selector, request.data, headers)
        try:
            connection.flush()
        except (BrokenPipeError, ConnectionResetError):
            if connection.used:
                raise EOFError from None
            # Ollama may have answered early, without reading everything (ollama-api.md §4.2): look first.
        return connection.getresponse()

    https_open = http_open

    def keep(self, reply: Reply) -> None:
        """The answer has been read to its end: the connection may carry the next request."""
        reply.close()
        if reply.last:
            self.drop()
        else:
            self._connection.used = True

    @property
    def used(self) -> bool:
        return self._connection is not None and self._connection.used

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.close()


def build_opener(handler: KeptConnectionHandler) -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    opener.add_handler(handler)
    return opener


def broken(error: Exception) -> UpstreamBroken:
    """The border where foreign exceptions become ours."""
    if isinstance(error, (ConnectionResetError, BrokenPipeError)):
        return UpstreamBroken("Ollama reset the connection before its answer was whole")
    return UpstreamBroken("Ollama closed the connection before its answer was whole" if isinstance(error, EOFError)
                          else f"Ollama's answer could not be read: {type(error).__name__}")
