"""One client's connection: requests in, answers out, until either side has had enough. Runs in the connection's own thread.

The socket blocks, with the kernel's send timeout; reading goes through poll, because a request's head and body each have a deadline as a
whole, which a timeout per read would not keep. Every answer leaves in as few writes as its arrival allows: head and first bytes together.
"""

import logging
import select
import socket
import time

from hermes.dispatch.faults import made
from hermes.errors import (BadRequest, BodyTooLarge, CallerError, ClientGone, EncodedBody, HermesError, RequestTimeout,
                           TooManyConnections)
from hermes.frontend import http1
from hermes.frontend.exchange import Call, Dialect, Response, Streamed, apart, id_of
from hermes.frontend.http1 import ChunkedBody, CountedBody, HeadReader, Request
from hermes.frontend.house import House
from hermes.frontend.lingering import SPARE, forget, forget_now, linger, linger_deaf, reset, shut
from hermes.frontend.principal import NOBODY
from hermes.frontend.router import Route
from hermes.frontend.sending import bear, send_all
from hermes.frontend.upload import Upload

log = logging.getLogger("hermes.connection")
READ = 64 * 1024
BODY_RATE = 50_000          # bytes a second: so fast a body may come for as long as it takes (reliability.md §2.2)
COMPRESSED = ("Hermes reads no compressed request body: send it without Content-Encoding"
              " (Codex: enable_request_compression = false under [features] in its config.toml)")


class ClientConnection:
    upload = Upload

    def __init__(self, sock: socket.socket, house: House, address: str = ""):
        self.address = address                  # the client's, without a port
        self._sock = sock
        self._house = house
        self._limits = house.limits
        self._buffer = b""
        self._head_reader = HeadReader()        # the present request's
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._sent = False                      # has anything of the present answer gone out?
        self._last = b""                        # what went out of its body last
        self._keep = True                       # may another request follow?
        self.idle = True                        # between two requests: may be closed by the server at any time
        self._evicted = False
        self._parked = 0                        # bytes of the present request's body
        self._unread: Upload | None = None      # the present request's body, as long as nobody has begun to keep it
        self._deaf = False                      # hung up: the kernel gives what is here, and does not wait for more
        self._cut = False                       # has an answer broken off that had begun?
        self._unframed = False                  # does the present answer end where the connection does? (RFC 9112 §6.3)
        bear(sock, self._limits.idle, self._limits.send)

    def fileno(self) -> int:
        return self._sock.fileno()

    def reached(self) -> str:
        """The address of ours that the client has connected to, without a port. Raises OSError."""
        return self._sock.getsockname()[0]

    def serve(self) -> None:
        """Until the connection ends. Never raises what a client can cause."""
        waiting = self._house.waiting
        waiting.enter(self)
        try:
            while self._keep and self._one():
                self._house.live.remove(self)
                self._park(0)
                self.idle = True
                waiting.enter(self)
                self._keep = self._keep and self._forget_body()
                if self._house.closing():
                    break
            self._part()
        except (OSError, ClientGone):
            if self._unframed:
                reset(self._sock)               # a proper end would pass for that of the answer
        finally:
            self._house.live.remove(self)
            self._park(0)
            waiting.leave(self)

    def evict(self) -> None:
        """Any thread: others need the place of this connection, which is among those that wait."""
        self._evicted = True
        self.hang_up()

    def hang_up(self) -> None:
        """Any thread: the server stops, and this connection waits for a request that must not come; or its call is ended."""
        self._deaf = True
        shut(self._sock, socket.SHUT_RD)

    def cut_off(self) -> None:
        """Any thread: a call has been ended and goes on all the same, because its client does not read what is being sent to him."""
        shut(self._sock, socket.SHUT_WR)

    # -- one request -----------------------------------------------------------------------------------------------

    def _one(self) -> bool:
        """Serve one request. False: the client has closed, or was idle too long."""
        if not self._buffer and not self._await_request():
            return False
        deadline = time.monotonic() + self._limits.head
        dialect = call = None
        self._sent = self._unframed = self.idle = False
        self._last, self._unread = b"", None
        try:
            request = self._read_head(deadline)
            if request is None:
                return False
            call, dialect = self._meet(request)
            self._keep = request.keep_alive
            answer, route = self._answer(call)
        except HermesError as error:
            if call is None or isinstance(error, RequestTimeout):
                self._keep = False              # what comes next on this connection cannot be trusted to be a request
            if call is None:
                call, dialect = self._meet(self._head_reader.known)
            self._refuse(call, dialect, error)
            return True
        except (ClientGone, OSError):
            if call is not None and call.cancelled is not None:
                self._keep = False
                self._refuse(call, dialect, call.cancelled)
                return True
            if call is not None:
                self._house.note(call, 499, "cancelled")
            raise
        except Exception:
            log.exception("a request ended by an error of ours")
            if call is None:
                call, dialect = self._meet(self._head_reader.known)
            self._keep = False
            self._refuse(call, dialect, HermesError("internal error"))
            return True
        self._leave_body()
        self._deliver(call, route, answer)
        return True

    def _meet(self, request: Request) -> tuple[Call, Dialect]:
        """The call that a request is, and the family whose clients it comes from."""
        dialect = self._house.router.dialect(request.path)
        request_id, limits = id_of(request), self._limits
        call = Call(request, self, heartbeat=limits.heartbeat, heartbeat_plain=limits.heartbeat_plain, headers=dialect.ids(request_id),
                    request_id=request_id)
        self._house.live.add(self, call)
        return call, dialect

    def _answer(self, call: Call) -> tuple[Response | Streamed, Route]:
        """Check everything that needs no body, then read the body, then ask the endpoint."""
        request = call.request
        if request.length != 0:
            self._unread = self.upload(self._sock, request, self._buffer, self._limits.body)
        self._house.admit(call)
        route, call.model = self._house.router.match(request.method, request.path)
        if route.infers:
            self._house.charge(call)
        if route.streams_body:
            call.upload = self._unread = self._unread or self.upload(self._sock, request, self._buffer, self._limits.body)
        elif self._unread is not None:
            if request.headers.get("content-encoding", "identity").lower() != "identity":
                raise EncodedBody(COMPRESSED)
            most = self._limits.max_body if call.principal is not NOBODY else min(self._limits.max_body, SPARE)
            if request.length is not None and request.length > most:
                raise BodyTooLarge(f"the body is larger than {most} bytes")
            if call.principal is NOBODY:        # nothing is kept for whom the gate has not asked for a key
                self._skip_body(most)
            else:
                self._house.parking.check(request.length or 0, self._limits.max_parked)
                if request.expects_100 and not self._buffer:
                    self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                call.body = self._take_body(request.length)
        return made(route.endpoint, call), route

    def _refuse(self, call: Call, dialect: Dialect, error: HermesError) -> None:
        self._leave_body()
        call.error = error
        answer = dialect.error(error, call.request_id)
        call.queued = call.queued or error.waited
        try:
            self._send_response(call, answer)
        finally:
            self._house.note(call, answer.status, "refused" if isinstance(error, CallerError) else error.code)

    # -- reading ---------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float) -> bool:
        return bool(self._poll.poll(None if seconds == float("inf") else max(0.0, seconds) * 1000))

    def _await_request(self) -> bool:
        """The first bytes of the next request, in one system call: each one hands the interpreter to another thread."""
        try:
            self._buffer = self._sock.recv(READ)
        except BlockingIOError:
            return False                        # SO_RCVTIMEO: idle for too long
        return bool(self._buffer)

    def _read(self, deadline: float) -> bytes:
        """Some bytes, or b"" at the end. Raises RequestTimeout at the deadline."""
        if not self._wait(deadline - time.monotonic()):
            raise RequestTimeout("the request did not arrive in time")
        return self._sock.recv(READ)

    def _read_head(self, deadline: float) -> Request | None:
        """None: the client closed, was sent away, or has sent only empty lines for too long, before a request began."""
        head = self._head_reader = HeadReader()
        data = self._buffer
        while True:
            head.feed(data)
            if head.request is not None:
                break
            try:
                data = self._read(deadline)
            except RequestTimeout:
                if head.begun:
                    raise
                return None
            if not data:
                break
        self._buffer = head.rest
        if head.request is not None and self._house.waiting.leave(self):
            return head.request
        if not head.begun:
            return None
        if self._evicted or head.request is not None:       # off the list, but `evict` has yet to be called
            raise TooManyConnections("too many connections")
        raise ClientGone

    def _take_body(self, length: int | None) -> bytearray:
        """The whole body, to be kept. Whatever goes wrong in the middle of it is the connection's end."""
        keep, self._keep, self._unread = self._keep, False, None
        body = self._read_body(length)
        self._keep = keep
        return body

    def _skip_body(self, most: int) -> None:
        """The same, not to be kept."""
        keep, self._keep = self._keep, False
        forget_now(self._sock, self._unread, self._limits.body, most)
        self._keep = keep

    def _leave_body(self) -> None:
        """The head of an answer is about to go out, and must say whether a request may follow: not behind a body that nobody wants, unless the rest
        of it is short and sure to come. Else that would be taken for the request."""
        self._keep = self._keep and (self._unread is None or self._unread.short(SPARE))

    def _forget_body(self) -> bool:
        """Behind the answer: read what nobody wanted. False: it has not come in time. Raises ClientGone."""
        body, self._unread = self._unread, None
        if body is None:
            return True
        whole = forget(self._sock, body, self._limits.body)
        self._buffer = body.rest
        return whole

    def _read_body(self, length: int | None) -> bytearray:
        """Never in memory twice, and never more room than what has come: a client may claim much and send nothing."""
        body = ChunkedBody(self._limits.max_body) if length is None else CountedBody(length)
        deadline = time.monotonic() + self._limits.body
        data, self._buffer = self._buffer, b""
        while True:
            body.feed(data)
            self._park(len(body.body()))
            if body.ended:
                self._buffer = body.rest
                return body.body()
            data = self._read(deadline + self._parked / BODY_RATE)
            if not data:
                raise BadRequest("the body ended too early")

    def _park(self, size: int) -> None:
        """The present request's body has this size now. Raises BodiesParked."""
        if size > self._parked:
            self._house.parking.take(size - self._parked, self._limits.max_parked)
        elif size < self._parked:
            self._house.parking.give(self._parked - size)
        self._parked = size

    # -- writing ---------------------------------------------------------------------------------------------------

    def _head(self, call: Call, status: int, headers: list[tuple[str, str]]) -> bytes:
        headers += call.headers
        if not self._keep or self._house.closing():
            self._keep = False
            headers.append(("Connection", "close"))
        elif not call.request.http11:
            headers.append(("Connection", "keep-alive"))
        return http1.response_head(status, headers)

    def _settle(self, call: Call, promised: bool = False) -> None:
        """The last of the answer is about to go out: who ends the call from now on would hit the next one. Raises ClientGone where the head may have
        promised that the connection stays: behind a proper end the client's next request would go into nothing."""
        self._house.live.remove(self)
        if call.cancelled is not None:
            self._keep = False                  # too late, but nothing can be read any more
            if promised:
                raise ClientGone

    def _send_response(self, call: Call, answer: Response) -> None:
        headers = [("Content-Type", answer.content_type)] if answer.content_type else []
        headers += (("Date", http1.http_date(int(time.time()))), *answer.headers)
        if answer.status != 204:                # which has no body, and so no length (RFC 9110 §8.6)
            headers.append(("Content-Length", str(len(answer.body))))
        body = b"" if call.request.method == "HEAD" else answer.body
        self._settle(call)
        self._sock.sendall(self._head(call, answer.status, headers) + body)

    def _deliver(self, call: Call, route: Route, answer: Response | Streamed) -> None:
        """Send the answer; the single exit of every request that had a route."""
        if isinstance(answer, Response):
            outcome = "cancelled"
            try:
                self._send_response(call, answer)
                outcome = "ok" if answer.status < 400 else "refused"
            finally:
                self._house.note(call, answer.status, outcome)
            return
        outcome, status = "cancelled", answer.status
        try:
            self._send_stream(call, answer)
            outcome = "ok" if answer.status < 400 else "refused"
        except HermesError as error:
            outcome, status = error.code, answer.status if self._sent else error.status
            self._tell(call, route.dialect, answer, error)
        except (ClientGone, OSError) as gone:
            if call.cancelled is None or isinstance(gone, (BlockingIOError, TimeoutError)):     # who has not read for so long is not waited for again
                raise
            self._keep, status = False, answer.status if self._sent else call.cancelled.status
            self._tell(call, route.dialect, answer, call.cancelled)
        except Exception:
            log.exception("a stream ended by an error of ours")
            outcome, status = HermesError.code, answer.status if self._sent else HermesError.status
            self._tell(call, route.dialect, answer, HermesError("internal error"))
        finally:
            try:
                made(answer.source.close)
            finally:
                self._house.note(call, status, outcome)

    def _send_stream(self, call: Call, answer: Streamed) -> None:
        """Raises HermesError when the source fails; the last chunk goes out only if it did not."""
        framing, coded = answer.framing, call.request.http11 and answer.framing != "length"
        headers = [*answer.headers, ("Date", http1.http_date(int(time.time())))]
        if framing == "length":
            headers.append(("Content-Length", str(answer.length)))
        elif coded:
            headers.append(("Transfer-Encoding", "chunked"))
        else:
            self._keep, self._unframed = False, call.request.method != "HEAD"
        waiting = self._head(call, answer.status, headers)
        if call.request.method == "HEAD":
            while not answer.source.ended:
                made(answer.source.read)
            self._settle(call, promised=True)
            self._sock.sendall(waiting)
            return
        source, code = answer.source, coded and framing == "plain"
        while True:
            data = made(source.read)
            if code:
                data = http1.chunk(data)
            if source.ended:
                self._settle(call, promised=True)
                data += http1.LAST_CHUNK if coded else b""
            if waiting or data:
                send_all(self._sock, waiting + data, call)
                waiting, self._sent, self._last = b"", True, data or self._last
            if source.ended:
                return

    def _tell(self, call: Call, dialect: Dialect, answer: Streamed, error: HermesError) -> None:
        """The source has failed: a proper error if nothing has gone out, else a record in the stream and no clean end."""
        call.error = error
        if not self._sent:
            self._send_response(call, dialect.error(error, call.request_id))
            return
        self._keep, self._cut = False, True
        if answer.in_band and answer.framing != "length" and not getattr(error, "told", False):
            last = self._last.removesuffix(b"\r\n") if call.request.http11 else self._last
            record = apart(last, answer.in_band(error))
            self._sock.sendall(http1.chunk(record) if call.request.http11 else record)
        elif self._unframed and not getattr(error, "told", False):
            raise ClientGone                    # he can be told in no other way

    def _part(self) -> None:
        """The end, if it is one by the rules and the client has not just left."""
        if not self._keep and not self._evicted:
            self._linger()

    def _linger(self) -> None:
        """Close in a way that lets the answer be read."""
        try:
            if self._deaf and self._unread is not None and not self._unread.ended:
                linger_deaf(self._sock)
            else:
                linger(self._sock)
        except OSError:
            return
