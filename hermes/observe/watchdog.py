"""Whether Hermes is well, for a service manager that restarts what is not: its main loop turns, and its listener answers.

    main loop ── time for a sign of life ──▶ thread ── GET /livez ──▶ Hermes's own listener
        ▲                                      │
        └──────── answered: now it may ────────┘

The sign comes from the main loop, so one that hangs gives none; and only when a request that the loop has asked for since the last sign was
answered. An unconditional timer would be worse than none: it would vouch for a process that serves nobody.
"""

import http.client
import logging
import math
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Protocol

log = logging.getLogger("hermes.watchdog")


class Listener(Protocol):
    """What of a frontend's Server it takes to be its client. `turned_away`: connections that found every place taken, so far."""

    scheme: str
    server_name: str
    server_port: int
    turned_away: int


class SelfRequest:
    """A GET of /livez as anybody's, over a connection of its own. Any thread; waits up to `patience` seconds for each step."""

    def __init__(self, listener: Listener):
        self._listener = listener

    def __call__(self, patience: float) -> bool:
        """Was it answered 200? Where it was turned away because every place is taken, Hermes is busy and not stuck: the accept loop turns, and
        a restart would cut off all who have a place."""
        before = self._listener.turned_away
        try:
            with closing(self._connection(patience)) as connection:
                connection.request("GET", "/livez", headers={"Host": "localhost", "Connection": "close"})
                problem: object = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            problem = error
        if problem == 200 or self._listener.turned_away > before:
            return True
        log.warning("Hermes does not answer itself problem=%s", problem)
        return False

    def _connection(self, patience: float) -> http.client.HTTPConnection:
        host, port = self._listener.server_name, self._listener.server_port
        host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        if self._listener.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=patience)
        import ssl
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE      # the name is another, and whom we ask we know
        return http.client.HTTPSConnection(host, port, timeout=patience, context=context)


class Watchdog:
    """`start` and `well` in the main thread. Until `start`, and for ever with an infinite interval, there is no thread and nothing due."""

    def __init__(self, interval: float, ask: Callable[[float], bool], wake: Callable[[], None]):
        """`interval`: seconds in which the manager wants a sign; it gets one in each half. `ask(patience)` runs in a thread of its own; `wake` makes
        the main loop turn."""
        self._pause = interval / 2
        self._ask, self._wake = ask, wake
        self._wanted = threading.Event()
        self._answered = False
        self.due = math.inf             # monotonic: when the main loop has to look again

    def start(self, now: float) -> None:
        if self._pause < math.inf:
            self.due = now + self._pause
            threading.Thread(target=self._serve, name="watchdog", daemon=True).start()

    def well(self, now: float) -> bool:
        """Once a turn. True: give a sign of life now. Whoever got no answer is asked again soon, within what is left of the interval."""
        if self._answered:
            self._answered, self.due = False, now + self._pause
            return True
        if now >= self.due:
            self.due = now + self._pause / 4
            self._wanted.set()
        return False

    def _serve(self) -> None:
        while True:
            self._wanted.wait()
            answered = self._ask(self._pause / 2)
            self._wanted.clear()
            if answered:
                self._answered = True
                self._wake()
