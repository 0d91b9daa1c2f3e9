"""The parent's handle on a worker, with real processes."""

import os
import signal
from pathlib import Path

from hermes.workers.child import Child
from tests.harness import eventually


def state(pid: int) -> str:
    """Z: it has died, and nobody has taken note; "": somebody has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_who_is_dead_and_buried_is_not_killed() -> None:
    """Starting a process makes multiprocessing wait for those that have died (its _cleanup), before the supervisor has: from then on the number may
    be anybody's, and to a handler thread that had to end the worker the error looked like one of its client's connection."""
    dead = Child.start("dead")
    os.kill(dead.pid, signal.SIGKILL)
    eventually(lambda: state(dead.pid) == "Z")
    dead.kill()
    other = Child.start("other")
    try:
        assert state(dead.pid) == ""
        dead.kill()
        assert dead.reap() == -signal.SIGKILL
        dead.kill()
    finally:
        other.kill()
        assert other.reap() == -signal.SIGKILL
        for child in (dead, other):
            child.close()
