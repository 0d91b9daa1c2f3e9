"""Sending a piece of an answer to a client who may take his time, but not his worker's."""

import socket
import struct

from hermes.frontend.exchange import Call
from hermes.workers.messages import Bytes


def bear(sock: socket.socket, idle: float, stuck: float) -> None:
    """How many seconds the kernel itself waits for a client who says nothing, and for one who takes nothing."""
    for option, seconds in ((socket.SO_RCVTIMEO, idle), (socket.SO_SNDTIMEO, stuck)):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))


def send_all(sock: socket.socket, data: Bytes, call: Call) -> None:
    """`sendall`, which is never late as long as the client takes a little now and then: behind all the time that the call may have its worker he
    is not waited for any more. Raises OSError."""
    sent = 0
    while sent < len(data):
        if call.leases and call.leases[-1].overdue():
            raise TimeoutError("the client reads too slowly")
        sent += sock.send(memoryview(data)[sent:] if sent else data)
