"""First come, first served, bounded."""

import random

import pytest

from hermes.dispatch.backlog import Backlog, retry_after


def test_order_and_bound() -> None:
    backlog: Backlog[str] = Backlog(3)
    assert [backlog.push(name) for name in "abcd"] == [True, True, True, False]
    assert (len(backlog), backlog.oldest()) == (3, "a")
    assert backlog.remove("b") and not backlog.remove("b") and not backlog.remove("d")
    assert backlog.push("e")
    assert [backlog.pop() for _ in range(3)] == ["a", "c", "e"]
    assert backlog.oldest() is None
    with pytest.raises(KeyError):
        backlog.pop()


def test_clear_and_a_limit_that_shrinks() -> None:
    backlog: Backlog[int] = Backlog(3)
    for number in range(3):
        backlog.push(number)
    backlog.limit = 1
    assert not backlog.push(9) and len(backlog) == 3
    assert backlog.clear() == [0, 1, 2] and len(backlog) == 0 and backlog.clear() == []
    assert not Backlog(0).push(1)


@pytest.mark.parametrize(("depth", "slots", "service", "seconds"), [
    (64, 1, 2.0, 64.0), (64, 4, 2.0, 16.0),     # half of the queue has had its turn
    (16, 2, 0.5, 2.0), (3, 1, 2.0, 3.0),
    (1, 1, 2.0, 2.0), (0, 1, 2.0, 2.0), (0, 4, 2.0, 0.5),       # short or no queue: when a worker is likely to be free
    (4, 0, 2.0, 4.0), (64, 1, 0.0, 0.0),        # a pool that is being retired; calls that take no time
])
def test_when_to_come_again(depth: int, slots: int, service: float, seconds: float) -> None:
    assert retry_after(depth, slots, service) == seconds


def test_against_a_list() -> None:
    rng, backlog, model = random.Random(3), Backlog(10), []
    for step in range(5000):
        match rng.randrange(3):
            case 0:
                assert backlog.push(step) == (len(model) < 10)
                model += [step] if len(model) < 10 else []
            case 1 if model:
                assert backlog.pop() == model.pop(0)
            case _:
                victim = rng.choice(model) if model and rng.random() < 0.7 else -1
                assert backlog.remove(victim) == (victim in model)
                model = [ticket for ticket in model if ticket != victim]
        assert (len(backlog), backlog.oldest()) == (len(model), model[0] if model else None)
