import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from pathlib import Path

import pytest

from tests.unit.fakes import FakeChild


@pytest.fixture
def new_child() -> Iterator[Callable[..., FakeChild]]:
    children: list[FakeChild] = []

    def make(kind: type[FakeChild] = FakeChild, **options) -> FakeChild:
        children.append(kind(**options))
        return children[-1]

    yield make
    for child in children:
        child.bury()


@pytest.fixture
def new_pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Two connected sockets: ours, and the client's."""
    pairs: list[tuple[socket.socket, socket.socket]] = []

    def make() -> tuple[socket.socket, socket.socket]:
        pairs.append(socket.socketpair())
        return pairs[-1]

    yield make
    for pair in pairs:
        for end in pair:
            end.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Future]]:
    """Run something in a thread."""
    with ThreadPoolExecutor(16) as threads:
        yield threads.submit


@pytest.fixture(scope="module")
def go_program(tmp_path_factory) -> Callable[[str], Callable[[list[bytes]], list]]:
    """A Go program, built from its source, as a function: it reads hexadecimal lines and answers each with a line of JSON."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no Go here")

    def make(source: str) -> Callable[[list[bytes]], list]:
        folder: Path = tmp_path_factory.mktemp("go")
        (folder / "main.go").write_text(source, encoding="utf-8")
        build = subprocess.run([go, "build", "-o", "program", "main.go"], cwd=folder, capture_output=True, text=True, timeout=300)
        assert build.returncode == 0, build.stderr

        def ask(bodies: list[bytes]) -> list:
            lines = b"".join(body.hex().encode() + b"\n" for body in bodies)
            run = subprocess.run([str(folder / "program")], input=lines, capture_output=True, timeout=300, check=True)
            return [json.loads(line) for line in run.stdout.splitlines()]

        return ask

    return make
