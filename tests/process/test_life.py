"""Stopping, reloading, dying, and running as PID 1."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from hermes.simulator import Simulator
from tests.harness import ROOT, SLOW, Client, Hermes, children, cmdline, direct_children, eventually, get, in_threads, post, zombies

CONFIG = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 8\n'


def streams(hermes: Hermes, count: int, marks: str) -> list[Client]:
    clients = [Client(hermes.port).send("POST", "/api/generate", {"model": "smollm2:135m", "prompt": f"{n} @@{marks}@@"}) for n in range(count)]
    for client in clients:
        client.read_until(b'"done":false')
    return clients


def exact(ollama: Simulator, clients: list[Client]) -> int:
    replies = in_threads(len(clients), lambda n: clients[n].reply())
    sent = {request.prompt: request.sent for request in ollama.requests}
    for client in clients:
        client.close()
    return sum(reply.complete and reply.body in sent.values() for reply in replies)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_whole_group_with_eight_streams(number: int) -> None:
    with Simulator(parallel=8, keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        clients = streams(hermes, 8, "tokens=60,interval=0.02")
        os.killpg(hermes.pid, number)
        assert exact(ollama, clients) == 8
        assert hermes.wait() == 0
        assert not hermes.line("Traceback")


def test_while_draining_nobody_new_is_let_in() -> None:
    with Simulator(parallel=8, keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        kept = Client(hermes.port)
        assert kept.send("GET", "/livez").reply().complete
        clients = streams(hermes, 1, "tokens=40,interval=0.02")
        hermes.signal(signal.SIGTERM)
        eventually(lambda: refused(hermes.port), what="refusing")
        assert not kept.more(), "an idle connection is closed"
        kept.close()
        assert exact(ollama, clients) == 1
        assert hermes.wait() == 0


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return False
    except ConnectionRefusedError:
        return True


def test_idle_it_stops_at_once() -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        started = time.monotonic()
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0 and time.monotonic() - started < 0.5 * SLOW


def test_what_runs_past_drain_timeout_is_cut_and_told() -> None:
    with Simulator(parallel=8) as ollama, Hermes(ollama.url, 'drain_timeout = "500ms"\n' + CONFIG) as hermes:
        clients = streams(hermes, 2, "tokens=100000,interval=0.02")
        started = time.monotonic()
        hermes.signal(signal.SIGTERM)
        for client in clients:
            reply = client.reply()
            assert not reply.complete and reply.records()[-1] == {"error": "Hermes is stopping"}
            client.close()
        assert hermes.wait() == 0 and time.monotonic() - started < 1.5 * SLOW
        assert not hermes.line("worker died")


def test_a_second_signal_ends_it_at_once() -> None:
    with Simulator(parallel=8) as ollama, Hermes(ollama.url, 'drain_timeout = "60s"\n' + CONFIG) as hermes:
        clients = streams(hermes, 2, "tokens=100000,interval=0.02")
        hermes.signal(signal.SIGTERM)
        eventually(lambda: hermes.line("stopping signal"))
        started = time.monotonic()
        hermes.signal(signal.SIGINT)
        assert hermes.wait() == 0 and time.monotonic() - started < 2.0 * SLOW
        for client in clients:
            assert not client.reply().complete
            client.close()


@pytest.mark.parametrize("phase", ["idle", "prefill", "streaming"])
def test_kill_the_parent_and_nothing_is_left(phase: str) -> None:
    with Simulator(parallel=8) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        clients = []
        if phase != "idle":
            marks = {"prefill": "@@prompt_time=60@@", "streaming": "@@tokens=100000,interval=0.02@@"}[phase]
            clients = [Client(hermes.port).send("POST", "/api/generate", {"model": "m", "prompt": f"{n} {marks}"}) for n in range(4)]
            eventually(lambda: ollama.running("smollm2:135m") == 4)
        pids = [pid for pid in group(hermes.pid) if pid != hermes.pid]
        assert len(pids) >= 8
        os.kill(hermes.pid, signal.SIGKILL)
        started = time.monotonic()
        eventually(lambda: not [pid for pid in pids if cmdline(pid)], what="the end of every process")
        assert time.monotonic() - started < 1.0 * SLOW
        eventually(lambda: ollama.running("smollm2:135m") == 0)
        for client in clients:
            client.close()


def group(pid: int) -> list[int]:
    """Every process of Hermes's own process group, the resource tracker included."""
    listing = subprocess.run(["ps", "-o", "pid=", "-g", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in listing.split()]


def test_reload_applies_without_dropping_anything_and_keeps_the_old_on_error() -> None:
    with Simulator(parallel=8, keep_bodies=True) as ollama, Hermes(ollama.url, '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 2\n') as hermes:
        clients = streams(hermes, 2, "tokens=80,interval=0.02")
        hermes.write_config('[models.m]\nmax_concurrency = "two"\nmodle = "x"\n')
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("not reloaded") and hermes.line("did you mean 'model'"))
        assert hermes.model("m")["workers"]["max"] == 2
        hermes.write_config('[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 4\n[models.g]\nmodel = "gemma3:270m"\n')
        hermes.signal(signal.SIGHUP)
        eventually(lambda: hermes.line("configuration reloaded") and hermes.staffed("m") and hermes.staffed("g"))
        assert hermes.model("m")["workers"]["max"] == 4
        assert exact(ollama, clients) == 2
        hermes.write_config('[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 1\n')
        hermes.signal(signal.SIGHUP)
        eventually(lambda: [model["name"] for model in hermes.status()["models"]] == ["m"] and len(hermes.workers("m")) == 1)
        eventually(lambda: len(hermes.children()) == 3, what="one worker and two for control")
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete


def test_reloading_a_hundred_times_leaks_nothing_and_fails_nobody() -> None:
    both = [f'[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = {size}\n' for size in (2, 3)]
    with Simulator(parallel=8) as ollama, Hermes(ollama.url, both[0]) as hermes:
        eventually(lambda: hermes.staffed("m"))
        failed = []

        def load(number: int) -> None:
            for step in range(25):
                reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": f"{number} {step}"})
                if not reply.complete or reply.status != 200:
                    failed.append(reply)

        def reload(_: int) -> None:
            for step in range(100):
                seen = sum("configuration reloaded" in line for line in list(hermes.lines))
                hermes.write_config(both[step % 2])
                hermes.signal(signal.SIGHUP)
                eventually(lambda seen=seen: sum("configuration reloaded" in line for line in list(hermes.lines)) > seen)

        in_threads(5, lambda n: reload(n) if n == 0 else load(n))
        assert failed == []
        hermes.write_config(both[0])
        hermes.signal(signal.SIGHUP)
        eventually(lambda: len(hermes.children()) == 4, what="two workers and two for control")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a PID namespace needs root and unshare")
def test_as_pid_1_it_stops_on_term_and_reaps_orphans() -> None:
    """Orphans are re-parented to PID 1; a worker that dies meanwhile is still Hermes's own to reap."""
    with Simulator() as ollama:
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "hermes", "serve", "--config"]
        with Hermes(ollama.url, CONFIG, command=lambda path: [*command, str(path)]) as hermes:
            eventually(lambda: hermes.staffed("m"))
            inner = next(pid for pid in direct_children(hermes.pid))
            subprocess.run(["nsenter", "--target", str(inner), "--pid", "--mount", "sh", "-c", "(sleep 0.1 & sleep 0.1 & sleep 0.1 &) & exit 0"],
                           check=True, cwd="/")
            os.kill(children(inner)[0], signal.SIGKILL)
            eventually(lambda: hermes.staffed("m") and not zombies(inner), what="reaping")
            assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
            os.kill(inner, signal.SIGTERM)
            assert hermes.wait() == 0


def test_exit_codes_and_a_bad_file() -> None:
    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, "-m", "hermes", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=30,
                              env={**os.environ, **environ}, check=False)
    assert run("version").returncode == 0
    assert run("check").returncode == 0
    assert run("chek").returncode == 2 and "did you mean 'check'" in run("chek").stderr
    bad = run("check", "--config", "/nonexistent/hermes.toml")
    assert bad.returncode == 78 and "/nonexistent/hermes.toml" in bad.stderr
    assert run("serve", HERMES_SERVER_MAX_BODY="lots").returncode == 78
    own = run("serve", HERMES_SERVER_LISTEN="127.0.0.1:18435", OLLAMA_HOST="127.0.0.1:18435")
    assert own.returncode == 78 and "own address" in own.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run("serve", HERMES_SERVER_LISTEN=f"127.0.0.1:{taken.getsockname()[1]}").returncode == 3


def test_ready_follows_ollama_and_live_does_not() -> None:
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        assert get(hermes.port, "/readyz").status == 200
        ollama.stop()
        eventually(lambda: get(hermes.port, "/readyz").status == 503)
        assert get(hermes.port, "/livez").status == 200
        assert hermes.status()["status"] == "degraded" and hermes.status()["upstream"]["up"] is False
        reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"})
        assert reply.status == 502 and "connect" in reply.json()["error"]
        ollama.start()
        eventually(lambda: get(hermes.port, "/readyz").status == 200)
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
