"""Requests, tokens and worker seconds for each client, model and day; and who has used up his tokens of the day.

    handler threads ── add ──▶ Usage (memory, exact) ◀── today, rows ── handler threads
                                 └── changes ──▶ hermes.observe.usagefile, if there is a folder to keep them in

A day is a thing of the calendar: it is the date in UTC, so this is the one place where a wall clock decides anything. If that clock is set
back over midnight, calls count for the earlier day again, and nothing else happens.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

from hermes.errors import QuotaExceeded

KEPT = 400                  # days, today among them
DAY = 86_400                # seconds; Unix time knows no leap seconds


class UsageUnusable(Exception):
    """The file that should hold the usage cannot be used: a start error, never one of a request."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What one call took. `ok`, `error`: neither is true of one that its client left, or that was refused by his own fault.
    `seconds`: how long workers were its own. `estimated`: the tokens are Hermes's guess, because the answer did not say."""

    client: str
    model: str
    ok: bool
    error: bool
    input_tokens: int
    output_tokens: int
    estimated: bool
    seconds: float


class Row(NamedTuple):
    """The totals of one day, client and model; immutable, so that whoever has one may read it without a lock."""

    day: str                # YYYY-MM-DD
    client: str
    model: str
    requests: int = 0
    ok: int = 0
    errors: int = 0
    estimated: int = 0      # requests whose tokens were guessed
    input_tokens: int = 0
    output_tokens: int = 0
    worker_seconds: float = 0.0

    def plus(self, spent: Spent) -> "Row":
        return Row(self.day, self.client, self.model, self.requests + 1, self.ok + spent.ok, self.errors + spent.error,
                   self.estimated + spent.estimated, self.input_tokens + spent.input_tokens, self.output_tokens + spent.output_tokens,
                   self.worker_seconds + spent.seconds)


class Usage:
    """The totals; any thread, one lock, never a disk. A row takes half a kilobyte, and there is one for each day, client and model."""

    def __init__(self, clock: Callable[[], float] = time.time, rows: Iterable[Row] = ()):
        """`clock`: seconds since 1970. `rows`: what was known before the start."""
        self.changed = threading.Event()        # set while there are changes that nobody has taken
        self._clock = clock
        self._lock = threading.Lock()
        self._rows = {row[:3]: row for row in rows}
        self._tokens: Counter[tuple[str, str]] = Counter()      # by day and client
        for row in self._rows.values():
            self._tokens[row.day, row.client] += row.input_tokens + row.output_tokens
        self._changes: set[tuple[str, str, str]] | None = None
        self._day = self.day()
        self._forget()

    def day(self) -> str:
        """Today."""
        return _date(self._clock()).isoformat()

    def day_before(self, days: int) -> str:
        """The day that many before today."""
        return (_date(self._clock()) - timedelta(days)).isoformat()

    def tomorrow(self) -> tuple[str, float]:
        """The next day, and the seconds until it begins."""
        now = self._clock()
        return _date(now + DAY).isoformat(), DAY - now % DAY

    def add(self, spent: Spent) -> None:
        day = self.day()
        key = (day, spent.client, spent.model)
        with self._lock:
            if day != self._day:
                self._day = day
                self._forget()
            self._rows[key] = self._rows.get(key, Row(*key)).plus(spent)
            self._tokens[day, spent.client] += spent.input_tokens + spent.output_tokens
            if self._changes is None:
                return
            self._changes.add(key)
        if not self.changed.is_set():
            self.changed.set()

    def today(self, client: str) -> int:
        """Tokens that the ended calls of `client` took today, prompts included."""
        with self._lock:
            return self._tokens[self.day(), client]

    def rows(self, first: str, last: str, client: str | None = None) -> list[Row]:
        """From the day `first` to the day `last`, in order; of one client, or with None of all."""
        with self._lock:
            rows = list(self._rows.values())
        return sorted(row for row in rows if first <= row.day <= last and client in (None, row.client))

    # -- for whoever writes them down ------------------------------------------------------------------------------

    def watch(self) -> None:
        """From now on remember what changes."""
        with self._lock:
            self._changes = set()

    def take_changes(self, everything: bool = False) -> list[Row]:
        """The rows that have changed since the last time, or all that there are."""
        with self._lock:
            keys, self._changes = self._changes, set()
            return list(self._rows.values()) if everything else [self._rows[key] for key in keys if key in self._rows]

    def _forget(self) -> None:
        """Drop what is too old. Under the lock, once a day."""
        oldest = self.day_before(KEPT - 1)
        self._rows = {key: row for key, row in self._rows.items() if row.day >= oldest}
        self._tokens = Counter({key: tokens for key, tokens in self._tokens.items() if key[0] >= oldest})


class Reserve:
    """May this client's next call begin? A call that runs counts as one token until it ends and says what it took.

    So no call is let in once the tokens of the day are used up, and never more calls at once than tokens are left. What the calls that were
    let in before still take can go beyond the quota: nobody knows it in advance, and nothing is cut off.
    """

    def __init__(self, usage: Usage):
        self._usage = usage
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    def take(self, client: str, tokens_per_day: int) -> None:
        """Raises QuotaExceeded. Whoever took must give back, once, after `Usage.add`: a call is never counted less than it takes."""
        with self._lock:
            if self._usage.today(client) + self._running[client] < tokens_per_day:
                self._running[client] += 1
                return
        day, left = self._usage.tomorrow()
        raise QuotaExceeded(f"the quota of {tokens_per_day} tokens a day is used up; the next day begins at {day}T00:00:00Z", retry_after=left)

    def give_back(self, client: str) -> None:
        with self._lock:
            self._running[client] -= 1
            if self._running[client] <= 0:
                del self._running[client]


def _date(seconds: float) -> date:
    return date(1970, 1, 1) + timedelta(seconds // DAY)
