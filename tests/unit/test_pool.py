"""The pool under its one lock: real threads, workers without processes, assertions on snapshots."""

import os
import socket
import threading
from concurrent.futures import Future

import pytest

from hermes.dispatch.pool import Pool
from hermes.dispatch.shares import Claim
from hermes.errors import BadRequest, ClientGone, Draining, HermesError, PoolDown, QueueFull, QueueTimeout
from tests.harness import eventually
from tests.unit.fakes import hire

FOREVER = float("inf")


class Desk:
    """A pool and its clients. `queue` starts a call that waits, and returns when it does."""

    def __init__(self, new_child, new_pair, start, size: int = 1, limit: int = 4, staff: int = 0):
        self.woken = 0
        self.pool = Pool("m", "m", size, limit, self._wake)
        self.new_pair, self.start = new_pair, start
        self.child = [new_child() for _ in range(max(size, 3))]
        for child in self.child[:staff]:
            self.pool.offer(child)

    def _wake(self) -> None:
        self.woken += 1

    def hire(self, patience: float = 0.0):
        return hire(self.pool, self.new_pair()[0], patience)

    def queue(self, patience: float = FOREVER) -> tuple[Future, socket.socket]:
        before = self.pool.snapshot().queued
        ours, client = self.new_pair()
        call = self.start(hire, self.pool, ours, patience)
        eventually(lambda: self.pool.snapshot().queued == before + 1 or call.done())
        return call, client

    def figures(self) -> tuple[int, int, int]:
        picture = self.pool.snapshot()
        return picture.idle, picture.busy, picture.queued


@pytest.fixture
def desk(new_child, new_pair, start):
    made: list[Desk] = []

    def make(**options) -> Desk:
        made.append(Desk(new_child, new_pair, start, **options))
        return made[-1]

    yield make
    for each in made:
        each.pool.refuse(Draining("the test is over"))      # whoever a failed test left waiting would keep its thread


def test_idle_worker_at_once(desk) -> None:
    d = desk(staff=1)
    assert d.figures() == (1, 0, 0)
    assert d.hire() is d.child[0]
    assert d.figures() == (0, 1, 0)
    d.pool.release(d.child[0], reusable=True, answered=True, took=0.5)
    assert d.figures() == (1, 0, 0) and d.pool.snapshot().answered == 1


def test_first_come_first_served(desk) -> None:
    d = desk(staff=1)
    child = d.hire()
    calls = [d.queue()[0] for _ in range(4)]
    for number, call in enumerate(calls):
        d.pool.release(child, reusable=True)
        assert call.result(10) is child
        assert [other.done() for other in calls] == [True] * (number + 1) + [False] * (3 - number)
        assert d.figures() == (0, 1, 3 - number)


def test_newcomer_does_not_overtake(desk) -> None:
    d = desk(size=2, staff=1)
    first = d.hire()
    waiting, _ = d.queue()
    d.pool.offer(d.child[1])
    assert waiting.result(10) is d.child[1]
    late, _ = d.queue()
    assert not late.done()
    d.pool.release(first, reusable=True)
    assert late.result(10) is first


@pytest.mark.parametrize("limit", [0, 2])
def test_full(desk, limit: int) -> None:
    d = desk(limit=limit, staff=1)
    d.hire()
    for _ in range(limit):
        d.queue()
    with pytest.raises(QueueFull) as caught:
        d.hire(FOREVER)
    assert caught.value.retry_after == 1
    assert d.figures() == (0, 1, limit)


@pytest.mark.parametrize(("size", "took", "expected"), [(1, 10.0, 6), (2, 10.0, 3), (1, 1e6, 59), (1, 0.0, 2)])
def test_a_full_queue_says_when_to_come_again(desk, size: int, took: float, expected: int) -> None:
    """Four wait; a call took 1 s of late and one `took` seconds just now, of which a fifth counts."""
    d = desk(size=size, staff=size)
    d.pool.release(d.hire(), reusable=True, took=took)
    for _ in range(size):
        d.hire()
    for _ in range(4):
        d.queue()
    with pytest.raises(QueueFull) as caught:
        d.hire()
    assert caught.value.retry_after == expected


def test_patience_that_no_poll_can_count(desk) -> None:
    """X-Hermes-Deadline: 999999999 where the queue itself has no limit."""
    d = desk()
    waiting, _ = d.queue(patience=999_999_999.0)
    eventually(lambda: waiting.done() or any(ticket._bell for ticket in d.pool._backlog._entries))
    d.pool.offer(d.child[0])
    assert waiting.result(3) is d.child[0]


def test_timeout_leaves_no_trace(desk) -> None:
    d = desk()
    ours, _ = d.new_pair()
    descriptors = os.listdir("/proc/self/fd")
    for patience in (0.0, 0.01):
        with pytest.raises(QueueTimeout):
            hire(d.pool, ours, patience)
    assert d.figures() == (0, 0, 0)
    assert os.listdir("/proc/self/fd") == descriptors


def test_a_worker_is_not_left_idle_by_one_whose_time_is_up(desk) -> None:
    """His thread has not noticed yet; whoever comes then does not wait behind him."""
    d = desk()
    late = d.pool.enter(Claim(), 0.0)
    d.pool.offer(d.child[0])
    assert late.child is None and d.figures() == (1, 0, 1)
    assert d.pool.enter(Claim(), FOREVER).child is d.child[0]
    with pytest.raises(QueueTimeout):
        d.pool.wait(late, d.new_pair()[0])


def test_one_whose_time_is_up_makes_room(desk) -> None:
    d = desk(limit=1)
    late = d.pool.enter(Claim(), 0.0)
    d.pool.enter(Claim(), FOREVER)
    assert not late._rung.locked() and d.figures() == (0, 0, 1)
    with pytest.raises(QueueFull):
        d.pool.wait(late, d.new_pair()[0])


def test_accounts_are_settled_however_a_lease_ends(desk) -> None:
    d = desk(size=3, staff=3)
    accounts = d.pool._backlog._classes[1]
    d.pool.release(d.hire(), reusable=True)
    assert d.pool._backlog._mean is None        # it was not used
    one, two, three = d.hire(), d.hire(), d.hire()
    assert accounts.accounts == 1
    d.pool.release(one, reusable=True, took=0.5)
    d.pool.release(two, reusable=False)
    d.pool.discard(three)
    d.pool.release(three, reusable=False)
    assert accounts.accounts == 0 and d.pool._backlog._mean > 0.0


@pytest.mark.parametrize("leave", ["close", "half-close"])
def test_client_leaves_while_queued(desk, leave: str) -> None:
    d = desk(staff=1)
    child = d.hire()
    first, _ = d.queue()
    second, client = d.queue()
    third, _ = d.queue()
    client.close() if leave == "close" else client.shutdown(socket.SHUT_WR)
    with pytest.raises(ClientGone):
        second.result(10)
    assert d.figures() == (0, 1, 2)
    d.pool.release(child, reusable=True)
    assert first.result(10) is child
    d.pool.release(child, reusable=True)
    assert third.result(10) is child


def test_matched_at_the_very_moment_it_times_out(desk) -> None:
    """The match has been made, the bell has not rung yet, and time runs out: it is served."""
    d, rung = desk(), []
    d.pool._ring = rung.extend
    call, _ = d.queue(0.1)
    d.pool.offer(d.child[0])
    assert call.result(10) is d.child[0]
    assert d.figures() == (0, 1, 0) and len(rung) == 1


def test_matched_at_the_very_moment_its_client_leaves(desk) -> None:
    d, rung = desk(), []
    d.pool._ring = rung.extend
    gone, client = d.queue()
    other, _ = d.queue()
    d.pool.offer(d.child[0])
    client.close()
    with pytest.raises(ClientGone):
        gone.result(10)
    assert len(rung) == 2
    Pool._ring(rung[1:])
    assert other.result(10) is d.child[0]


def test_a_bell_that_rings_late_rings_nobody_elses_descriptor(desk, new_pair) -> None:
    """Thread A matches a ticket and leaves the lock; the ticket's thread times out, is served and closes its bell; now A rings."""
    d, rung = desk(), []
    d.pool._ring = rung.extend
    call, _ = d.queue(0.1)
    d.pool.offer(d.child[0])
    call.result(10)
    strangers = [end for _ in range(4) for end in new_pair()]       # they take the numbers that became free
    Pool._ring(rung)
    for stranger in strangers:
        stranger.setblocking(False)
        with pytest.raises(BlockingIOError):
            stranger.recv(8)


def test_shrink(desk) -> None:
    d = desk(size=3, staff=3)
    busy = d.hire()
    d.pool.resize(1, 4)
    assert d.woken == 1
    surplus = d.pool.surplus()
    assert len(surplus) == 2 and busy not in surplus and d.pool.surplus() == []
    d.pool.release(busy, reusable=True)
    assert d.figures() == (1, 0, 0) and d.pool.surplus() == []


def test_shrink_while_all_are_busy(desk) -> None:
    d = desk(size=2, staff=2)
    one, two = d.hire(), d.hire()
    waiting, _ = d.queue()
    d.pool.resize(1, 4)
    assert d.pool.surplus() == []
    d.pool.release(one, reusable=True)
    assert not waiting.done() and d.pool.surplus() == [one]
    d.pool.release(two, reusable=True)
    assert waiting.result(10) is two


def test_grow(desk) -> None:
    d = desk(size=1, limit=0, staff=1)
    d.hire()
    d.pool.resize(2, 1)
    waiting, _ = d.queue()
    d.pool.offer(d.child[1])
    assert waiting.result(10) is d.child[1] and d.pool.surplus() == []


def test_one_too_many(desk) -> None:
    d = desk(staff=1)
    d.pool.offer(d.child[1])
    assert d.figures() == (1, 0, 0) and d.woken == 1 and d.pool.surplus() == [d.child[1]]


def test_whoever_waits_when_a_pool_is_retired_is_still_served(desk) -> None:
    """A reload that drops a model does not touch who waits already (Pool.resize, Registry.apply)."""
    d = desk(staff=1)
    child = d.hire()
    waiting, _ = d.queue()
    d.pool.resize(0, 4)
    d.pool.release(child, reusable=True)
    assert waiting.result(3) is child
    d.pool.release(child, reusable=True)
    assert d.pool.surplus() == [child] and d.figures() == (0, 0, 0)


def test_the_supervisor_is_told_who_comes_and_goes_while_a_pool_is_retired(desk) -> None:
    """A worker is wanted as long as somebody waits."""
    d = desk()
    d.pool.resize(0, 4)
    before = d.woken
    with pytest.raises(QueueTimeout):
        d.hire()
    assert d.woken == before + 2


def test_discard_idle(desk) -> None:
    d = desk(staff=1)
    assert d.pool.discard(d.child[0]) is True
    assert d.figures() == (0, 0, 0) and d.pool.snapshot().restarts == 1
    assert d.pool.discard(d.child[0]) is False


def test_discard_while_leased_makes_room_for_the_replacement(desk) -> None:
    d = desk(staff=1)
    d.hire()
    assert d.pool.discard(d.child[0]) is False
    assert d.figures() == (0, 0, 0)
    d.pool.offer(d.child[1])
    d.pool.release(d.child[0], reusable=False)
    assert d.figures() == (1, 0, 0) and d.pool.surplus() == []


def test_a_worker_that_died_while_leased_does_not_come_back(desk) -> None:
    """It wrote END and was killed; its lease, held up by a slow client, reads END only after the supervisor has buried it."""
    d = desk(staff=1)
    child = d.hire()
    child.die()
    d.pool.discard(child)
    d.pool.release(child, reusable=True, answered=True)
    assert d.figures() == (0, 0, 0)
    d.pool.offer(d.child[1])
    assert d.pool.surplus() == [] and d.hire() is d.child[1]


def test_our_own_killing_is_no_restart(desk) -> None:
    d = desk(staff=1)
    d.child[0].unwanted = True
    d.pool.discard(d.child[0])
    assert d.pool.snapshot().restarts == 0


def test_dismiss(desk) -> None:
    d = desk(size=2, staff=2)
    busy = d.hire()
    idle = next(child for child in d.child[:2] if child is not busy)
    assert d.pool.dismiss(busy) is False and d.pool.dismiss(idle) is True and d.pool.dismiss(idle) is False
    assert d.pool.leased() == [busy]


def test_close_and_reopen(desk) -> None:
    import time
    d = desk()
    waiting, _ = d.queue()
    d.pool.close("its workers died", time.monotonic() + 20)
    for attempt in (lambda: waiting.result(10), lambda: d.hire()):
        with pytest.raises(PoolDown, match="its workers died") as caught:
            attempt()
        assert 15 <= caught.value.retry_after <= 20
    assert d.pool.snapshot().closed == "its workers died" and d.figures() == (0, 0, 0)
    d.pool.offer(d.child[0])
    with pytest.raises(PoolDown):
        d.hire()
    d.pool.reopen()
    assert d.hire() is d.child[0] and d.pool.snapshot().closed is None


def test_refuse(desk) -> None:
    d = desk(staff=1)
    busy = d.hire()
    waiting = [d.queue()[0] for _ in range(3)]
    d.pool.refuse(Draining("going"))
    for attempt in (*(call.result for call in waiting), lambda _: d.hire()):
        with pytest.raises(Draining, match="going"):
            attempt(10)
    assert d.figures() == (0, 1, 0)
    d.pool.release(busy, reusable=True)
    assert d.figures() == (1, 0, 0)


def test_quiet_only_while_nothing_runs_or_waits(desk) -> None:
    d = desk(staff=1)
    before = d.pool.snapshot().idle_since
    child = d.hire()
    assert d.pool.snapshot().idle_since is None
    d.pool.release(child, reusable=True)
    assert d.pool.snapshot().idle_since >= before
    d.pool.discard(child)
    call, client = d.queue()
    assert d.pool.snapshot().idle_since is None and d.pool.snapshot().oldest >= 0.0
    client.close()
    with pytest.raises(ClientGone):
        call.result(10)
    assert d.pool.snapshot().idle_since is not None


@pytest.mark.parametrize(("seconds", "expected"), [(0.0, 1), (-5.0, 1), (0.2, 1), (1.2, 2), (58.9, 59), (1e9, 59)])
def test_retry_after_is_computed_and_bounded(seconds: float, expected: int) -> None:
    assert QueueFull("", retry_after=seconds).retry_after == expected
    assert HermesError("").retry_after is None and QueueFull("").retry_after == 1 and BadRequest("").retry_after is None


def test_crowd(desk) -> None:
    """Three workers, eight threads: nobody shares a worker, nothing is lost."""
    d = desk(size=3, limit=100, staff=3)
    at_work: set = set()
    lock, ours = threading.Lock(), d.new_pair()[0]

    def serve() -> int:
        for _ in range(100):
            child = hire(d.pool, ours, FOREVER)
            with lock:
                assert child not in at_work
                at_work.add(child)
            with lock:
                at_work.remove(child)
            d.pool.release(child, reusable=True, answered=True)
        return 100

    calls = [d.start(serve) for _ in range(8)]
    assert sum(call.result(30) for call in calls) == 800 == d.pool.snapshot().answered
    assert d.figures() == (3, 0, 0)
