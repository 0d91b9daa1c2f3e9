"""What the service manager is told, over real datagram sockets: each message, and a manager that is slow, gone or none."""

import logging
import math
import os
import secrets
import socket
from pathlib import Path

import pytest

from hermes.observe import notifier
from hermes.observe.notifier import DAY, MARGIN, UNSAID, Notifier, take, watchdog_interval


class Manager:
    """The other end of $NOTIFY_SOCKET. `heard`: what has come since the last time."""

    def __init__(self, address: str):
        self.name = address.replace("\0", "@", 1)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind(address)

    def heard(self) -> list[list[str]]:
        messages = []
        while True:
            try:
                messages.append(self.sock.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages

    def fill(self) -> int:
        """Until it takes no more; how many that was."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            count = 0
            try:
                while True:
                    other.sendto(b"x", self.sock.getsockname())
                    count += 1
            except BlockingIOError:
                return count


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path: Path):
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"\0hermes-{secrets.token_hex(8)}")
    yield made
    made.sock.close()


@pytest.fixture
def told(manager: Manager):
    made = Notifier({"NOTIFY_SOCKET": manager.name})
    yield made
    made.close()


def test_every_message(manager: Manager, told: Notifier) -> None:
    told.ready("listening")
    told.reloading(12.3456789)
    told.well()
    told.stopping(120.0)
    assert manager.heard() == [["READY=1", "STATUS=listening"], ["RELOADING=1", "MONOTONIC_USEC=12345678"], ["WATCHDOG=1"],
                               ["STOPPING=1", "STATUS=stopping, within 120 s", f"EXTEND_TIMEOUT_USEC={120_000_000 + int(MARGIN * 1e6)}"]]
    assert not told.unsaid


def test_a_manager_that_does_not_read_is_told_later_and_in_order(manager: Manager, told: Notifier) -> None:
    before = manager.fill()
    told.ready("one")
    told.reloading(1.0)
    told.ready("one")
    told.flush()
    assert told.unsaid and len(manager.heard()) == before
    told.flush()
    assert not told.unsaid
    assert [message[0] for message in manager.heard()] == ["READY=1", "RELOADING=1", "READY=1"]


def test_signs_of_life_do_not_pile_up(manager: Manager, told: Notifier) -> None:
    manager.fill()
    told.ready("x")
    for _ in range(3 * UNSAID):
        told.well()
    manager.heard()
    told.flush()
    assert [message[0] for message in manager.heard()] == ["READY=1", "WATCHDOG=1"]
    manager.fill()
    for number in range(3 * UNSAID):
        told.reloading(float(number))
    heard = manager.heard()
    while told.unsaid:
        told.flush()
        heard += manager.heard()
    assert [message for message in heard if message != ["x"]] == [["RELOADING=1", f"MONOTONIC_USEC={number}000000"] for number in range(2 * UNSAID, 3 * UNSAID)]


def test_a_manager_that_is_gone_is_a_debug_line(tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.DEBUG, "hermes.notifier")
    manager = Manager(str(tmp_path / "notify"))
    told = Notifier({"NOTIFY_SOCKET": manager.name})
    manager.sock.close()
    os.unlink(manager.name)
    told.ready("x")
    assert not told.unsaid and [record.levelno for record in caplog.records] == [logging.DEBUG]
    again = Manager(manager.name)
    told.well()
    assert again.heard() == [["WATCHDOG=1"]], "at the same place he is told again"
    told.close()
    again.sock.close()


@pytest.mark.parametrize("address", ["/" + "x" * 200, "@" + "x" * 200, "/\udcff"])
def test_an_address_that_cannot_be_is_a_debug_line(address: str, caplog) -> None:
    caplog.set_level(logging.DEBUG, "hermes.notifier")
    told = Notifier({"NOTIFY_SOCKET": address})
    told.ready("x")
    told.close()
    assert not told.unsaid and len(caplog.records) == 1


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_nobody_to_tell(environ: dict[str, str], monkeypatch) -> None:
    monkeypatch.setattr(notifier.socket, "socket", lambda *_: pytest.fail("a socket"))
    told = Notifier({**environ, "WATCHDOG_USEC": "1000000"}, 7)
    told.ready("x")
    told.well()
    told.flush()
    told.close()
    assert not told.unsaid and told.interval == math.inf


def test_no_descriptor_for_the_socket(manager: Manager, monkeypatch) -> None:
    def none(*_: object) -> socket.socket:
        raise OSError(24, "Too many open files")
    monkeypatch.setattr(notifier.socket, "socket", none)
    told = Notifier({"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "1000000"}, 7)
    told.ready("x")
    assert not told.unsaid and told.interval == math.inf


def test_the_socket_is_not_for_children(manager: Manager, told: Notifier) -> None:
    assert not told._socket.get_inheritable() and told._socket.gettimeout() == 0.0


@pytest.mark.parametrize(("environ", "seconds"), [
    ({}, math.inf), ({"WATCHDOG_USEC": "30000000"}, 30.0), ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, math.inf), ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, math.inf),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "x"}, math.inf), ({"WATCHDOG_PID": "7"}, math.inf),
    ({"WATCHDOG_USEC": "0"}, math.inf), ({"WATCHDOG_USEC": "-5"}, math.inf), ({"WATCHDOG_USEC": ""}, math.inf), ({"WATCHDOG_USEC": "30s"}, math.inf),
    ({"WATCHDOG_USEC": str(2**64 - 1)}, DAY), ({"WATCHDOG_USEC": "9" * 400}, math.inf), ({"WATCHDOG_USEC": "9" * 5000}, math.inf)])
def test_what_the_watchdog_asks_for(environ: dict[str, str], seconds: float, manager: Manager) -> None:
    assert watchdog_interval(environ, 7) == seconds
    told = Notifier({"NOTIFY_SOCKET": manager.name, **environ}, 7)
    assert told.interval == seconds
    told.close()


def test_what_is_taken_is_gone() -> None:
    mine = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2"}
    environ = {"PATH": "/bin", **mine}
    assert take(environ) == mine and environ == {"PATH": "/bin"}
    assert take(environ) == {}
