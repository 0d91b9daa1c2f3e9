"""Slow and greedy clients, and a machine at its limits: what they may take is bounded, and the others are served (reliability.md §5.B).

`make faults` runs the same with the numbers of that table where they take long.
"""

import json
import resource
import select
import selectors
import socket
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from hermes.simulator import Simulator
from tests.harness import FAULTS, SLOW, Client, Hermes, cpu_seconds, eventually, get, post, status_field

MODEL = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 2\n'
HALF = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "
SENDING = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhell"


@pytest.fixture(scope="module", autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def ollama():
    with Simulator(parallel=16) as simulator:
        yield simulator


def memory(hermes: Hermes, name: str) -> int:
    """VmRSS, VmHWM or VmSize, in bytes."""
    return int(status_field(hermes.pid, name)) * 1024


def drip(client: Client, first: bytes, byte: bytes) -> float:
    """Send a byte every 20 ms until there is an answer; the seconds until then."""
    client.send_raw(first)
    began = time.monotonic()
    while not select.select([client.sock], [], [], 0.02)[0]:
        client.send_raw(byte)
    return time.monotonic() - began


class TestB7HalfHeads:
    CLIENTS, CAP = (1000, 256) if FAULTS else (300, 64)

    def test_they_make_room_for_each_other_and_for_those_who_ask(self, ollama) -> None:
        with Hermes(ollama.url, f"max_connections = {self.CAP}\n[log]\nlevel = \"error\"\n", measured=True) as hermes, ExitStack() as open_ones:
            assert get(hermes.port, "/livez").status == 200
            before, threads = memory(hermes, "VmRSS"), int(status_field(hermes.pid, "Threads"))
            worst = most = 0.0
            for number in range(self.CLIENTS):
                open_ones.enter_context(Client(hermes.port)).send_raw(HALF)
                if number % 50 == 0:
                    asked = time.monotonic()
                    assert get(hermes.port, "/livez").status == 200
                    worst, most = max(worst, time.monotonic() - asked), max(most, int(status_field(hermes.pid, "Threads")))
            assert most - threads <= self.CAP + 8
            assert memory(hermes, "VmRSS") - before <= 16 << 20
            assert worst <= 1.0 * SLOW

    @pytest.mark.parametrize("deadline", [5.0 if FAULTS else 0.5])
    def test_a_head_that_drips_has_one_deadline(self, ollama, deadline: float) -> None:
        with Hermes(ollama.url, f'head_timeout = "{deadline}s"\n') as hermes, Client(hermes.port) as client:
            assert deadline <= drip(client, HALF, b"x") + 0.02 and client.reply().status == 408
            with Client(hermes.port) as again:
                assert drip(again, HALF, b"x") <= deadline + 0.5 * SLOW


class TestB8Bodies:
    @pytest.mark.parametrize("deadline", [10.0 if FAULTS else 0.5])
    def test_a_body_that_drips_has_one_deadline(self, ollama, deadline: float) -> None:
        head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
        with Hermes(ollama.url, f'body_timeout = "{deadline}s"\n') as hermes, Client(hermes.port) as client:
            took = drip(client, head, b" ")
            assert deadline - 0.02 <= took <= deadline + 0.5 * SLOW
            assert client.reply().status == 408

    def test_parked_bodies_have_a_bound_together(self, ollama) -> None:
        """Four clients with 30 MB each, and room for two."""
        head = b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        config = 'max_body = "32MB"\nmax_parked = "64MB"\nbody_timeout = "60s"\n'
        with Hermes(ollama.url, config, measured=True) as hermes, ExitStack() as open_ones:
            assert get(hermes.port, "/livez").status == 200
            before = memory(hermes, "VmHWM")

            def arrive(length: int) -> Client:
                return open_ones.enter_context(Client(hermes.port)).send_raw(head % length)

            parked = [arrive(32_000_000) for _ in range(2)]
            for client in parked:
                client.read_until(b"100 Continue\r\n\r\n")
                client.send_raw(b" " * 30_000_000)
            def turned_away() -> bool:
                with Client(hermes.port) as client:
                    reply = client.send_raw(head % 5_000_000).reply("HEAD")
                    return reply.status == 503 and reply.headers["retry-after"] == "1"
            eventually(turned_away)
            for _ in range(2):
                reply = arrive(30_000_000).reply()
                assert (reply.status, reply.headers["connection"]) == (503, "close") and "memory" in reply.json()["error"]
            assert post(hermes.port, "/api/generate", {"model": "nothere", "prompt": "x"}).status == 404, "small ones fit in"
            assert memory(hermes, "VmHWM") - before <= (64 << 20) + (16 << 20)
            for client in parked:
                client.close()
            eventually(lambda: arrive(30_000_000).read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 "))

    def test_three_gigabytes_are_refused_before_anything_is_read(self, ollama) -> None:
        with Hermes(ollama.url, measured=True) as hermes, ExitStack() as open_ones:
            assert get(hermes.port, "/livez").status == 200
            before = memory(hermes, "VmSize")
            for _ in range(4):
                client = open_ones.enter_context(Client(hermes.port))
                reply = client.send("POST", "/api/generate", b"", Content_Length="3000000000", Expect="100-continue").reply()
                assert (reply.status, reply.headers["connection"]) == (413, "close")
            # 3.11's allocator reserves 64 MiB of addresses for a thread's arena, whatever is in it.
            assert memory(hermes, "VmSize") - before <= 100_000_000 + (4 * 72 << 20)
            assert memory(hermes, "VmHWM") - memory(hermes, "VmRSS") <= 16 << 20


def test_b9_clients_that_stop_reading(ollama) -> None:
    """Eight of them beside one who reads: their workers are free again, little of their answers is held, and his is whole."""
    config = 'send_timeout = "1s"\n[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 9\n'
    with Hermes(ollama.url, config) as hermes, ExitStack() as open_ones:
        eventually(lambda: hermes.staffed("m"))
        seen = len(ollama.requests)
        stuck = [open_ones.enter_context(Client(hermes.port)) for _ in range(8)]
        began = time.monotonic()
        for client in stuck:
            client.send("POST", "/api/generate", {"model": "m", "prompt": "stuck @@tokens=200000,interval=0@@"})
        reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": "reads @@tokens=100,interval=0.01@@"})
        assert reply.complete and len(reply.records()) == 101 and reply.records()[-1]["done"]

        def left() -> list[float]:
            return [request.client_left_at for request in ollama.requests[seen:] if request.inference and "stuck" in request.prompt and request.client_left]
        eventually(lambda: len(left()) == 8, timeout=30)
        assert max(left()) - began <= (1.0 + 1.0) * SLOW
        assert [line for line in hermes.lines if "outcome=cancelled" in line]
        eventually(lambda: hermes.model("m")["workers"]["busy"] == 0)
        for client in stuck:
            while client.more():
                pass
            assert len(client.buffer) <= 512 << 10


@pytest.mark.parametrize(("raw", "status"), [
    (b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414), (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", 431), (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X%d: %b\r\n" % (n, b"y" * 8000) for n in range(20)) + b"\r\n", 431),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n" + b"z" * 900_000, 413),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\ndbba0\r\n" + b"z" * 900_000 + b"\r\n0\r\n\r\n", 413),
    (b"GET /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n" + b"z" * 900_000, 404)], ids=["line", "fields", "field", "head", "body", "chunk", "unread"])
def test_b11_the_answer_arrives_though_the_client_goes_on_sending(ollama, raw: bytes, status: int) -> None:
    with Hermes(ollama.url, 'max_body = "100KB"\n') as hermes:
        for _ in range(20):                     # a reset that eats the answer is a matter of luck
            with Client(hermes.port) as client:
                client.send_raw(raw)
                reply = client.reply()
                assert (reply.status, reply.complete, reply.headers["connection"]) == (status, True, "close") and not client.more()


@pytest.mark.parametrize(("greeting", "answered"), [(HALF, True), (b"", True), (SENDING, False)], ids=["in the head", "idle", "in the body"])
def test_b12_out_of_descriptors(greeting: bytes, answered: bool) -> None:
    """64 descriptors, 90 clients. Those who wait for nothing make room; where all have asked for something, newcomers wait in the kernel."""
    def command(config: Path) -> list[str]:
        return ["prlimit", "--nofile=64:64", sys.executable, "-m", "hermes", "serve", "--config", str(config)]
    with Simulator(parallel=2) as ollama, Hermes(ollama.url, 'head_timeout = "60s"\nbody_timeout = "60s"\n' + MODEL, command) as hermes, ExitStack() as streaming:
        eventually(lambda: hermes.staffed("m"))
        streams = [streaming.enter_context(Client(hermes.port)).send("POST", "/api/generate", {"model": "m", "prompt": "x @@tokens=60,interval=0.02@@"}) for _ in range(2)]
        for client in streams:
            client.read_until(b'"done":false')
        with ExitStack() as open_ones:
            began, used = time.monotonic(), cpu_seconds(hermes.pid)
            for _ in range(90):
                client = open_ones.enter_context(Client(hermes.port))
                if greeting:
                    client.send_raw(greeting)
            if answered:
                assert get(hermes.port, "/livez").status == 200
            for client in streams:
                reply = client.reply()
                assert reply.complete and len(reply.records()) == 61
            eventually(lambda: hermes.line("no descriptor is left"))
            eventually(lambda: time.monotonic() - began > 1.0)
            share = (cpu_seconds(hermes.pid) - used) / (time.monotonic() - began)
        asked = time.monotonic()
        assert get(hermes.port, "/livez").status == 200
        assert time.monotonic() - asked <= 1.0 * SLOW
        assert share <= 0.05 * SLOW, "it spins"
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).status == 200
        assert len([line for line in hermes.lines if "no descriptor is left" in line]) == 1


def burst(port: int, count: int) -> list[float]:
    """So many connections at once, each with one request; the seconds until each answer, in order. One thread: many would measure themselves."""
    took = []
    with selectors.DefaultSelector() as selector, ExitStack() as open_ones:
        began = time.monotonic()
        for _ in range(count):
            sock = open_ones.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            selector.register(sock, selectors.EVENT_WRITE)
        while len(took) < count:
            for key, event in selector.select(30):
                if event == selectors.EVENT_WRITE:
                    key.fileobj.send(PIPELINED)
                    selector.modify(key.fileobj, selectors.EVENT_READ)
                else:
                    assert key.fileobj.recv(4096).startswith(b"HTTP/1.1 200 ")
                    took.append(time.monotonic() - began)
                    selector.unregister(key.fileobj)
    return took


def test_b13_two_hundred_at_once(ollama) -> None:
    with Hermes(ollama.url, measured=True) as hermes:
        took = burst(hermes.port, 200)
        assert took[-1] < 0.9, "a connection whose SYN was dropped comes a second later"
        assert took[197] <= 0.1 * SLOW


PIPELINED = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(("first", "statuses"), [
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n" + PIPELINED, [200, 200]),
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n28\r\n" + PIPELINED + b"\r\n0\r\n\r\n", [200, 200]),
    (b"GET /nope HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n" + PIPELINED, [404, 200]),
    (b"GET /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n" + PIPELINED, [405, 200]),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n" + PIPELINED, [401, 200]),
    (b"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n" + PIPELINED, [401]),
    (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n" + PIPELINED, [400]),
    (b"GET /livez HTTP/1.1\nHost: localhost\r\n\r\n" + PIPELINED, [400]),
    (b"GET /nope HTTP/1.1\r\nHost: localhost\r\n\r\n", [404, 200]),
    (PIPELINED, [200, 200])], ids=["GET", "chunked GET", "404", "405", "401", "401 to 100-continue", "error", "LF", "404 without a body", "two"])
def test_b16_nothing_of_a_body_is_a_request(ollama, first: bytes, statuses: list[int]) -> None:
    clients = f'[clients.alice]\nkey_sha256 = "{"0" * 64}"\n' if statuses[0] == 401 else ""
    with Hermes(ollama.url, clients) as hermes, Client(hermes.port) as client:
        client.send_raw(first + PIPELINED)
        replies = [client.reply() for _ in statuses]
        assert [reply.status for reply in replies] == statuses and all(reply.complete for reply in replies)
        assert (replies[-1].headers.get("connection") == "close") == (len(statuses) == 1)
        if len(statuses) == 1:
            assert client.buffer == b"" and not client.more()


def test_b18_nobody_reads_the_log(ollama) -> None:
    """Requests go on as before; what did not fit is counted, and said when somebody reads again."""
    count = 12_000 if FAULTS else 1_000
    with Hermes(ollama.url) as hermes:
        def times() -> list[float]:
            took = []
            with Client(hermes.port) as client:
                for _ in range(count):
                    began = time.monotonic()
                    assert client.send("GET", "/nope").reply().status == 404
                    took.append(time.monotonic() - began)
            return sorted(took)
        before = times()
        hermes.hears.clear()
        deaf = times()
        assert deaf[int(count * 0.99)] <= before[int(count * 0.99)] + 0.01 * SLOW
        hermes.hears.set()
        last = len(hermes.lines)
        if FAULTS:
            eventually(lambda: hermes.line("log lines dropped count="))
            assert hermes.status()["log"]["dropped"] > 0
        eventually(lambda: len(hermes.lines) > last)


def test_b19_no_thread_can_be_started(ollama) -> None:
    with Hermes(ollama.url, MODEL, measured=True) as hermes:
        eventually(lambda: hermes.staffed("m"))
        _, hard = resource.prlimit(hermes.pid, resource.RLIMIT_AS)
        resource.prlimit(hermes.pid, resource.RLIMIT_AS, (memory(hermes, "VmSize") + (48 << 20), hard))
        with ExitStack() as open_ones:
            crowd = [open_ones.enter_context(Client(hermes.port)).send_raw(HALF) for _ in range(40)]
            eventually(lambda: hermes.line("reason=busy"))
            told = [client for client in crowd if select.select([client.sock], [], [], 0)[0]]
            assert told and len(told) < 40
            reply = told[0].reply()
            assert (reply.status, reply.headers["retry-after"]) == (503, "1") and "thread" in reply.json()["error"]
        resource.prlimit(hermes.pid, resource.RLIMIT_AS, (hard, hard))
        assert get(hermes.port, "/livez").status == 200
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x", "stream": False}).status == 200
        assert len([line for line in hermes.lines if "reason=busy" in line]) == 1


def test_a_full_house_of_those_who_have_asked_turns_newcomers_away(ollama) -> None:
    with Hermes(ollama.url, f"max_connections = 3\n{MODEL}") as hermes, ExitStack() as open_ones:
        eventually(lambda: hermes.staffed("m"))
        body = json.dumps({"model": "m", "prompt": "x @@tokens=100000,interval=0.02@@"}).encode()

        def arrive() -> bool:
            """Its request has arrived when it is asked for the body; until then the next one would take its place."""
            client = open_ones.enter_context(Client(hermes.port))
            client.send_raw(b"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
            if client.reply("HEAD").status != 100:      # whoever asked for the status is not quite gone
                client.close()
                return False
            client.send_raw(body)
            return True
        for _ in range(3):
            eventually(arrive)

        def refused() -> bool:
            with Client(hermes.port) as client:
                reply = client.send("GET", "/livez").reply()
                return reply.status == 503 and json.loads(reply.body)["error"] == "too many connections"
        eventually(refused)
