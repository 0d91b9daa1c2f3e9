"""A listener on a Unix socket: whose file it is, from the first moment, and what becomes of one that is there already."""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hermes.frontend.exchange import Dialect, Response, error_line
from hermes.frontend.house import House, Limits
from hermes.frontend.router import Route, Router
from hermes.frontend.unixserver import UnixServer, make_way
from tests.harness import Client, eventually

DIALECT = Dialect("test", error_line, error_line)
LIMITS = {name: 30.0 for name in ("head_timeout", "body_timeout", "keepalive_timeout", "send_timeout", "heartbeat", "heartbeat_plain")}


@contextmanager
def listening(path: Path) -> Iterator[UnixServer]:
    routes = [Route("GET", "/x", DIALECT, lambda call: Response(200, call.client.address.encode() + b"x"))]
    house = House(Router(routes, [("", DIALECT)]), Limits(SimpleNamespace(max_body=100, max_parked=100, **LIMITS)), lambda call: None, lambda *note: None, lambda: False)
    server = UnixServer(str(path), house, max_connections=1)
    server.start()
    try:
        yield server
    finally:
        server.stop_accepting()
        eventually(lambda: server.open == 0)


class Visitor(Client):
    def __init__(self, path: Path):
        self.sock, self.buffer = socket.socket(socket.AF_UNIX), b""
        self.sock.settimeout(20)
        self.sock.connect(str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.sock"


def test_it_serves_and_goes(path: Path) -> None:
    with listening(path) as server, Visitor(path) as client:
        assert client.send("GET", "/x").reply().body == b"x" and server.url == f"unix:{path}" and server.on_loopback
        eventually(lambda: server.house.waiting._guests)
        with Visitor(path) as second:
            assert second.send("GET", "/x").reply().status == 200 and not client.more(), "room for one, as anywhere"
    assert not path.exists()


def test_it_is_its_owners_from_the_first_moment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []

    class Watched(UnixServer):
        def server_activate(self) -> None:
            modes.append(stat.S_IMODE(path.stat().st_mode))
            super().server_activate()

    monkeypatch.setitem(globals(), "UnixServer", Watched)
    before = os.umask(0)
    try:
        with listening(path):
            pass
        assert os.umask(0) == 0, "as it was"
    finally:
        os.umask(before)
    assert modes == [0o600]


def test_that_of_a_dead_one_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with listening(path), Visitor(path) as client:
        assert client.send("GET", "/x").reply().status == 200


@pytest.mark.parametrize("full", [False, True])
def test_that_of_a_live_one_is_not(path: Path, full: bool) -> None:
    """Not even if that one is too busy to accept."""
    with socket.socket(socket.AF_UNIX) as live:
        live.bind(str(path))
        live.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(2 if full else 0)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(str(path))
        with pytest.raises(OSError, match=f"somebody listens on {path}") as caught, listening(path):
            pass
        assert caught.value.errno == errno.EADDRINUSE and path.is_socket()
        for sock in waiting:
            sock.close()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("/nowhere")], ids=["folder", "file", "link"])
def test_what_is_no_socket_stays(path: Path, make) -> None:
    make(path)
    with pytest.raises(FileExistsError, match="is there, and is no socket"), listening(path):
        pass
    assert os.path.lexists(path)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), listening(tmp_path / "no" / "a.sock"):
        pass


def test_a_file_that_somebody_else_has_put_there_stays(path: Path) -> None:
    with listening(path):
        path.unlink()
        path.write_bytes(b"x")
    assert path.read_bytes() == b"x"
    path.unlink()
    with listening(path):
        path.unlink()
    assert not path.exists()


def test_nothing_is_in_the_way(path: Path) -> None:
    make_way(str(path))
    assert not path.exists()
