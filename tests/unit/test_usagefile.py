"""The usage on disk: over a restart, and when the disk does not want."""

import logging
import sqlite3
import threading

import pytest

from hermes.observe import usagefile
from hermes.observe.usage import KEPT, Row, UsageUnusable
from hermes.observe.usagefile import FILE, Keeper, connect, open_keeper
from tests.harness import eventually
from tests.unit.test_usage import DAY, NOON, Clock, call


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / FILE)


def rows_of(path: str) -> list[Row]:
    """What is in the file, once Hermes has let go of it."""
    connection = sqlite3.connect(path)
    try:
        return [Row(*values) for values in connection.execute(usagefile._READ)]
    finally:
        connection.close()


class Disk:
    """Connections to a file that may be told to fail, by SQLite's own means and by fakes. `writes`: those that were tried."""

    def __init__(self, path: str):
        self.path, self.opened, self.writes = path, 0, 0
        self.trouble: sqlite3.Error | None = None
        self.written = threading.Event()

    def connect(self) -> "Disk":
        if self.trouble:
            raise self.trouble
        self.opened += 1
        self._connection = connect(self.path)
        return self

    def execute(self, *arguments):
        return self._connection.execute(*arguments)

    def executemany(self, *arguments):
        self.writes += 1
        if self.trouble:
            raise self.trouble
        return self._connection.executemany(*arguments)

    def __enter__(self) -> "Disk":
        self._connection.__enter__()
        return self

    def __exit__(self, *exc) -> None:
        self._connection.__exit__(*exc)
        self.written.set()

    def close(self) -> None:
        self._connection.close()


def test_over_a_restart(tmp_path, path: str) -> None:
    keeper = open_keeper(str(tmp_path))
    keeper.start()
    for each in (call(), call(seconds=0.25, estimated=True), call("bob", "qwen", ok=False, error=True)):
        keeper.usage.add(each)
    before = keeper.usage.rows("", "9")
    keeper.close()
    assert rows_of(path) == before and len(before) == 2
    again = open_keeper(str(tmp_path))
    assert again.usage.rows("", "9") == before and again.usage.today("ann") == 30
    again.usage.add(call())
    assert again.write()
    assert [row.requests for row in again.usage.rows("", "9")] == [3, 1]
    again._connection.close()
    assert rows_of(path) == again.usage.rows("", "9")
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE], "one file when Hermes rests"


def test_what_was_written_survives_a_kill(tmp_path) -> None:
    """What a second reader makes of the files as they are, while the first still has them open."""
    keeper = open_keeper(str(tmp_path))
    keeper.usage.add(call())
    assert keeper.write()
    keeper.usage.add(call())
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tmp_path.glob(FILE + "*"):
        (copy / file.name).write_bytes(file.read_bytes())
    assert [row.requests for row in open_keeper(str(copy)).usage.rows("", "9")] == [1]


def test_one_write_for_many_calls_and_the_rest_at_the_end(path: str) -> None:
    disk = Disk(path)
    keeper = Keeper(disk.connect, Clock(), pace=3600.0)
    pauses = []

    class Stopping(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout)
            return super().wait(timeout)

    keeper._stopping = Stopping()
    keeper.start()
    keeper.usage.add(call())
    assert disk.written.wait(10)
    for _ in range(100):
        keeper.usage.add(call())
    keeper.close()
    assert disk.writes == 2 and disk.opened == 1 and pauses == [3600.0]
    assert [row.requests for row in rows_of(path)] == [101]


def test_nothing_is_written_when_nothing_has_changed(path: str) -> None:
    disk = Disk(path)
    keeper = Keeper(disk.connect, Clock())
    assert keeper.write() and disk.writes == 0


@pytest.mark.parametrize("trouble", [sqlite3.OperationalError("database or disk is full"),
                                     sqlite3.OperationalError("attempt to write a readonly database"), sqlite3.DatabaseError("disk image is malformed")])
def test_a_disk_that_does_not_want(path: str, caplog, trouble: sqlite3.Error) -> None:
    disk = Disk(path)
    keeper = Keeper(disk.connect, Clock())
    keeper.usage.add(call())
    assert keeper.write()
    disk.trouble = trouble
    with caplog.at_level(logging.INFO, "hermes.usage"):
        for count in range(1, 4):
            keeper.usage.add(call("bob"))
            assert not keeper.write() and keeper.failures == count
        assert keeper.usage.today("bob") == 45, "memory goes on"
        assert [record.levelname for record in caplog.records] == ["WARNING"] and str(trouble) in caplog.text
        disk.trouble = None
        assert keeper.write() and keeper.failures == 0
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] and "failed_writes=3" in caplog.text
    disk.close()
    assert rows_of(path) == keeper.usage.rows("", "9") and len(rows_of(path)) == 2


def test_the_writer_tries_again_by_itself(path: str) -> None:
    disk = Disk(path)
    keeper = Keeper(disk.connect, Clock(), pace=0.01)
    disk.trouble = sqlite3.OperationalError("database or disk is full")
    keeper.start()
    keeper.usage.add(call())
    eventually(lambda: keeper.failures >= 2)
    disk.trouble = None
    eventually(lambda: disk.opened == 2 and keeper.failures == 0)
    keeper.close()
    assert [row.requests for row in rows_of(path)] == [1]


def test_a_disk_that_is_really_full(path: str) -> None:
    """SQLite's own limit on pages: its error, its roll-back."""
    keeper = Keeper(lambda: connect(path), Clock())
    keeper.usage.add(call())
    assert keeper.write()
    keeper._connection.execute("PRAGMA max_page_count = 2")
    for number in range(500):
        keeper.usage.add(call(f"client {number}"))
    assert not keeper.write() and keeper.failures == 1
    assert keeper.write() and keeper.failures == 0      # a new connection has no such limit
    keeper._connection.close()
    assert len(rows_of(path)) == 501


def test_a_file_that_was_taken_away_is_made_again_whole(path: str, tmp_path) -> None:
    disk = Disk(path)
    keeper = Keeper(disk.connect, Clock())
    keeper.usage.add(call())
    assert keeper.write()
    disk.trouble = sqlite3.OperationalError("disk I/O error")
    keeper.usage.add(call("bob"))
    assert not keeper.write()
    (tmp_path / FILE).unlink()
    disk.trouble = None
    assert keeper.write()
    disk.close()
    assert len(rows_of(path)) == 2


def test_the_last_write_may_fail(path: str) -> None:
    disk = Disk(path)
    keeper = Keeper(disk.connect, Clock())
    keeper.usage.add(call())
    keeper.start()
    disk.trouble = sqlite3.OperationalError("database or disk is full")
    keeper.close()
    assert not keeper._thread.is_alive()


def test_old_rows_leave_the_file(path: str) -> None:
    clock = Clock(NOON - KEPT * DAY)
    first = Keeper(lambda: connect(path), clock)
    first.usage.add(call())
    clock.now += DAY
    first.usage.add(call())
    assert first.write()
    first._connection.close()
    assert len(rows_of(path)) == 2
    second = Keeper(lambda: connect(path), Clock())
    second.usage.add(call())
    assert second.write()
    second._connection.close()
    assert [row.day for row in rows_of(path)] == [row.day for row in second.usage.rows("", "9")] == ["2025-10-24", "2026-11-27"]


# -- what does not start -------------------------------------------------------------------------------------------


def test_two_cannot_share_a_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(usagefile, "BUSY", 0.0)
    keeper = open_keeper(str(tmp_path))
    with pytest.raises(UsageUnusable, match="locked"):
        open_keeper(str(tmp_path))
    keeper.usage.add(call())
    assert keeper.write()
    keeper._connection.close()
    open_keeper(str(tmp_path))


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database(tmp_path, path: str, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UsageUnusable, match=FILE):
        open_keeper(str(tmp_path))
    assert (tmp_path / FILE).read_bytes() == content, "whoever looks at it must find it as it was"


@pytest.mark.parametrize("statement", [
    "UPDATE usage SET requests = 'many'", "UPDATE usage SET worker_seconds = x'00ff'", "PRAGMA user_version = 7", "ALTER TABLE usage DROP COLUMN ok",
    "DROP TABLE usage; CREATE TABLE usage (day TEXT)"])
def test_a_file_with_other_things_in_it(tmp_path, path: str, statement: str) -> None:
    keeper = open_keeper(str(tmp_path))
    keeper.usage.add(call())
    assert keeper.write()
    keeper._connection.close()
    connection = sqlite3.connect(path)
    connection.executescript(statement)
    connection.close()
    with pytest.raises(UsageUnusable, match=FILE):
        open_keeper(str(tmp_path))


def test_no_folder(tmp_path) -> None:
    with pytest.raises(UsageUnusable, match="unable to open"):
        open_keeper(str(tmp_path / "missing"))
