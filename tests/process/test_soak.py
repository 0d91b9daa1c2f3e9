"""5,000 mixed requests leave nothing behind: descriptors, threads, zombies, memory."""

import random
import socket
import struct

from hermes.simulator import Simulator
from tests.harness import Client, Hermes, descriptors, eventually, in_threads, status_field, zombies

CONFIG = ('[ollama]\nidle_timeout = "500ms"\nfirst_byte_timeout = "1s"\n[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 4\nmax_queue = 200\n'
          '[models.g]\nmodel = "gemma3:270m"\nmax_concurrency = 2\nmax_queue = 200\n')
FAULTS = ["cut_body=90", "cut_body=40,by=rst", "refuse", "status=500", "no_done", "error_line", "garbage", "cut=20"]


def one(port: int, draw: random.Random) -> str:
    """A request of the mix: 20 % aborted, 10 % faulty upstream, 10 % bad input, the rest honest; half of them streams."""
    model = draw.choice(["m", "m", "g"])
    kind = draw.random()
    fault = f"@@{draw.choice(FAULTS)}@@" if 0.2 <= kind < 0.3 else ""
    path, body = draw.choice([
        ("/api/generate", {"model": model, "prompt": f"x {fault}"}),
        ("/api/chat", {"model": model, "messages": [{"role": "user", "content": f"x {fault}"}], "stream": False}),
        ("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": f"x {fault}"}], "stream": True}),
        ("/v1/llm/" + model, {"prompt": f"x {fault}", "stream": draw.random() < 0.5}),
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


def settled(hermes: Hermes) -> tuple[int, int]:
    def quiet() -> bool:
        totals = hermes.status()["totals"]
        return totals["running"] == totals["queued"] == 0 and hermes.staffed("m") and hermes.staffed("g")
    eventually(quiet)
    # The connection that asked for the status may still be closing: the smallest of a few looks is the settled one.
    def look() -> tuple[int, int]:
        return descriptors(hermes.pid), int(status_field(hermes.pid, "Threads"))
    return min(eventually(look) for _ in range(200))


def run(hermes: Hermes, count: int, seed: int) -> list[str]:
    def work(number: int) -> list[str]:
        draw = random.Random(seed * 100 + number)
        return [one(hermes.port, draw) for _ in range(count // 16)]
    return [result for results in in_threads(16, work, timeout=200) for result in results]


def test_five_thousand_mixed_requests_leave_nothing_behind() -> None:
    with Simulator(parallel=4, tokens=4, remember=100) as ollama, Hermes(ollama.url, CONFIG, measured=True, HERMES_LOG_LEVEL="error") as hermes:
        run(hermes, 1200, 1)                        # warm up: allocator arenas, lazily imported modules, caches
        before, memory = settled(hermes), int(status_field(hermes.pid, "VmRSS"))
        results = run(hermes, 5008, 2)
        after = settled(hermes)
        assert after == before
        assert int(status_field(hermes.pid, "VmRSS")) - memory <= 2048
        assert len(results) >= 5000 and "failed False" not in results, {result: results.count(result) for result in set(results)}
        assert results.count("aborted") > 800 and results.count("failed True") > 200
        assert zombies(hermes.pid) == []
