"""What the service manager is told, in datagrams to the socket that it names in $NOTIFY_SOCKET: sd_notify(3), and nothing without that variable.

Hermes never waits for its manager. What this one does not take at once is kept, in order, and tried again by the main loop: a lost READY=1
would be a start that failed. What cannot be sent at all is a debug line.
"""

import logging
import math
import socket
from collections import deque
from collections.abc import Mapping, MutableMapping

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
RETRY = 1.0                 # seconds until what the manager has not taken is tried again
UNSAID = 16                 # messages that are kept for that
MARGIN = 5.0                # seconds for the end itself, after the drain
DAY = 86400.0
log = logging.getLogger("hermes.notifier")


def take(environ: MutableMapping[str, str]) -> dict[str, str]:
    """The manager's variables, out of the environment: no process that Hermes starts is to speak in its name."""
    return {name: environ.pop(name) for name in VARIABLES if name in environ}


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float:
    """Seconds in which the manager wants a sign of life from this process; inf = it wants none (sd_watchdog_enabled(3)).

    More often than asked for is no harm, and poll() counts no months.
    """
    try:
        seconds = int(environ.get("WATCHDOG_USEC", "0")) / 1e6
        ours = int(environ.get("WATCHDOG_PID", pid)) == pid
    except (ValueError, OverflowError):
        return math.inf
    return min(seconds, DAY) if seconds > 0 and ours else math.inf


class Notifier:
    """Main thread only. Without a socket every method is nothing."""

    def __init__(self, environ: Mapping[str, str], pid: int = 0):
        """`environ`: what `take` gave."""
        self._unsaid: deque[bytes] = deque(maxlen=UNSAID)
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]        # an abstract one
        self._socket = _socket() if self._address[:1] in ("/", "\0") else None
        self.interval = watchdog_interval(environ, pid) if self._socket else math.inf

    def ready(self, status: str) -> None:
        """At the start, and again behind each reload, however that ended. `status` is for people, one line."""
        self._say("READY=1", f"STATUS={status}")

    def reloading(self, now: float) -> None:
        """`now` is monotonic: systemd wants to know that this reload came after its signal."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={int(now * 1e6)}")

    def stopping(self, seconds: float) -> None:
        """`seconds`: how long it may take. It lengthens systemd's own patience, TimeoutStopSec, and never shortens it."""
        self._say("STOPPING=1", f"STATUS=stopping, within {seconds:g} s", f"EXTEND_TIMEOUT_USEC={int((seconds + MARGIN) * 1e6)}")

    def well(self) -> None:
        """Never while stopping: systemd has put its watchdog away by then, and this would wind it up again."""
        self._say("WATCHDOG=1")

    @property
    def unsaid(self) -> bool:
        return bool(self._unsaid)

    def flush(self) -> None:
        """Say what has not been taken yet."""
        while self._unsaid:
            try:
                self._socket.sendto(self._unsaid[0], self._address)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("the service manager cannot be told error=%s", error)
            self._unsaid.popleft()

    def close(self) -> None:
        if self._socket:
            self._socket.close()

    def _say(self, *lines: str) -> None:
        message = "\n".join(lines).encode("utf-8", "replace")
        if self._socket and not (self._unsaid and self._unsaid[-1] == message):
            self._unsaid.append(message)
            self.flush()


def _socket() -> socket.socket | None:
    """Opened once: a sign of life must not fail for want of a descriptor. Python's own are closed in every child (PEP 446)."""
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    except OSError as error:
        log.debug("no socket for the service manager error=%s", error)
        return None
    sock.setblocking(False)
    return sock
