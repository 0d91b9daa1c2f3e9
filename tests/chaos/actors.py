"""The clients: each does one step against Hermes and hands back what it saw. Runs in the actors' threads; nothing is judged here."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tests.chaos.asks import KEYS, message, request_id
from tests.chaos.judge import Seen
from tests.chaos.plan import Ask, Rubbish
from tests.harness import Client, Reply

PIECE = 24                  # bytes that a slow client sends at a time
STALLED = 16384             # bytes of buffer that a client has who does not read; with less, the kernel takes minutes to deliver what is on its way
HEAD_END = b"\r\n\r\n"


def leave(client: Client, how: str) -> None:
    """For good, by FIN or RST; or by half, and then the other side is waited for."""
    if how == "half":
        with suppress(ConnectionError):      # the other side was quicker
            client.sock.shutdown(socket.SHUT_WR)
            while client.more():
                pass
    if how == "rst":
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Actor:
    """One client, and the connection that it keeps for its next request. One thread."""

    def __init__(self, port: int, seed: int, patience: float):
        """`patience`: seconds for each answer; what takes longer is a trouble."""
        self._port, self._seed, self._patience = port, seed, patience
        self._kept: Client | None = None
        self._last: Ask | None = None       # whose connection that is
        self._rest = threading.Event()      # never set: to wait on

    def ask(self, ask: Ask) -> list[tuple[Ask, Seen]]:
        """What became of the request, and of the one behind it if it was answered so that another could follow."""
        return self._guarded(ask, self._ask)

    def _guarded(self, ask: Ask, act: Callable[[Ask, Client], list[tuple[Ask, Seen]]]) -> list[tuple[Ask, Seen]]:
        began = time.monotonic()
        client, self._kept = self._kept, None
        self._last = self._last if client else None
        try:
            client = client or Client(self._port, self._patience)
            return act(ask, client)
        except TimeoutError:
            return [(ask, Seen(trouble=f"no answer in {time.monotonic() - began:.1f} s"))]
        except (OSError, AssertionError, ValueError, IndexError) as error:
            return [(ask, Seen(trouble=f"{type(error).__name__}: {error}"))]
        finally:
            if client is not None and client is not self._kept:
                client.close()

    def _ask(self, ask: Ask, client: Client) -> list[tuple[Ask, Seen]]:
        head, said = message(ask, self._seed)
        began, manner = time.monotonic(), ask.manner
        if manner.phase in ("head", "body"):
            return [(ask, self._half_said(client, ask, (head, said)))]
        if manner.phase == "stall":
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, STALLED)
        if manner.phase == "slow":
            self._dribble(client, head + said, manner.seconds)
        else:
            client.send_raw(head + said + (b"".join(message(ask.behind, self._seed)) if ask.behind else b""))
        if manner.phase in ("sent", "streaming"):
            return [(ask, self._left(client, ask, began))]
        if manner.phase == "stall":
            self._rest.wait(manner.seconds)
        seen = [(ask, self._answer(client, began))]
        seen[0][1].after = self._last
        if ask.behind and self._goes_on(seen[0][1].reply):
            seen.append((ask.behind, self._answer(client, began)))
        self._keep(client, *seen[-1])
        return seen

    def _answer(self, client: Client, began: float) -> Seen:
        reply = client.reply()
        return Seen(reply, seconds=time.monotonic() - began)

    def _half_said(self, client: Client, ask: Ask, parts: tuple[bytes, bytes]) -> Seen:
        head, said = parts
        client.send_raw(head[:len(head) // 2] if ask.manner.phase == "head" else head + said[:len(said) // 2])
        leave(client, ask.manner.how)
        return Seen(cut_short=True)

    def _dribble(self, client: Client, data: bytes, seconds: float) -> None:
        count = len(data) // PIECE + 1
        for number in range(count):
            client.send_raw(data[number * PIECE:(number + 1) * PIECE])
            self._rest.wait(seconds / count)

    def _left(self, client: Client, ask: Ask, began: float) -> Seen:
        """It goes at its time, and what it has by then is what it was given."""
        manner = ask.manner
        if manner.phase == "sent":
            self._rest.wait(manner.seconds)
        else:
            while len(client.buffer.partition(HEAD_END)[2]) < manner.size and not _as_it_is(client).complete and client.more():
                pass
        leave(client, manner.how)
        return Seen(_as_it_is(client), cut_short=True, seconds=time.monotonic() - began)

    def _keep(self, client: Client, ask: Ask, seen: Seen) -> None:
        """For the next request, if another may follow. Nothing may have come behind the answer."""
        if self._goes_on(seen.reply):
            seen.extra, client.buffer = client.buffer, b""
            self._kept, self._last = client, ask

    @staticmethod
    def _goes_on(reply: Reply) -> bool:
        return reply.complete and reply.headers.get("connection", "").lower() != "close"

    def rubbish(self, step: Rubbish) -> tuple[list[Reply], str]:
        """All the answers to it, and what trouble there was."""
        replies: list[Reply] = []
        try:
            with Client(self._port, self._patience) as client:
                client.send_raw(step.data)
                if step.half:
                    client.sock.shutdown(socket.SHUT_WR)
                while (not replies or step.half or client.buffer or not self._goes_on(replies[-1])) and (client.buffer or client.more()):
                    replies.append(client.reply("GET"))
        except OSError as error:
            return replies, "" if isinstance(error, (BrokenPipeError, ConnectionResetError)) else f"{type(error).__name__}: {error}"
        except (AssertionError, ValueError, IndexError) as error:
            return replies, f"{type(error).__name__}: {error}"
        return replies, ""

    def call(self, method: str, path: str, number: int, who: str = "alice") -> Reply:
        """A small request on a connection of its own. Raises OSError."""
        with Client(self._port, self._patience) as client:
            headers = {"Authorization": f"Bearer {KEYS[who]}", "X_Request_ID": request_id(self._seed, number)}
            return client.send(method, path, **headers).reply(method)

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()


class _Recorded(Client):
    """Bytes that have come already, to be read as an answer."""

    def __init__(self, data: bytes):
        self.buffer = data

    def more(self) -> bool:
        return False


def _as_it_is(client: Client) -> Reply:
    """What there is of the answer."""
    return _Recorded(client.buffer).reply()
