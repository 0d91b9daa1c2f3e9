"""The pool among several clients: limits that pools share, who has to go, deadlines, rest, and what is charged however a call ends."""

import math
import threading
import time
from types import SimpleNamespace

import pytest

from hermes.dispatch import pool as pool_module
from hermes.dispatch.caps import Caps
from hermes.dispatch.pool import Pool
from hermes.dispatch.shares import Claim
from hermes.dispatch.ticket import Ticket
from hermes.errors import QueueFull, QueueTimeout
from tests.harness import eventually, in_threads

FOREVER = math.inf


@pytest.fixture
def staffed(new_child):
    """A pool whose workers are all idle."""
    def make(size: int = 1, caps: Caps | None = None, limit: int = 100, name: str = "m") -> Pool:
        pool = Pool(name, name, size, limit, caps=caps)
        for _ in range(size):
            pool.offer(new_child())
        return pool
    return make


def come(pool: Pool, client: str, patience: float = FOREVER, **claim) -> Ticket:
    return pool.enter(Claim(client, **claim), patience)


def figures(pool: Pool) -> tuple[int, int, int]:
    picture = pool.snapshot()
    return picture.idle, picture.busy, picture.queued


def rung(ticket: Ticket) -> bool:
    return not ticket._rung.locked()


# -- limits that pools share ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["used", "unused", "given up", "died", "left"])
def test_he_takes_no_idle_worker_and_is_next_when_his_call_ends_elsewhere(staffed, end: str) -> None:
    caps = Caps({"x": 1})
    here, there = staffed(1, caps), staffed(1, caps)
    running = come(there, "x")
    waiting = come(here, "x")
    assert running.child and waiting.child is None and figures(here) == (1, 0, 1) and here.position(waiting) == (1, 1)
    child = running.child
    if end == "died":
        there.discard(child)
    elif end == "left":
        there.leave(running)
    else:
        there.release(child, reusable=end != "given up", took=1.0 if end == "used" else None)
    assert rung(waiting) and waiting.child and figures(here) == (0, 1, 0)
    here.release(waiting.child, reusable=True, took=1.0)
    assert not caps._running and come(here, "x").child


def test_a_worker_that_died_gives_its_place_back_once(staffed) -> None:
    caps = Caps({"x": 2})
    pool = staffed(3, caps)
    first, second = come(pool, "x"), come(pool, "x")
    pool.discard(first.child)
    pool.release(first.child, reusable=False)
    assert come(pool, "x").child and second.child
    assert come(staffed(1, caps), "x").child is None, "two run"


def test_whoever_comes_does_not_wait_behind_one_at_his_limit(staffed) -> None:
    caps = Caps({"x": 1})
    pool = staffed(3, caps)
    first, *held = (come(pool, "x") for _ in range(4))
    assert first.child and not any(ticket.child for ticket in held) and figures(pool) == (2, 1, 3)
    other = come(pool, "y", rank=2)
    assert other.child and rung(other) is False, "at once, and nobody rings"
    pool.release(other.child, reusable=True, took=1.0)
    assert not any(rung(ticket) for ticket in held)
    pool.release(first.child, reusable=True, took=1.0)
    assert [ticket.child is not None for ticket in held] == [True, False, False], "his oldest, and one only"


def test_the_others_are_not_held_up_in_the_queue_either(staffed) -> None:
    caps = Caps({"x": 1})
    pool = staffed(1, caps)
    blocked, busy = come(staffed(1, caps), "x"), come(pool, "y")
    mine, others = come(pool, "x"), come(pool, "y")
    pool.release(busy.child, reusable=True, took=1.0)
    assert blocked.child and mine.child is None and others.child
    pool.release(others.child, reusable=True, took=1.0)
    assert mine.child is None and figures(pool) == (1, 0, 1)


def test_a_new_limit_lets_him_go_on(staffed) -> None:
    caps = Caps({"x": 1})
    pool = staffed(2, caps)
    come(pool, "x")
    waiting = come(pool, "x")
    assert waiting.child is None
    for each in caps.apply({}):
        each.match()
    assert waiting.child and rung(waiting)


def test_sixty_four_threads_and_two_models(staffed, new_pair) -> None:
    """Never one more than his three at once; and no place is lost, else somebody would wait for ever."""
    caps = Caps({"x": 3})
    pools = [staffed(8, caps, name="a"), staffed(8, caps, name="b")]
    lock, running, most, ours = threading.Lock(), 0, 0, new_pair()[0]

    def work(number: int) -> int:
        nonlocal running, most
        for turn in range(6):
            pool, mine = pools[(number + turn) % 2], number % 4 != 0
            child = pool.wait(come(pool, "x" if mine else "y"), ours)
            with lock:
                running += mine
                most = max(most, running)
            with lock:
                running -= mine
            if turn % 3:
                pool.release(child, reusable=True, took=0.001)
            else:
                pool.discard(child)
                pool.release(child, reusable=False)
                pool.offer(child)           # as good as a replacement: its process has not been touched
        return 1

    assert sum(in_threads(64, work)) == 64 and 1 <= most <= 3
    assert [figures(pool) for pool in pools] == [(8, 0, 0)] * 2 and not caps._running


# -- a full queue --------------------------------------------------------------------------------------------------


def test_who_holds_more_than_the_newcomer_gives_up_his_newest(staffed, new_pair) -> None:
    pool, ours = staffed(1, limit=3), new_pair()[0]
    come(pool, "heavy")
    one, two, three = (come(pool, "heavy") for _ in range(3))
    light = come(pool, "light")
    assert [rung(ticket) for ticket in (one, two, three, light)] == [False, False, True, False] and figures(pool) == (0, 1, 3)
    with pytest.raises(QueueFull) as caught:
        pool.wait(three, ours)
    assert (caught.value.status, caught.value.code) == (503, "queue_full") and 1 <= caught.value.retry_after <= 59
    assert "3 waiting" in caught.value.text
    with pytest.raises(QueueFull):
        come(pool, "heavy")
    assert not rung(one) and not rung(two) and pool.position(three) == (0, 3)
    pool.leave(three)
    assert figures(pool) == (0, 1, 3)


# -- rest ----------------------------------------------------------------------------------------------------------


def test_nobody_gets_a_turn_while_it_rests(staffed, new_child, new_pair) -> None:
    pool = staffed(2)
    running = come(pool, "x")
    pool.pause(True)
    first, second, third = (come(pool, "x") for _ in range(3))
    pool.offer(new_child())
    pool.release(running.child, reusable=True, took=1.0)
    pool.match()
    assert figures(pool) == (2, 0, 3) and pool.snapshot().paused and not rung(first)
    with pytest.raises(QueueTimeout):
        pool.wait(come(pool, "x", patience=0.0), new_pair()[0])
    pool.pause(False)
    assert first.child and second.child and third.child is None and figures(pool) == (0, 2, 1) and not pool.snapshot().paused


def test_resting_twice_is_resting(staffed) -> None:
    pool = staffed()
    for paused in (True, True, False, False):
        pool.pause(paused)
    assert come(pool, "x").child


def test_whoever_waits_when_a_resting_pool_is_retired_is_still_served(staffed) -> None:
    pool = staffed()
    pool.pause(True)
    waiting = come(pool, "x")
    pool.resize(1, 4)
    assert waiting.child is None and pool.snapshot().paused
    pool.resize(0, 4)
    assert waiting.child and rung(waiting) and not pool.snapshot().paused


def test_a_pool_that_was_retired_just_before_does_not_rest(staffed) -> None:
    """Who pauses it found it before the reload; nobody could find it to wake it."""
    pool = staffed()
    running = come(pool, "x")
    waiting = come(pool, "x")
    pool.resize(0, 4)
    pool.pause(True)
    pool.release(running.child, reusable=True, took=1.0)
    assert waiting.child and rung(waiting) and not pool.snapshot().paused


# -- deadlines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("deadline", "patience", "said"), [(0.02, FOREVER, "waited 0.02 s"), (FOREVER, 0.02, "waited 0.02 s"), (1000.0, 0.02, "waited 0.02 s")])
def test_whichever_is_sooner(staffed, new_pair, deadline: float, patience: float, said: str) -> None:
    pool, now = staffed(), time.monotonic()
    come(pool, "y")
    ticket = come(pool, "x", patience, deadline=now + deadline)
    assert ticket.claim.deadline < now + 10.0
    with pytest.raises(QueueTimeout, match=said if patience < FOREVER else "waited 0.0"):
        pool.wait(ticket, new_pair()[0])
    assert figures(pool) == (0, 1, 0)


@pytest.mark.parametrize("patience", [1e6, 1e7, 1e13, 1e300, FOREVER])
def test_no_patience_is_too_long_for_the_kernel(staffed, new_child, new_pair, start, patience: float) -> None:
    pool = staffed()
    running, ticket = come(pool, "x"), come(pool, "x", patience)
    waits = start(pool.wait, ticket, new_pair()[0])
    eventually(lambda: ticket._bell or waits.done())
    pool.release(running.child, reusable=True, took=1.0)
    assert waits.result(10) is ticket.child is not None


def test_a_deadline_that_has_come_is_no_obstacle_to_who_needs_not_wait(staffed) -> None:
    assert come(staffed(), "x", 0.0).child


# -- what is charged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "charged"), [("answered", 10.0), ("cancelled", 10.0), ("given up", 10.0), ("died", 10.0), ("unused", 0.0), ("left", 0.0)])
def test_a_call_that_came_to_nothing_has_taken_its_time(staffed, monkeypatch: pytest.MonkeyPatch, end: str, charged: float) -> None:
    now = [100.0]
    monkeypatch.setattr(pool_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pool = staffed(2)
    ticket, other = come(pool, "x"), come(pool, "x")
    account = pool._backlog._classes[1]._accounts["x"]
    assert other.child and account.running == 2
    before = account.time - account.charged
    now[0] += 10.0
    if end == "died":
        pool.discard(ticket.child)
    elif end == "left":
        pool.leave(ticket)
    else:
        pool.release(ticket.child, reusable=end != "given up", answered=end == "answered", took=10.0 if end in ("answered", "cancelled") else None)
    assert account.time - account.charged == pytest.approx(before + charged) and account.running == 1
