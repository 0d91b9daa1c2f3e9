"""The time of a whole call, at the worker and at the parent: whichever limit is the smaller one ends it, and says its name."""

import math
import select
import socket
import time
from collections.abc import Iterator

import pytest

from hermes.dispatch.lease import _error
from hermes.errors import RunTimeExceeded, UpstreamError, UpstreamTimeout
from hermes.workers.messages import Failure, Job, Timeouts, pack_job, unpack_job
from hermes.workers.watch import Pipe, Watch


@pytest.fixture
def pair() -> Iterator[tuple[Watch, socket.socket, socket.socket]]:
    """A Watch, a socket that it may wait for, and the other end of that."""
    pipe, ours, theirs = socket.socketpair(), *socket.socketpair()
    yield Watch(Pipe(pipe[0].fileno())), ours, theirs
    for sock in (*pipe, ours, theirs):
        sock.close()


@pytest.mark.parametrize(("total", "run", "error", "word"), [
    (60.0, 0.02, RunTimeExceeded, "max_run_time"), (0.02, 60.0, UpstreamTimeout, "total_timeout"), (math.inf, 0.02, RunTimeExceeded, "max_run_time"),
    (0.02, math.inf, UpstreamTimeout, "total_timeout")])
def test_the_smaller_one_ends_the_wait(pair, total: float, run: float, error: type, word: str) -> None:
    watch, ours, _ = pair
    began = time.monotonic()
    watch.begin(total, run)
    watch.phase("nothing came", 60.0)
    with pytest.raises(UpstreamTimeout, match=word) as caught:
        watch.wait(ours, select.POLLIN)
    assert type(caught.value) is error and time.monotonic() - began >= 0.02


@pytest.mark.parametrize(("total", "run", "word"), [(60.0, 0.0, "max_run_time"), (0.0, 60.0, "total_timeout")])
def test_a_socket_that_is_always_ready_gains_no_time(pair, total: float, run: float, word: str) -> None:
    """A model that speaks faster than it is heard."""
    watch, ours, theirs = pair
    theirs.sendall(b"token")
    watch.begin(60.0, 60.0)
    watch.phase("nothing came", 0.0, each=True)
    assert watch.wait(ours, select.POLLIN) == select.POLLIN, "what has come in time is taken, however short the phase is"
    watch.begin(total, run)
    with pytest.raises(UpstreamTimeout, match=word):
        watch.wait(ours, select.POLLIN)


def test_nor_does_a_phase(pair) -> None:
    """Interim answers without end are no answer."""
    watch, ours, theirs = pair
    theirs.sendall(b"100")
    watch.begin(60.0)
    watch.phase("no answer", 0.0)
    with pytest.raises(UpstreamTimeout, match="no answer"):
        watch.wait(ours, select.POLLIN)


def test_a_phase_that_is_over_sooner_says_its_own_name(pair) -> None:
    watch, ours, _ = pair
    watch.begin(60.0, 60.0)
    watch.phase("nothing came", 0.01)
    with pytest.raises(UpstreamTimeout, match="nothing came") as caught:
        watch.wait(ours, select.POLLIN)
    assert type(caught.value) is UpstreamTimeout


def test_it_crosses_the_pipe() -> None:
    for run in (0.5, math.inf):
        job = Job("http://x", "POST", "/api/chat", timeouts=Timeouts(1.0, 2.0, 3.0, 4.0, run))
        assert unpack_job(b"".join(pack_job(job))[5:]).timeouts == job.timeouts
    assert Timeouts(run=5.0).endless().run == math.inf, "a pull has no limit"
    found = _error(Failure("RunTimeExceeded", "words"))
    assert type(found) is RunTimeExceeded and isinstance(found, UpstreamError) and (found.status, found.code, found.futile) == (504, "run_time_exceeded", True)
