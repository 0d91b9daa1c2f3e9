"""Workers die, hang and are replaced; nobody else notices."""

import os
import signal
import threading
import time

from hermes.dispatch.lease import HUNG_MARGIN
from hermes.simulator import Simulator
from tests.harness import SLOW, Client, Hermes, eventually, in_threads, post, status_field

CONFIG = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = {size}\nmax_queue = 100\n'


def sent(ollama: Simulator, prompt: str) -> bytes:
    return next(request.sent for request in ollama.requests if request.prompt == prompt)


def test_kill_one_of_eight_streaming_workers_fifty_rounds() -> None:
    """A2. The other seven are byte-exact every time; the victim's client is told in band; the pool is full again at once."""
    exact, told, refilled = 0, 0, []
    with Simulator(parallel=8, keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG.format(size=8)) as hermes:
        eventually(lambda: hermes.staffed("m"))
        for number in range(50):
            clients = [Client(hermes.port) for _ in range(8)]
            prompts = [f"round {number} client {place} @@tokens=12,interval=0.01@@" for place in range(8)]
            for client, prompt in zip(clients, prompts, strict=True):
                client.send("POST", "/api/generate", {"model": "smollm2:135m", "prompt": prompt}).read_until(b'"done":false')
            victims = hermes.workers("m")
            killed = time.monotonic()
            os.kill(victims[number % len(victims)], signal.SIGKILL)
            replies = in_threads(8, lambda place: (clients[place].reply(), time.monotonic()))
            refilled.append(refill(hermes, killed))
            failures = [(reply, at) for reply, at in replies if not reply.complete]
            assert len(failures) == 1, f"round {number}: {len(failures)} failed"
            reply, at = failures[0]
            assert "error" in reply.records()[-1] and at - killed < 1.0 * SLOW
            told += 1
            exact += sum(reply.complete and reply.body == sent(ollama, prompt) for (reply, _), prompt in zip(replies, prompts, strict=True))
            for client in clients:
                client.close()
    assert (exact, told) == (350, 50)
    assert sorted(refilled)[len(refilled) // 2] < 0.25 * SLOW


def refill(hermes: Hermes, since: float) -> float:
    eventually(lambda: hermes.staffed("m"))
    return time.monotonic() - since


def test_kill_a_whole_pool_with_twenty_queued() -> None:
    """A3. Who waits is served once; and the other model's streams run as they did before."""
    config = CONFIG.format(size=4) + '[models.b]\nmodel = "gemma3:270m"\nmax_concurrency = 4\n'
    with Simulator(parallel=4, keep_bodies=True) as ollama, Hermes(ollama.url, config) as hermes:
        eventually(lambda: hermes.staffed("m") and hermes.staffed("b"))

        def other(number: int) -> tuple[float, bool]:
            prompt, began = f"other {number} @@tokens=100,interval=0.01@@", time.monotonic()
            reply = post(hermes.port, "/api/generate", {"model": "gemma3:270m", "prompt": prompt})
            return time.monotonic() - began, reply.complete and reply.body == sent(ollama, prompt)

        undisturbed = max(took for took, _ in in_threads(4, other))
        others: list = []
        beside = threading.Thread(target=lambda: others.extend(in_threads(4, lambda number: other(number + 4))))
        running = [Client(hermes.port).send("POST", "/api/generate", {"model": "smollm2:135m", "prompt": f"running {n} @@tokens=500,interval=0.01@@"}) for n in range(4)]
        for client in running:
            client.read_until(b'"done":false')
        queued = [Client(hermes.port).send("POST", "/api/generate", {"model": "smollm2:135m", "prompt": f"queued {n}"}) for n in range(20)]
        eventually(lambda: hermes.model("m")["queue"]["depth"] == 20)
        beside.start()
        eventually(lambda: ollama.running("gemma3:270m") == 4)
        for pid in hermes.workers("m"):
            os.kill(pid, signal.SIGKILL)
        replies = in_threads(20, lambda n: queued[n].reply())
        assert sum(reply.status == 200 and reply.complete and reply.body == sent(ollama, f"queued {n}") for n, reply in enumerate(replies)) == 20
        beside.join()
        assert [exact for _, exact in others] == [True] * 4 and max(took for took, _ in others) <= undisturbed * (1 + 0.1 * SLOW)
        for client in running:
            reply = client.reply()
            assert not reply.complete and "error" in reply.records()[-1]
        for client in running + queued:
            client.close()
        prompts = [request.prompt for request in ollama.requests if request.prompt.startswith("queued")]
        assert all(prompts.count(prompt) == 1 for prompt in prompts)


def test_a_worker_that_dies_before_the_head_costs_the_client_nothing() -> None:
    """A2. Nothing had been sent yet: it is tried again, once."""
    with Simulator() as ollama, Hermes(ollama.url, CONFIG.format(size=1)) as hermes:
        eventually(lambda: hermes.staffed("m"))
        with Client(hermes.port) as client:
            client.send("POST", "/api/generate", {"model": "smollm2:135m", "prompt": "p @@prompt_time=0.5@@"})
            eventually(lambda: ollama.running("smollm2:135m") == 1)
            for pid in hermes.workers("m"):
                os.kill(pid, signal.SIGKILL)
            reply = client.reply()
            assert reply.status == 200 and reply.complete
        assert len([request for request in ollama.requests if request.prompt.startswith("p ")]) == 2


def test_a_stopped_worker_is_killed_and_replaced() -> None:
    """A5. In the middle of a stream; and no thread of the parent stays with it."""
    config = '[ollama]\nidle_timeout = "300ms"\n' + CONFIG.format(size=1)
    with Simulator() as ollama, Hermes(ollama.url, config) as hermes:
        eventually(lambda: hermes.staffed("m"))
        with Client(hermes.port) as client:
            client.send("POST", "/api/generate", {"model": "smollm2:135m", "prompt": "p @@tokens=1000,interval=0.02@@"}).read_until(b'"done":false')
            victim, threads = hermes.workers("m")[0], int(status_field(hermes.pid, "Threads"))
            stopped = time.monotonic()
            os.kill(victim, signal.SIGSTOP)
            reply = client.reply()
            assert not reply.complete and "hung" in reply.records()[-1]["error"]
        eventually(lambda: victim not in hermes.children() and hermes.staffed("m"))
        assert time.monotonic() - stopped <= 0.3 + HUNG_MARGIN + 1.0 * SLOW
        assert post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": "again", "stream": False}).status == 200
        eventually(lambda: int(status_field(hermes.pid, "Threads")) <= threads)


def test_a_crash_loop_closes_its_pool_and_no_other() -> None:
    """A4, with workers that die once they stand (at boot: test_supervision.py)."""
    config = CONFIG.format(size=1) + '[models.other]\nmodel = "gemma3:270m"\n'
    with Simulator() as ollama, Hermes(ollama.url, config) as hermes:
        eventually(lambda: hermes.staffed("m") and hermes.staffed("other"))

        def kill_or_closed() -> bool:
            for pid in hermes.workers("m"):
                os.kill(pid, signal.SIGKILL)
            return hermes.model("m")["closed"] is not None

        eventually(kill_or_closed, what="closing")
        assert hermes.model("m")["restarts"] == 5
        started = time.monotonic()
        reply = post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": "x"})
        assert reply.status == 503 and "out of service" in reply.json()["error"] and 1 <= int(reply.headers["retry-after"]) <= 30
        assert time.monotonic() - started < 0.05 * SLOW
        assert post(hermes.port, "/api/generate", {"model": "other", "prompt": "x", "stream": False}).status == 200
        assert hermes.status()["status"] == "degraded"
