"""What is left after many requests, after a long idle time, and after anything in any order: nothing (reliability.md §5.D).

`make faults` runs it with the numbers of that table.
"""

import os
import random
import signal
import socket
import struct
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from hermes.simulator import Fault, Simulator
from tests.harness import FAULTS, Client, Hermes, Reply, eventually, footprint, in_threads, post, status_field, zombies

NAMES = {"m": "smollm2:135m", "g": "gemma3:270m"}
WRONG = ["cut_body=90", "cut_body=40,by=rst", "refuse", "status=500", "no_done", "error_line", "garbage", "cut=20"]


def sized(**sizes: int) -> str:
    models = "".join(f'[models.{name}]\nmodel = "{NAMES[name]}"\nmax_concurrency = {size}\nmax_queue = 200\n' for name, size in sizes.items())
    return '[ollama]\nidle_timeout = "500ms"\nfirst_byte_timeout = "1s"\n' + models


CONFIG = sized(m=4, g=2)
WARM, MANY = (2_000, 20_000) if FAULTS else (800, 3_200)


def one(port: int, draw: random.Random) -> str:
    """A request of the mix: 20 % aborted, 10 % with a faulty upstream, 10 % bad input, the rest honest streams."""
    model = draw.choice(["m", "m", "g"])
    kind = draw.random()
    fault = f"@@{draw.choice(WRONG)}@@" if 0.2 <= kind < 0.3 else ""
    stream = kind >= 0.4 or draw.random() < 0.5
    path, body = draw.choice([
        ("/api/generate", {"model": model, "prompt": f"x {fault}", "stream": stream}),
        ("/api/chat", {"model": model, "messages": [{"role": "user", "content": f"x {fault}"}], "stream": stream}),
        ("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": f"x {fault}"}], "stream": stream}),
        ("/v1/llm/" + model, {"prompt": f"x {fault}", "stream": stream}),
    ])
    with Client(port) as client:
        if kind < 0.2:
            if draw.random() < 0.5:
                body["prompt" if "prompt" in body else "format"] = "x @@prompt_time=0.05@@" if "prompt" in body else "json"
            client.send("POST", path, body)
            if draw.random() < 0.5:
                client.sock.recv(10)
            if draw.random() < 0.5:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return "aborted"
        if 0.3 <= kind < 0.4:
            bad = draw.choice([b"{bad", b"[]", b'{"model":7}', b'{"model":"nothere","prompt":"x"}', b""])
            return str(client.send("POST", "/api/generate", bad).reply().status)
        reply = client.send("POST", path, body).reply()
        return "ok" if reply.status == 200 and reply.complete else f"failed {bool(fault)}"


def quiet(hermes: Hermes) -> bool:
    totals = hermes.status()["totals"]
    return totals["running"] == totals["queued"] == 0 and all(hermes.staffed(name) for name in NAMES)


def settled(hermes: Hermes) -> tuple[int, int]:
    """Descriptors and threads of the parent when nothing runs."""
    eventually(lambda: quiet(hermes))
    return footprint(hermes.pid)


def memory(pids: list[int]) -> dict[int, int]:
    """KiB, by process."""
    return {pid: int(status_field(pid, "VmRSS")) for pid in pids}


def run(hermes: Hermes, count: int, seed: int) -> list[str]:
    def work(number: int) -> list[str]:
        draw = random.Random(seed * 100 + number)
        return [one(hermes.port, draw) for _ in range(count // 16)]
    return [result for results in in_threads(16, work, timeout=900) for result in results]


def test_d1_many_requests_of_every_kind_leave_nothing_behind() -> None:
    """D1. Not a descriptor, a thread or a zombie, and no memory, neither in the parent nor in a worker."""
    with Simulator(parallel=4, tokens=4, remember=100) as ollama, Hermes(ollama.url, CONFIG, measured=True, HERMES_LOG_LEVEL="error") as hermes:
        run(hermes, WARM, 1)                        # allocator arenas, lazily imported modules, caches
        before, workers = settled(hermes), hermes.children()
        sizes = memory([hermes.pid, *workers])
        results = run(hermes, MANY, 2)
        eventually(lambda: settled(hermes) <= before, what="as many descriptors and threads as before")
        assert zombies(hermes.pid) == [] and hermes.children() == workers
        grown = {pid: size - sizes[pid] for pid, size in memory([hermes.pid, *workers]).items()}
        assert max(grown.values()) <= 2048, (grown, hermes.pid)
        counts = {result: results.count(result) for result in set(results)}
        assert len(results) == MANY and "failed False" not in counts, counts
        assert counts["ok"] > 0.55 * MANY and counts["aborted"] > 0.15 * MANY and counts["failed True"] > 0.05 * MANY, counts


def test_d2_many_clients_get_what_was_sent_to_them() -> None:
    """D2. 64 at once, 200 tokens each; every byte is compared."""
    rounds = 10 if FAULTS else 1
    config = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 16\nmax_queue = 100\n'
    with Simulator(parallel=16, tokens=200, keep_bodies=True) as ollama, Hermes(ollama.url, config) as hermes:
        def client(number: int) -> dict[str, Reply]:
            prompts = [f"client {number} round {turn}" for turn in range(rounds)]
            return {prompt: post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": prompt}) for prompt in prompts}

        replies = {prompt: reply for answers in in_threads(64, client) for prompt, reply in answers.items()}
        sent = {request.prompt: request.sent for request in ollama.requests if request.inference}
        exact = [prompt for prompt, reply in replies.items() if reply.complete and reply.body == sent[prompt] and reply.body.count(b"\n") == 201]
        assert len(exact) == len(replies) == len(sent) == 64 * rounds


def cpu(pids: list[int]) -> float:
    """Seconds of CPU that all threads of these processes have taken, to the nanosecond."""
    files = [file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(file.read_text(encoding="ascii").split()[0]) for file in files) / 1e9


def test_d3_idle_it_does_nothing() -> None:
    """D3. The parent and all its workers together."""
    seconds = 600 if FAULTS else 3
    with Simulator() as ollama, Hermes(ollama.url, CONFIG, measured=True) as hermes:
        run(hermes, 64, 3)
        before = settled(hermes)
        family = [hermes.pid, *hermes.children()]
        sizes, used, end = memory(family), cpu(family), time.monotonic() + seconds
        with suppress(AssertionError):              # it is time itself that is waited for here, and that Hermes does not end meanwhile
            eventually(lambda: hermes.process.poll() is not None, timeout=end - time.monotonic())
        assert hermes.process.poll() is None
        assert cpu(family) - used < 0.005 * seconds
        assert [hermes.pid, *hermes.children()] == family and memory(family) == sizes and settled(hermes) <= before


class Walk:
    """Anything in any order, and what must hold all the while: no more than max_concurrency calls at Ollama, and an answer for everybody."""

    def __init__(self, ollama: Simulator, hermes: Hermes, seed: int):
        self.ollama, self.hermes, self.draw = ollama, hermes, random.Random(seed)
        self.open: list[Client] = []
        self.stopped: list[int] = []
        self.size = {name: hermes.model(name)["workers"]["max"] for name in NAMES}
        self.asked = self.answered = 0

    def start(self) -> None:
        marks = self.draw.choice(["", "@@tokens=20,interval=0.005@@", "@@prompt_time=0.02@@", f"@@{self.draw.choice(WRONG)}@@"])
        body = {"model": self.draw.choice("mg"), "prompt": f"x {marks}", "stream": self.draw.random() < 0.7}
        self.open.append(Client(self.hermes.port).send("POST", "/api/generate", body))
        self.asked += 1

    def finish(self) -> None:
        """Somebody reads his answer to its end."""
        if self.draw.random() < 0.95:
            self.go_on()                            # else a stopped worker is taken for hung, which takes five seconds
        if self.open:
            with self.open.pop(self.draw.randrange(len(self.open))) as client:
                reply = client.reply()
            assert reply.status in (200, 500, 502, 503), reply
            assert reply.complete or reply.status == 200 and b'"error"' in reply.body, reply
            self.answered += 1

    def cancel(self) -> None:
        if self.open:
            client = self.open.pop(self.draw.randrange(len(self.open)))
            if self.draw.random() < 0.5:
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            self.answered += 1

    def victim(self) -> int | None:
        return self.draw.choice([pid for pid in self.hermes.children() if pid not in self.stopped] or [None])

    def kill(self) -> None:
        if pid := self.victim():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        if pid := self.victim():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self.stopped.append(pid)

    def go_on(self) -> None:
        for pid in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self.stopped.clear()

    def reload(self) -> None:
        """With other sizes, or with a mistake, which changes nothing."""
        if self.draw.random() < 0.3:
            self.hermes.write_config("[models.m]\nmax_concurrency = 0\n")
        else:
            self.hermes.write_config(self.config())
        lines = len(self.hermes.lines)
        self.hermes.signal(signal.SIGHUP)
        eventually(lambda: any("reloaded" in line for line in self.hermes.lines[lines:]))

    def config(self) -> str:
        self.size = {"m": self.draw.choice([1, 2, 4]), "g": self.draw.choice([1, 2])}
        return sized(**self.size)

    def upset(self) -> None:
        """Ollama's next answer, whoever gets it."""
        fault = self.draw.choice([Fault(refuse=True), Fault(status=503), Fault(cut=30), Fault(garbage=True), Fault(raw=b"HTTP/1.1 200 OK\r\n\r\n"), Fault(delay=0.05)])
        self.ollama.script(fault, path="/api/generate", times=1)

    def check(self) -> None:
        assert len(self.hermes.children()) <= 4 + 2 + 2 + 6, "the sizes, two for control, and who is leaving"
        for name, most in (("m", 4), ("g", 2)):
            assert self.ollama.running(NAMES[name]) <= most and self.ollama.high_water(NAMES[name]) <= most

    def rest(self) -> None:
        """Everybody gets his answer; then the books are right and nothing is open."""
        self.go_on()
        while self.open:
            self.finish()
        assert self.answered == self.asked
        eventually(lambda: quiet(self.hermes) and {name: self.hermes.model(name)["workers"]["max"] for name in NAMES} == self.size)
        eventually(lambda: len(self.hermes.children()) == sum(self.size.values()) + 2 and not zombies(self.hermes.pid))
        eventually(lambda: self.ollama.running(NAMES["m"]) == self.ollama.running(NAMES["g"]) == 0)


@pytest.mark.parametrize("seed", range(200 if FAULTS else 2))
def test_d4_anything_in_any_order(walked: tuple[Simulator, Hermes], seed: int) -> None:
    """D4. (The same for the queue alone, ten thousand steps at a time: tests/unit/test_backlog.py.)"""
    walk = Walk(*walked, seed)
    steps = [walk.start, walk.finish, walk.cancel, walk.kill, walk.stop, walk.go_on, walk.reload, walk.upset]
    with ExitStack() as last:
        last.callback(walk.go_on)
        for step in walk.draw.choices(steps, (12, 6, 4, 1, 1, 2, 1, 3), k=30):
            step()
            walk.check()
        walk.rest()


@pytest.fixture(scope="module")
def walked():
    """One pair for all walks; in the end the parent has as many descriptors and threads as in the beginning."""
    with Simulator(parallel=8, tokens=4, remember=1000) as ollama, Hermes(ollama.url, CONFIG, HERMES_LOG_LEVEL="info") as hermes:
        run(hermes, 64, 4)
        before = settled(hermes)
        yield ollama, hermes
        hermes.write_config(CONFIG)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.model("m")["workers"]["max"] == 4 and hermes.model("g")["workers"]["max"] == 2)
        eventually(lambda: settled(hermes) <= before, what="as many descriptors and threads as before")
