"""Stopping, reloading, dying, and running as PID 1."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hermes.simulator import Simulator
from tests.harness import ROOT, SLOW, Client, Hermes, children, cmdline, direct_children, eventually, footprint, get, in_threads, post, zombies

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
    """A8, A9. They end as they would have, and so does Hermes."""
    with Simulator(parallel=8, keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        clients = streams(hermes, 8, "tokens=60,interval=0.02")
        os.killpg(hermes.pid, number)
        assert exact(ollama, clients) == 8
        assert hermes.wait() == 0
        assert not hermes.line("Traceback")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_whole_group_while_it_starts(number: int) -> None:
    """A9. At any moment: it ends, in good time and without a traceback. What Python says before it has loaded Hermes is its own affair."""
    without_coverage = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}     # which swallows a KeyboardInterrupt
    for delay in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.13, 0.16, 0.2, 0.25, 0.3, 0.4):
        process = subprocess.Popen([sys.executable, "-m", "hermes", "serve"], cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True,
                                   env={**without_coverage, "HERMES_SERVER_LISTEN": "127.0.0.1:0", "HERMES_LOG_LEVEL": "error"})
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            pass
        os.killpg(process.pid, number)
        said = process.communicate(timeout=30)[1]
        if b"Traceback" not in said:
            assert process.returncode in (0, -number), (delay, process.returncode, said)
        assert b"Traceback" not in said or b"hermes" not in said, (delay, said)


def test_while_draining_nobody_new_is_let_in() -> None:
    """A8."""
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
    """A8."""
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        started = time.monotonic()
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0 and time.monotonic() - started < 0.5 * SLOW


def test_what_runs_past_drain_timeout_is_cut_and_told() -> None:
    """A8."""
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
    """A8."""
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


def test_nobody_is_born_while_the_last_words_are_said() -> None:
    """Those who are cut off leave their places empty."""
    with Simulator(parallel=8) as ollama, Hermes(ollama.url, f'drain_timeout = "0s"\n{CONFIG}[log]\nlevel = "debug"\n') as hermes:
        eventually(lambda: hermes.staffed("m"))
        workers, clients = hermes.workers("m"), streams(hermes, 8, "tokens=100000,interval=0.02")
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0, "the clients stay to the end"
        assert sorted(int(line.rpartition("=")[2]) for line in hermes.lines if "worker left pool=m" in line) == workers
        for client in clients:
            client.close()


DEFECTIVE = """
import sys
from hermes import application, cli
def reload(self):
    raise RuntimeError("a defect")
application.Application._reload = reload
sys.exit(cli.main(["serve", "--config", sys.argv[1]]))
"""


def test_an_error_of_the_main_loop_is_the_end() -> None:
    """Whoever would start it again waits for that: without its main loop Hermes still answers, but no worker that dies is replaced."""
    with Simulator() as ollama, Hermes(ollama.url, CONFIG, lambda config: [sys.executable, "-c", DEFECTIVE, str(config)]) as hermes:
        eventually(lambda: hermes.staffed("m"))
        workers = hermes.children()
        hermes.signal(signal.SIGHUP)
        assert hermes.wait() == 1 and len(workers) > 8
        assert "ended by an error of ours" in hermes.lines.pop() and not any(map(cmdline, workers))


DEAF_TO_DEATHS = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-m", "hermes", "serve", "--config", sys.argv[1]])
"""


def test_started_by_one_who_ignores_his_childrens_deaths() -> None:
    """The kernel would take their exit codes, and Hermes would take them for alive."""
    with Simulator() as ollama, Hermes(ollama.url, CONFIG, lambda config: [sys.executable, "-c", DEAF_TO_DEATHS, str(config)]) as hermes:
        eventually(lambda: hermes.staffed("m"))
        victim = hermes.workers("m")[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: hermes.line(f"worker died pool=m pid={victim} signal=SIGKILL"))
        eventually(lambda: hermes.staffed("m"))
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0


@pytest.mark.parametrize("phase", ["starting", "idle", "prefill", "streaming"])
def test_kill_the_parent_and_nothing_is_left(phase: str) -> None:
    """A7. No process, no connection to Ollama, and the address is free."""
    with Simulator(parallel=8) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        if phase != "starting":
            eventually(lambda: hermes.staffed("m"))
        clients = []
        if phase in ("prefill", "streaming"):
            marks = {"prefill": "@@prompt_time=60@@", "streaming": "@@tokens=100000,interval=0.02@@"}[phase]
            clients = [Client(hermes.port).send("POST", "/api/generate", {"model": "m", "prompt": f"{n} {marks}"}) for n in range(4)]
            eventually(lambda: ollama.running("smollm2:135m") == 4)
        pids = eventually(lambda: len(family := [pid for pid in group(hermes.pid) if pid != hermes.pid]) >= (2 if phase == "starting" else 8) and family)
        os.kill(hermes.pid, signal.SIGKILL)
        started = time.monotonic()
        eventually(lambda: not [pid for pid in pids if cmdline(pid)], what="the end of every process")
        assert time.monotonic() - started < 1.0 * SLOW
        eventually(lambda: ollama.running("smollm2:135m") == 0 and ollama.open_connections == 0)
        assert time.monotonic() - started < 2.0 * SLOW
        hermes.wait()
        hermes.lines.clear()            # a worker that was just being born says that nobody brought it up
        with Hermes(ollama.url, f'[server]\n{CONFIG}', command=lambda config: on_port(config, hermes.port)) as heir:
            assert heir.port == hermes.port and get(heir.port, "/livez").status == 200
        for client in clients:
            client.close()


def on_port(config: Path, port: int) -> list[str]:
    config.write_text(config.read_text(encoding="utf-8").replace("127.0.0.1:0", f"127.0.0.1:{port}"), encoding="utf-8")
    return [sys.executable, "-m", "hermes", "serve", "--config", str(config)]


def group(pid: int) -> list[int]:
    """Every process of Hermes's own process group, the resource tracker included."""
    listing = subprocess.run(["ps", "-o", "pid=", "-g", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in listing.split()]


def test_reload_applies_without_dropping_anything_and_keeps_the_old_on_error() -> None:
    """A11."""
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
    """A11. Good files and bad ones in turn, under load."""
    both = [f'[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = {size}\n' for size in (2, 3)]
    with Simulator(parallel=8) as ollama, Hermes(ollama.url, both[0]) as hermes:
        eventually(lambda: hermes.staffed("m"))
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
        before = footprint(hermes.pid)
        failed = []

        def load(number: int) -> None:
            for step in range(25):
                reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": f"{number} {step}"})
                if not reply.complete or reply.status != 200:
                    failed.append(reply)

        def reload(_: int) -> None:
            for step in range(100):
                seen = len(hermes.lines)
                word = "reloaded config=" if step % 4 < 2 else "not reloaded"
                hermes.write_config([*both, "[models.m]\nmodle = 7\n", "[models.m\n"][step % 4])
                hermes.signal(signal.SIGHUP)
                eventually(lambda seen=seen, word=word: any(word in line for line in hermes.lines[seen:]))

        in_threads(5, lambda n: reload(n) if n == 0 else load(n))
        assert failed == []
        hermes.write_config(both[0])
        hermes.signal(signal.SIGHUP)
        eventually(lambda: len(hermes.children()) == 4, what="two workers and two for control")
        eventually(lambda: footprint(hermes.pid) <= before, what="as many descriptors and threads as before")


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a PID namespace needs root and unshare")
def test_as_pid_1_it_stops_on_term_and_reaps_orphans() -> None:
    """A10. Orphans are re-parented to PID 1; a worker that dies meanwhile is still Hermes's own to reap."""
    with Simulator() as ollama:
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, "-m", "hermes", "serve", "--config"]
        with Hermes(ollama.url, CONFIG, command=lambda path: [*command, str(path)]) as hermes:
            eventually(lambda: hermes.staffed("m"))
            inner = next(pid for pid in direct_children(hermes.pid))
            subprocess.run(["nsenter", "--target", str(inner), "--pid", "--mount", "sh", "-c", "for n in $(seq 20); do (sleep 0.1 & exec sleep 0.05) & done; exit 0"],
                           check=True, cwd="/")
            orphans = eventually(lambda: {pid for pid in direct_children(inner) if cmdline(pid).startswith(b"sleep")}, what="orphans")
            os.kill(children(inner)[0], signal.SIGKILL)
            began = time.monotonic()
            eventually(lambda: len(children(inner)) == 10 and hermes.staffed("m") and not zombies(inner) and not orphans & {*direct_children(inner)}, what="reaping")
            assert time.monotonic() - began <= 2.0 * SLOW
            assert len([line for line in hermes.lines if "worker died" in line]) == 1 and hermes.line("signal=SIGKILL")
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
