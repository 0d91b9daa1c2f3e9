"""A request's body that nobody reads in advance, because it may be larger than any memory. Runs in its client's handler thread."""

import socket

from hermes.errors import ClientGone, HermesError
from hermes.frontend.http1 import LAST_CHUNK, ChunkedBody, Request, chunk

READ = 64 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Upload:
    """What a client has yet to send, for hermes.dispatch.feed. `ended`: it has come to its end; `rest` is what came behind it, of the next
    request, `ready` that something of it is here already, `patience` how many seconds the client may pause.

    What `read` returns is framed as `headers` say: bytes that were counted stay so, chunks are made anew, without extensions and trailers.
    """

    def __init__(self, sock: socket.socket, request: Request, buffer: bytes, patience: float):
        """`buffer`: what was read of the body, and of what follows it, together with the head."""
        self.patience = patience
        self.ended = request.length == 0
        self.rest = buffer
        self.headers = (("Transfer-Encoding", "chunked"),) if request.length is None else (("Content-Length", str(request.length)),)
        self._sock = sock
        self._left = request.length                         # bytes to come, if they are counted
        self._chunks = ChunkedBody(limit=1 << 62) if request.length is None else None
        self._expects_100 = request.expects_100

    @property
    def ready(self) -> bool:
        return bool(self.rest)

    def short(self, most: int) -> bool:
        """Is what is left of it at most so many bytes, and sure to come? Of chunks only if all are here: nobody knows how many more follow."""
        if self.ended or self._chunks is None:
            return self.ended or self._left <= most and not self._expects_100
        try:
            if self.rest:
                self.read()
        except HermesError:
            pass                                            # malformed: nobody can say where it ends
        return self.ended

    def limit(self, most: int) -> None:
        """Of chunks: refuse more bytes than that, as soon as they are said to come. What is counted says so in the head."""
        if self._chunks is not None:
            self._chunks.limit = most

    def invite(self) -> None:
        """Say 100 Continue to a client who waits for it. Raises ClientGone."""
        if self._expects_100 and not self.rest and not self.ended:
            self._expects_100 = False
            try:
                self._sock.sendall(CONTINUE)
            except OSError:
                raise ClientGone from None

    def read(self) -> bytes:
        """What one read gives, b"" if that is nothing for Ollama; to be called when it need not wait. Raises CallerError, ClientGone."""
        data, self.rest = self.rest, b""
        if not data:
            try:
                data = self._sock.recv(READ)
            except OSError:
                raise ClientGone from None
            if not data:
                raise ClientGone
        return self._counted(data) if self._chunks is None else self._chunked(data)

    def _counted(self, data: bytes) -> bytes:
        if len(data) >= self._left:
            data, self.rest, self.ended = data[:self._left], data[self._left:], True
        self._left -= len(data)
        return data

    def _chunked(self, data: bytes) -> bytes:
        body = self._chunks
        body.feed(data)
        piece = chunk(body.take())
        if body.ended:
            self.ended, self.rest = True, body.rest
            piece += LAST_CHUNK
        return piece
