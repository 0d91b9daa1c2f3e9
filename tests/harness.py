"""What the process tests share: a real Hermes as a child process, and a client that sees every byte.

Nothing here waits for time: `eventually` waits for a fact, with a bound that is generous and never the thing tested.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COVERED = "COVERAGE_PROCESS_CONFIG" in os.environ or "COVERAGE_PROCESS_START" in os.environ
PARENT_ONLY = ROOT / "tests" / "parent.coveragerc"
SLOW = 4.0                      # times are allowed this many times their figure; counts never
FAULTS = bool(os.environ.get("HERMES_TEST_FAULTS"))        # `make faults`: more of it, and what takes long


def eventually(fact: Callable[[], object], timeout: float = 15.0, what: str = "it"):
    """The first true value of `fact`; fails the test if there is none in `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        if value := fact():
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not happen within {timeout:g} s")
        time.sleep(0.005)


class Hermes:
    """A Hermes in a process group of its own. Use as a context manager."""

    def __init__(self, upstream: str, config: str = "", command: Callable[[Path], list[str]] | None = None, measured: bool = False, deep: bool = False,
                 **environ: str):
        """`measured`: its memory or speed is what the test is about, so that it runs without coverage. `deep`: with coverage of its workers too."""
        self.folder = tempfile.TemporaryDirectory()
        self.config = Path(self.folder.name, "hermes.toml")
        self.upstream = upstream
        self.write_config(config)
        shallow = COVERED and not (measured or deep or command)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HERMES_", "OLLAMA_", *(["COVERAGE_"] if measured or shallow else [])))}
        environment.update(environ)
        python = [sys.executable, *(["-m", "coverage", "run", f"--rcfile={PARENT_ONLY}"] if shallow else [])]
        arguments = command(self.config) if command else [*python, "-m", "hermes", "serve", "--config", str(self.config)]
        self.process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        start_new_session=True)
        self.lines: list[str] = []
        self.hears = threading.Event()          # cleared, nobody reads the log
        self.hears.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        line = eventually(lambda: self.process.poll() is not None and "ended" or self.line("listening"), what="listening")
        if line == "ended":
            self._reader.join(5)
            raise AssertionError(f"Hermes ended with {self.process.returncode}: {self.lines}")
        self.port = int(re.search(r'listening.*?https?://[^\s"]+:(\d+)[ "]', line)[1])

    def write_config(self, config: str) -> None:
        sections = config if "[server]" in config else "[server]\n" + config
        text = sections.replace("[server]", '[server]\nlisten = "127.0.0.1:0"', 1)
        if "[ollama]" in text:
            text = text.replace("[ollama]", f'[ollama]\nurl = "{self.upstream}"', 1)
        else:
            text += f'\n[ollama]\nurl = "{self.upstream}"\n'
        self.config.write_text(text, encoding="utf-8")
        self.config.chmod(0o644)                # whatever the umask: what others may write is refused

    def _read(self) -> None:
        for line in self.process.stderr:
            self.hears.wait()
            self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))

    def line(self, part: str) -> str | None:
        return next((line for line in list(self.lines) if part in line), None)

    @property
    def pid(self) -> int:
        return self.process.pid

    def children(self) -> list[int]:
        return children(self.pid)

    def status(self) -> dict:
        return get(self.port, "/v1/status").json()

    def model(self, name: str) -> dict:
        return next(model for model in self.status()["models"] if model["name"] == name)

    def workers(self, name: str) -> list[int]:
        return self.model(name)["workers"]["pids"]

    def staffed(self, name: str) -> bool:
        workers = self.model(name)["workers"]
        return workers["idle"] + workers["busy"] == workers["max"]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 20.0) -> int:
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def __enter__(self) -> "Hermes":
        return self

    def __exit__(self, *exc) -> None:
        self.hears.set()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(12)
            except subprocess.TimeoutExpired:
                os.killpg(self.pid, signal.SIGKILL)
                self.process.wait()
        self._reader.join(5)
        self.process.stderr.close()
        self.folder.cleanup()
        assert not [line for line in self.lines if "Traceback" in line], "\n".join(self.lines)


def children(pid: int) -> list[int]:
    """The direct children that are workers: spawned, and not the resource tracker."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text(encoding="ascii").split()]
        except OSError:
            pass
    return [child for child in found if b"spawn_main" in cmdline(child)]


def direct_children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def zombies(pid: int) -> list[int]:
    found = []
    for child in direct_children(pid):
        try:
            with open(f"/proc/{child}/stat", encoding="ascii", errors="replace") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    found.append(child)
        except OSError:
            pass
    return found


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def first_free(pid: int) -> int:
    """The first number that no descriptor has for long. A limit below what is open would also make poll() fail."""
    def taken(number: int) -> bool:
        try:
            return "eventfd" not in os.readlink(f"/proc/{pid}/fd/{number}")
        except FileNotFoundError:
            return False
    return next(number for number in range(1000) if not taken(number))


def footprint(pid: int) -> tuple[int, int]:
    """Descriptors and threads: the smallest of many looks, because a connection that has ended may still be closing."""
    return min((descriptors(pid), int(status_field(pid, "Threads"))) for _ in range(300))


def status_field(pid: int, name: str) -> str:
    return re.search(rf"^{name}:\s+(\S+)", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)[1]


def cpu_seconds(pid: int) -> float:
    """Of the process itself, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Reply:
    """An answer as its bytes came. `complete`: the framing ended as it should; `body` is without chunk coding."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    complete: bool = False
    raw: bytes = b""

    def json(self) -> dict:
        return json.loads(self.body)

    def records(self) -> list[dict]:
        return [json.loads(line) for line in self.body.split(b"\n") if line.strip()]


class Client:
    """One connection, by hand."""

    def __init__(self, port: int, timeout: float = 60.0):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.buffer = b""

    def send(self, method: str, path: str, body: object = None, **headers: str) -> "Client":
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {"Host": "localhost", "Content-Length": str(len(data)), **{name.replace("_", "-"): value for name, value in headers.items()}}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
        self.sock.sendall(head.encode("latin-1") + data)
        return self

    def send_raw(self, data: bytes) -> "Client":
        self.sock.sendall(data)
        return self

    def more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def read_until(self, part: bytes) -> bytes:
        while part not in self.buffer:
            assert self.more(), f"the connection ended: {self.buffer!r}"
        return self.buffer

    def reply(self, method: str = "POST") -> Reply:
        """Read one whole answer, or what there is of it."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.more():
                return Reply(raw=self.buffer)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        reply = Reply(int(lines[0].split()[1]), headers, raw=head)
        if method == "HEAD" or reply.status == 204:
            reply.complete = True
        elif headers.get("transfer-encoding") == "chunked":
            self._chunked(reply)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            while len(self.buffer) < length and self.more():
                pass
            reply.body, self.buffer = self.buffer[:length], self.buffer[length:]
            reply.complete = len(reply.body) == length
        else:
            while self.more():
                pass
            reply.body, self.buffer, reply.complete = self.buffer, b"", True
        return reply

    def _chunked(self, reply: Reply) -> None:
        pieces = []
        while True:
            while b"\r\n" not in self.buffer:
                if not self.more():
                    reply.body = b"".join(pieces)
                    return
            line, _, rest = self.buffer.partition(b"\r\n")
            size = int(line, 16)
            while len(rest) < size + 2:
                if not self.more():
                    reply.body = b"".join(pieces)
                    return
                rest = self.buffer.partition(b"\r\n")[2]
            assert rest[size:size + 2] == b"\r\n", rest[size:size + 2]
            self.buffer = rest[size + 2:]
            if size == 0:
                reply.body, reply.complete = b"".join(pieces), True
                return
            pieces.append(rest[:size])

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exc) -> None:
        self.close()


def post(port: int, path: str, body: object, **headers: str) -> Reply:
    with Client(port) as client:
        return client.send("POST", path, body, **headers).reply()


def get(port: int, path: str, method: str = "GET", **headers: str) -> Reply:
    with Client(port) as client:
        return client.send(method, path, **headers).reply(method)


def in_threads(count: int, work: Callable[[int], object], timeout: float = 120.0) -> list:
    """`work(0)` … `work(count - 1)`, each in a thread; their results, or the first exception."""
    results: list = [None] * count
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            results[number] = work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "some calls did not end"
    if failures:
        raise failures[0]
    return results
