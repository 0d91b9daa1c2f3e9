"""Bad requests to a whole Hermes: never more answers than requests, each of them whole, and nothing behind an error."""

import random
import re
import socket

import pytest

from hermes.frontend.http1 import Request
from hermes.simulator import Simulator
from tests.harness import FAULTS, Client, Hermes, Reply
from tests.unit.mutations import mutated
from tests.unit.streams import BUGS, read_stream

TRIES = 10_000 if FAULTS else 150           # in each of ten rounds
HEAD = re.compile(rb"HTTP/1\.1 [1-5][0-9]{2} [A-Za-z ]+(?:\r\n[A-Za-z-]+: [\t\x20-\x7e]*)+")


@pytest.fixture(scope="module")
def hermes():
    with Simulator() as ollama, Hermes(ollama.url, HERMES_LOG_LEVEL="warning") as gateway:
        gateway.ollama = ollama
        yield gateway


def answers(port: int, stream: bytes, methods: list[str]) -> list[Reply]:
    """All final answers to a client that says this and no more. `methods`: of the requests, which an answer's length depends on."""
    found = []
    with Client(port, timeout=10) as client:
        client.send_raw(stream)
        client.sock.shutdown(socket.SHUT_WR)
        while client.buffer or client.more():
            number = sum(reply.status != 100 for reply in found)
            method = methods[number] if number < len(methods) else "GET"
            continues = client.buffer.startswith(b"HTTP/1.1 100 ")
            found.append(client.reply("HEAD" if continues else method))
            assert found[-1].complete and (continues or HEAD.fullmatch(found[-1].raw)), (stream, found[-1].raw, found[-1].body)
    return [reply for reply in found if reply.status != 100]


@pytest.mark.parametrize(("stream", "statuses"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS])
def test_known_bug(hermes: Hermes, stream: bytes, statuses: list[int]) -> None:
    replies = answers(hermes.port, stream, [])
    assert [reply.status for reply in replies] == statuses
    assert not any(b"evil" in reply.body for reply in replies)
    if statuses[-1] != 200:
        assert replies[-1].headers["connection"] == "close" and list(replies[-1].json()) == ["error"]


@pytest.mark.parametrize("seed", range(10))
def test_mutations(hermes: Hermes, seed: int) -> None:
    draw = random.Random(1000 + seed)
    for _ in range(TRIES):
        stream = mutated(draw)
        heads: list[Request] = []
        requests, end = read_stream([stream], heads)
        replies = answers(hermes.port, stream, [request.method for request in heads])
        assert len(replies) <= len(requests) + (end not in ("", "closed")), stream
        assert all(reply.status in (200, 204, 301, 307, 400, 403, 404, 405, 408, 413, 414, 417, 431, 501, 505) for reply in replies), stream
        errors = [number for number, reply in enumerate(replies) if reply.status not in (200, 204, 301, 307, 403, 404, 405)]
        assert errors in ([], [len(replies) - 1]), stream
    assert not [request for request in hermes.ollama.requests if request.path not in ("/", "/api/version", "/api/tags")]
