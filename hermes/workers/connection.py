"""The kept connection to Ollama, behind a urllib handler that is built by hand.

Only an HTTP(S) handler is in the opener: no proxies from the environment, no redirects, no file: (design rule 11). The socket is ours
from connect() on, never blocks, and every wait goes through the Watch, so a Cancel is heard in each phase.
"""

import errno
import os
import select
import socket
import urllib.request

from hermes.errors import UpstreamBroken, UpstreamUnreachable
from hermes.workers.messages import Bytes
from hermes.workers.reply import READ, Reply
from hermes.workers.watch import Watch

COALESCE = 256 * 1024       # a head and a body up to this size go out in one send
TLS_TIMEOUT = 10.0          # seconds for the handshake


class WatchedSocket:
    """A non-blocking socket whose waits go through the Watch."""

    def __init__(self, sock: socket.socket, watch: Watch):
        self._sock = sock
        self._watch = watch
        self._pending = getattr(sock, "pending", None)          # TLS: bytes that are decrypted already
        self._not_ready = (BlockingIOError, *_tls_waits(sock))
        self._look = select.poll()
        self._look.register(sock, select.POLLIN)

    def recv(self, size: int) -> bytes:
        while True:
            if self._pending is None or not self._pending():
                self._watch.wait(self._sock, select.POLLIN)
            try:
                return self._sock.recv(size)
            except self._not_ready:
                continue

    def sendall(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._sock.send(view):]
            except self._not_ready:
                self._watch.wait(self._sock, select.POLLOUT)

    def wait(self, events: int) -> int:
        """The events that have come; 0 = a piece of the request's body has."""
        return self._watch.wait(self._sock, events, or_piece=True)

    def take(self) -> bytes | None:
        """What has come, without waiting; b"" at the end of the connection, None = nothing yet, such as TLS's own talk."""
        try:
            return self._sock.recv(READ)
        except self._not_ready:
            return None

    def give(self, data: memoryview) -> int:
        """Send without waiting: how many bytes have gone out."""
        try:
            return self._sock.send(data)
        except self._not_ready:
            return 0

    def stale(self) -> bool:
        """Between two requests an honest server sends nothing: readable means closed, or worse."""
        return bool(self._look.poll(0))

    def close(self) -> None:
        self._watch.forget(self._sock)
        self._sock.close()


def _tls_waits(sock: socket.socket) -> tuple:
    if not hasattr(sock, "pending"):
        return ()
    import ssl
    return (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Connection:
    """One connection to one address, and one request on it at a time."""

    def __init__(self, host: str, port: int, tls: bool, watch: Watch):
        self._host, self._port, self._tls = host, port, tls
        self._watch = watch
        self._sock: WatchedSocket | None = None
        self.used = False               # has it carried a whole answer? Then it may be stale

    def connect(self) -> None:
        """Make sure that there is a connection. Raises UpstreamUnreachable: nothing has been sent, trying again is safe."""
        if self._sock is not None:
            if not self._sock.stale():
                return
            self.close()
        try:
            addresses = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise UpstreamUnreachable(f"cannot resolve Ollama's address: {error.strerror}") from None
        failure = None
        for family, kind, protocol, _, address in addresses:
            sock = socket.socket(family, kind, protocol)
            sock.setblocking(False)
            failure = self._finish_connect(sock, address)
            if failure is None:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sock = WatchedSocket(self._encrypt(sock) if self._tls else sock, self._watch)
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
        sock.settimeout(TLS_TIMEOUT)
        try:
            sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self._host)
        except (OSError, ValueError) as error:
            sock.close()
            raise UpstreamUnreachable(f"no TLS with Ollama: {error}") from None
        sock.setblocking(False)
        return sock

    def exchange(self, head: bytes, body, method: str) -> Reply:
        """Send a request and wait for the answer's head. `body` is Bytes or an Upload. Raises UpstreamError, OSError, and EOFError when
        nothing came."""
        early, comes_in_pieces = None, not isinstance(body, Bytes)
        try:
            if comes_in_pieces:
                self._sock.sendall(head)
                early = body.send(self._sock)
            elif len(body) <= COALESCE:
                self._sock.sendall(head + body)
            else:
                self._sock.sendall(head)
                self._sock.sendall(body)
        except (BrokenPipeError, ConnectionResetError):
            if self.used:
                raise EOFError from None
            # Ollama may have answered early, without reading everything (ollama-api.md §4.2): look first.
        reply = Reply(self._sock, method)
        reply.begin(early)
        if comes_in_pieces and not body.whole:
            reply.last = True                   # Ollama would take the next request for the rest of this one
        return reply

    def close(self) -> None:
        self.used = False
        if self._sock is not None:
            self._sock.close()
            self._sock = None


class KeptConnectionHandler(urllib.request.AbstractHTTPHandler):
    """One connection for one address; the next request goes over it again.

    urllib's own handlers open a connection for each request and take their answers through http.client and email.parser, which cost
    more than all the rest of a small call.
    """

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def __init__(self, watch: Watch):
        super().__init__()
        self._watch = watch
        self._address: tuple[str, str] = ("", "")
        self._connection: Connection | None = None

    def connect(self, request: urllib.request.Request) -> None:
        """Make sure of a connection before the request begins. Raises UpstreamUnreachable."""
        if self._address != (request.type, request.host):
            self.drop()
            name, _, port = request.host.rpartition(":")
            self._address = (request.type, request.host)
            self._connection = Connection(name.strip("[]"), int(port), request.type == "https", self._watch)
        self._connection.connect()

    def http_open(self, request: urllib.request.Request) -> Reply:
        method = request.get_method()
        fields = {**request.unredirected_hdrs, **request.headers}
        if "Content-type" not in request.headers:
            fields.pop("Content-type", None)    # the client named none, and urllib would call its JSON a form
        lines = "".join([f"{name}: {value}\r\n" for name, value in fields.items()])
        head = f"{method} {request.selector} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")
        return self._connection.exchange(head, request.data or b"", method)

    https_open = http_open

    def keep(self, reply: Reply) -> None:
        """The answer has been read to its end: the connection may carry the next request."""
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
