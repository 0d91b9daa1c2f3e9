"""The README's unit for systemd: what Hermes relies on is in it, and systemd takes it and finds it closed enough."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hermes.cli import COMMANDS
from hermes.config import loads

README = Path(__file__).parents[2] / "README.md"
EXPOSURE = 15                   # tenths, of systemd's 0 (closed) to 100


@pytest.fixture(scope="module")
def unit() -> str:
    blocks = re.findall(r"^```ini\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_what_hermes_relies_on(unit: str) -> None:
    told = dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))
    assert told["Type"] == "notify" and told["NotifyAccess"] == "main", "workers say nothing to systemd"
    assert told["KillMode"] == "mixed", "workers ignore SIGTERM and leave when Hermes has finished"
    assert told["ExecReload"] == f"/bin/kill -{signal.SIGHUP.name.removeprefix('SIG')} $MAINPID"
    assert told["ExecStart"].split()[-2:] == ["/opt/hermes/hermes.pyz", "serve"] and "serve" in COMMANDS
    assert int(told["TimeoutStopSec"].removesuffix("s")) > loads("").server.drain_timeout
    assert int(told["WatchdogSec"].removesuffix("s")) > 0
    assert {"AF_INET", "AF_INET6", "AF_UNIX"} == {*told["RestrictAddressFamilies"].split()}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("question", [["verify"], ["security", "--offline=true", f"--threshold={EXPOSURE}"]])
def test_systemd_takes_it(unit: str, question: list[str], tmp_path: Path) -> None:
    path = tmp_path / "hermes.service"
    path.write_text(unit.replace("/usr/bin/python3", sys.executable), encoding="utf-8")
    run = subprocess.run(["systemd-analyze", *question, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "hermes.service:" not in run.stderr, "a line that it ignores"
