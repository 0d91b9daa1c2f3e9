"""Workers and parents that are spoilt, killed, stopped or started in a strange place (reliability.md §5.A).

The rest of that table: A2, A3 and A5 in test_crash.py, A7 to A11 in test_life.py, A14 in tests/unit/test_architecture.py, A15's read-only
folders in test_single_file.py, A16 in test_pools.py. `make faults` takes the numbers of the table where they take long.
"""

import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from hermes import archive
from hermes.dispatch.lease import TAKEN
from hermes.simulator import Simulator
from tests.harness import (FAULTS, ROOT, SLOW, Client, Hermes, cmdline, cpu_seconds, direct_children, eventually, footprint, in_threads, post, status_field,
                           zombies)

CONFIG = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 2\nmax_queue = 100\n[models.other]\nmodel = "gemma3:270m"\n'


@pytest.fixture
def spoil(tmp_path: Path) -> Callable[[str], tuple[dict[str, str], Path]]:
    """Code that runs in each worker process before anything of Hermes does, as long as the file that is returned exists; and the
    environment that makes it so."""
    def make(code: str, in_parent: str = "") -> tuple[dict[str, str], Path]:
        cause = tmp_path / "cause"
        lines = "".join(f"    {line}\n" for line in code.strip().splitlines())
        (tmp_path / "sitecustomize.py").write_text(f"import os, signal, sys\nif '--multiprocessing-fork' in sys.orig_argv and os.path.exists({str(cause)!r}):\n{lines}"
                                                   f"if '-m' in sys.orig_argv:\n    {in_parent or 'pass'}\n", encoding="utf-8")
        return {"PYTHONPATH": f"{tmp_path}:{ROOT}"}, cause
    return make


def died(hermes: Hermes) -> list[str]:
    return [line for line in list(hermes.lines) if "worker died" in line]


def test_a1_an_idle_worker_is_killed() -> None:
    """A1. Its replacement is there at once, no request is lost, and one line says what happened."""
    with Simulator(parallel=4) as ollama, Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m") and hermes.staffed("other"))
        took = []
        for number in range(5):
            victim = hermes.workers("m")[0]
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            assert post(hermes.port, "/api/generate", {"model": "m", "prompt": f"{number}"}).complete
            eventually(lambda: victim not in hermes.workers("m") and len(hermes.workers("m")) == 2 and hermes.staffed("m"))
            took.append(time.monotonic() - killed)
            line, = [line for line in died(hermes) if f"pid={victim} " in line]
            assert "signal=SIGKILL" in line and "pool=m " in line
        assert sorted(took)[2] <= 0.25 * SLOW and len(died(hermes)) == 5


CAUSES = {"exit": "os._exit(3)", "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)", "ImportError": "sys.modules['hermes.workers.connection'] = None"}


@pytest.mark.parametrize("how", CAUSES if FAULTS else ["exit"])
def test_a4_workers_that_die_at_boot(spoil, how: str) -> None:
    """A4. Five starts, then the pool is given up and nothing more is spent on it; the other one never notices; it heals when it can."""
    environ, cause = spoil(CAUSES[how])
    config = CONFIG.replace("max_concurrency = 2", "max_concurrency = 1")
    with Simulator(parallel=4) as ollama, Hermes(ollama.url, config, **environ) as hermes:
        eventually(lambda: hermes.staffed("m") and hermes.staffed("other"))
        others = [pid for pid in hermes.children() if pid not in hermes.workers("m")]
        cause.touch()
        os.kill(hermes.workers("m")[0], signal.SIGKILL)
        eventually(lambda: hermes.model("m")["closed"], what="giving up")
        assert len(died(hermes)) == 5 and all("pool=m " in line for line in died(hermes))
        began = time.monotonic()
        reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"})
        assert time.monotonic() - began <= 0.05 * SLOW
        assert reply.status == 503 and 1 <= int(reply.headers["retry-after"]) <= 30
        used, seconds = cpu_seconds(hermes.pid), 25 if FAULTS else 1
        assert not waited(lambda: hermes.process.poll() is not None, seconds)
        assert cpu_seconds(hermes.pid) - used < 0.05 * seconds and len(died(hermes)) == 5
        assert post(hermes.port, "/api/generate", {"model": "other", "prompt": "x"}).complete
        cause.unlink()
        if FAULTS:
            eventually(lambda: hermes.staffed("m"), timeout=31 - seconds + SLOW)
            assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
        assert set(others) <= set(hermes.children())
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0
        hermes.lines = [line for line in hermes.lines if how != "ImportError" or "Traceback" not in line]      # the worker's own


def waited(fact: Callable[[], object], seconds: float) -> bool:
    """Time itself is what is waited for, unless `fact` comes true."""
    try:
        return bool(eventually(fact, timeout=seconds))
    except AssertionError:
        return False


def test_a4_no_worker_at_all(spoil, tmp_path: Path) -> None:
    """A4. A machine on which no worker can stand: exit code 3, soon, and an admin socket goes as at any other stop."""
    path = tmp_path / "admin.sock"
    environ, cause = spoil(CAUSES["exit"])
    cause.touch()
    with Simulator() as ollama:
        began = time.monotonic()
        with Hermes(ollama.url, f'[admin]\nlisten = "unix:{path}"\n{CONFIG}', **environ) as hermes:
            assert hermes.wait(10 * SLOW) == 3 and time.monotonic() - began <= 10 * SLOW
            assert hermes.line("no worker process stands") and hermes.line(f"admin=unix:{path}") and not path.exists()


def test_a5_a_worker_that_was_stopped_while_idle_is_killed_when_it_is_needed() -> None:
    """A5. Nobody asks an idle worker how it is: its next job stays untaken, goes to its replacement, and the client gets his answer."""
    with Simulator() as ollama, Hermes(ollama.url, CONFIG.replace("max_concurrency = 2", "max_concurrency = 1")) as hermes:
        eventually(lambda: hermes.staffed("m"))
        victim, = hermes.workers("m")
        os.kill(victim, signal.SIGSTOP)
        asked = time.monotonic()
        assert post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": "x"}).complete
        assert time.monotonic() - asked <= TAKEN + 1.0 * SLOW
        eventually(lambda: victim not in hermes.children() and hermes.staffed("m"))


ROGUE = """
from hermes.workers import watch
receive = watch.Pipe.receive
def rogue(self):
    kind, payload = receive(self)
    name = bytes(payload).partition(b"@@body=")[2].partition(b"@@")[0].decode()
    if name:
        with open({file!r}, "rb") as file:
            evil = file.read()
        try:
            while evil:
                evil = evil[os.write(self.fd, evil):]
        except OSError:
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL if name == "killed" else signal.SIGSTOP)
    return kind, payload
watch.Pipe.receive = rogue
"""


def test_a6_a_worker_that_speaks_gibberish(spoil, tmp_path: Path) -> None:
    """A6. Half a frame and silence, half a frame and the end, absurd lengths, rubbish, a pickle: it is killed, and nobody else notices."""
    mark = tmp_path / "owned"
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(mark),))
    kinds = {"killed": b"\x05\x00\x00\x10\x00half", "stopped": b"\x05\x00\x00\x10\x00half", "length": b"\x05\xff\xff\xff\xff" + b"x" * 1000, "2^62": (1 << 62).to_bytes(8) * 10,
             "100 MB": b"\x05\x06\x40\x00\x00" + b"x" * (100 << 20), "random": bytes(range(128, 256)) * 100, "pickle": pickle.dumps(Evil())}
    said = tmp_path / "said"
    environ, cause = spoil(ROGUE.format(file=str(said)))
    cause.touch()
    if not FAULTS:
        del kinds["stopped"]                        # it takes five seconds to be missed, twice
    config = 'heartbeat = "off"\n[ollama]\nconnect_timeout = "200ms"\nfirst_byte_timeout = "2s"\nidle_timeout = "2s"\n' + CONFIG
    with Simulator(parallel=4, keep_bodies=True) as ollama, Hermes(ollama.url, config, measured=True, **environ) as hermes:
        eventually(lambda: hermes.staffed("m") and hermes.staffed("other"))
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
        before = int(status_field(hermes.pid, "VmRSS"))
        with Client(hermes.port) as honest:
            honest.send("POST", "/api/generate", {"model": "gemma3:270m", "prompt": f"@@tokens={1200 if FAULTS else 200},interval=0.02@@"}).read_until(b'"done":false')
            for kind, data in kinds.items():
                said.write_bytes(data)
                victims = hermes.workers("m")
                reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": f"@@body={kind}@@"})
                assert reply.status == 502 and "worker" in reply.json()["error"], (kind, reply)
                eventually(lambda: hermes.staffed("m") and not set(victims) & set(hermes.workers("m")), what=f"new ones after {kind}")
                assert hermes.model("m")["closed"] is None
                assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete, "an answer in between clears the past"
            assert not mark.exists()
            assert int(status_field(hermes.pid, "VmRSS")) - before <= 2048
            reply = honest.reply()
        assert reply.complete and reply.body in [request.sent for request in ollama.requests]


def test_a12_many_deaths_under_load() -> None:
    """A12. Each worker that dies and each that comes leaves nothing in the parent."""
    cycles = 200 if FAULTS else 15
    config = CONFIG.replace("max_concurrency = 2", "max_concurrency = 4")
    with Simulator(parallel=8, tokens=4, remember=100) as ollama, Hermes(ollama.url, config, measured=True, HERMES_LOG_LEVEL="error") as hermes:
        over = threading.Event()

        def load(number: int) -> None:
            while not over.is_set():
                assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).status in (200, 502, 503)

        def die(times: int) -> None:
            for _ in range(times):
                eventually(lambda: hermes.staffed("m"))
                restarts = hermes.model("m")["restarts"]
                os.kill(next(pid for pid in hermes.workers("m") if pid in hermes.children()), signal.SIGKILL)
                eventually(lambda: hermes.model("m")["restarts"] == restarts + 1)

        def under_load(times: int) -> None:
            over.clear()
            try:
                in_threads(5, lambda number: die_and_end(times) if number == 0 else load(number), timeout=300)
            finally:
                over.set()

        def die_and_end(times: int) -> None:
            try:
                die(times)
            finally:
                over.set()

        def left() -> tuple[int, int]:
            eventually(lambda: hermes.staffed("m") and hermes.status()["totals"]["running"] == 0)
            return footprint(hermes.pid)

        under_load(10)
        before, size = left(), int(status_field(hermes.pid, "VmRSS"))
        under_load(cycles)
        eventually(lambda: left() <= before and not zombies(hermes.pid), what="as many descriptors and threads as before")
        assert int(status_field(hermes.pid, "VmRSS")) - size <= 1024
        assert hermes.model("m")["restarts"] == cycles + 10


# Other Pythons beside this one, as version managers put them: …/3.12.1/bin/python3.12
PYTHONS = [path for version in ("3.11", "3.12", "3.13", "3.14") for path in sorted(Path(sys.base_prefix).parent.glob(f"{version}.*/bin/python{version}"))[:1]]


@pytest.mark.parametrize(("python", "method"), [(Path(sys.executable), "fork"), (Path(sys.executable), "forkserver"),
                                                *[(path, "fork") for path in PYTHONS if path.name != "python%d.%d" % sys.version_info[:2]]], ids=lambda value: getattr(value, "name", value))
def test_a13_workers_inherit_nothing(spoil, python: Path, method: str) -> None:
    """A13. Whatever start method is the default, and on every Python that is here: with many clients connected while they are restarted,
    workers hold few descriptors and no client's socket, and a client sees the end of his connection."""
    environ, _ = spoil("pass", f"import multiprocessing; multiprocessing.set_start_method({method!r})")
    count = 200 if FAULTS else 50
    with Simulator(parallel=4) as ollama, ExitStack() as open_ones, \
            Hermes(ollama.url, CONFIG, lambda config: [str(python), "-m", "hermes", "serve", "--config", str(config)], measured=True, **environ) as hermes:
        eventually(lambda: hermes.staffed("m") and hermes.staffed("other"))
        for _ in range(count):
            assert open_ones.enter_context(Client(hermes.port)).send("GET", "/livez").reply().complete
        for pid in hermes.workers("m"):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: hermes.model("m")["restarts"] == 2 and hermes.staffed("m"))
        theirs = {link for pid in hermes.children() for link in links(pid)}
        assert len(hermes.children()) == 5 and all(b"--multiprocessing-fork" in cmdline(pid) and b"spawn_main" in cmdline(pid) for pid in hermes.children())
        assert max(len(links(pid)) for pid in hermes.children()) <= 12
        ours = links(hermes.pid)
        assert len(ours) > count and not {link for link in ours if link.startswith("socket:")} & theirs
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete


def links(pid: int) -> list[str]:
    return [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]


def test_a14_the_time_of_day_jumps(spoil) -> None:
    """A14. By an hour, forth and back, several times a second, in the parent and in the workers: nobody is late. (Where it is asked for at
    all: tests/unit/test_architecture.py.)"""
    jump = "import time; now = time.time; time.time = lambda: now() + 3600 * (-1) ** int(time.monotonic() * 5)"
    environ, cause = spoil(jump, jump)
    cause.touch()
    config = '[ollama]\nfirst_byte_timeout = "20s"\nidle_timeout = "20s"\ntotal_timeout = "30s"\n' + CONFIG
    with Simulator(parallel=4) as ollama, Hermes(ollama.url, config, **environ) as hermes:
        eventually(lambda: hermes.staffed("m") and hermes.staffed("other"))
        workers = hermes.children()
        in_threads(4, lambda number: [post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}) for _ in range(10)])
        reply = post(hermes.port, "/api/generate", {"model": "m", "prompt": "@@tokens=100,interval=0.01@@"})
        assert reply.complete and hermes.children() == workers and not died(hermes)
        totals = hermes.status()["totals"]
        assert totals["ok"] >= 41 and totals["errors"] == totals["rejected"] == totals["cancelled"] == 0, totals
        times = {hermes.status()["now"][:13] for _ in range(2) if not waited(lambda: False, 0.2)}
        assert len(times) == 2, "and it did jump"


def test_a15_the_resource_tracker_is_killed() -> None:
    """A15. Nothing of Hermes's depends on it; the next worker has a new one."""
    with Simulator() as ollama, Hermes(ollama.url, CONFIG) as hermes:
        eventually(lambda: hermes.staffed("m"))
        for _ in range(2):
            tracker, = [pid for pid in direct_children(hermes.pid) if b"resource_tracker" in cmdline(pid)]
            os.kill(tracker, signal.SIGKILL)
            assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
            victim = hermes.workers("m")[0]
            os.kill(victim, signal.SIGKILL)
            eventually(lambda: victim not in hermes.children() and hermes.staffed("m") and not zombies(hermes.pid))
            assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
        assert len(died(hermes)) == 2


def open_to_all(path: str) -> bool:
    """May everybody run this?"""
    real = Path(path).resolve()
    return real.exists() and all(each.stat().st_mode & 1 for each in (real, *real.parents))


PUBLIC = next(filter(open_to_all, (sys.executable, *(f"/usr/bin/python3.{minor}" for minor in range(11, 20)))), None)


@pytest.mark.skipif(os.geteuid() != 0 or not PUBLIC, reason="only root becomes somebody else, who needs a Python that he may run")
def test_a15_as_nobody_without_privileges_or_a_home() -> None:
    """A15."""
    def command(config: Path) -> list[str]:
        config.parent.chmod(0o755)
        assert archive.main([str(config.parent / "hermes.pyz")]) == 0
        return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "env", "-i",
                PUBLIC, str(config.parent / "hermes.pyz"), "serve", "--config", str(config)]
    with Simulator() as ollama, Hermes(ollama.url, CONFIG, command) as hermes:
        eventually(lambda: hermes.staffed("m"))
        assert status_field(hermes.pid, "Uid") == "65534" and status_field(hermes.pid, "NoNewPrivs") == "1"
        assert post(hermes.port, "/api/generate", {"model": "m", "prompt": "x"}).complete
        hermes.signal(signal.SIGTERM)
        assert hermes.wait() == 0
