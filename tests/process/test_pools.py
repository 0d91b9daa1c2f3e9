"""Pools: never more calls at Ollama than max_concurrency, a bounded queue in order, early calls wait for their worker."""

import os
import random
import signal
import threading

import pytest

from hermes.simulator import Simulator
from tests.harness import Client, Hermes, eventually, get, in_threads, post

CHAT = [{"role": "user", "content": "hello"}]


NAMES = {"a": "smollm2:135m", "b": "gemma3:270m", "c": "all-minilm"}


def models(**sizes: int) -> str:
    return "".join(f'[models.{key}]\nmodel = "{NAMES[key]}"\nmax_concurrency = {size}\nmax_queue = 400\n' for key, size in sizes.items())


@pytest.mark.parametrize("sizes", [(1, 2, 3), (4, 8, 5), (16, 3, 6)])
def test_high_water_equals_max_concurrency(sizes: tuple[int, int, int]) -> None:
    """A16. 3 models, 200 requests, half of them by the model's other name. As many as can run at once are long: so many meet for sure."""
    size = dict(zip("abc", sizes, strict=True))
    with Simulator(parallel=16, prompt_time=0.05, tokens=8) as ollama, Hermes(ollama.url, models(**size)) as hermes:
        eventually(lambda: all(hermes.staffed(key) for key in size))
        names = [("a", "smollm2:135m"), ("b", "gemma3:270m")]

        def call(number: int) -> int:
            long = " @@delay=0.5@@" if number // 3 < size["abc"[number % 3]] else ""
            if number % 3 == 2:
                return post(hermes.port, "/api/embed", {"model": ("c", "all-minilm:latest")[number % 2], "input": "x @@delay=0.05@@"}).status
            return post(hermes.port, "/api/generate", {"model": names[number % 3][number % 2], "prompt": f"p{number}{long}"}).status

        assert in_threads(200, call) == [200] * 200
        assert {key: ollama.high_water(name) for key, name in (("a", "smollm2:135m"), ("b", "gemma3:270m"), ("c", "all-minilm"))} == size


def test_high_water_holds_while_the_sizes_change() -> None:
    """A16. Reloads under load: never more than the largest size, and at rest exactly the last."""
    sizes = [dict(a=4, b=2, c=1), dict(a=1, b=3, c=2), dict(a=2, b=1, c=3)]
    with Simulator(parallel=16, token_interval=0.005, tokens=8) as ollama, Hermes(ollama.url, models(**sizes[0])) as hermes:
        eventually(lambda: all(hermes.staffed(key) for key in "abc"))
        over = threading.Event()

        def call(number: int) -> set[int]:
            statuses = set()
            while not over.is_set():
                name = "abc"[number % 3]
                path, body = ("/api/embed", {"input": "x @@delay=0.02@@"}) if name == "c" else ("/api/generate", {"prompt": "x"})
                statuses.add(post(hermes.port, path, {"model": name, **body}).status)
            return statuses

        def reload() -> set[int]:
            try:
                for size in sizes:
                    hermes.write_config(models(**size))
                    hermes.signal(signal.SIGHUP)
                    eventually(lambda size=size: all(hermes.model(key)["workers"]["max"] == size[key] and hermes.staffed(key) for key in "abc"))
                ollama.reset_high_water()
                eventually(lambda: all(ollama.high_water(NAMES[key]) >= sizes[2][key] for key in "abc"))
                return {200}
            finally:
                over.set()

        ollama.reset_high_water()
        assert in_threads(13, lambda number: reload() if number == 12 else call(number)) == [{200}] * 13
        assert {key: ollama.high_water(NAMES[key]) for key in "abc"} == sizes[2]


def test_high_water_holds_while_workers_are_killed() -> None:
    """A16."""
    size = {"a": 4, "b": 2, "c": 1}
    with Simulator(parallel=16, token_interval=0.005, tokens=10) as ollama, Hermes(ollama.url, models(**size)) as hermes:
        eventually(lambda: all(hermes.staffed(key) for key in size))
        done = threading.Event()
        draw = random.Random(1)

        def kill() -> None:
            while not done.wait(0.15):
                if victims := hermes.children():
                    os.kill(draw.choice(victims), signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            names = {0: "a", 1: "b", 2: "c"}

            def call(number: int) -> int:
                name = names[number % 3]
                if name == "c":
                    return post(hermes.port, "/api/embed", {"model": "c", "input": "x @@delay=0.02@@"}).status
                return post(hermes.port, "/api/generate", {"model": name, "prompt": f"p{number}"}).status

            answers = in_threads(200, call)
        finally:
            done.set()
            killer.join()
        assert set(answers) <= {200, 502, 503}, set(answers)
        for key, name in (("a", "smollm2:135m"), ("b", "gemma3:270m"), ("c", "all-minilm")):
            assert ollama.high_water(name) <= size[key]


def test_queue_is_bounded_and_in_order() -> None:
    config = '[models.a]\nmodel = "smollm2:135m"\nmax_concurrency = 1\nmax_queue = 3\nqueue_timeout = "30s"\n'
    with Simulator() as ollama, Hermes(ollama.url, config) as hermes:
        eventually(lambda: hermes.staffed("a"))
        clients = []
        for number in range(4):
            clients.append(Client(hermes.port).send("POST", "/api/generate", {"model": "a", "prompt": f"p{number} @@prompt_time=0.3@@"}))
            eventually(lambda: hermes.model("a")["queue"]["depth"] == max(0, number) and hermes.model("a")["workers"]["busy"] == 1)
        full = post(hermes.port, "/api/generate", {"model": "a", "prompt": "x"})
        assert full.status == 503 and "busy" in full.json()["error"]
        assert 1 <= int(full.headers["retry-after"]) <= 59
        openai = post(hermes.port, "/v1/chat/completions", {"model": "a", "messages": CHAT})
        assert openai.status == 503 and openai.json()["error"]["code"] == "queue_full"
        assert [client.reply().status for client in clients] == [200] * 4
        for client in clients:
            client.close()
        assert [request.prompt[:2] for request in ollama.requests if request.prompt.startswith("p")] == ["p0", "p1", "p2", "p3"]


def test_a_wait_past_queue_timeout_is_504() -> None:
    config = '[models.a]\nmodel = "smollm2:135m"\nmax_concurrency = 1\nqueue_timeout = "200ms"\n'
    with Simulator() as ollama, Hermes(ollama.url, config) as hermes:
        eventually(lambda: hermes.staffed("a"))
        with Client(hermes.port) as first:
            first.send("POST", "/api/generate", {"model": "a", "prompt": "p @@prompt_time=2@@"})
            eventually(lambda: ollama.running("smollm2:135m") == 1)
            late = post(hermes.port, "/v1/llm/a", {"prompt": "late"})
            assert late.status == 504 and "0.2 s" in late.json()["error"]
            assert first.reply().complete
        assert not [request for request in ollama.requests if request.prompt == "late"]


def test_early_calls_wait_for_their_worker() -> None:
    """Hermes accepts as soon as it listens; a call in the first millisecond is answered."""
    with Simulator() as ollama, Hermes(ollama.url, models(a=2)) as hermes:
        assert post(hermes.port, "/api/generate", {"model": "a", "prompt": "x", "stream": False}).status == 200


def test_calls_without_a_model_do_not_wait_behind_generation() -> None:
    with Simulator() as ollama, Hermes(ollama.url, models(a=1)) as hermes:
        with Client(hermes.port) as busy:
            busy.send("POST", "/api/generate", {"model": "a", "prompt": "p @@stall=300@@"}).read_until(b"\r\n\r\n")
            for method, path in (("GET", "/api/tags"), ("GET", "/api/ps"), ("GET", "/api/version"), ("GET", "/v1/models"), ("GET", "/"),
                                 ("HEAD", "/"), ("GET", "/v1/models/smollm2:135m"), ("GET", "/v1/status"), ("GET", "/livez"), ("GET", "/readyz")):
                reply = get(hermes.port, path, method)
                assert (reply.status, reply.complete) == (200, True), path
            assert post(hermes.port, "/api/show", {"model": "smollm2:135m"}).status == 200


def test_unlisted_models_get_a_pool_on_demand_and_lose_it_when_idle() -> None:
    with Simulator() as ollama, Hermes(ollama.url, '[defaults]\ndismiss_after = "300ms"\n') as hermes:
        assert post(hermes.port, "/api/generate", {"model": "nothere", "prompt": "x"}).status == 404
        assert hermes.status()["models"] == []
        before = len(hermes.children())
        assert post(hermes.port, "/api/generate", {"model": "SMOLLM2:135M", "prompt": "x"}).status == 200
        assert [model["name"] for model in hermes.status()["models"]] == ["SMOLLM2:135M"]
        assert post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": "x"}).status == 200
        eventually(lambda: hermes.status()["models"] == [] and len(hermes.children()) <= before)
        assert not [request for request in ollama.requests if request.path == "/api/generate" and request.model == "nothere"]
        assert post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": "x"}).status == 200


def test_an_alias_reaches_the_same_pool_and_changes_only_the_name() -> None:
    with Simulator() as ollama, Hermes(ollama.url, models(a=1)) as hermes:
        odd = b'{ "prompt":"h\xc3\xa9 1.0",\n "options":{"seed":1.50}, "model" : "A" ,"stream":false}'
        assert post(hermes.port, "/api/generate", odd).status == 200
        assert ollama.requests[-1].body == odd.replace(b'"A"', b'"smollm2:135m"')
        plain = b'{"model":"smollm2:135m", "prompt":"x","stream":false}trailing'
        assert post(hermes.port, "/api/generate", plain).status == 200
        assert ollama.requests[-1].body == plain
        assert [model["name"] for model in hermes.status()["models"]] == ["a"]


@pytest.mark.parametrize("change", ["unlisted", "renamed"])
def test_high_water_holds_when_a_reload_takes_a_models_name_away(change: str) -> None:
    """Who runs under the old name counts towards those who come under the new one: it is one model at Ollama."""
    after = '[models.other]\nmodel = "smollm2:135m"\nmax_concurrency = 2\n' if change == "renamed" else "[defaults]\nmax_concurrency = 2\n"
    with Simulator(parallel=16) as ollama, Hermes(ollama.url, models(a=2)) as hermes:
        running = [Client(hermes.port).send("POST", "/api/generate", {"model": "a", "prompt": f"{n} @@tokens=100000,interval=0.02@@"}) for n in range(2)]
        for client in running:
            client.read_until(b'"done":false')
        hermes.write_config(after)
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded"))
        with Client(hermes.port) as waiting:
            waiting.send("POST", "/api/generate", {"model": "smollm2:135m", "prompt": "later", "stream": False})
            name = "other" if change == "renamed" else "smollm2:135m"
            eventually(lambda: any(model["name"] == name for model in hermes.status()["models"]) and hermes.staffed(name))
            eventually(lambda: hermes.model(name)["queue"]["depth"] or ollama.high_water("smollm2:135m") > 2)
            running[0].close()
            assert waiting.reply().status == 200
        running[1].close()
        assert ollama.high_water("smollm2:135m") == 2
