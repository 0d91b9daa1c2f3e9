"""Who is next, with a real Hermes and the stand-in: fair shares, classes, limits over all models, deadlines, quotas.

What is compared are counts and orders at the stand-in, which writes down who was with it and when.
"""

import os
import signal
import statistics
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from hermes.simulator import Simulator
from tests.harness import SLOW, Client, Hermes, Reply, eventually, get, in_threads, post
from tests.process.test_keys import bearer, table

MODELS = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 1\n[models.b]\nmodel = "gemma3:270m"\nmax_concurrency = {b}\n'
ENDLESS = "@@tokens=100000,interval=0.02@@"
PATHS = {
    "/api/generate": {"model": "m", "prompt": "hi", "stream": False},
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/llm/m": {"prompt": "hi"},
}


def key(name: str) -> dict[str, str]:
    return bearer(f"hk-{name}-0123456789abcdef")


def config(b: int = 1, server: str = "", **clients: str) -> str:
    return server + MODELS.format(b=b) + "".join(table(name, key(name)["Authorization"][7:], rights) for name, rights in clients.items())


def ask(hermes: Hermes, name: str, prompt: str, model: str = "m", **fields: str) -> Reply:
    return post(hermes.port, "/api/generate", {"model": model, "prompt": prompt, "stream": False}, **key(name), **fields)


def model(hermes: Hermes, name: str, client: str) -> dict:
    models = get(hermes.port, "/v1/status", **key(client)).json()["models"]
    return next(one for one in models if one["name"] == name)


def staffed(hermes: Hermes, client: str) -> None:
    for name in "mb":
        eventually(lambda: model(hermes, name, client)["workers"]["down"] + model(hermes, name, client)["workers"]["starting"] == 0)


def depth(hermes: Hermes, client: str, count: int, name: str = "m") -> None:
    eventually(lambda: model(hermes, name, client)["queue"]["depth"] == count, what=f"{count} waiting")


def calls(ollama: Simulator, start: str = "") -> list:
    return [request for request in ollama.requests if request.inference and request.prompt.startswith(start)]


def words(requests: list) -> list[str]:
    return [request.prompt.split()[0] for request in requests]


def blocker(hermes: Hermes, name: str, stack: ExitStack, model: str = "m") -> Client:
    """A call that runs until it is closed."""
    client = stack.enter_context(Client(hermes.port))
    client.send("POST", "/api/generate", {"model": model, "prompt": f"blocker {ENDLESS}"}, **key(name)).read_until(b'"done":false')
    return client


@pytest.fixture(scope="module")
def ollama():
    with Simulator(tokens=1, parallel=8) as simulator:
        yield simulator


# -- shares --------------------------------------------------------------------------------------------------------


def mix(ollama: Simulator, hermes: Hermes, light: str) -> tuple[float, float, list[float]]:
    """20 callers of heavy's with two long calls each, and one who asks for something short, as `light`, twelve times one after the other:
    seconds in all, of one of heavy's calls with all that it costs, and of each short one."""
    first = len(calls(ollama))

    def work(number: int) -> list[float]:
        if number < 20:
            for _ in range(2):
                assert ask(hermes, "heavy", "heavy @@prompt_time=0.08@@").status == 200
            return []
        eventually(lambda: model(hermes, "m", "heavy")["queue"]["depth"] >= 15)
        took = []
        for _ in range(12):
            start = time.monotonic()
            assert ask(hermes, light, "light @@prompt_time=0.005@@").status == 200
            took.append(time.monotonic() - start)
        return took

    light_ones = in_threads(21, work)[-1]
    seen = calls(ollama)[first:]
    assert sorted(words(seen)) == ["heavy"] * 40 + ["light"] * 12
    length = statistics.median(after.arrived - before.arrived for before, after in zip(seen, seen[1:]) if before.prompt.startswith("heavy"))
    return seen[-1].ended - seen[0].arrived, length, light_ones


def test_one_at_a_time_beside_a_flood_and_nothing_is_lost_by_it(ollama: Simulator) -> None:
    with Hermes(ollama.url, config(heavy="", light="")) as hermes:
        staffed(hermes, "light")
        fair, length, took = mix(ollama, hermes, "light")
        assert statistics.median(took) <= 1.6 * length
        one_line, length, took = mix(ollama, hermes, "heavy")
        assert max(took) > 5 * length, "first come, first served under one key"
        assert fair <= one_line * (1 + 0.03 * SLOW)


def test_shares_by_weight(ollama: Simulator) -> None:
    with Hermes(ollama.url, config(one="", three="weight = 3\n", other="")) as hermes, ExitStack() as stack:
        staffed(hermes, "other")
        first, over = len(calls(ollama)) + 1, threading.Event()
        block = blocker(hermes, "other", stack)

        def work(number: int) -> None:
            if number == 16:
                depth(hermes, "other", 16)
                block.close()
                eventually(lambda: len(calls(ollama)) >= first + 60, timeout=60)
                over.set()
                return
            name = ("one", "three")[number % 2]
            while not over.is_set():
                assert ask(hermes, name, f"{name} @@prompt_time=0.01@@").status == 200

        in_threads(17, work)
        seen = words(calls(ollama)[first:first + 60])
        assert 2.0 <= seen.count("three") / seen.count("one") <= 4.5


# -- classes -------------------------------------------------------------------------------------------------------


def test_the_better_class_is_next_if_its_client_may_have_it(ollama: Simulator) -> None:
    with Hermes(ollama.url, config(flood='default_class = "background"\n', low='max_class = "background"\n', me='default_class = "interactive"\n', other="")) as hermes, ExitStack() as stack:
        staffed(hermes, "other")
        first = len(calls(ollama)) + 1
        block = blocker(hermes, "other", stack)

        def work(number: int) -> Reply | None:
            if number < 20:
                return ask(hermes, "flood", "flood")
            if number == 20:
                depth(hermes, "other", 20)
                return ask(hermes, "low", "low", X_Hermes_Class="interactive")
            if number == 21:
                depth(hermes, "other", 21)
                return ask(hermes, "flood", "urgent", X_Hermes_Class="normal")
            if number == 22:
                depth(hermes, "other", 22)
                return ask(hermes, "me", "me")
            depth(hermes, "other", 23)
            block.close()
            return None

        *replies, _ = in_threads(24, work)
        seen = words(calls(ollama)[first:])
        assert seen[:2] == ["me", "urgent"] and "low" in seen[2:5] and len(seen) == 23
        assert [replies[number].headers["x-hermes-queue-position"] for number in (22, 21)] == ["1", "1"]
        assert int(replies[20].headers["x-hermes-queue-position"]) > 1, "he may not have the class he asked for"


@pytest.mark.parametrize("flood", ["background", "interactive"])
def test_a_flood_of_one_class_and_a_single_call_of_the_other(ollama: Simulator, flood: str) -> None:
    """Twelve callers who never stop, and all that wait of theirs is over age soon. A better call goes next whenever a worker is free: a call may
    have begun while it was on its way, and no more. A worse one waits for max_starvation and the call that runs."""
    settings = '[defaults]\nmax_starvation = "500ms"\n' + config(flood=f'default_class = "{flood}"\n', single="", other="")
    single = "interactive" if flood == "background" else "background"
    with Hermes(ollama.url, settings) as hermes:
        staffed(hermes, "other")
        over, waits = threading.Event(), []

        def work(number: int) -> None:
            while number < 12 and not over.is_set():
                assert ask(hermes, "flood", "flood @@prompt_time=0.05@@").status == 200
            if number < 12:
                return
            eventually(lambda: model(hermes, "m", "other")["queue"]["oldest"] > 0.5)
            for turn in range(12):
                sent = time.monotonic()
                reply = ask(hermes, "single", f"single-{flood}-{turn}", X_Hermes_Class=single)
                own = calls(ollama, f"single-{flood}-{turn}")[0].arrived
                waits.append((float(reply.headers["x-hermes-queue-wait"]), sum(sent < call.arrived < own for call in calls(ollama, "flood"))))
            over.set()

        in_threads(13, work)
    if single == "interactive":
        assert max(between for _, between in waits) <= 1, waits
    else:
        assert max(wait for wait, _ in waits) <= 0.5 + 0.05 * SLOW and min(between for _, between in waits) >= 2, waits


# -- limits over all models ----------------------------------------------------------------------------------------


def test_one_at_a_time_over_two_models_and_the_others_do_not_notice(ollama: Simulator) -> None:
    with Hermes(ollama.url, config(b=2, capped="max_concurrency = 1\n", other="").replace("concurrency = 1", "concurrency = 2", 1)) as hermes, ExitStack() as stack:
        staffed(hermes, "other")
        first = len(calls(ollama))
        block = blocker(hermes, "capped", stack)

        def work(number: int) -> Reply | None:
            if number < 20:
                return ask(hermes, "capped", f"capped {number} @@prompt_time=0.005@@", "mb"[number % 2])
            eventually(lambda: sum(model(hermes, name, "other")["queue"]["depth"] for name in "mb") == 20)
            for turn in range(10):
                for name in "mb":
                    assert ask(hermes, "other", "other", name).headers["x-hermes-queue-position"] == "0", "at once"
            assert not calls(ollama, "capped"), "his blocker still runs"
            block.close()
            return None

        replies = in_threads(21, work)[:20]
        assert {reply.status for reply in replies} == {200} and all(int(reply.headers["x-hermes-queue-position"]) > 0 for reply in replies)
        his = [request for request in calls(ollama)[first:] if not request.prompt.startswith("other")]
        assert len(his) == 21 and all(before.ended <= after.arrived for before, after in zip(his, his[1:]))


def test_sixty_four_threads_never_exceed_three_at_once_nor_the_rate(ollama: Simulator) -> None:
    rights = "max_concurrency = 3\nrequests_per_minute = 100\n"
    with Hermes(ollama.url, config(b=8, capped=rights, other="").replace("concurrency = 1", "concurrency = 8", 1)) as hermes:
        staffed(hermes, "other")
        first = len(calls(ollama))
        replies = in_threads(64, lambda number: [ask(hermes, "capped", "capped @@prompt_time=0.003@@", "mb"[(number + turn) % 2]) for turn in range(2)])
        statuses = [reply.status for pair in replies for reply in pair]
        assert (statuses.count(200), statuses.count(429)) == (100, 28)
        his = calls(ollama)[first:]
        assert len(his) == 100
        most = max(sum(other.arrived <= request.arrived < other.ended for other in his) for request in his)
        assert most == 3
        assert ask(hermes, "other", "other").status == 200


def test_a_killed_worker_gives_his_place_back(ollama: Simulator) -> None:
    with Hermes(ollama.url, config(capped="max_concurrency = 1\n", other="")) as hermes, ExitStack() as stack:
        staffed(hermes, "other")
        block = blocker(hermes, "capped", stack)
        waiting = stack.enter_context(Client(hermes.port)).send("POST", "/api/generate", {"model": "b", "prompt": "capped", "stream": False}, **key("capped"))
        depth(hermes, "other", 1, "b")
        os.kill(model(hermes, "m", "other")["workers"]["pids"][0], signal.SIGKILL)
        assert waiting.reply().status == 200 and not block.reply().complete
        assert ask(hermes, "capped", "again", "b").headers["x-hermes-queue-position"] == "0"


# -- deadlines, and what answers tell --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hermes(ollama: Simulator):
    with Hermes(ollama.url, config(ann="", other="")) as gateway:
        staffed(gateway, "other")
        yield gateway


def test_time_is_up_while_the_one_before_still_runs(ollama: Simulator, hermes: Hermes) -> None:
    with ExitStack() as stack:
        block = blocker(hermes, "other", stack)
        for path, body in PATHS.items():
            start = time.monotonic()
            late = post(hermes.port, path, body, X_Hermes_Deadline="150ms", **key("ann"))
            took = time.monotonic() - start
            assert late.status == 504 and 0.15 <= took < 0.15 + 0.25 * SLOW and late.headers["x-should-retry"] == "false"
            error = late.json()["error"]
            assert "without getting a turn" in (error if isinstance(error, str) else error["message"])
            if path == "/v1/chat/completions":
                assert error["code"] == "queue_timeout"
            if path == "/v1/messages":
                assert (late.json()["type"], error["type"]) == ("error", "timeout_error")
        assert ollama.running("smollm2:135m") == 1 and not calls(ollama, "hi") and block.more()
        assert model(hermes, "m", "other")["queue"]["depth"] == 0
    eventually(lambda: model(hermes, "m", "other")["workers"]["idle"] == 1)
    assert post(hermes.port, "/v1/llm/m", {"prompt": "x"}, X_Hermes_Deadline="0", **key("ann")).status == 200, "nobody is before it"


@pytest.mark.parametrize("fields", [{"X_Hermes_Deadline": "soon"}, {"X_Hermes_Deadline": ""}, {"X_Hermes_Deadline": "-1s"}, {"X_Hermes_Class": "best"}, {"X_Hermes_Class": ""}])
def test_bad_wishes_in_every_shape(ollama: Simulator, hermes: Hermes, fields: dict[str, str]) -> None:
    before, texts = len(calls(ollama)), set()
    for path, body in PATHS.items():
        bad = post(hermes.port, path, body, **fields, **key("ann"))
        error = bad.json()["error"]
        assert bad.status == 400 and bad.complete
        texts.add(error if isinstance(error, str) else error["message"])
        assert isinstance(error, str) or error["type"] == "invalid_request_error"
    assert len(texts) == 1 and next(iter(fields)).replace("_", "-") in texts.pop() and len(calls(ollama)) == before


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [True, False])
def test_every_answer_tells_its_place_and_its_wait(hermes: Hermes, path: str, stream: bool) -> None:
    body = PATHS[path] | {"stream": stream}
    eventually(lambda: model(hermes, "m", "other")["workers"]["idle"] == 1)
    at_once = post(hermes.port, path, body, **key("ann"))
    assert at_once.headers["x-hermes-queue-position"] == "0" and float(at_once.headers["x-hermes-queue-wait"]) < 0.1 * SLOW
    with ExitStack() as stack:
        block = blocker(hermes, "other", stack)
        first, second = (stack.enter_context(Client(hermes.port)) for _ in range(2))
        for number, client in enumerate((first, second), 1):
            client.send("POST", path, body, **key("ann"))
            depth(hermes, "other", number)
        block.close()
        replies = first.reply(), second.reply()
    assert [reply.headers["x-hermes-queue-position"] for reply in replies] == ["1", "2"] and all(reply.complete for reply in replies)
    assert 0.0 < float(replies[0].headers["x-hermes-queue-wait"]) <= float(replies[1].headers["x-hermes-queue-wait"]) + 0.05 * SLOW


# -- quotas --------------------------------------------------------------------------------------------------------


def test_tokens_of_a_day(ollama: Simulator, tmp_path: Path) -> None:
    text = config(server=f'[server]\nstate_dir = "{tmp_path}"\n', ann="tokens_per_day = 5\n", other="")
    with Hermes(ollama.url, text) as hermes:
        replies = [ask(hermes, "ann", "a few words of it") for _ in range(6)]
        answered = [reply.json()["prompt_eval_count"] + reply.json()["eval_count"] for reply in replies if reply.status == 200]
        assert sum(answered) >= 5 > sum(answered[:-1]), "until it is used up, and no longer"
        check_used_up(ollama, hermes)
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0
    with Hermes(ollama.url, text) as hermes:
        check_used_up(ollama, hermes)
    with Hermes(ollama.url, text.replace("= 5", "= 100000")) as hermes:
        assert ask(hermes, "ann", "more").status == 200


def check_used_up(ollama: Simulator, hermes: Hermes) -> None:
    before = len(calls(ollama))
    for path, body in PATHS.items():
        refused = post(hermes.port, path, body, **key("ann"))
        assert refused.status == 429 and refused.headers["retry-after"] and refused.headers["x-should-retry"] == "false"
        error = refused.json()["error"]
        assert "the quota of 5 tokens a day is used up" in (error if isinstance(error, str) else error["message"])
        if path == "/v1/chat/completions":
            assert error["code"] == "quota_exceeded"
    assert len(calls(ollama)) == before
    eventually(lambda: hermes.line("outcome=quota_exceeded"))
    assert get(hermes.port, "/api/tags", **key("ann")).status == 200 and ask(hermes, "other", "other").status == 200
