"""When the main loop may say that Hermes is well, with a clock that the test turns; and what counts as an answer to oneself."""

import http.server
import math
import queue
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from hermes.frontend.exchange import Dialect, Response, error_line
from hermes.frontend.house import House, Limits
from hermes.frontend.router import Route, Router
from hermes.frontend.server import Server
from hermes.frontend.tls import Certificate, TlsServer
from hermes.observe.watchdog import SelfRequest, Watchdog
from tests.harness import Client, eventually

FOLDER = Path(__file__).parents[1] / "process" / "tls"
DIALECT = Dialect("test", error_line, error_line)
INTERVAL = 8.0


class Kennel:
    """A watchdog, the questions it asks, and what the test answers to them."""

    def __init__(self) -> None:
        self.asked: queue.Queue[float] = queue.Queue()
        self.answers: queue.Queue[bool] = queue.Queue()
        self.woken = threading.Semaphore(0)
        self.dog = Watchdog(INTERVAL, self._ask, self.woken.release)

    def _ask(self, patience: float) -> bool:
        self.asked.put(patience)
        return self.answers.get()

    def answer(self, good: bool = True) -> None:
        self.asked.get(timeout=10)
        self.answers.put(good)
        if good:
            assert self.woken.acquire(timeout=10)


@pytest.fixture
def kennel() -> Kennel:
    return Kennel()


def test_a_sign_in_each_half_of_the_interval_and_only_after_an_answer(kennel: Kennel) -> None:
    dog = kennel.dog
    dog.start(100.0)
    for start in (100.0, 104.0, 108.0):
        assert dog.due == start + INTERVAL / 2
        assert not dog.well(start + 3.9) and kennel.asked.empty()
        assert not dog.well(start + 4.0), "it has only been asked for"
        kennel.answer()
        assert dog.well(start + 4.0) and not dog.well(start + 4.0), "one answer is one sign"


def test_no_answer_is_no_sign_and_it_is_asked_again_within_the_interval(kennel: Kennel) -> None:
    dog = kennel.dog
    dog.start(0.0)
    now = dog.due
    for _ in range(4):
        assert not dog.well(now) and dog.due == now + INTERVAL / 8
        kennel.answer(False)
        eventually(lambda: not dog._wanted.is_set())
        assert not dog.well(now)
        now = dog.due
    assert not dog.well(now)
    kennel.answer()
    assert dog.well(now + 0.1) and dog.due == now + 0.1 + INTERVAL / 2


def test_while_one_question_is_open_there_is_no_second_and_the_loop_goes_on(kennel: Kennel) -> None:
    kennel.dog.start(0.0)
    for turn in range(10):
        assert not kennel.dog.well(INTERVAL / 2 + turn)
    assert kennel.asked.get(timeout=10) == INTERVAL / 4
    assert kennel.asked.empty()
    kennel.answers.put(False)


def test_without_an_interval_there_is_no_thread_and_nothing_due() -> None:
    before = threading.active_count()
    dog = Watchdog(math.inf, lambda patience: pytest.fail("asked"), lambda: pytest.fail("woken"))
    dog.start(0.0)
    assert threading.active_count() == before and dog.due == math.inf and not dog.well(1e9)


# -- asking oneself ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    for name in ("cert.pem", "key.pem"):
        shutil.copy(FOLDER / name, folder)
        (folder / name).chmod(0o600)
    return Certificate(str(folder / "cert.pem"), str(folder / "key.pem"))


@contextmanager
def door(host: str, certificate: Certificate | None = None) -> Iterator[Server]:
    """Room for one."""
    settings = SimpleNamespace(max_body=100, max_parked=100, **dict.fromkeys(("head_timeout", "body_timeout", "keepalive_timeout", "send_timeout", "heartbeat",
                                                                                "heartbeat_plain"), 30.0))
    house = House(Router([Route("GET", "/livez", DIALECT, lambda call: Response(200, b"ok"))], [("", DIALECT)]), Limits(settings), lambda call: None,
                  lambda *note: None, lambda: False)
    made = TlsServer((host, 0), house, 1, certificate) if certificate else Server((host, 0), house, 1)
    made.start()
    yield made
    made.stop_accepting()
    eventually(lambda: made.open == 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
@pytest.mark.parametrize("tls", [False, True])
def test_wherever_and_however_it_listens(host: str, tls: bool, certificate: Certificate) -> None:
    with door(host, certificate if tls else None) as server:
        assert SelfRequest(server)(10.0)
        eventually(lambda: server.open == 0, what="leaving again")
    assert not SelfRequest(server)(10.0), "nobody listens"


@pytest.mark.parametrize("tls", [False, True])
def test_turned_away_is_alive(tls: bool, certificate: Certificate, monkeypatch) -> None:
    with door("127.0.0.1", certificate if tls else None) as server, Client(server.server_port):
        eventually(lambda: server.open == 1)
        monkeypatch.setattr(server.house.waiting, "evict", lambda: False)       # whoever is in there works
        assert SelfRequest(server)(10.0) and server.turned_away == 1
        monkeypatch.undo()
        assert SelfRequest(server)(10.0) and server.turned_away == 1, "the idle one makes room"


@pytest.mark.parametrize("status", [404, 500, 503, None])
def test_another_answer_or_none_is_none(status: int | None, caplog) -> None:
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Host"], self.headers["Connection"]))
            if status:
                self.send_response(status)
                self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert not SelfRequest(listener(server.server_port))(10.0)
        thread.join()
    assert asked == [("/livez", "localhost", "close")] and len(caplog.records) == 1


def test_silence_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not SelfRequest(listener(silent.getsockname()[1]))(0.05)


def listener(port: int) -> SimpleNamespace:
    return SimpleNamespace(scheme="http", server_name="127.0.0.1", server_port=port, turned_away=3)
