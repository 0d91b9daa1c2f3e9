"""One TCP connection: buffered reading, and waits that end when the peer leaves.

A connection belongs to its handler thread. Others may only look whether the peer is still there, or shut it down.
"""

import select
import socket
import struct
import time
from contextlib import suppress

# Closed by the peer, half-closed by it, or reset: Ollama counts each as gone (ollama-api.md §2.4).
# Half-closing shows on Linux only.
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR | select.POLLNVAL

_READ_SIZE = 65536


class ClientGone(Exception):
    """The peer has left."""


class Client:
    """The peer of one connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.number = 0
        self._socket = sock
        self._buffer = bytearray()
        self._poller = select.poll()
        self._poller.register(sock, GONE)
        self._closed = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """For poll."""
        return self._socket.fileno()

    def read_until(self, mark: bytes, limit: int) -> bytes | None:
        """Bytes up to and including the mark; None if the peer closed before the first of them."""
        searched = 0
        while (index := self._buffer.find(mark, max(0, searched - len(mark)))) < 0:
            searched = len(self._buffer)
            if searched > limit:
                raise ValueError("too long")
            if not self._fill():
                if searched:
                    raise ClientGone
                return None
        return self._take(index + len(mark))

    def read_exactly(self, count: int) -> bytes:
        """That many bytes."""
        while len(self._buffer) < count:
            if not self._fill():
                raise ClientGone
        return self._take(count)

    def send(self, data: bytes) -> None:
        """Sends all of it, blocking while the peer does not read."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ClientGone from error

    def check(self) -> None:
        """Raises if the peer has left."""
        if self._poller.poll(0):
            raise ClientGone

    def pause(self, seconds: float) -> None:
        """Sleeps; raises as soon as the peer leaves."""
        if seconds <= 0:
            return self.check()
        if self._poller.poll(seconds * 1000):
            raise ClientGone

    def pause_until(self, moment: float) -> None:
        """Sleeps until a moment of the monotonic clock; raises as soon as the peer leaves."""
        self.pause(moment - time.monotonic())

    def wait_gone(self) -> None:
        """Blocks until the peer leaves, then raises."""
        self._poller.poll()
        raise ClientGone

    def wait_readable(self, descriptor: int) -> None:
        """Blocks until the descriptor can be read; raises as soon as the peer leaves."""
        poller = select.poll()
        poller.register(self._socket, GONE)
        poller.register(descriptor, select.POLLIN)
        ready = [found for found, _ in poller.poll()]
        if descriptor not in ready:
            raise ClientGone

    def linger(self, seconds: float) -> None:
        """Sends nothing more, and waits for the peer to leave; closing at once would reset it before it has read all."""
        with suppress(OSError):  # Reset by the peer already.
            self._socket.shutdown(socket.SHUT_WR)
        with suppress(ClientGone):
            self.pause(seconds)

    def close(self, by: str = "fin") -> None:
        """Closes, by the handler thread; "rst" throws away what has not been sent and resets."""
        if self._closed:
            return
        self._closed = True
        with suppress(OSError):  # Reset by the peer already.
            if by == "rst":
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()

    def shut_down(self) -> None:
        """Ends the conversation from another thread; the handler then sees that its peer has gone."""
        with suppress(OSError):  # Not connected any more.
            self._socket.shutdown(socket.SHUT_RDWR)

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(_READ_SIZE)
        except OSError:
            return False
        self._buffer += data
        return bool(data)

    def _take(self, count: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return data
