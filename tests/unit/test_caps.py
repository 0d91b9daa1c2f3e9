"""Limits per client: what is free, who is told that something has become free, and that no crowd gets one more."""

import threading

import pytest

from hermes.dispatch.caps import Caps
from tests.harness import in_threads


def start(caps: Caps, client: str, pool: str = "p") -> bool:
    """One call starts, if it may."""
    with caps:
        if not caps.free(client, pool):
            return False
        caps.take(client)
        return True


def test_who_has_no_limit_is_never_held_up() -> None:
    caps = Caps({"x": 1})
    assert all(start(caps, "y") for _ in range(100))
    assert all(caps.give("y") == set() for _ in range(100)) and not caps._running


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_no_more_than_the_limit_and_again_as_many(limit: int) -> None:
    caps = Caps({"x": limit})
    for _ in range(3):
        assert [start(caps, "x") for _ in range(limit + 2)] == [True] * limit + [False] * 2
        for _ in range(limit):
            caps.give("x")
    assert not caps._running


def test_whoever_was_passed_over_is_told_once_with_the_next_place() -> None:
    caps = Caps({"x": 1, "y": 1})
    assert start(caps, "x", "p") and start(caps, "y", "p")
    assert not any(start(caps, client, pool) for client in "xy" for pool in "qrq")
    assert caps.give("x") == {"q", "r"}
    assert caps.give("y") == {"q", "r"}, "each client has his own list"
    assert start(caps, "x", "p") and caps.give("x") == set()


def test_looking_is_not_taking() -> None:
    caps = Caps({"x": 1})
    with caps:
        assert all(caps.free("x", "p") for _ in range(5))
    assert start(caps, "x") and caps.give("x") == set()


def test_other_limits_hold_for_who_starts_next() -> None:
    caps = Caps({"x": 2, "y": 1})
    assert start(caps, "x") and start(caps, "x") and start(caps, "y")
    assert not start(caps, "x", "q") and not start(caps, "y", "r")
    assert caps.apply({"x": 1}) == {"q", "r"} and caps.apply({"x": 1}) == set()
    assert start(caps, "y"), "no limit any more"
    caps.give("x")
    assert not start(caps, "x", "q"), "one of two still runs, and one is the limit now"
    assert caps.give("x") == {"q"} and start(caps, "x")


def test_a_limit_that_comes_later_counts_what_runs_already() -> None:
    caps: Caps[str] = Caps()
    assert start(caps, "x") and start(caps, "x")
    caps.apply({"x": 2})
    assert not start(caps, "x")


def test_sixty_four_threads_never_exceed_it_and_lose_no_place() -> None:
    caps = Caps({"x": 3, "y": 1})
    lock, running, most, started = threading.Lock(), {"x": 0, "y": 0}, {"x": 0, "y": 0}, {"x": 0, "y": 0}

    def work(number: int) -> None:
        client = "xy"[number % 2]
        for _ in range(50):
            if start(caps, client, f"p{number % 4}"):
                with lock:
                    running[client] += 1
                    started[client] += 1
                    most[client] = max(most[client], running[client])
                with lock:
                    running[client] -= 1
                caps.give(client)

    in_threads(64, work)
    assert most["x"] <= 3 and most["y"] == 1 and min(started.values()) > 0
    assert not caps._running and [start(caps, "x") for _ in range(4)] == [True] * 3 + [False]
