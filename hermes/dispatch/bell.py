"""Something a thread can wait for in the same poll as its client's socket, and another thread can ring."""


import os
import select
import threading

# How a client that has left shows on its socket. POLLRDHUP tells of a half-close too, also when pipelined bytes are waiting;
# a half-closed client counts as gone, as in nginx and Ollama (reliability.md §2.3). Linux has it, others tell of a full close.
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR


class Bell:
    """Whoever rings may come late: the waiting thread has timed out, and the descriptor's number is somebody else's by now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = True
        if hasattr(os, "eventfd"):
            self._reader = self._writer = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self._reader, self._writer = os.pipe()

    def fileno(self) -> int:
        return self._reader

    def ring(self) -> None:
        with self._lock:
            if self._open:
                os.write(self._writer, (1).to_bytes(8, "little"))

    def clear(self) -> None:
        """To be used again; only by the thread that waits, and only after it has rung."""
        os.read(self._reader, 4096)

    def close(self) -> None:
        with self._lock:
            self._open = False
            os.close(self._reader)
            if self._writer != self._reader:
                os.close(self._writer)
