"""The listening socket: a ThreadingHTTPServer whose accepting is made safe, and the connections it has open.

What is replaced of the standard one, and why: its accept queue of 5 makes a burst of clients wait for seconds; it resolves its own name at
start; it spins when descriptors run out; it takes any number of connections; a client that does not read fills 4 MB before it is noticed; its
handler is hermes.frontend.connection, because the stock parser repairs what must be refused (reliability.md §0.5-0.7, §2.1, §2.2).
"""

import http.server
import ipaddress
import logging
import socket
import socketserver
import sys
import threading
import time

from hermes.config import addresses
from hermes.dispatch.faults import OUT_OF_DESCRIPTORS
from hermes.errors import HermesBusy, TooManyConnections
from hermes.frontend import http1
from hermes.frontend.connection import READ, ClientConnection
from hermes.frontend.exchange import new_request_id
from hermes.frontend.house import House
from hermes.observe.logs import Seldom

ACCEPT_QUEUE = 1024
BREATH = 0.05               # seconds to wait when there are no descriptors: accept fails at once, again and again
PATIENCE = 0.25             # seconds in which a connection that was sent away must have left
SEND_BUFFER = 128 * 1024    # bytes, of which Linux makes twice as many
SELDOM = 10.0               # seconds between two lines about the same want
log = logging.getLogger("hermes.server")


class Server(http.server.ThreadingHTTPServer):
    """`start`, then `stop_accepting`, then wait until `open` is 0. One thread accepts, one more serves each connection."""

    request_queue_size = ACCEPT_QUEUE
    daemon_threads = True
    block_on_close = False
    scheme = "http"

    def __init__(self, address: tuple[str, int], house: House, max_connections: int):
        host, port = address
        self.address_family = self.family(host)
        self.house = house
        self._max = max_connections
        self._connections: set[ClientConnection] = set()
        self._open = 0
        self.turned_away = 0                    # connections that found no place, so far
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._no_descriptors, self._no_room = Seldom(SELDOM), Seldom(SELDOM)
        self._thread: threading.Thread | None = None
        super().__init__((host, port), None)

    @staticmethod
    def family(host: str) -> int:
        return socket.AF_INET6 if ":" in host else socket.AF_INET

    def server_bind(self) -> None:
        """Without the look-up of our own name, which is a DNS wait on a locked-down host (http/server.py)."""
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)        # each connection inherits it
        host, port = self.server_address
        try:
            socketserver.TCPServer.server_bind(self)
        except OSError as error:
            raise OSError(error.errno, f"{addresses.join(host, port)}: {error.strerror or error}") from None
        self.server_name, self.server_port = self.server_address[:2]

    @property
    def on_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.server_name).is_loopback
        except ValueError:
            return False

    @property
    def url(self) -> str:
        host = self.server_name if ":" not in self.server_name else f"[{self.server_name}]"
        return f"{self.scheme}://{host}:{self.server_port}"

    def start(self) -> None:
        # Linux wakes the accept loop when its socket is shut down; elsewhere it has to look.
        interval = None if sys.platform == "linux" else 0.5
        self._thread = threading.Thread(target=self.serve_forever, args=(interval,), name="accept", daemon=True)
        self._thread.start()

    def stop_accepting(self) -> None:
        """From now on a connection is refused; those that are idle are closed, the others finish their request."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.shutdown()
        self.server_close()
        with self._lock:
            idle = [connection for connection in self._connections if connection.idle]
        for connection in idle:
            connection.hang_up()

    @property
    def open(self) -> int:
        with self._lock:
            return self._open

    # -- the accept thread -----------------------------------------------------------------------------------------

    def get_request(self):
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in OUT_OF_DESCRIPTORS:
                if count := self._no_descriptors.count(time.monotonic()):
                    log.warning("no descriptor is left to accept a connection count=%d", count)
                if not self.house.waiting.evict():
                    time.sleep(BREATH)
            raise

    def process_request(self, request, client_address) -> None:
        if not self._make_room():
            self._turn_away(request, TooManyConnections("too many connections"))
            return
        with self._lock:
            self._open += 1
        try:
            super().process_request(request, client_address)
        except (RuntimeError, MemoryError):     # can't start new thread
            self._count_out()
            self._turn_away(request, HermesBusy("no thread is left for this connection"))

    def _make_room(self) -> bool:
        """Room for one more, if need be the place of the one that has waited longest for a request of its own."""
        with self._left:
            if self._open < self._max:
                return True
        if not self.house.waiting.evict():
            return False
        with self._left:
            return self._left.wait_for(lambda: self._open < self._max, PATIENCE)

    def _turn_away(self, request: socket.socket, error: HermesBusy) -> None:
        self.turned_away += 1                   # before he can know
        request_id = new_request_id()
        self.say(request, error, request_id)
        if count := self._no_room.count(time.monotonic()):
            log.warning("connection turned away reason=%s request_id=%s count=%d", error.code, request_id, count)
        self.shutdown_request(request)

    def say(self, request: socket.socket, error: HermesBusy, request_id: str) -> None:
        """To a client that is not let in. Never waits."""
        dialect = self.house.router.dialect("/")
        answer = dialect.error(error, request_id)
        head = http1.response_head(answer.status, [("Content-Type", answer.content_type), *answer.headers, *dialect.ids(request_id),
                                                   ("Content-Length", str(len(answer.body))), ("Connection", "close")])
        try:
            request.setblocking(False)
            request.send(head + answer.body)
            request.recv(READ)                  # what is not read would turn the close into a reset, which eats the answer
        except OSError:
            pass

    # -- a connection's thread -------------------------------------------------------------------------------------

    def finish_request(self, request, client_address) -> None:
        try:
            connection = self.connection(request, client_address)
        except OSError:
            return                              # he has left already
        with self._lock:
            self._connections.add(connection)
        if self.house.closing():
            connection.hang_up()                # `stop_accepting` may have looked already
        try:
            connection.serve()
        finally:
            with self._lock:
                self._connections.discard(connection)

    def connection(self, request: socket.socket, client_address) -> ClientConnection:
        request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return ClientConnection(request, self.house, plain_address(client_address))

    def process_request_thread(self, request, client_address) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._count_out()

    def _count_out(self) -> None:
        with self._left:
            self._open -= 1
            self._left.notify()

    def handle_error(self, request, client_address) -> None:
        log.error("a connection ended by an error of ours", exc_info=True)


def plain_address(client_address) -> str:
    """On a socket for both families an IPv4 client has an IPv6 address; he is the same client by either."""
    return client_address[0].removeprefix("::ffff:")
