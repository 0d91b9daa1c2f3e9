import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

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
