"""A client's own rate and the lock-out of wrong keys; the clock is a list with the present time in it."""

import os
import random
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest

from hermes.dispatch.limits import ADDRESSES, MINUTE, WRONG_KEYS, Allowance, Lockout, Rates


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# -- rates


def test_so_many_and_not_one_more(clock: Clock) -> None:
    rates = Rates(clock)
    assert [rates.take("a", 3) for _ in range(4)] == [Allowance(3, left, 60.0, granted) for left, granted in ((2, True), (1, True), (0, True), (0, False))]
    clock.now += 59.75
    assert rates.take("a", 3) == Allowance(3, 0, 0.25, False)
    clock.now += 0.25
    assert rates.take("a", 3) == Allowance(3, 2, 60.0, True), "what was refused does not count"


def test_the_window_slides(clock: Clock) -> None:
    rates = Rates(clock)
    for _ in range(2):
        assert rates.take("a", 2).granted
        clock.now += 20
    assert rates.take("a", 2) == Allowance(2, 0, 20.0, False)
    clock.now += 20
    assert rates.take("a", 2) == Allowance(2, 0, 20.0, True), "the first has left, the second leaves next"


def test_any_minute_of_an_hour_keeps_the_limit(clock: Clock) -> None:
    rates, chance, taken = Rates(clock), random.Random(7), deque()
    for _ in range(5000):
        clock.now += chance.choice((0.0, 0.01, 0.5, 3.0, 61.0 if chance.random() < 0.05 else 0.1))
        granted = rates.take("a", 7).granted
        while taken and clock.now - taken[0] >= MINUTE:
            taken.popleft()
        assert granted == (len(taken) < 7), "it gives whatever it may, and no more"
        if granted:
            taken.append(clock.now)


def test_clients_do_not_share(clock: Clock) -> None:
    rates = Rates(clock)
    assert rates.take("a", 1).granted and rates.take("b", 1).granted and not rates.take("a", 1).granted


def test_another_limit_counts_what_was_taken(clock: Clock) -> None:
    rates = Rates(clock)
    for _ in range(3):
        rates.take("a", 3)
        clock.now += 1
    assert rates.take("a", 5) == Allowance(5, 1, 57.0, True)
    lowered = rates.take("a", 2)
    assert not lowered.granted and lowered.left == 0
    clock.now += lowered.reset
    assert rates.take("a", 2).granted, "the reset is when it is true again, although the window is over its limit"


def test_whoever_is_gone_is_forgotten(clock: Clock) -> None:
    rates = Rates(clock)
    rates.take("a", 1)
    rates.take("b", 1)
    rates.keep({"a"})
    assert not rates.take("a", 1).granted and rates.take("b", 1).granted


def test_sixty_four_threads_get_exactly_the_limit() -> None:
    """The clock lets another thread go first, while it is looked at: a second one must not get there before the first has counted."""
    looking, crowd = [], []

    def clock() -> float:
        looking.append(None)
        os.sched_yield()
        crowd.append(len(looking))
        looking.pop()
        return 5.0

    rates, together = Rates(clock), threading.Barrier(64)

    def ask() -> int:
        together.wait(60)
        return sum(rates.take("a", 100).granted for _ in range(25))

    with ThreadPoolExecutor(64) as threads:
        assert sum(future.result(60) for future in [threads.submit(ask) for _ in range(64)]) == 100
    assert len(crowd) == 64 * 25 and set(crowd) == {1}


def test_fields() -> None:
    assert Allowance(60, 12, 29.2, True).fields() == (("RateLimit", '"default";r=12;t=30'), ("RateLimit-Policy", '"default";q=60;w=60'))


# -- the lock-out


def wrong(lockout: Lockout, address: str, times: int) -> list[bool]:
    return [lockout.wrong(address) for _ in range(times)]


def test_ten_wrong_keys_lock_an_address_out_for_the_rest_of_its_minute(clock: Clock) -> None:
    lockout = Lockout(clock)
    assert wrong(lockout, "a", WRONG_KEYS - 1) == [False] * (WRONG_KEYS - 1) and lockout.left("a") == 0
    clock.now += 12.5
    assert lockout.wrong("a") and lockout.left("a") == 47.5
    assert not lockout.wrong("a"), "only the tenth is news"
    assert lockout.left("b") == 0
    clock.now += 47.25
    assert lockout.left("a") == 0.25
    clock.now += 0.25
    assert lockout.left("a") == 0 and wrong(lockout, "a", WRONG_KEYS)[-1]


def test_a_new_minute_begins_with_the_next_wrong_key(clock: Clock) -> None:
    lockout = Lockout(clock)
    wrong(lockout, "a", WRONG_KEYS - 1)
    clock.now += MINUTE
    assert wrong(lockout, "a", WRONG_KEYS) == [False] * (WRONG_KEYS - 1) + [True]


def test_memory_is_bounded_and_the_oldest_minute_goes_first(clock: Clock) -> None:
    lockout = Lockout(clock)
    wrong(lockout, "first", WRONG_KEYS)
    clock.now += 1
    wrong(lockout, "second", WRONG_KEYS)
    for number in range(ADDRESSES - 2):
        lockout.wrong(f"other {number}")
    assert lockout.left("first") and lockout.left("second")
    lockout.wrong("one more")
    assert lockout.left("first") == 0 and lockout.left("second")
    assert len(lockout._wrong) == ADDRESSES


def test_an_address_with_a_new_minute_is_not_the_oldest(clock: Clock) -> None:
    lockout = Lockout(clock)
    lockout.wrong("a")
    lockout.wrong("b")
    clock.now += MINUTE
    wrong(lockout, "a", WRONG_KEYS)
    for number in range(ADDRESSES - 1):
        lockout.wrong(f"other {number}")
    assert lockout.left("a"), "b went, whose minute began first"
