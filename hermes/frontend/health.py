"""GET /v1/status, /livez, /readyz. They read snapshots, and answer whatever state Ollama is in."""

import json
import threading
import time
from collections.abc import Callable
from typing import Protocol

from hermes.frontend.exchange import Call, Response
from hermes.frontend.own import DIALECT
from hermes.frontend.router import Route

PATHS = frozenset({"/livez", "/readyz", "/v1/status"})      # served while draining, and not counted as requests
FRESH = 1.0                 # seconds for which what Ollama said of itself is good enough


class Views(Protocol):
    """What Application shows. `see` asks Ollama; the others only look."""

    def status(self, seen, call: Call) -> dict: ...
    def serving(self) -> bool: ...
    def see(self, client): ...


class Health:
    def __init__(self, views: Views):
        self._views = views
        self._lock = threading.Lock()       # one question to Ollama at a time; the others wait for its answer
        self._seen = None
        self._seen_at = float("-inf")

    def routes(self) -> list[Route]:
        table: dict[str, Callable[[Call], Response]] = {"/livez": self.live, "/readyz": self.ready, "/v1/status": self.status}
        return [Route(method, path, DIALECT, endpoint, admin="too") for path, endpoint in table.items() for method in ("GET", "HEAD")]

    def live(self, call: Call) -> Response:
        return Response(200, b"ok\n", "text/plain; charset=utf-8")

    def ready(self, call: Call) -> Response:
        """Ready to take requests: not stopping, and Ollama answers. A full queue is back-pressure, not unreadiness."""
        if not self._views.serving():
            return Response(503, b"draining\n", "text/plain; charset=utf-8", (("Retry-After", "1"),))
        seen = self._see(call)
        if not seen.up:
            return Response(503, f"ollama is not answering: {seen.error}\n".encode(), "text/plain; charset=utf-8", (("Retry-After", "1"),))
        return Response(200, b"ok\n", "text/plain; charset=utf-8")

    def status(self, call: Call) -> Response:
        body = json.dumps(self._views.status(self._see(call), call), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        return Response(200, body + b"\n", headers=(("Cache-Control", "no-store"),))

    def _see(self, call: Call):
        with self._lock:
            if time.monotonic() - self._seen_at > FRESH:
                self._seen = self._views.see(call.client)
                self._seen_at = time.monotonic()
            return self._seen
