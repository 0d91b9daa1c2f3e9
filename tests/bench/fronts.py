"""What stands between the load and the upstream: nothing, nginx, or Hermes; and what their processes cost."""

import contextlib
import glob
import json
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.harness import ROOT, Hermes, children, eventually

NGINX = """
worker_processes 2; daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream ollama {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://ollama; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }}
}}
"""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen]:
    child = subprocess.Popen(arguments, cwd=ROOT)
    try:
        yield child
    finally:
        child.terminate()
        child.wait()


@contextlib.contextmanager
def upstream(count: int = 2) -> Iterator[int]:
    """The port of `count` upstream processes that share it."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(process(sys.executable, "-m", "tests.bench.upstream", str(port)))
        eventually(lambda: listens(port))
        yield port


@contextlib.contextmanager
def nginx(upstream_port: int) -> Iterator[int | None]:
    """nginx with two workers, unbuffered, its connections kept; None where it is not installed."""
    if not shutil.which("nginx"):
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port), encoding="utf-8")
        Path(folder).chmod(0o777)
        with process("nginx", "-e", f"{folder}/error.log", "-c", str(config)):
            eventually(lambda: listens(port))
            yield port


@contextlib.contextmanager
def hermes(upstream_port: int, workers: int, wait: bool = True) -> Iterator[Hermes]:
    config = f'max_connections = 5000\n[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = {workers}\nmax_queue = 2000\nqueue_timeout = "10m"\n'
    with Hermes(f"http://127.0.0.1:{upstream_port}", config, measured=True, HERMES_LOG_LEVEL="warning") as gateway:
        if wait:
            eventually(lambda: gateway.staffed("m"), timeout=60)
        yield gateway


def load(**order: object) -> dict:
    done = subprocess.run([sys.executable, "-m", "tests.bench.load", json.dumps(order)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load failed: {order}\n{done.stderr}")
    return json.loads(done.stdout)


def cpu(pids: list[int]) -> float:
    """Seconds of processor time of all living threads, to the nanosecond (schedstat; ticks would be too coarse)."""
    total = 0
    for pid in pids:
        for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
            with contextlib.suppress(OSError):
                total += int(Path(path).read_text(encoding="ascii").split()[0])
    return total / 1e9


def pss(pid: int) -> float:
    """MB (10⁶ bytes) of memory, shared pages divided among those who share them."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no Pss")


def processes(gateway: Hermes) -> list[int]:
    return [gateway.pid, *children(gateway.pid)]
