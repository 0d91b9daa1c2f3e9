"""When to restart and when to give up. All times are arguments."""

import pytest

from hermes.workers.restart import INTENSITY, PAUSES, PERIOD, RestartPolicy


def die(policy: RestartPolicy, *moments: float, answered: int = 0) -> None:
    """Workers that were each started just before they died."""
    for moment in moments:
        policy.died(moment, moment - 0.01, answered)


def test_nothing_has_happened() -> None:
    assert not RestartPolicy().exhausted and RestartPolicy().pause() == 0.0


def test_pauses_grow() -> None:
    policy, seen = RestartPolicy(), []
    for moment in range(7):
        die(policy, float(moment))
        seen.append(policy.pause())
    assert seen == [*PAUSES, PAUSES[-1], PAUSES[-1]]


@pytest.mark.parametrize(("moments", "exhausted"), [
    ([0, 1, 2, 3], False), ([0, 1, 2, 3, 4], True), ([0, 1, 2, 3, PERIOD], True), ([0, 1, 2, 3, PERIOD + 0.1], False),
    ([0, 10, 20, 30, 40, 50, 60, 70, 80], False), ([0, 40, 41, 42, 43, 44], True),
])
def test_intensity(moments: list[float], exhausted: bool) -> None:
    policy = RestartPolicy()
    die(policy, *map(float, moments))
    assert policy.exhausted == exhausted


def test_workers_that_die_together_are_one_event() -> None:
    policy = RestartPolicy()
    for moment in (10.0, 10.1, 10.2, 10.3, 10.4, 10.5):
        policy.died(moment, 1.0, 0)
    assert not policy.exhausted and policy.pause() == 0.0


def test_an_answer_clears_the_past() -> None:
    policy = RestartPolicy()
    die(policy, 0.0, 1.0, 2.0, 3.0)
    die(policy, 4.0, answered=1)
    assert not policy.exhausted and policy.pause() == PAUSES[0]
    die(policy, 5.0, 6.0, 7.0, answered=1)
    assert not policy.exhausted
    die(policy, 8.0, answered=1)
    assert policy.exhausted


def test_probe() -> None:
    policy = RestartPolicy()
    die(policy, *map(float, range(INTENSITY)))
    policy.forgive(40.0)
    assert not policy.exhausted
    policy.died(40.5, 40.1, 0)
    assert policy.exhausted
    policy.forgive(80.0)
    policy.died(80.5, 80.1, 3)              # it had answered
    assert not policy.exhausted and policy.pause() == 0.0
