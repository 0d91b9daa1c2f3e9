"""The door: who is let in when the places are taken. A real listener; what a connection does is in test_connection."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from hermes.frontend import server
from hermes.frontend.exchange import Dialect, Response, error_line
from hermes.frontend.house import House, Limits
from hermes.frontend.router import Route, Router
from hermes.frontend.server import Server
from tests.harness import Client, Reply, eventually

DIALECT = Dialect("test", error_line, error_line)
LIMITS = {name: 30.0 for name in ("head_timeout", "body_timeout", "keepalive_timeout", "send_timeout", "heartbeat", "heartbeat_plain")}


def house(closing: Callable[[], bool] = lambda: False) -> House:
    routes = [Route("GET", "/x", DIALECT, lambda call: Response(200, b"x"))]
    limits = Limits(SimpleNamespace(max_body=100, max_parked=100, **LIMITS))
    return House(Router(routes, [("", DIALECT)]), limits, lambda call: None, lambda *note: None, closing)


@pytest.fixture
def door():
    """Room for one."""
    door = Server(("127.0.0.1", 0), house(), max_connections=1)
    door.start()
    yield door
    door.stop_accepting()
    eventually(lambda: door.open == 0)


def ask(client: Client) -> Reply:
    return client.send("GET", "/x").reply()


def test_the_idle_one_makes_room(door: Server) -> None:
    with Client(door.server_port) as first, Client(door.server_port) as second:
        assert ask(second).status == 200 and not first.more() and door.open == 1


def test_one_that_does_not_leave_in_time_is_counted_all_the_same(door: Server, monkeypatch) -> None:
    """Or a flood of newcomers would have as many threads as it likes."""
    monkeypatch.setattr(server, "PATIENCE", 0.01)
    monkeypatch.setattr(door.house.waiting, "evict", lambda: True)
    with Client(door.server_port) as first:
        assert ask(first).status == 200
        with Client(door.server_port) as second:
            reply = second.reply()
            assert (reply.status, reply.headers["retry-after"], reply.headers["connection"]) == (503, "1", "close")
        assert ask(first).status == 200 and door.open == 1


def test_the_place_is_free_again(door: Server) -> None:
    for _ in range(3):
        with Client(door.server_port) as client:
            assert ask(client).status == 200
        eventually(lambda: door.open == 0)


def test_who_is_let_in_just_before_the_door_is_closed_keeps_nobody_waiting() -> None:
    """His thread begins when the idle connections have been closed already: Hermes would not stop before he is idle for too long."""
    closed = threading.Event()

    class SlowToBegin(Server):
        def connection(self, *args):
            closed.wait(10)
            return super().connection(*args)

    door = SlowToBegin(("127.0.0.1", 0), house(closed.is_set), max_connections=1)
    door.start()
    with Client(door.server_port, timeout=10) as client:
        eventually(lambda: door.open == 1)
        door.stop_accepting()
        closed.set()
        assert not client.more()
    eventually(lambda: door.open == 0)
