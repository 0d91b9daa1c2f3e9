"""The usage on disk: one SQLite file, written behind by one thread. Loaded only when there is a folder for it: sqlite3 takes memory.

    Keeper.__init__ (main thread): connect, read all rows ──▶ Usage ── changes ──▶ write, at most once in PACE seconds (writer thread)

Nothing but the writer ever waits for the disk. While it cannot be written, one line says so, the totals go on in memory, and it is tried again
with everything there is. A row is written as a total and not as a difference, so that writing it twice does no harm.

The connection is in exclusive mode: a second Hermes with the same folder does not start, where its totals would overwrite these. That leaves
nothing for a write-ahead log to be good at, which is to let others read meanwhile: a rollback journal it is, and one file when Hermes rests.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable

from hermes.observe.usage import KEPT, Row, Usage, UsageUnusable

FILE = "usage.sqlite3"
VERSION = 1                 # of the table; kept in the file's own user_version
PACE = 1.0                  # seconds from one write to the next: what a kill can lose
LAST_WORDS = 2.0            # seconds that the last write may take
BUSY = 1.0                  # seconds for another process to let go of the file

_TABLE = """CREATE TABLE IF NOT EXISTS usage (
    day TEXT NOT NULL, client TEXT NOT NULL, model TEXT NOT NULL, requests INTEGER NOT NULL, ok INTEGER NOT NULL, errors INTEGER NOT NULL,
    estimated INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, worker_seconds REAL NOT NULL,
    PRIMARY KEY (day, client, model)) WITHOUT ROWID"""
_WRITE = f"INSERT OR REPLACE INTO usage ({', '.join(Row._fields)}) VALUES ({', '.join('?' * len(Row._fields))})"
_READ = f"SELECT {', '.join(Row._fields)} FROM usage"
_FORGET = "DELETE FROM usage WHERE day < ?"
_TYPES = (str,) * 3 + (int,) * 6 + (float,)

log = logging.getLogger("hermes.usage")


class Keeper:
    """Has the `usage` and keeps it: `start` the thread, `close` writes the rest. `failures` counts writes that did not succeed."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], clock: Callable[[], float] = time.time, pace: float = PACE):
        """Raises sqlite3.Error, ValueError. The connection goes to the writer thread when that starts, and stays there."""
        self.failures = 0
        self._connect = connect
        self._pace = pace
        self._connection: sqlite3.Connection | None = connect()
        self.usage = Usage(clock, [_row(values) for values in self._connection.execute(_READ)])
        self.usage.watch()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what is left, for at most LAST_WORDS seconds: a disk that hangs must not keep Hermes from ending."""
        self._stopping.set()
        self.usage.changed.set()
        self._thread.join(LAST_WORDS)

    def _run(self) -> None:
        changed = self.usage.changed
        while not self._stopping.is_set():
            changed.wait()
            changed.clear()
            if not self.write():
                changed.set()
            self._stopping.wait(self._pace)
        self.write()
        if self._connection is not None:
            self._connection.close()

    def write(self) -> bool:
        """Write what has changed; after a failure everything, because nobody knows what became of the file. True: it is on disk."""
        rows = self.usage.take_changes(everything=self._connection is None)
        if not rows:
            return True
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection:
                self._connection.executemany(_WRITE, rows)
                self._connection.execute(_FORGET, (self.usage.day_before(KEPT - 1),))
        except sqlite3.Error as error:
            self._fail(error)
            return False
        if self.failures:
            log.info("usage is written again failed_writes=%d", self.failures)
            self.failures = 0
        return True

    def _fail(self, error: sqlite3.Error) -> None:
        self.failures += 1
        if self.failures == 1:
            log.warning("usage cannot be written, it goes on in memory and is tried again error=%s", error)
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                pass                            # the next one is new anyway


def open_keeper(folder: str) -> Keeper:
    """The keeper of the file in `folder`, which is made if it is missing. Raises UsageUnusable."""
    path = os.path.join(folder, FILE)
    try:
        return Keeper(lambda: connect(path))
    except (sqlite3.Error, TypeError, ValueError) as error:
        raise UsageUnusable(f"cannot keep the usage in {path}: {error}") from None


def connect(path: str) -> sqlite3.Connection:
    """The one connection there may be; writes once, so that a disk which takes nothing is found at the start. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, timeout=BUSY, check_same_thread=False)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise sqlite3.DatabaseError(f"it is of version {version}, this Hermes writes version {VERSION}")
        connection.execute(_TABLE)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def _row(values: tuple) -> Row:
    """SQLite puts any type into any column. Raises TypeError, ValueError."""
    return Row(*(kind(value) for kind, value in zip(_TYPES, values, strict=True)))
