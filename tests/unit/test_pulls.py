"""Pulls that fail on our side: nobody waits for one that has ended."""

import threading
from types import SimpleNamespace

import pytest

from hermes.dispatch import pulls as module
from hermes.dispatch.bell import Bell
from hermes.dispatch.pulls import Pulls
from hermes.errors import HermesBusy, HermesError
from hermes.workers.messages import Job, Timeouts


def failing() -> None:
    raise OSError(24, "Too many open files")


class Dispatcher:
    """Fails before it has asked anybody."""

    error: Exception = RuntimeError("a defect")
    upstream = SimpleNamespace(timeouts=Timeouts())
    registry = SimpleNamespace(puller=lambda: None)

    def open(self, place: None, job: Job, client: object) -> None:
        raise self.error

    def known(self, name: str) -> None:
        return None

    def job(self, method: str, path: str, **fields) -> Job:
        return Job("http://u", method, path, **fields)


def test_a_pull_that_ends_by_an_error_of_ours_is_over(new_pair, start, caplog) -> None:
    pulls = Pulls(Dispatcher())
    for _ in range(2):
        ours, client = new_pair()
        progress = pulls.join("m", ours)
        call = start(progress.events)
        with pytest.raises(HermesError, match="internal error"), client:     # closed, or one who waits for ever would keep his thread
            call.result(10)
        progress.close()
    assert "a defect" in caplog.text and not pulls._running


def test_a_pull_for_which_no_descriptor_is_left_may_come_again(new_pair, start, caplog) -> None:
    """Its own thread waits for its turn, and who waits takes one."""
    dispatcher, (ours, client) = Dispatcher(), new_pair()
    dispatcher.error = OSError(24, "Too many open files")
    progress = Pulls(dispatcher).join("m", ours)
    call = start(progress.events)
    with pytest.raises(HermesBusy, match="no descriptor is left"), client:
        call.result(10)
    progress.close()
    assert not caplog.text


def test_a_pull_that_has_no_thread_is_over(new_pair, start, monkeypatch) -> None:
    def full(self) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", full)
        pulls, (ours, client) = Pulls(Dispatcher()), new_pair()
        progress = pulls.join("m", ours)
    call = start(progress.events)
    with pytest.raises(HermesBusy), client:
        call.result(10)
    progress.close()
    assert not pulls._running


def test_a_pull_that_has_no_descriptors_leaves_none_behind(new_pair, monkeypatch) -> None:
    bells: list[Bell] = []
    monkeypatch.setattr(module, "Bell", lambda: bells.append(Bell()) or bells[-1])
    monkeypatch.setattr(module, "Pull", lambda *_: failing())
    with pytest.raises(OSError):
        Pulls(Dispatcher()).join("m", new_pair()[0])
    assert len(bells) == 1 and not bells[0]._open
