"""One answer on its way out: head, framing, and the faults that happen on the wire.

A wire belongs to one request and its handler thread. As Ollama does, it sends nothing at all before the first chunk,
and then the head and the first chunk together (ollama-api.md §0.1).
"""

import time
from http import HTTPStatus

from hermes.simulator.client import Client
from hermes.simulator.faults import Fault
from hermes.simulator.ledger import Ledger, SimRequest
from hermes.simulator.reading import Request
from hermes.simulator.text import http_date

_CHUNKED_ABOVE = 2048  # Go's net/http learns the length of a body only if it fits its buffer.
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_END = b"0\r\n\r\n"
_KEEP_ALIVE = b"Connection: keep-alive\r\n"
EVENTS = b"Cache-Control: no-cache\r\n" + _KEEP_ALIVE
"""The headers that the newer streams of events have besides (ollama-api.md §4.1)."""


def _phrase(status: int) -> bytes:
    """As Go says it, which has a phrase for those without one as well."""
    return (_PHRASES.get(status) or f"status code {status}").encode("ascii")


class Closed(Exception):
    """The connection was closed on purpose; there is nothing more to do for it."""


class Wire:
    """The way of one answer to its client."""

    def __init__(self, client: Client, ledger: Ledger, record: SimRequest, request: Request, fault: Fault) -> None:
        self.fault = fault
        self._client = client
        self._ledger = ledger
        self._record = record
        self._request = request
        self._head = b""
        self._head_size = 0
        self._chunked = False
        self._count = 0
        self._faulty = fault != Fault()

    def answer(self, status: int, content_type: str, body: bytes, headers: bytes = b"", chunked: bool = False) -> None:
        """A whole answer in one piece, chunked if it is long or has to be."""
        if chunked or len(body) > _CHUNKED_ABOVE:
            self.open(status, content_type, headers)
            return self.close(body)
        self._begin(status, content_type, headers, b"Content-Length: %d\r\n" % len(body))
        body = b"" if self._request.method == "HEAD" else body
        self._send(self._head + body, body, last=True)

    def open(self, status: int, content_type: str, headers: bytes = b"") -> None:
        """Starts a chunked answer; the head goes out with the first chunk."""
        self._chunked = not self._request.http10
        self._begin(status, content_type, headers, b"")

    def chunk(self, payload: bytes) -> None:
        """One chunk, in one send."""
        self._send(self._head + self._framed(payload), payload)
        self._head = b""
        if self.fault.pause:
            self._client.pause(self.fault.pause)

    def close(self, payload: bytes = b"") -> None:
        """The last chunk, if there is something left to say, and the proper end of the answer."""
        end = _END if self._chunked else b""
        self._send(self._head + (self._framed(payload) if payload else b"") + end, payload, last=True)
        self._head = b""

    def raw(self, data: bytes) -> None:
        """Bytes as they are, instead of an answer."""
        self._head_size = data.find(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0
        self._send(data, data[self._head_size:], last=True)
        if not self.fault.keep:
            self.hang_up()

    def hang_up(self) -> None:
        """Closes in the fault's way."""
        self._ledger.finish(self._record)
        self._client.close(self.fault.by)
        raise Closed

    def _begin(self, status: int, content_type: str, headers: bytes, length: bytes) -> None:
        version = b"HTTP/1.0" if self._request.http10 else b"HTTP/1.1"
        kind = f"Content-Type: {content_type}\r\n".encode("ascii") if content_type else b""
        if self._request.close:
            headers = headers.replace(_KEEP_ALIVE, b"")
        # Go sorts the handler's headers, and adds its own behind them.
        lines = b"".join(sorted((kind, headers)))
        self._head = b"%b %d %b\r\n%bDate: %b\r\n%b%b%b\r\n" % (
            version, status, _phrase(status), lines, http_date(int(time.time())), length,
            b"Connection: close\r\n" if self._request.close and not self._request.http10 else b"",
            b"Transfer-Encoding: chunked\r\n" if self._chunked else b"",
        )
        self._head_size = len(self._head)

    def _framed(self, payload: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(payload), payload) if self._chunked else payload

    def _send(self, data: bytes, payload: bytes, last: bool = False) -> None:
        """Everything goes out through here. The books are closed before the last bytes, not after them."""
        if self._faulty:
            return self._send_with_fault(data, payload, last)
        self._ledger.sending(self._record, payload)
        if last:
            self._ledger.finish(self._record)
        self._client.send(data)

    def _send_with_fault(self, data: bytes, payload: bytes, last: bool) -> None:
        if self._count == 0:
            self._client.pause(self.fault.delay)
        stop = self._stop()
        room = len(data) if stop is None else stop - self._count
        stopped = stop is not None and room <= len(data)
        self._ledger.sending(self._record, payload[: max(0, room - data.index(payload))])
        if last and not stopped:
            self._ledger.finish(self._record)
        self._deliver(data[:room])
        if stopped and stop == self.fault.stall:
            self._client.wait_gone()
        if stopped:
            self.hang_up()

    def _stop(self) -> int | None:
        """After how many bytes on the wire this answer is cut or stalls."""
        fault = self.fault
        cut_body = None if fault.cut_body is None else self._head_size + fault.cut_body
        return min((stop for stop in (fault.cut, cut_body, fault.stall) if stop is not None), default=None)

    def _deliver(self, data: bytes) -> None:
        self._count += len(data)
        if self.fault.drip is None:
            return self._client.send(data)
        for index in range(len(data)):
            self._client.send(data[index: index + 1])
            self._client.pause(self.fault.drip)
