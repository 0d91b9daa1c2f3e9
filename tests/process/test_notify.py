"""A17: what systemd is told, with a datagram socket of the test's in its place; and what makes the signs of life stop."""

import os
import resource
import secrets
import signal
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes.simulator import Simulator
from tests.harness import ROOT, Client, Hermes, direct_children, eventually, first_free, get, post

CONFIG = '[models.m]\nmodel = "smollm2:135m"\n'
INTERVAL = 0.4                  # seconds of the watchdog; a sign of life comes in each half of it
SILENCE = 3 * INTERVAL
STREAM = {"model": "m", "prompt": "@@tokens=100000,interval=0.02@@"}
WATCHED = {"WATCHDOG_USEC": str(int(INTERVAL * 1e6))}
VARIABLES = (b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID")
TLS = Path(__file__).with_name("tls")


class Manager:
    """The other end of $NOTIFY_SOCKET."""

    def __init__(self, address: str):
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address.replace("@", "\0", 1))

    def next(self, timeout: float = 15.0) -> list[str]:
        """The lines of the next message. Raises TimeoutError."""
        self.sock.settimeout(timeout)
        return self.sock.recv(4096).decode().split("\n")

    def until(self, first: str) -> list[str]:
        """The next message that begins so; signs of life in front of it are passed over."""
        while (message := self.next())[0] == "WATCHDOG=1" != first:
            pass
        assert message[0] == first, message
        return message

    def silent(self) -> bool:
        """No sign of life comes for long, once those that are on their way are there."""
        end = time.monotonic() + 5 * SILENCE
        while time.monotonic() < end:
            try:
                assert self.next(SILENCE) == ["WATCHDOG=1"]
            except TimeoutError:
                return True
        return False

    def rest(self) -> list[str]:
        """The first lines of what has come already."""
        heard = []
        while True:
            try:
                heard.append(self.next(0.0)[0])
            except BlockingIOError:
                return heard


@pytest.fixture(scope="module")
def ollama() -> Iterator[Simulator]:
    with Simulator(parallel=4) as simulator:
        yield simulator


def _manager(folder: Path) -> Iterator[Manager]:
    made = Manager(str(folder / "notify"))
    yield made
    made.sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    yield from _manager(tmp_path)


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manager]:
    yield from _manager(tmp_path_factory.mktemp("systemd"))


@pytest.fixture(scope="module")
def watched(ollama: Simulator, systemd: Manager) -> Iterator[Hermes]:
    """With a watchdog, and ready."""
    with Hermes(ollama.url, CONFIG, NOTIFY_SOCKET=systemd.address, **WATCHED) as hermes:
        assert systemd.next() == ["READY=1", f"STATUS=listening on http://127.0.0.1:{hermes.port}, 1 models"]
        assert hermes.model("m")["workers"]["idle"] == 1
        yield hermes


def test_a17_signs_of_life(watched: Hermes, systemd: Manager) -> None:
    """Two in an interval, and no more."""
    systemd.until("WATCHDOG=1")
    began = time.monotonic()
    for _ in range(5):
        assert systemd.next() == ["WATCHDOG=1"]
    assert time.monotonic() - began > 4 * INTERVAL / 2 * 0.8


def test_a17_none_while_the_main_loop_hangs(watched: Hermes, systemd: Manager) -> None:
    """In a configuration that does not come, which a named pipe is until somebody writes; meanwhile the listener answers as ever."""
    text = watched.config.read_bytes()
    watched.config.unlink()
    os.mkfifo(watched.config, 0o644)
    watched.signal(signal.SIGHUP)
    systemd.until("RELOADING=1")
    assert systemd.silent() and get(watched.port, "/livez").status == 200
    watched.config.write_bytes(text)
    watched.config.unlink()
    watched.config.write_bytes(text)
    watched.config.chmod(0o644)
    systemd.until("READY=1")
    systemd.until("WATCHDOG=1")


def test_a17_none_while_it_does_not_answer_itself(watched: Hermes, systemd: Manager) -> None:
    """For want of descriptors nobody can connect, and the main loop turns all the same."""
    soft, hard = resource.prlimit(watched.pid, resource.RLIMIT_NOFILE)
    eventually(lambda: (resource.prlimit(watched.pid, resource.RLIMIT_NOFILE, (first_free(watched.pid), hard)), watched.line("does not answer itself"))[1])
    assert systemd.silent()
    watched.signal(signal.SIGHUP)
    systemd.until("RELOADING=1")
    systemd.until("READY=1")
    eventually(lambda: watched.line("Too many open files"))
    assert systemd.silent()
    resource.prlimit(watched.pid, resource.RLIMIT_NOFILE, (soft, hard))
    systemd.until("WATCHDOG=1")


@pytest.mark.parametrize("good", [True, False])
def test_a17_a_reload_is_told_however_it_ends(watched: Hermes, systemd: Manager, good: bool) -> None:
    watched.write_config(CONFIG + ('[models.other]\nmodel = "gemma3:270m"\n' if good else "modle = 7\n"))
    before = time.monotonic()
    watched.signal(signal.SIGHUP)
    _, stamp = systemd.until("RELOADING=1")
    assert before * 1e6 - 1 <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic() * 1e6
    assert systemd.until("READY=1")[1].endswith(", 2 models")
    eventually(lambda: watched.line("configuration reloaded" if good else "did you mean 'model'"))


def test_a17_no_child_can_speak_in_its_name(watched: Hermes) -> None:
    family = direct_children(watched.pid)
    assert len(family) > len(watched.children()) >= 3
    for pid in family:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"PATH=" in environ and not any(name in environ for name in VARIABLES)
        assert not sockets(pid) & sockets(watched.pid)
    assert len(sockets(watched.pid)) > 3


def sockets(pid: int) -> set[str]:
    return {name for link in Path(f"/proc/{pid}/fd").iterdir() if (name := os.readlink(link)).startswith("socket:")}


def test_a17_stopping_is_told_when_it_begins(ollama: Simulator, manager: Manager) -> None:
    """And for how long; no sign of life comes behind it, which would wind systemd's watchdog up again."""
    with Hermes(ollama.url, f'drain_timeout = "200s"\n{CONFIG}', NOTIFY_SOCKET=manager.address, **WATCHED) as hermes, Client(hermes.port) as client:
        manager.until("READY=1")
        client.send("POST", "/api/generate", STREAM).read_until(b'"done":false')
        manager.until("WATCHDOG=1")
        hermes.signal(signal.SIGTERM)
        _, _, patience = manager.until("STOPPING=1")
        assert int(patience.removeprefix("EXTEND_TIMEOUT_USEC=")) > 200e6
        client.read_until(b'"done":false')
        assert manager.silent() and not hermes.line("does not answer itself"), "nor is it asked for"
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0 and manager.rest() == []


@pytest.mark.parametrize("when", ["late", "never"])
def test_a17_ready_only_after_a_worker_stands(ollama: Simulator, manager: Manager, tmp_path: Path, when: str) -> None:
    """It listens, and heeds signals, and is not ready."""
    cause = tmp_path / "cause"
    cause.touch()
    act = f"while os.path.exists({str(cause)!r}): time.sleep(0.01)" if when == "late" else "os._exit(3)"
    (tmp_path / "sitecustomize.py").write_text(f"import os, sys, time\nif '--multiprocessing-fork' in sys.orig_argv:\n    {act}\n", encoding="utf-8")
    with Hermes(ollama.url, CONFIG, PYTHONPATH=f"{tmp_path}:{ROOT}", NOTIFY_SOCKET=manager.address, **WATCHED) as hermes:
        if when == "never":
            assert hermes.wait() == 3 and manager.rest() == ["STOPPING=1"]
            return
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert get(hermes.port, "/livez").status == 200 and manager.rest() == []
        cause.unlink()
        manager.until("READY=1")
        manager.until("WATCHDOG=1")


def test_a17_full_is_not_stuck(ollama: Simulator, manager: Manager) -> None:
    """A restart would cut off the very clients that have the places."""
    with Hermes(ollama.url, f"max_connections = 1\n{CONFIG}", NOTIFY_SOCKET=manager.address, **WATCHED) as hermes, Client(hermes.port) as client:
        manager.until("READY=1")
        client.send("POST", "/api/generate", STREAM).read_until(b'"done":false')
        eventually(lambda: hermes.line("turned away reason=too_many_connections"))
        manager.rest()
        for _ in range(3):
            manager.until("WATCHDOG=1")
        client.read_until(b'"done":false')
        hermes.signal(signal.SIGTERM)
        hermes.signal(signal.SIGTERM)


def test_a17_over_tls_on_every_address_and_by_an_abstract_socket(ollama: Simulator, tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        shutil.copy(TLS / name, tmp_path)
        (tmp_path / name).chmod(0o600)
    manager = Manager(f"@hermes-{secrets.token_hex(8)}")
    with Hermes(ollama.url, f'tls_cert = "{tmp_path}/cert.pem"\ntls_key = "{tmp_path}/key.pem"\n{CONFIG}', HERMES_SERVER_LISTEN="[::]:0",
                HERMES_SERVER_OPEN="true", NOTIFY_SOCKET=manager.address, **WATCHED) as hermes:
        assert manager.until("READY=1")[1] == f"STATUS=listening on https://[::]:{hermes.port}, 1 models"
        for _ in range(3):
            manager.until("WATCHDOG=1")
    manager.sock.close()


def test_a17_a_manager_that_does_not_read_or_is_gone_stops_nobody(ollama: Simulator, manager: Manager) -> None:
    """What it was to be told it is told when it reads again, in order."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                other.sendto(b"full", manager.address)
    with Hermes(ollama.url, CONFIG, NOTIFY_SOCKET=manager.address) as hermes:
        eventually(lambda: hermes.staffed("m"))
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
        while (message := manager.next()) == ["full"]:
            pass
        assert message[0] == "READY=1"
        manager.until("RELOADING=1")
        manager.until("READY=1")
        manager.sock.close()
        os.unlink(manager.address)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: len([line for line in hermes.lines if "configuration reloaded" in line]) == 2)
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0
