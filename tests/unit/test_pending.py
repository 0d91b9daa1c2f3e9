"""A call on its way to its answer: whatever phase it is closed in, everything goes back."""

import math
import time

import pytest

from hermes.dispatch import lease as lease_module
from hermes.dispatch.caps import Caps
from hermes.dispatch.pending import Asker, Pending
from hermes.dispatch.pool import Pool
from hermes.dispatch.registry import Place
from hermes.dispatch.shares import Claim
from hermes.errors import ClientGone, Draining, QueueFull, QueueTimeout, UpstreamTimeout
from hermes.workers.messages import End, Failure, Head, Job, Kind, pack

HEAD = Head(200, (("content-type", "text/plain"),), "plain")
JOB = Job("http://u", "POST", "/api/chat", body=b"{}", ending="done")


class Desk:
    def __init__(self, new_child, new_pair):
        self.caps = Caps({"x": 1})
        self.pool = Pool("m", "m", 1, 2, caps=self.caps)
        self.child, self.new_child = new_child(), new_child
        self.pool.offer(self.child)
        self.ours, self.client = new_pair()

    def come(self, client: str = "x", patience: float = math.inf) -> Pending:
        return Pending(Place(self.pool, "m", 30.0), JOB, Asker(self.ours, Claim(client), patience))

    def check(self, workers: int = 1) -> None:
        """Nothing of it is left."""
        picture = self.pool.snapshot()
        assert (picture.idle, picture.busy, picture.queued) == (workers, 0, 0) and not self.caps._running
        assert not any(shares.accounts for shares in self.pool._backlog._classes)


@pytest.fixture
def desk(new_child, new_pair) -> Desk:
    return Desk(new_child, new_pair)


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(lease_module, "GRACE", 0.05)


def passed() -> float:
    return time.monotonic()


def test_closed_while_it_waits(desk: Desk) -> None:
    first = desk.come("y")
    pending = desk.come()
    assert pending.queued and pending.first_position == 1 and pending.position() == (1, 1) and pending.wait(passed()) is None
    pending.close()
    pending.close()
    assert not pending.queued and pending.position() == (0, 0)
    first.close()
    desk.check()
    assert desk.child.quiet(), "no worker heard of either"


def test_closed_when_it_has_a_worker_and_has_not_asked_it(desk: Desk) -> None:
    pending = desk.come()
    assert pending.queued and pending.first_position == 0 and desk.pool.snapshot().busy == 1
    pending.close()
    pending.close()
    desk.check()
    assert desk.child.quiet()


def test_closed_at_the_moment_it_is_matched(desk: Desk) -> None:
    first, pending = desk.come("y"), desk.come()
    first.close()
    assert pending.position() == (0, 0) and desk.pool.snapshot().busy == 1
    pending.close()
    desk.check()


@pytest.mark.parametrize("answers", [True, False])
def test_closed_when_it_has_asked(desk: Desk, answers: bool) -> None:
    pending = desk.come()
    assert pending.wait(passed()) is None and not pending.queued and desk.child.hear()[0] is Kind.JOB
    if answers:
        desk.child.say(pack(End()))
    pending.close()
    pending.close()
    desk.check(workers=int(answers))
    assert answers or desk.child.killed and desk.child.unwanted


def test_the_lease_is_the_callers(desk: Desk) -> None:
    desk.child.say(pack(HEAD))
    pending = desk.come()
    lease = pending.wait()
    pending.close()
    assert lease.head == HEAD and desk.pool.snapshot().busy == 1
    desk.child.say(pack(End()))
    lease.close()
    desk.check()


@pytest.mark.parametrize("phase", ["queued", "asked"])
def test_its_client_leaves(desk: Desk, phase: str) -> None:
    first = desk.come("y") if phase == "queued" else None
    pending = desk.come()
    if phase == "asked":
        assert pending.wait(passed()) is None
        desk.child.say(pack(End()))
    desk.client.close()
    with pytest.raises(ClientGone):
        pending.wait()
    if first:
        first.close()
    desk.check()


def test_ollama_fails(desk: Desk) -> None:
    desk.child.say(pack(Failure("UpstreamTimeout", "slow")))
    pending = desk.come()
    with pytest.raises(UpstreamTimeout):
        pending.wait()
    pending.close()
    desk.check()


def test_how_long_it_waited_is_its_own(desk: Desk) -> None:
    """Everybody who waits is refused at once, and whoever comes later has not waited."""
    first, others = desk.come("y"), [desk.come("a"), desk.come("b")]
    others[0]._arrived -= 100.0
    desk.pool.refuse(Draining("going"))
    errors = []
    for pending in others:
        with pytest.raises(Draining) as caught:
            pending.wait()
        errors.append(caught.value)
    with pytest.raises(Draining) as late:
        desk.come("c")
    assert errors[0].waited >= 100.0 > 50.0 > errors[1].waited and late.value.waited == 0.0
    first.close()


def test_a_job_that_cannot_be_said(desk: Desk) -> None:
    """A body of more than 4 GiB has no frame: the worker that was to have it is not lost over that."""
    pending = Pending(Place(desk.pool, "m", 30.0), JOB._replace(headers=object()), Asker(desk.ours, Claim("x")))
    with pytest.raises(TypeError):
        pending.wait()
    desk.check(workers=0)
    assert desk.child.killed == 1


def test_its_own_deadline_is_sooner_than_the_queues_patience(desk: Desk) -> None:
    first, pending = desk.come("y"), desk.come(patience=0.0)
    with pytest.raises(QueueTimeout, match="waited 0 s") as caught:
        pending.wait()
    assert caught.value.status == 504 and caught.value.waited >= 0.0 and not pending.queued
    pending.close()
    first.close()
    desk.check()


def test_pushed_out(desk: Desk) -> None:
    first, kept, out = (desk.come("y") for _ in range(3))
    newcomer = desk.come("z")
    with pytest.raises(QueueFull):
        out.wait()
    assert not out.queued and newcomer.queued and kept.queued
    for pending in (out, newcomer, kept, first):
        pending.close()
    desk.check()


@pytest.mark.parametrize("matched", [True, False])
def test_a_worker_dies_under_it_and_it_waits_again_and_is_closed(desk: Desk, matched: bool) -> None:
    pending = desk.come()
    assert pending.wait(passed()) is None
    desk.child.die()
    desk.pool.discard(desk.child)
    assert pending.wait(passed()) is None and pending.queued and desk.pool.snapshot().queued == 1
    if matched:
        desk.pool.offer(desk.new_child())
        assert desk.pool.snapshot().busy == 1
    pending.close()
    desk.check(workers=int(matched))
