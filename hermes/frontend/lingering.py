"""What a client sends that nobody wants: read and thrown away, so that his answer is not lost to him, nor always the connection.

    before the answer, of a body that is not kept         `forget_now`: a malformed request must not be answered as if it were not
    behind the answer, if it is short and sure to come    `forget`; the next request follows
    else                                                  `linger`: say that nothing more comes, and let him finish talking for a moment

A socket that is closed with unread bytes answers with a reset, and whoever is still sending then gives up before he reads what he was told.
"""

import select
import socket
import struct
import time

from hermes.errors import BadRequest, ClientGone, RequestTimeout
from hermes.frontend.upload import READ, Upload

SPARE = 64 * 1024           # bytes of a body that are read for nothing, so that the connection of a refused request lives on
LINGER = 1.0                # seconds in which a refused client may finish talking
LINGER_BYTES = 1 << 20
LOOK = 0.05                 # seconds between two looks at a socket that nothing wakes us for any more


def forget(sock: socket.socket, body: Upload, seconds: float) -> bool:
    """Read the rest of `body`. False: it has not come in so many seconds. Raises CallerError, ClientGone, OSError."""
    deadline, poll = time.monotonic() + seconds, select.poll()
    poll.register(sock, select.POLLIN)
    while not body.ended:
        if not body.ready and not poll.poll(max(0.0, min(deadline - time.monotonic(), 1e6)) * 1000):
            return False
        body.read()
    return True


def forget_now(sock: socket.socket, body: Upload, seconds: float, most: int) -> None:
    """The same before the answer, and with an error for each way in which it can go wrong; `most`: of chunks, so many bytes. Raises CallerError."""
    body.limit(most)
    try:
        body.invite()
        if not forget(sock, body, seconds):
            raise RequestTimeout("the request did not arrive in time")
    except ClientGone:
        raise BadRequest("the body ended too early") from None


def linger(sock: socket.socket) -> None:
    """Until the client has closed, or has had LINGER seconds, or LINGER_BYTES. Raises OSError."""
    sock.shutdown(socket.SHUT_WR)
    poll, deadline, left = select.poll(), time.monotonic() + LINGER, LINGER_BYTES
    poll.register(sock, select.POLLIN)
    while left > 0 and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        data = sock.recv(READ)
        if not data:
            return
        left -= len(data)


def linger_deaf(sock: socket.socket) -> None:
    """The same on a socket whose receiving side has been shut down, which woke whoever waited for the client. The kernel still takes what comes, but
    would answer it with a reset, were the other side shut down as well; and no poll tells that something has come. Raises OSError."""
    poll, left = select.poll(), LINGER_BYTES
    poll.register(sock, 0)
    for _ in range(round(LINGER / LOOK)):
        while left > 0 and (data := sock.recv(READ)):
            left -= len(data)
        if left <= 0 or poll.poll(LOOK * 1000):
            return


def shut(sock: socket.socket, how: int) -> None:
    """Shut one side down, from any thread. Not by the method of an SSLSocket, which takes the TLS off: the rest of an answer would go out in the
    clear."""
    try:
        socket.socket.shutdown(sock, how)
    except OSError:
        pass


def reset(sock: socket.socket) -> None:
    """Close at once, so that nobody takes it for a proper end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
    except OSError:
        pass
