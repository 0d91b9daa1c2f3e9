"""GET /v1/status, /livez and /readyz: pictures of what is, numbers only (conventions.md §3.2). Seconds, bytes, RFC 3339."""

import json
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Protocol

from hermes import __version__
from hermes.config import CLASSES
from hermes.dispatch.pool import PoolSnapshot
from hermes.errors import ClientGone
from hermes.names import canonical

log = logging.getLogger("hermes.access")
REJECTED = ("queue_full", "queue_timeout", "pool_down", "draining", "too_many_connections", "rate_limited", "quota_exceeded",
            "locked_out")


class Counters:
    """What happened so far, by outcome. Written at one place: the single exit of a request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcomes: Counter[str] = Counter()

    def note(self, outcome: str) -> None:
        with self._lock:
            self._outcomes[outcome] += 1

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._outcomes)


@dataclass(frozen=True, slots=True)
class Seen:
    """What Ollama said when it was last asked: /api/version and /api/ps."""

    up: bool
    version: str | None
    loaded: dict[str, dict]         # by canonical name
    checked: float                  # monotonic
    latency: float
    error: str | None


def see_ollama(ask: Callable[[str], tuple[int, bytes]]) -> Seen:
    """`ask(path)` is a GET to Ollama; raises whatever it raises for other reasons than Ollama."""
    start = time.monotonic()
    try:
        status, version = ask("/api/version")
        _, running = ask("/api/ps")
        models = json.loads(running).get("models") or []
        loaded = {_key(model.get("model", "")): model for model in models}
        return Seen(status == 200, json.loads(version).get("version"), loaded, time.monotonic(), time.monotonic() - start, None)
    except ClientGone:              # says nothing about Ollama, and the answer would be shown to others
        raise
    except Exception as error:      # whatever Ollama answers must not break the status page
        return Seen(False, None, {}, time.monotonic(), time.monotonic() - start, getattr(error, "text", type(error).__name__))


def _key(name: str) -> str:
    try:
        return canonical(name)
    except ValueError:
        return name


class Request(Protocol):
    """A call that is with a model, as hermes.frontend.live sees it."""

    id: str
    client: str
    rank: int
    model: str
    upstream: str
    phase: str
    position: int
    seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What Application knows of itself. `started` is monotonic; `starting`: pool name → workers that are on their way;
    `log_dropped`: lines of the log."""

    life: str
    started: float
    url: str
    outcomes: dict[str, int]
    starting: dict[str, int]
    requests: Sequence[Request] = ()
    log_dropped: int = 0


def picture(facts: Facts, pools: list[PoolSnapshot], seen: Seen) -> dict:
    """The body of /v1/status."""
    life, started, url, outcomes, starting = facts.life, facts.started, facts.url, facts.outcomes, facts.starting
    queued, running, capacity = sum(p.queued for p in pools), sum(p.busy for p in pools), sum(p.size for p in pools)
    rejected = sum(outcomes.get(code, 0) for code in REJECTED)
    fine = outcomes.get("ok", 0) + outcomes.get("refused", 0)
    now = time.time()
    return {
        "status": "draining" if life != "serving" else "ok" if seen.up and not any(p.closed for p in pools) else "degraded",
        "version": __version__, "uptime": round(time.monotonic() - started, 3), "now": _rfc3339(now),
        "started_at": _rfc3339(now - (time.monotonic() - started)), "pid": os.getpid(), "draining": life != "serving",
        "totals": {"running": running, "queued": queued, "capacity": capacity, "queue_limit": sum(p.queue_limit for p in pools),
                   "saturation": round(running / capacity, 4) if capacity else 0.0, "requests": sum(outcomes.values()),
                   "ok": outcomes.get("ok", 0), "rejected": rejected, "cancelled": outcomes.get("cancelled", 0),
                   "errors": sum(outcomes.values()) - fine - rejected - outcomes.get("cancelled", 0)},
        "upstream": {"url": url, "up": seen.up, "version": seen.version, "latency": round(seen.latency, 6),
                     "age": round(time.monotonic() - seen.checked, 3), "error": seen.error},
        "models": [_model(pool, seen, starting.get(pool.name, 0)) for pool in pools],
        "requests": [_request(one, seen) for one in facts.requests],
        "log": {"dropped": facts.log_dropped}, "host": host(),
    }


def _model(pool: PoolSnapshot, seen: Seen, starting: int) -> dict:
    loaded = seen.loaded.get(_key(pool.model))
    return {"name": pool.name, "model": pool.model,
            "workers": {"max": pool.size, "idle": pool.idle, "busy": pool.busy, "starting": starting,
                        "down": max(0, pool.size - pool.idle - pool.busy - starting), "pids": list(pool.pids)},
            "queue": {"depth": pool.queued, "limit": pool.queue_limit, "oldest": round(pool.oldest, 3)},
            "answered": pool.answered, "restarts": pool.restarts, "closed": pool.closed, "paused": pool.paused,
            "loaded": loaded is not None if seen.up else None, "memory": loaded.get("size") if loaded else None,
            "memory_gpu": loaded.get("size_vram") if loaded else None, "expires_at": loaded.get("expires_at") if loaded else None}


def _request(one: Request, seen: Seen) -> dict:
    """Whoever has his turn and no token yet waits for the load, if Ollama does not have the model loaded, else for his prompt to be read."""
    phase = one.phase
    if phase == "waiting":
        phase = "prefill" if not seen.up or _key(one.upstream) in seen.loaded else "loading"
    return {"id": one.id or None, "client": one.client or None, "class": CLASSES[one.rank], "model": one.model, "phase": phase,
            "position": one.position, "seconds": round(one.seconds, 3), "tokens": one.tokens}


def host() -> dict:
    """Memory in bytes and load averages, from /proc; None where it is hidden or another system has none."""
    meminfo = {}
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                name, _, value = line.partition(":")
                meminfo[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        with open("/proc/loadavg", encoding="ascii") as file:
            loads = [float(word) for word in file.read().split()[:3]]
    except (OSError, ValueError):
        loads = None
    return {"memory_total": meminfo.get("MemTotal"), "memory_available": meminfo.get("MemAvailable"), "load": loads, "cpus": os.cpu_count()}


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
