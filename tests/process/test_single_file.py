"""The same smoke test for the package, for hermes.pyz alone in an empty folder, and for a read-only, isolated start."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes import archive
from hermes.simulator import Simulator
from tests.harness import ROOT, Hermes, eventually, get, post

CONFIG = '[models.m]\nmodel = "smollm2:135m"\nmax_concurrency = 2\n'


def smoke(command: Callable[[Path], list[str]] | None) -> None:
    with Simulator(keep_bodies=True) as ollama, Hermes(ollama.url, CONFIG, command=command) as hermes:
        reply = post(hermes.port, "/api/generate", {"model": "smollm2:135m", "prompt": "x"})
        assert reply.complete and reply.body == ollama.requests[-1].sent
        assert post(hermes.port, "/v1/llm/m", {"prompt": "x"}).json()["usage"]["output_tokens"] == 16
        assert get(hermes.port, "/v1/status").json()["status"] == "ok"
        os.kill(hermes.workers("m")[0], 9)
        eventually(lambda: hermes.model("m")["restarts"] == 1 and hermes.staffed("m"))
        hermes.process.terminate()
        assert hermes.wait() == 0


def test_package() -> None:
    smoke(None)


def test_pyz_alone_in_an_empty_folder(tmp_path: Path) -> None:
    file = tmp_path / "hermes.pyz"
    assert archive.main([str(file)]) == 0
    smoke(lambda config: ["env", "-C", str(tmp_path), sys.executable, "-I", "-S", str(file), "serve", "--config", str(config)])
    assert os.listdir(tmp_path) == ["hermes.pyz"]


def test_pyz_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    assert archive.build() == archive.build()
    for name in ("one", "two"):
        copy = tmp_path / name
        shutil.copytree(ROOT / "hermes", copy / "hermes")
        os.utime(copy / "hermes" / "cli.py", (1, 1))
        subprocess.run([sys.executable, "-m", "hermes.archive", str(tmp_path / f"{name}.pyz")], cwd=copy, check=True)
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "two.pyz").read_bytes() == archive.build()
    assert os.stat(tmp_path / "one.pyz").st_mode & stat.S_IXUSR


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a mount namespace needs root and unshare")
@pytest.mark.parametrize("start", [["-I", "-S", "{checkout}/hermes"], ["-E", "-s", "-S", "-m", "hermes"]], ids=["folder, isolated", "module, no site"])
def test_read_only_checkout_tmp_and_shm(start: list[str], tmp_path: Path) -> None:
    """A15. `-I -m` finds nothing in a checkout, because -I takes the current folder off the search path: the isolated start names the folder."""
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "hermes", checkout / "hermes", ignore=shutil.ignore_patterns("__pycache__"))
    # Not the virtual environment's interpreter, which may lie below /tmp.
    python = " ".join([os.path.realpath(sys.executable), *(part.format(checkout=checkout) for part in start)])

    def command(config: Path) -> list[str]:
        script = (f"cp {config} /mnt/hermes.toml && mount --bind {checkout} {checkout} && mount -o remount,ro,bind {checkout} && cd {checkout}"
                  " && mount -t tmpfs -o ro none /dev/shm && mount --bind /mnt /mnt && mount -o remount,ro,bind /mnt"
                  f" && mkdir -p /run/keep && mount --bind {checkout} /run/keep && cd /run/keep && mount -t tmpfs -o ro none /tmp"
                  f" && exec {python.replace(str(checkout), '/run/keep')} serve --config /mnt/hermes.toml")
        return ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /mnt && mount -t tmpfs none /run && " + script]

    smoke(command)
